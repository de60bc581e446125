"""Whatsminer API v3: framed documents, each write signed by a salt, a time and the account's password.

    get.device.info salt -> salt, when
    digest = sha256(command + password + salt + ts)       token = first 8 characters of base64(digest)
    {"cmd","param","ts","token","account"}                a secret param: AES-256-ECB(digest, param), base64

    STOP, START  set.miner.service stop | start           LIMIT  set.miner.power_limit | set.miner.power_mode
    POOLS        set.miner.pools, enciphered              BLINK  set.system.led
    REBOOT       set.system.reboot                        PASSWORD  set.user.change_passwd, enciphered
    LOGS         get.log.download                         FIRMWARE  set.system.update_firmware (see transfer)

Invariants:

* The password never travels, and the time signed is the device's own, which may be years off.
* A limit and pools restart the mining service: they are refused to a miner that was told to stop.
* "no permission" is for good: the write API is off, which only the vendor's tool can change.
* A changed password is proven by a write under it that changes nothing.

Source: WhatsMiner API 3.0 (apidoc.whatsminer.com): Token Generation, get.device.info, get.miner.setting,
get.miner.status, get.log.download, set.miner.service, set.miner.power_limit, set.miner.power_mode, set.miner.pools,
set.system.led, set.system.reboot, set.system.update_firmware, set.user.change_passwd. We have not seen the vendor's
page on the last one's parameter, only others who send ``account``, ``old`` and ``new``; nor how the log's size is
called, so the one number in that answer is taken.
"""

import base64
import hashlib
import json
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
from agent.cgminer.control.versions import runs
from agent.cgminer.control.web_answers import credentials_of
from agent.cgminer.control.whatsminer_access import ENABLE_API, seal
from agent.cgminer.control.whatsminer_transfer import Talk, image_of
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.dialects.whatsminer_v3 import is_off
from agent.cgminer.framed import encode
from agent.cgminer.observation import Observation
from agent.cgminer.sections import number, rows_of, whole
from agent.errors import AccessDenied, Garbled, Refused, SessionBusy, UnsupportedDevice
from sitelink.types import Verb
from sitelink.units import Watts
from sitelink.verbs import Pool

_SECRET_PARAMETERS: Final = frozenset({Verb.POOLS, Verb.PASSWORD})
_ACCOUNT: Final = "super"
_ADMIN: Final = "admin"
"""The account of API v2, which the credentials of a whole Whatsminer group may name."""
_TOKEN_LENGTH: Final = 8
_BLINK: Final = [{"color": "red", "period": 200, "duration": 100, "start": 0}]
_WRONG_PASSWORD: Final = -1
_FORBIDDEN: Final = ("permission", "access")
_WRONG: Final = ("token", "password")
_BUSY: Final = ("busy", "over max", "too many")
_SHOWN: Final = 120


