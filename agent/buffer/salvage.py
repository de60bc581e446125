"""What waited in an ``agent.db`` that broke and was moved aside, taken over into the new one.

    broken file --epochs, before anything is numbered--> new file --a few batches at a time, beside all else--> waiting

Invariants: a batch is taken over under its own numbers, and only when it can be read whole; the cloud, which may have
it, takes it for the same. The broken file is only read, and stays. Cut off anywhere, the next process goes on.
"""

import asyncio
import logging
import sqlite3
from pathlib import Path
from typing import Final, NoReturn

from agent.buffer.levels import NOTHING_LEFT
from agent.buffer.rows import Rows
from agent.errors import BadInput
from agent.storage import Writer, connect_read_only
from sitelink import codec
from sitelink.codec import MalformedFrame
from sitelink.types import BatchKind, NoticeCode

_LOG: Final = logging.getLogger(__name__)
_BATCHES_A_STEP: Final = 16
_PAUSE_S: Final = 0.05
_LONGEST_SKIP: Final = 2**24
_OLD_EPOCHS: Final = "SELECT number, epoch, next_seq FROM buffer_epochs NOT INDEXED ORDER BY number"
_OLD_BATCHES: Final = (
    "SELECT rowid, epoch_number, first_seq, last_seq, kind, sealed_at_us, payload FROM buffer_batches NOT INDEXED"
    " WHERE rowid > ? AND settled_at_us IS NULL ORDER BY rowid LIMIT ?"
)
_OldRow = tuple[int, int, int, int, str, int, bytes]


class Salvage:
    """Takes over the batches of a broken file; ``folder`` is where it lies."""

    def __init__(self, writer: Writer, rows: Rows, folder: Path) -> None:
        self._writer = writer
        self._rows = rows
        self._folder = folder
        self._skip = 1

    async def begin(self, broken: Path) -> None:
        """Before anything is sealed in the new file: keep the ``broken`` one's epochs, and begin another."""
        await self._writer.run(lambda connection: self._begin(connection, broken))

    async def run(self) -> NoReturn:
        """Take over what can be read, then do nothing more."""
        while await self._writer.run(self._step):  # noqa: ASYNC110 - not polled: between steps others have their turn
            await asyncio.sleep(_PAUSE_S)
        await asyncio.Event().wait()
        raise AssertionError("unreachable: nobody sets it")

    def _begin(self, connection: sqlite3.Connection, broken: Path) -> None:
        try:
            old = connect_read_only(broken)
            try:
                epochs = old.execute(_OLD_EPOCHS).fetchall()
            finally:
                old.close()
        except (BadInput, sqlite3.DatabaseError) as error:
            _LOG.error("buffer: nothing of %s can be read: %s", broken.name, error)
            return
        statement = "INSERT OR IGNORE INTO buffer_epochs (number, epoch, next_seq) VALUES (?, ?, ?)"
        connection.executemany(statement, epochs)
        connection.execute("INSERT OR REPLACE INTO buffer_salvage VALUES (1, ?, 0, 0, 0)", (broken.name,))
        self._rows.new_epoch(connection)

    def _step(self, connection: sqlite3.Connection) -> bool:
        """Take over a few batches; return whether there may be more."""
        under_way = connection.execute("SELECT file, place, saved, unreadable FROM buffer_salvage").fetchone()
        if under_way is None:
            return False
        name, place, saved, unreadable = under_way
        found, failed = _read(self._folder / name, place)
        kept = sum(_keep(connection, row) for row in found)
        saved, unreadable = saved + kept, unreadable + len(found) - kept + failed
        place = found[-1][0] if found else place
        if failed:
            place, self._skip = place + self._skip, self._skip * 2
        if self._skip > _LONGEST_SKIP or not (found or failed):
            self._end(connection, name, saved, unreadable)
            return False
        if found:
            self._skip = 1 if not failed else self._skip
        connection.execute("UPDATE buffer_salvage SET place = ?, saved = ?, unreadable = ?", (place, saved, unreadable))
        return True

    def _end(self, connection: sqlite3.Connection, name: str, saved: int, unreadable: int) -> None:
        connection.execute("DELETE FROM buffer_salvage")
        more = f"; in {unreadable} places it could not be read, what waited there is not sent" if unreadable else ""
        detail = f"{saved} batches were taken over from {name}{more}; the file stays where it is"
        self._rows.notify(connection, NoticeCode.DATA_BROKEN, detail)


def _read(path: Path, place: int) -> tuple[list[_OldRow], bool]:
    """Return the next rows of the broken file, and whether reading failed after them."""
    found: list[_OldRow] = []
    try:
        old = connect_read_only(path)
        try:
            found.extend(old.execute(_OLD_BATCHES, (place, _BATCHES_A_STEP)))
        finally:
            old.close()
    except BadInput as error:
        _LOG.error("buffer: %s", error)
        return [], False
    except sqlite3.DatabaseError:
        return found, True
    return found, False


def _keep(connection: sqlite3.Connection, row: _OldRow) -> bool:
    """Store one row under its own numbers; return whether it is sound."""
    _, number, first_seq, last_seq, kind, sealed_at_us, payload = row
    try:
        body = codec.unpack(payload)
        if len(body) != last_seq - first_seq + 1 or first_seq < 0:
            return False
        lane = BatchKind(kind)
        level = 0 if body.readings or body.meters or lane is BatchKind.CONTROL else NOTHING_LEFT
        connection.execute(
            "INSERT OR IGNORE INTO buffer_batches"
            " (epoch_number, first_seq, last_seq, kind, sealed_at_us, payload, level) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (number, first_seq, last_seq, lane.value, int(sealed_at_us), payload, level),
        )
    except (MalformedFrame, TypeError, ValueError, OverflowError, sqlite3.IntegrityError):
        return False
    return True
