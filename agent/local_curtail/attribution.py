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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from operator import mul
from typing import Final, NamedTuple

from agent.local_curtail.claims import Claim, Sample, steepness
from agent.local_curtail.evidence import DROP_SHARE
from sitelink.units import Watts

LEAST_SCALE: Final = 0.95
MOST_SCALE: Final = 1.08
"""What a meter shows of what devices report: one that measures behind its supply leaves its losses out."""
_KEEP_EXCESS: Final = 30.0
"""An explanation is kept whose summed squares exceed the best one's by no more than this many variances."""
_LEAST_NOISE_SHARE: Final = 0.03
"""The noise of one reading is taken for no less than this share of the smallest claim."""
_UNSURE_TIMES: Final = 1.5
"""Errors of several miners, and of several looks at one, may add up."""
_MARGIN_SHARE: Final = 0.1
_POOR_SHARE: Final = 0.1
_DIM_SHARE: Final = 0.3
"""Of the smallest claim: what even the best explanation may misfit, and what looks may leave unsure of it."""
_TOO_NOISY_SHARE: Final = 0.45
_LEAST_SAMPLES: Final = 4
_SETTLED_SAMPLES: Final = 2
_TAIL_SAMPLES: Final = 4
_MOST_LIARS: Final = 3
_SLACK_SHARE: Final = 0.5
_SLACK_NOISES: Final = 6.0
"""Sets are not tried whose fall, once all is over, is farther from the meter's than this."""
_MOST_SETS: Final = 1000
"""Sets of liars tried at one delay: of many miners on one meter only few at once."""
_DELAYS_S: Final = (
    -6.0,
    -5.0,
    -4.0,
    -3.0,
    -2.5,
    -2.0,
    -1.5,
    -1.0,
    -0.5,
    0.0,
    0.5,
    1.0,
    1.5,
    2.0,
    2.5,
    3.0,
    3.5,
    4.0,
    4.5,
    5.0,
    5.5,
    6.0,
)
_COARSE_S: Final = 0.5
_FINE_S: Final = 0.05
_NEAR_TIMES: Final = 4.0
_JITTER_S: Final = 0.025
"""By how much a reading may be dated wrongly beyond the time it took: half the step between two delays."""
SLOWEST_METER_S: Final = _DELAYS_S[-1]


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
    most_w = [
        (before_w - sample.power_w, [claim.at_most_w(sample.at_s + sample.unsure_s) for claim in falling])
        for sample in samples
    ]
    fallen = [(fallen_w, sum(each), each) for fallen_w, each in most_w]
    found = set()
    for place, claim in enumerate(falling):
        if not claim.suspect:
            continue
        margin_w = max(_MARGIN_SHARE * claim.claimed_w, float(spread_w))
        own_w = DROP_SHARE * claim.claimed_w + spread_w
        above = [
            fallen_w - MOST_SCALE * (all_w - each[place]) > margin_w and fallen_w - (all_w - each[place]) >= own_w
            for fallen_w, all_w, each in fallen
        ]
        if any(first and second for first, second in pairwise(above)):
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
    last_s = max(claims[place].settled_s for place in suspects)
    since = [before_w - sample.power_w for sample in samples if sample.at_s >= last_s + SLOWEST_METER_S]
    if len(since) >= _LEAST_SAMPLES and max(since) + spread_w < DROP_SHARE * LEAST_SCALE * smallest_w:
        nobody_fell = frozenset(claims[place].miner_id for place in suspects)
        return Explained((nobody_fell,), Watts(max(map(abs, since))), 0.0)
    if not all(claims[place].live for place in suspects):
        return NOTHING_EXPLAINED  # whose figures may trail what it does cannot be placed in time
    least_w = max(_LEAST_NOISE_SHARE * smallest_w, spread_w / 2)

    def fits_at(delay_s: float) -> list[_Fit]:
        return _fits(claims, suspects, before_w, _telling(claims, samples, delay_s), delay_s, least_w)

    fits = [fit for delay_s in _DELAYS_S for fit in fits_at(delay_s)]
    fits += [fit for delay_s in _between(fits) for fit in fits_at(delay_s)]
    best = min(fits, key=lambda fit: fit.misfit_w)
    poor = best.misfit_w > max(_POOR_SHARE * smallest_w, float(spread_w))
    if poor or best.unsure_w > _DIM_SHARE * smallest_w:
        return NOTHING_EXPLAINED  # looks came too late or too seldom to tell one from another
    kept: dict[frozenset[str], float] = {}
    for fit in sorted(fits, key=lambda fit: fit.misfit_w):
        if fit.is_kept_beside(best, least_w):
            kept.setdefault(fit.still, fit.delay_s)
    return _of_settled(kept, best.misfit_w, claims, samples)


class _Fit(NamedTuple):
    """One explanation tried: root mean squares, in watts, of its misfit and of what its claims leave unsure.

    ``readings`` is the number of readings it was held against.
    """

    misfit_w: float
    delay_s: float
    still: frozenset[str]
    unsure_w: float
    readings: int

    def is_kept_beside(self, best: "_Fit", least_w: float) -> bool:
        """Return whether the meter does not speak clearly for ``best`` against it.

        The likelihood of two sets of liars is told by the difference of their summed squares, in units of a reading's
        variance, which the best one's misfit shows; what looks leave unsure of the curves comes on top. Sets of several
        are many, and one of them soon fits by chance: then more are kept.
        """
        variance_w2 = max(best.misfit_w, least_w) ** 2
        excess_w2 = self.readings * (self.misfit_w**2 - best.misfit_w**2)
        keep = _KEEP_EXCESS * max(1, len(best.still))
        return excess_w2 <= keep * variance_w2 + _UNSURE_TIMES * self.readings * self.unsure_w**2


