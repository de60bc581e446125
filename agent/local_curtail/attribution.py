r"""Whose fall a feeder's meter has seen, when several miners of it were stopped together. Pure.

    meter     B ---\__                  claims   a --\____    each miner's own word: straight lines between
                      \___                       b -----\__   its looks, watts fallen since its order
                          \__ left               c -------\_

    ceiling       left, less what others certainly draw, is under half of a miner's load: it cannot be drawing it
    surplus       the fall is more than all others can have fallen by then: the rest is this miner's
    explanation   a set T of miners that claim a fall and did not fall: the others' claims, summed, follow the meter

Invariants: a miner is cleared only when no explanation that is kept has it drawing, accused only when each one has; an
explanation is kept unless the meter speaks clearly against it; when none fits well, nothing is said of anybody. What
devices say may be in error by one common scale, and the meter late by one common delay.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from operator import mul
from typing import Final, NamedTuple

from agent.local_curtail.evidence import DROP_SHARE
from sitelink.units import Watts

LEAST_SCALE: Final = 0.95
MOST_SCALE: Final = 1.08
"""What a meter shows of what devices report: one that measures behind its supply leaves its losses out."""
SUSPECT_SHARE: Final = 0.3
"""Share of its load from which a claimed fall is worth judging."""
_KEEP_TIMES: Final = 2.5
_KEEP_SHARE: Final = 0.1
"""An explanation is kept within this many times the best one's misfit, or below this share of the smallest claim."""
_UNSURE_TIMES: Final = 1.25
"""Errors of several miners may add up."""
_RAMP_SHARE: Final = 0.15
"""How far from a straight line a miner is that was seen on its way down, of what one is that may fall at one blow."""
_ON_ITS_WAY: Final = (0.05, 0.95)
_POOR_SHARE: Final = 0.3
_TOO_NOISY_SHARE: Final = 0.45
_LEAST_SAMPLES: Final = 4
_SETTLED_SAMPLES: Final = 2
_TAIL_SAMPLES: Final = 4
_MOST_LIARS: Final = 3
_DELAYS_S: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0)
_FINE_S: Final = 0.1
_NEAR_TIMES: Final = 4.0
_JITTER_S: Final = 0.06
"""By how much looks and readings may be dated wrongly against each other, the step between two delays included."""
SLOWEST_METER_S: Final = _DELAYS_S[-1]


class Sample(NamedTuple):
    """One reading of a feeder's meter at ``at_s`` (monotonic seconds)."""

    at_s: float
    power_w: Watts


@dataclass(frozen=True, slots=True)
class Claim:
    """What one miner says its load has done since its order.

    ``knots`` are (monotonic seconds, watts fallen), rising in time, from (the order's sending, 0) on. ``idle_s`` is
    when it was first read idle, None while it has not been. ``known`` is whether it is judged already: True off, False
    drawing, None open.
    """

    miner_id: str
    load_w: Watts
    knots: tuple[tuple[float, float], ...]
    idle_s: float | None = None
    known: bool | None = None

    @property
    def claimed_w(self) -> Watts:
        """Return by how much it says it has fallen."""
        return Watts(self.knots[-1][1])

    @property
    def suspect(self) -> bool:
        """Return whether it claims a fall and is not judged yet."""
        return self.known is None and self.claimed_w >= SUSPECT_SHARE * self.load_w

    def fallen_w(self, at_s: float) -> float:
        """Return the watts it says it had fallen by at ``at_s``."""
        place = bisect_right(self.knots, (at_s, math.inf))
        if place == 0:
            return 0.0
        began_s, before_w = self.knots[place - 1]
        if place == len(self.knots):
            return before_w
        ended_s, after_w = self.knots[place]
        return before_w + (after_w - before_w) * (at_s - began_s) / (ended_s - began_s)

    def at_most_w(self, at_s: float) -> float:
        """Return the most it can have fallen by at ``at_s``, if its word is good: what the next look showed."""
        if at_s < self.knots[0][0]:
            return 0.0
        place = bisect_right(self.knots, (at_s, -math.inf))
        if place < len(self.knots):
            return max(fallen_w for _, fallen_w in self.knots[: place + 1])
        return self.load_w if self.idle_s is None else max(fallen_w for _, fallen_w in self.knots)

    def unsure_w2(self, at_s: float) -> float:
        """Return the largest error of ``fallen_w``, squared: between two looks a miner may fall at one blow."""
        place = bisect_right(self.knots, (at_s, math.inf))
        if place in {0, len(self.knots)}:
            return 0.0
        (began_s, before_w), (ended_s, after_w) = self.knots[place - 1 : place + 1]
        passed = (at_s - began_s) / (ended_s - began_s)
        low_w, high_w = (share * self.claimed_w for share in _ON_ITS_WAY)
        ramps = any(low_w < fallen_w < high_w for _, fallen_w in self.knots)
        return float(((_RAMP_SHARE if ramps else 1.0) * (after_w - before_w) * max(passed, 1.0 - passed)) ** 2)


