"""Passwords of pools in agent.db: sealed with the vault's key, gone with their order, in files of their owner alone."""

import logging
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.cgminer.credentials import Credentials
from agent.local_curtail import inbox, tasks
from agent.local_curtail.schema import schema
from agent.local_curtail.tasks import Task
from agent.settings import load_settings
from agent.storage import connect, connect_read_only, in_transaction
from agent.vault import Vault
from agent.vault.texts import SealedTexts
from sitelink.orders import read_command, write_command
from sitelink.types import Command, Outcome, Verb

pytestmark = pytest.mark.agent

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECRET = "hush-pool-1234"
ASKED = (("pools", f'[{{"url":"stratum+tcp://a.example:1","user":"u","password":"{SECRET}"}}]'),)
KEPT = f'{{"pools": [{{"url": "stratum+tcp://b.example:1", "user": "u", "pass": "{SECRET}"}}]}}'
TASK = Task("c1", "m1", 0, Verb.POOLS, ASKED, NOON, NOON + HOUR, begun=True, kept=KEPT)
COMMAND = Command("c1", "s", "a", 1, 5, NOON, NOON + HOUR, Verb.POOLS, ("m1",), "why", parameters=ASKED)


class InTheOpen:
    """What an agent did that sealed nothing."""

    def sealed(self, text: str, about: str) -> str:
        return text

    def opened(self, text: str, about: str) -> str:
        return text


def texts_in(folder: Path) -> SealedTexts:
    (folder / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\n', "utf-8")
    (folder / "state").mkdir(exist_ok=True)
    return SealedTexts(vault_in(folder))


def vault_in(folder: Path) -> Vault:
    return Vault.open(load_settings(folder / "agent.toml", {}))


def database_in(folder: Path) -> sqlite3.Connection:
    connection = connect(folder / "state" / "agent.db")
    schema(connection)
    return connection


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((folder / "state").glob("agent.db*")))


def test_what_an_order_asks_and_replaces_is_nowhere_on_the_disk_and_read_again(tmp_path: Path) -> None:
    secrets = texts_in(tmp_path)
    with closing(database_in(tmp_path)) as connection:
        in_transaction(connection, lambda db: tasks.write(db, [TASK], secrets))
        in_transaction(connection, lambda db: inbox.hold_command(db, COMMAND, write_command(COMMAND), NOON, secrets))
        assert SECRET.encode() not in on_disk(tmp_path)
        again = SealedTexts(vault_in(tmp_path))  # the next process
        assert tasks.read(connection, again) == {TASK.key: TASK}
        assert [read_command(payload) for payload in inbox.commands(connection, again)] == [COMMAND]
        assert inbox.command_payload(connection, 1, 5, "c1", again) == write_command(COMMAND)


def test_an_ended_order_keeps_neither(tmp_path: Path) -> None:
    secrets = texts_in(tmp_path)
    with closing(database_in(tmp_path)) as connection:
        in_transaction(connection, lambda db: tasks.write(db, [TASK], secrets))
        in_transaction(connection, lambda db: tasks.write(db, [TASK.ended(Outcome.COMPLETE, NOON)]))
        assert connection.execute("SELECT parameters, kept FROM curtail_tasks").fetchall() == [("[]", "")]
        assert tasks.read(connection, secrets)[TASK.key].outcome is Outcome.COMPLETE


def test_rows_of_an_agent_that_sealed_nothing_are_read_and_then_sealed_or_dropped(tmp_path: Path) -> None:
    secrets = texts_in(tmp_path)
    ended = replace(TASK, command_id="c0", outcome=Outcome.COMPLETE, ended_at=NOON)
    with closing(database_in(tmp_path)) as connection:
        in_transaction(connection, lambda db: tasks.write(db, [TASK, ended], InTheOpen()))
        connection.execute("INSERT INTO curtail_commands VALUES (1, 5, 'c1', ?, 0)", (write_command(COMMAND),))
        assert SECRET.encode() in on_disk(tmp_path)
        found = in_transaction(connection, lambda db: tasks.take_over(db, secrets))
        assert found[TASK.key] == TASK
        kept = [(COMMAND, write_command(COMMAND))]
        in_transaction(connection, lambda db: inbox.seal_commands(db, kept, secrets))
        assert SECRET.encode() not in on_disk(tmp_path)
        assert tasks.read(connection, secrets)[TASK.key] == TASK
        assert inbox.commands(connection, secrets) == (write_command(COMMAND),)


