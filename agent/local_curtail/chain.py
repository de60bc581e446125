"""The site's journal: each action one entry of a hash chain, written in the transaction that does what it tells.

    notices, acks (NotedOutbox) --+
    intents, what came of sending +--append, same transaction--> curtail_chain --carry, once each--> outbox --> cloud
    a failsafe without a daemon --+

Invariants:

* Entries are appended, never changed; triggers refuse anything else. Only a prefix that the cloud has receipted and
  that is older than ``KEEP`` is pruned, and it leaves its last number and hash.
* The head moves in the transaction that appends, whoever appends: numbers have no hole and no number is used twice.
* A chain found broken stays as it is; a new one begins after it, and its first entry names the break.
* Each entry is carried once: the mark moves in the transaction that seals its batch.

Entries hold no address of a device and no password: they go to the cloud as they are.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile
from typing import Final

from agent.local_curtail.moments import microseconds
from sitelink.journal import BEGAN, NOTHING_BEFORE, begins, digest, fault_of
from sitelink.types import ClockTrust, JournalEntry

KEEP: Final = timedelta(days=90)
TAIL: Final = 512
"""So many of the last entries are looked at before anything is appended after a start; the rest is, beside the work."""
_LONGEST: Final = 400
_COLUMNS: Final = "chain, seq, at_us, trust, kind, subject, detail, previous, hash"
_PRUNED_AT_ONCE: Final = 2000

SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS curtail_chain (
        seq INTEGER PRIMARY KEY, chain TEXT NOT NULL, at_us INTEGER NOT NULL, trust TEXT NOT NULL, kind TEXT NOT NULL,
        subject TEXT NOT NULL, detail TEXT NOT NULL, previous BLOB NOT NULL, hash BLOB NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS curtail_chain_head (
        id INTEGER PRIMARY KEY CHECK (id = 1), chain TEXT NOT NULL, first_seq INTEGER NOT NULL, seq INTEGER NOT NULL,
        hash BLOB NOT NULL, pruned_seq INTEGER NOT NULL, pruned_hash BLOB NOT NULL, carried_seq INTEGER NOT NULL,
        carried_epoch TEXT NOT NULL)""",
)
TRIGGERS: Final = (
    """CREATE TRIGGER IF NOT EXISTS curtail_chain_kept BEFORE UPDATE ON curtail_chain BEGIN
        SELECT RAISE(ABORT, 'the journal is append-only'); END""",
    """CREATE TRIGGER IF NOT EXISTS curtail_chain_whole BEFORE DELETE ON curtail_chain
        WHEN OLD.seq > coalesce((SELECT pruned_seq FROM curtail_chain_head), 0) BEGIN
        SELECT RAISE(ABORT, 'the journal is append-only'); END""",
    """CREATE TRIGGER IF NOT EXISTS curtail_chain_appended BEFORE INSERT ON curtail_chain
        WHEN NEW.seq <= (SELECT seq FROM curtail_chain_head) BEGIN
        SELECT RAISE(ABORT, 'the journal is append-only'); END""",
    """CREATE TRIGGER IF NOT EXISTS curtail_chain_carried BEFORE UPDATE OF pruned_seq ON curtail_chain_head
        WHEN NEW.pruned_seq < OLD.pruned_seq OR NEW.pruned_seq > OLD.carried_seq BEGIN
        SELECT RAISE(ABORT, 'the journal is append-only'); END""",
)


class Kind(StrEnum):
    """What an entry tells, beside the codes of notices, which are kinds of their own."""

    BEGAN = BEGAN
    STOP_INTENT = "stop_intent"
    START_INTENT = "start_intent"
    TASK_INTENT = "task_intent"
    SENT = "sent"
    OUTCOME = "outcome"
    BY_HAND = "by_hand"


@dataclass(frozen=True, slots=True)
class Note:
    """What is to become an entry."""

    at: datetime
    trust: ClockTrust
    kind: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain stands: its name, its first and last number, its last hash, what was pruned and carried."""

    chain: str
    first_seq: int
    seq: int
    hash: bytes
    pruned_seq: int = 0
    pruned_hash: bytes = NOTHING_BEFORE
    carried_seq: int = 0
    carried_epoch: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look at the journal found: ``faults`` are in words, oldest first; those before the last chain are told."""

    entries: int
    chains: int
    head: Head | None
    faults: tuple[str, ...]


