"""The one door to the agent's database file: a connection recipe and a single writer.

Invariants:

* Every change is durable before its caller hears of it (WAL, ``synchronous=FULL``).
* The file is its owner's alone, and so are the ``-wal`` and ``-shm`` beside it: they take its mode.
* One piece of work is one transaction: it is stored whole or not at all.
* A COMMIT that failed for anything but a full disk is an unknown outcome: nobody may guess. ``StorageLost`` ends the
  process; the next one opens the file and reads what is there. It is no ``Exception``, so no task supervisor or
  careless handler can swallow it.
* What is deleted or replaced is overwritten with zeros in the file. Where an agent of before wrote secrets in the open,
  whoever takes them out says so (``forget_traces``), and once that is durable the file and its log are cleared of them.

      caller --run(work)--> queue --> one thread: BEGIN IMMEDIATE, work(connection), COMMIT --> result --> caller
"""

import asyncio
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from agent.errors import BadInput, Transient
from agent.files import PRIVATE

_LOG: Final = logging.getLogger(__name__)
Result = TypeVar("Result")

_BUSY_S: Final = 5.0
_BESIDE: Final = ("-wal", "-shm")
_OTHERS: Final = 0o077
_READ_WHOLE_BYTES: Final = 256 * 1024**2
_WRITE_WHOLE_BYTES: Final = 64 * 1024**2
_NOT_OPENED: Final = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR}
_BROKEN_FILE: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class StorageLost(BaseException):
    """What the database holds is not known, or the file is broken: end the process, a supervisor starts it again."""


class StorageFull(Transient):
    """The disk has no room or takes no writes; nothing of this transaction was stored."""


class Writer(Protocol):
    """Runs work against the database, one piece at a time, each in its own transaction."""

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Return ``work(connection)`` once its transaction is durable.

        An exception of ``work`` rolls its transaction back and is raised here. A caller that is cancelled does not
        know whether its work was stored.

        Raises:
            Transient: the database is busy or the disk is full; nothing was stored.
            StorageLost: the outcome is unknown or the file is broken.
        """
        ...


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection to the file at ``path``: WAL, FULL, explicit transactions, usable from one thread.

    Raises:
        BadInput: the file cannot be opened at all.
        sqlite3.DatabaseError: the file is not a sound database.
    """
    with _opening(path):
        _make_private(path)
        connection = sqlite3.connect(
            path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")
    return connection


class _Connection(sqlite3.Connection):
    """One that remembers that traces of secrets are to go once its transaction is durable."""

    rewrite_due = False
    truncate_due = False


def forget_traces(connection: sqlite3.Connection) -> None:
    """Have what this transaction takes out leave no trace in the file's free space or its log, once it is committed.

    For secrets that were written in the open. The file is written anew, unless it is so large that orders would wait
    for it; its log is emptied as soon as nobody reads it.
    """
    if isinstance(connection, _Connection):
        connection.rewrite_due = connection.truncate_due = True


def _make_private(path: Path) -> None:
    """Make the file where it is missing, and close it to others; what cannot be done here is left to SQLite to say."""
    with suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE))
    for part in (path, *(path.with_name(path.name + ending) for ending in _BESIDE)):
        with suppress(OSError):
            if part.stat().st_mode & _OTHERS:
                part.chmod(PRIVATE)


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Return a connection that cannot write, for looking at a file that a daemon may be using.

    Raises:
        BadInput: there is no such file, or it cannot be opened.
    """
    if not is_there(path):
        raise BadInput(f"{path}: no such file; the agent has not run with these settings yet")
    with _opening(path):
        connection = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, timeout=_BUSY_S, isolation_level=None)
        connection.execute("PRAGMA query_only=ON")
    return connection


def is_there(path: Path) -> bool:
    """Return whether something stands at ``path``.

    Raises:
        BadInput: its folder may not be looked into.
    """
    with _opening(path):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Translate what keeps the file from being opened."""
    try:
        yield
    except OSError as error:
        cause = error.strerror
    except sqlite3.OperationalError as error:
        if _code(error) not in _NOT_OPENED:
            raise
        cause = str(error)
    else:
        return
    raise BadInput(f"{path}: cannot be opened: {cause}; check [site] state_dir and whether this user may write there")


def suspect(path: Path) -> None:
    """Have the next ``quarantine_if_broken`` read every page of the file at ``path``, however long it takes."""
    _suspicion(path).touch()


def quarantine_if_broken(path: Path, suffix: str) -> Path | None:
    """Check the file at ``path``; move it aside when it is not a sound database.

    A file too large to be read whole at each start is, unless it is suspect: a site's curtailments wait meanwhile.

    Returns:
        The new name of the broken file (its ``-wal`` and ``-shm`` go with it), None when all is well.
    """
    suspicion = _suspicion(path)
    suspected = suspicion.exists()
    whole = suspected or (path.exists() and path.stat().st_size <= _READ_WHOLE_BYTES)
    sound = not path.exists() or _sound(path, whole=whole)
    suspicion.unlink(missing_ok=True)
    if sound:
        return None
    moved = path.with_name(f"{path.name}.broken-{suffix}")
    for ending in (*_BESIDE, ""):
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(moved.with_name(moved.name + ending))
    return moved


