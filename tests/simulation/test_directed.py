"""Histories by hand: what random ones meet too seldom to be relied on."""

import asyncio
import itertools

import pytest

from agent.errors import AccessDenied
from sitelink.types import NoticeCode, Outcome, Verb
from tests.simulation.history import Crash, Play, Schedule, curtail, make_plan, play
from tests.simulation.invariants import violations
from tests.simulation.world import T0, SimControl, SimMiner, Site

COMPLETE = Outcome.COMPLETE


def three_miners(*, end_s: float = 120.0, ramp: tuple[float, float] = (0.0, 0.0)) -> Schedule:
    """Three honest miners on one metered feeder, stopped from 20 s to ``end_s``."""
    miners = [SimMiner(f"m{n:02d}", "F1", 3400.0) for n in range(3)]
    window = curtail("c1", 20, end_s, [miner.miner_id for miner in miners], down=ramp, up=ramp)
    plan = make_plan(2, [window], end_s=end_s + 400)
    return Schedule(7, miners, {"F1"}, [(3.0, plan)], [], [], [], [], [], end_s + 190.0)


async def until(played: Play, now_s: float) -> None:
    await asyncio.sleep(now_s - played.world.now_s)


def last_word(played: Play, verb: Verb) -> dict[str, Outcome]:
    acks, _ = played.world.outbox()
    return {ack.miner_id: ack.outcome for ack in acks if ack.verb is verb}


def test_what_a_kill_has_left_ambiguous_is_neither_credited_nor_accused():
    schedule = three_miners(end_s=200)
    schedule.miners[0].liar = "reports_idle"
    # A liar's stop and an honest one have left when the process dies, and with it the series that tells them apart.
    schedule.crashes = [Crash(Site("stop", 2, after=True), 15.0, 3.0, cold=False)]
    played = play(schedule)
    assert violations(played) == []
    assert played.lives == 2
    assert last_word(played, Verb.STOP)["m00"] is Outcome.UNVERIFIED
    _, notices = played.world.outbox()
    assert {notice.subject for notice in notices if notice.code is NoticeCode.LIAR_NAMED} <= {"m00"}
    assert "F1" in {notice.subject for notice in notices if notice.code is NoticeCode.FEEDER_DISAGREES}


def test_a_round_cut_short_by_a_kill_is_proven_although_nothing_can_be_measured_amid_its_falls():
    schedule = three_miners(end_s=80)
    schedule.miners = [SimMiner(f"m{n:02d}", "F1", 3100.0 + 50 * n, stop_delay_s=2.0 + 0.1 * n) for n in range(5)]
    schedule.miners[-1].stop_delay_s = 3.0
    schedule.plans = [(3.0, make_plan(2, [curtail("c1", 20, 80, [m.miner_id for m in schedule.miners])], end_s=480))]
    # The next process finds two still running, told to stop, beside three that fall while it measures.
    schedule.crashes = [Crash(Site("stop", 5, after=True), 15.0, 2.0, cold=False)]
    played = play(schedule)
    assert violations(played) == []
    assert played.lives == 2
    assert set(last_word(played, Verb.STOP).values()) == {COMPLETE}


@pytest.mark.parametrize(("count", "within_s"), [(10, 2.5), (60, 3.5)])
def test_the_stops_of_a_feeder_leave_within_seconds_and_are_proven_together(count, within_s):
    schedule = three_miners()
    schedule.miners = [SimMiner(f"m{n:02d}", "F1", 3000.0 + 10 * n) for n in range(count)]
    schedule.plans = [(3.0, make_plan(2, [curtail("c1", 20, 120, [m.miner_id for m in schedule.miners])], end_s=520))]
    played = play(schedule)
    assert violations(played) == []
    sent = sorted(now_s for now_s, _, verb in played.world.device_log if verb == "stop")
    assert len(sent) == count
    assert sent[-1] - sent[0] < within_s
    acks, _ = played.world.outbox()
    proven = [ack.at for ack in acks if ack.verb is Verb.STOP and ack.outcome is Outcome.COMPLETE]
    assert len(proven) == count
    assert (max(proven) - T0).total_seconds() - sent[-1] < 2.0 + 3.0