class WhatsminerV3:
    """Control of one Whatsminer of API v3."""

    @property
    def verbs(self) -> frozenset[Verb]:
        """Return what a Whatsminer of API v3 can be told: everything."""
        return frozenset(Verb)

    async def former(self, device: Device, wanted: Wanted) -> str:
        """Return mode and limit before a limit or a stop, the pools before new ones, the lamp before it blinks."""
        if wanted.verb is Verb.STOP:
            return await self.limits(device, None)
        if wanted.verb is Verb.LIMIT:
            said = await _told(device, "get.miner.setting")
            return json.dumps({name: said.get(name) for name in ("power-mode", "power-limit")})
        if wanted.verb is Verb.POOLS:
            return json.dumps({"pools": (await _told(device, "get.miner.status", "pools")).get("pools")})
        if wanted.verb is Verb.BLINK:
            return json.dumps({"ledstatus": await _lamp(device)})
        if wanted.verb is Verb.FIRMWARE:
            return json.dumps({"version": await _version(device)})
        return ""

    async def limits(self, device: Device, seen: Observation | None) -> str:
        """See ``KeepsLimit.limits``; the look has no mode, so both are asked for."""
        said = await _told(device, "get.miner.setting")
        return kept_limit(number(said.get("power-limit")), said.get("power-mode"))

    async def lost(self, device: Device, kept: Mapping[str, Any], seen: Observation) -> Wanted | None:
        """See ``KeepsLimit.lost``."""
        said = await _told(device, "get.miner.setting")
        return lost_limit(kept, number(said.get("power-limit")), said.get("power-mode"))

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        """See ``Driver.send``."""
        if wanted.verb is Verb.LOGS:
            return await _fetch_logs(device)
        command, parameter = _order(device, wanted)
        if wanted.verb in (Verb.LIMIT, Verb.POOLS):
            miner = (await _told(device, "get.device.info", "miner")).get("miner")
            working = miner.get("working") if isinstance(miner, dict) else None
            refuse_while_stopped(is_off(working), device.address, command)
        signed = await _signed(device, _access_of(device), command, parameter, secret=wanted.verb in _SECRET_PARAMETERS)
        if wanted.verb is Verb.FIRMWARE:
            await _give_firmware(device, signed, image_of(device, wanted.image))
        else:
            _raise_unless_taken(device, command, await device.framed(signed))
        return b""

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        """See ``Driver.shows``."""
        if wanted.verb is Verb.POOLS:
            return await _shows_pools(device, pools_asked(wanted))
        if wanted.verb is Verb.BLINK:
            blinks = await _lamp(device) != "auto"
            return shows_set(Verb.BLINK, blinks == blink_asked(wanted))
        if wanted.verb is Verb.PASSWORD:
            return await _shows_password(device, wanted.secret)
        if wanted.verb is Verb.FIRMWARE:
            return shows_set(Verb.FIRMWARE, runs(await _version(device), version_asked(wanted)))
        seen = await device.observe()
        if wanted.verb is Verb.LIMIT:
            return await _shows_limit(device, wanted, seen)
        if wanted.verb is Verb.REBOOT:
            return shows_rebooted(seen, before)
        return shows_stopped(seen, before) if wanted.verb is Verb.STOP else shows_started(seen)


def _order(device: Device, wanted: Wanted) -> tuple[str, object]:
    """Return the write command for ``wanted`` and its parameter. Raises Refused when it is not clear."""
    match wanted.verb:
        case Verb.STOP:
            return "set.miner.service", "stop"
        case Verb.START:
            return "set.miner.service", "start"
        case Verb.LIMIT:
            limit = limit_asked(wanted)
            if isinstance(limit, str):
                return "set.miner.power_mode", limit
            return "set.miner.power_limit", round(limit)
        case Verb.POOLS:
            rows = [{"pool": pool.url, "worker": pool.user, "passwd": pool.password} for pool in pools_asked(wanted)]
            return "set.miner.pools", rows
        case Verb.BLINK:
            return "set.system.led", _BLINK if blink_asked(wanted) else "auto"
        case Verb.PASSWORD:
            user, password = _access_of(device)
            return "set.user.change_passwd", {"account": user, "old": password, "new": _new_password(device, wanted)}
        case Verb.FIRMWARE:
            version_asked(wanted)
            return "set.system.update_firmware", None
        case _:
            return "set.system.reboot", None


def _new_password(device: Device, wanted: Wanted) -> str:
    if not wanted.secret.isascii() or not wanted.secret.isprintable() or not wanted.secret:
        raise Refused("bad_parameters", f"{device.address}: takes passwords of printable ASCII characters; make one")
    return wanted.secret


def _access_of(device: Device) -> Credentials:
    """Return the account to sign for. Raises AccessDenied when there is no password for it."""
    user, password = credentials_of(device)
    return Credentials(_ACCOUNT if user in {"", _ADMIN} else user, password)


async def _signed(
    device: Device, access: Credentials, command: str, parameter: object, *, secret: bool = False
) -> Mapping[str, object]:
    """Return one command, signed for ``access``, its parameter enciphered where it is ``secret``.

    Raises:
        Garbled: the device gives no salt or no time.
    """
    info = await device.framed({"cmd": "get.device.info", "param": "salt"})
    salt, when = _inside(info).get("salt"), whole(info.get("when"))
    if not isinstance(salt, str) or when is None:
        raise Garbled(f"{device.address}: gives no salt or no time to sign {command} with; restart it")
    digest = hashlib.sha256(f"{command}{access.password}{salt}{when}".encode()).digest()
    token = base64.b64encode(digest).decode("ascii")[:_TOKEN_LENGTH]
    order: dict[str, object] = {"cmd": command, "ts": when, "token": token, "account": access.user}
    if secret:
        order["param"] = seal(json.dumps(parameter, separators=(",", ":")), digest)
    elif parameter is not None:
        order["param"] = parameter
    return order


