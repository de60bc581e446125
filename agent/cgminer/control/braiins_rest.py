"""Braiins OS from 25.07: its REST API.

    STOP START   PUT actions/pause, resume (start, where the miner's process is down)
    LIMIT        PUT performance/power-target {"watt": N}, read back from the tuner
    POOLS        PUT pools/batch: all groups replaced by one; refused while stopped, because it restarts the miner
    FIRMWARE     POST upgrade/system-upgrade (from 26.04): metadata with size and SHA-256, then the image

Invariants: only a pause is a stop by order; suspended and restricted are the firmware's own, and a mining process that
is down was stopped by nobody we know (the statuses: see the dialect). The token is fetched and renewed by ``wires``.

Source: the OpenAPI documents of 25.07 and 26.04 (developer.braiins-os.com); MinerStatus in bos-plus-api.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from agent.cgminer.control.asked import blink_asked, pools_asked, power_asked_alone, version_asked
from agent.cgminer.control.commanded import refuse_while_stopped, shows_commanded_stop
from agent.cgminer.control.driver import ReadBack, Wanted
from agent.cgminer.control.limits import kept_limit, lost_limit
from agent.cgminer.control.read_back import shows, shows_limited, shows_rebooted, shows_set, shows_started
from agent.cgminer.control.versions import runs
from agent.cgminer.control.web_answers import (
    credentials_of,
    opens,
    packed,
    raise_unless_taken,
    value_of,
)
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.dialects.braiins_rest import NOT_STARTED, PAUSED, TARGET_W, login_of
from agent.cgminer.observation import Observation
from agent.cgminer.sections import dig, whole
from agent.errors import AccessDenied
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
_DETAILS: Final = "miner/details"
_TUNER: Final = "performance/tuner-state"
_LIMIT: Final = "performance/power-target"
_LAMP: Final = "actions/locate"
_POOLS: Final = ("pools", "pools/")
"""The document names the second, devices answer the first."""
_GROUP_NAME: Final = "default"


class BraiinsRest:
    """Control of one miner with Braiins OS from 25.07."""

    @property
    def verbs(self) -> frozenset[Verb]:
        """Return what the firmware can be told."""
        return _VERBS

    async def former(self, device: Device, wanted: Wanted) -> str:
        """Return what ``wanted`` replaces: the power target (STOP), the tuner's configuration, the pools, the lamp."""
        match wanted.verb:
            case Verb.STOP:
                return await self.limits(device, None)
            case Verb.LIMIT:
                return json.dumps({"tuner": dig(await _get(device, "configuration/miner"), ("tuner",))})
            case Verb.POOLS:
                return json.dumps({"pool_groups": await _groups(device)})
            case Verb.BLINK:
                return json.dumps({"locate": await _get(device, _LAMP)})
            case Verb.FIRMWARE:
                return json.dumps({"version": await _version(device)})
            case _:
                return ""

    async def limits(self, device: Device, seen: Observation | None) -> str:
        """See ``KeepsLimit.limits``: what was set, not the target of a hot moment, which the look has."""
        return kept_limit(await _set_w(device))

    async def lost(self, device: Device, kept: Mapping[str, Any], seen: Observation) -> Wanted | None:
        """See ``KeepsLimit.lost``."""
        return lost_limit(kept, await _set_w(device))

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        """See ``Driver.send``."""
        match wanted.verb:
            case Verb.STOP:
                await _put(device, "actions/pause")
            case Verb.START:
                down = await _status(device) == NOT_STARTED
                await _put(device, "actions/start" if down else "actions/resume")
            case Verb.LIMIT:
                await _put(device, _LIMIT, {"watt": round(power_asked_alone(wanted, device.address))})
            case Verb.POOLS:
                await _set_pools(device, pools_asked(wanted))
            case Verb.BLINK:
                await _put(device, _LAMP, blink_asked(wanted))
            case Verb.PASSWORD:
                await _change_password(device, wanted.secret)
            case Verb.REBOOT:
                await _put(device, "actions/reboot")
            case Verb.FIRMWARE:
                await _upgrade(device, wanted)
            case _:
                return await _log(device)
        return b""

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        """See ``Driver.shows``."""
        match wanted.verb:
            case Verb.STOP:
                told = await _status(device) == PAUSED
                return shows_commanded_stop(await device.observe(), before, told=told, otherwise="not_paused")
            case Verb.START:
                if await _status(device) == PAUSED:
                    return shows(False, "", "still_paused")
                return shows_started(await device.observe())
            case Verb.LIMIT:
                found = whole(dig(await _get(device, _TUNER), TARGET_W.split(".")))
                limit_w = Watts(found) if found else None
                return shows_limited(limit_w, await device.observe(), power_asked_alone(wanted, device.address))
            case Verb.POOLS:
                return shows_set(Verb.POOLS, _has_pools(await _groups(device), pools_asked(wanted)))
            case Verb.BLINK:
                return shows_set(Verb.BLINK, await _get(device, _LAMP) is blink_asked(wanted))
            case Verb.PASSWORD:
                return shows_set(Verb.PASSWORD, await _takes(device, wanted.secret))
            case Verb.FIRMWARE:
                return shows_set(Verb.FIRMWARE, runs(await _version(device), version_asked(wanted)))
            case _:
                found = whole(dig(await _get(device, _DETAILS), ("bosminer_uptime_s",)))
                return shows_rebooted(replace(await device.observe(), uptime_s=found), before)


