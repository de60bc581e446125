"""What the buffer's tables say of themselves; works on a read-only file, beside the daemon."""

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from sitelink.codec.moments import moment_of
from sitelink.types import BatchKind


@dataclass(frozen=True, slots=True)
class BatchKey:
    """What names a batch of this site."""

    epoch: str
    first_seq: int


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """How much is waiting; ``oldest_at`` is when the oldest waiting batch was sealed."""

    epoch: str
    next_seq: int
    backlog_batches: int
    backlog_bytes: int
    oldest_at: datetime | None


def is_unused(connection: sqlite3.Connection) -> bool:
    """Return whether no agent has begun to buffer in this file yet: a failsafe alone has written it. Reads only."""
    query = "SELECT count(*) FROM sqlite_master WHERE name = 'buffer_totals'"
    (count,) = connection.execute(query).fetchone()
    return int(count) == 0


def waiting(connection: sqlite3.Connection) -> tuple[int, int, datetime | None]:
    """Return how many batches and payload bytes wait, and when the oldest was sealed; works on a read-only file."""
    batches, size = connection.execute("SELECT waiting_batches, waiting_bytes FROM buffer_totals").fetchone()
    oldest = [
        row[0]
        for kind in BatchKind
        for row in connection.execute(
            "SELECT sealed_at_us FROM buffer_batches WHERE settled_at_us IS NULL AND kind = ?"
            " ORDER BY epoch_number, first_seq LIMIT 1",
            (kind.value,),
        )
    ]
    return int(batches), int(size), moment_of(min(oldest)) if oldest else None


def numbering(connection: sqlite3.Connection) -> tuple[str | None, int]:
    """Return the epoch items are numbered in (None before the first item) and the next number; reads only."""
    row: tuple[str, int] | None = connection.execute(
        "SELECT epoch, next_seq FROM buffer_epochs ORDER BY number DESC LIMIT 1"
    ).fetchone()
    return row or (None, 0)
