"""A liar beside others: what its neighbours do, and how late their figures are, proves it off by no means."""

import asyncio
import itertools

import pytest

from sitelink.types import NoticeCode, Outcome, Verb
from tests.simulation.history import Crash, Play, Schedule, curtail, make_plan, play
from tests.simulation.invariants import violations
from tests.simulation.world import SimMiner

LIAR = "m00"
LOAD_W = 3400.0


def on_one_feeder(ordered: int, *, beside: int = 0, liar: str = "reports_idle") -> Schedule:
    """``ordered`` miners, the first of them a liar, stopped from 20 to 200 s, ``beside`` others that nobody orders."""
    miners = [SimMiner(f"m{n:02d}", "F1", LOAD_W) for n in range(ordered + beside)]
    miners[0].liar = liar
    window = curtail("c1", 20, 200, [miner.miner_id for miner in miners[:ordered]])
    return Schedule(7, miners, {"F1"}, [(3.0, make_plan(2, [window], end_s=600))], [], [], [], [], [], 390.0)


def credited_and_named(played: Play) -> tuple[set[str], set[str]]:
    acks, notices = played.world.outbox()
    credited = {ack.miner_id for ack in acks if ack.verb is Verb.STOP and ack.outcome is Outcome.COMPLETE}
    return credited, {notice.subject for notice in notices if notice.code is NoticeCode.LIAR_NAMED}


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("trips_s", [20.6, 22.0, 24.0, 30.0, 40.0, 60.0, 130.0])
def test_one_that_nobody_ordered_and_that_trips_by_itself_proves_no_liar_off(trips_s, silent):
    for ordered in (2, 5):
        schedule = on_one_feeder(ordered, beside=1)
        tripping = schedule.miners[-1]
        tripping.stands_alone, tripping.pending = True, [(trips_s, "stop")]
        tripping.dead = [(trips_s, 1e9)] if silent else []
        played = play(schedule)
        credited, named = credited_and_named(played)
        assert violations(played) == []
        assert LIAR not in credited, f"{ordered} ordered"
        assert named <= {LIAR}, f"{ordered} ordered"


def test_one_that_nobody_ordered_and_that_goes_on_hides_nobody():
    schedule = on_one_feeder(4, beside=2, liar="")
    schedule.miners[-1].dead = [(0.0, 1e9)]  # it has never answered: it is taken to go on as it does
    credited, named = credited_and_named(play(schedule))
    assert (credited, named) == ({"m00", "m01", "m02", "m03"}, set())


def test_one_that_nobody_ordered_and_that_comes_back_accuses_nobody():
    schedule = on_one_feeder(3, beside=1, liar="")
    schedule.miners[-1].hashing, schedule.miners[-1].stands_alone = False, True
    schedule.miners[-1].pending = [(21.0, "start")]
    schedule.families = {"alone"}
    played = play(schedule)
    assert violations(played) == []
    assert credited_and_named(played)[1] == set()


@pytest.mark.parametrize("trails", ["average", "snapshot"])
@pytest.mark.parametrize("trails_s", [5.0, 11.0, 15.0, 30.0, 60.0])
@pytest.mark.parametrize("liar", ["reports_idle", "ack_without_effect"])
def test_neighbours_whose_figures_trail_prove_no_liar_off_and_are_called_none(trails, trails_s, liar):
    for others, lively in itertools.product((1, 2, 4), (False, True)):
        schedule = on_one_feeder(others + 1, liar=liar)
        for n, miner in enumerate(schedule.miners):
            miner.lively = lively
            if n:
                miner.trails, miner.trails_s, miner.phase_s = trails, trails_s, n * 0.37 * trails_s % trails_s
        played = play(schedule)
        credited, named = credited_and_named(played)
        assert violations(played) == [], f"{others} others, lively {lively}"
        assert LIAR not in credited, f"{others} others, lively {lively}"
        assert named <= {LIAR}, f"{others} others, lively {lively}"


