"""The rows behind the journal: the plan in force, commands until they expire, counts of refusals.

Invariant: a command that holds passwords is sealed, which shows by its being text and no bytes.
"""

import base64
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from agent.local_curtail.moments import microseconds
from agent.local_curtail.secrets import SECRET_VERBS, Secrets
from agent.storage import forget_traces
from sitelink.types import Command


@dataclass(frozen=True, slots=True)
class HeldPlan:
    """The canonical bytes of the plan in force and its number."""

    signing_epoch: int
    sequence: int
    payload: bytes

    @property
    def key(self) -> tuple[int, int, bytes]:
        """Return what an arriving plan is compared with."""
        return (self.signing_epoch, self.sequence, self.payload)


def held_plan(connection: sqlite3.Connection) -> HeldPlan | None:
    """Return the plan in force."""
    row = connection.execute("SELECT signing_epoch, sequence, payload FROM curtail_plan").fetchone()
    return None if row is None else HeldPlan(*row)


def hold_plan(connection: sqlite3.Connection, plan: HeldPlan, at: datetime) -> None:
    """Replace the plan in force."""
    connection.execute(
        "INSERT OR REPLACE INTO curtail_plan (id, signing_epoch, sequence, payload, accepted_at_us)"
        " VALUES (1, ?, ?, ?, ?)",
        (plan.signing_epoch, plan.sequence, plan.payload, microseconds(at)),
    )


def command_payload(
    connection: sqlite3.Connection, signing_epoch: int, sequence: int, command_id: str, secrets: Secrets
) -> bytes | None:
    """Return the bytes of the command already taken under this number or id."""
    row: tuple[str, bytes | str] | None = connection.execute(
        "SELECT command_id, payload FROM curtail_commands WHERE (signing_epoch = ? AND sequence = ?) OR command_id = ?",
        (signing_epoch, sequence, command_id),
    ).fetchone()
    return None if row is None else _opened(*row, secrets)


def commands(connection: sqlite3.Connection, secrets: Secrets) -> tuple[bytes, ...]:
    """Return the bytes of every command kept, in their order; one that cannot be opened any more is dropped."""
    rows = connection.execute(
        "SELECT command_id, payload FROM curtail_commands ORDER BY signing_epoch, sequence"
    ).fetchall()
    found: list[bytes] = []
    for command_id, payload in rows:
        opened = _opened(command_id, payload, secrets)
        if opened:
            found.append(opened)
        else:
            drop_command(connection, command_id)
    return tuple(found)


def seal_commands(connection: sqlite3.Connection, kept: Iterable[tuple[Command, bytes]], secrets: Secrets) -> None:
    """Seal the commands with passwords that an agent which sealed nothing has kept."""
    for command, payload in kept:
        if command.verb in SECRET_VERBS:
            changed = connection.execute(
                "UPDATE curtail_commands SET payload = ? WHERE command_id = ? AND typeof(payload) = 'blob'",
                (_stored(command, payload, secrets), command.command_id),
            )
            if changed.rowcount:
                forget_traces(connection)


def hold_command(
    connection: sqlite3.Connection, command: Command, payload: bytes, at: datetime, secrets: Secrets
) -> None:
    """Keep one command."""
    connection.execute(
        "INSERT INTO curtail_commands (signing_epoch, sequence, command_id, payload, accepted_at_us)"
        " VALUES (?, ?, ?, ?, ?)",
        (
            command.signing_epoch,
            command.sequence,
            command.command_id,
            _stored(command, payload, secrets),
            microseconds(at),
        ),
    )


def _stored(command: Command, payload: bytes, secrets: Secrets) -> bytes | str:
    if command.verb not in SECRET_VERBS:
        return payload
    return secrets.sealed(base64.b64encode(payload).decode(), _about(command.command_id))


def _opened(command_id: str, payload: bytes | str, secrets: Secrets) -> bytes:
    if isinstance(payload, bytes):
        return payload
    return base64.b64decode(secrets.opened(payload, _about(command_id)))


def _about(command_id: str) -> str:
    return f"command {command_id}"


def drop_command(connection: sqlite3.Connection, command_id: str) -> None:
    """Forget one expired command: sent again it would be refused as expired."""
    connection.execute("DELETE FROM curtail_commands WHERE command_id = ?", (command_id,))


def count_refusal(connection: sqlite3.Connection, code: str) -> None:
    """Count one refusal under its stable code."""
    connection.execute(
        "INSERT INTO curtail_refusals (code, times) VALUES (?, 1) ON CONFLICT (code) DO UPDATE SET times = times + 1",
        (code,),
    )


def refusals(connection: sqlite3.Connection) -> dict[str, int]:
    """Return how often each code was given."""
    return dict(connection.execute("SELECT code, times FROM curtail_refusals ORDER BY code").fetchall())
