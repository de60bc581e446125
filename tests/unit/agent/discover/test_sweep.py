"""A sweep is bounded in every direction: hosts at a time, knocks a second, time a host; and it asks nobody twice."""

import asyncio
import random
from collections import Counter

import pytest

from agent.discover.look import Pause
from agent.discover.shown import Look
from agent.discover.sweep import Manners, Progress, Sweep

pytestmark = pytest.mark.agent

FAST = Manners(at_once=4, knocks_per_s=100_000, host_s=5)


class Looks:
    """Looks at hosts as told; remembers how many at a time, when, and how often each."""

    def __init__(self, holds_s: float = 0.0, knocks: int = 1, hangs: frozenset[str] = frozenset()) -> None:
        self.holds_s, self.knocks, self.hangs = holds_s, knocks, hangs
        self.now, self.most = 0, 0
        self.times: list[float] = []
        self.asked: Counter[str] = Counter()
        self.order: list[str] = []

    async def look(self, host: str, pause: Pause) -> Look | None:
        self.now += 1
        self.most = max(self.most, self.now)
        self.asked[host] += 1
        self.order.append(host)
        try:
            for _ in range(self.knocks):
                await pause()
                self.times.append(asyncio.get_running_loop().time())
            await asyncio.sleep(1e9 if host in self.hangs else self.holds_s)
        finally:
            self.now -= 1
        return Look(host, 4028, 80, None) if host.endswith("3") else None


HOSTS = tuple(f"10.0.0.{n}" for n in range(1, 41))


async def test_every_host_is_looked_at_once_and_what_is_found_stands_in_order() -> None:
    looks, told = Looks(), list[Progress]()
    found = await Sweep(looks, FAST, random.Random(1), told.append).run(HOSTS)
    assert [each.host for each in found] == ["10.0.0.3", "10.0.0.13", "10.0.0.23", "10.0.0.33"]
    assert looks.asked == Counter(HOSTS)
    assert looks.order != list(HOSTS), "neighbours are not asked one after the other"
    assert [each.looked_at for each in told] == list(range(1, 41))
    assert told[-1] == Progress(40, 40, 0)


async def test_no_more_hosts_at_a_time_than_told() -> None:
    looks = Looks(holds_s=0.001)
    await Sweep(looks, FAST, random.Random(1)).run(HOSTS)
    assert looks.most == 4


async def test_knocks_are_spaced_and_never_come_as_a_burst() -> None:
    looks = Looks(knocks=2)
    await Sweep(looks, Manners(at_once=16, knocks_per_s=400), random.Random(1)).run(HOSTS)
    times = sorted(looks.times)
    assert times[-1] - times[0] >= 0.8 * 79 / 400
    gaps = [later - earlier for earlier, later in zip(times, times[10:], strict=False)]
    assert min(gaps) >= 10 * 0.5 / 400 * 0.9, "ten knocks never within half their time"


async def test_a_host_that_holds_on_does_not_hold_up_the_sweep() -> None:
    looks = Looks(hangs=frozenset({"10.0.0.7"}))
    found = await Sweep(looks, Manners(4, 100_000, 0.7, host_s=0.05), random.Random(1)).run(HOSTS)
    assert [each.notes for each in found if each.host == "10.0.0.7"] == [
        ("10.0.0.7: had not told who it is after 0.05 s; look at it alone",)
    ]
    assert len(found) == 5


async def test_a_bug_at_one_host_costs_one_look() -> None:
    class Breaks(Looks):
        async def look(self, host: str, pause: Pause) -> Look | None:
            if host == "10.0.0.7":
                raise ZeroDivisionError("a bug")
            return await super().look(host, pause)

    found = await Sweep(Breaks(), FAST, random.Random(1)).run(HOSTS)
    assert [each.host for each in found] == ["10.0.0.3", "10.0.0.7", "10.0.0.13", "10.0.0.23", "10.0.0.33"]
    assert "could not be looked at: ZeroDivisionError('a bug'); report it" in found[1].notes[0]


async def test_an_interrupted_sweep_leaves_nobody_looking() -> None:
    looks = Looks(hangs=frozenset(HOSTS))
    task = asyncio.create_task(Sweep(looks, FAST, random.Random(1)).run(HOSTS))
    while looks.now < 4:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert looks.now == 0


async def test_no_hosts_is_no_sweep() -> None:
    assert await Sweep(Looks(), FAST, random.Random(1)).run(()) == ()


def test_the_estimate_is_the_longest_of_patience_and_pace() -> None:
    assert Manners(64, 200, 0.7).longest_s(1022) == pytest.approx(16 * 2 * 0.7)
    assert Manners(64, 20, 0.7).longest_s(1022) == pytest.approx(2 * 1022 / 20)
