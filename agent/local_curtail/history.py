"""What happened at this site, as the journal's rows tell it: ordered, sent, proven, with reasons. Reads only.

    plans and commands accepted   curtail_plan, curtail_commands      by hand      curtail_by_hand, curtail_overrides
    judged, and why not proven    curtail_acks, curtail_details       under way    curtail_miners, curtail_tasks
    told: liars, feeders, ...     curtail_notices

Invariant: what a table no longer holds is not made up: acks are kept for seven days, lines by hand and the last notices
for ninety, and of plans only the one in force.
"""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from agent.local_curtail import by_hand, records
from agent.local_curtail.moments import moment_of
from agent.local_curtail.notices import last_notices
from agent.local_curtail.records import Phase
from sitelink.types import Notice, NoticeCode

_UNTOLD: Final = "may have been sent, not judged yet"
_OF_MINERS: Final = {NoticeCode.LIAR_NAMED, NoticeCode.SELF_WOKEN}
_OF_ORDERS: Final = {
    NoticeCode.CURTAILMENT_STARTED,
    NoticeCode.CURTAILMENT_HELD,
    NoticeCode.CURTAILMENT_RELEASED,
    NoticeCode.CURTAILMENT_RESTORED,
    NoticeCode.LIMIT_APPLIED,
}


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the journal. ``miner_id`` is empty for what concerns a whole order; ``what`` is plain text."""

    at: datetime
    event: str
    order_id: str
    miner_id: str
    what: str

    def document(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "at": self.at.isoformat()}


def last_events(connection: sqlite3.Connection, count: int) -> tuple[Event, ...]:
    """Return the last ``count`` events, oldest first."""
    events = [*_orders(connection, count), *_by_hand(connection, count), *_judged(connection, count)]
    events += [_told(notice) for notice in last_notices(connection, count)]
    events += _under_way(connection)
    events.sort(key=lambda event: event.at)
    return tuple(events[-count:])


def _orders(connection: sqlite3.Connection, count: int) -> Iterator[Event]:
    for sequence, at_us in connection.execute("SELECT sequence, accepted_at_us FROM curtail_plan"):
        yield Event(moment_of(at_us), by_hand.ORDERED, "", "", f"plan accepted, number {sequence}")
    rows = connection.execute(
        "SELECT command_id, sequence, accepted_at_us FROM curtail_commands ORDER BY accepted_at_us DESC LIMIT ?",
        (count,),
    )
    for command_id, sequence, at_us in rows:
        yield Event(moment_of(at_us), by_hand.ORDERED, command_id, "", f"command accepted, number {sequence}")


def _by_hand(connection: sqlite3.Connection, count: int) -> Iterator[Event]:
    told = set()
    for line in by_hand.last_lines(connection, count):
        told.add(line.order_id)
        yield Event(line.at, line.event, line.order_id, line.miner_id, f"by hand: {line.detail}")
    rows = connection.execute(
        "SELECT override_id, verb, miner_ids IS NULL, set_at_us FROM curtail_overrides ORDER BY place DESC LIMIT ?",
        (count,),
    )
    for override_id, verb, everyone, at_us in rows:
        if override_id not in told:
            whom = "all miners" if everyone else "some miners"
            yield Event(moment_of(at_us), by_hand.ORDERED, override_id, "", f"by hand: {verb} of {whom}")


def _judged(connection: sqlite3.Connection, count: int) -> Iterator[Event]:
    told = _details(connection)
    rows = connection.execute(
        "SELECT order_id, miner_id, verb, outcome, evidence, reason, at_us FROM curtail_acks"
        " ORDER BY at_us DESC LIMIT ?",
        (count,),
    )
    for order_id, miner_id, verb, outcome, evidence, reason, at_us in rows:
        detail = told(order_id, miner_id, verb)
        what = f"{verb}: {reason} ({evidence}){f': {detail}' if detail else ''}"
        yield Event(moment_of(at_us), outcome, order_id, miner_id, what)


def _details(connection: sqlite3.Connection) -> Callable[[str, str, str], str]:
    """Return what tells why an order was not proven; a file that an earlier version wrote says it of none."""
    (has,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'curtail_details'").fetchone()

    def told(*key: str) -> str:
        query = "SELECT detail FROM curtail_details WHERE order_id = ? AND miner_id = ? AND verb = ?"
        row = connection.execute(query, key).fetchone() if has else None
        return "" if row is None else str(row[0])

    return told


def _told(notice: Notice) -> Event:
    """Return a notice: of a miner, of an order, or of what stands before its words."""
    code, subject, detail = notice.code, notice.subject, notice.detail
    if code in _OF_MINERS:
        return Event(notice.at, code.value, "", subject, detail)
    if code in _OF_ORDERS:
        return Event(notice.at, code.value, subject, "", detail)
    return Event(notice.at, code.value, "", "", f"{subject}: {detail}" if subject else detail)


def _under_way(connection: sqlite3.Connection) -> Iterator[Event]:
    for (text,) in connection.execute("SELECT record FROM curtail_miners"):
        record = records.miner_of(text)
        if record.phase is Phase.SENT and record.outcome is None and record.sent_at is not None:
            what = f"{record.verb.value}, {_UNTOLD} ({record.cause})"
            yield Event(record.sent_at, by_hand.SENDING, record.order_id, record.miner_id, what)
    rows = connection.execute(
        "SELECT command_id, miner_id, verb, not_before_us FROM curtail_tasks WHERE begun AND outcome IS NULL"
    )
    for command_id, miner_id, verb, at_us in rows:
        yield Event(moment_of(at_us), by_hand.SENDING, command_id, miner_id, f"{verb}, {_UNTOLD}")
