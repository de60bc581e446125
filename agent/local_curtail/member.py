"""One stop in a feeder's round: what its miner drew, when it was told, and what each look at it has shown.

Invariant: what a look shows is dated by the exchange itself, and kept until the round is over.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from agent.local_curtail.claims import Claim, Knot
from agent.local_curtail.evidence import FeederBefore, reads_idle
from agent.local_curtail.figure_age import FigureAge
from agent.local_curtail.ports import Observed
from agent.local_curtail.rules import SiteMiner
from sitelink.types import MinerState
from sitelink.units import Watts

_SMALLEST_W: Final = Watts(1000.0)
_FULLY_SHARE: Final = 0.85
"""One that fell by more than the rest of what it drew has fallen."""

_RENEWALS: Final = 2


@dataclass(slots=True, eq=False)
class Member:
    """One stop on the feeder. ``load_w`` is what the miner drew, ``drawn_w`` what it drew when it joined.

    ``resumed`` is a stop that was under way, or done, before the round: it is judged by ``before``, from its record.
    ``falls_late`` is such a one that is off but lately: a late meter may show its fall only now. ``early`` is one that
    may have fallen before the round: it runs by figures older than such a stop, or draws next to nothing.
    ``untouched`` is one that no order of ours had reached before. ``known`` is how it is settled: True off, False
    drawing, None open.
    """

    miner: SiteMiner
    load_w: Watts
    drawn_w: Watts
    idle_share: float
    resumed: bool = False
    falls_late: bool = False
    early: bool = False
    untouched: bool = False
    before: FeederBefore | None = None
    seen: Observed | None = None
    sent_s: float | None = None
    looked_s: float = 0.0
    idle_s: float | None = None
    knots: list[Knot] = field(default_factory=list)
    known: bool | None = None
    weighs: bool = False
    """It is this one's turn to weigh the round."""
    left: bool = False
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    _age: FigureAge = field(default_factory=FigureAge)
    _figures: tuple[float | None, float | None] | None = None
    _news: int = 0

    @property
    def silent(self) -> bool:
        """Return whether it did not answer when last looked at."""
        return self.seen is None

    @property
    def renewed(self) -> bool:
        """Return whether its figures have changed twice since its order: what they show was measured after it."""
        return self._news >= _RENEWALS

    @property
    def bound_w(self) -> Watts:
        """Return the load to look for: no more than its nameplate, whatever it said it drew.

        Where neither is known it is that of the smallest miner worth curtailing.
        """
        return Watts(min(self.load_w, self.miner.load_w)) if self._sized else _SMALLEST_W

    @property
    def idle_w(self) -> Watts:
        """Return the most that counts as idle."""
        return Watts(self.idle_share * self.load_w)

    @property
    def ran_until_s(self) -> float | None:
        """Return until when it ran as fully as it always has, for certain; None where nobody knows."""
        hashes = self.seen is not None and self.seen.state is MinerState.HASHING
        if self.resumed or not hashes or not self.knots:
            return None
        fully = all(knot.fallen_w < (1.0 - _FULLY_SHARE) * self.drawn_w for knot in self.knots)
        return self.knots[-1].surely_s if fully else None

    def sent(self, now_s: float) -> None:
        """Take note that the stop is being sent."""
        if self.sent_s is None:
            self.sent_s = now_s
            self.knots.append(Knot(now_s, 0.0))

    def acknowledged(self, now_s: float) -> None:
        """Take note that the device took the stop at some moment since it was sent."""
        first = self.knots[0]
        if len(self.knots) == 1 and not first.unsure_s:
            half_s = (now_s - first.at_s) / 2
            self.knots[0] = Knot(first.at_s + half_s, 0.0, half_s)

    def withdraw(self) -> None:
        """Take note that the stop was refused: nothing has changed at the device."""
        self.sent_s = None
        self.knots.clear()
        self._news = 0

    def settle(self, known: bool) -> None:
        """Say how it is settled and wake who waits."""
        self.known = known
        self.woken.set()

    def look(self, seen: Observed | None, began_s: float, ended_s: float) -> None:
        """Take note of what a look between ``began_s`` and ``ended_s`` showed."""
        self.seen = seen
        if seen is None:
            return
        began_s, ended_s = seen.shown_s or (began_s, ended_s)
        self.looked_s = began_s
        idle = reads_idle(seen, self.load_w, self.idle_share)
        self.idle_s = (self.idle_s or ended_s) if idle else None
        trails_s = self._age.shown(began_s, seen.power_w)
        figures, self._figures = self._figures, (seen.power_w, seen.hashrate_ths)
        if self.sent_s is None:
            return
        self._news += figures is not None and figures != self._figures
        left_w = seen.power_w if seen.power_w is not None else Watts(0.0 if idle else self.drawn_w)
        at_s, unsure_s = (began_s + ended_s) / 2, (ended_s - began_s) / 2
        if at_s > self.knots[-1].at_s:
            fallen_w = max(0.0, float(self.drawn_w - left_w))
            self.knots.append(Knot(at_s, fallen_w, unsure_s, trails_s))

    def claim(self) -> Claim:
        """Return its word so far."""
        knots = tuple(self.knots)
        return Claim(self.miner.miner_id, self.drawn_w, knots, self.idle_s, self.known, self._measured, self._sized)

    @property
    def _measured(self) -> bool:
        return self.seen is None or self.seen.power_w is not None

    @property
    def _sized(self) -> bool:
        return self._measured or self.miner.nameplate_w is not None
