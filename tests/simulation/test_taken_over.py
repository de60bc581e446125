"""What a failsafe, or a process killed in the middle of its order, leaves of a liar is taken up and comes to an end."""

from dataclasses import replace

from agent.local_curtail.evidence import Lie
from agent.local_curtail.records import Phase, miner_of, to_json
from sitelink.types import Evidence, Outcome, Verb
from tests.simulation.history import Crash, Play, curtail, make_plan, play
from tests.simulation.test_directed import last_word, three_miners, until
from tests.simulation.world import SimMiner


def test_a_caught_liar_told_again_and_not_judged_is_judged_and_stays_caught():
    schedule = three_miners(end_s=300)
    schedule.miners[:] = [SimMiner("m00", "F1", 3400.0, liar="reports_idle")]
    schedule.plans = [(3.0, make_plan(2, [curtail("c1", 20, 300, ["m00"])], end_s=700))]
    schedule.crashes = [Crash(None, 80.0, 20.0, cold=False)]
    seen = {}

    async def take_up(played: Play) -> None:
        await until(played, 90)
        disk, miner = played.world.disk, played.world.miners["m00"]
        (text,) = disk.execute("SELECT record FROM curtail_miners").fetchone()
        record = miner_of(text)
        seen["caught"] = record.lie
        told = replace(record, outcome=None, evidence=Evidence.NONE, reason="", phase=Phase.SENT)
        disk.execute("UPDATE curtail_miners SET record = ?", (to_json(told),))
        miner.hashing = False  # its breaker was cut meanwhile: its feeder falls, and not by its stop
        await until(played, 200)
        (text,) = disk.execute("SELECT record FROM curtail_miners").fetchone()
        seen["then"] = miner_of(text)

    played = play(schedule, take_up)
    assert seen["caught"] is Lie.REPORTS_IDLE
    assert (seen["then"].phase, seen["then"].lie) == (Phase.DONE, Lie.REPORTS_IDLE)
    assert last_word(played, Verb.STOP) == {"m00": Outcome.UNVERIFIED}
