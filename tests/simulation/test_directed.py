"""Histories by hand: what random ones meet too seldom to be relied on."""

import asyncio

from sitelink.types import NoticeCode, Outcome, Verb
from tests.simulation.history import Crash, Play, Schedule, curtail, make_plan, play
from tests.simulation.invariants import violations
from tests.simulation.world import SimMiner, Site


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


def test_a_kill_beside_a_caught_liar_leaves_an_honest_stop_provable():
    schedule = three_miners(end_s=200)
    schedule.miners[0].liar = "reports_idle"
    # The liar is stopped first and caught; the process dies once the second stop has left.
    schedule.crashes = [Crash(Site("stop", 2, after=True), 15.0, 3.0, cold=False)]
    played = play(schedule)
    assert violations(played) == []
    assert played.lives == 2
    assert last_word(played, Verb.STOP) == {
        "m00": Outcome.UNVERIFIED, "m01": Outcome.COMPLETE, "m02": Outcome.COMPLETE,
    }  # fmt: skip


def test_a_stop_cut_short_is_judged_before_the_next_one_clouds_it():
    schedule = three_miners()
    schedule.miners[0].liar = "reports_idle"
    windows = [curtail("c1", 20, 200, ["m01", "m02"]), curtail("c2", 24, 200, ["m00"])]
    schedule.plans = [(3.0, make_plan(2, windows, end_s=600))]
    # m01's stop has just left when the process dies; when it is back, the liar is due as well and stands first.
    schedule.crashes = [Crash(Site("stop", 1, after=True), 15.0, 6.0, cold=False)]
    schedule.end_s = 390.0
    played = play(schedule)
    assert violations(played) == []
    assert last_word(played, Verb.STOP) == {
        "m00": Outcome.UNVERIFIED, "m01": Outcome.COMPLETE, "m02": Outcome.COMPLETE,
    }  # fmt: skip


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