def _between(fits: Sequence[_Fit]) -> list[float]:
    """Return the finer delays around those at which some explanation comes near the best."""
    near_w = _NEAR_TIMES * min(fit.misfit_w for fit in fits)
    near = {fit.delay_s for fit in fits if fit.misfit_w <= near_w}
    steps = round(_COARSE_S / _FINE_S)
    fine = {round(delay_s + n * _FINE_S, 3) for delay_s in near for n in range(1 - steps, steps)}
    return sorted(delay_s for delay_s in fine - set(_DELAYS_S) if _DELAYS_S[0] <= delay_s <= SLOWEST_METER_S)


def _telling(claims: Sequence[Claim], samples: Sequence[Sample], delay_s: float) -> list[Sample]:
    """Return the samples from the first order to the last change; of the quiet ones after it only the latest."""
    first_s = min((claim.knots[0].at_s for claim in claims), default=math.inf)
    last_s = max((claim.knots[-1].at_s if claim.idle_s is None else claim.idle_s for claim in claims), default=0.0)
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
        if claim.suspect and sum(sample.at_s - delay_s >= claim.settled_s for sample in samples) < _SETTLED_SAMPLES
    }
    both = {still - early for still in kept} | {still | early for still in kept} if early else set(kept)
    return Explained(tuple(sorted(both, key=sorted)), Watts(misfit_w), delay_s)


def _fits(
    claims: Sequence[Claim],
    suspects: Sequence[int],
    before_w: Watts,
    samples: Sequence[Sample],
    delay_s: float,
    least_w: float,
) -> list[_Fit]:
    """Return each explanation tried under one delay of the meter."""
    falling = [place for place, claim in enumerate(claims) if claim.known is not False]
    sums = _Sums.of(before_w, samples, delay_s, [claims[place] for place in falling])
    column = {place: n for n, place in enumerate(falling)}

    def fit(places: Sequence[int]) -> _Fit:
        misfit_w, unsure_w = sums.without([column[place] for place in places])
        return _Fit(misfit_w, delay_s, frozenset(claims[place].miner_id for place in places), unsure_w, sums.count)

    all_fell, singles = fit(()), [fit((place,)) for place in suspects]
    found = [all_fell, *singles]
    # Two that did not fall are farther from "all fell" than one: where one is far off already, more are not tried.
    if not any(single.misfit_w < all_fell.misfit_w or single.is_kept_beside(all_fell, least_w) for single in singles):
        return found
    sizes = [size for size in range(2, _MOST_LIARS + 1) if math.comb(len(suspects), size) <= _MOST_SETS]
    sizes += [len(suspects)] if len(suspects) > max([1, *sizes]) else []
    sets = [places for size in sizes for places in combinations(suspects, size)]
    if samples[-1].at_s - delay_s >= max(claims[place].settled_s for place in falling):
        smallest_w = min(claims[place].claimed_w for place in suspects)
        fallen_w, slack_w = before_w - samples[-1].power_w, _SLACK_SHARE * smallest_w + _SLACK_NOISES * least_w
        all_w = sum(claims[place].claimed_w for place in falling)
        sets = [
            places
            for places in sets
            for left_w in (all_w - sum(claims[place].claimed_w for place in places),)
            if LEAST_SCALE * left_w - slack_w <= fallen_w <= MOST_SCALE * left_w + slack_w
        ]
    return found + [fit(places) for places in sets]


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
    def of(cls, before_w: Watts, samples: Sequence[Sample], delay_s: float, claims: Sequence[Claim]) -> "_Sums":
        """Return the sums of a feeder's fall and of its ``claims`` as a meter late by ``delay_s`` shows them."""
        fallen = [before_w - sample.power_w for sample in samples]
        times = [sample.at_s - delay_s for sample in samples]
        along = [claim.along(times) for claim in claims]
        curves = [curve for curve, _ in along]
        steep = steepness(times, [sum(each) for each in zip(*curves, strict=True)], _JITTER_S)
        pairs = [[0.0] * len(curves) for _ in curves]
        for n, one in enumerate(curves):
            for m in range(n + 1):
                pairs[n][m] = pairs[m][n] = sum(map(mul, one, curves[m]))
        return cls(
            count=len(samples),
            own=sum(map(mul, fallen, fallen)),
            mixed=[sum(map(mul, fallen, one)) for one in curves],
            rows=[sum(row) for row in pairs],
            pairs=pairs,
            unsure=[sum(unsure) for _, unsure in along],
            dated=sum(
                slope**2 * (_JITTER_S**2 + sample.unsure_s**2) / 3.0
                for slope, sample in zip(steep, samples, strict=True)
            ),
        )

    def without(self, left_out: Sequence[int]) -> tuple[float, float]:
        """Return (misfit, what is unsure) in watts of the sum of all curves but ``left_out``, at its best scale."""
        square, mixed, unsure = sum(self.rows), sum(self.mixed), sum(self.unsure) + self.dated
        for n in left_out:
            square -= 2.0 * self.rows[n] - sum(self.pairs[n][m] for m in left_out)
            mixed -= self.mixed[n]
            unsure -= self.unsure[n]
        scale = 1.0 if square <= 0.0 else min(MOST_SCALE, max(LEAST_SCALE, mixed / square))
        misfit = max(0.0, self.own - 2.0 * scale * mixed + scale * scale * square)
        return math.sqrt(misfit / self.count), math.sqrt(max(0.0, unsure) / self.count)
