"""What one reading of a device goes by and has found, whatever another reading finds meanwhile.

Invariant: a reading that is cut short tells the state only where what came truly tells it.
"""

from dataclasses import dataclass, field
from typing import Final

from agent.cgminer.client import Address
from agent.cgminer.dialects.table import Table
from agent.cgminer.observation import Observation
from agent.cgminer.replies import interpret
from agent.cgminer.sections import Sections
from agent.errors import SessionBusy, TimedOut, Transient
from sitelink.types import MinerState, Reason
from sitelink.units import Watts

_SAYS_NOTHING: Final = (Reason.NOT_REPORTED, Reason.GARBLED)


@dataclass(slots=True)
class Look:
    """One reading, which ends at ``ends_at`` by the event loop's time. ``silent`` are wires not to be asked again.

    A ``glance`` is after the state and the power alone, and of a miner that draws no more than ``idle_w`` after why.
    """

    table: Table
    ends_at: float
    glance: bool = False
    idle_w: Watts | None = None
    dialect: str = ""
    silent: set[str] = field(default_factory=set)
    asked: bool = False
    """Whether anything was sent: until then it only waited for its turn."""
    asked_s: float = 0.0
    """When the first request was sent since this was last 0, its turn waited for."""
    sections: Sections | None = None
    shown_s: tuple[float, float] | None = None
    """Between which moments the poll's commands were answered; None as long as one is not."""

    def runs(self, seen: Observation) -> bool:
        """Return whether ``seen`` hashes, or draws more than a miner that stands."""
        return seen.state is MinerState.HASHING or (seen.power_w or 0.0) > (self.idle_w or 0.0)

    def cut_short(self, address: Address, lacks: str, limit_s: float) -> Transient:
        """Return the error of a reading that ``lacks`` something after ``limit_s``: the device's, or our own doing."""
        if not self.asked:
            return SessionBusy(f"{address}: other requests of ours took more than {limit_s:g} s; it is tried again")
        lacks = lacks if self.dialect else "no firmware showed itself"
        return TimedOut(f"{address}: {lacks} within {limit_s:g} s; it is tried again")

    def tells(self) -> Observation | None:
        """Return what was read so far where it truly tells the state: not hashing is told by the whole poll alone."""
        if self.sections is None:
            return None
        seen = interpret(self.dialect, self.sections, self.shown_s)
        whole = self.shown_s is not None and (seen.state is MinerState.IDLE or seen.reason not in _SAYS_NOTHING)
        return seen if whole or seen.state is MinerState.HASHING else None
