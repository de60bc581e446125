"""VNish: its REST API behind a password, without a user.

    STOP START   POST mining/stop, start              shows by miner_state, which only an order makes "stopped"
    LIMIT        settings: overclock.preset           a preset is named by its watts; the switcher is capped with it
    BLINK        POST find-miner                      a toggle: sent only when the lamp is not as wanted
    FIRMWARE     POST firmware/update                 settings are kept

Invariants:

* Only a tuned preset is chosen: an untuned one would tune for an hour at powers of its own. Asked for watts without a
  preset, the highest tuned one below them is taken; there being none, the order is refused.
* What a setting needs (a restart of the miner) is done only while it is not stopped: a restart would start it.
* Where a switcher chooses among presets by itself, its highest is the limit, and not the one of the moment.
* Overclocking goes back as it was read, with the preset changed. The token is fetched and renewed by ``wires``.

Source: the firmware's own OpenAPI document (1.2.6, 1.2.7): unlock, mining, settings, autotune, system, firmware, logs.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from agent.cgminer.control.asked import blink_asked, pools_asked, power_asked_alone, version_asked
from agent.cgminer.control.commanded import shows_commanded_stop
from agent.cgminer.control.driver import ReadBack, Wanted
from agent.cgminer.control.read_back import shows, shows_limited, shows_rebooted, shows_set, shows_started
from agent.cgminer.control.versions import runs
from agent.cgminer.control.web_answers import (
    AS_JSON,
    credentials_of,
    exactly,
    opens,
    packed,
    raise_unless_taken,
    value_of,
    written,
)
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.dialects.vnish import OFF, STOPPED, login_of
from agent.cgminer.observation import Observation
from agent.cgminer.sections import dig, number, rows_of
from agent.errors import AccessDenied, Garbled, Refused
from sitelink.types import Verb
from sitelink.units import Watts
from sitelink.verbs import Pool

_VERBS: Final = frozenset(
    {
        Verb.STOP,
        Verb.START,
        Verb.LIMIT,
        Verb.POOLS,
        Verb.BLINK,
        Verb.PASSWORD,
        Verb.REBOOT,
        Verb.FIRMWARE,
        Verb.LOGS,
    }
)
_API: Final = "/api/v1/"
_LOGS: Final = ("status", "miner", "autotune", "system", "messages", "api")
_PRESET: Final = "preset"
"""Where the overclocking has its preset, and a preset by name in an order of our own that gives back what there was."""
_TUNED: Final = "tuned"
_PLAIN_SCHEME: Final = "stratum+tcp://"


class Vnish:
    """Control of one miner with VNish."""

    @property
    def verbs(self) -> frozenset[Verb]:
        """Return what the firmware can be told."""
        return _VERBS

    async def former(self, device: Device, wanted: Wanted) -> str:
        """Return what ``wanted`` replaces: the preset (STOP), the overclocking, the pools, the lamp or the version."""
        match wanted.verb:
            case Verb.STOP:
                return await self.limits(device, None)
            case Verb.LIMIT:
                return json.dumps({"overclock": _overclock(device, await _settings(device))})
            case Verb.POOLS:
                return json.dumps({"pools": dig(await _settings(device), ("miner", "pools"))})
            case Verb.BLINK:
                return json.dumps({"find_miner": (await _status(device)).get("find_miner")})
            case Verb.FIRMWARE:
                return json.dumps({"version": await _version(device)})
            case _:
                return ""

    async def limits(self, device: Device, seen: Observation | None) -> str:
        """See ``KeepsLimit.limits``."""
        preset = _ceiling(_overclock(device, await _settings(device)))
        return json.dumps({_PRESET: preset}) if isinstance(preset, str) and preset else ""

    async def lost(self, device: Device, kept: Mapping[str, Any], seen: Observation) -> Wanted | None:
        """See ``KeepsLimit.lost``."""
        former = kept.get(_PRESET)
        if not isinstance(former, str) or _ceiling(_overclock(device, await _settings(device))) == former:
            return None
        return Wanted(Verb.LIMIT, {_PRESET: former})

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        """See ``Driver.send``."""
        match wanted.verb:
            case Verb.STOP:
                if await _state(device) not in OFF:
                    await _post(device, "mining/stop")
            case Verb.START:
                if await _state(device) in OFF:
                    await _post(device, "mining/start")
            case Verb.LIMIT:
                await _limit(device, wanted)
            case Verb.POOLS:
                await _set_pools(device, pools_asked(wanted))
            case Verb.BLINK:
                await _blink(device, blink_asked(wanted))
            case Verb.PASSWORD:
                await _change_password(device, wanted.secret)
            case Verb.REBOOT:
                await _post(device, "system/reboot")
            case Verb.FIRMWARE:
                await _update(device, wanted.image)
            case _:
                return await _logs(device)
        return b""

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        """See ``Driver.shows``."""
        match wanted.verb:
            case Verb.STOP:
                told = await _state(device) == STOPPED
                return shows_commanded_stop(await device.observe(), before, told=told, otherwise="not_stopped")
            case Verb.START:
                if await _state(device) in OFF:
                    return shows(False, "", "still_stopped")
                return shows_started(await device.observe())
            case Verb.LIMIT:
                return await _shows_limit(device, power_asked_alone(wanted, device.address))
            case Verb.POOLS:
                listed = dig(await _settings(device), ("miner", "pools"))
                return shows_set(Verb.POOLS, _has_pools(listed, pools_asked(wanted)))
            case Verb.BLINK:
                return shows_set(Verb.BLINK, (await _status(device)).get("find_miner") is blink_asked(wanted))
            case Verb.PASSWORD:
                return shows_set(Verb.PASSWORD, await _takes(device, wanted.secret))
            case Verb.FIRMWARE:
                return shows_set(Verb.FIRMWARE, runs(await _version(device), version_asked(wanted)))
            case _:
                return shows_rebooted(await device.observe(), before)


async def _get(device: Device, target: str) -> Any:
    reply = await device.call("GET", _API + target)
    raise_unless_taken(device, reply, target)
    return value_of(device, reply, target)


async def _post(device: Device, target: str, told: Mapping[str, Any] | None = None) -> Any:
    """Send an order; return what it is answered with, None where that is no JSON."""
    body, headers = (b"", None) if told is None else (written(told), AS_JSON)
    reply = await device.call(
        "POST", _API + target, body=body, headers=headers, deadlines=device.deadlines.for_setting()
    )
    raise_unless_taken(device, reply, target)
    try:
        return reply.document()
    except Garbled:
        return None


async def _status(device: Device) -> Mapping[str, Any]:
    found = await _get(device, "status")
    return found if isinstance(found, dict) else {}


async def _state(device: Device) -> str | None:
    state = (await _status(device)).get("miner_state")
    return state if isinstance(state, str) else None


async def _version(device: Device) -> str:
    return str(dig(await _get(device, "info"), ("fw_version",)) or "")


async def _settings(device: Device) -> dict[str, Any]:
    reply = await device.call("GET", _API + "settings")
    raise_unless_taken(device, reply, "settings")
    return exactly(device, reply, "settings")


def _overclock(device: Device, settings: Mapping[str, Any]) -> dict[str, Any]:
    found = dig(settings, ("miner", "overclock"))
    if not isinstance(found, dict):
        raise Garbled(f"{device.address}: its settings have no overclocking; update its firmware")
    return found


def _ceiling(overclock: Mapping[str, Any]) -> Any:
    """Return the preset that the miner is limited to: the highest it may switch to, where it switches by itself."""
    switcher = overclock.get("preset_switcher")
    if isinstance(switcher, dict) and switcher.get("enabled") and switcher.get("top_preset"):
        return switcher["top_preset"]
    return overclock.get(_PRESET)


async def _limit(device: Device, wanted: Wanted) -> None:
    preset = wanted.parameters.get(_PRESET)
    if preset is None:
        limit_w = power_asked_alone(wanted, device.address)
        preset = _preset_for(device, await _get(device, "autotune/presets"), limit_w)
    overclock = _overclock(device, await _settings(device))
    changed = {**overclock, "preset": preset}
    switcher = overclock.get("preset_switcher")
    if isinstance(switcher, dict) and switcher.get("enabled") and number(preset) is not None:
        changed["preset_switcher"] = _capped(switcher, preset)
    await _save(device, {"miner": {"overclock": changed}})


def _preset_for(device: Device, presets: Any, limit_w: Watts) -> str:
    """Return the name of the preset for ``limit_w``: its own, else the highest tuned one below."""
    listed = rows_of(presets)
    tuned = {name: preset.get("status") == _TUNED for preset in listed if isinstance(name := preset.get("name"), str)}
    ready = {name: watts for name, done in tuned.items() if done and (watts := number(name))}
    own = next((name for name in tuned if number(name) == limit_w), None)
    if own is not None and own not in ready:
        raise Refused(
            "preset_untuned",
            f"{device.address}: its preset {own} is not tuned and would tune for an hour if it were set; "
            f"tune it on the miner's page first{_choice(ready)}",
        )
    below = [name for name, watts in ready.items() if watts <= limit_w]
    if not below:
        raise Refused("no_preset", f"{device.address}: has no tuned preset of {limit_w:g} W or less{_choice(ready)}")
    return max(below, key=ready.__getitem__)


def _choice(ready: Mapping[str, float]) -> str:
    names = ", ".join(sorted(ready, key=ready.__getitem__))
    return f", or choose one of {names}" if names else "; it has none that is tuned"


def _capped(switcher: Mapping[str, Any], preset: str) -> dict[str, Any]:
    """Return the preset switcher's settings with ``preset`` as the highest it may switch to."""
    capped = {**switcher, "top_preset": preset}
    lowest = number(switcher.get("min_preset"))
    if lowest is not None and lowest > (number(preset) or 0):
        capped["min_preset"] = preset
    return capped