def test_a_start_waits_for_no_stop_on_its_feeder():
    schedule = three_miners()
    schedule.miners[1].liar = "ack_without_effect"  # its stop is watched for its whole deadline
    windows = [curtail("c1", 20, 30, ["m00"]), curtail("c2", 28, 120, ["m01"])]
    schedule.plans = [(3.0, make_plan(2, windows, end_s=520))]
    played = play(schedule)
    assert violations(played) == []
    started = min(now_s for now_s, miner, verb in played.world.device_log if (miner, verb) == ("m00", "start"))
    assert started < 33


def test_one_who_reported_idle_all_along_is_told_of_its_feeder():
    schedule = three_miners()
    schedule.miners[0].liar, schedule.miners[0].pretends_idle = "reports_idle_now", True
    played = play(schedule)
    assert violations(played) == []
    _, notices = played.world.outbox()
    told = [n for n in notices if n.code is NoticeCode.FEEDER_DISAGREES and n.subject == "F1"]
    assert told
    assert "m00" in told[0].detail
    assert (told[0].at - T0).total_seconds() < 20 + 30


def test_a_difference_stands_as_long_as_its_stops_and_is_told_anew_by_the_next(monkeypatch):
    schedule = three_miners(end_s=80)
    schedule.miners[0].liar, schedule.miners[0].pretends_idle = "reports_idle_now", True
    again = curtail("c2", 150, 260, ["m00", "m01", "m02"])
    schedule.plans = [(3.0, make_plan(2, [*schedule.plans[0][1].curtailments, again], end_s=700))]
    schedule.end_s = 450.0
    standing = {}

    async def watch(played: Play) -> None:
        for now_s in (15, 70, 140, 250, 440):
            await until(played, now_s)
            standing[now_s] = played.agent.doubts()["feeders"]

    played = play(schedule, watch)
    assert violations(played) == []
    assert [bool(standing[now_s]) for now_s in standing] == [False, True, False, True, False]
    (feeder,) = standing[70]
    assert (feeder["feeder"], feeder["open"]) == ("F1", ["m00"])
    assert feeder["excess_w"] == pytest.approx(3400, abs=600)
    _, notices = played.world.outbox()
    told = [notice for notice in notices if notice.code is NoticeCode.FEEDER_DISAGREES]
    assert [(notice.at - T0).total_seconds() > 150 for notice in (told[0], told[-1])] == [False, True]


def test_a_stop_cut_short_is_judged_before_the_next_one_clouds_it():
    schedule = three_miners(end_s=300)
    schedule.miners[0].liar = "reports_idle"
    windows = [curtail("c1", 20, 300, ["m01", "m02"]), curtail("c2", 24, 300, ["m00"])]
    schedule.plans = [(3.0, make_plan(2, windows, end_s=700))]
    # The first stop has just left when the process dies; when it is back, the liar is due as well, and no figures are
    # older than the stop that was about to be sent to the third.
    schedule.crashes = [Crash(Site("stop", 1, after=True), 15.0, 62.0, cold=False)]
    schedule.end_s = 490.0
    played = play(schedule)
    assert violations(played) == []
    words = last_word(played, Verb.STOP)
    _, first, _ = played.world.device_log[0]
    # One of the two that are stopped now lies: both have the same load, and only the feeder is named.
    assert {name for name, outcome in words.items() if outcome is COMPLETE} == {first}


def test_a_full_disk_keeps_nobody_off():
    seen = {}

    async def fill(played: Play) -> None:
        await until(played, 100)
        played.world.disk_full = True
        await until(played, 160)
        seen["full"] = [miner.hashing for miner in played.world.miners.values()]
        played.world.disk_full = False

    played = play(three_miners(), fill)
    assert seen["full"] == [True, True, True]
    assert violations(played) == []
    assert set(last_word(played, Verb.START).values()) == {Outcome.COMPLETE}


def test_a_process_killed_on_a_full_disk_starts_everybody_again():
    schedule = three_miners()
    schedule.crashes = [Crash(None, 122.0, 3.0, cold=False)]

    async def fill(played: Play) -> None:
        await until(played, 100)
        played.world.disk_full = True
        await until(played, 200)
        played.world.disk_full = False

    played = play(schedule, fill)
    assert violations(played) == []
    assert all(miner.hashing for miner in played.world.miners.values())


