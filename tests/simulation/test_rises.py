"""A stop that was proven is taken back once its feeder draws again what nobody owns up to, and proven anew after."""

from collections import defaultdict
from datetime import datetime

import pytest

from sitelink.types import NoticeCode, Outcome, Verb
from tests.simulation.history import Crash, Play, Schedule, curtail, make_plan, play
from tests.simulation.invariants import violations
from tests.simulation.test_directed import three_miners, until
from tests.simulation.world import T0, SimMiner

COMPLETE, UNVERIFIED = Outcome.COMPLETE, Outcome.UNVERIFIED
NAMES = ("m00", "m01", "m02")


def held(*, end_s: float = 300.0) -> Schedule:
    schedule = three_miners(end_s=end_s)
    for miner in schedule.miners:
        miner.lively = True
    return schedule


def words(played: Play) -> dict[str, list[tuple[float, Outcome, str]]]:
    """Each miner's stop acks: at which second, how, and why."""
    found = defaultdict(list)
    for ack in played.world.outbox()[0]:
        if ack.verb is Verb.STOP:
            found[ack.miner_id].append(((ack.at - T0).total_seconds(), ack.outcome, ack.reason))
    return found


def outcomes(played: Play) -> dict[str, list[Outcome]]:
    return {name: [outcome for _, outcome, _ in said] for name, said in words(played).items()}


def each(said: list[Outcome]) -> dict[str, list[Outcome]]:
    return dict.fromkeys(NAMES, said)


def test_whoever_may_draw_again_is_no_longer_counted_and_proven_anew_when_nobody_does():
    schedule = held()
    schedule.miners[0].relapses = [(80.0, 160.0)]
    played = play(schedule)
    assert violations(played) == []
    # All three had the same load: whose it is, nobody can say.
    assert outcomes(played) == each([COMPLETE, UNVERIFIED, COMPLETE])
    for said in words(played).values():
        assert said[0][0] < 80 < said[1][0] < 80 + 15
        assert said[1][2] == "feeder_clouded"
        assert 160 < said[2][0] < 160 + 70
    _, notices = played.world.outbox()
    assert NoticeCode.FEEDER_DISAGREES in {notice.code for notice in notices}
    assert NoticeCode.LIAR_NAMED not in {notice.code for notice in notices}


def test_one_that_draws_again_to_the_end_is_never_counted_again():
    schedule = held()
    schedule.miners[1].relapses = [(80.0, 1e9)]
    played = play(schedule)
    assert violations(played) == []
    assert outcomes(played) == each([COMPLETE, UNVERIFIED])


def test_who_draws_too_much_for_the_rise_stays_proven():
    schedule = held()
    schedule.miners[0].baseline_w, schedule.miners[0].relapses = 1500.0, [(80.0, 1e9)]
    played = play(schedule)
    assert violations(played) == []
    assert outcomes(played) == {"m00": [COMPLETE, UNVERIFIED], "m01": [COMPLETE], "m02": [COMPLETE]}


def test_a_process_that_comes_back_finds_who_drew_again_meanwhile():
    schedule = held()
    schedule.miners[0].relapses = [(85.0, 1e9)]
    schedule.crashes = [Crash(None, 80.0, 15.0, cold=False)]
    schedule.families = {"crash"}
    played = play(schedule)
    assert violations(played) == []
    assert played.lives == 2
    assert {name: said[-1] for name, said in outcomes(played).items()} == dict.fromkeys(NAMES, UNVERIFIED)


@pytest.mark.parametrize("gone_again_s", [None, 200.0])
def test_an_unordered_neighbour_that_comes_on_by_itself_takes_nobody_back(gone_again_s):
    schedule = held()
    beside = SimMiner("m03", "F1", 3600.0, hashing=False, lively=True)
    beside.pending = [(90.0, "start")] + ([] if gone_again_s is None else [(gone_again_s, "stop"), (230.0, "start")])
    beside.stands_alone = True
    schedule.miners.append(beside)
    played = play(schedule)
    assert violations(played) == []
    assert outcomes(played) == each([COMPLETE])


@pytest.mark.parametrize(("hashing", "within_s"), [(True, (0, 15)), (False, (60, 85))])
def test_beside_a_neighbour_that_is_off_the_rise_is_found_once_its_figures_had_time_to_tell(hashing, within_s):
    schedule = held()
    schedule.miners.append(SimMiner("m03", "F1", 3600.0, hashing=hashing, lively=True, stands_alone=True))
    schedule.miners[0].relapses = [(80.0, 1e9)]
    played = play(schedule)
    assert violations(played) == []
    assert outcomes(played) == each([COMPLETE, UNVERIFIED])
    assert all(within_s[0] < said[1][0] - 80 < within_s[1] for said in words(played).values())


@pytest.mark.parametrize("late_s", [1.0, 3.0, 5.0])
@pytest.mark.parametrize("on_s", [27.0, 29.0, 31.0, 60.0])
def test_a_late_meter_and_a_neighbour_that_comes_on_take_nobody_back(late_s, on_s):
    schedule = held()
    beside = SimMiner("m03", "F1", 5200.0, hashing=False, lively=True, stands_alone=True, pending=[(on_s, "start")])
    schedule.miners.append(beside)
    schedule.meters.late_s, schedule.families = {"F1": late_s}, {"late"}
    played = play(schedule)
    assert violations(played) == []
    assert all(said.count(COMPLETE) <= 1 and COMPLETE not in said[:-1] for said in outcomes(played).values())


