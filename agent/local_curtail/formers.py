"""What each miner was set to before a stop of ours, in ``agent.db``, until it runs with it again.

    load (once) --> memory <-- remember, durable first <-- a stop
                      '------> recall                  --> a start, whatever became of the disk

Invariant: ``recall`` reads memory alone, so that no start waits for a database that is full, locked or broken.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

from agent.cgminer.control.former import is_settled
from agent.errors import AgentError, Transient
from agent.local_curtail.schema import schema
from agent.storage import StorageFull, StorageLost, Writer, connect, in_transaction, uninterrupted

_LOG: Final = logging.getLogger(__name__)
_TOGETHER_S: Final = 0.01
_Result = TypeVar("_Result")


class Formers:
    """The agent's ``Former``: kept by the one writer, recalled from memory."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._kept: dict[str, str] = {}
        self._owed: set[str] = set()
        self._coming: dict[str, str] = {}
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        """Take up what earlier processes kept. A disk that cannot be read now is logged: starts go on without."""
        try:
            self._kept = {**await self._writer.run(read), **self._kept}
        except Transient as error:
            _LOG.error("curtailment: what miners were set to before their stop cannot be read: %s", error)

    async def remember(self, miner_id: str, configuration: str) -> None:
        """See ``Former.remember``. Raises Transient when nothing was stored.

        A full disk is no reason: by plan nobody is stopped on one, and what a technician orders waits for none.
        """
        if self._kept.get(miner_id) == configuration and miner_id not in self._owed:
            return
        self._coming[miner_id] = configuration
        async with self._turn:  # whoever waits while a transaction runs shares the next one
            if self._coming.get(miner_id) == configuration:
                await uninterrupted(self._store())

    async def _store(self) -> None:
        coming = dict(self._coming)
        owed = {**{name: self._kept[name] for name in self._owed}, **coming}

        def work(connection: sqlite3.Connection) -> None:
            for name, kept in owed.items():
                write(connection, name, kept)

        try:
            await self._writer.run(work)
            self._owed -= owed.keys()
        except StorageFull as error:
            _LOG.warning("what %d miners are set to is kept in memory only: %s", len(coming), error)
            self._owed |= coming.keys()
        self._kept |= coming
        for name, kept in coming.items():
            if self._coming.get(name) == kept:
                del self._coming[name]

    async def recall(self, miner_id: str) -> str:
        """See ``Former.recall``."""
        return self._kept.get(miner_id, "")

    def owed(self) -> tuple[str, ...]:
        """Return the miners that may still have to be given back what they were set to."""
        return tuple(miner_id for miner_id, kept in self._kept.items() if not is_settled(kept))


class FormersOnFile:
    """The failsafe's ``Former``: it has no writer, and no miner waits for the repair of a database.

    Once the file cannot be used, what is kept lives in memory for the rest of the run, and that is logged once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._usable = True
        self._coming: dict[str, str] = {}
        self._kept: dict[str, str] = {}
        self._kept = self._in_file(read) or {}

    async def remember(self, miner_id: str, configuration: str) -> None:
        """See ``Former.remember``; never raises."""
        if self._kept.get(miner_id) == configuration:
            return
        self._coming[miner_id] = configuration
        await asyncio.sleep(_TOGETHER_S)  # those who come meanwhile share one transaction
        coming, self._coming = self._coming, {}

        def work(connection: sqlite3.Connection) -> None:
            for name, kept in coming.items():
                write(connection, name, kept)

        if coming:
            self._in_file(work)
            self._kept |= coming

    async def recall(self, miner_id: str) -> str:
        """See ``Former.recall``."""
        return self._kept.get(miner_id, "")

    def _in_file(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result | None:
        """Return ``work(connection)`` after committing it, None when the file cannot be used."""
        if not self._usable:
            return None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(connect(self._path)) as connection:
                return in_transaction(connection, lambda db: _with_table(db, work))
        except (OSError, sqlite3.Error, AgentError, StorageLost) as error:
            self._usable = False
            _LOG.error("what miners are set to before a stop is not kept: %s", error)
            return None


def _with_table(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
    schema(connection)
    return work(connection)


def write(connection: sqlite3.Connection, miner_id: str, configuration: str) -> None:
    """Store the configuration of one miner, in place of an earlier one."""
    connection.execute(
        "INSERT OR REPLACE INTO curtail_formers (miner_id, record) VALUES (?, ?)", (miner_id, configuration)
    )


def read(connection: sqlite3.Connection) -> dict[str, str]:
    """Return all that is stored, by miner."""
    rows = connection.execute("SELECT miner_id, record FROM curtail_formers")
    return {str(miner_id): str(record) for miner_id, record in rows}
