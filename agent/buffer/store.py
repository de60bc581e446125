"""Telemetry and control data, kept until the cloud says they are stored.

Invariants:

* Nothing is deleted before its receipt. Settled batches stay a week, as room allows, for a cloud that was restored
  from a backup.
* A batch is sealed and signed once; the sequence counter moves in the transaction that stores the batch, so a crash
  leaves no hole and no number twice. A batch that was taken always covers the same numbers: what is cut out of one
  for want of room is told in it as a gap.
* Only receipts settle: a batch's own range, or everything up to the cursor. Order is by number, never by time.
* Waiting telemetry stays below ``max_bytes``: the oldest is thinned, see ``thinning``. Control data are always kept.

      append -> waiting --take--> (in flight) --receipt--> settled --7 days or no room--> deleted
                ^     |                                       |
                |     +-- full: thinned, at last given up     |
                +---- the cloud lacks it after all -----------+
"""

import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from agent.buffer.figures import BatchKey, BufferStatus, waiting
from agent.buffer.rows import COLUMNS, JOINED, Row, Rows, kind_of
from agent.buffer.salvage import Salvage
from agent.buffer.thinning import Thinner
from agent.errors import Refused, Transient
from agent.storage import StorageFull, Writer
from sitelink.batch_signing import BatchSigner
from sitelink.clock import Clock
from sitelink.codec.moments import microseconds
from sitelink.types import Batch, BatchBody, BatchKind, Cursor, NoticeCode, Receipt