class ThreadWriter:
    """The real writer: one connection, owned by one thread."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path)
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lost: StorageLost | None = None
        self._thread = threading.Thread(target=self._serve, name="agent-writer", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """See ``Writer.run``."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.put(_Job(work, future, loop))
        result: Result = await future
        return result

    def close(self) -> None:
        """Finish the work handed in so far, then close the file."""
        self._queue.put(None)
        self._thread.join()
        self._connection.close()

    def _serve(self) -> None:
        while (job := self._queue.get()) is not None:
            if self._lost is None:
                try:
                    result = in_transaction(self._connection, job.work)
                except StorageLost as error:
                    self._lost = error
                except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
                    job.fail(error)
                else:
                    job.finish(result)
            if self._lost is not None:
                job.fail(self._lost)


class _Job:
    """One piece of work and who waits for it."""

    __slots__ = ("_future", "_loop", "work")

    def __init__(
        self, work: Callable[[sqlite3.Connection], Any], future: asyncio.Future[Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.work = work
        self._future = future
        self._loop = loop

    def finish(self, result: Any) -> None:
        self._tell(self._future.set_result, result)

    def fail(self, error: BaseException) -> None:
        self._tell(self._future.set_exception, error)

    def _tell(self, tell: Callable[[Any], None], outcome: Any) -> None:
        def unless_cancelled() -> None:
            if not self._future.done():
                tell(outcome)

        try:
            self._loop.call_soon_threadsafe(unless_cancelled)
        except RuntimeError:
            return  # the loop has closed: nobody waits any more


async def uninterrupted(work: Coroutine[Any, Any, Result]) -> Result:
    """Return what ``work`` returns. A caller cancelled meanwhile is cancelled once ``work`` has ended.

    For work that changes memory after its transaction: half of it would leave memory behind the disk.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # seen: what the caller is told is that it was cancelled
        raise


def on_loop(call: Callable[[], None]) -> Callable[[], None]:
    """Return a function that any thread may call to have ``call`` run soon on the running event loop."""
    loop = asyncio.get_running_loop()

    def call_soon() -> None:
        try:
            loop.call_soon_threadsafe(call)
        except RuntimeError:
            return  # the loop has closed: nobody listens any more, and that is no reason to fail a transaction

    return call_soon


def in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], Result]) -> Result:
    """Return ``work(connection)`` after committing its transaction.

    Raises:
        Transient: the database is busy or the disk is full; nothing was stored.
        StorageLost: the outcome is unknown or the file is broken.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        raise _translated(error) from error
    try:
        result = work(connection)
    except BaseException as error:
        _roll_back(connection)
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, _PROGRAMMING):
            raise _translated(error) from error
        raise
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        # Without room the commit record, which comes last, is not whole; SQLite keeps the transaction or undoes it.
        if _code(error) == sqlite3.SQLITE_FULL:
            _roll_back(connection)
            raise StorageFull(f"agent.db: {error}; free some disk space") from error
        raise StorageLost(f"agent.db: COMMIT failed ({error}); whether it was stored is unknown, restarting") from error
    if isinstance(connection, _Connection) and connection.truncate_due:
        _clear(connection)
    return result


def _clear(connection: _Connection) -> None:
    """Clear the file, once, and its log, now or after a later transaction, of what was taken out of them."""
    try:
        if connection.rewrite_due:
            connection.rewrite_due = False
            _rewrite(connection)
        connection.execute("PRAGMA busy_timeout=0")  # who reads meanwhile holds up nobody's order
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        connection.truncate_due = bool(busy)
    except sqlite3.Error as error:
        _LOG.warning("agent.db: traces of passwords that lay in it in the open are left: %s", error)
    finally:
        connection.execute(f"PRAGMA busy_timeout={round(_BUSY_S * 1000)}")


def _rewrite(connection: _Connection) -> None:
    (pages,), (page_bytes,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    if pages * page_bytes <= _WRITE_WHOLE_BYTES:
        connection.execute("VACUUM")


_PROGRAMMING: Final = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError)


def _translated(error: sqlite3.Error) -> BaseException:
    code = _code(error)
    if code in _BROKEN_FILE or code == sqlite3.SQLITE_IOERR:
        return StorageLost(f"agent.db: {error}; restarting to check the file")
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(f"agent.db: {error}; free some disk space")
    if code == sqlite3.SQLITE_READONLY:
        return StorageFull(f"agent.db: {error}; make its file system writable again")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Transient(f"agent.db: {error}; another process holds it")
    return error


def _roll_back(connection: sqlite3.Connection) -> None:
    if not connection.in_transaction:
        return
    try:
        connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise StorageLost(f"agent.db: ROLLBACK failed ({error}); restarting to check the file") from error


def _code(error: sqlite3.Error) -> int:
    code = getattr(error, "sqlite_errorcode", None)
    return int(code) & 0xFF if code is not None else -1


def _suspicion(path: Path) -> Path:
    return path.with_name(path.name + ".suspect")


def _sound(path: Path, *, whole: bool) -> bool:
    try:
        connection = connect(path)
    except sqlite3.DatabaseError as error:
        if _code(error) in _BROKEN_FILE:
            return False
        raise
    try:
        if not whole:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return True
        answer: tuple[str] = connection.execute("PRAGMA quick_check(1)").fetchone()
        return answer[0] == "ok"
    except sqlite3.DatabaseError as error:
        if _code(error) in _BROKEN_FILE:
            return False
        raise
    finally:
        connection.close()


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
