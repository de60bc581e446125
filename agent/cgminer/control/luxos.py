"""LuxOS: everything that changes it goes through one session: log on, tell, log off.

    STOP, START   curtail sleep | wakeup                  LIMIT   profileset, with ATM held off meanwhile
    REBOOT        rebootdevice                            BLINK   ledset red,blink | off
    POOLS         addpool, switchpool, removepool (they need no session)

Invariants:

* The device has one session for everybody, so ours is opened late, used at once and always closed (luxos_session).
* The vendor's page on ``curtail`` has said both that a reboot ends a sleep and that a sleep outlives it: nothing here
  relies on either. A start always sends ``wakeup``; a reboot is proven by the uptime alone, asleep or not.
* Its profile comes with ``config``, which says who answers; only where ATM steers it is ``atm`` asked, too, for then
  the ceiling is what it was limited to, and not the profile of that moment.
* ATM raises the profile again on its own. Where it was on it is put back on, but no higher than the limit's profile.

Source: docs.luxor.tech, LuxOS API: logon, logoff, session, curtail, atm, atmset, profiles, profileset, ledset,
rebootdevice; which of them need a session: LuxorLabs/luxos-tooling, api.json. It documents no password and no log
command, and updates only itself from Luxor's own server (updaterun), so those verbs are absent.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from agent.cgminer.control.asked import blink_asked, mode_asked, pools_asked, power_asked
from agent.cgminer.control.commanded import refuse_while_stopped
from agent.cgminer.control.driver import ReadBack, Shown, Wanted
from agent.cgminer.control.kept import kept_in
from agent.cgminer.control.luxos_session import LuxSession
from agent.cgminer.control.read_back import shows_limited, shows_rebooted, shows_set, shows_started, shows_stopped
from agent.cgminer.control.rpc_pools import PoolChange, shows_pools
from agent.cgminer.device import Device
from agent.cgminer.dialects.luxos import is_curtailed
from agent.cgminer.observation import Observation
from agent.cgminer.sections import number, rows_of
from agent.cgminer.status import Status
from agent.errors import Permanent, Refused, SessionBusy, UnsupportedDevice
from sitelink.types import Evidence, Verb
from sitelink.units import Watts

_ACTIONS: Final = {Verb.STOP: "sleep", Verb.START: "wakeup"}
_VERBS: Final = frozenset({Verb.STOP, Verb.START, Verb.LIMIT, Verb.POOLS, Verb.BLINK, Verb.REBOOT})


_NAMED: Final = "profile"
"""A profile by its name, in an order of our own that gives a miner back what it had."""


class _Profile(NamedTuple):
    """One profile the firmware offers."""

    name: str
    step: float | None
    power_w: Watts | None


class LuxOs:
    """Control of one LuxOS miner."""

    def __init__(self) -> None:
        self._pools = PoolChange()
        self._session = LuxSession()
        self._profile: tuple[Mapping[str, str], _Profile] | None = None

    @property
    def verbs(self) -> frozenset[Verb]:
        """Return what LuxOS can be told."""
        return _VERBS

    async def former(self, device: Device, wanted: Wanted) -> str:
        """Return profile and ATM before a limit or a stop, the pools before new ones, the lamp before it blinks."""
        if wanted.verb is Verb.STOP:
            return await self.limits(device, None)
        if wanted.verb is Verb.LIMIT:
            self._profile = None
            config, atm = await _first(device, "config", "CONFIG"), await _first(device, "atm", "ATM")
            return json.dumps({"profile": config.get("Profile"), "atm": atm})
        if wanted.verb is Verb.POOLS:
            return json.dumps({"pools": (await device.ask("pools")).get("POOLS")})
        if wanted.verb is Verb.BLINK:
            return json.dumps({"red": (await _first(device, "config", "CONFIG")).get("RedLed")})
        return ""

    async def limits(self, device: Device, seen: Observation | None) -> str:
        """See ``KeepsLimit.limits``."""
        rows = device.named_by.rows("config")
        config = rows[0] if rows else await _first(device, "config", "CONFIG")
        if is_curtailed(config.get("CurtailMode")) or not isinstance(config.get("Profile"), str):
            return ""
        atm = await _first(device, "atm", "ATM") if config.get("IsAtmEnabled") is True else {"Enabled": False}
        bounds = {name: atm.get(name) for name in ("Enabled", "MaxProfile") if name in atm}
        return json.dumps({"profile": config["Profile"], "atm": bounds})

    async def lost(self, device: Device, kept: Mapping[str, Any], seen: Observation) -> Wanted | None:
        """See ``KeepsLimit.lost``."""
        former, atm = kept.get("profile"), kept.get("atm")
        config = await _first(device, "config", "CONFIG")
        if not isinstance(former, str) or not isinstance(atm, dict) or is_curtailed(config.get("CurtailMode")):
            return None
        steered, steers = atm.get("Enabled") is True, config.get("IsAtmEnabled") is True
        if not steered:
            same = not steers and config.get("Profile") == former
        else:
            former = atm.get("MaxProfile") or ""
            same = not former or (steers and (await _first(device, "atm", "ATM")).get("MaxProfile") == former)
        return None if same else Wanted(Verb.LIMIT, {_NAMED: former})

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        """See ``Driver.send``."""
        if wanted.verb is Verb.POOLS:
            await self._pools.replace(device, pools_asked(wanted))
        elif wanted.verb is Verb.LIMIT:
            await self._limit(device, wanted, former)
        else:
            async with self._session.held(device) as session:
                await _tell(device, session, *_order(wanted))
        return b""

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        """See ``Driver.shows``."""
        if wanted.verb is Verb.POOLS:
            return await shows_pools(device, pools_asked(wanted))
        if wanted.verb is Verb.BLINK:
            red = str((await _first(device, "config", "CONFIG")).get("RedLed", "")).lower()
            return shows_set(Verb.BLINK, (red == "blink") == blink_asked(wanted))
        seen = await device.observe()
        if wanted.verb is Verb.LIMIT:
            return await self._shows_limit(device, wanted, seen)
        if wanted.verb is Verb.REBOOT:
            return shows_rebooted(seen, before)
        return shows_stopped(seen, before) if wanted.verb is Verb.STOP else shows_started(seen)

    async def _limit(self, device: Device, wanted: Wanted, former: str) -> None:
        """Put the wanted profile in force. ``former`` tells whether ATM was on, should an attempt have died midway."""
        config = await _first(device, "config", "CONFIG")
        refuse_while_stopped(is_curtailed(config.get("CurtailMode")), device.address, "a profile")
        self._profile = None  # its profiles may have changed since the last order
        profile = await self._profile_for(device, wanted)
        steered = _steered_before(former)
        async with self._session.held(device) as session:
            held = steered or config.get("IsAtmEnabled") is True
            if held:
                await _tell(device, session, "atmset", "enabled=false")
            try:
                await _tell(device, session, "profileset", profile.name)
            except (Permanent, Refused):
                if held:
                    await _tell(device, session, "atmset", "enabled=true")  # nothing has changed at the miner
                raise
            if steered:
                await _tell(device, session, "atmset", "enabled=true", f"max_profile={profile.name}")

    async def _shows_limit(self, device: Device, wanted: Wanted, seen: Observation) -> ReadBack:
        profile = await self._profile_for(device, wanted)
        if await _ceiling(device) != profile.name:
            return ReadBack(Shown.NOT_YET, Evidence.DEVICE_STATE, "limit_not_in_force")
        # What was asked for is to be kept to, not what the profile is made for: that may lie far below.
        ceiling_w = profile.power_w if (asked_w := power_asked(wanted)) is None else asked_w
        if ceiling_w is None:
            return ReadBack(Shown.DONE, Evidence.DEVICE_STATE, "limit_in_force")
        return shows_limited(ceiling_w, seen, ceiling_w)

    async def _profile_for(self, device: Device, wanted: Wanted) -> _Profile:
        """Return the profile that ``wanted`` means, asked for once an order."""
        if self._profile is None or self._profile[0] != wanted.parameters:
            name = wanted.parameters.get(_NAMED)
            if name is not None:
                return _Profile(name, None, None)
            self._profile = (wanted.parameters, _choose(device, await _profiles(device), wanted))
        return self._profile[1]


async def _ceiling(device: Device) -> object:
    """Return the profile that it goes no higher than: ATM's highest where that steers, else the one it is in."""
    config = await _first(device, "config", "CONFIG")
    if config.get("IsAtmEnabled") is True:
        return (await _first(device, "atm", "ATM")).get("MaxProfile")
    return config.get("Profile")


