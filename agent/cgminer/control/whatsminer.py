"""Whatsminer (btminer) API v1 and v2: reads in the open, writes enciphered under a token.

    STOP power_off, START power_on    LIMIT adjust_power_limit | set_low_power, set_normal_power, set_high_power
    POOLS update_pools                BLINK set_led            PASSWORD update_pwd        REBOOT reboot
    LOGS download_logs                FIRMWARE update_firmware (both go on over their connection, see transfer)

Invariants:

* A limit, a mode and pools restart the mining process: they are refused to a miner that was told to stop.
* Code 45 is for good: the write API is off, which only the vendor's tool can change.
* A changed password is proven by a write with it that changes nothing, a few seconds apart: each costs a token.

Source: WhatsMiner API 2.0.5.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from agent.cgminer.control.asked import blink_asked, limit_asked, mode_asked, pools_asked, power_asked, version_asked
from agent.cgminer.control.commanded import refuse_while_stopped
from agent.cgminer.control.driver import ReadBack, Wanted
from agent.cgminer.control.limits import kept_limit, lost_limit
from agent.cgminer.control.read_back import (
    shows,
    shows_limited,
    shows_rebooted,
    shows_set,
    shows_started,
    shows_stopped,
)
from agent.cgminer.control.rpc_pools import shows_pools
from agent.cgminer.control.versions import runs
from agent.cgminer.control.web_answers import credentials_of
from agent.cgminer.control.whatsminer_access import WhatsminerAccess, opened
from agent.cgminer.control.whatsminer_transfer import Talk, image_of
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.dialects.whatsminer import is_off
from agent.cgminer.observation import Observation
from agent.cgminer.sections import number
from agent.cgminer.status import Status
from agent.errors import AccessDenied, Garbled, Refused, UnsupportedDevice
from sitelink.types import Verb
from sitelink.units import Watts
from sitelink.verbs import MOST_POOLS, Pool

_USER: Final = "admin"
_MODES: Final = {"low": "set_low_power", "normal": "set_normal_power", "high": "set_high_power"}
_BLINK: Final[Mapping[str, object]] = {"color": "red", "period": 200, "duration": 100, "start": 0}
_AUTO: Final[Mapping[str, object]] = {"param": "auto"}
_PASSWORD: Final = re.compile(r"[A-Za-z0-9_]{1,8}")
_PROVE_AGAIN_S: Final = 5.0
_NOT_PROVEN: Final = shows_set(Verb.PASSWORD, False)


class Whatsminer:
    """Control of one Whatsminer of API v1 or v2."""

    def __init__(self, fallback: str = "") -> None:
        """``fallback`` is the password for a device that carries no credentials; empty where none is known either."""
        self._fallback = fallback
        self._access = WhatsminerAccess()
        self._proof = WhatsminerAccess()
        self._proven_at: float | None = None

    @property
    def verbs(self) -> frozenset[Verb]:
        """Return what a Whatsminer can be told: everything."""
        return frozenset(Verb)

    async def former(self, device: Device, wanted: Wanted) -> str:
        """Return mode and limit before a limit or a stop, the pools before new ones, the lamp before it blinks."""
        if wanted.verb is Verb.STOP:
            return await self.limits(device, None)
        if wanted.verb is Verb.LIMIT:
            said = await _told(device, "status")
            return json.dumps({name: said.get(name) for name in ("power_mode", "power_limit_set")})
        if wanted.verb is Verb.POOLS:
            return json.dumps({"pools": (await device.ask("pools")).get("POOLS")})
        if wanted.verb is Verb.BLINK:
            return json.dumps({"ledstat": (await _told(device, "get_miner_info")).get("ledstat")})
        if wanted.verb is Verb.FIRMWARE:
            return json.dumps({"version": await _version(device)})
        return ""

    async def limits(self, device: Device, seen: Observation | None) -> str:
        """See ``KeepsLimit.limits``; the look has both, else ``status`` has."""
        if seen is not None and seen.power_limit_w is not None:
            return kept_limit(seen.power_limit_w, seen.power_mode)
        said = await _told(device, "status")
        return "" if is_off(said) else kept_limit(number(said.get("power_limit_set")), said.get("power_mode"))

    async def lost(self, device: Device, kept: Mapping[str, Any], seen: Observation) -> Wanted | None:
        """See ``KeepsLimit.lost``."""
        if seen.power_limit_w is not None:
            return lost_limit(kept, seen.power_limit_w, seen.power_mode)
        said = await _told(device, "status")
        return lost_limit(kept, number(said.get("power_limit_set")), said.get("power_mode"))

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        """See ``Driver.send``."""
        command, parameters = self._order(device, wanted)
        if wanted.verb in (Verb.LIMIT, Verb.POOLS):
            refuse_while_stopped(is_off(await _told(device, "status")), device.address, command)
        if wanted.verb is Verb.LOGS:
            return await self._fetch_logs(device)
        if wanted.verb is Verb.FIRMWARE:
            await self._give_firmware(device, image_of(device, wanted.image))
        else:
            await self._access.write(device, self._password(device), command, parameters)
        if wanted.verb is Verb.PASSWORD:
            self._access.forget()
            self._proven_at = None
        return b""

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        """See ``Driver.shows``."""
        if wanted.verb is Verb.PASSWORD:
            return await self._shows_password(device, wanted.secret)
        if wanted.verb is Verb.POOLS:
            return await shows_pools(device, pools_asked(wanted))
        if wanted.verb is Verb.BLINK:
            blinks = (await _told(device, "get_miner_info")).get("ledstat", "auto") != "auto"
            return shows_set(Verb.BLINK, blinks == blink_asked(wanted))
        if wanted.verb is Verb.FIRMWARE:
            return shows_set(Verb.FIRMWARE, runs(await _version(device), version_asked(wanted)))
        seen = await device.observe()
        if wanted.verb is Verb.LIMIT:
            return await _shows_limit(device, wanted, seen)
        if wanted.verb is Verb.REBOOT:
            return shows_rebooted(seen, before)
        return shows_stopped(seen, before) if wanted.verb is Verb.STOP else shows_started(seen)

    def _password(self, device: Device) -> str:
        if device.credentials is None and self._fallback:
            return self._fallback
        return credentials_of(device).password

    def _order(self, device: Device, wanted: Wanted) -> tuple[str, Mapping[str, object]]:
        """Return the write command for ``wanted`` and its parameters. Raises Refused when they are not clear."""
        match wanted.verb:
            case Verb.STOP:
                # "true" is text: the firmware ignores a JSON true and then answers only after the boards are off.
                return "power_off", {"respbefore": "true"}
            case Verb.START:
                return "power_on", {}
            case Verb.LIMIT:
                return _limit(wanted)
            case Verb.POOLS:
                return "update_pools", _pools(pools_asked(wanted))
            case Verb.BLINK:
                return "set_led", _BLINK if blink_asked(wanted) else _AUTO
            case Verb.PASSWORD:
                return "update_pwd", {"old": self._password(device), "new": _new_password(device, wanted)}
            case Verb.FIRMWARE:
                version_asked(wanted)
                return "update_firmware", {}
            case Verb.LOGS:
                return "download_logs", {}
            case Verb.REBOOT:
                return "reboot", {}

    async def _fetch_logs(self, device: Device) -> bytes:
        command = "download_logs"
        packet = await self._access.packet(device, self._password(device), command, {})
        async with device.connection(device.deadlines.for_log()) as (stream, limits):
            talk = Talk(device, stream, limits)
            await talk.tell(packet.request)
            answer = opened(device, await talk.document(), packet.key)
            self._access.check(device, Status.of(answer), command)
            said = answer.get("Msg")
            return await talk.logs(said.get("logfilelen") if isinstance(said, dict) else None)

    async def _give_firmware(self, device: Device, image: bytes) -> None:
        command = "update_firmware"
        packet = await self._access.packet(device, self._password(device), command, {})
        async with device.connection(device.deadlines.for_image()) as (stream, limits):
            talk = Talk(device, stream, limits)
            await talk.tell(packet.request)
            answer = opened(device, await talk.document(), packet.key)
            self._access.check(device, Status.of(answer), command)
            if str(answer.get("Msg")).lower() != "ready":
                raise UnsupportedDevice(
                    f"{device.address}: is not ready for firmware ({Status.of(answer).text}); use the vendor's tool"
                )
            await talk.give(image)
            self._access.check(device, Status.of(opened(device, await talk.document(), packet.key)), command)

    async def _shows_password(self, device: Device, secret: str) -> ReadBack:
        """Return whether the device takes a write under the new password; asked rarely, for each may cost a token."""
        now_s = device.monotonic()
        if self._proven_at is not None and now_s - self._proven_at < _PROVE_AGAIN_S:
            return _NOT_PROVEN
        self._proven_at = now_s
        lamp = (await _told(device, "get_miner_info")).get("ledstat", "auto")
        self._proof.forget()  # a changed password changes the salt that a token rests on
        try:
            await self._proof.write(device, secret, "set_led", _AUTO if lamp == "auto" else _BLINK)
        except (AccessDenied, UnsupportedDevice, Garbled):
            return _NOT_PROVEN
        device.credentials = Credentials(_USER, secret)
        return shows_set(Verb.PASSWORD, True)


def _limit(wanted: Wanted) -> tuple[str, Mapping[str, object]]:
    limit = limit_asked(wanted)
    if isinstance(limit, str):
        return _MODES[limit], {}
    return "adjust_power_limit", {"power_limit": str(round(limit))}


def _pools(pools: tuple[Pool, ...]) -> dict[str, object]:
    """Return the three pools of ``update_pools``; those not wanted are emptied."""
    filled = (*pools, *(Pool("", "", "") for _ in range(MOST_POOLS - len(pools))))
    found: dict[str, object] = {}
    for place, pool in enumerate(filled, 1):
        found |= {f"pool{place}": pool.url, f"worker{place}": pool.user, f"passwd{place}": pool.password}
    return found


def _new_password(device: Device, wanted: Wanted) -> str:
    if not _PASSWORD.fullmatch(wanted.secret):
        raise Refused(
            "bad_parameters",
            f"{device.address}: takes passwords of 1 to 8 letters, digits and underscores; make one of those",
        )
    return wanted.secret


async def _told(device: Device, command: str) -> Mapping[str, Any]:
    """Return what btminer says of itself under ``Msg``; empty where it says nothing."""
    said = (await device.ask(command)).get("Msg")
    return said if isinstance(said, dict) else {}


async def _version(device: Device) -> str:
    return str((await _told(device, "get_version")).get("fw_ver") or "")


async def _shows_limit(device: Device, wanted: Wanted, seen: Observation) -> ReadBack:
    said, limit_w = await _told(device, "status"), power_asked(wanted)
    if limit_w is None:
        mode = str(said.get("power_mode", "")).lower()
        return shows(mode == mode_asked(wanted), "mode_in_force", "mode_not_in_force")
    set_w = number(said.get("power_limit_set"))
    return shows_limited(seen.power_limit_w if set_w is None else Watts(set_w), seen, limit_w)
