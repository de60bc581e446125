"""Why a miner does not do as ordered is told in words: in the log, in the journal and to who asks the daemon."""

import logging

import pytest

from agent.errors import AccessDenied
from agent.local_curtail.history import last_events
from agent.local_curtail.records import miner_of
from agent.local_requests import judged_answer
from sitelink.types import Outcome, Verb
from tests.simulation.history import Schedule, curtail, make_plan, play
from tests.simulation.world import SimControl, SimMiner

CAUSE = "10.0.0.1:4028: denies writing (code 45); enable its API with the vendor's tool"


def test_the_cause_of_a_stop_that_was_refused_is_kept_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async def denied(_: SimControl):
        raise AccessDenied(CAUSE)

    monkeypatch.setattr(SimControl, "stop", denied)
    plan = make_plan(2, [curtail("c1", 20, 400, ["m00"])], end_s=500)
    with caplog.at_level(logging.WARNING):
        played = play(Schedule(7, [SimMiner("m00", "F1", 3400.0)], set(), [(3.0, plan)], [], [], [], [], [], 110.0))
    assert played.errors == []
    ((text,),) = played.world.disk.execute("SELECT record FROM curtail_miners")
    record = miner_of(text)
    assert (record.verb, record.outcome, record.reason) == (Verb.STOP, Outcome.REFUSED, "access_denied")
    assert judged_answer(record)["what"] == f"{CAUSE} (access_denied)"
    told = [event.what for event in last_events(played.world.disk, 50) if event.miner_id == "m00"]
    assert f"stop: access_denied (none): {CAUSE}" in told
    said = [line for line in caplog.messages if CAUSE in line]
    assert said == [f"stop of m00: access_denied: {CAUSE}"], "once, however often it is tried again"
