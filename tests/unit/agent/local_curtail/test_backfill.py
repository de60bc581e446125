"""The journal travels once each, in order, whatever ends in between; a broken part of it is told and passed over."""

import asyncio
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from agent.buffer import Buffer
from agent.buffer import schema as buffer_schema
from agent.local_curtail import backfill as module
from agent.local_curtail.backfill import Backfill
from agent.local_curtail.chain import KEEP, TRIGGERS, Chain, Kind, Note, check, entries, head_of
from agent.local_curtail.schema import schema
from agent.storage import StorageFull
from sitelink import codec
from sitelink.clock import ManualClock
from sitelink.types import BatchKind, ClockTrust, Cursor, JournalEntry
from tests.unit.agent.storage_fakes import Crash, CrashPoint, InlineWriter

pytestmark = pytest.mark.agent

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Time:
    trust = ClockTrust.HELD

    def now(self) -> tuple[datetime, ClockTrust]:
        return NOON, self.trust


class Rig:
    def __init__(self) -> None:
        self.writer = InlineWriter()
        self.file = self.writer.connection
        buffer_schema(self.file)
        schema(self.file)
        self.made = 0
        self.chain = Chain(self.new_id)
        self.buffer = Buffer(self.writer, ManualClock(NOON), "pecos-1", self.new_id)
        self.time = Time()
        self.backfill = Backfill(self.writer, self.buffer, self.chain, self.time)

    def new_id(self) -> str:
        self.made += 1
        return f"id-{self.made}"

    def note(self, count: int, at: datetime = NOON) -> None:
        self.chain.append(self.file, [Note(at, ClockTrust.HELD, Kind.SENT, "m1", f"{n}") for n in range(count)])

    async def carried(self) -> list[JournalEntry]:
        batches = await self.buffer.take(10**9)
        assert {batch.kind for batch in batches} <= {BatchKind.CONTROL}
        return [entry for batch in batches for entry in codec.unpack(batch.payload).journal]


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_each_entry_travels_once_in_order(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 3)
    assert await rig.backfill.round() == 0
    rig.note(4)
    assert [await rig.backfill.round() for _ in range(3)] == [3, 2, 0]
    rig.note(1)
    assert await rig.backfill.round() == 1
    assert await rig.carried() == entries(rig.file, 0, 99)


@pytest.mark.parametrize("point", [CrashPoint.BEFORE_COMMIT, CrashPoint.AFTER_COMMIT])
async def test_a_kill_neither_skips_nor_doubles(rig: Rig, point: CrashPoint) -> None:
    rig.note(2)
    rig.writer.crash_at = point
    with pytest.raises(Crash):
        await rig.backfill.round()
    await Backfill(rig.writer, rig.buffer, rig.chain, rig.time).round()
    assert await rig.carried() == entries(rig.file, 0, 99)


async def test_only_what_was_receipted_is_pruned(rig: Rig) -> None:
    rig.note(3, NOON - KEEP - timedelta(days=1))
    await rig.backfill.round()
    await rig.backfill.round()
    assert check(rig.file).entries == 4, "no receipt yet"
    status = await rig.buffer.status()
    await rig.buffer.settle_through(Cursor("pecos-1", status.epoch, status.next_seq - 1))
    rig.time.trust = ClockTrust.UNTRUSTED
    await rig.backfill.round()
    assert check(rig.file).entries == 4, "nobody vouches for the date"
    rig.time.trust = ClockTrust.HELD
    await rig.backfill.round()
    assert (check(rig.file).entries, check(rig.file).faults) == (1, ())


async def test_a_restored_disk_goes_on_under_a_new_name(rig: Rig) -> None:
    rig.note(1)
    await rig.backfill.round()
    status = await rig.buffer.status()
    await rig.buffer.settle_through(Cursor("pecos-1", status.epoch, 500))
    rig.note(1)
    await rig.backfill.round()
    rig.note(1)
    await rig.backfill.round()
    found = entries(rig.file, 3, 99)
    assert [entry.kind for entry in found] == ["chain_began", "sent"]
    assert "this disk was restored or replaced" in found[0].detail
    assert check(rig.file).faults == ()
    assert (await rig.carried())[-2:] == found


def forge(file: sqlite3.Connection, statement: str) -> None:
    file.execute("DROP TRIGGER curtail_chain_kept")
    file.execute(statement)
    for trigger in TRIGGERS:
        file.execute(trigger)


async def running(rig: Rig, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await rig.backfill.run()


async def test_the_whole_chain_is_looked_at_after_a_start(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOKED_AT", 3)
    monkeypatch.setattr(module, "_BETWEEN_LOOKS_S", 0.0)
    rig.note(10)
    await running(rig, 0.2)
    assert check(rig.file).chains == 1
    forge(rig.file, "UPDATE curtail_chain SET detail = 'x' WHERE seq = 5")
    await running(rig, 0.2)
    assert check(rig.file).chains == 2
    assert "entry 5 is not what its hash was made of" in entries(rig.file, 11, 1)[0].detail
    await running(rig, 0.2)
    assert check(rig.file).chains == 2, "named once"


async def test_what_no_link_can_carry_stays_and_holds_up_nothing(rig: Rig) -> None:
    rig.note(3)
    forge(rig.file, "UPDATE curtail_chain SET detail = x'ff' WHERE seq = 2")
    assert await rig.backfill.round() == 4
    assert [entry.seq for entry in await rig.carried()] == [1, 3, 4]


async def test_a_full_disk_is_waited_for(rig: Rig) -> None:
    rig.note(1)
    run, left = rig.writer.run, [2]

    async def full(work: object) -> object:
        if left[0]:
            left[0] -= 1
            raise StorageFull("full")
        return await run(work)

    rig.writer.run = full
    monkey = pytest.MonkeyPatch()
    monkey.setattr(module, "_EVERY_S", 0.01)
    await running(rig, 0.3)
    monkey.undo()
    rig.writer.run = run
    assert head_of(rig.file).carried_seq == 2