class Chain:
    """Appends to the chain of whatever file it is given."""

    def __init__(self, ids: Callable[[], str]) -> None:
        self._ids = ids

    def append(self, connection: sqlite3.Connection, notes: Iterable[Note]) -> None:
        """Append ``notes`` in the transaction of ``connection``, in their order."""
        pending = list(notes)
        if not pending:
            return
        head = head_of(connection)
        if head is None:
            head = self.begin(connection, pending[0].at, pending[0].trust, _why_headless(connection))
        rows = []
        for note in pending:
            entry = _entry(head, note)
            rows.append(_row(entry))
            head = replace(head, seq=entry.seq, hash=entry.hash)
        _insert(connection, rows)
        connection.execute("UPDATE curtail_chain_head SET seq = ?, hash = ?", (head.seq, head.hash))

    def take_up(self, connection: sqlite3.Connection, at: datetime, trust: ClockTrust) -> str:
        """Return what is wrong with the chain's last entries, "" for nothing; a new chain has begun then."""
        fault = tail_fault(connection)
        if fault:
            self.begin(connection, at, trust, fault)
        return fault

    def begin(self, connection: sqlite3.Connection, at: datetime, trust: ClockTrust, why: str) -> Head:
        """Begin a chain after whatever is there, whose first entry says ``why``, and return its head."""
        before = head_of(connection)
        (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM curtail_chain").fetchone()
        detail = why
        if before is not None:
            last = max(int(last), before.seq)
            detail = f"follows {before.chain} at {before.seq} ({before.hash.hex()[:16]}): {why}"
        first = JournalEntry(
            self._ids(),
            int(last) + 1,
            microseconds(at),
            trust.value,
            BEGAN,
            "",
            _clean(detail),
            NOTHING_BEFORE,
            NOTHING_BEFORE,
        )
        first = replace(first, hash=digest(first))
        kept = before or Head("", 0, 0, NOTHING_BEFORE)
        head = replace(kept, chain=first.chain, first_seq=first.seq, seq=first.seq, hash=first.hash)
        _insert(connection, [_row(first)])
        connection.execute(
            "INSERT OR REPLACE INTO curtail_chain_head (id, chain, first_seq, seq, hash, pruned_seq, pruned_hash,"
            " carried_seq, carried_epoch) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                head.chain,
                head.first_seq,
                head.seq,
                head.hash,
                head.pruned_seq,
                head.pruned_hash,
                head.carried_seq,
                head.carried_epoch,
            ),
        )
        return head


def head_of(connection: sqlite3.Connection) -> Head | None:
    """Return where the chain stands, None before its first entry."""
    row = connection.execute(
        "SELECT chain, first_seq, seq, hash, pruned_seq, pruned_hash, carried_seq, carried_epoch"
        " FROM curtail_chain_head"
    ).fetchone()
    return None if row is None else Head(*row)


def entries(connection: sqlite3.Connection, after_seq: int, count: int) -> list[JournalEntry]:
    """Return up to ``count`` entries above number ``after_seq``, oldest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM curtail_chain WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608 - our own names
        (after_seq, count),
    )
    return [JournalEntry(*row) for row in rows]


def last_entries(connection: sqlite3.Connection, count: int) -> list[JournalEntry]:
    """Return the last ``count`` entries, oldest first; a file that an earlier version wrote has none."""
    if not has_chain(connection):
        return []
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM curtail_chain ORDER BY seq DESC LIMIT ?",  # noqa: S608 - our own names
        (count,),
    ).fetchall()
    return [JournalEntry(*row) for row in reversed(rows)]


def has_chain(connection: sqlite3.Connection) -> bool:
    """Return whether the file has the journal's tables: one that an earlier version wrote has none."""
    query = "SELECT count(*) FROM sqlite_master WHERE name IN ('curtail_chain', 'curtail_chain_head')"
    (count,) = connection.execute(query).fetchone()
    return int(count) == len(SCHEMA)


def tail_fault(connection: sqlite3.Connection) -> str:
    """Return what is wrong with the last entries of the chain, "" when nothing is, or when there is none."""
    head = head_of(connection)
    if head is None:
        return ""
    from_seq = max(head.first_seq, head.seq - TAIL + 1, head.pruned_seq + 1)
    return next(chain_faults(connection, head, from_seq), "")


def chain_faults(connection: sqlite3.Connection, head: Head, from_seq: int, to_seq: int | None = None) -> Iterator[str]:
    """Yield what is wrong with the chain of ``head`` from entry ``from_seq`` on, up to ``to_seq`` or its head."""
    last = head.seq if to_seq is None else to_seq
    before = _before(connection, head, from_seq)
    for entry in entries(connection, from_seq - 1, last - from_seq + 1):
        if before is None and entry.seq > from_seq:
            yield f"entries {from_seq} to {entry.seq - 1} are missing"
        else:
            fault = fault_of(entry, before)
            if fault:
                yield fault
        before = entry
    if to_seq is None and (before is None or (before.seq, before.hash) != (head.seq, head.hash)):
        yield f"it ends at entry {0 if before is None else before.seq}, not at {head.seq} as its head says"


