"""What a Whatsminer's encrypted commands do: power, modes, pools, lamp, password, logs, firmware.

Invariants: a parameter that makes no sense changes nothing and is answered with code 132; a firmware image follows on
the same connection, behind its length, once ``update_firmware`` was answered with ``ready``.

Source: WhatsMiner API 2.0.5.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from simulator.dialects.rpc import Row
from simulator.kept import Pool, version_in
from simulator.miner import Miner
from sitelink.types import Verb
from sitelink.units import Watts

DONE = "API command OK"
AWAITS_IMAGE = "awaits image"
STREAM = "stream"
_MOST_POOLS = 3
_RESTART_S = 12.0


class BadParameter(ValueError):
    """A command's parameter makes no sense; the text is what the device says."""


def carry_out(miner: Miner, command: str, order: Row) -> Any:
    """Do what an encrypted ``command`` asks and return the reply's ``Msg``; None when there is no such command.

    Raises:
        BadParameter: its parameters make no sense; nothing changed.
    """
    write = _WRITES.get(command)
    return None if write is None else write(miner, order)


def take_image(miner: Miner, image: bytes) -> None:
    """Install a firmware image that came after ``ready``."""
    miner.memory.pop(AWAITS_IMAGE, None)
    digest = hashlib.sha256(image).hexdigest()
    miner.install(version_in(image, digest), digest, len(image))


def set_limit(miner: Miner, value: Any) -> None:
    """Set the power limit to ``value`` W, at most what the model draws.

    Raises:
        BadParameter: it is no number of watts in range.
    """
    try:
        limit_w = float(value)
    except (TypeError, ValueError):
        raise BadParameter("invalid param") from None
    if not 0 < limit_w <= miner.place.model.nameplate_w:
        raise BadParameter("power limit out of range")
    miner.limit(Watts(limit_w))


def set_pools(miner: Miner, rows: list[tuple[str, str, str]]) -> None:
    """Set the pools to ``rows`` of (url, worker, password).

    Raises:
        BadParameter: none, too many, or one without a url.
    """
    if not 1 <= len(rows) <= _MOST_POOLS or not all(url for url, _, _ in rows):
        raise BadParameter("invalid pool")
    miner.set_pools(tuple(Pool(*row) for row in rows))


def log_of(miner: Miner) -> bytes:
    """Return the archive of logs that the device packs."""
    lines = (
        f"btminer: {miner.place.model.name} {miner.kept.mode} power, {len(miner.kept.pools)} pools",
        f"btminer: up {int(miner.time.seconds() - miner.booted_s)} s",
        *(f"btminer: share {number} accepted" for number in range(60)),
    )
    return miner.hand_out("\n".join(lines).encode() + b"\n")


def _power_off(miner: Miner, order: Row) -> str:
    if not isinstance(order.get("respbefore", ""), str):
        raise BadParameter("invalid param")
    miner.order(Verb.STOP)
    return DONE


def _power_on(miner: Miner, _order: Row) -> str:
    miner.order(Verb.START)
    return DONE


def _adjust_power_limit(miner: Miner, order: Row) -> str:
    set_limit(miner, order.get("power_limit"))
    return DONE


def _set_power_pct(miner: Miner, order: Row) -> str:
    percent = str(order.get("percent", ""))
    if not percent.isdecimal() or not 0 < int(percent) <= 100:
        raise BadParameter("invalid param")
    miner.limit(Watts(miner.place.model.nameplate_w * int(percent) / 100), percent=int(percent))
    return DONE


def _mode(mode: str) -> Callable[[Miner, Row], str]:
    def set_mode(miner: Miner, _order: Row) -> str:
        miner.limit(mode=mode)
        return DONE

    return set_mode


def _reboot(miner: Miner, _order: Row) -> str:
    miner.reboot()
    return DONE


def _restart(miner: Miner, _order: Row) -> str:
    miner.reboot(Verb.REBOOT, _RESTART_S, only="btminer")
    return DONE


def _update_pools(miner: Miner, order: Row) -> str:
    numbers = range(1, _MOST_POOLS + 1)
    rows = [tuple(str(order.get(f"{name}{number}", "")) for name in ("pool", "worker", "passwd")) for number in numbers]
    set_pools(miner, [(row[0], row[1], row[2]) for row in rows if any(row)])
    return DONE


def _set_led(miner: Miner, order: Row) -> str:
    on = order.get("param") != "auto"
    if on and order.get("color") not in {"red", "green"}:
        raise BadParameter("invalid param")
    miner.change(Verb.BLINK, lambda: setattr(miner.kept, "led", on), on=on)
    return DONE


def _update_pwd(miner: Miner, order: Row) -> str:
    new = str(order.get("new", ""))
    if order.get("old") != miner.kept.password or not new or len(new.encode()) > 8:
        raise BadParameter("password err")
    miner.set_password(new)
    return DONE


def _download_logs(miner: Miner, _order: Row) -> Row:
    log = log_of(miner)
    miner.memory[STREAM] = log
    return {"logfilelen": str(len(log))}


def _update_firmware(miner: Miner, _order: Row) -> str:
    miner.memory[AWAITS_IMAGE] = True
    return "ready"


_WRITES: dict[str, Callable[[Miner, Row], Any]] = {
    "power_off": _power_off,
    "power_on": _power_on,
    "adjust_power_limit": _adjust_power_limit,
    "set_power_pct": _set_power_pct,
    "set_low_power": _mode("low"),
    "set_normal_power": _mode("normal"),
    "set_high_power": _mode("high"),
    "reboot": _reboot,
    "restart_btminer": _restart,
    "update_pools": _update_pools,
    "set_led": _set_led,
    "update_pwd": _update_pwd,
    "download_logs": _download_logs,
    "update_firmware": _update_firmware,
}