@dataclass(frozen=True, slots=True)
class Explained:
    """The explanations that were kept: each is the set of miners that claim a fall and did not fall."""

    kept: tuple[frozenset[str], ...]
    misfit_w: Watts
    delay_s: float

    def cleared(self, miner_id: str) -> bool:
        """Return whether ``miner_id`` fell in every explanation."""
        return bool(self.kept) and all(miner_id not in still for still in self.kept)

    def accused(self, miner_id: str) -> bool:
        """Return whether ``miner_id`` did not fall in any explanation."""
        return bool(self.kept) and all(miner_id in still for still in self.kept)


NOTHING_EXPLAINED: Final = Explained((), Watts(0), 0.0)


def under_ceiling(load_w: Watts, before_w: Watts, left_w: Watts, certain_w: Watts) -> bool:
    """Return whether a miner of ``load_w`` cannot be drawing it any more.

    Args:
        load_w: what it drew, the smaller of its own word and its nameplate.
        before_w: the feeder's power before its order: a meter that never showed its load proves nothing.
        left_w: the feeder's power now.
        certain_w: what other miners on the feeder draw now, at the least.
    """
    return left_w - certain_w < DROP_SHARE * load_w <= before_w - left_w


def too_noisy(spread_w: Watts, loads_w: Iterable[Watts]) -> bool:
    """Return whether the feeder moved so much before the order that a fall of these miners would not show."""
    return spread_w > _TOO_NOISY_SHARE * min(loads_w, default=0.0)


def surplus(claims: Sequence[Claim], before_w: Watts, samples: Sequence[Sample], spread_w: Watts) -> frozenset[str]:
    """Return the miners without whose fall the feeder cannot have fallen so far, whatever the others did.

    Holds with a late meter (it shows an earlier, smaller fall) and beside miners that rise. Arguments as ``explain``'s;
    a claim of a miner that has not answered since its order is to be left at its first knot.
    """
    falling = [claim for claim in claims if claim.known is not False]
    found = set()
    most_w = [(before_w - sample.power_w, [claim.at_most_w(sample.at_s) for claim in falling]) for sample in samples]
    for place, claim in enumerate(falling):
        margin_w = max(_KEEP_SHARE * claim.claimed_w, float(spread_w))
        own_w = DROP_SHARE * claim.claimed_w
        above = [
            fallen_w - MOST_SCALE * others_w > margin_w and fallen_w - others_w >= own_w
            for fallen_w, each in most_w
            for others_w in (sum(each) - each[place],)
        ]
        if claim.suspect and any(first and second for first, second in pairwise(above)):
            found.add(claim.miner_id)
    return frozenset(found)


def explain(claims: Sequence[Claim], before_w: Watts, samples: Sequence[Sample], spread_w: Watts) -> Explained:
    """Return the explanations that the meter leaves open; none when it cannot be followed at all.

    Args:
        claims: every miner on the feeder to which a stop was sent since ``before_w`` was measured.
        before_w: the feeder's power before the first of those orders.
        samples: its power since, in order of time, up to the last moment of which each claim speaks.
        spread_w: how far the readings behind ``before_w`` lay apart.
    """
    suspects = [place for place, claim in enumerate(claims) if claim.suspect]
    if not suspects or len(_telling(claims, samples, 0.0)) < _LEAST_SAMPLES:
        return NOTHING_EXPLAINED
    smallest_w = min(claims[place].claimed_w for place in suspects)
    least_w = max(_KEEP_SHARE * smallest_w, float(spread_w))

    def fits_at(delay_s: float) -> list[_Fit]:
        return _fits(claims, suspects, before_w, _telling(claims, samples, delay_s), delay_s)

    fits = [fit for delay_s in _DELAYS_S for fit in fits_at(delay_s)]
    fits += [fit for delay_s in _between(fits) for fit in fits_at(delay_s)]
    best = min(fits)
    if best.misfit_w > max(_POOR_SHARE * smallest_w, best.unsure_w, float(spread_w)):
        return NOTHING_EXPLAINED
    limit_w = max(_KEEP_TIMES * best.misfit_w, least_w)
    kept = {fit.still: fit.delay_s for fit in fits if fit.misfit_w <= max(limit_w, fit.unsure_w)}
    return _of_settled(kept, best.misfit_w, claims, samples)


class _Fit(NamedTuple):
    """One explanation tried: root mean squares, in watts, of its misfit and of what its claims leave unsure."""

    misfit_w: float
    delay_s: float
    still: frozenset[str]
    unsure_w: float


def _between(fits: Sequence[_Fit]) -> list[float]:
    """Return the finer delays around those at which some explanation comes near the best."""
    near_w = _NEAR_TIMES * min(fits).misfit_w
    near = {fit.delay_s for fit in fits if fit.misfit_w <= near_w}
    fine = {round(delay_s + n * _FINE_S, 2) for delay_s in near for n in range(-4, 5)}
    return sorted(delay_s for delay_s in fine - set(_DELAYS_S) if 0.0 <= delay_s <= SLOWEST_METER_S)


