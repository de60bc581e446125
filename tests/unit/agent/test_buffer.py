"""The buffer keeps what it promised, whatever is interrupted."""

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.buffer import BatchKey, Buffer, schema
from agent.errors import Refused
from sitelink import codec
from sitelink.batch_signing import BatchKeys, BatchSigner
from sitelink.clock import ManualClock
from sitelink.types import (
    Batch,
    BatchBody,
    BatchKind,
    Cursor,
    MinerState,
    Notice,
    NoticeCode,
    Reading,
    Receipt,
)
from tests.unit.agent.storage_fakes import Crash, CrashPoint, InlineWriter

pytestmark = pytest.mark.agent

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SITE = "pecos-1"


def readings(number: int, tag: str = "m") -> BatchBody:
    return BatchBody(readings=tuple(Reading(f"{tag}{i}", NOON, MinerState.IDLE) for i in range(number)))


def notice(tag: str = "n") -> BatchBody:
    return BatchBody(notices=(Notice(tag, NOON, NoticeCode.AGENT_STARTED, SITE, "started"),))


def make(max_bytes: int = 10**9, writer: InlineWriter | None = None) -> tuple[Buffer, InlineWriter, ManualClock]:
    writer = writer or InlineWriter()
    writer.run_now(schema)
    clock = ManualClock(NOON)
    numbers = count()
    return Buffer(writer, clock, SITE, lambda: f"id{next(numbers)}", max_bytes), writer, clock


def own(batch: Batch, through: int = -1) -> Receipt:
    return Receipt(SITE, batch.epoch, batch.first_seq, batch.last_seq, through)


async def test_items_are_numbered_without_gaps_over_both_kinds() -> None:
    buffer, _, _ = make()
    first = await buffer.append(readings(3))
    second = await buffer.append(notice())
    third = await buffer.append(readings(2))
    assert first and second and third
    assert [(b.first_seq, b.count, b.kind) for b in (first, second, third)] == [
        (0, 3, BatchKind.TELEMETRY),
        (3, 1, BatchKind.CONTROL),
        (4, 2, BatchKind.TELEMETRY),
    ]
    assert codec.unpack(first.payload) == readings(3)
    assert (await buffer.status()).next_seq == 6


async def test_an_empty_body_is_refused() -> None:
    buffer, _, _ = make()
    with pytest.raises(ValueError, match="at least one"):
        await buffer.append(BatchBody())


async def test_control_then_newest_telemetry_then_oldest() -> None:
    buffer, _, _ = make()
    for _ in range(4):
        await buffer.append(readings(1))
    await buffer.append(notice("a"))
    await buffer.append(readings(1))
    await buffer.append(notice("b"))
    assert [b.first_seq for b in await buffer.take(10**6)] == [4, 6, 5, 0, 1, 2, 3]
    assert [b.first_seq for b in await buffer.take(10**6, control_only=True)] == [4, 6]


async def test_take_keeps_to_its_limit_but_gives_at_least_one() -> None:
    buffer, _, _ = make()
    sizes = [len(batch.payload) for _ in range(3) if (batch := await buffer.append(readings(50)))]
    assert len(await buffer.take(1)) == 1
    assert len(await buffer.take(sizes[0] * 2)) == 2


async def test_what_is_in_flight_is_passed_over() -> None:
    buffer, _, _ = make()
    batches = [await buffer.append(readings(1)) for _ in range(3)]
    flying = {BatchKey(b.epoch, b.first_seq) for b in batches[1:] if b}
    assert [b.first_seq for b in await buffer.take(10**6, flying)] == [0]


async def test_taking_changes_nothing() -> None:
    buffer, _, _ = make()
    await buffer.append(readings(2))
    assert await buffer.take(10**6) == await buffer.take(10**6)


async def test_a_receipt_settles_its_own_range_and_everything_up_to_its_cursor() -> None:
    buffer, _, _ = make()
    batches = [await buffer.append(readings(2)) for _ in range(5)]
    last = batches[3]
    assert last
    await buffer.settle(own(last, through=3))
    assert sorted(b.first_seq for b in await buffer.take(10**6)) == [4, 8]


