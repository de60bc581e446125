"""How what a miner reads is judged against what was asked of it, the part that is the same for every firmware. Pure.

    STOP    idle and little power -> DONE   less power than before -> PART    hashing -> NOT_YET
    START   hashing or coming up -> DONE    idle -> NOT_YET
    LIMIT   limit in force, power within -> DONE    limit in force, power above -> PART
    POOLS, BLINK, PASSWORD, FIRMWARE   in force -> DONE
    REBOOT  up for less long than before -> DONE

Invariants: missing is not zero: no power figure proves no stop by power, and an unknown state proves nothing. A miner
that stands still because it is hot or broken was not stopped by us.
"""

from collections.abc import Mapping
from typing import Final

from agent.cgminer.control.driver import ReadBack, Shown
from agent.cgminer.observation import Observation
from sitelink.types import Evidence, MinerState, Reason, Verb
from sitelink.units import Watts

_IDLE_SHARE: Final = 0.15
_PART_SHARE: Final = 0.7
_IDLE_W: Final = Watts(450)
"""What a miner not seen hashing before may draw and still count as stopped."""
_LIMIT_TOLERANCE: Final = 0.05
"""Devices round a limit to their own steps and draw a little beside it."""
_SETTINGS: Final[Mapping[Verb, tuple[str, str]]] = {
    Verb.POOLS: ("pools_in_force", "pools_not_in_force"),
    Verb.BLINK: ("lamp_as_wanted", "lamp_not_as_wanted"),
    Verb.PASSWORD: ("password_in_force", "password_not_in_force"),
    Verb.FIRMWARE: ("version_in_force", "version_not_in_force"),
}
"""The reasons of a setting that is in force, and of one that is not yet."""
_NOT_BY_US: Final = frozenset({Reason.THERMAL, Reason.FAULT})
STATE_UNKNOWN: Final = ReadBack(Shown.NOT_YET, Evidence.NONE, "state_unknown")


def shows_stopped(seen: Observation, before: Observation) -> ReadBack:
    """Return how far the miner shows a stop; ``before`` was read before the order."""
    if seen.state is MinerState.UNKNOWN:
        return STATE_UNKNOWN
    was_on_w = before.power_w if before.state is MinerState.HASHING else None
    power_w = seen.power_w
    if seen.state is MinerState.HASHING:
        return _less(power_w, was_on_w, "still_hashing")
    if seen.reason in _NOT_BY_US:
        return ReadBack(Shown.NOT_YET, Evidence.DEVICE_STATE, seen.reason.value)
    if power_w is None:
        return ReadBack(Shown.DONE, Evidence.DEVICE_STATE, "reads_idle")
    if power_w > (_IDLE_W if was_on_w is None else _IDLE_SHARE * was_on_w):
        return _less(power_w, was_on_w, "power_above_idle")
    already = before.state is MinerState.IDLE and before.reason is Reason.COMMANDED
    return ReadBack(Shown.DONE, Evidence.DEVICE_POWER, "already_idle" if already else "power_below_idle")


def shows_started(seen: Observation) -> ReadBack:
    """Return whether the miner hashes or says that it is coming up."""
    if seen.state is MinerState.HASHING:
        return ReadBack(Shown.DONE, Evidence.DEVICE_STATE, "hashing")
    if seen.reason is Reason.STARTING:
        return ReadBack(Shown.DONE, Evidence.DEVICE_STATE, "starting")
    if seen.state is MinerState.UNKNOWN:
        return STATE_UNKNOWN
    broken = seen.reason in _NOT_BY_US
    return ReadBack(Shown.NOT_YET, Evidence.DEVICE_STATE, seen.reason.value if broken else "not_hashing")


def shows_limited(limit_w: Watts | None, seen: Observation, wanted_w: Watts) -> ReadBack:
    """Return whether ``limit_w``, read back from the device, is the wanted one and its power keeps to it."""
    if limit_w is None:
        return ReadBack(Shown.NOT_YET, Evidence.NONE, "limit_unknown")
    if abs(limit_w - wanted_w) > _LIMIT_TOLERANCE * wanted_w:
        return ReadBack(Shown.NOT_YET, Evidence.DEVICE_STATE, "limit_not_in_force")
    if seen.power_w is None:
        return ReadBack(Shown.DONE, Evidence.DEVICE_STATE, "limit_in_force")
    if seen.power_w > (1 + _LIMIT_TOLERANCE) * wanted_w:
        return ReadBack(Shown.PART, Evidence.DEVICE_POWER, "power_above_limit")
    return ReadBack(Shown.DONE, Evidence.DEVICE_POWER, "power_within_limit")


def shows_rebooted(seen: Observation, before: Observation) -> ReadBack:
    """Return whether the miner has been up for less long than before the order."""
    if seen.uptime_s is None or before.uptime_s is None:
        return ReadBack(Shown.NOT_YET, Evidence.NONE, "uptime_unknown")
    if seen.uptime_s < before.uptime_s:
        return ReadBack(Shown.DONE, Evidence.DEVICE_STATE, "uptime_reset")
    return ReadBack(Shown.NOT_YET, Evidence.DEVICE_STATE, "uptime_not_reset")


def shows_set(verb: Verb, done: bool) -> ReadBack:
    """Return what the setting of POOLS, BLINK, PASSWORD or FIRMWARE shows, read back: in force, or not yet."""
    return shows(done, *_SETTINGS[verb])


def shows(done: bool, reason: str, not_yet: str) -> ReadBack:
    """Return what a state read back shows: ``reason`` when it is as wanted, else ``not_yet``."""
    if done:
        return ReadBack(Shown.DONE, Evidence.DEVICE_STATE, reason)
    return ReadBack(Shown.NOT_YET, Evidence.DEVICE_STATE, not_yet)


def _less(power_w: Watts | None, was_on_w: Watts | None, reason: str) -> ReadBack:
    """Return PART for a miner that draws clearly less than it did, else NOT_YET with ``reason``."""
    if power_w is not None and was_on_w is not None and power_w < _PART_SHARE * was_on_w:
        return ReadBack(Shown.PART, Evidence.DEVICE_POWER, "power_above_idle")
    return ReadBack(Shown.NOT_YET, Evidence.DEVICE_STATE if power_w is None else Evidence.DEVICE_POWER, reason)
