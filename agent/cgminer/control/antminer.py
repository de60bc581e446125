"""Antminer stock firmware over its web page: the configuration is read, one key of it changed, and posted back.

    get_miner_conf.cgi --> {.., "bitmain-work-mode": "0", ..} --> set_miner_conf.cgi with the mode 1, all else as it was
                                                                  |
             read again: unchanged? --> once more in the form that newer pages send (``miner-mode``, a number)

Invariants:

* The modes written are sleep 1, normal 0 and low 3, never 2: one vendor tool's "high" is another's "efficiency".
* Everything but the mode, or the pools, goes back as it was read; what cannot be read to the letter is not written.
* A reply of success is a hint. A stop shows by the mode reading 1: an overheated miner also gives 0 GH/s, but reads 0.
* A miner that is in the wanted mode already gets no post: each restarts its miner, which would follow a slow stop with
  a second one.

Source: the firmware's own pages; docs/devices.md. No upload of firmware: Bitmain documents none.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from agent.cgminer.control.asked import blink_asked, mode_asked, pools_asked
from agent.cgminer.control.commanded import refuse_while_stopped, shows_commanded_stop
from agent.cgminer.control.driver import ReadBack, Wanted
from agent.cgminer.control.kept import kept_in
from agent.cgminer.control.read_back import shows, shows_rebooted, shows_set, shows_started
from agent.cgminer.control.web_answers import (
    AS_JSON,
    credentials_of,
    exactly,
    raise_unless_taken,
    value_of,
    written,
)
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.dialects.antminer import CONF, SLEEP, SYSTEM, WORK_MODES
from agent.cgminer.observation import Observation
from agent.cgminer.sections import number, rows_of
from agent.cgminer.web import WebReply
from agent.errors import AccessDenied, Garbled, Refused, UnsupportedDevice
from sitelink.types import MinerState, Verb
from sitelink.verbs import Pool

_VERBS: Final = frozenset(
    {Verb.STOP, Verb.START, Verb.LIMIT, Verb.POOLS, Verb.BLINK, Verb.PASSWORD, Verb.REBOOT, Verb.LOGS}
)
_WRITE: Final = "/cgi-bin/set_miner_conf.cgi"
_REBOOT: Final = "/cgi-bin/reboot.cgi"
_BLINK: Final = "/cgi-bin/blink.cgi"
_BLINKS: Final = "/cgi-bin/get_blink_status.cgi"
_PASSWORD: Final = "/cgi-bin/passwd.cgi"  # noqa: S105 - a page, not a password
_LOGS: Final = ("/cgi-bin/log.cgi", "/cgi-bin/get_kernel_log.cgi")

_NORMAL, _LOW = 0, 3
_MODES: Final = {"normal": _NORMAL, "low": _LOW}
_SETTLING_S: Final = 60.0
"""How long a stop of ours may take before a miner in sleep mode that still hashes is told again."""


class Antminer:
    """Control of one Antminer with stock firmware. Its miner is restarted by each change of mode or pools."""

    def __init__(self) -> None:
        self._posted_s: float | None = None

    @property
    def verbs(self) -> frozenset[Verb]:
        """Return what the firmware can be told."""
        return _VERBS

    async def former(self, device: Device, wanted: Wanted) -> str:
        """Return the part of the configuration that ``wanted`` replaces; nothing when it sleeps already."""
        if wanted.verb is Verb.BLINK:
            return json.dumps({"blink": await _blinks(device)})
        if wanted.verb not in (Verb.STOP, Verb.LIMIT, Verb.POOLS):
            return ""
        conf = await _read(device)
        if wanted.verb is Verb.POOLS:
            return json.dumps({"pools": conf.get("pools")})
        modes = _modes_in(conf)
        return json.dumps(modes) if modes and not _sleeps(conf) else ""

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        """See ``Driver.send``."""
        match wanted.verb:
            case Verb.STOP:
                await self._stop(device)
            case Verb.START:
                await self._start(device, former)
            case Verb.LIMIT:
                await self._limit(device, wanted)
            case Verb.POOLS:
                await self._set_pools(device, pools_asked(wanted))
            case Verb.BLINK:
                await _blink(device, blink_asked(wanted))
            case Verb.PASSWORD:
                await _change_password(device, wanted.secret)
            case Verb.REBOOT:
                raise_unless_taken(device, await device.call("POST", _REBOOT), "reboot")
            case _:
                return await _logs(device)
        return b""

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        """See ``Driver.shows``."""
        match wanted.verb:
            case Verb.STOP:
                asleep = _sleeps(await _read(device))
                return shows_commanded_stop(await device.observe(), before, told=asleep, otherwise="not_in_sleep_mode")
            case Verb.START:
                if _sleeps(await _read(device)):
                    return shows(False, "", "still_in_sleep_mode")
                return shows_started(await device.observe())
            case Verb.LIMIT:
                done = _is_in(await _read(device), _wanted_mode(device, wanted))
                return shows(done, "mode_in_force", "mode_not_in_force")
            case Verb.POOLS:
                return shows_set(Verb.POOLS, _has_pools(await _read(device), pools_asked(wanted)))
            case Verb.BLINK:
                return shows_set(Verb.BLINK, await _blinks(device) is blink_asked(wanted))
            case Verb.PASSWORD:
                return shows_set(Verb.PASSWORD, await _takes(device, wanted.secret))
            case _:
                return shows_rebooted(await device.observe(), before)

    async def _stop(self, device: Device) -> None:
        conf = await _read(device)
        if not _is_in(conf, SLEEP):
            await self._set_mode(device, conf, SLEEP)
        elif not self._is_settling(device) and (await device.observe()).state is MinerState.HASHING:
            await self._post(device, conf)  # the mode was stored and its miner never restarted

    async def _start(self, device: Device, former: str) -> None:
        conf = await _read(device)
        if _sleeps(conf):
            await self._set_mode(device, conf, _former_mode(former))

    async def _limit(self, device: Device, wanted: Wanted) -> None:
        mode = _wanted_mode(device, wanted)
        conf = await _read(device)
        refuse_while_stopped(_sleeps(conf), device.address, "a change of its mode")
        if not _is_in(conf, mode):
            await self._set_mode(device, conf, mode)

    async def _set_pools(self, device: Device, pools: tuple[Pool, ...]) -> None:
        conf = await _read(device)
        told = [{"url": pool.url, "user": pool.user, "pass": pool.password} for pool in pools]
        listed = conf.get("pools")
        empty = max(0, len(listed) - len(told)) if isinstance(listed, list) else 0
        told += [{"url": "", "user": "", "pass": ""} for _ in range(empty)]
        reply = await self._post(device, {**conf, "pools": told})
        if _says_error(reply) and not _has_pools(await _read(device), pools):
            raise UnsupportedDevice(f"{device.address}: refuses the pools ({reply.spoken}); correct url and user")

    async def _set_mode(self, device: Device, conf: Mapping[str, Any], mode: int) -> None:
        keys = [key for key in WORK_MODES if key in conf]
        if not keys:
            raise UnsupportedDevice(
                f"{device.address}: its firmware knows no sleep mode; give it an outlet in inventory.csv, or update it"
            )
        changed = {**conf, **{key: str(mode) if isinstance(conf[key], str) else mode for key in keys}}
        reply = await self._post(device, changed)
        after = await _read(device)
        if not _is_in(after, mode):
            reply = await self._post(device, _as_its_page_sends(changed, mode))
            after = await _read(device)
        if not _is_in(after, mode) and _says_error(reply):
            raise UnsupportedDevice(
                f"{device.address}: refuses mode {mode} ({reply.spoken}); set it once on its own page to see why"
            )

    async def _post(self, device: Device, conf: Mapping[str, Any]) -> WebReply:
        self._posted_s = device.monotonic()
        reply = await device.call(
            "POST", _WRITE, body=written(conf), headers=AS_JSON, deadlines=device.deadlines.for_setting()
        )
        raise_unless_taken(device, reply, "a new configuration")
        return reply

    def _is_settling(self, device: Device) -> bool:
        return self._posted_s is not None and device.monotonic() - self._posted_s < _SETTLING_S


async def _read(device: Device) -> dict[str, Any]:
    reply = await device.call("GET", CONF)
    raise_unless_taken(device, reply, "a look at its configuration")
    return exactly(device, reply, "configuration")


def _modes_in(conf: Mapping[str, Any]) -> dict[str, Any]:
    return {key: conf[key] for key in WORK_MODES if key in conf}


def _is_in(conf: Mapping[str, Any], mode: int) -> bool:
    modes = _modes_in(conf)
    return bool(modes) and all(number(value) == mode for value in modes.values())


def _sleeps(conf: Mapping[str, Any]) -> bool:
    return _is_in(conf, SLEEP)


def _former_mode(former: str) -> int:
    """Return the mode that a stop replaced: low stays low; normal where that is unknown, or is one never written."""
    modes = _modes_in(kept_in(former))
    return _LOW if modes and all(number(value) == _LOW for value in modes.values()) else _NORMAL


def _wanted_mode(device: Device, wanted: Wanted) -> int:
    name = mode_asked(wanted)
    if name is None:
        raise Refused(
            "power_limit_unsupported", f"{device.address}: knows modes, no limit in W; give mode low or normal"
        )
    if name not in _MODES:
        raise Refused(
            "mode_unsupported", f"{device.address}: has no mode {name!r} that is safe to set; give low or normal"
        )
    return _MODES[name]


def _as_its_page_sends(conf: Mapping[str, Any], mode: int) -> dict[str, Any]:
    """Return the form of newer web pages, whose script stores ``miner-mode`` as ``bitmain-work-mode``."""
    sent = {**conf, "miner-mode": mode}
    if "freq-level" not in conf and "bitmain-freq-level" in conf:
        sent["freq-level"] = conf["bitmain-freq-level"]
    return sent


def _says_error(reply: WebReply) -> bool:
    try:
        return reply.document().get("stats") == "error"
    except Garbled:
        return False


def _has_pools(conf: Mapping[str, Any], pools: tuple[Pool, ...]) -> bool:
    entries = rows_of(conf.get("pools"))
    found = [Pool(entry.get("url", ""), entry.get("user", ""), entry.get("pass", "")) for entry in entries]
    return tuple(pool for pool in found if pool.url) == pools


async def _blinks(device: Device) -> bool | None:
    reply = await device.call("GET", _BLINKS)
    raise_unless_taken(device, reply, "a look at its lamp")
    found = value_of(device, reply, "a look at its lamp")
    lamp = found.get("blink") if isinstance(found, dict) else None
    return {"true": True, "false": False}.get(str(lamp).lower())


async def _blink(device: Device, on: bool) -> None:
    """Switch the lamp, with text as most pages send it; with a truth value where that changed nothing."""
    raise_unless_taken(device, await device.call("POST", _BLINK, json={"blink": str(on).lower()}), "blink")
    if await _blinks(device) is not on:
        raise_unless_taken(device, await device.call("POST", _BLINK, json={"blink": on}), "blink")


async def _change_password(device: Device, secret: str) -> None:
    current = credentials_of(device).password
    told = {"curPwd": current, "newPwd": secret, "confirmPwd": secret}
    try:
        reply = await device.call("POST", _PASSWORD, json=told)
    except AccessDenied:
        if await _takes(device, secret):
            return  # an earlier attempt, cut short, has changed it
        raise
    raise_unless_taken(device, reply, "a new password")
    if _says_error(reply):
        raise UnsupportedDevice(
            f"{device.address}: refuses the new password ({reply.spoken}); change it on its own page"
        )


async def _takes(device: Device, secret: str) -> bool:
    """Return whether the page opens for ``secret``, which is then the password in use."""
    found = Credentials(credentials_of(device).user, secret)
    try:
        reply = await device.tried(found, "GET", SYSTEM)
    except AccessDenied:
        return False
    if reply.status != 200:
        return False
    device.credentials = found
    return True


async def _logs(device: Device) -> bytes:
    for target in _LOGS:
        reply = await device.call("GET", target, deadlines=device.deadlines.for_log())
        if not reply.is_absent:
            break
    raise_unless_taken(device, reply, "a look at its log")
    return reply.body
