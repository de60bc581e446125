"""Every due poll ends in one reading, whatever the device does."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cgminer.observation import Observation
from agent.errors import AccessDenied, Garbled, SessionBusy, TimedOut, TooLarge, Unreachable, UnsupportedDevice
from agent.meter_poller import MeterPoller
from agent.poller import Poller
from agent.precedence import LONGEST_S, Precedence
from agent.rota import Rota
from sitelink.clock import ManualClock, SystemClock
from sitelink.types import MeterSample, MinerState, Reading, Reason
from sitelink.units import TeraHashPerSecond, Watts

pytestmark = pytest.mark.agent

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
MAC = "02:00:00:00:00:01"


def observed(mac: str | None = MAC) -> Observation:
    return Observation("luxos", MinerState.HASHING, Reason.NONE, mac=mac, hashrate_ths=TeraHashPerSecond(100.0))


class FakeMiner:
    def __init__(self) -> None:
        self.answer: Callable[[], Observation] = observed
        self.name = MAC
        self.observed = 0
        self.identified = 0
        self.gate: asyncio.Event | None = None

    async def observe(self) -> Observation:
        self.observed += 1
        if self.gate is not None:
            await self.gate.wait()
        return self.answer()

    async def identity(self) -> str:
        self.identified += 1
        return self.name


def failing(error: Exception) -> Callable[[], Observation]:
    def fail() -> Observation:
        raise error

    return fail


def make(miner: FakeMiner, clock: ManualClock | None = None, **changes: float) -> tuple[Poller, list[Reading]]:
    readings: list[Reading] = []
    clock = clock or ManualClock(NOON)
    limits = {"interval_s": 60.0, "concurrency": 4, "deadline_s": 5.0, **changes}
    order = Precedence(clock)
    return Poller({MAC: miner}, clock, random.Random(1), readings.append, precedence=order, **limits), readings


async def test_a_reading_carries_what_the_miner_said() -> None:
    miner = FakeMiner()
    poller, readings = make(miner)
    assert await poller.poll(MAC) == readings[0] == poller.latest[MAC]
    assert (readings[0].state, readings[0].hashrate_ths, readings[0].read_at) == (MinerState.HASHING, 100.0, NOON)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unreachable("off"), Reason.UNREACHABLE),
        (TimedOut("slow"), Reason.TIMEOUT),
        (SessionBusy("busy"), Reason.SESSION_BUSY),
        (Garbled("noise"), Reason.GARBLED),
        (AccessDenied("no"), Reason.ACCESS_DENIED),
        (ZeroDivisionError("a bug of ours"), Reason.GARBLED),
    ],
)
async def test_a_failure_is_unknown_with_its_reason_never_zero(error: Exception, reason: Reason) -> None:
    miner = FakeMiner()
    miner.answer = failing(error)
    poller, readings = make(miner)
    await poller.poll(MAC)
    assert readings == [Reading(MAC, NOON, MinerState.UNKNOWN, reason)]


async def test_a_device_that_never_answers_costs_its_deadline() -> None:
    miner = FakeMiner()
    miner.gate = asyncio.Event()
    poller, readings = make(miner, deadline_s=0.01)
    await poller.poll(MAC)
    assert readings[0].reason is Reason.TIMEOUT


async def test_another_device_at_the_address_is_never_booked_as_this_miner() -> None:
    miner = FakeMiner()
    miner.answer = lambda: observed("02:00:00:00:00:99")
    poller, readings = make(miner)
    await poller.poll(MAC)
    assert readings == [Reading(MAC, NOON, MinerState.UNKNOWN, Reason.WRONG_DEVICE)]
    miner.answer = observed
    await poller.poll(MAC)
    assert readings[1].state is MinerState.HASHING


async def test_a_miner_that_does_not_name_itself_is_asked_at_first_hourly_and_after_silence() -> None:
    miner, clock = FakeMiner(), ManualClock(NOON)
    miner.answer = lambda: observed(None)
    poller, readings = make(miner, clock)
    for _ in range(3):
        await poller.poll(MAC)
    assert miner.identified == 1
    clock.advance(3601)
    await poller.poll(MAC)
    assert miner.identified == 2
    miner.answer = failing(Unreachable("off"))
    await poller.poll(MAC)
    miner.answer = lambda: observed(None)
    miner.name = "02:00:00:00:00:99"
    await poller.poll(MAC)
    assert miner.identified == 3
    assert readings[-1].reason is Reason.WRONG_DEVICE


def up(uptime_s: int | None, mac: str | None = MAC) -> Callable[[], Observation]:
    return lambda: replace(observed(mac), uptime_s=uptime_s)


@pytest.mark.parametrize("mac", [MAC, None], ids=["by what it told within the hour", "by no name"])
async def test_who_takes_its_address_without_a_silence_is_known_by_its_uptime(mac: str | None) -> None:
    """Two live miners changed places between two polls, and each was booked as the other for up to an hour."""
    miner, clock = FakeMiner(), ManualClock(NOON)
    miner.answer = up(1000, mac)
    poller, readings = make(miner, clock)
    await poller.poll(MAC)
    asked = miner.identified
    for uptime_s in (1060, 1123, None, 1240):  # a little late, a little early, once not told
        clock.advance(60)
        miner.answer = up(uptime_s, mac)
        await poller.poll(MAC)
    assert miner.identified == asked
    assert {reading.state for reading in readings} == {MinerState.HASHING}
    miner.answer, miner.name = up(70_000, mac), "02:00:00:00:00:99"
    for _ in range(3):  # what the device was told of itself within the hour still names the other
        clock.advance(60)
        await poller.poll(MAC)
    assert [reading.reason for reading in readings[-3:]] == [Reason.WRONG_DEVICE] * 3
    assert {reading.power_w for reading in readings[-3:]} == {None}
    miner.answer, miner.name = up(20, mac), MAC  # it is back, by way of a restart
    clock.advance(60)
    assert (await poller.poll(MAC)).state is MinerState.HASHING


async def test_a_restart_is_asked_about_once() -> None:
    miner, clock = FakeMiner(), ManualClock(NOON)
    poller, readings = make(miner, clock)
    for uptime_s in (5000, 30, 90):
        miner.answer = up(uptime_s)
        await poller.poll(MAC)
        clock.advance(60)
    assert miner.identified == 1
    assert {reading.state for reading in readings} == {MinerState.HASHING}


@pytest.mark.parametrize("error", [Garbled("names neither"), AccessDenied("closed")])
async def test_a_named_miner_is_not_taken_for_who_tells_no_name_after_a_restart(error: Exception) -> None:
    miner, clock = FakeMiner(), ManualClock(NOON)
    miner.answer = up(5000)
    poller, readings = make(miner, clock)
    await poller.poll(MAC)

    async def nameless() -> str:
        raise error

    miner.identity = nameless  # type: ignore[method-assign]
    for mac in (MAC, None):
        miner.answer = up(30, mac)
        await poller.poll(MAC)
    assert [reading.state for reading in readings] == [MinerState.HASHING, *[MinerState.UNKNOWN] * 2]


async def test_a_miner_without_a_name_is_not_asked_for_it_at_every_poll() -> None:
    miner = FakeMiner()
    miner.answer = lambda: observed(None)
    asked = 0

    async def nameless() -> str:
        nonlocal asked
        asked += 1
        raise Garbled("names neither MAC nor serial")

    miner.identity = nameless  # type: ignore[method-assign]
    poller, readings = make(miner)
    for _ in range(3):
        await poller.poll(MAC)
    assert asked == 1
    assert {reading.state for reading in readings} == {MinerState.HASHING}


def hiding() -> Callable[[], Awaitable[str]]:
    async def hidden() -> str:
        raise AccessDenied("names neither MAC nor serial; the rest is closed to us: give its group credentials")

    return hidden


async def test_a_device_that_hides_its_name_is_not_booked_as_this_miner() -> None:
    miner = FakeMiner()
    miner.answer = lambda: observed(None)
    miner.identity = hiding()  # type: ignore[method-assign]
    poller, readings = make(miner)
    await poller.poll(MAC)
    assert readings == [Reading(MAC, NOON, MinerState.UNKNOWN, Reason.ACCESS_DENIED)]


async def test_a_miner_that_named_itself_before_stays_itself_until_its_next_silence() -> None:
    miner, clock = FakeMiner(), ManualClock(NOON)
    miner.answer = lambda: observed(None)
    poller, readings = make(miner, clock)
    await poller.poll(MAC)
    miner.identity = hiding()  # type: ignore[method-assign]
    clock.advance(3601)
    await poller.poll(MAC)
    assert {reading.state for reading in readings} == {MinerState.HASHING}
    miner.answer = failing(Unreachable("off"))
    await poller.poll(MAC)
    miner.answer = lambda: observed(None)
    await poller.poll(MAC)
    assert readings[-1].reason is Reason.ACCESS_DENIED


@pytest.mark.parametrize("error", [TooLarge("too much"), UnsupportedDevice("no such command")])
async def test_an_odd_answer_to_who_it_is_names_nobody(error: Exception) -> None:
    miner = FakeMiner()
    miner.answer = lambda: observed(None)

    async def odd() -> str:
        raise error

    miner.identity = odd  # type: ignore[method-assign]
    poller, readings = make(miner)
    await poller.poll(MAC)
    assert readings[0].reason is Reason.GARBLED


async def test_a_silence_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    miner = FakeMiner()
    miner.answer = failing(Unreachable("off"))
    poller, _ = make(miner)
    for _ in range(3):
        await poller.poll(MAC)
    miner.answer = observed
    for _ in range(3):
        await poller.poll(MAC)
    silence, return_ = (record.message for record in caplog.records)
    assert "off" in silence
    assert "answers again" in return_


async def test_all_miners_are_polled_again_and_again_within_the_bound() -> None:
    most = now = 0

    class Counting(FakeMiner):
        async def observe(self) -> Observation:
            nonlocal most, now
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1
            self.observed += 1
            return Observation("luxos", MinerState.IDLE)

    miners = {f"m{n}": Counting() for n in range(40)}
    for name, miner in miners.items():
        miner.name = name
    readings: list[Reading] = []
    poller = Poller(
        miners,
        SystemClock(),
        random.Random(1),
        readings.append,
        interval_s=0.02,
        concurrency=3,
        deadline_s=5,
        precedence=Precedence(SystemClock()),
    )
    task = asyncio.create_task(poller.run())
    async with asyncio.timeout(20):
        while min(miner.observed for miner in miners.values()) < 3:
            await asyncio.sleep(0.005)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert most <= 3
    assert set(poller.latest) == set(miners)


async def test_a_dead_miner_is_asked_less_often_but_goes_on() -> None:
    dead, alive = FakeMiner(), FakeMiner()
    dead.answer = failing(Unreachable("off"))
    alive.answer = lambda: observed(None)
    alive.name = "alive"
    poller = Poller(
        {"dead": dead, "alive": alive},
        SystemClock(),
        random.Random(1),
        lambda reading: None,
        interval_s=0.01,
        concurrency=2,
        deadline_s=5,
        precedence=Precedence(SystemClock()),
    )
    task = asyncio.create_task(poller.run())
    async with asyncio.timeout(20):
        while dead.observed < 8:
            await asyncio.sleep(0.005)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert alive.observed > dead.observed


async def test_polling_stands_back_while_an_order_is_sent() -> None:
    miner, clock = FakeMiner(), SystemClock()
    order = Precedence(clock)
    poller = Poller(
        {MAC: miner},
        clock,
        random.Random(1),
        lambda _: None,
        interval_s=0.01,
        concurrency=1,
        deadline_s=5,
        precedence=order,
    )
    with order.order():
        task = asyncio.create_task(poller.run())
        await asyncio.sleep(0.1)
        assert miner.observed == 0
    async with asyncio.timeout(5):
        while miner.observed < 2:
            await asyncio.sleep(0.005)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_curtailment_without_end_leaves_no_site_unread() -> None:
    clock = ManualClock(NOON)
    order = Precedence(clock)
    with order.order():
        clock.advance(LONGEST_S / 2)
        with order.order():  # the same burst goes on
            clock.advance(LONGEST_S / 2)
            async with asyncio.timeout(1):
                await order.give_way()


async def test_a_new_burst_after_a_pause_goes_first_again() -> None:
    clock = ManualClock(NOON)
    order = Precedence(clock)
    with order.order():
        clock.advance(LONGEST_S)
    clock.advance(2)
    with order.order():
        waiting = asyncio.create_task(order.give_way())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
    async with asyncio.timeout(1):
        await waiting


@given(st.sets(st.text(min_size=1), min_size=1, max_size=20), st.floats(0, 1e6), st.integers(0, 9))
def test_each_interval_holds_one_due_time_of_each_name(names: set[str], start: float, seed: int) -> None:
    rota = Rota(names, 60.0, random.Random(seed), start)
    seen: dict[str, list[int]] = {name: [] for name in names}
    for _ in range(4 * len(names)):
        due = rota.due()
        name = rota.pop()
        seen[name].append(int((due - start) // 60.0))
        rota.put_back(name, due)
    assert all(slots == [0, 1, 2, 3] for slots in seen.values())


@given(st.sets(st.text(min_size=1), min_size=1, max_size=20), st.floats(0, 1e6), st.integers(0, 9))
def test_each_name_comes_once_an_interval(names: set[str], start: float, seed: int) -> None:
    rota = Rota(names, 60.0, random.Random(seed), start)
    seen: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(4 * len(names)):
        due = rota.due()
        name = rota.pop()
        seen[name].append(due)
        rota.put_back(name, due)
    for times in seen.values():
        assert start <= times[0] <= start + 60
        assert all(57.6 <= later - earlier <= 62.4 for earlier, later in pairwise(times))


@given(st.integers(1, 5), st.floats(0, 500))
def test_missed_slots_are_skipped_and_failing_ones_wait(slots: int, late_s: float) -> None:
    rota = Rota(["m"], 60.0, random.Random(0), 0.0)
    first = rota.due()
    name = rota.pop()
    rota.put_back(name, first + late_s, slots)
    assert first + late_s + (slots - 1) * 60 - 2.5 <= rota.due() <= first + late_s + slots * 60 + 1.3


def test_names_are_spread_over_the_interval() -> None:
    rota = Rota([f"02:00:00:00:{n // 256:02x}:{n % 256:02x}" for n in range(1000)], 60.0, random.Random(0), 0.0)
    tenths = [0] * 10
    for _ in range(1000):
        tenths[int(rota.due() // 6)] += 1
        rota.pop()
    assert max(tenths) < 150
    assert rota.due() == float("inf")
    assert len(rota) == 0


class FakeMeter:
    def __init__(self, meter_id: str, power_w: float | None) -> None:
        self.meter_id = meter_id
        self.power_w = power_w
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self) -> MeterSample:
        await self.gate.wait()
        return MeterSample(self.meter_id, NOON, None if self.power_w is None else Watts(self.power_w))


async def test_a_silent_meter_delays_no_other_and_is_reported_without_power() -> None:
    meters = {"site": FakeMeter("site", 1e6), "silent": FakeMeter("silent", None), "stuck": FakeMeter("stuck", 5.0)}
    meters["stuck"].gate.clear()
    samples: list[MeterSample] = []
    poller = MeterPoller(meters, SystemClock(), random.Random(0), samples.append, interval_s=0.01)
    task = asyncio.create_task(poller.run())
    async with asyncio.timeout(20):
        while len(samples) < 10:
            await asyncio.sleep(0.005)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert {sample.meter_id for sample in samples} == {"site", "silent"}
    assert poller.latest["silent"].power_w is None
    assert poller.latest["site"].power_w == 1e6
