"""What the buffer's tables say of themselves; works on a read-only file, beside the daemon."""

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from agent.buffer.levels import KEPT_EVERY_S, NOTHING_LEFT
from agent.buffer.schema import has_column
from sitelink.codec.moments import moment_of
from sitelink.types import BatchKind


@dataclass(frozen=True, slots=True)
class BatchKey:
    """What names a batch of this site."""

    epoch: str
    first_seq: int


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """How much is waiting; ``oldest_at`` is when the oldest waiting batch was sealed.

    ``newest`` is the newest waiting batch of telemetry; where none waits, the place of the next.
    """

    epoch: str
    next_seq: int
    backlog_batches: int
    backlog_bytes: int
    oldest_at: datetime | None
    newest: BatchKey


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Items that were taken in and will not reach the cloud, over the file's life; each lies in a gap that does.

    ``every_s``: one item in so many seconds is being kept now; 0: all is kept; None: the oldest is given up.
    """

    thinned_items: int = 0
    given_up_items: int = 0
    broken_items: int = 0
    every_s: int | None = 0


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


def left_out(connection: sqlite3.Connection) -> LeftOut:
    """Return what was thinned, given up and found broken; works on a read-only file of any version."""
    if not has_column(connection, "buffer_gap", "level"):
        return LeftOut()
    query = "SELECT thinned_items, given_up_items, broken_items FROM buffer_totals"
    thinned, given_up, broken = connection.execute(query).fetchone()
    row = connection.execute("SELECT level FROM buffer_gap").fetchone()
    level = 0 if row is None else int(row[0])
    return LeftOut(int(thinned), int(given_up), int(broken), KEPT_EVERY_S[level] if level < NOTHING_LEFT else None)


def numbering(connection: sqlite3.Connection) -> tuple[str | None, int]:
    """Return the epoch items are numbered in (None before the first item) and the next number; reads only."""
    row: tuple[str, int] | None = connection.execute(
        "SELECT epoch, next_seq FROM buffer_epochs ORDER BY number DESC LIMIT 1"
    ).fetchone()
    return row or (None, 0)