async def test_a_receipt_that_covers_part_of_a_batch_does_not_settle_it() -> None:
    buffer, _, _ = make()
    batch = await buffer.append(readings(4))
    assert batch
    await buffer.settle(Receipt(SITE, batch.epoch, 0, 2, 2))
    assert (await buffer.status()).backlog_batches == 1


async def test_receipts_may_come_twice_and_late() -> None:
    buffer, _, _ = make()
    batches = [await buffer.append(readings(1)) for _ in range(3)]
    assert batches[0] and batches[2]
    await buffer.settle(own(batches[2], through=2))
    await buffer.settle(own(batches[0], through=0), own(batches[0], through=0))
    await buffer.settle(Receipt(SITE, "an epoch long gone", 0, 9, 9))
    status = await buffer.status()
    assert (status.backlog_batches, status.backlog_bytes, status.oldest_at) == (0, 0, None)


async def test_a_receipt_beyond_what_was_sealed_settles_nothing_but_its_neighbours_count() -> None:
    buffer, _, _ = make()
    first, second = await buffer.append(readings(1)), await buffer.append(readings(1))
    assert first and second
    with pytest.raises(Refused, match="only 2 were sealed"):
        await buffer.settle(Receipt(SITE, first.epoch, 0, 7, 7), own(second))
    assert [b.first_seq for b in await buffer.take(10**6)] == [0]


async def test_a_receipt_for_another_site_is_refused() -> None:
    buffer, _, _ = make()
    batch = await buffer.append(readings(1))
    assert batch
    with pytest.raises(Refused, match="pecos-2"):
        await buffer.settle(Receipt("pecos-2", batch.epoch, 0, 0, 0))
    with pytest.raises(Refused, match="pecos-2"):
        await buffer.settle_through(Cursor("pecos-2", batch.epoch, 0))
    assert (await buffer.status()).backlog_batches == 1


async def test_a_cloud_restored_from_a_backup_gets_again_what_it_lost() -> None:
    buffer, _, _ = make()
    batches = [await buffer.append(readings(1)) for _ in range(6)]
    assert batches[5]
    await buffer.settle(own(batches[5], through=5))
    await buffer.settle_through(Cursor(SITE, batches[5].epoch, 2))
    again = await buffer.take(10**6)
    assert sorted(b.first_seq for b in again) == [3, 4, 5]
    assert set(again) <= set(batches), "sent again exactly as sealed"


async def test_a_cursor_behind_what_was_receipted_out_of_order_sends_nothing_again() -> None:
    buffer, _, _ = make()
    batches = [await buffer.append(readings(1)) for _ in range(4)]
    assert batches[3]
    await buffer.settle(own(batches[3], through=0))  # live went before the backlog
    await buffer.settle_through(Cursor(SITE, batches[3].epoch, 0, ((3, 3),)))
    assert sorted(b.first_seq for b in await buffer.take(10**6)) == [1, 2]


async def test_a_restored_cloud_gets_again_what_came_live_although_its_cursor_never_moved() -> None:
    buffer, _, _ = make()
    batches = [await buffer.append(readings(1)) for _ in range(6)]
    await buffer.settle(own(batches[2], through=0), own(batches[4], through=0), own(batches[5], through=0))
    await buffer.settle_through(Cursor(SITE, batches[0].epoch, 0, ((2, 2),)))
    assert sorted(b.first_seq for b in await buffer.take(10**6)) == [1, 3, 4, 5]


async def test_what_the_cloud_names_beyond_its_cursor_is_settled_without_its_receipt() -> None:
    buffer, _, _ = make()
    batches = [await buffer.append(readings(2)) for _ in range(5)]
    await buffer.settle_through(Cursor(SITE, batches[0].epoch, 1, ((4, 7),)))
    assert sorted(b.first_seq for b in await buffer.take(10**6)) == [2, 8]


async def test_a_disk_restored_from_an_image_is_told_by_what_lies_beyond_the_cursor_too() -> None:
    buffer, _, _ = make()
    old = await buffer.append(readings(2))
    await buffer.settle_through(Cursor(SITE, old.epoch, -1, ((5, 9),)))
    assert (await buffer.append(readings(1))).epoch != old.epoch


