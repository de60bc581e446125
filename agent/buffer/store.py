"""Telemetry and control data, kept until the cloud says they are stored.

Invariants:

* Nothing is deleted before its receipt. Settled batches stay a week, as room allows, for a cloud that was restored
  from a backup.
* A batch is sealed once and never re-cut; the sequence counter moves in the transaction that stores the batch, so a
  crash leaves no hole and no number twice.
* Only receipts settle: a batch's own range, or everything up to the cursor.
* Waiting payload never exceeds ``max_bytes``: when full, new telemetry is dropped and the gap is told by BUFFER_GAP
  notices (one when it opens, one with the count when it closes). Control data is always kept.

      append -> waiting --take--> (in flight) --receipt--> settled --7 days or no room--> deleted
                   ^                                          |
                   +---- the cloud's cursor fell behind ------+
"""

import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from agent.buffer.figures import BatchKey, BufferStatus, waiting
from agent.errors import Refused
from agent.storage import Writer
from sitelink import codec
from sitelink.clock import Clock
from sitelink.codec.moments import microseconds, moment_of
from sitelink.types import Batch, BatchBody, BatchKind, Cursor, Notice, NoticeCode, Receipt

_LOG: Final = logging.getLogger(__name__)
_KEEP_SETTLED: Final = timedelta(days=7)
_REOPEN_SHARE: Final = 0.9
_TRIM_BATCHES: Final = 64
_SELECT: Final = (
    "SELECT e.epoch, b.first_seq, b.last_seq, b.kind, b.sealed_at_us, b.payload"
    " FROM buffer_batches b JOIN buffer_epochs e ON e.number = b.epoch_number"
    " WHERE b.settled_at_us IS NULL AND b.kind = ? ORDER BY b.epoch_number {order}, b.first_seq {order}"
)