def test_orders_lost_with_their_file_leave_nobody_off():
    schedule = three_miners()
    schedule.crashes = [Crash(None, 60.0, 5.0, cold=False)]
    schedule.cuts = [(50.0, 1e9)]

    async def lose(played: Play) -> None:
        await until(played, 62)
        played.world.new_disk()
        played.world.disk_broken = True

    played = play(schedule, lose)
    assert all(miner.hashing for miner in played.world.miners.values())
    _, notices = played.world.outbox()
    assert [notice.code for notice in notices].count(NoticeCode.JOURNAL_LOST) == 1


def test_another_device_that_hashes_is_no_restored_miner():
    async def steal(played: Play) -> None:
        await until(played, 118)
        played.world.miners["m00"].stolen = True

    played = play(three_miners(), steal)
    assert last_word(played, Verb.START) == {
        "m00": Outcome.REFUSED, "m01": Outcome.COMPLETE, "m02": Outcome.COMPLETE,
    }  # fmt: skip


def test_a_miner_that_leaves_the_inventory_holds_up_nobody():
    schedule = three_miners()
    schedule.crashes = [Crash(None, 80.0, 3.0, cold=False)]

    async def remove(played: Play) -> None:
        await until(played, 82)
        played.world.miners["m02"].removed = True

    played = play(schedule, remove)
    assert played.errors == []
    assert [miner.hashing for miner in played.world.miners.values()] == [True, True, False]
    _, notices = played.world.outbox()
    assert NoticeCode.CURTAILMENT_RESTORED in {notice.code for notice in notices}


def test_a_sites_limit_holds_for_all_its_orders_together():
    schedule = three_miners()
    schedule.miners = [SimMiner(f"m{n:02d}", f"F{n}", 3400.0) for n in range(6)]
    windows = [curtail(f"c{n}", 20, 200, [f"m{n:02d}", f"m{n + 3:02d}"]) for n in range(3)]
    schedule.plans = [(3.0, make_plan(2, windows, end_s=600))]
    schedule.end_s, schedule.max_step_w = 390.0, 7000.0
    played = play(schedule)
    assert violations(played) == []
    for verb in ("stop", "start"):
        sent = sorted(now_s for now_s, _, given in played.world.device_log if given == verb)
        assert len(sent) == 6
        # Two miners fit into a step of ten seconds, the third must wait for the next.
        assert all(third - first >= 9.5 for first, third in zip(sent, sent[2:], strict=False))


def test_a_stop_that_is_refused_for_good_is_not_repeated_until_somebody_has_mended_it():
    schedule = three_miners(end_s=400)
    schedule.miners[0].denied = True
    seen = {}

    async def mend(played: Play) -> None:
        await until(played, 180)
        seen["orders"] = played.world.miners["m00"].orders
        seen["word"] = [(ack.outcome, ack.reason) for ack in played.world.outbox()[0] if ack.miner_id == "m00"]
        played.world.miners["m00"].denied = False
        await played.agent.mended(["m00", "m01"])
        await until(played, 220)
        seen["after"] = last_word(played, Verb.STOP)["m00"]

    played = play(schedule, mend)
    assert violations(played) == []
    assert seen["orders"] == 1
    assert seen["word"] == [(Outcome.REFUSED, "access_denied")]
    assert seen["after"] is Outcome.COMPLETE


def test_what_was_mended_while_the_agent_was_down_is_tried_once_when_it_starts():
    schedule = three_miners(end_s=400)
    schedule.miners[0].denied = schedule.miners[1].denied = True
    schedule.crashes = [Crash(None, 60.0, 5.0, cold=False)]
    schedule.families = {"crash", "device"}
    seen = {}

    async def mend(played: Play) -> None:
        await until(played, 62)
        played.world.miners["m00"].denied = False
        await until(played, 390)
        seen.update({name: played.world.miners[name].orders for name in ("m00", "m01")})

    played = play(schedule, mend)
    assert violations(played) == []
    assert played.lives == 2
    words = last_word(played, Verb.STOP)
    assert (words["m00"], words["m01"]) == (Outcome.COMPLETE, Outcome.REFUSED)
    assert seen == {"m00": 2, "m01": 2}