def _telling(claims: Sequence[Claim], samples: Sequence[Sample], delay_s: float) -> list[Sample]:
    """Return the samples from the first order to the last change; of the quiet ones after it only the latest."""
    first_s = min((claim.knots[0][0] for claim in claims), default=math.inf)
    last_s = max((claim.knots[-1][0] if claim.idle_s is None else claim.idle_s for claim in claims), default=0.0)
    since = [sample for sample in samples if sample.at_s >= first_s]
    moving = [sample for sample in since if sample.at_s <= last_s + delay_s]
    return moving + since[len(moving) :][-_TAIL_SAMPLES:]


def _of_settled(
    kept: Mapping[frozenset[str], float], misfit_w: float, claims: Sequence[Claim], samples: Sequence[Sample]
) -> Explained:
    """Return what was kept, with each miner left open on whose claim too few samples bear yet."""
    delay_s = max(kept.values())
    early = {
        claim.miner_id
        for claim in claims
        if claim.suspect
        and sum(sample.at_s - delay_s >= (claim.idle_s or claim.knots[-1][0]) for sample in samples) < _SETTLED_SAMPLES
    }
    both = {still - early for still in kept} | {still | early for still in kept} if early else set(kept)
    return Explained(tuple(sorted(both, key=sorted)), Watts(misfit_w), delay_s)


def _fits(
    claims: Sequence[Claim], suspects: Sequence[int], before_w: Watts, samples: Sequence[Sample], delay_s: float
) -> list[_Fit]:
    """Return each explanation tried under one delay of the meter."""
    times = [sample.at_s - delay_s for sample in samples]
    falling = [place for place, claim in enumerate(claims) if claim.known is not False]
    sums = _Sums.of(
        [before_w - sample.power_w for sample in samples],
        [[claims[place].fallen_w(at_s) for at_s in times] for place in falling],
        [sum(map(claims[place].unsure_w2, times)) for place in falling],
        times,
    )
    column = {place: n for n, place in enumerate(falling)}

    def fit(places: Sequence[int]) -> _Fit:
        misfit_w, unsure_w = sums.without([column[place] for place in places])
        return _Fit(misfit_w, delay_s, frozenset(claims[place].miner_id for place in places), unsure_w)

    all_fell, singles = fit(()), [fit((place,)) for place in suspects]
    found = [all_fell, *singles]
    # Two that did not fall are farther from "all fell" than one: where one is far off already, more are not tried.
    far_w = max(_KEEP_TIMES * all_fell.misfit_w, _KEEP_SHARE * min(claims[place].claimed_w for place in suspects))
    least = min(singles)
    if least.misfit_w > max(far_w, least.unsure_w) and all_fell.misfit_w < far_w / 2:
        return found
    sizes = {*range(2, min(_MOST_LIARS, len(suspects)) + 1), len(suspects)} - {1}
    return found + [fit(places) for size in sorted(sizes) for places in combinations(suspects, size)]


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums of products over samples, from which each explanation's misfit follows in a few steps.

    ``own`` is the fall's square, ``mixed`` its product with each curve, ``rows`` each curve's product with their total,
    ``pairs`` that of each two; ``unsure`` the summed variance of each curve, ``dated`` that of all by their dating;
    ``count`` the samples.
    """

    count: int
    own: float
    mixed: list[float]
    rows: list[float]
    pairs: list[list[float]]
    unsure: list[float]
    dated: float

    @classmethod
    def of(
        cls,
        fallen: Sequence[float],
        curves: Sequence[Sequence[float]],
        unsure: list[float],
        times: Sequence[float],
    ) -> "_Sums":
        pairs = [[0.0] * len(curves) for _ in curves]
        for n, one in enumerate(curves):
            for m in range(n + 1):
                pairs[n][m] = pairs[m][n] = sum(map(mul, one, curves[m]))
        mixed = [sum(map(mul, fallen, one)) for one in curves]
        total = [sum(each) for each in zip(*curves, strict=True)]
        steep = [
            (later - earlier) / max(_JITTER_S, until_s - since_s)
            for (since_s, earlier), (until_s, later) in pairwise(zip(times, total, strict=True))
        ]
        dated = _JITTER_S**2 * sum(map(mul, steep, steep))
        own = sum(map(mul, fallen, fallen))
        return cls(len(fallen), own, mixed, [sum(row) for row in pairs], pairs, unsure, dated)

    def without(self, left_out: Sequence[int]) -> tuple[float, float]:
        """Return (misfit, what is unsure) in watts of the sum of all curves but ``left_out``, at its best scale."""
        square, mixed, unsure = sum(self.rows), sum(self.mixed), sum(self.unsure)
        for n in left_out:
            square -= 2.0 * self.rows[n] - sum(self.pairs[n][m] for m in left_out)
            mixed -= self.mixed[n]
            unsure -= self.unsure[n]
        scale = 1.0 if square <= 0.0 else min(MOST_SCALE, max(LEAST_SCALE, mixed / square))
        misfit = max(0.0, self.own - 2.0 * scale * mixed + scale * scale * square)
        unsure = _UNSURE_TIMES**2 * max(0.0, unsure) + self.dated
        return math.sqrt(misfit / self.count), math.sqrt(unsure / self.count)
