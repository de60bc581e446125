"""Who is given back what a restart has lost: one at a time, nobody whom an order of ours keeps off."""

import asyncio
import logging

import pytest

from agent.cgminer.control.former import settled
from agent.errors import Unreachable, WrongDevice
from agent.local_curtail import restoring
from agent.local_curtail.formers import Formers
from agent.local_curtail.records import MinerRecord
from agent.local_curtail.restoring import Restorer
from agent.local_curtail.schema import schema
from sitelink.types import Outcome, Verb
from tests.unit.agent.storage_fakes import InlineWriter

pytestmark = pytest.mark.agent


def nobody(_miner_id: str) -> bool:
    return False


class Miner:
    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def restore(self) -> bool:
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        if answer == "hangs":
            await asyncio.Event().wait()
        return bool(answer)


async def test_each_that_may_have_lost_something_is_asked_but_none_that_is_held_off() -> None:
    def only_m2(miner_id: str) -> bool:
        return miner_id == "m2"

    miners = {name: Miner() for name in ("m1", "m2", "m3")}
    restorer = Restorer(lambda: ("m1", "m2", "gone"), miners.get, only_m2)
    await restorer.round()
    assert [miner.asked for miner in miners.values()] == [1, 0, 0]


async def test_one_that_is_silent_or_hangs_holds_up_no_other_and_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "_ONE_S", 0.01)
    miners = {"m1": Miner(Unreachable("away"), WrongDevice("other")), "m2": Miner("hangs"), "m3": Miner()}
    restorer = Restorer(lambda: tuple(miners), miners.get, nobody)
    with caplog.at_level(logging.INFO):
        await restorer.round()
        await restorer.round()
    assert [miner.asked for miner in miners.values()] == [2, 2, 2]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["m1", "m2"]


async def test_a_control_that_knows_nothing_of_it_is_left_alone() -> None:
    await Restorer(lambda: ("m1",), lambda _: object(), nobody).round()


async def test_what_is_owed_outlives_the_process_until_it_is_settled() -> None:
    writer = InlineWriter()
    await writer.run(schema)
    formers = Formers(writer)
    await formers.remember("m1", '{"power_limit_w": 2800}')
    await formers.remember("m2", settled('{"mode": "low"}'))
    again = Formers(writer)
    await again.load()
    assert again.owed() == ("m1",)
    await again.remember("m1", settled(await again.recall("m1")))
    assert again.owed() == ()


@pytest.mark.parametrize(
    ("verb", "outcome", "held"),
    [
        (Verb.STOP, None, True),
        (Verb.STOP, Outcome.COMPLETE, True),
        (Verb.START, None, True),
        (Verb.START, Outcome.UNVERIFIED, True),
        (Verb.START, Outcome.COMPLETE, False),
    ],
)
def test_a_miner_is_held_off_until_its_start_was_seen_to_work(verb: Verb, outcome: Outcome | None, held: bool) -> None:
    assert MinerRecord("m1", verb, "o", 1, "plan", outcome=outcome).holds_off is held
