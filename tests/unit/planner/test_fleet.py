"""Who may be planned for: a miner whose nameplate is not known never is, and nothing of it is counted as zero."""

from dataclasses import replace
from datetime import timedelta

import pytest

from cloud.hosting.model import MinerRow
from cloud.planner.fleet import constant_w, count_skipped, count_unknown_load, select, select_unrated
from cloud.planner.model import SkipReason
from cloud.planner.replan import next_plan
from sitelink.types import MinerState
from sitelink.units import Watts
from tests.unit.console.fakes import NOW, miner
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
    )
    unrated = select_unrated(rows, NOW, SEEN)
    assert constant_w(select(rows, NOW, SEEN), unrated) == 6200.0
    assert count_unknown_load(unrated) == 2


def test_a_plan_says_whose_load_it_leaves_out_and_never_stops_them() -> None:
    rows = (row(0, nameplate_w=None), row(1, nameplate_w=None, controllable=False))
    facts = replace(situation((price(0, 900.0, 8),)), unrated=select_unrated(rows, NOW, SEEN))
    plan = next_plan(facts, iter(f"id{n}" for n in range(99)).__next__)
    assert {name for item in plan.curtailments for name in item.curtailment.miner_ids} == {"m0", "m1", "m2"}
    assert "without the load of 2 miners whose nameplate is not known" in plan.reason
    assert plan.skipped == {"no_nameplate": 1, "uncontrollable": 1}
    assert "nameplate" not in next_plan(situation((price(0, 900.0, 8),)), iter("abcdefgh").__next__).reason
