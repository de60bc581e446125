"""COMPLETE is said only of the miner that was asked for: who answers is read once more before it is recorded."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from agent.cgminer.dialects import table_of
from agent.cgminer.look import Look
from agent.cgminer.observation import Observation
from agent.errors import AccessDenied, AgentError, Garbled, TimedOut, Unreachable
from agent.local_curtail.evidence import Verdict
from agent.local_curtail.reach import Reach
from agent.precedence import Precedence
from sitelink.clock import ManualClock
from sitelink.types import Evidence, MinerState, Outcome
from sitelink.units import Watts

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


class Hanging(Answering):
    def __init__(self) -> None:
        super().__init__("02:aa:00:00:00:01")
        self.under_way, self.going_on = asyncio.Event(), asyncio.Event()
        self.told: list[str] = []

    async def observe(self):
        self.under_way.set()
        await self.going_on.wait()

    async def stop(self) -> None:
        self.told.append("stop")
        self.under_way.set()
        await self.going_on.wait()

    async def start(self) -> None:
        self.told.append("start")


async def test_a_stop_waits_behind_no_look_and_a_start_behind_no_stop():
    control = Hanging()
    reach = reach_of(control)
    async with asyncio.TaskGroup() as group:
        group.create_task(reach.observe("m1"))
        await control.under_way.wait()
        control.under_way.clear()
        group.create_task(reach.stop("m1", lambda: True))
        async with asyncio.timeout(5):
            await control.under_way.wait()
            await reach.start("m1")
        control.going_on.set()
    assert control.told == ["stop", "start"]


async def test_a_stop_that_waited_beyond_its_order_is_not_sent():
    control, wanted = Hanging(), [True]
    reach = reach_of(control)
    async with asyncio.TaskGroup() as group:
        group.create_task(reach.stop("m1", lambda: True))
        await control.under_way.wait()
        waits = group.create_task(reach.stop("m2", lambda: wanted[0]))
        await asyncio.sleep(0)
        wanted[0] = False
        control.going_on.set()
    assert waits.result() is False
    assert control.told == ["stop"]


class Glancing(Answering):
    def __init__(self) -> None:
        super().__init__("")
        self.idle_w: list[Watts] = []

    async def glance(self, idle_w):
        self.idle_w.append(idle_w)
        return Observation("luxos", state=MinerState.IDLE)


async def test_a_look_is_a_glance_where_the_device_can_and_says_what_counts_as_idle():
    control = Glancing()
    seen = await reach_of(control).look("02:aa:00:00:00:01", Watts(450))
    assert control.idle_w == [450.0]
    assert seen.state is MinerState.IDLE


@pytest.mark.parametrize(
    ("state", "power_w", "runs"),
    [
        (MinerState.HASHING, 3000.0, True),
        (MinerState.HASHING, None, True),
        (MinerState.HASHING, 60.0, True),
        (MinerState.IDLE, 900.0, True),
        (MinerState.IDLE, 450.0, False),
        (MinerState.IDLE, 60.0, False),
        (MinerState.IDLE, None, False),
        (MinerState.UNKNOWN, None, False),
    ],
)
def test_only_what_draws_no_more_than_idle_is_asked_why(state, power_w, runs):
    seen = Observation("luxos", state=state, power_w=power_w)
    assert Look(table_of("luxos"), 0.0, True, Watts(450)).runs(seen) is runs


class Watched(Hanging):
    def __init__(self, shown: Observation | AgentError) -> None:
        super().__init__()
        self.shown, self.looks = shown, 0

    async def observe(self):
        self.looks += 1
        await super().observe()
        if isinstance(self.shown, AgentError) and self.looks == 1:
            raise self.shown
        return Observation("luxos", state=MinerState.HASHING)


async def look_beside(control: Watched, break_off: bool = False) -> object:
    """Return what a look along with another shows, that one failing or broken off."""
    reach = reach_of(control)
    own = asyncio.ensure_future(reach.look("m1", Watts(450)))
    await control.under_way.wait()
    along = asyncio.ensure_future(reach.look_along("m1", Watts(0)))
    await asyncio.sleep(0)
    if break_off:
        own.cancel()
    control.going_on.set()
    await asyncio.gather(own, return_exceptions=True)
    async with asyncio.timeout(5):
        return await along


async def test_who_looks_along_waits_for_the_look_under_way_and_asks_nothing():
    control = Watched(Observation("luxos"))
    assert (await look_beside(control)).state is MinerState.HASHING
    assert control.looks == 1
    assert (await reach_of(control).look_along("m1", Watts(0))).state is MinerState.HASHING
    assert control.looks == 2


async def test_who_looks_along_hears_of_its_failure_and_waits_for_no_second_one():
    control = Watched(Unreachable("gone"))
    with pytest.raises(Unreachable):
        await look_beside(control)
    assert control.looks == 1


async def test_who_looks_along_looks_for_himself_where_the_other_look_is_broken_off():
    control = Watched(Observation("luxos"))
    assert (await look_beside(control, break_off=True)).state is MinerState.HASHING
    assert control.looks == 2


async def test_who_breaks_off_looking_along_leaves_the_others_look_alone():
    control = Watched(Observation("luxos"))
    reach = reach_of(control)
    own = asyncio.ensure_future(reach.look("m1", Watts(450)))
    await control.under_way.wait()
    along = asyncio.ensure_future(reach.look_along("m1", Watts(0)))
    await asyncio.sleep(0)
    along.cancel()
    await asyncio.wait([along])
    control.going_on.set()
    assert (await own).state is MinerState.HASHING
