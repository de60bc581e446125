"""How a stop is judged where the firmware says itself whether it was told to stop. Pure.

Invariant: a miner that stands still without having been told to (overheated, broken, out of pools) never counts as
stopped by an order; one that was told to stop and gives no hash rate at all while it sleeps does.
"""

from dataclasses import replace

from agent.cgminer.control.driver import ReadBack, Shown
from agent.cgminer.control.read_back import shows_stopped
from agent.cgminer.observation import Observation
from agent.errors import Refused
from sitelink.types import Evidence, MinerState, Reason


def shows_commanded_stop(seen: Observation, before: Observation, *, told: bool, otherwise: str) -> ReadBack:
    """Return how far the miner shows a stop; ``told`` is whether it says that it was ordered to.

    ``otherwise`` is the reason given for a miner that stands still for a reason of its own.
    """
    silent = seen.state is MinerState.UNKNOWN and seen.reason is Reason.NOT_REPORTED
    if told and (silent or seen.state is MinerState.IDLE):
        seen = replace(seen, state=MinerState.IDLE, reason=Reason.COMMANDED)
    found = shows_stopped(seen, before)
    if found.shown is Shown.DONE and not told:
        return ReadBack(Shown.NOT_YET, Evidence.DEVICE_STATE, otherwise)
    return found


def refuse_while_stopped(stopped: bool, where: object, what: str) -> None:
    """Raise Refused when ``what`` would have to restart a miner that was told to stop."""
    if stopped:
        raise Refused("miner_stopped", f"{where}: is stopped, and {what} would start it; order it after the start")
