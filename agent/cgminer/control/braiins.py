"""Braiins OS up to 25.05: pause and resume over its CGMiner RPC, everything else over GraphQL.

    STOP START    RPC pause, resume                 needs no login; the miner's process stays up and can be read
    LIMIT         updateAutotuning powerTarget      the tuner keeps to it
    POOLS         updateGroups, then restart        refused while stopped: the restart would start it
    others        setFaultLight, setPassword, reboot, log

Invariants: a stop pauses and never ends the miner's process, else nothing could be read back; the groups of pools are
replaced by one, and the limit's mode by the power target, as a whole: half of either would mean something else.

Source: Braiins OS API documentation (pause, resume: code 204); the schema the firmware publishes at /graphql.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from agent.cgminer.control import graphql
from agent.cgminer.control.asked import blink_asked, pools_asked, power_asked_alone
from agent.cgminer.control.commanded import refuse_while_stopped
from agent.cgminer.control.driver import ReadBack, Wanted
from agent.cgminer.control.limits import kept_limit, lost_limit
from agent.cgminer.control.read_back import shows_limited, shows_rebooted, shows_set, shows_started, shows_stopped
from agent.cgminer.control.web_answers import credentials_of
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.cgminer.sections import dig, whole
from agent.cgminer.status import Status
from agent.errors import AccessDenied, UnsupportedDevice
from sitelink.types import MinerState, Reason, Verb
from sitelink.units import Watts
from sitelink.verbs import Pool

_VERBS: Final = frozenset(
    {Verb.STOP, Verb.START, Verb.LIMIT, Verb.POOLS, Verb.BLINK, Verb.PASSWORD, Verb.REBOOT, Verb.LOGS}
)
_SWITCHES: Final = {Verb.STOP: "pause", Verb.START: "resume"}
_TUNING: Final = """query { bosminer { config { __typename ... on BosminerConfig {
  autotuning { enabled mode powerTarget hashrateTarget } } } } }"""
_POOLS: Final = """query { bosminer { config { __typename ... on BosminerConfig { groups { id name
  strategy { ... on QuotaStrategy { quota } ... on FixedShareRatioStrategy { fixedShareRatio } }
  pools { enabled url user password } } } } } }"""
_LAMP: Final = "query { bos { faultLight } }"
_SET_LIMIT: Final = """mutation ($input: AutotuningIn!) { bosminer { config {
  updateAutotuning(input: $input, apply: true) {
    __typename ... on AutotuningError { message powerTarget } ... on AttributeError { message } } } } }"""
_SET_POOLS: Final = """mutation ($groups: [Group!]!) { bosminer { config { updateGroups(groups: $groups) {
  __typename ... on GroupListError { message } } } } }"""
_RESTART: Final = "mutation { bosminer { restart { __typename ... on BosminerError { message } } } }"
_SET_LAMP: Final = "mutation ($enable: Boolean!) { bos { setFaultLight(enable: $enable) { enabled } } }"
_CHANGE_PASSWORD: Final = """mutation ($newPassword: String) { bos { setPassword(newPassword: $newPassword) {
  __typename ... on BosError { message } } } }"""  # noqa: S105 - a mutation, not a password
_REBOOT: Final = "mutation { bos { reboot { __typename ... on BosError { message } } } }"
_LOG: Final = "query ($target: LogTarget!) { bos { log(target: $target) } }"
_GROUP_NAME: Final = "default"


class Braiins:
    """Control of one miner with Braiins OS up to 25.05."""

    @property
    def verbs(self) -> frozenset[Verb]:
        """Return what the firmware can be told; its upgrade over GraphQL is not documented well enough."""
        return _VERBS

    async def former(self, device: Device, wanted: Wanted) -> str:
        """Return the limit before a stop, the tuning, the groups of pools, or the lamp that ``wanted`` replaces."""
        match wanted.verb:
            case Verb.STOP:
                return await self.limits(device, None)
            case Verb.LIMIT:
                return json.dumps({"autotuning": await _tuning(device)})
            case Verb.POOLS:
                return json.dumps({"groups": await _groups(device)})
            case Verb.BLINK:
                return json.dumps({"faultLight": await _lamp(device)})
            case _:
                return ""

    async def limits(self, device: Device, seen: Observation | None) -> str:
        """See ``KeepsLimit.limits``: what was set, not the target of a hot moment, which the look has."""
        if device.credentials is None:
            return ""  # nobody could give it back either
        return kept_limit(await _target_w(device))

    async def lost(self, device: Device, kept: Mapping[str, Any], seen: Observation) -> Wanted | None:
        """See ``KeepsLimit.lost``."""
        return lost_limit(kept, await _target_w(device))

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        """See ``Driver.send``."""
        match wanted.verb:
            case Verb.STOP | Verb.START:
                await _switch(device, _SWITCHES[wanted.verb])
            case Verb.LIMIT:
                limit = {"mode": "POWER_TARGET", "powerTarget": round(power_asked_alone(wanted, device.address))}
                await _mutate(device, _SET_LIMIT, ("bosminer", "config", "updateAutotuning"), {"input": limit})
            case Verb.POOLS:
                await _set_pools(device, pools_asked(wanted))
            case Verb.BLINK:
                await graphql.ask(device, _SET_LAMP, {"enable": blink_asked(wanted)})
            case Verb.PASSWORD:
                await _change_password(device, wanted.secret)
            case Verb.REBOOT:
                await _mutate(device, _REBOOT, ("bos", "reboot"))
            case _:
                return await _log(device)
        return b""

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        """See ``Driver.shows``."""
        match wanted.verb:
            case Verb.STOP:
                return shows_stopped(await device.observe(), before)
            case Verb.START:
                return shows_started(await device.observe())
            case Verb.LIMIT:
                limit_w = power_asked_alone(wanted, device.address)
                return shows_limited(await _target_w(device), await device.observe(), limit_w)
            case Verb.POOLS:
                return shows_set(Verb.POOLS, _has_pools(await _groups(device), pools_asked(wanted)))
            case Verb.BLINK:
                return shows_set(Verb.BLINK, await _lamp(device) is blink_asked(wanted))
            case Verb.PASSWORD:
                return shows_set(Verb.PASSWORD, await _takes(device, wanted.secret))
            case _:
                return shows_rebooted(await device.observe(), before)


async def _tuning(device: Device) -> Any:
    return dig(await graphql.ask(device, _TUNING), ("bosminer", "config", "autotuning"))


async def _target_w(device: Device) -> Watts | None:
    """Return the power target that the tuner keeps to, None when it follows another."""
    tuning = await _tuning(device)
    if not isinstance(tuning, dict) or tuning.get("mode") not in (None, "POWER_TARGET"):
        return None
    found = whole(tuning.get("powerTarget"))
    return Watts(found) if found else None


async def _groups(device: Device) -> Any:
    return dig(await graphql.ask(device, _POOLS), ("bosminer", "config", "groups"))


async def _lamp(device: Device) -> Any:
    return dig(await graphql.ask(device, _LAMP), ("bos", "faultLight"))


async def _set_pools(device: Device, pools: tuple[Pool, ...]) -> None:
    seen = await device.observe()
    stopped = seen.state is MinerState.IDLE and seen.reason is not Reason.STARTING  # a pause names itself nowhere
    refuse_while_stopped(stopped, device.address, "a change of its pools")
    groups = await _groups(device)
    first = groups[0] if isinstance(groups, list) and groups and isinstance(groups[0], dict) else {}
    told = [{"enabled": True, **pool._asdict()} for pool in pools]
    group = {"name": first.get("name") or _GROUP_NAME, "quota": 1, "pools": told}
    await _mutate(device, _SET_POOLS, ("bosminer", "config", "updateGroups"), {"groups": [group]})
    await _mutate(device, _RESTART, ("bosminer", "restart"))


async def _change_password(device: Device, secret: str) -> None:
    try:
        await _mutate(device, _CHANGE_PASSWORD, ("bos", "setPassword"), {"newPassword": secret})
    except AccessDenied:
        if not await _takes(device, secret):  # an earlier attempt, cut short, may have changed it
            raise


async def _takes(device: Device, secret: str) -> bool:
    """Return whether a login opens with ``secret``, which is then the password in use."""
    return await graphql.opens(device, Credentials(credentials_of(device).user, secret))


async def _log(device: Device) -> bytes:
    data = await graphql.ask(device, _LOG, {"target": "BOSMINER"}, device.deadlines.for_log())
    lines = dig(data, ("bos", "log"))
    return "\n".join(str(line) for line in lines).encode() if isinstance(lines, list) else b""


async def _mutate(
    device: Device, mutation: str, path: tuple[str, ...], variables: Mapping[str, Any] | None = None
) -> None:
    data = await graphql.ask(device, mutation, variables, device.deadlines.for_setting())
    refusal = graphql.refusal_in(data, *path)
    if refusal is not None:
        raise UnsupportedDevice(f"{device.address}: refuses {path[-1]} ({refusal}); correct the order")


async def _switch(device: Device, command: str) -> None:
    status = Status.of(await device.ask(command))
    status.raise_if_denied(device.address)
    if not status.accepted and "already" not in status.message.lower():
        raise UnsupportedDevice(f"{device.address}: refuses {command}: {status.text}; update its firmware")


def _has_pools(groups: Any, pools: tuple[Pool, ...]) -> bool:
    """Return whether there is one group with these pools; a password that is not shown counts as ours."""
    listed = dig(groups, ("0", "pools"))
    if not isinstance(listed, list) or len(groups) != 1 or len(listed) != len(pools):
        return False
    return all(
        isinstance(entry, dict)
        and (entry.get("url"), entry.get("user")) == (pool.url, pool.user)
        and entry.get("password") in (None, pool.password)
        for entry, pool in zip(listed, pools, strict=True)
    )
