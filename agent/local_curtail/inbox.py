"""The rows behind the journal: the plan in force, commands until they expire, counts of refusals."""

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from agent.local_curtail.moments import microseconds


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


def command_payload(connection: sqlite3.Connection, signing_epoch: int, sequence: int, command_id: str) -> bytes | None:
    """Return the bytes of the command already taken under this number or id."""
    row: tuple[bytes] | None = connection.execute(
        "SELECT payload FROM curtail_commands WHERE (signing_epoch = ? AND sequence = ?) OR command_id = ?",
        (signing_epoch, sequence, command_id),
    ).fetchone()
    return None if row is None else row[0]


def commands(connection: sqlite3.Connection) -> tuple[bytes, ...]:
    """Return the bytes of every command kept, in their order."""
    rows = connection.execute("SELECT payload FROM curtail_commands ORDER BY signing_epoch, sequence").fetchall()
    return tuple(row[0] for row in rows)


def hold_command(
    connection: sqlite3.Connection, signing_epoch: int, sequence: int, command_id: str, payload: bytes, at: datetime
) -> None:
    """Keep one command."""
    connection.execute(
        "INSERT INTO curtail_commands (signing_epoch, sequence, command_id, payload, accepted_at_us)"
        " VALUES (?, ?, ?, ?, ?)",
        (signing_epoch, sequence, command_id, payload, microseconds(at)),
    )


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
