"""A part that fails starts again; being cancelled and an unknown database end it."""

import asyncio
import random

import pytest

from agent.backoff import Backoff
from agent.storage import StorageLost
from agent.supervisor import supervised

pytestmark = pytest.mark.agent


def backoff() -> Backoff:
    return Backoff(random.Random(0), 0.001, 0.002)


async def test_work_is_started_again_after_each_failure(caplog: pytest.LogCaptureFixture) -> None:
    runs = 0
    enough = asyncio.Event()

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 4:
            enough.set()
            await asyncio.Event().wait()
        if runs == 2:
            return
        raise KeyError("broken")

    task = asyncio.create_task(supervised("part", work, backoff()))
    async with asyncio.timeout(10):
        await enough.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "part: KeyError: 'broken'",
        "part: it ended by itself",
        "part: KeyError: 'broken'",
    ]


async def test_an_outage_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs > 5:
            await asyncio.Event().wait()
        raise KeyError("broken")

    task = asyncio.create_task(supervised("part", work, backoff(), steady_s=0.01))
    async with asyncio.timeout(10):
        while len(caplog.records) < 2:
            await asyncio.sleep(0.002)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert "works again" in caplog.records[1].message


async def test_work_that_was_cancelled_from_within_is_started_again() -> None:
    runs = 0
    enough = asyncio.Event()

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            enough.set()
            await asyncio.Event().wait()
        raise asyncio.CancelledError

    task = asyncio.create_task(supervised("part", work, backoff()))
    async with asyncio.timeout(10):
        await enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_failed_group_inside_does_not_make_it_look_cancelled() -> None:
    runs = 0
    enough = asyncio.Event()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("broken")

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            enough.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(asyncio.Event().wait())

    task = asyncio.create_task(supervised("part", work, backoff()))
    async with asyncio.timeout(10):
        await enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_while_being_cancelled_does_not_hide_it() -> None:
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise KeyError("the library's own idea of being cancelled") from None

    task = asyncio.create_task(supervised("part", work, backoff()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_unknown_database_passes_through() -> None:
    async def work() -> None:
        raise StorageLost("unknown")

    async with asyncio.timeout(10):
        with pytest.raises(StorageLost):
            await supervised("part", work, backoff())


def test_delays_double_up_to_their_cap_and_begin_again() -> None:
    delays = Backoff(random.Random(3), 1.0, 8.0)
    waits = [delays.failed() for _ in range(6)]
    for wait, top in zip(waits, (1, 2, 4, 8, 8, 8), strict=True):
        assert top / 2 <= wait <= top
    delays.succeeded()
    assert delays.failed() <= 1