async def test_a_disk_restored_from_an_image_begins_a_new_epoch() -> None:
    buffer, _, _ = make()
    old = await buffer.append(readings(2))
    assert old
    await buffer.settle_through(Cursor(SITE, old.epoch, 40))
    new = await buffer.append(readings(1))
    assert new and new.epoch != old.epoch and new.first_seq == 0
    assert {b.epoch for b in await buffer.take(10**6)} == {old.epoch, new.epoch}, "nothing unsent is forgotten"
    await buffer.settle(own(old, through=40))
    assert await buffer.take(10**6) == [new]


async def test_a_cursor_of_another_life_settles_only_the_range_that_was_answered() -> None:
    buffer, _, _ = make()
    first, second = await buffer.append(readings(2)), await buffer.append(readings(2))
    assert first and second
    await buffer.settle(own(second, through=500))
    assert await buffer.take(10**6) == [first], "item 0 of this disk need not be what the cloud has under its number"


async def test_settled_batches_go_after_a_week() -> None:
    buffer, writer, clock = make()
    batches = [await buffer.append(readings(1)) for _ in range(2)]
    assert batches[0] and batches[1]
    await buffer.settle(own(batches[0], through=0))
    clock.advance(timedelta(days=8).total_seconds())
    await buffer.settle(own(batches[1], through=1))
    kept = writer.connection.execute("SELECT first_seq FROM buffer_batches").fetchall()
    assert kept == [(1,)]


async def test_settled_batches_make_room_for_new_ones() -> None:
    buffer, writer, _ = make(max_bytes=4000)
    for _ in range(200):
        batch = await buffer.append(readings(5))
        assert batch, "a buffer that is drained is never full"
        await buffer.settle(own(batch, through=batch.last_seq))
    size = writer.connection.execute("SELECT sum(length(payload)) FROM buffer_batches").fetchone()[0]
    assert size <= 4000 * 2


async def test_a_file_is_opened_again_and_one_of_an_earlier_version_is_brought_up_to_date() -> None:
    buffer, writer, _ = make()
    first = await buffer.append(readings(2))
    writer.run_now(schema)
    for table, column in (("buffer_batches", "signature"), ("buffer_batches", "key_id"), ("buffer_gap", "level")):
        writer.connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    writer.run_now(schema)
    signer = BatchSigner(ec.generate_private_key(ec.SECP256R1()))
    later = Buffer(writer, ManualClock(NOON), SITE, lambda: "another", signer=signer)
    second = await later.append(readings(1))
    taken = await later.take(10**6)
    keys = BatchKeys([signer.public_der])
    assert [keys.check(batch) for batch in taken] == [signer.key_id] * 2, "signed when sealed, or when taken"
    assert await later.take(10**6) == taken, "once"
    assert {batch.first_seq for batch in taken} == {first.first_seq, second.first_seq}