async def _fetch_logs(device: Device) -> bytes:
    command = "get.log.download"
    async with device.connection(device.deadlines.for_log(), framed=True) as (stream, limits):
        talk = Talk(device, stream, limits)
        await talk.tell(encode({"cmd": command}))
        answer = await talk.framed_document()
        _raise_unless_taken(device, command, answer)
        return await talk.logs(next((size for size in map(whole, _inside(answer).values()) if size is not None), None))


async def _give_firmware(device: Device, signed: Mapping[str, object], image: bytes) -> None:
    command = str(signed["cmd"])
    async with device.connection(device.deadlines.for_image(), framed=True) as (stream, limits):
        talk = Talk(device, stream, limits)
        await talk.tell(encode(signed))
        answer = await talk.framed_document()
        _raise_unless_taken(device, command, answer)
        if answer.get("msg") != "ready":
            raise UnsupportedDevice(f"{device.address}: is not ready for firmware; use the vendor's tool")
        await talk.give(image)
        _raise_unless_taken(device, command, await talk.framed_document())


async def _shows_password(device: Device, secret: str) -> ReadBack:
    lamp = await _lamp(device)
    access = Credentials(_access_of(device).user, secret)
    command = "set.system.led"
    signed = await _signed(device, access, command, "auto" if lamp == "auto" else _BLINK)
    try:
        _raise_unless_taken(device, command, await device.framed(signed))
    except (AccessDenied, UnsupportedDevice):
        return shows_set(Verb.PASSWORD, False)
    device.credentials = access
    return shows_set(Verb.PASSWORD, True)


def _raise_unless_taken(device: Device, command: str, answer: Mapping[str, Any]) -> None:
    code, message = number(answer.get("code")), str(answer.get("msg", ""))[:_SHOWN]
    if code == 0:
        return
    said = f"{device.address}: refuses {command}: code {answer.get('code')} {message!r}"
    words = message.lower()
    if any(word in words for word in _BUSY):
        raise SessionBusy(f"{said}; it is tried again")
    if any(word in words for word in _FORBIDDEN):
        raise AccessDenied(f"{said}; {ENABLE_API}")
    if code == _WRONG_PASSWORD or any(word in words for word in _WRONG):
        raise AccessDenied(f"{said}; correct the password of its credentials group")
    raise UnsupportedDevice(f"{said}; check its firmware version")


async def _told(device: Device, command: str, parameter: str | None = None) -> Mapping[str, Any]:
    """Return the ``msg`` object of a reading command, empty where it has none."""
    return _inside(await device.framed({"cmd": command} | ({} if parameter is None else {"param": parameter})))


def _inside(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    said = answer.get("msg")
    return said if isinstance(said, dict) else {}


async def _system(device: Device) -> Mapping[str, Any]:
    system = (await _told(device, "get.device.info", "system")).get("system")
    return system if isinstance(system, dict) else {}


async def _lamp(device: Device) -> str:
    return str((await _system(device)).get("ledstatus", "auto"))


async def _version(device: Device) -> str:
    return str((await _system(device)).get("fwversion", ""))


async def _shows_limit(device: Device, wanted: Wanted, seen: Observation) -> ReadBack:
    said, limit_w = await _told(device, "get.miner.setting"), power_asked(wanted)
    if limit_w is None:
        return shows(said.get("power-mode") == mode_asked(wanted), "mode_in_force", "mode_not_in_force")
    set_w = number(said.get("power-limit"))
    return shows_limited(None if set_w is None else Watts(set_w), seen, limit_w)


async def _shows_pools(device: Device, wanted: tuple[Pool, ...]) -> ReadBack:
    rows = rows_of((await _told(device, "get.miner.status", "pools")).get("pools"))
    pools = sorted(rows, key=lambda row: whole(row.get("pool-priority")) or 0)
    found = [(str(row.get("url", "")).rstrip("/"), str(row.get("account", ""))) for row in pools]
    asked = [(pool.url.rstrip("/"), pool.user) for pool in wanted]
    return shows_set(Verb.POOLS, found == asked)