@pytest.mark.parametrize("padding", [10, 6000])
@pytest.mark.parametrize("killed", [False, True])
def test_an_agent_that_sealed_nothing_leaves_no_trace_in_free_pages_or_the_log(
    tmp_path: Path, padding: int, *, killed: bool
) -> None:
    secrets, long = texts_in(tmp_path), (("pools", f"{'u' * padding} {SECRET}"),)
    old = [replace(TASK, command_id=f"c{n}", parameters=long, kept=f"{SECRET}{'k' * padding}") for n in range(40)]
    with closing(database_in(tmp_path)) as before:
        before.execute("PRAGMA secure_delete=OFF")
        in_transaction(before, lambda db: tasks.write(db, old, InTheOpen()))
        before.execute("DELETE FROM curtail_tasks WHERE command_id > 'c2'")
        if not killed:
            before.close()
        with closing(database_in(tmp_path)) as connection:
            found = in_transaction(connection, lambda db: tasks.take_over(db, secrets))
            assert SECRET.encode() not in on_disk(tmp_path)
            assert found
            ended = [task.ended(Outcome.COMPLETE, NOON) for task in found.values()]
            in_transaction(connection, lambda db: tasks.write(db, ended, secrets))
            in_transaction(connection, lambda db: tasks.take_over(db, secrets))
            assert tasks.read(connection, secrets) == {task.key: task for task in ended}
        assert SECRET.encode() not in on_disk(tmp_path)


def test_the_log_is_emptied_once_nobody_reads_it_any_more(tmp_path: Path) -> None:
    secrets = texts_in(tmp_path)
    with closing(database_in(tmp_path)) as connection:
        in_transaction(connection, lambda db: tasks.write(db, [TASK], InTheOpen()))
        with closing(connect_read_only(tmp_path / "state" / "agent.db")) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM curtail_tasks").fetchone() == (1,)
            began_s = time.monotonic()
            in_transaction(connection, lambda db: tasks.take_over(db, secrets))
            assert time.monotonic() - began_s < 2, "an order waited for a reader"
            assert SECRET.encode() in on_disk(tmp_path)
        in_transaction(connection, lambda db: tasks.read(db, secrets))
        assert SECRET.encode() not in on_disk(tmp_path)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (5000,)


def test_a_file_that_cannot_be_written_anew_stays_as_sound_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = texts_in(tmp_path)
    with closing(database_in(tmp_path)) as connection:
        in_transaction(connection, lambda db: tasks.write(db, [TASK], InTheOpen()))
        reading = connection.execute("SELECT command_id FROM curtail_tasks UNION ALL SELECT 'more'")
        reading.fetchone()  # a statement under way: SQLite refuses to write the file anew
        assert in_transaction(connection, lambda db: tasks.take_over(db, secrets)) == {TASK.key: TASK}
        assert "traces of passwords" in caplog.text
        reading.close()
        in_transaction(connection, lambda db: tasks.read(db, secrets))
        assert SECRET.encode() not in on_disk(tmp_path)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (5000,)


def test_what_is_replaced_later_is_overwritten_too(tmp_path: Path) -> None:
    """Of texts that overflow into pages of their own nothing is left when their row ends."""
    texts_in(tmp_path)
    marked = replace(TASK, verb=Verb.LIMIT, parameters=(("mode", "u" * 6000 + "MARKED"),), kept="")
    with closing(database_in(tmp_path)) as connection:
        in_transaction(connection, lambda db: tasks.write(db, [marked]))
        in_transaction(connection, lambda db: tasks.write(db, [marked.ended(Outcome.COMPLETE, NOON)]))
    assert b"MARKED" not in on_disk(tmp_path)


def test_without_a_key_nothing_is_stored_in_the_open_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = texts_in(tmp_path)
    (tmp_path / "state" / "credentials.key").write_text("no key")
    with closing(database_in(tmp_path)) as connection, caplog.at_level(logging.ERROR):
        in_transaction(connection, lambda db: tasks.write(db, [TASK], secrets))
        assert SECRET.encode() not in on_disk(tmp_path)
        assert tasks.read(connection, secrets)[TASK.key] == replace(TASK, parameters=(), kept="")
    assert "there is no key to seal it with" in caplog.text
    assert SECRET not in caplog.text


def test_what_was_sealed_opens_for_its_own_row_alone_and_only_unchanged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = texts_in(tmp_path)
    sealed = secrets.sealed(SECRET, "row 1")
    assert secrets.opened(sealed, "row 1") == SECRET
    assert secrets.opened(sealed, "row 2") == ""
    assert secrets.opened(sealed[:-8] + "AAAAAAA=", "row 1") == ""
    assert secrets.opened("sealed:deadbeef:AAAA", "row 1") == ""
    assert "order it again" in caplog.text


def test_a_rekey_meanwhile_loses_nothing(tmp_path: Path) -> None:
    secrets = texts_in(tmp_path)
    vault = vault_in(tmp_path)
    vault.put("antminer", Credentials("root", "r"))
    sealed = secrets.sealed(SECRET, "row 1")
    vault.rekey()
    assert secrets.opened(sealed, "row 1") == SECRET


def test_the_database_and_what_lies_beside_it_are_their_owners_alone(tmp_path: Path) -> None:
    def modes() -> dict[str, int]:
        return {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}

    path = tmp_path / "agent.db"
    with closing(connect(path)) as connection:
        schema(connection)
        assert modes() == {"agent.db": 0o600, "agent.db-wal": 0o600, "agent.db-shm": 0o600}
        for part in tmp_path.iterdir():
            part.chmod(0o644)
        with closing(connect(path)) as other:
            schema(other)
            assert modes() == {"agent.db": 0o600, "agent.db-wal": 0o600, "agent.db-shm": 0o600}
