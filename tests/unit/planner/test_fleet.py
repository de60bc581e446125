"""Who may be planned for: a miner whose nameplate is not known never is, and nothing of it is counted as zero."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.hosting.model import MinerRow
from cloud.planner.fleet import MAX_GROUPS, alike, constant_w, count_skipped, count_unknown_load, select, select_unrated
from cloud.planner.model import FleetMiner, Signal, SignalKind, SkipReason
from cloud.planner.replan import next_plan
from sitelink.types import Interval, MinerState
from sitelink.units import TeraHashPerSecond, Watts
from tests.unit.console.fakes import NOW, miner
from tests.unit.planner.samples import QUARTER, START
from tests.unit.planner.test_continuity import price, situation

SEEN = timedelta(minutes=5)
UNRATED = ({"nameplate_w": None}, {"nameplate_ths": None}, {"nameplate_w": None, "nameplate_ths": None})


def row(place: int, **values: object) -> MinerRow:
    found: MinerRow = miner(place, **values)
    return found


@pytest.mark.parametrize("unknown", UNRATED)
def test_a_miner_without_a_nameplate_is_set_aside_with_the_reason(unknown: dict[str, None]) -> None:
    rows = (row(0), row(1, **unknown))
    assert [found.miner_id for found in select(rows, NOW, SEEN)] == [rows[0].miner_id]
    (aside,) = select_unrated(rows, NOW, SEEN)
    assert (aside.miner_id, aside.skip) == (rows[1].miner_id, SkipReason.NO_NAMEPLATE)
    assert aside.power_w == rows[1].nameplate_w


def test_a_stronger_reason_is_named_first() -> None:
    rows = (
        row(0, nameplate_w=None, liar=True),
        row(1, nameplate_w=None, state=MinerState.UNKNOWN),
        row(2, nameplate_w=None, controllable=False),
    )
    reasons = [found.skip for found in select_unrated(rows, NOW, SEEN)]
    assert reasons == [SkipReason.LIAR, SkipReason.NOT_SEEN, SkipReason.UNCONTROLLABLE]
    assert count_skipped(select_unrated(rows, NOW, SEEN)) == {"liar": 1, "not_seen": 1, "uncontrollable": 1}


def test_fixed_load_sums_what_is_known_and_counts_what_is_not() -> None:
    rows = (
        row(0, controllable=False, nameplate_w=Watts(3000.0)),
        row(1, controllable=False, nameplate_w=None),
        row(2, nameplate_w=None),
        row(3, nameplate_w=Watts(3200.0), nameplate_ths=None),
        row(4, nameplate_w=None, state=MinerState.IDLE),
        row(5, nameplate_w=Watts(3500.0), state=MinerState.UNKNOWN),
        row(6, nameplate_w=Watts(100.0), read_at=None),
        row(7, nameplate_w=None, read_at=None),
    )
    unrated = select_unrated(rows, NOW, SEEN)
    assert constant_w(select(rows, NOW, SEEN), unrated) == 9800.0
    assert count_unknown_load(unrated) == 3


def test_a_plan_says_whose_load_it_leaves_out_and_never_stops_them() -> None:
    rows = (row(0, nameplate_w=None), row(1, nameplate_w=None, controllable=False))
    facts = replace(situation((price(0, 900.0, 8),)), unrated=select_unrated(rows, NOW, SEEN))
    plan = next_plan(facts, iter(f"id{n}" for n in range(99)).__next__)
    assert {name for item in plan.curtailments for name in item.curtailment.miner_ids} == {"m0", "m1", "m2"}
    assert "without the load of 2 miners whose nameplate is not known" in plan.reason
    assert plan.skipped == {"no_nameplate": 1, "uncontrollable": 1}
    assert "nameplate" not in next_plan(situation((price(0, 900.0, 8),)), iter("abcdefgh").__next__).reason


def test_a_cap_is_kept_though_some_miners_run_unread() -> None:
    """Four miners of 3.5 kW, a cap of 7 kW: with one of them unreadable, two others must stop, not one."""
    cap = Signal(
        "s", "site", SignalKind.MUST_SHED, Interval(START + QUARTER, START + QUARTER * 3), Watts(7000.0), START
    )
    unread = FleetMiner("m9", "M", Watts(3500.0), TeraHashPerSecond(200.0), skip=SkipReason.NOT_SEEN)
    facts = replace(situation((price(0, 30.0, 8),)), signals=(cap,))
    plan = next_plan(replace(facts, miners=(*facts.miners, unread)), iter(f"id{n}" for n in range(99)).__next__)
    assert [len(item.curtailment.miner_ids) for item in plan.curtailments] == [2]
    assert {load for slot, load in zip(plan.slots, plan.planned_w, strict=True) if slot.cap_w} == {7000.0}


def test_a_miner_that_nobody_can_read_once_it_is_stopped_stays_with_its_curtailment() -> None:
    first = next_plan(situation((price(0, 900.0, 8),)), iter("abcdefgh").__next__)
    begun = situation(
        (price(0, 900.0, 8),), now=first.curtailments[0].curtailment.interval.start + QUARTER, current=first
    )
    unread = tuple(replace(item, skip=SkipReason.NOT_SEEN) for item in begun.miners)
    plan = next_plan(replace(begun, miners=unread), iter("ijklmnop").__next__)
    assert plan.slots
    assert all(slot.constant_w == 0 for slot in plan.slots)


@given(st.lists(st.tuples(st.floats(1, 1e9), st.floats(1e-6, 1e9), st.integers(0, 10**8)), max_size=120))
def test_there_are_never_more_groups_than_a_solver_takes(kinds: list[tuple[float, float, int]]) -> None:
    miners = [
        FleetMiner(f"m{place}", f"M{place}", Watts(power), TeraHashPerSecond(rate))
        for place, (power, rate, _) in enumerate(kinds)
    ]
    stops = {f"m{place}": START + timedelta(seconds=second) for place, (_, _, second) in enumerate(kinds) if second % 3}
    groups = alike(miners, stops)
    assert len(groups) <= MAX_GROUPS
    assert len({group.name for group in groups}) == len(groups)
    members = [(group, unit[0].miner_id) for group in groups for unit in group.units]
    assert sorted(name for _, name in members) == sorted(miner.miner_id for miner in miners)
    for group, name in members:
        assert name not in stops or (group.earliest_stop is not None and group.earliest_stop >= stops[name])
    assert all(
        group.earliest_stop is not None or unit[0].miner_id not in stops for group in groups for unit in group.units
    )


def test_equal_miners_released_at_80_moments_are_merged() -> None:
    miners = [FleetMiner(f"m{n}", "S21", Watts(3500.0), TeraHashPerSecond(200.0)) for n in range(80)]
    assert len(alike(miners, {f"m{n}": START + timedelta(seconds=n) for n in range(80)})) <= MAX_GROUPS
