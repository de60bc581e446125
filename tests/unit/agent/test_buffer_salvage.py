"""What waited in a file that broke is taken over as far as it can be read; the rest is told."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from agent.buffer import Buffer, schema
from agent.buffer.salvage import Salvage
from agent.storage import ThreadWriter, connect
from sitelink import codec
from sitelink.clock import ManualClock
from sitelink.types import Batch, BatchBody, BatchKind, MinerState, Notice, NoticeCode, Reading, Receipt
from sitelink.units import TeraHashPerSecond
from tests.unit.agent.storage_fakes import Crash, CrashPoint, InlineWriter

pytestmark = pytest.mark.agent

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SITE = "pecos-1"
NUMBERS = count()


def new_id() -> str:
    return f"id{next(NUMBERS)}"


def body(number: int) -> BatchBody:
    noise = (TeraHashPerSecond(float((number * 100 + place) * 7919 % 65521)) for place in range(300))
    readings = (Reading(f"m{place}", NOON, MinerState.HASHING, hashrate_ths=one) for place, one in enumerate(noise))
    return BatchBody(readings=tuple(readings))


async def broken_file(path: Path, batches: int) -> list[Batch]:
    """Write a buffer of which the first batch is settled, and return what waits in it."""
    writer = ThreadWriter(path)
    await writer.run(schema)
    buffer = Buffer(writer, ManualClock(NOON), SITE, new_id)
    sealed = [await buffer.append(body(number)) for number in range(batches)]
    sealed.append(await buffer.append(BatchBody(notices=(Notice("n", NOON, NoticeCode.AGENT_STARTED, SITE, ""),))))
    first = sealed[0]
    await buffer.settle(Receipt(SITE, first.epoch, 0, first.last_seq, first.last_seq))
    writer.close()
    connection = connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return sealed[1:]


async def taken_over(salvage: Salvage) -> None:
    task = asyncio.create_task(salvage.run())
    async with asyncio.timeout(30):
        while not task.done() and await salvage._writer.run(_is_under_way):
            await asyncio.sleep(0.01)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _is_under_way(connection) -> bool:  # type: ignore[no-untyped-def]
    return bool(connection.execute("SELECT count(*) FROM buffer_salvage").fetchone()[0])


def fresh(writer: InlineWriter) -> Buffer:
    writer.run_now(schema)
    return Buffer(writer, ManualClock(NOON), SITE, new_id)


async def said(buffer: Buffer) -> list[str]:
    bodies = [codec.unpack(batch.payload) for batch in await buffer.take(10**9) if batch.kind is BatchKind.CONTROL]
    return [notice.detail for one in bodies for notice in one.notices if notice.code is NoticeCode.DATA_BROKEN]


async def test_what_waits_is_taken_over_under_its_own_numbers_before_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "agent.db.broken-1"
    waiting = await broken_file(path, 40)
    buffer = fresh(InlineWriter())
    salvage = buffer.salvage(tmp_path)
    await salvage.begin(path)
    new = await buffer.append(body(99))
    await taken_over(salvage)
    found = await buffer.take(10**9)
    assert {batch.epoch for batch in waiting}.isdisjoint({new.epoch})
    assert [batch for batch in found if batch.epoch != new.epoch] == [waiting[-1], *waiting[:-1]]
    assert await said(buffer) == ["40 batches were taken over from agent.db.broken-1; the file stays where it is"]
    assert path.exists()


async def test_a_broken_page_costs_what_stands_on_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.db.broken-1"
    waiting = await broken_file(path, 120)
    content = bytearray(path.read_bytes())
    pages = len(content) // 4096
    for page in (pages // 2, pages // 2 + 1, pages - 9):
        content[page * 4096 : (page + 1) * 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    buffer = fresh(InlineWriter())
    salvage = buffer.salvage(tmp_path)
    await salvage.begin(path)
    await taken_over(salvage)
    found = {batch.first_seq: batch for batch in await buffer.take(10**9)}
    saved = [batch for batch in waiting if found.get(batch.first_seq) == batch]
    assert 80 <= len(saved) < len(waiting)
    (detail,) = await said(buffer)
    assert "it could not be read" in detail


async def test_a_file_of_which_nothing_can_be_read_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "agent.db.broken-1"
    path.write_bytes(b"this is no database" * 1000)
    buffer = fresh(InlineWriter())
    salvage = buffer.salvage(tmp_path)
    await salvage.begin(path)
    assert (await buffer.append(body(1))).first_seq == 0
    await taken_over(salvage)
    assert len(await buffer.take(10**9)) == 1


@pytest.mark.parametrize("point", [CrashPoint.BEFORE_COMMIT, CrashPoint.AFTER_COMMIT])
async def test_a_process_killed_at_any_step_is_gone_on_from(tmp_path: Path, point: CrashPoint) -> None:
    path = tmp_path / "agent.db.broken-1"
    waiting = await broken_file(path, 40)
    writer = InlineWriter()
    await fresh(writer).salvage(tmp_path).begin(path)
    for spared in (0, 1, 1):
        writer.spared, writer.crash_at = spared, point
        salvage = fresh_again(writer).salvage(tmp_path)
        with suppress(Crash):
            while await writer.run(salvage._step):
                pass
    writer.spared, writer.crash_at = 0, CrashPoint.NEVER
    buffer = fresh_again(writer)
    await taken_over(buffer.salvage(tmp_path))
    found = [batch for batch in await buffer.take(10**9) if batch.epoch == waiting[0].epoch]
    assert sorted(batch.first_seq for batch in found) == sorted(batch.first_seq for batch in waiting)
    assert len(await said(buffer)) == 1


def fresh_again(writer: InlineWriter) -> Buffer:
    return Buffer(writer, ManualClock(NOON), SITE, new_id)