def test_a_refusal_of_an_attempt_that_began_before_the_mend_is_not_the_last_word(monkeypatch):
    schedule = three_miners(end_s=400)
    schedule.end_s = 420.0
    order = SimControl._order

    async def slow_order(control: SimControl, verb: str) -> None:
        """Take the password that counts as the order begins; a token and a login take their time."""
        used = right[control._miner.miner_id]
        if control._miner.miner_id == "m00":
            begun.set()
        await asyncio.sleep(1.0)
        if not used:
            refused.append(control._world.now_s)
            raise AccessDenied("wrong password")
        await order(control, verb)

    async def mend(played: Play) -> None:
        await begun.wait()
        await asyncio.sleep(0.5)
        assert not refused
        right["m00"] = True
        await played.agent.mended(["m00"])

    right, refused, begun = {"m00": False, "m01": True, "m02": True}, [], asyncio.Event()
    monkeypatch.setattr(SimControl, "_order", slow_order)
    played = play(schedule, mend)
    assert len(refused) == 1
    assert last_word(played, Verb.STOP)["m00"] is Outcome.COMPLETE
    assert played.world.miners["m00"].orders == 2  # its stop and its start


def test_a_mend_is_not_forgotten_while_the_disk_is_full():
    schedule = three_miners(end_s=400)
    schedule.miners[0].denied = True

    async def mend(played: Play) -> None:
        await until(played, 60)
        played.world.disk_full = True
        played.world.miners["m00"].denied = False
        await played.agent.mended(["m00"])
        await until(played, 100)
        played.world.disk_full = False

    played = play(schedule, mend)
    assert violations(played) == []
    assert last_word(played, Verb.STOP)["m00"] is Outcome.COMPLETE


def test_what_a_mend_makes_possible_again_keeps_to_the_ramp():
    schedule = three_miners(end_s=400, ramp=(3500.0, 10.0))
    for miner in schedule.miners:
        miner.denied = True

    async def mend(played: Play) -> None:
        await until(played, 60)
        for miner in schedule.miners:
            miner.denied = False
        await played.agent.mended([miner.miner_id for miner in schedule.miners])

    played = play(schedule, mend)
    assert violations(played) == []
    sent = sorted(now_s for now_s, _, verb in played.world.device_log if verb == "stop")
    assert len(sent) == 3
    assert all(later - earlier >= 9.5 for earlier, later in itertools.pairwise(sent))


def test_a_start_that_is_refused_for_good_is_repeated_seldom():
    schedule = three_miners(end_s=60)
    schedule.end_s = 900.0
    seen = {}

    async def close(played: Play) -> None:
        await until(played, 55)
        played.world.miners["m00"].denied = True
        await until(played, 600)
        seen["orders"] = played.world.miners["m00"].orders
        played.world.miners["m00"].denied = False
        await until(played, 880)
        seen["hashing"] = played.world.miners["m00"].hashing

    play(schedule, close)
    assert seen["orders"] <= 3
    assert seen["hashing"]


def test_what_was_not_proven_is_tried_anew_by_the_next_order():
    schedule = three_miners(end_s=400)
    schedule.miners[0].denied = True
    late = curtail("c2", 100, 400, ["m00", "m01", "m02"])
    early = curtail("c1", 20, 100, ["m00", "m01", "m02"])
    schedule.plans = [(3.0, make_plan(2, [early, late], end_s=800))]

    async def mend(played: Play) -> None:
        await until(played, 60)
        played.world.miners["m00"].denied = False

    played = play(schedule, mend)
    assert violations(played) == []
    acks, _ = played.world.outbox()
    words = {(ack.order_id, ack.miner_id): ack.outcome for ack in acks if ack.verb is Verb.STOP}
    assert words["c1", "m00"] is Outcome.REFUSED
    assert words["c2", "m00"] is Outcome.COMPLETE
    assert words["c2", "m01"] is Outcome.COMPLETE


@pytest.mark.parametrize("trails", ["snapshot", "average"])
def test_a_miner_whose_figures_trail_is_proven_off_and_back_and_called_no_liar(trails):
    schedule = three_miners(end_s=200)
    schedule.miners[0].trails, schedule.miners[0].trails_s = trails, 9.0
    shown = []

    async def look(played: Play) -> None:
        await until(played, 30)
        while played.world.now_s < 195:
            played.world.settle()
            shown.append(schedule.miners[0].look(played.world.now_s))
            await asyncio.sleep(0.5)

    schedule.miners[0].stop_delay_s = 12.0
    played = play(schedule, look)
    assert violations(played) == []
    assert last_word(played, Verb.STOP) == dict.fromkeys(("m00", "m01", "m02"), Outcome.COMPLETE)
    assert last_word(played, Verb.START) == dict.fromkeys(("m00", "m01", "m02"), Outcome.COMPLETE)
    between = {seen.power_w for seen in shown if 100 < seen.power_w < 3300}
    assert (len(between) > 10) is (trails == "average")
    off_s = schedule.miners[0].turns[0][0]
    assert schedule.miners[0].look(off_s + 2).power_w > schedule.miners[0].look(off_s + 10).power_w
    _, notices = played.world.outbox()
    assert NoticeCode.LIAR_NAMED not in {notice.code for notice in notices}


