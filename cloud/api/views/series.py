"""Series for charts: many samples to a few hundred aligned points. Pure.

Invariants: every series of a chart shares one time axis; a bucket without samples is None, never zero and never the
value before it; the last bucket ends at or after the screen's ``read_at``.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import numpy as np

from cloud.api.source import MarketSlot, PlanSlot
from cloud.hosting.columns import Floats
from sitelink.types import Interval

POINTS: Final = 240
_LEAST_STEP_S: Final = 5
"""Meter series come every 5 s: shorter buckets would be gaps."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Values = tuple[float | None, ...]
_Slot = TypeVar("_Slot", MarketSlot, PlanSlot)


@dataclass(frozen=True, slots=True)
class Axis:
    """Bucket starts in whole seconds since 1970; all buckets are ``step_s`` long."""

    first_s: int
    step_s: int
    count: int

    @property
    def seconds(self) -> tuple[int, ...]:
        """Return the bucket starts."""
        return tuple(self.first_s + self.step_s * place for place in range(self.count))

    def place(self, moment: datetime) -> int | None:
        """Return the bucket of ``moment``, or None outside the axis."""
        place = int((_seconds(moment) - self.first_s) // self.step_s)
        return place if 0 <= place < self.count else None


def axis_around(now: datetime, back: timedelta, ahead: timedelta) -> Axis:
    """Return an axis of about ``POINTS`` buckets; its bounds lie on multiples of the step, so it moves in steps."""
    step = max(_LEAST_STEP_S, round((back + ahead).total_seconds() / POINTS))
    first = int(_seconds(now - back) // step) * step
    last = int(_seconds(now + ahead) // step) * step
    return Axis(first, step, (last - first) // step + 1)


def means(axis: Axis, at_s: Floats, values: Floats) -> Values:
    """Return the mean of each bucket's known samples (NaN is not known), rounded to a hundredth."""
    places = np.floor_divide(at_s - axis.first_s, axis.step_s)
    inside = (places >= 0) & (places < axis.count) & ~np.isnan(values)
    buckets = places[inside].astype(np.intp)
    counts = np.bincount(buckets, minlength=axis.count)
    sums = np.bincount(buckets, weights=values[inside], minlength=axis.count)
    pairs = zip(sums.tolist(), counts.tolist(), strict=True)
    return tuple(round(total / count, 2) if count else None for total, count in pairs)


Steps = tuple[tuple[float, float | None], ...]
"""Points (seconds since 1970, value), each holding until the next; None begins a gap."""


def steps(axis: Axis, slots: Sequence[tuple[Interval, float]]) -> Steps:
    """Return the values of ``slots`` as steps at the slots' own edges, whole seconds, cut to ``axis``."""
    first, last = axis.first_s, axis.seconds[-1]
    points: list[tuple[float, float | None]] = []
    open_until: int | None = None
    for interval, value in sorted(slots, key=lambda slot: slot[0].start):
        start, end = max(first, int(_seconds(interval.start))), min(last, int(_seconds(interval.end)))
        if start >= end:
            continue
        if open_until is not None and start > open_until:
            points += _closed(points, open_until)
        points.append((start, value))
        open_until = end
    if open_until is not None:
        points += _closed(points, open_until)
    return tuple(points)


def _closed(points: Sequence[tuple[float, float | None]], end: float) -> list[tuple[float, float | None]]:
    """Return what ends the last step at ``end``: its value once more, and a gap right after."""
    return [(end, points[-1][1]), (end + 0.5, None)]


def planned_power(axis: Axis, slots: Sequence[PlanSlot]) -> Values:
    """Return the load in W planned at each bucket's start."""
    return tuple(None if slot is None else slot.planned_w for slot in _slots_at(axis, slots))


def prices(axis: Axis, slots: Sequence[MarketSlot]) -> Values:
    """Return the price in USD/MWh at each bucket's start."""
    return tuple(None if slot is None else slot.price_usd_per_mwh for slot in _slots_at(axis, slots))


def bridge_s(axis: Axis, at_s: Floats) -> float:
    """Return how long a gap between two samples may be and be none: two usual intervals and a bucket."""
    return axis.step_s + (2 * float(np.median(np.diff(at_s))) if len(at_s) > 1 else 0.0)


def slot_at(slots: Sequence[_Slot], moment: datetime) -> _Slot | None:
    """Return the slot that holds ``moment``."""
    return next((slot for slot in slots if slot.interval.contains(moment)), None)


def _slots_at(axis: Axis, slots: Sequence[_Slot]) -> Iterator[_Slot | None]:
    ordered = sorted(slots, key=lambda slot: slot.interval.start)
    starts = [_seconds(slot.interval.start) for slot in ordered]
    ends = [_seconds(slot.interval.end) for slot in ordered]
    for second in axis.seconds:
        place = bisect_right(starts, second) - 1
        yield ordered[place] if place >= 0 and second < ends[place] else None


def _seconds(moment: datetime) -> float:
    return (moment - _EPOCH).total_seconds()
