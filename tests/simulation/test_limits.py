"""A site's own limits bind whatever is ordered: by plan, command, fallback or hand, each way, through restarts."""

from datetime import timedelta

import pytest

from sitelink.orders import write_command
from sitelink.types import Command, Domain, NoticeCode, Outcome, Verb
from sitelink.units import Watts
from tests.simulation.history import ORDER_KEY, Crash, Play, Schedule, at, curtail, make_plan, play
from tests.simulation.invariants import violations
from tests.simulation.test_directed import until
from tests.simulation.world import SimMiner, Site

LOAD_W = 3500.0
"""What each miner counts for in the simulation's inventory."""


def fleet(count: int, *, start_s: float = 20.0, end_s: float = 400.0, feeders: int = 3) -> Schedule:
    miners = [SimMiner(f"m{n:02d}", f"F{n % feeders}", 3400.0) for n in range(count)]
    window = curtail("c1", start_s, end_s, [miner.miner_id for miner in miners])
    plan = make_plan(2, [window], end_s=end_s + 800)
    return Schedule(7, miners, {f"F{n}" for n in range(feeders)}, [(3.0, plan)], [], [], [], [], [], end_s + 300.0)


def most_in(played: Play, verb: str, span_s: float) -> float:
    """Return the most load told ``verb`` for the first time, or again, within ``span_s``."""
    sent = sorted(now_s for now_s, _, given in played.world.device_log if given == verb)
    return max((sum(first <= other < first + span_s for other in sent) * LOAD_W for first in sent), default=0.0)


def command(verb: Verb, miner_ids, *, start_s: float, end_s: float, sequence: int = 5):
    order = Command(
        f"k{sequence}", "site-1", "agent-1", 1, sequence, at(start_s), at(end_s), verb, tuple(miner_ids), "by order"
    )
    return ORDER_KEY.sign(Domain.COMMAND, write_command(order))


@pytest.mark.parametrize("crashes", [False, True])
def test_no_more_than_the_sites_megawatts_a_minute_go_off_or_come_back(crashes):
    schedule = fleet(12)
    schedule.house = {"max_per_min_w": Watts(4 * LOAD_W)}
    if crashes:
        schedule.crashes = [
            Crash(Site("stop", 3, after=True), 15.0, 3.0, cold=False),
            Crash(Site("start", 2, after=True), 395.0, 3.0, cold=False),
        ]
    played = play(schedule)
    assert played.errors == []
    assert played.lives == (3 if crashes else 1)
    for verb in ("stop", "start"):
        assert {name for _, name, given in played.world.device_log if given == verb} == set(played.world.miners)
        # What reaches a device was let go up to a look and a write before.
        assert most_in(played, verb, 58.0) <= 4 * LOAD_W
    _, notices = played.world.outbox()
    told = [notice.detail for notice in notices if notice.code is NoticeCode.LIMIT_APPLIED]
    assert told == [
        "max_mw_per_min: stopping its 12 miners takes 120 s; max_mw_per_min: starting its 12 miners takes 120 s"
    ]
    assert {notice.subject for notice in notices if notice.code is NoticeCode.CURTAILMENT_RESTORED} == {"c1"}


def test_a_command_is_held_to_the_same_pace_and_those_that_were_silent_come_no_faster():
    schedule = fleet(12)
    schedule.plans = []
    schedule.house = {"max_per_min_w": Watts(4 * LOAD_W)}
    for miner in schedule.miners:
        miner.dead.append((15.0, 60.0))  # a switch is down as the order comes: each is tried in vain

    async def order(played: Play) -> None:
        await until(played, 10)
        await played.agent.journal.accept(command(Verb.STOP, played.world.miners, start_s=20, end_s=400))

    played = play(schedule, order)
    assert played.errors == []
    assert {name for _, name, given in played.world.device_log if given == "stop"} == set(played.world.miners)
    assert most_in(played, "stop", 58.0) <= 4 * LOAD_W
    assert most_in(played, "start", 58.0) <= 4 * LOAD_W


def test_a_stop_by_hand_waits_for_no_limit_and_what_follows_waits_for_it():
    schedule = fleet(12, start_s=30.0)
    schedule.house = {"max_per_min_w": Watts(2 * LOAD_W)}

    async def by_hand(played: Play) -> None:
        await until(played, 20)
        await played.agent.override("failsafe-1", Verb.STOP, [f"m{n:02d}" for n in range(6)], timedelta(hours=1))

    played = play(schedule, by_hand)
    sent = sorted((now_s, name) for now_s, name, given in played.world.device_log if given == "stop")
    assert sent[5][0] < 25
    assert sent[6][0] >= 79, "six went at once: for a minute the plan's own have no room"


def test_a_start_by_hand_keeps_to_the_pace():
    schedule = fleet(8, end_s=300.0)
    schedule.house = {"max_per_min_w": Watts(2 * LOAD_W)}
    schedule.plans = []

    async def by_hand(played: Play) -> None:
        await until(played, 20)
        await played.agent.override("failsafe-1", Verb.STOP, None, timedelta(seconds=60))
        await until(played, 60)
        await played.agent.override("failsafe-2", Verb.START, None, timedelta(hours=1))

    played = play(schedule, by_hand)
    assert most_in(played, "start", 58.0) <= 2 * LOAD_W
    assert all(miner.hashing for miner in played.world.miners.values())


def test_a_site_that_stops_nobody_refuses_a_plan_that_does_and_a_verb_it_does_not_take():
    schedule = fleet(3)
    schedule.house = {"allowed_verbs": frozenset({Verb.START, Verb.BLINK})}

    async def order(played: Play) -> None:
        await until(played, 10)
        for sequence, verb in enumerate((Verb.STOP, Verb.REBOOT), 5):
            await played.agent.journal.accept(command(verb, ["m00"], start_s=10, end_s=300, sequence=sequence))

    played = play(schedule, order)
    assert played.world.device_log == []
    _, notices = played.world.outbox()
    refused = [notice.detail.partition(":")[0] for notice in notices if notice.code.value.endswith("_refused")]
    assert refused == ["verb_not_allowed"] * 3
    assert not any(ack.outcome is Outcome.COMPLETE and ack.verb is Verb.STOP for ack in played.world.outbox()[0])


def test_an_order_with_a_slow_site_is_violated_by_nothing():
    schedule = fleet(6, end_s=260.0)
    schedule.house = {"max_per_min_w": Watts(3 * LOAD_W)}
    assert [line for line in violations(play(schedule)) if "left off" not in line] == []
