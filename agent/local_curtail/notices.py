"""The notices of this site, kept beside the outbox for whoever stands there while the link is cut.

    append_in(body) --> curtail_notices (the last ones)    journal
                    '-> the outbox                         cloud

Invariants: a notice is kept in the transaction that hands it to the outbox, so neither is without the other. The rows
are bounded, by number and by age; what rows of their own tell (orders by hand) is not kept twice.
"""

import sqlite3
from datetime import timedelta
from typing import Final

from agent.local_curtail.moments import microseconds, moment_of
from agent.local_curtail.ports import Outbox
from sitelink.types import BatchBody, Notice, NoticeCode

KEEP: Final = timedelta(days=90)
MOST: Final = 10_000
"""So many of the last ones are kept: a miner that wakes again and again fills no disk."""
_TOLD_BY_ROWS: Final = frozenset({NoticeCode.PLAN_ACCEPTED, NoticeCode.COMMAND_ACCEPTED, NoticeCode.OVERRIDE_SET})


class NotedOutbox:
    """An ``Outbox`` that keeps the notices it hands on."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def append_in(self, connection: sqlite3.Connection, body: BatchBody) -> object:
        """Keep the notices of ``body`` and hand it on, in the transaction of ``connection``."""
        rows = [
            (microseconds(notice.at), notice.code.value, notice.subject, notice.detail)
            for notice in body.notices
            if notice.code not in _TOLD_BY_ROWS
        ]
        if rows:
            connection.executemany(
                "INSERT INTO curtail_notices (at_us, code, subject, detail) VALUES (?, ?, ?, ?)", rows
            )
            oldest_us = max(row[0] for row in rows) - KEEP // timedelta(microseconds=1)
            connection.execute(
                "DELETE FROM curtail_notices WHERE at_us < ? OR place <= (SELECT max(place) FROM curtail_notices) - ?",
                (oldest_us, MOST),
            )
        return self._outbox.append_in(connection, body)


def last_notices(connection: sqlite3.Connection, count: int) -> tuple[Notice, ...]:
    """Return the last ``count`` notices, oldest first; a file that an earlier version wrote has none.

    Their ids are empty: only the cloud counts by them.
    """
    (has,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'curtail_notices'").fetchone()
    if not has:
        return ()
    rows = connection.execute(
        "SELECT at_us, code, subject, detail FROM curtail_notices ORDER BY place DESC LIMIT ?", (count,)
    ).fetchall()
    return tuple(
        Notice("", moment_of(at_us), NoticeCode(code), subject, detail)
        for at_us, code, subject, detail in reversed(rows)
    )
