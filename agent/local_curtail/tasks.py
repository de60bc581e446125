"""What is left to do of the commands that are carried out beside the policy: one row a command and miner.

Invariants: a row is written before anything is sent; what was being replaced is in it by then; a row that has ended
stays a week, so that the same command again ends in nothing, but without what was asked and what it replaced. Where
these hold passwords they are sealed (``secrets``); rows of agents that did not seal them are read, and sealed by then.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from agent.local_curtail.moments import microseconds, moment_of
from agent.local_curtail.secrets import SECRET_VERBS, Secrets
from agent.storage import forget_traces
from sitelink.types import Command, Outcome, Verb

_KEEP: Final = timedelta(days=7)
_NOTHING: Final = "[]"
_COLUMNS: Final = (
    "command_id, miner_id, place, verb, parameters, not_before_us, expires_at_us, begun, kept, outcome, ended_at_us"
)


@dataclass(frozen=True, slots=True)
class Task:
    """One command for one miner, ``place`` in the command's order.

    ``begun``: it may have been sent; ``kept`` is then what it replaced, as the driver says. ``outcome`` None: it has
    not ended.
    """

    command_id: str
    miner_id: str
    place: int
    verb: Verb
    parameters: tuple[tuple[str, str], ...]
    not_before: datetime
    expires_at: datetime
    begun: bool = False
    kept: str = ""
    outcome: Outcome | None = None
    ended_at: datetime | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Return what names it."""
        return self.command_id, self.miner_id

    def ended(self, outcome: Outcome, now: datetime) -> "Task":
        """Return it as it ended; what was asked and what it replaced is of no use any more."""
        return replace(self, parameters=(), kept="", outcome=outcome, ended_at=now)


def tasks_of(command: Command) -> list[Task]:
    """Return the tasks of a command just accepted; a miner named twice is meant once."""
    span = (command.not_before, command.expires_at)
    return [
        Task(command.command_id, miner_id, place, command.verb, command.parameters, *span)
        for place, miner_id in enumerate(dict.fromkeys(command.miner_ids))
    ]


def write(connection: sqlite3.Connection, tasks: Iterable[Task], secrets: Secrets | None = None) -> None:
    """Store the tasks as they are now; what is secret in them only by ``secrets``."""
    connection.executemany(
        f"INSERT OR REPLACE INTO curtail_tasks ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        [
            (
                task.command_id,
                task.miner_id,
                task.place,
                task.verb.value,
                _stored(json.dumps(task.parameters), task.verb, _about(task.key, "parameters"), secrets),
                microseconds(task.not_before),
                microseconds(task.expires_at),
                int(task.begun),
                _stored(task.kept, task.verb, _about(task.key, "kept"), secrets),
                None if task.outcome is None else task.outcome.value,
                None if task.ended_at is None else microseconds(task.ended_at),
            )
            for task in tasks
        ],
    )


def read(connection: sqlite3.Connection, secrets: Secrets) -> dict[tuple[str, str], Task]:
    """Return every task there is, by command and miner, in the order of each command.

    One whose secrets cannot be opened is returned without what was asked.
    """
    rows = connection.execute(f"SELECT {_COLUMNS} FROM curtail_tasks ORDER BY command_id, place")  # noqa: S608
    tasks = (
        Task(
            row[0],
            row[1],
            row[2],
            Verb(row[3]),
            _parameters(secrets.opened(row[4], _about((row[0], row[1]), "parameters"))),
            moment_of(row[5]),
            moment_of(row[6]),
            bool(row[7]),
            secrets.opened(row[8], _about((row[0], row[1]), "kept")),
            None if row[9] is None else Outcome(row[9]),
            None if row[10] is None else moment_of(row[10]),
        )
        for row in rows
    )
    return {task.key: task for task in tasks}


def take_over(connection: sqlite3.Connection, secrets: Secrets) -> dict[tuple[str, str], Task]:
    """Return every task as ``read`` does, once the rows of an agent that sealed nothing are as ours."""
    found = read(connection, secrets)
    if _in_the_open(connection, found):
        forget_traces(connection)
    connection.execute("UPDATE curtail_tasks SET parameters = '[]', kept = '' WHERE outcome IS NOT NULL")
    write(connection, [task for task in found.values() if task.outcome is None and task.verb in SECRET_VERBS], secrets)
    return found


def _in_the_open(connection: sqlite3.Connection, found: Mapping[tuple[str, str], Task]) -> bool:
    """Return whether what is secret in any of the tasks ``found`` lies unsealed in its row."""
    for command_id, miner_id, parameters, kept in connection.execute(
        "SELECT command_id, miner_id, parameters, kept FROM curtail_tasks"
    ).fetchall():
        task = found[command_id, miner_id]
        asked = parameters != _NOTHING and parameters == json.dumps(task.parameters)
        if task.verb in SECRET_VERBS and (asked or (kept and kept == task.kept)):
            return True
    return False


def is_stale(task: Task, now: datetime) -> bool:
    """Return whether it ended more than a week ago."""
    return task.ended_at is not None and task.ended_at < now - _KEEP


def forget(connection: sqlite3.Connection, now: datetime) -> None:
    """Drop what is stale."""
    connection.execute("DELETE FROM curtail_tasks WHERE ended_at_us < ?", (microseconds(now - _KEEP),))


def _about(key: tuple[str, str], column: str) -> str:
    return f"{column} of order {key[0]} to {key[1]}"


def _stored(text: str, verb: Verb, about: str, secrets: Secrets | None) -> str:
    """Return a column as it lies on the disk; what is secret is left out where nobody seals it."""
    if verb not in SECRET_VERBS or text in ("", _NOTHING):
        return text
    return "" if secrets is None else secrets.sealed(text, about)


def _parameters(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in json.loads(text or _NOTHING))
