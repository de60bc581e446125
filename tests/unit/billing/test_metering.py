"""Energy by intervals: exact, additive, covering, never silently zero."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.billing.metering import energy_kwh, evidence, grid
from cloud.billing.model import Contract, EnergyMethod, MeterReading, segments
from sitelink.types import Interval
from verifier.rating import MICRO_KWH, round_half_away

START = datetime(2026, 3, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
GAP = timedelta(seconds=60)
US = 1_000_000


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def constant(power_w: float, first_s: int = 0, last_s: int = 3600, step_s: int = 10) -> list[MeterReading]:
    return [MeterReading(at(second), power_w, None) for second in range(first_s, last_s + 1, step_s)]


@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(0, 50_000)), min_size=2, max_size=40),
    st.lists(st.integers(-100, 9000), min_size=3, max_size=3, unique=True),
)
def test_cutting_anywhere_adds_up_exactly(steps: list[tuple[int, int]], cuts: list[int]) -> None:
    moment, powers = 0, []
    for step, power in steps:
        moment += step
        powers.append((moment * US, Fraction(power)))
    first, middle, last = (cut * US + 7 for cut in sorted(cuts))
    whole, _ = energy_kwh(powers, first, last, 60 * US)
    left, _ = energy_kwh(powers, first, middle, 60 * US)
    right, _ = energy_kwh(powers, middle, last, 60 * US)
    assert left + right == whole


@given(st.lists(st.floats(0, 1e8, allow_subnormal=False), min_size=2, max_size=40))
def test_any_float_is_integrated_exactly(told: list[float]) -> None:
    readings = [MeterReading(at(place * 20), power, None) for place, power in enumerate(told)]
    period = Interval(at(7), at(len(told) * 20))
    exact = [
        (round((item.read_at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * US, Fraction(power))
        for item, power in zip(readings, told, strict=True)
    ]
    (row,) = evidence("m", readings, period, timedelta(days=365), GAP)
    first = exact[0][0] + 7 * US
    assert row.kwh == round_half_away(energy_kwh(exact, first, exact[0][0] + len(told) * 20 * US, 0)[0], MICRO_KWH)


@given(st.integers(0, 10**7), st.integers(1, 5 * 10**4), st.sampled_from([5, 60, 300, 900]))
def test_the_grid_covers_a_period_once(offset_s: int, length_s: int, step_s: int) -> None:
    period = Interval(at(offset_s), at(offset_s + length_s))
    intervals = grid(period, timedelta(seconds=step_s))
    assert (intervals[0].start, intervals[-1].end) == (period.start, period.end)
    assert all(one.end == other.start for one, other in pairwise(intervals))
    assert all(interval.duration <= timedelta(seconds=step_s) for interval in intervals)


def test_constant_power_is_exact() -> None:
    rows = evidence("m", constant(24_000.0), Interval(START, at(3600)), QUARTER, GAP)
    assert [row.kwh for row in rows] == [Decimal("6.000000")] * 4
    assert {(row.method, row.estimated, row.note) for row in rows} == {(EnergyMethod.POWER, False, "")}


def test_a_silence_is_a_straight_line_and_flagged() -> None:
    readings = [*constant(10_000.0, 0, 890), *constant(30_000.0, 2710, 3600)]
    rows = evidence("m", readings, Interval(START, at(3600)), QUARTER, GAP)
    assert [row.estimated for row in rows] == [True, True, True, True]
    middle = rows[1].kwh + rows[2].kwh
    assert middle == pytest.approx(Decimal(10), abs=Decimal("0.000002"))


def test_before_the_first_and_after_the_last_reading_the_nearest_holds() -> None:
    rows = evidence("m", constant(12_000.0, 900, 2700), Interval(START, at(3600)), QUARTER, GAP)
    assert [row.kwh for row in rows] == [Decimal("3.000000")] * 4
    assert [row.estimated for row in rows] == [True, False, False, True]


def test_a_meter_that_never_told_its_power_cannot_be_billed() -> None:
    with pytest.raises(ValueError, match="no reading of power"):
        evidence("m", [MeterReading(START, None, 5.0)], Interval(START, at(60)), QUARTER, GAP)


def test_the_counter_wins_and_power_is_its_check() -> None:
    readings = [MeterReading(at(s), 24_000.0, 1000.0 + s * 20_000 / 3600) for s in range(0, 3601, 10)]
    rows = evidence("m", readings, Interval(START, at(3600)), QUARTER, GAP)
    assert sum(row.kwh for row in rows) == Decimal("20.000000")
    assert {row.method for row in rows} == {EnergyMethod.REGISTER}
    assert rows[0].note == "power integrates to 6.000000 kWh"


def test_a_counter_that_ran_backwards_is_not_believed() -> None:
    readings = [MeterReading(at(s), 24_000.0, 5000.0 + s if s < 1200 else s) for s in range(0, 3601, 10)]
    rows = evidence("m", readings, Interval(START, at(3600)), QUARTER, GAP)
    assert [row.method for row in rows] == [
        EnergyMethod.REGISTER,
        EnergyMethod.POWER,
        EnergyMethod.REGISTER,
        EnergyMethod.REGISTER,
    ]
    assert rows[1].kwh == Decimal("6.000000")


@given(st.lists(st.floats(0, 10**6, allow_nan=False), min_size=10, max_size=60), st.integers(1, 8))
def test_neighbours_add_up_to_the_counter(increments: list[float], cuts: int) -> None:
    counter, readings = 0.0, []
    for place, step in enumerate(increments):
        counter += step
        readings.append(MeterReading(at(place * 10), 1000.0, counter))
    end = (len(increments) - 1) * 10
    whole = evidence("m", readings, Interval(START, at(end)), timedelta(days=30), GAP)
    parts = evidence("m", readings, Interval(START, at(end)), timedelta(seconds=max(1, end // cuts)), GAP)
    assert sum(row.kwh for row in parts) == sum(row.kwh for row in whole)


@given(st.lists(st.integers(-50, 150), min_size=1, max_size=6, unique=True))
def test_contract_versions_cut_a_period_without_gap_or_overlap(starts: list[int]) -> None:
    versions = [Contract("s", START + QUARTER * start, Decimal(1), None, "USD", "UTC") for start in starts]
    period = Interval(START, START + QUARTER * 100)
    parts = segments(versions, period)
    for one, other in pairwise(parts):
        assert one.interval.end == other.interval.start
    if min(starts) <= 0:
        assert parts[0].interval.start == period.start
    if parts:
        assert parts[-1].interval.end == period.end
    for part in parts:
        newest = max(item.valid_from for item in versions if item.valid_from <= part.interval.start)
        assert part.contract.valid_from == newest
