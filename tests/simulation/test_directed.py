"""Histories by hand: what random ones meet too seldom to be relied on."""

from sitelink.types import Outcome, Verb
from tests.simulation.history import Crash, Play, Schedule, curtail, make_plan, play
from tests.simulation.invariants import violations
from tests.simulation.world import SimMiner, Site


def last_word(played: Play, verb: Verb) -> dict[str, Outcome]:
    acks, _ = played.world.outbox()
    return {ack.miner_id: ack.outcome for ack in acks if ack.verb is verb}


def test_a_kill_beside_a_caught_liar_leaves_an_honest_stop_provable():
    miners = [SimMiner(f"m{n:02d}", "F1", 3400.0) for n in range(3)]
    miners[0].liar = "reports_idle"
    plan = make_plan(2, [curtail("c1", 20, 200, [miner.miner_id for miner in miners])], end_s=600)
    # The liar is stopped first and caught; the process dies once the second stop has left.
    crash = Crash(Site("stop", 2, after=True), 15.0, 3.0, cold=False)
    schedule = Schedule(7, miners, {"F1"}, [(3.0, plan)], [], [crash], [], [], [], 390.0)
    played = play(schedule)
    assert violations(played) == []
    assert played.lives == 2
    assert last_word(played, Verb.STOP) == {
        "m00": Outcome.UNVERIFIED, "m01": Outcome.COMPLETE, "m02": Outcome.COMPLETE,
    }  # fmt: skip
