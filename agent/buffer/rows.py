"""A batch as a row of ``buffer_batches``: sealed, cut, signed, and set aside when it is broken.

Invariants:

* The numbers of a row that may have left the gateway never change; those of rows that never did may be joined into one.
  A payload changes only by losing items to a gap that counts them.
* Payload, digest, signature and level are written together.
* A row whose payload no longer fits its digest is moved aside whole, and its numbers are told as a gap.
"""

import hashlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from agent.buffer.levels import NOTHING_LEFT, all_gone
from sitelink import codec
from sitelink.batch_signing import BatchSigner
from sitelink.clock import Clock
from sitelink.codec.moments import microseconds, moment_of
from sitelink.types import Batch, BatchBody, BatchKind, Notice, NoticeCode

_LOG: Final = logging.getLogger(__name__)
COLUMNS: Final = (
    "b.epoch_number, e.epoch, b.first_seq, b.last_seq, b.kind, b.sealed_at_us, b.payload, b.digest, b.signature,"
    " b.key_id, b.level, b.sent"
)
JOINED: Final = "buffer_batches b JOIN buffer_epochs e ON e.number = b.epoch_number"
_RowTuple = tuple[int, str, int, int, str, int, bytes, bytes | None, bytes, str, int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """One stored batch and what the buffer knows of it."""

    epoch_number: int
    batch: Batch
    digest: bytes | None
    key_id: str
    level: int
    sent: bool

    @property
    def is_broken(self) -> bool:
        """Return whether the payload is not what was written; unknown of what an earlier version wrote."""
        return self.digest is not None and self.digest != hashlib.sha256(self.batch.payload).digest()


class Rows:
    """Writes rows of one site, each in the caller's transaction."""

    def __init__(
        self,
        site_id: str,
        clock: Clock,
        ids: Callable[[], str],
        signer: BatchSigner | None,
        on_sealed: Callable[[], None],
    ) -> None:
        self._site_id = site_id
        self._clock = clock
        self._ids = ids
        self._signer = signer
        self._on_sealed = on_sealed

    def read(self, values: _RowTuple) -> Row:
        """Return what a query of ``COLUMNS`` found."""
        number, epoch, first, last, kind, sealed_us, payload, digest, signature, key_id, level, sent = values
        sealed_at = moment_of(sealed_us)
        batch = Batch(self._site_id, epoch, first, last - first + 1, BatchKind(kind), sealed_at, payload, signature)
        return Row(number, batch, digest, key_id, level, bool(sent))

    def seal(self, connection: sqlite3.Connection, body: BatchBody) -> Batch:
        """Store ``body`` under the next numbers.

        Raises:
            ValueError: the body is empty.
        """
        if not body:
            raise ValueError("a batch needs at least one item")
        number, epoch, first_seq = self.current(connection)
        kind = kind_of(body)
        batch = self._signed(
            Batch(self._site_id, epoch, first_seq, len(body), kind, self._clock.now(), codec.pack(body))
        )
        level = 0 if body.readings or body.meters or kind is BatchKind.CONTROL else NOTHING_LEFT
        connection.execute(
            "INSERT INTO buffer_batches (epoch_number, first_seq, last_seq, kind, sealed_at_us, payload, digest,"
            " signature, key_id, level, sent) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            (
                number,
                first_seq,
                batch.last_seq,
                kind.value,
                microseconds(batch.sealed_at),
                batch.payload,
                hashlib.sha256(batch.payload).digest(),
                batch.signature,
                self._key_id,
                level,
            ),
        )
        connection.execute("UPDATE buffer_epochs SET next_seq = ? WHERE number = ?", (first_seq + batch.count, number))
        self._on_sealed()
        return batch

    def recut(self, connection: sqlite3.Connection, row: Row, payload: bytes, level: int) -> None:
        """Replace the payload of a waiting row by one with fewer items."""
        batch = row.batch
        cut = self._signed(
            Batch(batch.site_id, batch.epoch, batch.first_seq, batch.count, batch.kind, batch.sealed_at, payload)
        )
        connection.execute(
            "UPDATE buffer_batches SET payload = ?, digest = ?, signature = ?, key_id = ?, level = ?"
            " WHERE epoch_number = ? AND first_seq = ?",
            (
                payload,
                hashlib.sha256(payload).digest(),
                cut.signature,
                self._key_id,
                level,
                row.epoch_number,
                batch.first_seq,
            ),
        )

    def join(self, connection: sqlite3.Connection, rows: Sequence[Row], payload: bytes, level: int) -> None:
        """Replace waiting rows that follow each other, and never left the gateway, by one with ``payload``."""
        first, last = rows[0], rows[-1]
        count = last.batch.last_seq - first.batch.first_seq + 1
        for row in rows[1:]:
            connection.execute(
                "DELETE FROM buffer_batches WHERE epoch_number = ? AND first_seq = ?",
                (row.epoch_number, row.batch.first_seq),
            )
        connection.execute(
            "UPDATE buffer_batches SET last_seq = ? WHERE epoch_number = ? AND first_seq = ?",
            (last.batch.last_seq, first.epoch_number, first.batch.first_seq),
        )
        self.recut(connection, replace(first, batch=replace(first.batch, count=count)), payload, level)

    def mark_sent(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        """Note that ``rows`` are about to leave the gateway."""
        connection.executemany(
            "UPDATE buffer_batches SET sent = 1 WHERE epoch_number = ? AND first_seq = ?",
            [(row.epoch_number, row.batch.first_seq) for row in rows if not row.sent],
        )

    def signed(self, connection: sqlite3.Connection, row: Row) -> Batch:
        """Return the row's batch, signed by the present key: anew when it was by none, or by an earlier one."""
        if row.key_id == self._key_id:
            return row.batch
        batch = self._signed(row.batch)
        connection.execute(
            "UPDATE buffer_batches SET digest = ?, signature = ?, key_id = ? WHERE epoch_number = ? AND first_seq = ?",
            (
                hashlib.sha256(batch.payload).digest(),
                batch.signature,
                self._key_id,
                row.epoch_number,
                batch.first_seq,
            ),
        )
        return batch

    def set_aside(self, connection: sqlite3.Connection, row: Row, cause: str) -> None:
        """Move a broken row's bytes aside; a gap takes over its numbers, and a notice tells of it."""
        batch = row.batch
        connection.execute(
            "INSERT INTO buffer_broken (epoch, first_seq, last_seq, kind, sealed_at_us, found_at_us, cause, payload)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                batch.epoch,
                batch.first_seq,
                batch.last_seq,
                batch.kind.value,
                microseconds(batch.sealed_at),
                microseconds(self._clock.now()),
                cause,
                batch.payload,
            ),
        )
        self.recut(connection, row, all_gone(batch.count, batch.sealed_at), NOTHING_LEFT)
        connection.execute("UPDATE buffer_totals SET broken_items = broken_items + ?", (batch.count,))
        detail = (
            f"{batch.count} items of {batch.kind.value} sealed at {batch.sealed_at.isoformat(timespec='seconds')} are"
            f" broken on the disk ({cause}); set aside in buffer_broken of agent.db"
        )
        self.notify(connection, NoticeCode.DATA_BROKEN, detail)

    def notify(self, connection: sqlite3.Connection, code: NoticeCode, detail: str) -> None:
        """Log ``detail`` and tell it to the cloud."""
        _LOG.warning("buffer: %s", detail)
        self.seal(connection, BatchBody(notices=(Notice(self._ids(), self._clock.now(), code, self._site_id, detail),)))

    def current(self, connection: sqlite3.Connection) -> tuple[int, str, int]:
        """Return number, name and next item of the present epoch; opens the first one."""
        row: tuple[int, str, int] | None = connection.execute(
            "SELECT number, epoch, next_seq FROM buffer_epochs ORDER BY number DESC LIMIT 1"
        ).fetchone()
        return row if row is not None else self.new_epoch(connection)

    def new_epoch(self, connection: sqlite3.Connection) -> tuple[int, str, int]:
        """Begin a new epoch and return it as ``current`` does."""
        epoch = self._ids()
        made = connection.execute("INSERT INTO buffer_epochs (epoch, next_seq) VALUES (?, 0)", (epoch,))
        return int(made.lastrowid or 0), epoch, 0

    @property
    def _key_id(self) -> str:
        return "" if self._signer is None else self._signer.key_id

    def _signed(self, batch: Batch) -> Batch:
        return batch if self._signer is None else self._signer.sign(batch)


def kind_of(body: BatchBody) -> BatchKind:
    """Return which lane ``body`` takes."""
    return BatchKind.CONTROL if body.acks or body.notices or body.journal else BatchKind.TELEMETRY
