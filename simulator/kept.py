"""What a device keeps through a reboot: its password, pools, mode, power limit, lamp and firmware.

Invariant: only ``Miner`` writes here, so that every change stands in the device log.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from sitelink.units import Watts

MODE_SHARES = {"low": 0.72, "normal": 1.0, "high": 1.08}
"""Power in a mode as a share of nameplate."""
LOWEST_LEVEL, HIGHEST_LEVEL = 0.4, 1.1
FACTORY_ACCOUNTS = {
    "antminer": ("root", "root"),
    "braiins": ("root", "root"),
    "braiins-rest": ("root", "root"),
    "hiveon": ("root", "root"),
    "whatsminer": ("admin", "admin"),
    "whatsminer-v3": ("super", "super"),
    "vnish": ("admin", "admin"),
    "avalon": ("root", "root"),
    "luxos": ("root", "root"),
    "cgminer": ("", ""),
    "epic": ("", "letmein"),
    "auradine": ("admin", "admin"),
    "innosilicon": ("admin", "admin"),
    "goldshell": ("admin", "123456789"),
    "bitaxe": ("", ""),
}
"""By dialect, the user and the password as the device leaves the factory."""
_VERSION = re.compile(rb"version=([0-9A-Za-z][0-9A-Za-z.+_-]{0,62})")


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool as a device keeps it."""

    url: str
    user: str
    password: str = "x"  # noqa: S105 - what pools are told


@dataclass(slots=True)
class Kept:
    """One device's flash.

    ``limit_w`` None is no limit; ``sleeps_on``: whether a sleep outlives a reboot, where that can be set; ``more`` is
    what only one firmware knows.
    """

    user: str
    password: str
    pools: tuple[Pool, ...]
    active_pool: int = 0
    mode: str = "normal"
    limit_w: Watts | None = None
    led: bool = False
    firmware: str = ""
    password_changes: int = 0
    reboots: int = 0
    sleeps_on: bool = True
    more: dict[str, Any] = field(default_factory=dict)

    def forget_limit(self) -> None:
        """Be limited by nothing any more, as after a restart that does not keep what was set."""
        self.mode, self.limit_w = "normal", None
        for name in ("profile", "max_profile", "level", "next mode"):
            self.more.pop(name, None)

    def level(self, nameplate_w: Watts) -> float:
        """Return what the device draws when running, as a share of its nameplate."""
        share = MODE_SHARES[self.mode]
        if self.limit_w is not None:
            share = self.limit_w / nameplate_w if self.mode == "normal" else min(share, self.limit_w / nameplate_w)
        return min(max(share, LOWEST_LEVEL), HIGHEST_LEVEL)


def factory(dialect: str, index: int, password: str | None = None) -> Kept:
    """Return the flash of the miner with ``index``, set up for its site and otherwise as it left the factory."""
    user, default = FACTORY_ACCOUNTS.get(dialect, ("root", "root"))
    pools = tuple(
        Pool(f"stratum+tcp://stratum.pool-{number}.example:3333", f"site.{index}") for number in ("one", "two")
    )
    return Kept(user, default if password is None else password, pools)


def version_in(image: bytes, digest: str) -> str:
    """Return the version that a firmware image names (``version=..``), or one made of its SHA-256 ``digest``."""
    found = _VERSION.search(image)
    return found[1].decode() if found else f"sim-{digest[:12]}"