def test_beside_one_that_runs_on_an_honest_stop_is_proven_once_its_power_has_risen():
    """Power that rises was measured while the miner ran."""
    schedule = three_miners()
    schedule.miners[0].liar = "ack_without_effect"
    for miner in schedule.miners:
        miner.lively = True
    played = play(schedule)
    assert violations(played) == []
    acks, _ = played.world.outbox()
    proven = {a.miner_id: (a.at - T0).total_seconds() for a in acks if a.verb is Verb.STOP and a.outcome is COMPLETE}
    assert proven.keys() == {"m01", "m02"}
    off_s = max(schedule.miners[n].turns[0][0] for n in (1, 2))
    assert max(proven.values()) - off_s < 6.0


@pytest.mark.parametrize("seed", range(12))
def test_the_fall_of_a_miner_whose_lively_figures_trail_proves_no_liar_off(seed):
    schedule = three_miners(end_s=150)
    schedule.seed = seed
    liar, trailing, _ = schedule.miners
    liar.liar = "reports_idle"
    trailing.trails, trailing.trails_s, trailing.phase_s = ("snapshot", "average")[seed % 2], 3.0 + seed / 2, seed / 3
    trailing.stop_delay_s = 1.0 + seed
    for miner in schedule.miners:
        miner.lively = True
    played = play(schedule)
    assert violations(played) == []
    acks, _ = played.world.outbox()
    assert "m00" not in {ack.miner_id for ack in acks if ack.verb is Verb.STOP and ack.outcome is COMPLETE}


@pytest.mark.parametrize(("delay_s", "unseen", "asked"), [(2.0, (), 0), (2.0, (21.5, 22.6), 1), (12.0, (), 1)])
def test_who_took_its_order_a_moment_ago_and_answered_since_is_not_asked_again(monkeypatch, delay_s, unseen, asked):
    schedule = three_miners(end_s=100)
    schedule.miners = schedule.miners[:1]
    schedule.plans = [(3.0, make_plan(2, [curtail("c1", 20, 100, ["m00"])], end_s=500))]
    schedule.miners[0].stop_delay_s = delay_s
    schedule.miners[0].dead = [unseen] if unseen else []
    names = []
    identity = SimControl.identity

    async def counted(control: SimControl) -> str:
        names.append(control)
        return await identity(control)

    monkeypatch.setattr(SimControl, "identity", counted)

    async def watch(played: Play) -> None:
        await until(played, 60)
        assert last_word(played, Verb.STOP) == {"m00": COMPLETE}
        assert len(names) == asked

    assert violations(play(schedule, watch)) == []


@pytest.mark.parametrize("says", [1.3, 2.2])
def test_one_that_says_it_draws_more_than_it_does_hides_no_liar(says):
    schedule = three_miners(end_s=200)
    liar, deaf, _ = schedule.miners
    liar.liar, deaf.liar, deaf.says = "reports_idle", "ack_without_effect", says
    for miner in schedule.miners:
        miner.lively = True
    acks, _ = play(schedule).world.outbox()
    assert "m00" not in {ack.miner_id for ack in acks if ack.verb is Verb.STOP and ack.outcome is COMPLETE}


@pytest.mark.parametrize("window_s", [30.0, 60.0])
def test_a_hash_rate_that_is_a_mean_over_a_minute_makes_no_liar(window_s):
    """Power tells at once that it is off; its hash rate says for a minute that it hashes."""
    schedule = three_miners(end_s=200)
    for miner in schedule.miners:
        miner.rate_mean_s = window_s
    _, notices = play(schedule).world.outbox()
    assert NoticeCode.LIAR_NAMED not in {notice.code for notice in notices}
