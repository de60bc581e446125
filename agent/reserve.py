"""Room on the disk that is kept for orders, acks and the journal, and what becomes of telemetry when it is used.

    disk full --a transaction of control fails--> the reserve is given back to the disk --> it succeeds
              --telemetry--> refused until as much is free again, on the disk or inside the database's own file

Invariant: telemetry never takes the room that is kept. What it cannot do: hold the room against others once it is given
back; whoever goes on filling the disk takes it from us too.
"""

import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.aside import on_disk
from agent.files import PRIVATE
from agent.storage import Result, StorageFull, Writer

_LOG: Final = logging.getLogger(__name__)
RESERVE_NAME: Final = "agent.reserve"
RESERVE_BYTES: Final = 8 * 1024**2
"""The write-ahead log between two checkpoints, and as much again for what a day of orders adds to the file."""


class Reserve:
    """A file of ``size`` bytes that holds nothing but its place."""

    def __init__(self, path: Path, size: int = RESERVE_BYTES) -> None:
        self._path = path
        self.size = size
        self.is_whole = False

    def hold(self) -> bool:
        """Make the file as large as it is to be; return whether it is. Blocks."""
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
            try:
                if os.fstat(handle).st_size < self.size:
                    os.posix_fallocate(handle, 0, self.size)
                    os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            _LOG.debug("reserve: cannot be held: %s", error)
            self.release()
            return False
        self.is_whole = True
        return True

    def release(self) -> bool:
        """Give the room back to the disk; return whether there was any. Blocks."""
        self.is_whole = False
        try:
            found = self._path.stat().st_size >= self.size
        except OSError:
            return False
        with suppress(OSError):
            self._path.unlink()
        return found


class ReservedWriter:
    """A ``Writer`` for control data, which the reserve stands behind; ``bulk`` is the one for telemetry."""

    def __init__(self, writer: Writer, reserve: Reserve) -> None:
        self._writer = writer
        self._reserve = reserve
        self.bulk: Writer = _BulkWriter(writer, reserve)

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """See ``Writer.run``; on a full disk once more, with the reserve's room."""
        try:
            return await self._writer.run(work)
        except StorageFull as error:
            if not await on_disk(self._reserve.release):
                raise
            _LOG.error("%s; orders and acks go on with the room kept for them, telemetry waits", error)
            return await self._writer.run(work)


class _BulkWriter:
    def __init__(self, writer: Writer, reserve: Reserve) -> None:
        self._writer = writer
        self._reserve = reserve

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        if self._reserve.is_whole or await on_disk(self._reserve.hold):
            return await self._writer.run(work)

        def if_there_is_room(connection: sqlite3.Connection) -> Result:
            # A file does not shrink: what was thinned or settled left room inside it.
            if _free_bytes(connection) < self._reserve.size:
                raise StorageFull("the disk has no more room than is kept for orders; free some disk space")
            return work(connection)

        return await self._writer.run(if_there_is_room)


def _free_bytes(connection: sqlite3.Connection) -> int:
    names = ("freelist_count", "page_size")
    (pages,), (page_bytes,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in names)
    return int(pages) * int(page_bytes)
