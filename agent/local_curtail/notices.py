"""The notices of this site, kept beside the outbox for whoever stands there while the link is cut.

    append_in(body) --> the chain: each ack and notice one entry     journal
                    --> curtail_notices (the last ones)              journal
                    '-> the outbox                                   cloud

Invariants: all three are written in one transaction, so none is without the others. The rows
are bounded, by number and by age; what rows of their own tell (orders by hand) is not kept twice.
"""

import sqlite3
from datetime import timedelta
from typing import Final

from agent.local_curtail.chain import Chain, Kind, Note
from agent.local_curtail.moments import microseconds, moment_of
from agent.local_curtail.ports import Outbox, SiteNow
from sitelink.types import Ack, BatchBody, ClockTrust, Notice, NoticeCode

KEEP: Final = timedelta(days=90)
MOST: Final = 10_000
"""So many of the last ones are kept: a miner that wakes again and again fills no disk."""
_TOLD_BY_ROWS: Final = frozenset({NoticeCode.PLAN_ACCEPTED, NoticeCode.COMMAND_ACCEPTED, NoticeCode.OVERRIDE_SET})


class NotedOutbox:
    """An ``Outbox`` that journals and keeps what it hands on."""

    def __init__(self, outbox: Outbox, chain: Chain, site_time: SiteNow) -> None:
        self._outbox = outbox
        self._chain = chain
        self._site_time = site_time

    def append_in(self, connection: sqlite3.Connection, body: BatchBody) -> object:
        """Journal ``body``, keep its notices and hand it on, in the transaction of ``connection``."""
        _, trust = self._site_time.now()
        told = [_of_ack(ack, trust) for ack in body.acks]
        told += [Note(notice.at, trust, notice.code.value, notice.subject, notice.detail) for notice in body.notices]
        self._chain.append(connection, told)
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


def _of_ack(ack: Ack, trust: ClockTrust) -> Note:
    read = f"read back {_watts(ack.power_after_w)}, before {_watts(ack.power_before_w)}"
    detail = f"{ack.verb.value} under {ack.order_id}: {ack.outcome.value}, {ack.reason} ({ack.evidence.value}); {read}"
    return Note(ack.at, trust, Kind.OUTCOME, ack.miner_id, detail)


def _watts(power_w: float | None) -> str:
    return "unknown" if power_w is None else f"{power_w:.0f} W"


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
