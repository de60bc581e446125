"""COMPLETE is said only of the miner that was asked for: who answers is read once more before it is recorded."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from agent.errors import AccessDenied, AgentError, Garbled, TimedOut, Unreachable
from agent.local_curtail.evidence import Verdict
from agent.local_curtail.reach import Reach
from agent.precedence import Precedence
from sitelink.clock import ManualClock
from sitelink.types import Evidence, Outcome

OFF = Verdict(Outcome.COMPLETE, Evidence.DEVICE_POWER, "power_below_idle")


@dataclass
class Answering:
    answer: str | AgentError
    asked: int = 0

    async def identity(self) -> str:
        self.asked += 1
        if isinstance(self.answer, AgentError):
            raise self.answer
        return self.answer

    async def stop(self) -> None: ...

    async def start(self) -> None: ...

    async def observe(self):
        raise AssertionError("a look tells nothing of who answers")


def reach_of(control: Answering) -> Reach:
    return Reach(lambda _name: control, 1, Precedence(ManualClock(datetime(2026, 3, 1, tzinfo=UTC))))


@pytest.mark.parametrize("name", ["02:AA:00:00:00:01", "02:aa:00:00:00:01"])
async def test_what_the_miner_itself_shows_stands(name):
    assert await reach_of(Answering("02:aa:00:00:00:01")).vouched(name, OFF) == OFF


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("02:aa:00:00:00:02", "wrong_device"),
        (Unreachable("gone"), "unreachable"),
        (TimedOut("silent"), "timeout"),
        (Garbled("nameless"), "garbled"),
        (AccessDenied("closed"), "access_denied"),
    ],
)
async def test_what_another_shows_proves_nothing(answer, reason):
    found = await reach_of(Answering(answer)).vouched("02:aa:00:00:00:01", OFF)
    assert found == Verdict(Outcome.UNVERIFIED, Evidence.NONE, reason)


@pytest.mark.parametrize("outcome", [Outcome.PARTIAL, Outcome.UNVERIFIED, Outcome.REFUSED])
async def test_what_is_not_complete_costs_no_question(outcome):
    control = Answering("02:aa:00:00:00:02")
    verdict = Verdict(outcome, Evidence.NONE, "any")
    assert await reach_of(control).vouched("02:aa:00:00:00:01", verdict) == verdict
    assert control.asked == 0


async def test_an_order_waits_behind_no_look():
    looking, going_on = asyncio.Event(), asyncio.Event()

    class Slow(Answering):
        async def observe(self):
            looking.set()
            await going_on.wait()

    control = Slow("02:aa:00:00:00:01")
    reach = reach_of(control)
    async with asyncio.TaskGroup() as group:
        group.create_task(reach.observe("m1"))
        await looking.wait()
        assert not reach.crowded
        group.create_task(reach.observe("m1"))
        await asyncio.sleep(0)
        assert reach.crowded
        async with asyncio.timeout(5):
            await reach.stop("m1")
        going_on.set()
    assert not reach.crowded
