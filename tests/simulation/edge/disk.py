"""The agent's disk: real SQLite and the agent's own transactions, with every COMMIT a place to die at.

    memory   one ``:memory:`` database that outlives processes; a kill is a ROLLBACK
    disk     a file on the simulated VFS: what was not synced may be lost or torn

Invariants: work runs strictly in the order it was handed in, after a seeded latency, even if its caller is gone by
then; after ``StorageLost`` nothing runs any more in that life, as in ``ThreadWriter``.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent.buffer import schema as buffer_schema
from agent.local_curtail.schema import schema as curtail_schema
from agent.storage import StorageLost, in_transaction
from tests.simulation.world import Killed

if TYPE_CHECKING:
    from tests.simulation.edge.world import EdgeLife, EdgeWorld

SITES = {
    "Journal._take": "accept",
    "Journal._refuse": "refuse",
    "Orders._take": "enlist",
    "Orders._begin": "mark",
    "Books._store": "book",
    "Buffer.settle_through": "follow",
    "Buffer.settle": "settle",
    "Buffer.append": "seal",
    "Buffer._append_telemetry": "seal",
    "Overrides.": "override",
}
"""What a transaction is called, by the function that hands it in."""


class CrashableConnection(sqlite3.Connection):
    """One whose COMMIT may fail, or be the last thing its process does."""

    writer: "SimDiskWriter | None" = None

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == "COMMIT" and self.writer is not None:
            return self.writer.commit(self)
        return super().execute(sql, *parameters)

    def really_commit(self) -> sqlite3.Cursor:
        return super().execute("COMMIT")


def in_memory() -> CrashableConnection:
    return sqlite3.connect(":memory:", isolation_level=None, factory=CrashableConnection)


def name_of(work: Callable[..., Any]) -> str:
    """Return what the transaction of ``work`` is called."""
    code = getattr(work, "__code__", None)
    where = "" if code is None else code.co_qualname
    return next((site for start, site in SITES.items() if where.startswith(start)), "other")


class SimDiskWriter:
    """The writer's thread of one life, run by the loop."""

    def __init__(self, world: "EdgeWorld", life: "EdgeLife", connection: CrashableConnection) -> None:
        self._world, self._life = world, life
        self._connection = connection
        connection.writer = self
        self._jobs: deque[tuple[Callable[..., Any], asyncio.Future[Any]]] = deque()
        self._serving = False
        self._lost: StorageLost | None = None
        self._site = "other"
        self._changes = connection.total_changes
        self.sealed: list[Any] = []
        """Acks and notices sealed by the transaction under way."""
        life.last_words.append(self._die)

    async def run(self, work: Callable[..., Any]) -> Any:
        self._life.check()
        future = self._world.loop.create_future()
        self._jobs.append((work, future))
        if not self._serving:
            self._serve_soon()
        return await future

    def _serve_soon(self) -> None:
        self._serving = True
        self._world.loop.call_later(self._world.rng_disk.uniform(0.001, 0.01), self._serve)

    def _serve(self) -> None:
        if self._life.dead:
            return
        work, future = self._jobs.popleft()
        outcome: Any = None
        failure: BaseException | None = self._lost
        if failure is None:
            try:
                outcome = self._work(work)
            except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
                failure = error
        if isinstance(failure, StorageLost):
            self._lost = failure
        if not future.done():
            if failure is None:
                future.set_result(outcome)
            else:
                future.set_exception(failure)
                future._log_traceback = False
        if self._jobs:
            self._serve_soon()
        else:
            self._serving = False

    def _work(self, work: Callable[..., Any]) -> Any:
        self._site, self.sealed = name_of(work), []
        return in_transaction(self._connection, work)

    def keep(self, batch: Any) -> None:
        """Note that the agent was told that ``batch`` is stored."""
        self._world.stored_on_disk(batch)

    def dropped(self) -> None:
        """Note that the agent kept nothing of what it was given."""
        self._world.dropped += 1
        self._world.cover("buffer full")

    def commit(self, connection: CrashableConnection) -> sqlite3.Cursor:
        """Commit, unless the disk is full or fails, or the process dies before or after it."""
        changed = connection.total_changes != self._changes
        self._changes = connection.total_changes
        if not changed:
            return connection.really_commit()
        if any(batch.kind == "control" for batch in self.sealed) and self._site == "book":
            self._site = "finish"
        self._world.note("commit", self._site)
        self._life.reach(self._site, after=False)
        failure = self._world.disk_failure()
        if failure is not None:
            error = sqlite3.OperationalError(failure.words)
            error.sqlite_errorcode = failure.code
            if failure.stored:
                connection.really_commit()
                self._keep_promises()
            raise error
        done = connection.really_commit()
        self._keep_promises()
        self._life.reach(self._site, after=True)
        return done

    def _keep_promises(self) -> None:
        """What is on the disk is promised, even if nobody lives to be told."""
        for batch in self.sealed:
            self._world.stored_on_disk(batch)

    def _die(self) -> None:
        for _, future in self._jobs:
            if not future.done():
                future.set_exception(Killed())
                future._log_traceback = False
        self._jobs.clear()


def make_tables(connection: sqlite3.Connection) -> None:
    buffer_schema(connection)
    curtail_schema(connection)