async def test_a_batch_of_an_earlier_key_is_signed_by_the_present_one() -> None:
    writer = InlineWriter()
    writer.run_now(schema)
    old, new = (BatchSigner(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
    sealed = await Buffer(writer, ManualClock(NOON), SITE, lambda: "e", signer=old).append(readings(1))
    (taken,) = await Buffer(writer, ManualClock(NOON), SITE, lambda: "e", signer=new).take(10**6)
    assert BatchKeys([new.public_der]).check(taken) == new.key_id
    assert replace(taken, signature=b"") == replace(sealed, signature=b"")


async def test_a_sealed_batch_is_announced() -> None:
    writer = InlineWriter()
    writer.run_now(schema)
    rung = []
    buffer = Buffer(writer, ManualClock(NOON), SITE, lambda: "e", on_sealed=lambda: rung.append(1))
    await buffer.append(readings(1))
    await buffer.append(notice())
    assert len(rung) == 2


@dataclass
class Stored:
    body: BatchBody
    payload: bytes
    settled: bool = False


class BufferMachine(RuleBasedStateMachine):
    """The buffer against a dictionary, crashing at any transaction."""

    def __init__(self) -> None:
        super().__init__()
        self.writer = InlineWriter()
        self.model: dict[int, Stored] = {}
        self.cloud: dict[int, Batch] = {}
        self.next_seq = 0
        self.epoch = ""
        self.tags = count()

    @initialize()
    def start(self) -> None:
        self.buffer = make(writer=self.writer)[0]
        self.epoch = self.run(self.buffer.status()).epoch

    def run(self, work):
        return asyncio.run(work)

    def through(self) -> int:
        seq = -1
        while seq + 1 in self.cloud:
            seq = self.cloud[seq + 1].last_seq
        return seq

    def reopen(self) -> None:
        self.buffer = Buffer(self.writer, ManualClock(NOON), SITE, lambda: "another")

    @rule(size=st.integers(1, 5), control=st.booleans(), crash=st.sampled_from(CrashPoint))
    def append(self, size: int, control: bool, crash: CrashPoint) -> None:
        tag = f"t{next(self.tags)}-"
        body = notice(tag) if control else readings(size, tag)
        self.writer.crash_at = crash
        stored = crash is not CrashPoint.BEFORE_COMMIT
        try:
            batch = self.run(self.buffer.append(body))
            assert batch is not None and batch.first_seq == self.next_seq
        except Crash:
            self.reopen()
        if stored:
            self.model[self.next_seq] = Stored(body, codec.pack(body))
            self.next_seq += len(body)

    @rule(limit=st.integers(1, 2000), keep=st.lists(st.booleans(), min_size=1), crash=st.booleans())
    def send_some(self, limit: int, keep: list[bool], crash: bool) -> None:
        """The cloud stores some of what is taken; its receipts may die with the process."""
        batches = self.run(self.buffer.take(limit))
        for place, batch in enumerate(batches):
            assert self.model[batch.first_seq].payload == batch.payload, "never re-cut"
            assert not self.model[batch.first_seq].settled
            if keep[place % len(keep)]:
                before = self.cloud.setdefault(batch.first_seq, batch)
                assert before == batch
        if crash:
            self.reopen()
            return
        for batch in batches:
            if batch.first_seq in self.cloud:
                self.receipt(batch)

    def beyond(self, through: int) -> tuple[tuple[int, int], ...]:
        return tuple((first, batch.last_seq) for first, batch in sorted(self.cloud.items()) if first > through)

    def receipt(self, batch: Batch, crash: CrashPoint = CrashPoint.NEVER) -> None:
        through = self.through()
        self.writer.crash_at = crash
        try:
            self.run(self.buffer.settle(own(batch, through)))
        except Crash:
            self.reopen()
        if crash is CrashPoint.BEFORE_COMMIT:
            return
        for first, stored in self.model.items():
            if first == batch.first_seq or first + len(stored.body) - 1 <= through:
                stored.settled = True

    @precondition(lambda self: self.cloud)
    @rule(data=st.data(), crash=st.sampled_from(CrashPoint))
    def receipt_again(self, data: st.DataObject, crash: CrashPoint) -> None:
        self.receipt(self.cloud[data.draw(st.sampled_from(sorted(self.cloud)))], crash)

    @rule()
    def welcome(self) -> None:
        through = self.through()
        self.run(self.buffer.settle_through(Cursor(SITE, self.epoch, through, self.beyond(through))))
        for first, stored in self.model.items():
            stored.settled = first in self.cloud

    @rule(data=st.data())
    def restore_cloud(self, data: st.DataObject) -> None:
        """The cloud forgets what it stored last."""
        kept = data.draw(st.integers(0, len(self.cloud)))
        self.cloud = dict(list(self.cloud.items())[:kept])
        self.welcome()

    @invariant()
    def waiting_is_what_was_promised(self) -> None:
        if not self.epoch:
            return
        waiting = {b.first_seq: b for b in self.run(self.buffer.take(10**9))}
        expected = {first for first, stored in self.model.items() if not stored.settled}
        assert set(waiting) == expected
        assert all(codec.unpack(b.payload) == self.model[f].body for f, b in waiting.items())
        status = self.run(self.buffer.status())
        assert status.epoch == self.epoch
        assert status.next_seq == self.next_seq
        assert status.backlog_batches == len(expected)
        assert status.backlog_bytes == sum(len(b.payload) for b in waiting.values())

    @invariant()
    def nothing_settled_is_missing_in_the_cloud(self) -> None:
        assert all(first in self.cloud for first, stored in self.model.items() if stored.settled)


BufferMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestBufferMachine = pytest.mark.agent(BufferMachine.TestCase)