async def _save(device: Device, settings: Mapping[str, Any]) -> None:
    """Store settings, and restart the miner where it says that it must be, unless it is stopped."""
    saved = await _post(device, "settings", settings)
    if isinstance(saved, Mapping) and saved.get("restart_required") and await _state(device) not in OFF:
        await _post(device, "mining/restart")


async def _shows_limit(device: Device, limit_w: Watts) -> ReadBack:
    """Return whether the miner may go no higher than the preset at or just below the limit."""
    preset = _preset_for(device, await _get(device, "autotune/presets"), limit_w)
    set_w = number(_ceiling(_overclock(device, await _settings(device))))
    if set_w is None:
        return shows(False, "", "limit_not_in_force")  # "disabled": no preset holds it
    return shows_limited(Watts(set_w), await device.observe(), Watts(number(preset) or 0.0))


async def _set_pools(device: Device, pools: tuple[Pool, ...]) -> None:
    former = rows_of(dig(await _settings(device), ("miner", "pools")))
    bare = any(pool.get("url") and "://" not in str(pool["url"]) for pool in former)
    told = [
        {"url": pool.url.removeprefix(_PLAIN_SCHEME) if bare else pool.url, "user": pool.user, "pass": pool.password}
        for pool in pools
    ]
    told += [{"url": "", "user": "", "pass": ""} for _ in range(len(former) - len(told))]
    await _save(device, {"miner": {"pools": told}})


