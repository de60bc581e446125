"""Avalon (Canaan's CGMiner): ``ascset`` on unit 0, soft-off and soft-on timed by the device's own clock.

    STOP, START  softoff | softon      LIMIT  workmode      BLINK  led      REBOOT  reboot      PASSWORD  password
    POOLS        setpool (older: ascset setpool) for each of three places, then a reboot, which puts them in force

Invariants:

* The moment sent is derived from the ``When`` the device has just told us; a clock of ours could lie decades ahead of a
  device whose clock was never set, and its stop would never come. A firmware that refuses a time, or tells none, is
  told without.
* Pools, and a work mode on all but the home models, are in force after a reboot only: it is ordered with them, and a
  mode counts as in force once the miner has been seen to restart. A reboot starts a miner that was told to stop, so
  both are refused to it.
* A new password is proven by changing it to itself, which only its holder may.

Source: Canaan CGMiner API, ``ascset`` (its own ``0,help`` lists the options); driver-avalon.c as described in
AvalonPS7 ASCSET.md; success is STATUS I, code 118, with "success", or code 119. Work modes: Avalon A10 API manual 2.4
(``workmode,N``: 0 normal, 1 high performance, in force after a restart, answered ``WORKMODE[N]``); the home models
(Nano, Mini, Q) take ``workmode,set,N`` at once: 0 eco, 1 standard, 2 super. Whether a later industrial model has a mode
2 is not documented, so none is offered. It documents no limit in watts, no logs and no firmware over this API.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from agent.cgminer.control.asked import blink_asked, mode_asked, pools_asked, power_asked
from agent.cgminer.control.commanded import refuse_while_stopped
from agent.cgminer.control.driver import ReadBack, Shown, Wanted
from agent.cgminer.control.read_back import shows_rebooted, shows_set, shows_started, shows_stopped
from agent.cgminer.control.rpc_pools import shows_pools
from agent.cgminer.control.web_answers import credentials_of
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.cgminer.status import Status
from agent.errors import AccessDenied, Permanent, Refused, UnsupportedDevice
from sitelink.types import Evidence, Reason, Verb
from sitelink.verbs import MOST_POOLS

_VERBS: Final = frozenset({Verb.STOP, Verb.START, Verb.LIMIT, Verb.POOLS, Verb.BLINK, Verb.PASSWORD, Verb.REBOOT})
_ACTIONS: Final = {Verb.STOP: "softoff", Verb.START: "softon"}
_SET_INFO: Final = 118
_SET_OK: Final = 119
_LEAD_S: Final = 2
"""``When`` is cut to whole seconds and the order needs its way; two seconds keep it from lying in the past."""
_NUMBERED: Final = "workmode"
"""A mode by its number, in an order of our own that gives a miner back what it had."""
_HOME_MODES: Final = {"low": 0, "normal": 1, "high": 2}
_MODES: Final = {"normal": 0, "high": 1}
_WRONG: Final = ("passw", "auth")
"""What its refusals of a wrong web password speak of."""
_HOME: Final = re.compile(r"nano|mini|\bq\b", re.IGNORECASE)
_SECRET: Final = re.compile(r"[!-+\--~]{1,32}")
"""Printable, and no comma: commas part the values."""


class Avalon:
    """Control of one Avalon miner."""

    def __init__(self) -> None:
        self._restarted_for: Wanted | None = None

    @property
    def verbs(self) -> frozenset[Verb]:
        """Return what an Avalon can be told."""
        return _VERBS

    async def former(self, device: Device, wanted: Wanted) -> str:
        """Return the work mode before another or a stop, the pools before new ones, the lamp before it blinks."""
        if wanted.verb is Verb.STOP:
            return await self.limits(device, None)
        if wanted.verb is Verb.LIMIT:
            return json.dumps({"workmode": await _unit_value(device, "WORKMODE")})
        if wanted.verb is Verb.POOLS:
            return json.dumps({"pools": (await device.ask("pools")).get("POOLS")})
        if wanted.verb is Verb.BLINK:
            return json.dumps({"led": await _unit_value(device, "Led")})
        return ""

    async def limits(self, device: Device, seen: Observation | None) -> str:
        """See ``KeepsLimit.limits``; the look has it."""
        mode = seen.power_mode if seen is not None else await _unit_value(device, "WORKMODE")
        return json.dumps({_NUMBERED: mode}) if mode and mode.isdecimal() else ""

    async def lost(self, device: Device, kept: Mapping[str, Any], seen: Observation) -> Wanted | None:
        """See ``KeepsLimit.lost``."""
        former = kept.get(_NUMBERED)
        if not isinstance(former, str) or not former.isdecimal() or seen.power_mode in (None, former):
            return None
        return Wanted(Verb.LIMIT, {_NUMBERED: former})

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        """See ``Driver.send``."""
        match wanted.verb:
            case Verb.STOP | Verb.START:
                await _switch(device, _ACTIONS[wanted.verb])
            case Verb.LIMIT:
                await self._set_mode(device, wanted)
            case Verb.POOLS:
                await _set_pools(device, wanted)
            case Verb.BLINK:
                await _set(device, f"led,1-{int(blink_asked(wanted))}")
            case Verb.PASSWORD:
                new = _new_password(device, wanted)
                await _set(device, f"password,{credentials_of(device).password},{new}", shown="password")
            case _:
                await _set(device, "reboot,0")
        return b""

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        """See ``Driver.shows``."""
        if wanted.verb is Verb.LIMIT:
            return await self._shows_mode(device, wanted, before)
        if wanted.verb is Verb.POOLS:
            asked = pools_asked(wanted)
            return await shows_pools(device, (*asked, *asked[-1:] * (MOST_POOLS - len(asked))))
        if wanted.verb is Verb.BLINK:
            lamp = await _unit_value(device, "Led")
            if lamp is None:
                return ReadBack(Shown.NOT_YET, Evidence.NONE, "lamp_unknown")
            return shows_set(Verb.BLINK, (lamp != "0") == blink_asked(wanted))
        if wanted.verb is Verb.PASSWORD:
            return await _shows_password(device, wanted.secret)
        seen = await device.observe()
        if wanted.verb is Verb.REBOOT:
            return shows_rebooted(seen, before)
        return shows_stopped(seen, before) if wanted.verb is Verb.STOP else shows_started(seen)

    async def _set_mode(self, device: Device, wanted: Wanted) -> None:
        home, number = await _mode_number(device, wanted)
        if home:
            await _set(device, f"workmode,set,{number}")
            return
        await _refuse_while_off(device, "a work mode")
        status = await _ask(device, f"workmode,{number}")
        if not status.accepted:
            await _set(device, f"workmode,set,{number}")  # a build that has the home models' form only
        elif not (_done(status) or f"workmode[{number}]" in status.message.lower()):
            return  # it stays in another mode: a restart would be for nothing
        self._restarted_for = wanted
        await _set(device, "reboot,0")

    async def _shows_mode(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        _, number = await _mode_number(device, wanted)
        if await _unit_value(device, "WORKMODE") != str(number):
            return ReadBack(Shown.NOT_YET, Evidence.DEVICE_STATE, "mode_not_in_force")
        if self._restarted_for is wanted:
            restarted = shows_rebooted(await device.observe(), before)
            if restarted.shown is not Shown.DONE:
                return restarted
        return ReadBack(Shown.DONE, Evidence.DEVICE_STATE, "mode_in_force")


async def _switch(device: Device, action: str) -> None:
    when = Status.of(await device.ask("version")).when
    if when is not None:
        status = await _ask(device, f"{action},1:{when + _LEAD_S}")
        if _done(status):
            return
    await _set(device, action)


async def _mode_number(device: Device, wanted: Wanted) -> tuple[bool, int]:
    """Return whether it is a home model, and by which number its mode goes there."""
    numbered = wanted.parameters.get(_NUMBERED)
    if numbered is None and power_asked(wanted) is not None:
        raise Refused(
            "power_limit_unsupported", f"{device.address}: has no limit in watts; give a mode, or stop it whole"
        )
    rows = (await device.ask("version")).get("VERSION")
    named = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    home = _HOME.search(f"{named.get('PROD', '')} {named.get('MODEL', '')}") is not None
    if numbered is not None:
        return home, int(numbered)
    modes = _HOME_MODES if home else _MODES
    mode = mode_asked(wanted)
    if mode not in modes:
        raise Refused("mode_unsupported", f"{device.address}: has no mode {mode!r}; give one of {', '.join(modes)}")
    return home, modes[mode]


async def _refuse_while_off(device: Device, what: str) -> None:
    seen = await device.observe()
    refuse_while_stopped(seen.reason is Reason.COMMANDED, device.address, what)


async def _set_pools(device: Device, wanted: Wanted) -> None:
    pools = pools_asked(wanted)
    user, password = credentials_of(device)
    if any("," in part for pool in pools for part in pool):
        raise Refused("bad_parameters", f"{device.address}: cannot be told a pool with a comma in it; write it without")
    await _refuse_while_off(device, "setpool")
    for place in range(MOST_POOLS):
        # A place that nothing is wanted for repeats the last pool: it cannot be emptied.
        pool = pools[min(place, len(pools) - 1)]
        await _set_pool(device, f"{user},{password},{place},{pool.url},{pool.user},{pool.password}")
    await _set(device, "reboot,0")


async def _set_pool(device: Device, value: str) -> None:
    """Fill one place: by ``setpool`` where the firmware knows it, else by the older ``ascset``."""
    status = Status.of(await device.ask("setpool", value))
    status.raise_if_denied(device.address)
    if status.unknown_command:
        await _set(device, f"setpool,{value}", shown="setpool")
    elif not status.accepted:
        raise _refusal(device, status, "setpool")


def _new_password(device: Device, wanted: Wanted) -> str:
    if not _SECRET.fullmatch(wanted.secret):
        raise Refused(
            "bad_parameters", f"{device.address}: takes passwords of 1 to 32 printable characters without a comma"
        )
    return wanted.secret


async def _shows_password(device: Device, secret: str) -> ReadBack:
    proven = _done(await _ask(device, f"password,{secret},{secret}"))
    if proven and device.credentials is not None:
        device.credentials = Credentials(device.credentials.user, secret)
    return shows_set(Verb.PASSWORD, proven)


async def _unit_value(device: Device, name: str) -> str | None:
    """Return what stands in the bracket ``name`` (``Led``, ``LED``) of the first unit that has it, read afresh."""
    rows = (await device.ask("stats")).get("STATS")
    texts = [value for row in rows if isinstance(row, dict) for value in row.values()] if isinstance(rows, list) else []
    bracket = re.compile(rf"(?<![A-Za-z]){re.escape(name)}\[([^\]]*)\]", re.IGNORECASE)
    found = (bracket.search(text) for text in texts if isinstance(text, str))
    return next((match.group(1).strip() for match in found if match), None)


async def _set(device: Device, value: str, *, shown: str = "") -> None:
    """Send one ``ascset``. ``shown`` stands for a value that holds a password.

    Raises:
        AccessDenied: it takes no orders from us. UnsupportedDevice: it refuses.
    """
    status = await _ask(device, value)
    if not _done(status):
        raise _refusal(device, status, shown or value)


def _refusal(device: Device, status: Status, what: str) -> Permanent:
    said = f"{device.address}: refuses {what}: {status.text}"
    if any(word in status.message.lower() for word in _WRONG):
        return AccessDenied(f"{said}; correct the password of its credentials group")
    return UnsupportedDevice(f"{said}; update its firmware")


async def _ask(device: Device, value: str) -> Status:
    status = Status.of(await device.ask("ascset", f"0,{value}"))
    status.raise_if_denied(device.address)
    return status


def _done(status: Status) -> bool:
    told = status.code == _SET_OK or (status.code == _SET_INFO and "success" in status.message.lower())
    return status.accepted and told