def _order(wanted: Wanted) -> tuple[str, ...]:
    if wanted.verb is Verb.REBOOT:
        return ("rebootdevice",)
    if wanted.verb is Verb.BLINK:
        return ("ledset", "red", "blink" if blink_asked(wanted) else "off")
    return ("curtail", _ACTIONS[wanted.verb])


def _steered_before(former: str) -> bool:
    atm = kept_in(former).get("atm")
    return isinstance(atm, dict) and atm.get("Enabled") is True


async def _profiles(device: Device) -> list[_Profile]:
    return [
        _Profile(row["Profile Name"], number(row.get("Step")), _watts(row.get("Watts")))
        for row in rows_of((await device.ask("profiles")).get("PROFILES"))
        if isinstance(row.get("Profile Name"), str) and row["Profile Name"]
    ]


def _watts(value: Any) -> Watts | None:
    power_w = number(value)
    return Watts(power_w) if power_w else None


def _choose(device: Device, profiles: list[_Profile], wanted: Wanted) -> _Profile:
    """Return the profile that draws most within the limit, or the one that a mode means.

    ``normal`` is the firmware's own (step 0), ``low`` and ``high`` its lowest and highest.
    """
    limit_w, mode = power_asked(wanted), mode_asked(wanted)
    if limit_w is not None:
        by_power = [(profile.power_w, profile) for profile in profiles if profile.power_w is not None]
        fitting = [pair for pair in by_power if pair[0] <= limit_w]
        if fitting:
            return max(fitting, key=lambda pair: pair[0])[1]
        lowest = min((power_w for power_w, _ in by_power), default=None)
        named = "it names no power for its profiles" if lowest is None else f"its lowest profile draws {lowest:.0f} W"
        raise Refused("limit_out_of_range", f"{device.address}: cannot keep to {limit_w:.0f} W, {named}; stop it whole")
    steps = [(profile.step, profile) for profile in profiles if profile.step is not None]
    if mode == "normal":
        chosen = [profile for profile in profiles if profile.step == 0 or profile.name.lower() == "default"]
    else:
        best = {"low": min, "high": max}.get(mode or "")
        chosen = [best(steps, key=lambda pair: pair[0])[1]] if best is not None and steps else []
    if not chosen:
        raise Refused(
            "mode_unsupported", f"{device.address}: has no profile for mode {mode}; give the limit as power_w"
        )
    return chosen[0]


async def _first(device: Device, command: str, section: str) -> Mapping[str, Any]:
    """Return the first row of a section, read afresh; empty where the firmware has none."""
    rows = (await device.ask(command)).get(section)
    return rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}


async def _tell(device: Device, session: str, command: str, *parameters: str) -> None:
    """Send one command of the session.

    Raises:
        AccessDenied: the device does not take orders from us.
        SessionBusy: the session was lost. UnsupportedDevice: it refuses.
    """
    status = Status.of(await device.ask(command, ",".join((session, *parameters))))
    status.raise_if_denied(device.address)
    if status.accepted or "already" in status.message.lower():
        return
    if "session" in status.message.lower():
        raise SessionBusy(f"{device.address}: lost its session: {status.text}; it is tried again")
    told = " ".join((command, *parameters))
    raise UnsupportedDevice(f"{device.address}: refuses {told}: {status.text}; update its firmware")
