"""How a miner's state follows from evidence, the part that is the same for every firmware. Pure.

Invariant: a miner without a hashrate figure is UNKNOWN unless it says itself that it is off. A miner that does not hash
is never called commanded without the device saying so: an overheated or broken one also shows 0 GH/s.
"""

from typing import Final

from agent.cgminer.dialects.table import Facts, Verdict
from agent.cgminer.sections import Sections
from sitelink.types import MinerState, Reason

HOT_BOARD_C: Final = 85.0
HOT_CHIP_C: Final = 90.0
WARMING_UP_S: Final = 600
"""A miner tunes for up to ten minutes after a start before its first hash."""


def judge(facts: Facts, *, off: bool = False, hot: bool = False, starting: bool = False) -> Verdict:
    """Return state and reason.

    ``off``: the device says that it was told to stop. ``hot``: it says that it stopped itself. ``starting``: it says
    that it is coming up.
    """
    if facts.hashrate_ths is None:
        return (MinerState.IDLE, Reason.COMMANDED) if off else (MinerState.UNKNOWN, Reason.NOT_REPORTED)
    if facts.hashrate_ths > 0:
        return MinerState.HASHING, Reason.NONE
    return MinerState.IDLE, _idle_reason(facts, off, hot, starting)


def judge_by_hashrate(_sections: Sections, facts: Facts) -> Verdict:
    """Judge a firmware that says nothing of its own state."""
    return judge(facts)


def _idle_reason(facts: Facts, off: bool, hot: bool, starting: bool) -> Reason:
    if off:
        return Reason.COMMANDED
    if hot or is_hot(facts):
        return Reason.THERMAL
    if starting:
        return Reason.STARTING
    if facts.sensors.errors:
        return Reason.FAULT
    if facts.uptime_s is not None and facts.uptime_s < WARMING_UP_S:
        return Reason.STARTING
    return Reason.NOT_REPORTED


def is_hot(facts: Facts) -> bool:
    """Return whether a sensor is where firmwares cut off."""
    boards, chips = facts.sensors.board_temps_c, facts.sensors.chip_temps_c
    return max(boards, default=0.0) >= HOT_BOARD_C or max(chips, default=0.0) >= HOT_CHIP_C
