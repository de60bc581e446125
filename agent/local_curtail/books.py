"""The books of local curtailment: records, acknowledgements and notices, kept in memory as they stand on disk.

Invariants: memory changes only after its transaction is durable, but for three: what brings a miner back, what a
technician at the site orders, and the stop of a miner too hot, wait for no room on a disk (they are owed, and written
with the next transaction that fits; a process killed meanwhile decides the same again, or forgets an order that its
technician was told is not kept);
whoever changes a record does so from what the books
hold at that moment, one after the other, so an intent to stop can never be overwritten by somebody who had not seen
it; an outcome, its ack and its notices commit together; an ack is given again only when the outcome has changed.

    apply(build), apply(build), ...  -> whoever waits while a transaction runs shares the next one
    turn -> build(current) each, in order -> one transaction: records, orders, acks, notices -> memory

A ``build`` that touches what an earlier one of the same transaction changes is called again for the next.
"""

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from agent.local_curtail import overrides, records
from agent.local_curtail import tasks as task_rows
from agent.local_curtail.chain import Chain, Kind, Note
from agent.local_curtail.evidence import Verdict
from agent.local_curtail.moments import microseconds
from agent.local_curtail.policy import OVERRIDE, TOO_HOT
from agent.local_curtail.ports import Outbox, SiteNow
from agent.local_curtail.records import MinerRecord, OrderRecord
from agent.storage import StorageFull, Writer, uninterrupted
from sitelink.types import Ack, BatchBody, Notice, NoticeCode, Reason, Verb

_LOG: Final = logging.getLogger(__name__)
JOURNAL_LOST: Final = "journal_lost"
"""The order, and the cause, under which miners are started whose orders were lost."""
_OFTEN: Final = frozenset({Reason.UNREACHABLE.value, Reason.TIMEOUT.value})
"""Of a dead miner this is no news."""
_KEEP_ACKS: Final = timedelta(days=7)
_MOST_NOTES: Final = 10_000
"""So many wait for a disk that takes nothing."""


@dataclass(slots=True)
class Entry:
    """What one transaction writes.

    ``acks`` pair the record that was under the order with how that order stands; ``announced`` are overrides told to
    the cloud, ``forgotten`` orders long restored; ``tasks`` of commands beside the policy end with their acks.
    ``journal`` are entries (kind, subject, detail) beside those that acks and notices are.
    """

    miners: list[MinerRecord] = field(default_factory=list)
    orders: list[OrderRecord] = field(default_factory=list)
    acks: list[tuple[MinerRecord, Verdict]] = field(default_factory=list)
    notices: list[tuple[NoticeCode, str, str]] = field(default_factory=list)
    marks: dict[str, str] = field(default_factory=dict)
    announced: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    tasks: list[task_rows.Task] = field(default_factory=list)
    journal: list[tuple[str, str, str]] = field(default_factory=list)

    def meets(self, other: "Entry") -> bool:
        """Return whether both change one record, order or mark: the later must then be built upon the earlier."""
        names = {record.miner_id for record in self.miners}
        orders = {order.order_id for order in self.orders} | set(self.forgotten)
        return (
            any(record.miner_id in names for record in other.miners)
            or any(order.order_id in orders for order in other.orders)
            or not orders.isdisjoint(other.forgotten)
            or not self.marks.keys().isdisjoint(other.marks)
            or not set(self.announced).isdisjoint(other.announced)
            or not {task.key for task in self.tasks}.isdisjoint(task.key for task in other.tasks)
        )

    def add(self, later: "Entry") -> None:
        """Take ``later``, which does not meet this one, into the same transaction."""
        self.miners += later.miners
        self.orders += later.orders
        self.acks += later.acks
        self.notices += later.notices
        self.marks |= later.marks
        self.announced += later.announced
        self.forgotten += later.forgotten
        self.tasks += later.tasks
        self.journal += later.journal

    def urgent(self) -> "Entry":
        """Return the part that waits for no disk: what brings miners back, what a technician orders, and heat."""
        at_once = {OVERRIDE, TOO_HOT}
        miners = [record for record in self.miners if record.verb is Verb.START or record.cause in at_once]
        names = {record.miner_id for record in miners}
        return Entry(
            miners=miners,
            acks=[ack for ack in self.acks if ack[0].miner_id in names],
            journal=[told for told in self.journal if told[1] in names],
        )

    def owe(self, later: "Entry") -> "Entry":
        """Return this entry with ``later``'s miners, acks and journal put after it; the last word on each is kept."""
        acks = {(record.order_id, record.miner_id, record.verb): (record, said) for record, said in self.acks}
        acks |= {(record.order_id, record.miner_id, record.verb): (record, said) for record, said in later.acks}
        miners = {record.miner_id: record for record in (*self.miners, *later.miners)}
        told = {(kind, subject): (kind, subject, detail) for kind, subject, detail in self.journal}
        journal = [*told.values(), *later.journal]
        return replace(later, miners=list(miners.values()), acks=list(acks.values()), journal=journal)

    def __bool__(self) -> bool:
        written = self.miners or self.orders or self.acks or self.notices or self.marks
        return bool(written or self.announced or self.forgotten or self.tasks or self.journal)