def drifting(by: float, count: int, liar: str) -> Schedule:
    """One ordered miner; from 21.5 s on each of ``count`` others draws ``by`` of what it did."""
    schedule = on_one_feeder(1, beside=count, liar=liar)
    for miner in schedule.miners:
        miner.lively = True
    for miner in schedule.miners[1:]:
        miner.stands_alone, miner.drifts = True, (21.5, by)
    schedule.families = {"alone"}
    return schedule


@pytest.mark.parametrize(("by", "count"), [(0.98, 30), (0.95, 20), (0.91, 6)])
def test_many_neighbours_that_draw_a_little_less_prove_no_liar_off(by, count):
    credited, _ = credited_and_named(play(drifting(by, count, "reports_idle")))
    assert credited == set()


@pytest.mark.parametrize(("by", "count"), [(1.04, 30), (1.09, 12), (1.09, 6)])
def test_many_neighbours_that_draw_a_little_more_make_no_liar(by, count):
    _, named = credited_and_named(play(drifting(by, count, "")))
    assert named == set()


@pytest.mark.parametrize("late_s", [2.0, 4.0, 5.0])
@pytest.mark.parametrize("before_s", [1.0, 3.0])
@pytest.mark.parametrize("restored", [True, False])
def test_a_neighbour_that_trips_just_before_beside_a_late_meter_proves_no_liar_off(late_s, before_s, restored):
    schedule = on_one_feeder(1, beside=1)
    windows = [curtail("c0", 20, 60, ["m01"])] if restored else []
    windows.append(curtail("c1", 120, 250, [LIAR]))
    schedule.plans = [(3.0, make_plan(2, windows, end_s=700))]
    schedule.meters.late_s = {"F1": late_s}
    schedule.miners[1].stands_alone, schedule.families = True, {"late", "alone"}

    async def trip(played: Play) -> None:
        await asyncio.sleep(120 - before_s - played.world.now_s)
        played.world.miners["m01"].pending.append((played.world.now_s, "stop"))

    acks, _ = play(schedule, trip).world.outbox()
    assert not [
        ack for ack in acks if ack.miner_id == LIAR and ack.outcome is Outcome.COMPLETE and ack.verb is Verb.STOP
    ]


@pytest.mark.parametrize("late_s", [0.0, 3.0, 5.0])
@pytest.mark.parametrize("gap_s", [1.0, 4.0])
def test_an_own_slow_stop_that_lands_just_before_proves_no_liar_off(late_s, gap_s):
    schedule = on_one_feeder(1, beside=1)
    schedule.miners[1].stop_delay_s = 24.0
    windows = [curtail("c0", 20, 300, ["m01"]), curtail("c1", 44.5 + gap_s, 300, [LIAR])]
    schedule.plans = [(3.0, make_plan(2, windows, end_s=700))]
    schedule.meters.late_s = {"F1": late_s}
    credited, _ = credited_and_named(play(schedule))
    assert LIAR not in credited


@pytest.mark.parametrize("lively", [True, False])
@pytest.mark.parametrize("ordered", [6, 12, 19])
def test_one_that_runs_on_without_an_order_hides_no_honest_stop(ordered, lively):
    schedule = on_one_feeder(ordered, beside=1, liar="")
    for miner in schedule.miners:
        miner.lively = lively
    credited, named = credited_and_named(play(schedule))
    assert (len(credited), named) == (ordered, set())


@pytest.mark.parametrize("ordered", [6, 12, 19])
def test_beside_one_that_runs_on_without_an_order_a_liar_stays_unproven(ordered):
    schedule = on_one_feeder(ordered, beside=1)
    credited, named = credited_and_named(play(schedule))
    assert LIAR not in credited
    assert named <= {LIAR}


@pytest.mark.parametrize("died_s", [20.6, 21.0, 21.4, 21.8])
def test_who_was_measured_as_others_fell_is_proven_once_the_feeder_is_empty(died_s):
    schedule = on_one_feeder(6, liar="")
    schedule.crashes = [Crash(None, died_s, 3.0, cold=False)]
    schedule.families = {"crash"}
    credited, _ = credited_and_named(play(schedule))
    assert len(credited) >= 5