class Buffer:
    """The site's store-and-forward buffer in ``agent.db``; ``schema`` must have run."""

    def __init__(
        self,
        writer: Writer,
        clock: Clock,
        site_id: str,
        ids: Callable[[], str],
        max_bytes: int = 1024**3,
        on_sealed: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_sealed`` is called, on the writer's thread, inside each transaction that seals a batch."""
        self._writer = writer
        self._clock = clock
        self._site_id = site_id
        self._ids = ids
        self._max_bytes = max_bytes
        self._on_sealed = on_sealed

    async def append(self, body: BatchBody) -> Batch | None:
        """Seal ``body`` durably.

        Returns:
            The batch, or None when it was telemetry and the buffer is full: it then counts in the gap's notice.

        Raises:
            Transient: nothing was stored; the caller still owns the body.
        """
        if _kind(body) is BatchKind.CONTROL:
            return await self._writer.run(lambda connection: self.append_in(connection, body))
        return await self._writer.run(lambda connection: self._append_telemetry(connection, body))

    def append_in(self, connection: sqlite3.Connection, body: BatchBody) -> Batch:
        """Seal ``body`` within the caller's transaction. It is never dropped: meant for acks and notices.

        Raises:
            ValueError: the body is empty.
        """
        batch = self._seal(connection, body, codec.pack(body))
        self._trim(connection)
        return batch

    async def take(
        self, limit_bytes: int, exclude: Collection[BatchKey] = frozenset(), *, control_only: bool = False
    ) -> list[Batch]:
        """Return waiting batches up to ``limit_bytes`` of payload (at least one, if any waits).

        Order: control oldest first, then the newest telemetry batch, then telemetry oldest first. Batches in
        ``exclude`` (those in flight) are passed over. Taking changes nothing: a batch lost on the way is taken again.
        """
        return await self._writer.run(lambda connection: self._take(connection, limit_bytes, exclude, control_only))

    async def settle(self, *receipts: Receipt) -> None:
        """Mark as stored each receipt's own range and everything up to its cursor, all in one transaction.

        A cursor beyond what was ever sealed here (this disk was restored) counts for nothing, the range still does.

        A receipt may come twice, late or out of order; one for an epoch unknown here changes nothing.

        Raises:
            Refused: a receipt is for another site, or covers numbers that were never sealed; the others count.
        """
        refusals = await self._writer.run(lambda connection: self._settle_all(connection, receipts))
        if refusals:
            raise refusals[0]

    async def settle_through(self, cursor: Cursor) -> None:
        """Bring the buffer in line with how far the cloud says it has stored this epoch.

        Everything up to the cursor is settled. When the cloud lacks an item it once receipted (it was restored from a
        backup), everything kept beyond the cursor waits again. When it has more than was ever sealed here (this disk
        was restored), a new epoch begins, since numbers must not be used twice.

        Raises:
            Refused: the cursor is for another site.
        """
        self._check_site(cursor.site_id)
        await self._writer.run(lambda connection: self._follow(connection, cursor))

    async def status(self) -> BufferStatus:
        """Return what is waiting."""
        return await self._writer.run(self.status_in)

    def status_in(self, connection: sqlite3.Connection) -> BufferStatus:
        """Return what is waiting, within the caller's transaction; opens the first epoch."""
        _, epoch, next_seq = self._current(connection)
        return BufferStatus(epoch, next_seq, *waiting(connection))

    def _append_telemetry(self, connection: sqlite3.Connection, body: BatchBody) -> Batch | None:
        payload = codec.pack(body)
        gap: tuple[int, int] | None = connection.execute("SELECT since_us, items FROM buffer_gap").fetchone()
        waiting_bytes = int(connection.execute("SELECT waiting_bytes FROM buffer_totals").fetchone()[0])
        # A gap closes only once a tenth is free again, so that a slow drain does not open a gap a second.
        bound = self._max_bytes if gap is None else int(self._max_bytes * _REOPEN_SHARE)
        if waiting_bytes + len(payload) > bound:
            self._widen_gap(connection, len(body), is_new=gap is None)
            return None
        if gap is not None:
            connection.execute("DELETE FROM buffer_gap")
            since = moment_of(gap[0]).isoformat(timespec="seconds")
            self._notify(connection, f"{gap[1]} items were dropped since {since}; telemetry is kept again")
        batch = self._seal(connection, body, payload)
        self._trim(connection)
        return batch

    def _widen_gap(self, connection: sqlite3.Connection, items: int, *, is_new: bool) -> None:
        if is_new:
            now_us = microseconds(self._clock.now())
            connection.execute("INSERT INTO buffer_gap VALUES (1, ?, 0)", (now_us,))
            self._notify(connection, f"{self._max_bytes} bytes are waiting for the cloud; new telemetry is dropped")
        connection.execute("UPDATE buffer_gap SET items = items + ?", (items,))

    def _notify(self, connection: sqlite3.Connection, detail: str) -> None:
        _LOG.warning("buffer: %s", detail)
        notice = Notice(self._ids(), self._clock.now(), NoticeCode.BUFFER_GAP, self._site_id, detail)
        body = BatchBody(notices=(notice,))
        self._seal(connection, body, codec.pack(body))

    def _seal(self, connection: sqlite3.Connection, body: BatchBody, payload: bytes) -> Batch:
        count = len(body)
        if count == 0:
            raise ValueError("a batch needs at least one item")
        number, epoch, first_seq = self._current(connection)
        batch = Batch(self._site_id, epoch, first_seq, count, _kind(body), self._clock.now(), payload)
        connection.execute(
            "INSERT INTO buffer_batches (epoch_number, first_seq, last_seq, kind, sealed_at_us, payload)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (number, first_seq, batch.last_seq, batch.kind.value, microseconds(batch.sealed_at), payload),
        )
        connection.execute("UPDATE buffer_epochs SET next_seq = ? WHERE number = ?", (first_seq + count, number))
        self._on_sealed()
        return batch

    def _current(self, connection: sqlite3.Connection) -> tuple[int, str, int]:
        row: tuple[int, str, int] | None = connection.execute(
            "SELECT number, epoch, next_seq FROM buffer_epochs ORDER BY number DESC LIMIT 1"
        ).fetchone()
        return row if row is not None else self._new_epoch(connection)

    def _new_epoch(self, connection: sqlite3.Connection) -> tuple[int, str, int]:
        epoch = self._ids()
        row = connection.execute("INSERT INTO buffer_epochs (epoch, next_seq) VALUES (?, 0)", (epoch,))
        return int(row.lastrowid or 0), epoch, 0

    def _trim(self, connection: sqlite3.Connection) -> None:
        while True:
            waiting_bytes, kept = connection.execute("SELECT waiting_bytes, kept_bytes FROM buffer_totals").fetchone()
            if kept == 0 or waiting_bytes + kept <= self._max_bytes:
                return
            _forget_settled(connection, microseconds(datetime.max.replace(tzinfo=UTC)))

    def _take(
        self, connection: sqlite3.Connection, limit_bytes: int, exclude: Collection[BatchKey], control_only: bool
    ) -> list[Batch]:
        taken: dict[BatchKey, Batch] = {}
        size = 0
        for batch in self._in_order(connection, control_only=control_only):
            key = BatchKey(batch.epoch, batch.first_seq)
            if key in exclude or key in taken:
                continue
            if taken and size + len(batch.payload) > limit_bytes:
                break
            taken[key] = batch
            size += len(batch.payload)
        return list(taken.values())

    def _in_order(self, connection: sqlite3.Connection, *, control_only: bool) -> Iterator[Batch]:
        oldest, newest = _SELECT.format(order="ASC"), _SELECT.format(order="DESC") + " LIMIT 1"
        yield from self._rows(connection, oldest, BatchKind.CONTROL)
        if not control_only:
            yield from self._rows(connection, newest, BatchKind.TELEMETRY)
            yield from self._rows(connection, oldest, BatchKind.TELEMETRY)

    def _rows(self, connection: sqlite3.Connection, query: str, kind: BatchKind) -> Iterator[Batch]:
        for epoch, first, last, _, sealed_us, payload in connection.execute(query, (kind.value,)):
            yield Batch(self._site_id, epoch, first, last - first + 1, kind, moment_of(sealed_us), payload)

    def _check_site(self, site_id: str) -> None:
        if site_id != self._site_id:
            raise Refused("other_site", f"the cloud's word is for site {site_id}, not for {self._site_id}; ignored")

    def _settle_all(self, connection: sqlite3.Connection, receipts: tuple[Receipt, ...]) -> list[Refused]:
        refusals = []
        for receipt in receipts:
            try:
                self._check_site(receipt.site_id)
                self._settle(connection, receipt)
            except Refused as refusal:
                refusals.append(refusal)
        _forget_settled(connection, microseconds(self._clock.now() - _KEEP_SETTLED))
        return refusals

    def _settle(self, connection: sqlite3.Connection, receipt: Receipt) -> None:
        found = _epoch(connection, receipt.epoch)
        if found is None:
            return
        number, next_seq = found
        if receipt.last_seq >= next_seq:
            raise Refused(
                "receipt_beyond_sealed", f"a receipt covers item {receipt.last_seq}, but only {next_seq} were sealed"
            )
        # Beyond what was sealed here it speaks of items that this disk forgot, whose numbers may be others' by now.
        if receipt.through_seq < next_seq:
            self._mark(connection, number, receipt.through_seq)
        connection.execute(
            "UPDATE buffer_batches SET settled_at_us = ? WHERE epoch_number = ? AND first_seq >= ? AND first_seq <= ?"
            " AND last_seq <= ? AND settled_at_us IS NULL",
            (microseconds(self._clock.now()), number, receipt.first_seq, receipt.last_seq, receipt.last_seq),
        )

    def _mark(self, connection: sqlite3.Connection, number: int, through_seq: int) -> None:
        connection.execute(
            "UPDATE buffer_batches SET settled_at_us = ? WHERE kind IN ('control', 'telemetry') AND epoch_number = ?"
            " AND first_seq <= ? AND last_seq <= ? AND settled_at_us IS NULL",
            (microseconds(self._clock.now()), number, through_seq, through_seq),
        )

    def _follow(self, connection: sqlite3.Connection, cursor: Cursor) -> None:
        found = _epoch(connection, cursor.epoch)
        if found is None:
            return
        number, next_seq = found
        if cursor.through_seq >= next_seq:
            _LOG.warning("buffer: the cloud holds items this disk never sealed (restored disk?); new epoch")
            self._new_epoch(connection)
            return
        self._mark(connection, number, cursor.through_seq)
        lacking = connection.execute(
            "SELECT 1 FROM buffer_batches WHERE epoch_number = ? AND first_seq <= ? AND last_seq >= ?"
            " AND settled_at_us IS NOT NULL ORDER BY first_seq DESC LIMIT 1",
            (number, cursor.through_seq + 1, cursor.through_seq + 1),
        ).fetchone()
        if lacking is not None:
            _LOG.warning("buffer: the cloud lacks item %d it once receipted; sending again", cursor.through_seq + 1)
            connection.execute(
                "UPDATE buffer_batches SET settled_at_us = NULL WHERE epoch_number = ? AND last_seq > ?"
                " AND settled_at_us IS NOT NULL",
                (number, cursor.through_seq),
            )


def _kind(body: BatchBody) -> BatchKind:
    return BatchKind.CONTROL if body.acks or body.notices or body.journal else BatchKind.TELEMETRY


def _epoch(connection: sqlite3.Connection, epoch: str) -> tuple[int, int] | None:
    row: tuple[int, int] | None = connection.execute(
        "SELECT number, next_seq FROM buffer_epochs WHERE epoch = ?", (epoch,)
    ).fetchone()
    return row


def _forget_settled(connection: sqlite3.Connection, before_us: int) -> None:
    connection.execute(
        "DELETE FROM buffer_batches WHERE rowid IN (SELECT rowid FROM buffer_batches"
        " WHERE settled_at_us IS NOT NULL AND settled_at_us < ? ORDER BY settled_at_us LIMIT ?)",
        (before_us, _TRIM_BATCHES),
    )