def test_a_dead_neighbour_holds_up_nothing():
    schedule = held()
    schedule.miners.append(SimMiner("m03", "F1", 3600.0, hashing=False, dead=[(0, 1e9)], stands_alone=True))
    schedule.miners[0].relapses = [(80.0, 1e9)]
    played = play(schedule)
    assert violations(played) == []
    assert outcomes(played) == each([COMPLETE, UNVERIFIED])
    assert all(said[1][0] < 80 + 20 for said in words(played).values())


def test_a_neighbour_whose_figures_trail_explains_its_rise_in_time():
    schedule = held()
    beside = SimMiner("m03", "F1", 3600.0, hashing=False, lively=True, trails="snapshot", trails_s=55.0)
    beside.pending, beside.stands_alone = [(90.0, "start")], True
    schedule.miners.append(beside)
    played = play(schedule)
    assert violations(played) == []
    assert outcomes(played) == each([COMPLETE])


def test_one_that_wakes_and_says_so_is_stopped_again_and_takes_no_other_with_it():
    schedule = held()
    schedule.miners[0].wakes_at, schedule.miners[0].wakes = [80.0], True
    played = play(schedule)
    assert violations(played) == []
    assert outcomes(played)["m01"] == outcomes(played)["m02"] == [COMPLETE]
    assert NoticeCode.SELF_WOKEN in {notice.code for notice in played.world.outbox()[1]}


@pytest.mark.parametrize("noise_w", [100.0, 400.0, 900.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_noise_of_a_meter_takes_nobody_back(noise_w, seed):
    schedule = held()
    schedule.seed, schedule.meters.noise_w = seed, {"F1": noise_w}
    schedule.families = {"noisy"}
    played = play(schedule)
    assert violations(played) == []
    assert all(said.count(COMPLETE) <= 1 for said in outcomes(played).values())
    assert all(COMPLETE not in said[:-1] for said in outcomes(played).values())


@pytest.mark.parametrize("step_w", [100.0, 1000.0])
def test_a_meter_of_coarse_steps_takes_back_who_draws_again(step_w):
    schedule = held()
    schedule.meters.step_w, schedule.meters.noise_w = {"F1": step_w}, {"F1": 0.0}
    schedule.miners[1].relapses = [(120.0, 1e9)]
    said = words(play(schedule))["m01"]
    assert [outcome for at_s, outcome, _ in said if at_s > 120] == [UNVERIFIED]


def test_a_meter_that_sticks_or_falls_silent_takes_nobody_back():
    schedule = held()
    schedule.meters.stuck = [("F1", 60.0, 120.0)]
    schedule.silent_meters = [("F1", 150.0, 250.0)]
    played = play(schedule)
    assert violations(played) == []
    assert outcomes(played) == each([COMPLETE])


def test_a_meter_stuck_at_an_older_figure_takes_nobody_back(monkeypatch):
    schedule = held()

    async def stick(played: Play) -> None:
        await until(played, 80)
        monkeypatch.setattr(played.world, "shown_w", lambda _: 10_200.0)
        await until(played, 250)
        monkeypatch.undo()

    played = play(schedule, stick)
    assert violations(played) == []
    assert outcomes(played) == each([COMPLETE])


def test_devices_that_say_too_much_and_a_feeder_with_a_load_of_its_own_take_nobody_back(monkeypatch):
    schedule = held()
    for miner in schedule.miners:
        miner.says = 1.08
    schedule.crashes = [Crash(None, 80.0, 5.0, cold=False)]
    schedule.families = {"crash"}

    async def fan(played: Play) -> None:
        shown_w = played.world.shown_w
        monkeypatch.setattr(played.world, "shown_w", lambda feeder_id: shown_w(feeder_id) + 5000.0)

    played = play(schedule, fan)
    assert violations(played) == []
    assert {name: said[-1] for name, said in outcomes(played).items()} == dict.fromkeys(NAMES, COMPLETE)
    assert all(said.count(COMPLETE) == 1 for said in outcomes(played).values())


def test_one_that_draws_again_on_a_full_disk_is_taken_back_once_there_is_room():
    schedule = held()
    schedule.miners[0].relapses = [(80.0, 1e9)]

    async def fill(played: Play) -> None:
        await until(played, 70)
        played.world.disk_full = True
        await until(played, 130)
        assert set(map(tuple, outcomes(played).values())) == {(COMPLETE,)}
        played.world.disk_full = False

    played = play(schedule, fill)
    assert violations(played) == []
    assert outcomes(played) == each([COMPLETE, UNVERIFIED])


@pytest.mark.parametrize("loads_w", [(3400.0, 3400.0, 8000.0, 8000.0), (3400.0, 3400.0, 3400.0)])
def test_a_feeder_with_a_liar_is_named_as_soon_as_its_orders_are_settled(loads_w):
    """Where some are proven off the feeder's level is taken, which lasts; the liar's naming does not wait for it."""
    miners = [SimMiner(f"m{n:02d}", "F1", load_w) for n, load_w in enumerate(loads_w)]
    miners[0].liar = "reports_idle"
    window = curtail("c1", 20, 200, [miner.miner_id for miner in miners])
    schedule = Schedule(7, miners, {"F1"}, [(3.0, make_plan(2, [window], end_s=600))], [], [], [], [], [], 120.0)
    acks, notices = play(schedule).world.outbox()
    first: dict[str, datetime] = {}
    for ack in acks:
        first.setdefault(ack.miner_id, ack.at)
    told = [notice.at for notice in notices if notice.code is NoticeCode.FEEDER_DISAGREES]
    assert len(first) == len(loads_w)
    assert (told[0] - max(first.values())).total_seconds() <= 1.5