def _has_pools(listed: Any, pools: tuple[Pool, ...]) -> bool:
    found = [
        (str(entry["url"]).removeprefix(_PLAIN_SCHEME), entry.get("user"), entry.get("pass"))
        for entry in rows_of(listed)
        if entry.get("url")
    ]
    return found == [(pool.url.removeprefix(_PLAIN_SCHEME), pool.user, pool.password) for pool in pools]


async def _blink(device: Device, on: bool) -> None:
    if (await _status(device)).get("find_miner") is not on:
        await _post(device, "find-miner", {"on": on})


async def _change_password(device: Device, secret: str) -> None:
    told = {"password": {"current": credentials_of(device).password, "pw": secret}}
    try:
        await _post(device, "settings", told)
    except AccessDenied:
        if not await _takes(device, secret):  # an earlier attempt, cut short, may have changed it
            raise


async def _takes(device: Device, secret: str) -> bool:
    """Return whether the miner unlocks for ``secret``, which is then the password in use."""
    found = Credentials(credentials_of(device).user, secret)
    return await opens(device, _API + "unlock", login_of(found), found)


async def _update(device: Device, image: bytes) -> None:
    body, kind = packed(
        {
            "file": ("firmware.tar.gz", "application/gzip", image),
            "keep_settings": ("", "text/plain", b"true"),
        }
    )
    target = "firmware/update"
    await _get(device, "summary")  # a token that has expired is renewed before the image goes out, not after
    reply = await device.call(
        "POST", _API + target, body=body, headers={"content-type": kind}, deadlines=device.deadlines.for_image()
    )
    raise_unless_taken(device, reply, target)


async def _logs(device: Device) -> bytes:
    """Return all the miner's logs that it has, one after the other under their names."""
    found: list[bytes] = []
    for name in _LOGS:
        reply = await device.call("GET", f"{_API}logs/{name}", deadlines=device.deadlines.for_log())
        if reply.status == 200:
            found.append(f"== {name}\n".encode() + reply.body.rstrip(b"\n") + b"\n")
    if not found:
        raise_unless_taken(device, reply, "a look at its logs")
    return b"".join(found)
