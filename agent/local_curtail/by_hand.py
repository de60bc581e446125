"""What was done at the site itself: orders by hand, what is sent for them, what was found. Lines, oldest first.

Invariant: a line is written once and never changed; lines older than ``KEEP`` go. A line without a miner is about the
whole order.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agent.local_curtail.chain import Kind, Note
from agent.local_curtail.moments import microseconds, moment_of
from sitelink.types import ClockTrust, Verb

KEEP: Final = timedelta(days=90)
ORDERED: Final = "ordered"
SENDING: Final = "sending"
"""About to leave, written before it does; what came of it is a later line."""
PROVEN: Final = "proven"
UNPROVEN: Final = "unproven"
RELEASED: Final = "released"
ENDED: Final = "ended"
"""Each miner of the order was looked at to the end."""
_INTENTS: Final = {Verb.STOP.value: Kind.STOP_INTENT, Verb.START.value: Kind.START_INTENT}


@dataclass(frozen=True, slots=True)
class Line:
    """One line: what happened (``event``) under which order to which miner, and in which words."""

    at: datetime
    order_id: str
    miner_id: str
    event: str
    detail: str


def write_lines(connection: sqlite3.Connection, lines: Iterable[Line]) -> None:
    """Append ``lines``."""
    rows = [(microseconds(line.at), line.order_id, line.miner_id, line.event, line.detail) for line in lines]
    connection.executemany(
        "INSERT INTO curtail_by_hand (at_us, order_id, miner_id, event, detail) VALUES (?, ?, ?, ?, ?)", rows
    )
    if rows:
        cut = max(row[0] for row in rows) - KEEP // timedelta(microseconds=1)
        connection.execute("DELETE FROM curtail_by_hand WHERE at_us < ?", (cut,))


def notes_of(lines: Iterable[Line], trust: ClockTrust) -> list[Note]:
    """Return ``lines`` as entries of the journal: what is about to leave is an intent."""
    return [
        Note(line.at, trust, _INTENTS.get(line.detail, Kind.BY_HAND), line.miner_id, f"by hand under {line.order_id}")
        if line.event == SENDING
        else Note(line.at, trust, Kind.BY_HAND, line.miner_id or line.order_id, f"{line.event}: {line.detail}")
        for line in lines
    ]


def last_lines(connection: sqlite3.Connection, count: int) -> tuple[Line, ...]:
    """Return the last ``count`` lines, oldest first."""
    rows = connection.execute(
        "SELECT at_us, order_id, miner_id, event, detail FROM curtail_by_hand ORDER BY place DESC LIMIT ?", (count,)
    ).fetchall()
    return tuple(Line(moment_of(row[0]), *row[1:]) for row in reversed(rows))


def over(connection: sqlite3.Connection) -> frozenset[str]:
    """Return the orders whose run has ended, or that were released."""
    query = "SELECT DISTINCT order_id FROM curtail_by_hand WHERE event IN (?, ?)"
    return frozenset(order_id for (order_id,) in connection.execute(query, (ENDED, RELEASED)))


def last_found(connection: sqlite3.Connection) -> dict[str, str]:
    """Return by miner whether what was last found of it was proven or not."""
    query = "SELECT miner_id, event FROM curtail_by_hand WHERE event IN (?, ?) ORDER BY place"
    return dict(connection.execute(query, (PROVEN, UNPROVEN)).fetchall())
