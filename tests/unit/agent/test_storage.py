"""One transaction a piece of work; an unknown outcome ends the process."""

import asyncio
import errno
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import storage
from agent.errors import BadInput, Transient
from agent.storage import (
    StorageFull,
    StorageLost,
    ThreadWriter,
    connect,
    connect_read_only,
    in_transaction,
    on_loop,
    quarantine_if_broken,
    suspect,
)

pytestmark = pytest.mark.agent


def make_table(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS t (x INTEGER PRIMARY KEY)")


def rows(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT x FROM t ORDER BY x")]


class FailingConnection:
    """Passes everything on, but fails at one statement."""

    def __init__(self, connection: sqlite3.Connection, statement: str, code: int, *, after: bool = False) -> None:
        self._connection = connection
        self._statement = statement
        self._code = code
        self._after = after

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        if sql.startswith(self._statement):
            if self._after:
                self._connection.execute(sql)
            error = sqlite3.OperationalError(f"made to fail at {sql}")
            error.sqlite_errorcode = self._code
            raise error
        return self._connection.execute(sql, *parameters)


def test_the_file_is_durable_at_every_commit(tmp_path: Path) -> None:
    connection = connect(tmp_path / "agent.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot be opened: unable to open .*check \[site\] state_dir"):
        connect(tmp_path / "nowhere" / "agent.db")
    for path in (tmp_path / "agent.db", tmp_path / "nowhere" / "agent.db"):
        with pytest.raises(BadInput, match="has not run"):
            connect_read_only(path)


@pytest.mark.parametrize("opened", [connect, connect_read_only])
def test_a_folder_in_the_files_place_is_told(tmp_path: Path, opened: Callable[[Path], sqlite3.Connection]) -> None:
    with pytest.raises(BadInput, match=r"cannot be opened: .*; check \[site\] state_dir"):
        opened(tmp_path)


def test_a_folder_of_another_user_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(BadInput, match=r"agent\.db: cannot be opened: Permission denied; check"):
        connect_read_only(tmp_path / "agent.db")


async def test_work_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    writer = ThreadWriter(tmp_path / "agent.db")
    await writer.run(make_table)

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (1)")
        raise KeyError("half way")

    with pytest.raises(KeyError, match="half way"):
        await writer.run(half)
    await writer.run(lambda connection: connection.execute("INSERT INTO t VALUES (2)") and None)
    assert await writer.run(rows) == [2]
    writer.close()
    reader = connect_read_only(tmp_path / "agent.db")
    assert rows(reader) == [2]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM t")
    reader.close()


async def test_a_broken_rule_of_the_tables_stays_what_it_is(tmp_path: Path) -> None:
    writer = ThreadWriter(tmp_path / "agent.db")
    await writer.run(make_table)

    def twice(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (1), (1)")

    with pytest.raises(sqlite3.IntegrityError):
        await writer.run(twice)
    assert await writer.run(rows) == []
    writer.close()


async def test_work_handed_in_before_closing_is_done(tmp_path: Path) -> None:
    writer = ThreadWriter(tmp_path / "agent.db")
    await writer.run(make_table)
    task = asyncio.create_task(writer.run(lambda connection: connection.execute("INSERT INTO t VALUES (7)") and None))
    await asyncio.sleep(0)
    task.cancel()
    writer.close()
    connection = connect(tmp_path / "agent.db")
    assert rows(connection) == [7], "a cancelled caller does not take back what it handed in"
    connection.close()


async def test_after_an_unknown_outcome_nothing_goes_on(tmp_path: Path) -> None:
    writer = ThreadWriter(tmp_path / "agent.db")
    await writer.run(make_table)
    real = writer._connection
    writer._connection = FailingConnection(real, "COMMIT", sqlite3.SQLITE_IOERR, after=True)
    with pytest.raises(StorageLost, match="whether it was stored is unknown"):
        await writer.run(lambda connection: connection.execute("INSERT INTO t VALUES (1)") and None)
    with pytest.raises(StorageLost):
        await writer.run(rows)
    assert not isinstance(StorageLost(""), Exception), "no handler of errors may swallow it"
    writer._connection = real
    writer.close()


@pytest.mark.parametrize(
    ("statement", "code", "kind"),
    [
        ("BEGIN", sqlite3.SQLITE_BUSY, Transient),
        ("BEGIN", sqlite3.SQLITE_CORRUPT, StorageLost),
        ("COMMIT", sqlite3.SQLITE_FULL, StorageFull),
        ("COMMIT", sqlite3.SQLITE_IOERR, StorageLost),
        ("COMMIT", sqlite3.SQLITE_BUSY, StorageLost),
        ("INSERT", sqlite3.SQLITE_FULL, StorageFull),
        ("INSERT", sqlite3.SQLITE_CORRUPT, StorageLost),
    ],
)
def test_each_failure_is_what_it_means(statement: str, code: int, kind: type[BaseException]) -> None:
    real = sqlite3.connect(":memory:", isolation_level=None)
    make_table(real)
    failing = FailingConnection(real, statement, code)
    with pytest.raises(kind):
        in_transaction(failing, lambda connection: connection.execute("INSERT INTO t VALUES (1)"))  # type: ignore[arg-type]
    if kind is not StorageLost:
        assert not real.in_transaction
        assert rows(real) == []
    real.close()


def test_a_sound_file_is_left_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    assert quarantine_if_broken(path, "x") is None
    connection = connect(path)
    make_table(connection)
    connection.close()
    assert quarantine_if_broken(path, "x") is None
    assert path.exists()


def test_a_large_file_is_read_whole_only_when_suspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_READ_WHOLE_BYTES", 100)
    path = tmp_path / "agent.db"
    connection = connect(path)
    make_table(connection)
    connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(5000)])
    connection.close()
    content = bytearray(path.read_bytes())
    content[4096 : 3 * 4096] = b"\xff" * 8192
    path.write_bytes(content)
    assert quarantine_if_broken(path, "x") is None
    suspect(path)
    assert quarantine_if_broken(path, "x") is not None
    assert [entry.name for entry in tmp_path.iterdir()] == ["agent.db.broken-x"]


@pytest.mark.parametrize("damage", ["header", "page", "garbage"])
def test_a_broken_file_is_put_aside_with_its_log(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "agent.db"
    connection = connect(path)
    make_table(connection)
    connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(5000)])
    connection.close()
    content = bytearray(path.read_bytes())
    if damage == "header":
        content[:16] = b"x" * 16
    elif damage == "page":
        content[4096 : 3 * 4096] = b"\xff" * 8192
    else:
        content[:] = b"no database at all"
    path.write_bytes(content)
    moved = quarantine_if_broken(path, "20261124")
    assert moved == tmp_path / "agent.db.broken-20261124"
    assert moved.read_bytes() == bytes(content)
    assert not path.exists()
    assert not path.with_name("agent.db-wal").exists()


async def test_a_call_from_another_thread_arrives_on_the_loop() -> None:
    rung = asyncio.Event()
    await asyncio.to_thread(on_loop(rung.set))
    async with asyncio.timeout(5):
        await rung.wait()


def test_a_call_to_a_loop_that_has_ended_is_dropped() -> None:
    async def make():
        return on_loop(lambda: None)

    asyncio.run(make())()