_LOG: Final = logging.getLogger(__name__)
_KEEP_SETTLED: Final = timedelta(days=7, hours=2)
"""A week, even by a clock that was stepped by an hour meanwhile."""
_TRIM_BATCHES: Final = 64
_STEPS_AN_APPEND: Final = 16
_SELECT: Final = (
    f"SELECT {COLUMNS} FROM {JOINED} WHERE b.settled_at_us IS NULL AND b.kind = ?"  # noqa: S608 - our own names
    " ORDER BY b.epoch_number {order}, b.first_seq {order}"
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
        signer: BatchSigner | None = None,
        bulk: Writer | None = None,
    ) -> None:
        """``on_sealed`` is called, on the writer's thread, inside each transaction that seals a batch.

        ``bulk`` takes telemetry when it is not to have the room that ``writer`` holds back for control data.
        """
        self._writer = writer
        self._bulk = bulk or writer
        self._clock = clock
        self._site_id = site_id
        self._max_bytes = max_bytes
        self._rows = Rows(site_id, clock, ids, signer, on_sealed)
        self._thinner = Thinner(self._rows, clock, max_bytes)
        self._disk_is_full = False

    @property
    def disk_is_full(self) -> bool:
        """Return whether the disk did not take the last telemetry."""
        return self._disk_is_full

    async def append(self, body: BatchBody) -> Batch:
        """Seal ``body`` durably. Where telemetry then fills the buffer, the oldest that waits is thinned.

        Raises:
            Transient: nothing was stored; the caller still owns the body.
        """
        if kind_of(body) is BatchKind.CONTROL:
            return await self._writer.run(lambda connection: self.append_in(connection, body))
        batch, is_due = await self._append_telemetry(body)
        if is_due:
            await self._thin(self._bulk, self._thinner.step)
        return batch

    def append_in(self, connection: sqlite3.Connection, body: BatchBody) -> Batch:
        """Seal ``body`` within the caller's transaction. It is never dropped: meant for acks and notices.

        Raises:
            ValueError: the body is empty.
        """
        batch = self._rows.seal(connection, body)
        self._trim(connection)
        return batch

    async def take(
        self,
        limit_bytes: int,
        exclude: Collection[BatchKey] = frozenset(),
        *,
        control_only: bool = False,
        live_from: BatchKey | None = None,
        live_only: bool = False,
        most: int = 2**31,
    ) -> list[Batch]:
        """Return waiting batches up to ``limit_bytes`` of payload (at least one, if any waits) and ``most`` in number.

        Order: control oldest first, then live telemetry newest first, then the other telemetry oldest first. Live is
        what was sealed at ``live_from`` or later; without it, the newest batch. Batches in ``exclude`` (those in
        flight) are passed over. Taking settles nothing: a batch lost on the way is taken again.
        """

        def work(connection: sqlite3.Connection) -> list[Batch]:
            while True:
                found = self._in_order(connection, (control_only, live_only), live_from)
                rows = _chosen(found, limit_bytes, most, exclude)
                broken = [row for row in rows if row.is_broken]
                for row in broken:
                    self._rows.set_aside(connection, row, "the digest does not fit")
                if not broken:
                    self._rows.mark_sent(connection, rows)
                    return [self._rows.signed(connection, row) for row in rows]

        return await self._writer.run(work)

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
        """Bring the buffer in line with what the cloud says it has stored of this epoch.

        Everything up to the cursor, and beyond it what the cloud names, is settled; whatever else was settled waits
        again: the cloud was restored from a backup, and lacks it. When it has more than was ever sealed here (this
        disk was restored), a new epoch begins, since numbers must not be used twice.

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
        _, epoch, next_seq = self._rows.current(connection)
        newest = connection.execute(_SELECT.format(order="DESC") + " LIMIT 1", ("telemetry",)).fetchone()
        key = BatchKey(newest[1], newest[2]) if newest is not None else BatchKey(epoch, next_seq)
        return BufferStatus(epoch, next_seq, *waiting(connection), key)

    def salvage(self, folder: Path) -> Salvage:
        """Return what takes over the batches of a broken file that lies in ``folder``."""
        return Salvage(self._writer, self._rows, folder)

    async def _append_telemetry(self, body: BatchBody) -> tuple[Batch, bool]:
        def work(connection: sqlite3.Connection) -> tuple[Batch, bool]:
            batch = self.append_in(connection, body)
            return batch, self._thinner.is_due(connection)

        try:
            stored = await self._bulk.run(work)
        except StorageFull as error:
            await self._tell_disk(full=True, detail=str(error))
            # With the room kept for control data: what is thinned leaves more than it takes.
            if not await self._thin(self._writer, self._thinner.squeeze):
                raise
            stored = await self._bulk.run(work)
        await self._tell_disk(full=False, detail="the disk takes telemetry again")
        return stored

    async def _thin(self, writer: Writer, step: Callable[[sqlite3.Connection], bool]) -> bool:
        """Run some steps, each a transaction, so that others come between; return whether one did something."""
        for done in range(_STEPS_AN_APPEND):
            try:
                if not await writer.run(step):
                    return done > 0
            except Transient as error:
                # What is sealed is sealed: its owner must not hear of it. The next append thins on.
                _LOG.debug("buffer: not thinned: %s", error)
                self._thinner.forget()
                return done > 0
        return True

    async def _tell_disk(self, *, full: bool, detail: str) -> None:
        if full == self._disk_is_full:
            return
        self._disk_is_full = full
        try:
            await self._writer.run(lambda connection: self._rows.notify(connection, NoticeCode.DISK_FULL, detail))
        except Transient as error:
            _LOG.error("buffer: %s; not even a notice could be kept: %s", detail, error)

    def _trim(self, connection: sqlite3.Connection) -> None:
        while True:
            waiting_bytes, kept = connection.execute("SELECT waiting_bytes, kept_bytes FROM buffer_totals").fetchone()
            if kept == 0 or waiting_bytes + kept <= self._max_bytes:
                return
            _forget_settled(connection, microseconds(datetime.max.replace(tzinfo=UTC)))

    def _in_order(
        self, connection: sqlite3.Connection, only: tuple[bool, bool], live_from: BatchKey | None
    ) -> Iterator[Row]:
        control_only, live_only = only
        yield from self._waiting(connection, BatchKind.CONTROL, "ASC")
        if control_only:
            return
        yield from self._live(connection, live_from)
        if not live_only:
            yield from self._waiting(connection, BatchKind.TELEMETRY, "ASC")

    def _live(self, connection: sqlite3.Connection, live_from: BatchKey | None) -> Iterator[Row]:
        newest_first = self._waiting(connection, BatchKind.TELEMETRY, "DESC")
        found = None if live_from is None else _epoch(connection, live_from.epoch)
        if live_from is None or found is None:
            yield from (row for row, _ in zip(newest_first, range(1), strict=False))
            return
        first = (found[0], live_from.first_seq)
        for row in newest_first:
            if (row.epoch_number, row.batch.first_seq) < first:
                return
            yield row

    def _waiting(self, connection: sqlite3.Connection, kind: BatchKind, order: str) -> Iterator[Row]:
        return map(self._rows.read, connection.execute(_SELECT.format(order=order), (kind.value,)))

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
            self._mark(connection, number, 0, receipt.through_seq)
        self._mark(connection, number, receipt.first_seq, receipt.last_seq)

    def _mark(self, connection: sqlite3.Connection, number: int, first_seq: int, last_seq: int) -> None:
        connection.execute(
            "UPDATE buffer_batches SET settled_at_us = ? WHERE kind IN ('control', 'telemetry') AND epoch_number = ?"
            " AND first_seq >= ? AND first_seq <= ? AND last_seq <= ? AND settled_at_us IS NULL",
            (microseconds(self._clock.now()), number, first_seq, last_seq, last_seq),
        )

    def _follow(self, connection: sqlite3.Connection, cursor: Cursor) -> None:
        found = _epoch(connection, cursor.epoch)
        if found is None:
            return
        number, next_seq = found
        held = ((0, cursor.through_seq), *cursor.beyond)
        if max(last for _, last in held) >= next_seq:
            _LOG.warning("buffer: the cloud holds items this disk never sealed (restored disk?); new epoch")
            self._rows.new_epoch(connection)
            return
        for first, last in held:
            self._mark(connection, number, first, last)
        lacking = [
            self._reopen(connection, number, before + 1, after - 1)
            for (_, before), (after, _) in zip(held, (*held[1:], (next_seq, next_seq)), strict=True)
        ]
        if any(lacking):
            _LOG.warning("buffer: the cloud lacks %d batches it once receipted; sending again", sum(lacking))

    def _reopen(self, connection: sqlite3.Connection, number: int, first_seq: int, last_seq: int) -> int:
        """Have what was settled between two places wait again; return how many batches that are."""
        return connection.execute(
            "UPDATE buffer_batches SET settled_at_us = NULL WHERE epoch_number = ? AND first_seq >= ?"
            " AND first_seq <= ? AND settled_at_us IS NOT NULL",
            (number, first_seq, last_seq),
        ).rowcount


def _chosen(found: Iterator[Row], limit_bytes: int, most: int, exclude: Collection[BatchKey]) -> list[Row]:
    """Return the first rows that fit the limits, each once."""
    taken: dict[BatchKey, Row] = {}
    size = 0
    for row in found:
        key = BatchKey(row.batch.epoch, row.batch.first_seq)
        if key in exclude or key in taken:
            continue
        if len(taken) >= most or (taken and size + len(row.batch.payload) > limit_bytes):
            break
        taken[key] = row
        size += len(row.batch.payload)
    return list(taken.values())


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