class _Waiter:
    """One caller of ``apply``: what it wants built, and how that ended."""

    __slots__ = ("_error", "_written", "build", "done")

    def __init__(self, build: Callable[[], Entry | None]) -> None:
        self.build = build
        self.done = False
        self._written = False
        self._error: Exception | None = None

    def finish(self, *, written: bool) -> None:
        self.done, self._written = True, written

    def fail(self, error: Exception) -> None:
        self.done, self._error = True, error

    def outcome(self) -> bool:
        if self._error is not None:
            raise self._error
        return self._written


class Books:
    """The one writer of the miners', orders' and acks' rows."""

    def __init__(self, writer: Writer, outbox: Outbox, ids: Callable[[], str], site_time: SiteNow) -> None:
        self._writer = writer
        self._outbox = outbox
        self._ids = ids
        self._site_time = site_time
        self._lock = asyncio.Lock()
        self._waiting: deque[_Waiter] = deque()
        self._owed = Entry()
        self._miners: dict[str, MinerRecord] = {}
        self._orders: dict[str, OrderRecord] = {}
        self._marks: dict[str, str] = {}
        self._number = 0
        self._chain = Chain(ids)
        self._notes: list[Note] = []

    @property
    def miners(self) -> Mapping[str, MinerRecord]:
        """Return every miner's record by id."""
        return self._miners

    @property
    def orders(self) -> Mapping[str, OrderRecord]:
        """Return every order's record by id."""
        return self._orders

    def next_number(self) -> int:
        """Return a number above that of every intent and proof so far; call it while building an entry."""
        self._number += 1
        return self._number

    def note(self, kind: Kind, subject: str, detail: str) -> None:
        """Journal what has just happened with the next transaction: what is waited for is never told late by it."""
        if len(self._notes) < _MOST_NOTES:
            now, trust = self._site_time.now()
            self._notes.append(Note(now, trust, kind, subject, detail))

    def mark(self, name: str) -> str:
        """Return what was last marked under ``name``, "" when nothing was."""
        return self._marks.get(name, "")

    @property
    def marks(self) -> Mapping[str, str]:
        """Return what was last marked, by name."""
        return self._marks

    async def load(self) -> None:
        """Take up the books of an earlier process."""
        self._miners, self._orders, self._marks = await self._writer.run(_read)
        self._owed = Entry()
        self._number = max((max(item.sent_no, item.proven_no) for item in self._miners.values()), default=0)

    async def forget_orders(self, miner_ids: Collection[str], detail: str) -> None:
        """Bring each of ``miner_ids`` back that no record speaks of: an order that was lost may have stopped it."""
        unknown = [miner_id for miner_id in miner_ids if miner_id not in self._miners]
        back = [MinerRecord(name, Verb.START, JOURNAL_LOST, 0, JOURNAL_LOST, touched=True) for name in unknown]
        notice = (NoticeCode.JOURNAL_LOST, "", f"{detail}; {len(back)} miners without an order are started")
        await self.apply(lambda: Entry(miners=back, notices=[notice]))

    async def apply(self, build: Callable[[], Entry | None]) -> bool:
        """Write what ``build``, called when it is this caller's turn, wants written; it may be called more than once.

        Returns:
            Whether there was anything to write.

        Raises:
            Transient: nothing was written. On a full disk what is urgent counts all the same.
        """
        waiter = _Waiter(build)
        self._waiting.append(waiter)
        try:
            async with self._lock:
                if not waiter.done:
                    await uninterrupted(self._commit())
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)  # cancelled before its turn
        return waiter.outcome()

    async def _commit(self) -> None:
        """Write everybody's entries who waits, in one transaction; one who meets an earlier one waits on, first."""
        whole = Entry()
        shared: list[tuple[_Waiter, Entry]] = []
        while self._waiting:
            waiter = self._waiting[0]
            try:
                entry = waiter.build() or Entry()
            except Exception as error:  # noqa: BLE001 - handed to the caller whose build it is
                waiter.fail(error)
                self._waiting.popleft()
                continue
            if shared and whole.meets(entry):
                break
            self._waiting.popleft()
            if not entry:
                waiter.finish(written=False)
                continue
            whole.add(entry)
            shared.append((waiter, entry))
        if shared:
            await self._store(whole, shared)

    async def _store(self, whole: Entry, shared: list[tuple[_Waiter, Entry]]) -> None:
        now, trust = self._site_time.now()
        owed, told = self._owed.owe(whole), list(self._notes)
        notes = [*told, *(Note(now, trust, *line) for line in owed.journal)]

        def work(connection: sqlite3.Connection) -> None:
            self._chain.append(connection, notes)
            self._write(connection, owed, now)

        try:
            await self._writer.run(work)
        except StorageFull as full:
            for waiter, entry in shared:
                urgent = entry.urgent()
                self._owed = self._owed.owe(urgent)
                self._remember(urgent)
                if urgent == entry:
                    waiter.finish(written=True)
                else:
                    waiter.fail(full)
        except Exception as error:  # noqa: BLE001 - handed to each caller whose entry it was
            for waiter, _ in shared:
                waiter.fail(error)
        else:
            self._owed = Entry()
            del self._notes[: len(told)]
            self._remember(whole)
            for waiter, _ in shared:
                waiter.finish(written=True)

    def _remember(self, entry: Entry) -> None:
        self._miners.update({record.miner_id: record for record in entry.miners})
        self._orders.update({record.order_id: record for record in entry.orders})
        self._marks.update(entry.marks)
        for order_id in entry.forgotten:
            del self._orders[order_id]

    def _write(self, connection: sqlite3.Connection, entry: Entry, now: datetime) -> None:
        for miner in entry.miners:
            connection.execute(
                "INSERT OR REPLACE INTO curtail_miners (miner_id, record) VALUES (?, ?)",
                (miner.miner_id, records.to_json(miner)),
            )
        for order in entry.orders:
            connection.execute(
                "INSERT OR REPLACE INTO curtail_orders (order_id, record) VALUES (?, ?)",
                (order.order_id, records.to_json(order)),
            )
        for order_id in entry.forgotten:
            connection.execute("DELETE FROM curtail_orders WHERE order_id = ?", (order_id,))
        for mark in entry.marks.items():
            connection.execute("INSERT OR REPLACE INTO curtail_marks (name, value) VALUES (?, ?)", mark)
        for override_id in entry.announced:
            overrides.mark_announced(connection, override_id)
        task_rows.write(connection, entry.tasks)
        acks = [ack for record, verdict in entry.acks if (ack := self._ack(connection, record, verdict, now))]
        notices = [Notice(self._ids(), now, code, subject, detail) for code, subject, detail in entry.notices]
        if acks or notices:
            self._outbox.append_in(connection, BatchBody(acks=tuple(acks), notices=tuple(notices)))
        if entry.orders:
            cut = microseconds(now - _KEEP_ACKS)
            connection.execute("DELETE FROM curtail_acks WHERE at_us < ?", (cut,))
            connection.execute(
                "DELETE FROM curtail_details WHERE (order_id, miner_id, verb) NOT IN"
                " (SELECT order_id, miner_id, verb FROM curtail_acks)"
            )

    def _ack(self, connection: sqlite3.Connection, record: MinerRecord, verdict: Verdict, now: datetime) -> Ack | None:
        """Return the ack to give, None when the same one was given before."""
        key = (record.order_id, record.miner_id, record.verb.value)
        given = (verdict.outcome.value, verdict.evidence.value, verdict.reason)
        before = connection.execute(
            "SELECT outcome, evidence, reason FROM curtail_acks WHERE order_id = ? AND miner_id = ? AND verb = ?", key
        ).fetchone()
        if before == given:
            return None
        connection.execute("INSERT OR REPLACE INTO curtail_details VALUES (?, ?, ?, ?)", (*key, verdict.detail))
        if verdict.detail:
            level = logging.INFO if verdict.reason in _OFTEN else logging.WARNING
            _LOG.log(level, "%s of %s: %s: %s", record.verb.value, record.miner_id, verdict.reason, verdict.detail)
        connection.execute(
            "INSERT OR REPLACE INTO curtail_acks (order_id, miner_id, verb, outcome, evidence, reason, at_us,"
            " power_before_w, power_after_w) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*key, *given, microseconds(now), record.baseline_w, record.power_w),
        )
        return Ack(
            ack_id=self._ids(),
            order_id=record.order_id,
            plan_revision=record.revision,
            miner_id=record.miner_id,
            verb=record.verb,
            outcome=verdict.outcome,
            evidence=verdict.evidence,
            reason=verdict.reason,
            at=now,
            power_before_w=record.baseline_w,
            power_after_w=record.power_w,
        )


def _read(
    connection: sqlite3.Connection,
) -> tuple[dict[str, MinerRecord], dict[str, OrderRecord], dict[str, str]]:
    miners = [records.miner_of(row[0]) for row in connection.execute("SELECT record FROM curtail_miners")]
    orders = [records.order_of(row[0]) for row in connection.execute("SELECT record FROM curtail_orders")]
    marks = connection.execute("SELECT name, value FROM curtail_marks").fetchall()
    return {item.miner_id: item for item in miners}, {item.order_id: item for item in orders}, dict(marks)
