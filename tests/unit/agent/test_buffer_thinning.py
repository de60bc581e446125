"""A full buffer becomes thinner from its oldest end, tells what it left out, and loses no number and no ack."""

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.buffer import Buffer, left_out, schema
from agent.buffer.levels import COARSEST, KEPT_EVERY_S, Cutter
from agent.storage import StorageFull
from sitelink import codec
from sitelink.clock import ManualClock
from sitelink.types import (
    Batch,
    BatchBody,
    BatchKind,
    Gap,
    MeterSample,
    MinerState,
    Notice,
    NoticeCode,
    Reading,
    Receipt,
)
from sitelink.units import TeraHashPerSecond, Watts
from tests.unit.agent.storage_fakes import Crash, CrashPoint, InlineWriter, Result
from tests.unit.agent.uplink_fakes import same_items

pytestmark = pytest.mark.agent

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SITE = "pecos-1"
MINERS = 60
STEP = timedelta(seconds=30)


class Site:
    """A buffer, and what was put into it: every miner and one meter each 30 s."""

    def __init__(self, max_bytes: int, writer: InlineWriter | None = None) -> None:
        self.writer = writer or InlineWriter()
        self.writer.run_now(schema)
        self.clock = ManualClock(NOON)
        self.max_bytes = max_bytes
        self.numbers = count()
        self.sealed: list[Batch] = []
        self.at = NOON - STEP
        self.noise = random.Random(4)
        self.was_sent = True
        """Whether the batches have left the gateway, so that none may be joined."""
        self.open()

    def open(self) -> None:
        self.buffer = Buffer(self.writer, self.clock, SITE, lambda: f"id{next(self.numbers)}", self.max_bytes)

    def reading(self, number: int) -> Reading:
        noise = TeraHashPerSecond(float(self.noise.randrange(2**16)))
        return Reading(f"m{number}", self.at, MinerState.HASHING, hashrate_ths=noise)

    def body(self) -> BatchBody:
        self.at += STEP
        self.clock.advance(STEP.total_seconds())
        readings = tuple(self.reading(number) for number in range(MINERS))
        return BatchBody(readings=readings, meters=(MeterSample("site", self.at, Watts(self.at.timestamp())),))

    async def fill(self, batches: int) -> None:
        for _ in range(batches):
            self.sealed.append(await self.buffer.append(self.body()))
            if self.was_sent:
                self.writer.connection.execute("UPDATE buffer_batches SET sent = 1 WHERE sent = 0")

    async def waiting(self) -> list[Batch]:
        return sorted(await self.buffer.take(10**9), key=lambda batch: batch.first_seq)

    async def telemetry(self) -> list[tuple[Batch, BatchBody]]:
        found = [batch for batch in await self.waiting() if batch.kind is BatchKind.TELEMETRY]
        return [(batch, codec.unpack(batch.payload)) for batch in found]

    async def told(self) -> list[str]:
        bodies = [codec.unpack(batch.payload) for batch in await self.waiting()]
        return [n.detail for body in bodies for n in body.notices if n.code is NoticeCode.BUFFER_GAP]

    def levels(self) -> list[int]:
        query = "SELECT level FROM buffer_batches WHERE kind = 'telemetry' ORDER BY epoch_number, first_seq"
        return [row[0] for row in self.writer.connection.execute(query)]

    def size(self) -> int:
        query = "SELECT sum(length(payload) + 256) FROM buffer_batches WHERE settled_at_us IS NULL"
        return int(self.writer.connection.execute(query).fetchone()[0])

    async def check(self) -> None:
        """Every number is there once, and stands for an item or lies in a gap of its batch."""
        expected = 0
        for batch in await self.waiting():
            assert batch.first_seq == expected
            body = codec.unpack(batch.payload)
            assert len(body) == batch.count
            assert all(gap.since < gap.until for gap in body.gaps)
            expected = batch.last_seq + 1


async def test_the_oldest_is_thinned_to_one_a_minute_and_the_newest_stays_whole() -> None:
    site = Site(40_000)
    await site.fill(60)
    await site.check()
    found = await site.telemetry()
    assert len(found) == 60, "the newest is never dropped"
    assert all(not body.gaps for _, body in found[-8:])
    assert not found[0][1].gaps, "the first of its minute"
    assert found[1][1].gaps
    assert site.size() <= site.max_bytes
    untouched = [level == 0 for level in site.levels()]
    assert untouched == sorted(untouched), "from the oldest on"


