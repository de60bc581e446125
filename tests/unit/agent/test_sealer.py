"""Readings become batches in time, and a disk that takes nothing costs only what cannot be held."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from agent import sealer as module
from agent.buffer import Buffer, schema
from agent.errors import Transient
from agent.sealer import SEAL_ITEMS, Sealer
from sitelink import codec
from sitelink.clock import ManualClock
from sitelink.types import BatchBody, Gap, MeterSample, MinerState, Reading
from tests.unit.agent.storage_fakes import InlineWriter

pytestmark = pytest.mark.agent

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def reading(number: int) -> Reading:
    return Reading(f"m{number}", NOON, MinerState.IDLE)


class Shelf(Buffer):
    """A buffer that can be made to take nothing."""

    full = False

    async def append(self, body: BatchBody):
        await asyncio.sleep(0)
        if self.full:
            raise Transient("the disk is full")
        return await super().append(body)

    async def bodies(self) -> list[BatchBody]:
        taken = sorted(await self.take(10**9), key=lambda batch: batch.first_seq)
        return [codec.unpack(batch.payload) for batch in taken]


@pytest.fixture
def shelf() -> Shelf:
    writer = InlineWriter()
    writer.run_now(schema)
    return Shelf(writer, ManualClock(NOON), "s", lambda: "id")


def make(shelf: Shelf, seal_s: float = 0.01) -> Sealer:
    return Sealer(shelf, seal_s)


async def running(sealer: Sealer, condition: Callable[[], object]) -> None:
    task = asyncio.create_task(sealer.run())
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_items_are_sealed_soon_in_order_and_by_kind(shelf: Shelf) -> None:
    sealer = make(shelf)
    sample = MeterSample("site", NOON, None)
    for item in (reading(1), sample, reading(2)):
        sealer.add(item)
    waiting: list[int] = []
    shelf._rows._on_sealed = lambda: waiting.append(1)
    await running(sealer, lambda: waiting)
    assert await shelf.bodies() == [BatchBody(readings=(reading(1), reading(2)), meters=(sample,))]


async def test_a_full_batch_does_not_wait(shelf: Shelf) -> None:
    sealer = make(shelf, seal_s=3600)
    for number in range(SEAL_ITEMS):
        sealer.add(reading(number))
    sealed: list[int] = []
    shelf._rows._on_sealed = lambda: sealed.append(1)
    await running(sealer, lambda: sealed)
    assert [len(body) for body in await shelf.bodies()] == [SEAL_ITEMS]


async def test_many_items_become_several_batches(shelf: Shelf) -> None:
    sealer = make(shelf)
    for number in range(2 * SEAL_ITEMS + 1):
        sealer.add(reading(number))
    await sealer.flush()
    assert [len(body) for body in await shelf.bodies()] == [SEAL_ITEMS, SEAL_ITEMS, 1]


async def test_what_the_disk_does_not_take_is_held_in_order(shelf: Shelf) -> None:
    sealer = make(shelf)
    sealer.add(reading(1))
    shelf.full = True
    with pytest.raises(Transient):
        await sealer.flush()
    sealer.add(reading(2))
    shelf.full = False
    await sealer.flush()
    assert await shelf.bodies() == [BatchBody(readings=(reading(1), reading(2)))]


async def test_what_cannot_be_held_is_told(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PENDING_ITEMS", 3)
    sealer = make(shelf)
    for number in range(5):
        sealer.add(reading(number))
    await sealer.flush()
    gap = Gap(NOON, NOON + timedelta(milliseconds=1), 0, 2)
    whole = BatchBody(readings=(reading(0), reading(1), reading(2)))
    assert await shelf.bodies() == [whole, BatchBody(gaps=(gap,))]


async def test_a_gap_that_the_disk_does_not_take_either_is_not_forgotten(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PENDING_ITEMS", 1)
    sealer = make(shelf)
    for number in range(3):
        sealer.add(reading(number))
    append, fails = shelf.append, [False, True, True]

    async def at_times(body: BatchBody) -> object:
        if fails.pop(0) if fails else False:
            raise Transient("the disk is full")
        return await append(body)

    shelf.append = at_times  # type: ignore[method-assign,assignment]
    for _ in range(2):
        with pytest.raises(Transient):
            await sealer.flush()
        for number in (4, 5):
            sealer.add(Reading(f"m{number}", NOON + timedelta(hours=1), MinerState.IDLE))
        fails[:1] = [False, True]
    fails.clear()
    await sealer.flush()
    gaps = [gap for body in await shelf.bodies() for gap in body.gaps]
    assert gaps == [Gap(NOON, NOON + timedelta(hours=1, milliseconds=1), 0, 4)]


async def test_cancelling_while_storing_neither_loses_nor_doubles(shelf: Shelf) -> None:
    sealer = make(shelf, seal_s=0.0)
    held = asyncio.Event()
    handed: list[BatchBody] = []

    async def slow(body: BatchBody) -> None:
        handed.append(body)  # the writer has it from here on, whoever waits
        held.set()
        await asyncio.Event().wait()

    shelf.append = slow  # type: ignore[method-assign]
    sealer.add(reading(1))
    task = asyncio.create_task(sealer.run())
    await held.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    del shelf.append
    sealer.add(reading(2))
    await sealer.flush()
    assert handed == [BatchBody(readings=(reading(1),))]
    assert await shelf.bodies() == [BatchBody(readings=(reading(2),))]
