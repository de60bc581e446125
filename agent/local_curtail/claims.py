"""What miners on a feeder say their loads have done since their orders, and what its meter shows. Pure.

    order         look          look    (end)  look
      0 ----------- 1,600 W ------------ 3,200 W      straight lines between looks; a fall that was seen on its way
                                                      goes on at the pace of its last stretch until all has gone

Invariants: what a look showed holds for some moment while it lasted, and nobody knows for which; a miner may fall at
one blow between two looks unless it was seen on its way down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from sitelink.units import Watts

TRAILS_S: Final = 10.0
"""By how much figures trail what a device does on most firmware: so long a stop is waited for at the least."""
OLDEST_S: Final = 60.0
"""How old figures may be at the most that do not show their age by changing."""
CATCHES_UP_S: Final = 2.0
"""Within this time after its figures have caught up a miner is looked at, and its meter read."""
SUSPECT_SHARE: Final = 0.3
"""Share of its load from which a claimed fall is worth judging."""
_ANY_W: Final = 1e9
"""More than a feeder carries."""
_ON_ITS_WAY: Final = (0.05, 0.95)
_BOW: Final = (1.0, 0.5, 0.05)
"""How far from a straight line a miner may be that was seen on its way down never, once, or more often."""
_DEVICE_SHARE: Final = 0.015
"""How far the scale of one device may be from that of all (standard deviation)."""


class Sample(NamedTuple):
    """One reading of a feeder's meter at ``at_s`` (monotonic seconds), give or take ``unsure_s``."""

    at_s: float
    power_w: Watts
    unsure_s: float = 0.0


class Knot(NamedTuple):
    """By ``at_s`` (monotonic seconds), give or take ``unsure_s``, a miner had fallen by ``fallen_w``.

    Its figure may be as much as ``trails_s`` seconds older than that.
    """

    at_s: float
    fallen_w: float
    unsure_s: float = 0.0
    trails_s: float = OLDEST_S

    @property
    def surely_s(self) -> float:
        """Return until when it had fallen by no more than this, for certain (monotonic seconds)."""
        return self.at_s - self.unsure_s - self.trails_s