async def test_what_is_kept_is_one_item_a_slot_for_every_miner_and_meter_and_the_rest_is_counted() -> None:
    site = Site(76_000)
    await site.fill(200)
    found = await site.telemetry()
    levels = site.levels()
    cut = next(place for place, level in enumerate(levels) if level < COARSEST)
    assert cut > 60, "the pass of 15 minutes has come far"
    coarse = [body for _, body in found[:cut]]
    slots: Counter[tuple[str, int]] = Counter()
    for body in coarse:
        slots.update((reading.miner_id, int(reading.read_at.timestamp()) // 900) for reading in body.readings)
        slots.update((sample.meter_id, int(sample.read_at.timestamp()) // 900) for sample in body.meters)
    assert set(slots.values()) == {1}
    assert {name for name, _ in slots} == {"site", *(f"m{number}" for number in range(MINERS))}
    gaps = [gap for _, body in found for gap in body.gaps]
    items = sum(len(body.readings) + len(body.meters) for _, body in found)
    assert items + sum(gap.items for gap in gaps) == 200 * (MINERS + 1)
    assert {gap.kept_every_s for gap in gaps} <= set(KEPT_EVERY_S)


async def test_nothing_is_given_up_while_anything_beside_the_newest_can_be_thinner() -> None:
    site = Site(60_000)
    given_up = 0
    for _ in range(250):
        await site.fill(1)
        before, given_up = given_up, left_out(site.writer.connection).given_up_items
        if given_up > before:
            assert all(level >= COARSEST for level in site.levels()[:-8]), "all is thin before anything is given up"
    assert given_up
    await site.check()
    bodies = [body for _, body in await site.telemetry()]
    assert bodies[0].gaps[0] == Gap(NOON, NOON + timedelta(milliseconds=1), 0, MINERS + 1)
    assert not bodies[-1].gaps


async def test_control_data_are_never_touched() -> None:
    site = Site(60_000)
    notices = []
    for number in range(150):
        await site.fill(1)
        notice = Notice(f"n{number}", NOON, NoticeCode.AGENT_STARTED, SITE, "x" * 50)
        notices.append(notice)
        await site.buffer.append(BatchBody(notices=(notice,)))
    bodies = [codec.unpack(batch.payload) for batch in await site.waiting() if batch.kind is BatchKind.CONTROL]
    kept = [notice for body in bodies for notice in body.notices if notice.code is NoticeCode.AGENT_STARTED]
    assert kept == notices
    await site.check()


async def test_each_pass_is_told_once_and_so_is_the_end() -> None:
    site = Site(40_000)
    await site.fill(300)
    told = await site.told()
    assert [words.rpartition("; ")[2] for words in told] == [
        "the oldest of it is thinned to one item in 60 s",
        "the oldest of it is thinned to one item in 300 s",
        "the oldest of it is thinned to one item in 900 s",
        "the oldest of it is given up",
    ]
    last = site.sealed[-1]
    await site.buffer.settle(Receipt(SITE, last.epoch, last.first_seq, last.last_seq, last.last_seq))
    await site.fill(1)
    assert "telemetry is kept whole again" in (await site.told())[-1]


async def test_a_receipt_for_what_was_sent_whole_settles_what_is_thin_meanwhile() -> None:
    site = Site(40_000)
    await site.fill(3)
    sent = (await site.waiting())[1]
    await site.fill(60)
    (thin,) = [batch for batch in await site.waiting() if batch.first_seq == sent.first_seq]
    assert thin != sent
    assert same_items(sent, thin)
    await site.buffer.settle(Receipt(SITE, sent.epoch, sent.first_seq, sent.last_seq, -1))
    assert [batch.first_seq for batch in (await site.waiting())[:2]] == [0, sent.last_seq + 1]


async def test_settled_batches_go_before_anything_is_thinned() -> None:
    site = Site(100_000)
    await site.fill(60)
    last = site.sealed[-1]
    await site.buffer.settle(Receipt(SITE, last.epoch, last.first_seq, last.last_seq, last.last_seq))
    await site.fill(30)
    assert not any(body.gaps for _, body in await site.telemetry())


async def test_a_clock_stepped_by_an_hour_either_way_reorders_and_loses_nothing() -> None:
    site = Site(100_000)
    for step in (0, 1, -1, -1, 1):
        site.at += timedelta(hours=step)
        site.clock.step(3600.0 * step)
        await site.fill(40)
    await site.check()
    seen = [reading.read_at for _, body in await site.telemetry() for reading in body.readings[:1]]
    assert any(later < earlier for earlier, later in pairwise(seen)), "in the order they came"


async def test_what_was_left_out_can_be_read_beside_the_daemon() -> None:
    site = Site(40_000)
    assert left_out(site.writer.connection).every_s == 0
    await site.fill(60)
    assert left_out(site.writer.connection).every_s in (60, 300)
    await site.fill(240)
    found = left_out(site.writer.connection)
    gone = sum(gap.items for _, body in await site.telemetry() for gap in body.gaps)
    assert found.thinned_items + found.given_up_items == gone
    assert found.every_s is None


async def test_a_broken_batch_is_set_aside_told_and_the_rest_goes_on() -> None:
    site = Site(10**9)
    await site.fill(3)
    spoilt = site.sealed[1]
    with_a_flipped_bit = bytes([*spoilt.payload[:20], spoilt.payload[20] ^ 4, *spoilt.payload[21:]])
    update = "UPDATE buffer_batches SET payload = ? WHERE first_seq = ?"
    site.writer.connection.execute(update, (with_a_flipped_bit, spoilt.first_seq))
    await site.check()
    waiting = await site.waiting()
    assert [batch.first_seq for batch in waiting[:3]] == [batch.first_seq for batch in site.sealed]
    assert codec.unpack(waiting[1].payload) == BatchBody(
        gaps=(Gap(spoilt.sealed_at, spoilt.sealed_at + timedelta(milliseconds=1), 0, spoilt.count),)
    ), "its numbers are told as a gap"
    (notice,) = codec.unpack(waiting[3].payload).notices
    assert notice.code is NoticeCode.DATA_BROKEN
    kept = site.writer.connection.execute("SELECT first_seq, payload FROM buffer_broken").fetchall()
    assert kept == [(spoilt.first_seq, with_a_flipped_bit)], "nothing is silently deleted"
    assert left_out(site.writer.connection).broken_items == spoilt.count


async def test_a_broken_batch_met_while_thinning_holds_up_nothing() -> None:
    site = Site(40_000)
    await site.fill(2)
    site.writer.connection.execute("UPDATE buffer_batches SET payload = x'00', digest = NULL WHERE first_seq = 0")
    await site.fill(100)
    broken = site.writer.connection.execute("SELECT count(*) FROM buffer_broken").fetchone()
    assert broken == (1,)
    await site.check()


class FullDisk(InlineWriter):
    """Takes inserts of telemetry only once something was cut."""

    full = False
    cuts = 0

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        before = self.connection.total_changes
        if self.full and "_append_telemetry" in work.__qualname__:
            raise StorageFull("agent.db: database or disk is full; free some disk space")
        result = self.run_now(work)
        if "squeeze" in work.__qualname__ and self.connection.total_changes > before:
            self.full = False
        return result


async def test_a_full_disk_takes_new_telemetry_once_old_telemetry_is_thinner() -> None:
    writer = FullDisk()
    site = Site(10**9, writer)
    await site.fill(40)
    writer.full = True
    await site.fill(1)
    await site.check()
    assert len([1 for _, body in await site.telemetry() if body.readings or body.gaps]) == 41
    codes = [n.code for batch in await site.waiting() for n in codec.unpack(batch.payload).notices]
    assert codes == [NoticeCode.DISK_FULL, NoticeCode.DISK_FULL], "told when it begins and when it ends"


async def test_a_full_disk_with_nothing_to_thin_refuses_the_new_and_says_so_once() -> None:
    writer = FullDisk()
    site = Site(10**9, writer)
    await site.fill(2)
    writer.full = True
    for _ in range(3):
        with pytest.raises(StorageFull):
            await site.fill(1)
    codes = [n.code for batch in await site.waiting() for n in codec.unpack(batch.payload).notices]
    assert codes == [NoticeCode.DISK_FULL]


@settings(max_examples=60, deadline=None)
@given(
    crashes=st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from([CrashPoint.BEFORE_COMMIT, CrashPoint.AFTER_COMMIT])),
        min_size=1,
        max_size=12,
    ),
    max_bytes=st.sampled_from([20_000, 40_000, 60_000]),
    was_sent=st.booleans(),
)
def test_a_crash_at_any_step_loses_nothing_that_was_sealed(
    crashes: list[tuple[int, CrashPoint]], max_bytes: int, was_sent: bool
) -> None:
    site = Site(max_bytes)
    site.was_sent = was_sent

    async def run() -> None:
        for spared, point in crashes:
            site.writer.spared, site.writer.crash_at = spared, point
            try:
                await site.fill(40)
            except Crash:
                site.open()
            site.writer.spared, site.writer.crash_at = 0, CrashPoint.NEVER
        await site.check()
        if not was_sent:
            return
        stored = {batch.first_seq: batch for batch in await site.waiting()}
        assert all(same_items(batch, stored[batch.first_seq]) for batch in site.sealed)

    asyncio.run(run())


def test_an_item_that_cannot_be_placed_in_time_is_no_reason_to_stop() -> None:
    body = BatchBody(readings=(Reading("m", NOON, MinerState.IDLE), Reading("m", NOON, MinerState.IDLE)))
    payload, gone = Cutter(60).cut(codec.pack(body))
    assert gone == 1
    assert codec.unpack(payload).gaps == (Gap(NOON, NOON + timedelta(milliseconds=1), 60, 1),)


async def test_small_batches_that_never_left_become_one_and_none_that_did() -> None:
    site = Site(60_000)
    site.was_sent = False
    await site.fill(10)
    left = await site.buffer.take(10**9)
    await site.fill(300)
    await site.check()
    found = await site.telemetry()
    assert [batch.first_seq for batch, _ in found[: len(left)]] == sorted(batch.first_seq for batch in left)
    for batch, (now, _) in zip(sorted(left, key=lambda one: one.first_seq), found, strict=False):
        assert same_items(batch, now), "its numbers are what they were"
    assert len(found) < 100, "the others are fewer, longer ones"
    items = sum(len(body.readings) + len(body.meters) for _, body in found)
    assert items + sum(gap.items for _, body in found for gap in body.gaps) == 310 * (MINERS + 1)
    assert site.size() <= site.max_bytes
    totals = site.writer.connection.execute("SELECT waiting_batches, waiting_bytes FROM buffer_totals").fetchone()
    waiting = await site.waiting()
    assert totals == (len(waiting), sum(len(batch.payload) for batch in waiting))