def check(connection: sqlite3.Connection) -> Checked:
    """Return how the whole journal stands, every chain of the file, as of one moment whoever writes meanwhile."""
    if not has_chain(connection):
        return Checked(0, 0, None, ())
    if connection.in_transaction:
        return _check(connection)
    connection.execute("BEGIN")
    try:
        return _check(connection)
    finally:
        connection.execute("ROLLBACK")


def _check(connection: sqlite3.Connection) -> Checked:
    head = head_of(connection)
    faults: list[str] = []
    chains: set[str] = set()
    count, before = 0, None
    for row in connection.execute(f"SELECT {_COLUMNS} FROM curtail_chain ORDER BY seq"):  # noqa: S608 - our own names
        entry = JournalEntry(*row)
        if count == 0 and head is not None and head.pruned_seq:
            before = _pruned(head, "" if begins(entry) else entry.chain)
        count += 1
        chains.add(entry.chain)
        fault = fault_of(entry, before)
        if fault:
            faults.append(fault)
        before = entry
    if head is not None and (before is None or (before.seq, before.hash) != (head.seq, head.hash)):
        faults.append(f"it ends at entry {0 if before is None else before.seq}, not at {head.seq} as its head says")
    return Checked(count, len(chains), head, tuple(faults))


def mark_carried(connection: sqlite3.Connection, seq: int, epoch: str) -> None:
    """Remember that entries up to ``seq`` are on their way, in the buffer's ``epoch``."""
    connection.execute("UPDATE curtail_chain_head SET carried_seq = ?, carried_epoch = ?", (seq, epoch))


def prune(connection: sqlite3.Connection, now: datetime) -> int:
    """Drop carried entries older than ``KEEP``, some at a time; whoever calls knows that the cloud has them all.

    Returns:
        How many went.
    """
    head = head_of(connection)
    if head is None:
        return 0
    cut_us, last_seq = microseconds(now - KEEP), min(head.carried_seq, head.seq - 1)
    first = entries(connection, head.pruned_seq, 1)
    if not first or first[0].at_us >= cut_us:
        return 0
    found = entries(connection, head.pruned_seq, _PRUNED_AT_ONCE)
    old = list(takewhile(lambda entry: entry.at_us < cut_us and entry.seq <= last_seq, found))
    if old:
        connection.execute("UPDATE curtail_chain_head SET pruned_seq = ?, pruned_hash = ?", (old[-1].seq, old[-1].hash))
        connection.execute("DELETE FROM curtail_chain WHERE seq <= ?", (old[-1].seq,))
    return len(old)


def _before(connection: sqlite3.Connection, head: Head, from_seq: int) -> JournalEntry | None:
    """Return what entry ``from_seq`` of the chain must follow, None when it is the chain's first."""
    if from_seq <= head.first_seq:
        return None
    if from_seq == head.pruned_seq + 1:
        return _pruned(head, head.chain)
    found = entries(connection, from_seq - 2, 1)
    return found[0] if found and found[0].seq == from_seq - 1 else None


def _pruned(head: Head, chain: str) -> JournalEntry:
    """Return what is left of the prefix that was pruned: an entry of ``chain`` with no more than its place and hash."""
    return JournalEntry(chain, head.pruned_seq, 0, "", "", "", "", NOTHING_BEFORE, head.pruned_hash)


def _why_headless(connection: sqlite3.Connection) -> str:
    (count,) = connection.execute("SELECT count(*) FROM curtail_chain").fetchone()
    return f"its head is lost; {count} entries stand before" if count else "the first of this file"


def _entry(head: Head, note: Note) -> JournalEntry:
    entry = JournalEntry(
        head.chain,
        head.seq + 1,
        microseconds(note.at),
        note.trust.value,
        str(note.kind),
        _clean(note.subject),
        _clean(note.detail),
        head.hash,
        NOTHING_BEFORE,
    )
    return replace(entry, hash=digest(entry))


def _insert(connection: sqlite3.Connection, rows: list[tuple[object, ...]]) -> None:
    connection.executemany(f"INSERT INTO curtail_chain ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)  # noqa: S608


def _row(entry: JournalEntry) -> tuple[object, ...]:
    return (
        entry.chain,
        entry.seq,
        entry.at_us,
        entry.trust,
        entry.kind,
        entry.subject,
        entry.detail,
        entry.previous,
        entry.hash,
    )


def _clean(text: str) -> str:
    """Return ``text`` as one line of bounded length that any encoder takes."""
    whole = " ".join(text.replace("\0", " ").split()).encode("utf-8", "replace").decode("utf-8")
    return whole if len(whole) <= _LONGEST else f"{whole[: _LONGEST - 3]}..."
