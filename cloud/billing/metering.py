"""Energy of a meter by fixed intervals, exactly. Pure.

Invariants:

* Exact arithmetic: cutting a period anywhere and adding up gives the whole. Floats are whole numbers of some scale, so
  only the edges of an interval cost a ``Fraction``.
* Every interval has a figure: what lies between two readings further apart than ``max_gap`` is drawn as a straight line
  and flagged ``estimated``; it is never zero by silence.
* The meter's own energy counter wins where it brackets an interval and does not run backwards; power is then its check.

      power  *---*---*                *---*        counter  120 ------------ 131 kWh
             |measured|  estimated    |measured        the counter bridges the silence exactly
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from math import lcm
from typing import Final

from cloud.billing.model import EnergyMethod, EvidenceRow, MeterReading
from sitelink.types import Interval
from verifier.rating import MICRO_KWH, round_half_away

_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECONDS_PER_KWH: Final = 3_600_000_000 * 1000  # microseconds times watts
_AGREE_SHARE: Final = Fraction(2, 100)
_AGREE_KWH: Final = Fraction(5, 100)

Known = tuple[int, int | Fraction]  # microseconds since 1970, value
Count = tuple[int, float]  # microseconds since 1970, Wh as the meter told them


def grid(period: Interval, step: timedelta) -> tuple[Interval, ...]:
    """Return the intervals of ``step``, counted from 1970, that cover ``period``; the edges may be shorter."""
    edges = [period.start]
    step_us = step // _MICROSECOND
    place = (_us(period.start) // step_us + 1) * step_us
    while place < _us(period.end):
        edges.append(_EPOCH + timedelta(microseconds=place))
        place += step_us
    return tuple(Interval(start, end) for start, end in zip(edges, [*edges[1:], period.end], strict=True))


def evidence(
    meter_id: str, readings: Sequence[MeterReading], period: Interval, step: timedelta, max_gap: timedelta
) -> tuple[EvidenceRow, ...]:
    """Return one row for each interval; ``readings`` ascend and reach beyond the period where they can.

    Raises:
        ValueError: no reading tells a power, so nothing can even be estimated.
    """
    told = [(_us(item.read_at), item.power_w) for item in readings if item.power_w is not None]
    if not told:
        raise ValueError(f"meter {meter_id} has no reading of power")
    scale = lcm(*{power.as_integer_ratio()[1] for _, power in told})
    powers = [(at_us, _whole(power, scale)) for at_us, power in told]
    counters = [(_us(item.read_at), item.energy_wh) for item in readings if item.energy_wh is not None]
    gap_us = max_gap // _MICROSECOND
    return tuple(_row(meter_id, interval, powers, scale, counters, gap_us) for interval in grid(period, step))


def energy_kwh(powers: Sequence[Known], start_us: int, end_us: int, gap_us: int) -> tuple[Fraction, bool]:
    """Return (energy, whether part of it is estimated) of ``[start, end)`` by trapezoids between known powers."""
    total, twice, silent = Fraction(0), 0 * powers[0][1], False
    first, last = powers[0], powers[-1]
    if start_us < first[0]:
        total += first[1] * (min(end_us, first[0]) - start_us)
        silent = True
    if end_us > last[0]:
        total += last[1] * (end_us - max(start_us, last[0]))
        silent = True
    begin = max(0, bisect_right(powers, start_us, key=_at) - 1)
    past = min(len(powers), bisect_left(powers, end_us, key=_at) + 1)
    for (at, power), (later, power_later) in zip(powers[begin:past], powers[begin + 1 : past], strict=False):
        left, right = max(at, start_us), min(later, end_us)
        if right <= left:
            continue
        if (left, right) == (at, later):
            twice += (power + power_later) * (later - at)
        else:
            slope = Fraction(power_later - power) / (later - at)
            total += (power + slope * (Fraction(left + right, 2) - at)) * (right - left)
        silent = silent or later - at > gap_us
    return (total + Fraction(twice) / 2) / _MICROSECONDS_PER_KWH, silent


def _row(
    meter_id: str, interval: Interval, powers: Sequence[Known], scale: int, counters: Sequence[Count], gap_us: int
) -> EvidenceRow:
    start, end = _us(interval.start), _us(interval.end)
    scaled, silent = energy_kwh(powers, start, end, gap_us)
    by_power = scaled / scale
    counted = _counted(counters, start, end, gap_us)
    if counted is None:
        kwh = round_half_away(by_power, MICRO_KWH)
        note = "straight line across a silence" if silent else ""
        return EvidenceRow(meter_id, interval, kwh, silent, EnergyMethod.POWER, note)
    kwh, bridged = counted
    if bridged:
        return EvidenceRow(meter_id, interval, kwh, True, EnergyMethod.REGISTER, "counter spread over a silence")
    apart = abs(Fraction(kwh) - by_power)
    agrees = silent or apart <= max(_AGREE_KWH, _AGREE_SHARE * by_power)
    note = "" if agrees else f"power integrates to {round_half_away(by_power, MICRO_KWH)} kWh"
    return EvidenceRow(meter_id, interval, kwh, False, EnergyMethod.REGISTER, note)


def _counted(counters: Sequence[Count], start: int, end: int, gap_us: int) -> tuple[Decimal, bool] | None:
    """Return (difference of the counter, whether it bridges a silence); None when it does not bracket or runs back.

    Both ends are rounded before the difference is taken, so that neighbours add up to the counter exactly.
    """
    low, high = _counter_at(counters, start, gap_us), _counter_at(counters, end, gap_us)
    if low is None or high is None:
        return None
    first, past = bisect_right(counters, start, key=_at) - 1, bisect_left(counters, end, key=_at) + 1
    inside = counters[first:past]
    pairs = list(pairwise(inside))
    if any(later[1] < earlier[1] for earlier, later in pairs):
        return None
    kwh = round_half_away(high[0], MICRO_KWH) - round_half_away(low[0], MICRO_KWH)
    return kwh, low[1] or high[1] or any(later[0] - earlier[0] > gap_us for earlier, later in pairs)


def _counter_at(counters: Sequence[Count], moment: int, gap_us: int) -> tuple[Fraction, bool] | None:
    """Return (counter in kWh at ``moment``, whether it lies in a silence); None outside the readings."""
    place = bisect_left(counters, moment, key=_at)
    if place < len(counters) and counters[place][0] == moment:
        return _kwh(counters[place][1]), False
    if place in {0, len(counters)}:
        return None
    (before, low_wh), (after, high_wh) = counters[place - 1], counters[place]
    low, high = _kwh(low_wh), _kwh(high_wh)
    return low + (high - low) * Fraction(moment - before, after - before), after - before > gap_us


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _at(known: Known | Count) -> int:
    return known[0]


def _kwh(energy_wh: float) -> Fraction:
    return Fraction(energy_wh) / 1000


def _whole(value: float, scale: int) -> int:
    """Return ``value * scale``, where ``scale`` is a multiple of its denominator."""
    numerator, denominator = value.as_integer_ratio()
    return numerator * (scale // denominator)