@dataclass(frozen=True, slots=True)
class Claim:
    """What one miner says its load has done since its order.

    ``knots`` rise in time, from the order's sending, with nothing fallen, on. ``idle_s`` is when it was first read
    idle, None while it has not been. ``known`` is whether it is judged already: True off, False drawing, None open.
    ``measured`` is whether it reports its power; of one that does not, a look shows only that its hashing has ended.
    ``sized`` is whether anybody knows its load: one of unknown size may have fallen by any amount.
    """

    miner_id: str
    load_w: Watts
    knots: tuple[Knot, ...]
    idle_s: float | None = None
    known: bool | None = None
    measured: bool = True
    sized: bool = True

    @property
    def claimed_w(self) -> Watts:
        """Return by how much it says it has fallen."""
        return Watts(self.knots[-1].fallen_w)

    @property
    def live(self) -> bool:
        """Return whether its looks followed its fall, so that its curve can be trusted to seconds."""
        return self.measured and len(self._on_its_way()) > 1

    @property
    def settled_s(self) -> float:
        """Return from when on it says to have fallen by as much (monotonic seconds)."""
        return self.knots[-1].at_s if self.idle_s is None else self.idle_s

    @property
    def suspect(self) -> bool:
        """Return whether it claims a fall and is not judged yet."""
        return self.known is None and self.claimed_w >= SUSPECT_SHARE * self.load_w

    def at_most_w(self, at_s: float) -> float:
        """Return the most it can have fallen by at ``at_s``, if its word is good: what the next look showed."""
        if at_s < self.knots[0].at_s - self.knots[0].unsure_s:
            return 0.0
        if not self.measured:
            return self.load_w if self.sized else _ANY_W
        most_w = 0.0
        for knot in self.knots:
            most_w = max(most_w, knot.fallen_w)
            if knot.surely_s >= at_s:
                return most_w
        return max(most_w, float(self.load_w))  # one that reads idle may go on falling

    def along(self, times: Sequence[float]) -> tuple[list[float], list[float]]:
        """Return the watts it says it had fallen by at each of ``times``, which rise, and the variance of each.

        A fall may be a blow at any moment between two looks, and a look is dated no better than it lasted.
        """
        fallen, unsure = [], []
        line = self._line()
        bow = self._bow()
        place = 0
        for at_s in times:
            while place < len(line) and line[place].at_s <= at_s:
                place += 1
            if place in {0, len(line)}:
                fallen.append(line[place - 1].fallen_w if place else 0.0)
                unsure.append(self._scaled_w2(fallen[-1]))
                continue
            before, after = line[place - 1], line[place]
            rise_w, lasts_s = after.fallen_w - before.fallen_w, after.at_s - before.at_s
            passed = (at_s - before.at_s) / lasts_s
            fallen.append(before.fallen_w + rise_w * passed)
            dated_s = before.unsure_s + (after.unsure_s - before.unsure_s) * passed
            moved = min(1.0, dated_s / lasts_s)
            bent = bow * max(passed, 1.0 - passed)
            unsure.append(rise_w**2 * (bent**2 + moved**2 / 3.0) + self._scaled_w2(fallen[-1]))
        return fallen, unsure

    @staticmethod
    def _scaled_w2(fallen_w: float) -> float:
        """Return the variance of a fall by its device's own inexactness."""
        return (_DEVICE_SHARE * fallen_w) ** 2

    def _bow(self) -> float:
        """Return how far it may be from a straight line between two looks, as a share of what it fell between them."""
        return _BOW[min(2, len(self._on_its_way()))]

    def _on_its_way(self) -> list[int]:
        """Return the places of the looks that found it on its way down."""
        low, high = _ON_ITS_WAY
        claimed_w = self.claimed_w
        return [n for n, knot in enumerate(self.knots) if low * claimed_w < knot.fallen_w < high * claimed_w]

    def _line(self) -> list[Knot]:
        """Return its knots, with where its fall began and ended where two looks on its way tell its pace."""
        line = list(self.knots)
        seen = self._on_its_way()
        if len(seen) < 2:
            return line
        first, last = seen[0], seen[-1]
        if last + 1 < len(line):
            ended = _reaches(line[last - 1], line[last], line[last + 1].fallen_w)
            if ended is not None and line[last].at_s < ended.at_s < line[last + 1].at_s:
                line.insert(last + 1, ended)
        began = _reaches(line[first + 1], line[first], line[first - 1].fallen_w)
        if began is not None and line[first - 1].at_s < began.at_s < line[first].at_s:
            line.insert(first, began)
        return line


def _reaches(other: Knot, near: Knot, fallen_w: float) -> Knot | None:
    """Return when a fall that goes as from ``other`` to ``near`` is, or was, at ``fallen_w``; None where it rests."""
    if near.fallen_w == other.fallen_w:
        return None
    goes_on = (fallen_w - near.fallen_w) / (near.fallen_w - other.fallen_w)
    if goes_on <= 0.0:
        return None
    unsure_s = max(other.unsure_s, near.unsure_s) * (1.0 + goes_on)
    return Knot(near.at_s + goes_on * (near.at_s - other.at_s), fallen_w, unsure_s)


def steepness(times: Sequence[float], total_w: Sequence[float], least_s: float) -> list[float]:
    """Return by how many watts a second all claims together rise about each of ``times``."""
    rises = [
        (later_w - earlier_w) / max(least_s, until_s - since_s)
        for (since_s, earlier_w), (until_s, later_w) in pairwise(zip(times, total_w, strict=True))
    ]
    return [max(map(abs, rises[max(0, place - 1) : place + 1]), default=0.0) for place in range(len(times))]
