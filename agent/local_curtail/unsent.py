"""Acks and notices of a failsafe that worked without a daemon: kept as rows until the next daemon hands them on.

    failsafe --append_in--> curtail_unsent --hand_on, one transaction--> the daemon's buffer --> cloud

Invariant: a row leaves in the transaction that puts its ack or notice into the buffer, so each is told once. The form
is plain JSON: the buffer's own needs the link's messages, which the failsafe does without.
"""

import json
import sqlite3
from dataclasses import asdict
from typing import Any, Final

from agent.local_curtail.moments import microseconds, moment_of
from agent.local_curtail.ports import Outbox
from sitelink.types import Ack, BatchBody, Evidence, Notice, NoticeCode, Outcome, Verb

_ACK: Final = "ack"
_NOTICE: Final = "notice"


class UnsentOutbox:
    """An ``Outbox`` for a process that has no buffer."""

    def append_in(self, connection: sqlite3.Connection, body: BatchBody) -> object:
        """Keep the acks and notices of ``body`` in the transaction of ``connection``."""
        items: list[tuple[str, Ack | Notice]] = [(_ACK, ack) for ack in body.acks]
        items += [(_NOTICE, notice) for notice in body.notices]
        rows = [(kind, json.dumps(asdict(item), default=microseconds)) for kind, item in items]
        connection.executemany("INSERT INTO curtail_unsent (kind, record) VALUES (?, ?)", rows)
        return None


def hand_on(connection: sqlite3.Connection, outbox: Outbox) -> int:
    """Move what waits into ``outbox`` in the transaction of ``connection``; return how many items that were."""
    rows = connection.execute("SELECT kind, record FROM curtail_unsent ORDER BY place").fetchall()
    if not rows:
        return 0
    acks = tuple(_ack(json.loads(record)) for kind, record in rows if kind == _ACK)
    notices = tuple(_notice(json.loads(record)) for kind, record in rows if kind == _NOTICE)
    outbox.append_in(connection, BatchBody(acks=acks, notices=notices))
    connection.execute("DELETE FROM curtail_unsent")
    return len(rows)


def _ack(fields: dict[str, Any]) -> Ack:
    return Ack(
        **{
            **fields,
            "verb": Verb(fields["verb"]),
            "outcome": Outcome(fields["outcome"]),
            "evidence": Evidence(fields["evidence"]),
            "at": moment_of(fields["at"]),
        }
    )


def _notice(fields: dict[str, Any]) -> Notice:
    return Notice(**{**fields, "code": NoticeCode(fields["code"]), "at": moment_of(fields["at"])})
