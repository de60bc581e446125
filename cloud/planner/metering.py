"""Mean power of a meter over a window, from its samples. Pure.

Invariants: a stretch between two samples further apart than ``max_gap`` is unknown, not interpolated; a window known
for less than half its length has no mean (``None``, never 0).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sitelink.types import Interval
from sitelink.units import Watts

Sample = tuple[datetime, float]
_ENOUGH: Final = 0.5


def mean_power_w(samples: Sequence[Sample], window: Interval, max_gap: timedelta) -> Watts | None:
    """Return the time-weighted mean over ``window`` (trapezoid); ``samples`` ascend and hold known values only."""
    first = max(0, bisect_right(samples, window.start, key=_at) - 1)
    last = min(len(samples), bisect_left(samples, window.end, key=_at) + 1)
    covered = energy = 0.0
    for (before, power_before), (after, power_after) in zip(
        samples[first:last], samples[first + 1 : last], strict=False
    ):
        begin, end = max(before, window.start), min(after, window.end)
        if after - before > max_gap or end <= begin:
            continue
        slope = (power_after - power_before) / (after - before).total_seconds()
        middle = begin + (end - begin) / 2
        seconds = (end - begin).total_seconds()
        energy += (power_before + slope * (middle - before).total_seconds()) * seconds
        covered += seconds
    if covered < _ENOUGH * window.duration.total_seconds():
        return None
    return Watts(energy / covered)


def mean_before_w(samples: Sequence[Sample], window: Interval, max_gap: timedelta) -> Watts | None:
    """Return the mean over ``window`` from samples before its end; the last one holds until there.

    What comes after the window (load already falling) must not lower a baseline.
    """
    known = list(samples[: bisect_left(samples, window.end, key=_at)])
    if known and window.end - known[-1][0] <= max_gap:
        known.append((window.end, known[-1][1]))
    return mean_power_w(known, window, max_gap)


def sum_samples(meters: Sequence[Sequence[Sample]], max_gap: timedelta) -> tuple[Sample, ...]:
    """Return the samples of several meters as one: the first meter's moments, the others interpolated there.

    A moment at which another meter is unknown is left out.
    """
    if not meters:
        return ()
    if len(meters) == 1:
        return tuple(meters[0])
    total = []
    for moment, power in meters[0]:
        others = [_at_moment(other, moment, max_gap) for other in meters[1:]]
        if all(value is not None for value in others):
            total.append((moment, power + sum(value or 0.0 for value in others)))
    return tuple(total)


def _at_moment(samples: Sequence[Sample], moment: datetime, max_gap: timedelta) -> float | None:
    place = bisect_left(samples, moment, key=_at)
    if place < len(samples) and samples[place][0] == moment:
        return samples[place][1]
    if place in {0, len(samples)}:
        return None
    (before, power_before), (after, power_after) = samples[place - 1], samples[place]
    if after - before > max_gap:
        return None
    return power_before + (power_after - power_before) * ((moment - before) / (after - before))


def _at(sample: Sample) -> datetime:
    return sample[0]