async def _get(device: Device, target: str) -> Any:
    reply = await device.call("GET", _API + target)
    raise_unless_taken(device, reply, target)
    return value_of(device, reply, target)


async def _put(device: Device, target: str, told: object = None) -> None:
    reply = await device.call("PUT", _API + target, json=told, deadlines=device.deadlines.for_setting())
    raise_unless_taken(device, reply, target)


async def _status(device: Device) -> int | None:
    return whole(dig(await _get(device, _DETAILS), ("status",)))


async def _set_w(device: Device) -> int | None:
    """Return the power target that was set; power scaling may have the tuner keep to less for a time."""
    return whole(dig(await _get(device, "configuration/miner"), ("tuner", "power_target", "watt")))


async def _version(device: Device) -> str:
    return str(dig(await _get(device, _DETAILS), ("bos_version", "current")) or "")


async def _groups(device: Device) -> Any:
    for target in _POOLS:
        reply = await device.call("GET", _API + target)
        if not reply.is_absent:
            break
    raise_unless_taken(device, reply, "a look at its pools")
    return value_of(device, reply, "a look at its pools")


async def _set_pools(device: Device, pools: tuple[Pool, ...]) -> None:
    stopped = await _status(device) in (PAUSED, NOT_STARTED)
    refuse_while_stopped(stopped, device.address, "a change of its pools")
    name = dig(await _groups(device), ("0", "name")) or _GROUP_NAME
    told = [{"enabled": True, **pool._asdict()} for pool in pools]
    group = {"name": name, "pools": told, "load_balance_strategy": {"quota": {"value": 1}}}
    await _put(device, "pools/batch", [group])


async def _change_password(device: Device, secret: str) -> None:
    try:
        await _put(device, "auth/password", {"password": secret})
    except AccessDenied:
        if not await _takes(device, secret):  # an earlier attempt, cut short, may have changed it
            raise


async def _takes(device: Device, secret: str) -> bool:
    """Return whether a login opens with ``secret``, which is then the password in use."""
    found = Credentials(credentials_of(device).user, secret)
    return await opens(device, _API + "auth/login", login_of(found), found)


async def _upgrade(device: Device, wanted: Wanted) -> None:
    metadata = {
        "size": len(wanted.image),
        "hash": hashlib.sha256(wanted.image).hexdigest(),
        "discard_settings": False,
        "disable_cleanup": False,
    }
    body, kind = packed(
        {
            "metadata": ("", "application/json", json.dumps(metadata).encode()),
            "data": ("firmware", "application/octet-stream", wanted.image),
        }
    )
    target = "upgrade/system-upgrade"
    await _version(device)  # a token that has expired is renewed before the image goes out, not after
    reply = await device.call(
        "POST", _API + target, body=body, headers={"content-type": kind}, deadlines=device.deadlines.for_image()
    )
    raise_unless_taken(device, reply, target)


async def _log(device: Device) -> bytes:
    """Return the miner's log; before 26.04, which has none alone, the support archive."""
    reply = await device.call("GET", _API + "miner/log/bosminer", deadlines=device.deadlines.for_log())
    if reply.is_absent:
        target = _API + "miner/support-archive"
        reply = await device.call("GET", target, json={"format": "zip"}, deadlines=device.deadlines.for_log())
    raise_unless_taken(device, reply, "a look at its log")
    return reply.body


def _has_pools(groups: Any, pools: tuple[Pool, ...]) -> bool:
    """Return whether there is one group with these pools; their passwords are never shown."""
    listed = dig(groups, ("0", "pools"))
    if not isinstance(groups, list) or len(groups) != 1 or not isinstance(listed, list):
        return False
    found = [(entry.get("url"), entry.get("user")) for entry in listed if isinstance(entry, dict)]
    return found == [(pool.url, pool.user) for pool in pools]
