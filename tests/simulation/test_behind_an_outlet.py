"""A miner without power can be told to start, and cannot be read before."""

import pytest

from agent.errors import Unreachable
from sitelink.types import Outcome, Verb
from tests.simulation.history import Schedule, curtail, make_plan, play
from tests.simulation.world import SimControl, SimMiner


def test_a_miner_that_cannot_be_read_until_it_has_power_is_told_to_start(monkeypatch: pytest.MonkeyPatch):
    read = SimControl.observe

    async def unless_off(self: SimControl):
        seen = await read(self)
        if not self._miner.hashing:
            raise Unreachable("neither the miner nor the outlet before it answers")
        return seen

    monkeypatch.setattr(SimControl, "observe", unless_off)
    plan = make_plan(2, [curtail("c1", 20, 60, ["m00"])], end_s=500)
    played = play(Schedule(7, [SimMiner("m00", "F1", 3400.0)], set(), [(3.0, plan)], [], [], [], [], [], 110.0))
    assert played.errors == []
    assert played.world.miners["m00"].hashing
    acks, _ = played.world.outbox()
    assert [ack.outcome for ack in acks if ack.verb is Verb.START][-1] is Outcome.COMPLETE
