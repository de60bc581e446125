"""What a failsafe without a daemon orders, sends and finds, kept in agent.db as the daemon's own books hold it.

    override row                                  the next daemon keeps to it until it expires or is released
    each miner: intent --durable--> sent          the next daemon judges it, tries on, or brings the miner back
    each miner: what was found, one line          ``ballast-agent journal``
    liars, feeders that draw too much (``found``) status, doctor and journal tell them; the cloud hears with the acks
    acks of orders that this one ended            wait for the next daemon to hand them on

Invariants: an intent is durable before its order is sent, and intents that come together share one transaction; nothing
here proves a stop: the daemon on its return reads each miner back itself. Once the file cannot be used, that is said
once, and every miner is switched all the same.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self, TypeVar

from agent.errors import AgentError, BadInput
from agent.failsafe.found import feeder_entry, found_entry, joined, released_entry
from agent.failsafe.weighing import Balance
from agent.files import give_to_owner
from agent.findings import Finding, Proof
from agent.local_curtail import by_hand, overrides, records
from agent.local_curtail.anchor import StoredTime, stored_anchor
from agent.local_curtail.books import Books, Entry
from agent.local_curtail.by_hand import Line
from agent.local_curtail.chain import Chain
from agent.local_curtail.doubts import NO_DOUBTS, stored_doubts
from agent.local_curtail.evidence import FeederBefore, Lie
from agent.local_curtail.notices import NotedOutbox
from agent.local_curtail.policy import OVERRIDE, Desired, whom
from agent.local_curtail.ramp import NO_RAMP, capped
from agent.local_curtail.records import MinerRecord, OrderRecord, Phase, Stage
from agent.local_curtail.schema import schema
from agent.local_curtail.unsent import UnsentOutbox
from agent.settings import Settings
from agent.storage import StorageLost, connect, connect_read_only, in_transaction, is_there
from sitelink.clock import Clock
from sitelink.types import Evidence, NoticeCode, Verb
from sitelink.units import Watts

Result = TypeVar("Result")
_SHORT_WHILE: Final = timedelta(minutes=15)
"""So long what a feeder drew before an order still says something of what fell since."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What is about to be sent to one miner.

    A stop of a miner that hashes knows what it draws, and what its feeder drew before; else both are None.
    """

    miner_id: str
    verb: Verb
    order_id: str
    baseline_w: Watts | None = None
    before: FeederBefore | None = None


@dataclass(frozen=True, slots=True)
class Earlier:
    """What runs and daemons before this one know of stops; each carries what its miner and its feeder drew before.

    ``unfinished`` were sent a short while ago by a run that did not end: their feeders may have fallen already.
    ``doubted`` were told to stop and not proven off: that they read off now proves no more than it did then, least
    of all of those ``caught`` reading off while their feeder drew on.
    """

    unfinished: Mapping[str, Intent] = field(default_factory=dict)
    doubted: Mapping[str, Intent] = field(default_factory=dict)
    caught: frozenset[str] = frozenset()


class _Here:
    """Runs work against the file at once, in this thread: nothing else is urgent while a transaction lasts.

    ``lines`` by hand that wait go into the next transaction, whatever it is about, by ``write``: each transaction costs
    a wait for the disk.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        lines: list[Line],
        write: Callable[[sqlite3.Connection, Iterable[Line]], None],
    ) -> None:
        self._connection = connection
        self._lines = lines
        self._write = write

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """See ``Writer.run``; whatever is wrong with the file is BadInput or Transient, never the process's end."""

        def with_lines(connection: sqlite3.Connection) -> Result:
            self._write(connection, self._lines)
            return work(connection)

        try:
            result = in_transaction(self._connection, with_lines if self._lines else work)
            self._lines.clear()
            return result
        except (StorageLost, sqlite3.Error) as error:
            raise BadInput(str(error.__cause__ or error)) from None


class Ledger:
    """The books of one run, for as long as the file takes them."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        new_id: Callable[[], str],
        say: Callable[[str], None],
        *,
        feeders: Mapping[str, Collection[str]],
        read_only: bool = False,
    ) -> None:
        """``feeders`` names the miners of each; ``read_only``: whoever looks changes nothing and makes no file."""
        self._feeders = feeders
        self._settings = settings
        self._clock = clock
        self._new_id = new_id
        self._say = say
        self._read_only = read_only
        self._connection: sqlite3.Connection | None = None
        self._here: _Here | None = None
        self._books: Books | None = None
        self._time = StoredTime(None, clock)
        self._waiting: list[Callable[[Books], Entry]] = []
        self._lines: list[Line] = []
        self._earlier: dict[str, MinerRecord | None] = {}
        self._turn = asyncio.Lock()
        self._trouble = ""
        self._chain = Chain(new_id)

    async def __aenter__(self) -> Self:
        """Open the file and take up the books; what is wrong with it is said."""
        path = self._settings.database
        if self._read_only:
            return self
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._connection = connect(path)
            with suppress(OSError):  # what cannot be given away stays root's; the doctor names it
                give_to_owner(path)
            here = _Here(self._connection, self._lines, self._write_lines)
            await here.run(schema)
            self._time = StoredTime(await here.run(stored_anchor), self._clock)
            books = Books(here, NotedOutbox(UnsentOutbox(), self._chain, self._time), self._new_id, self._time)
            await books.load()
            self._here, self._books = here, books
        except (OSError, sqlite3.Error, AgentError, ValueError, KeyError, TypeError) as error:
            self._lose(error)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what is left, and close."""
        await self._flush()
        if self._connection is not None:
            self._connection.close()

    @property
    def usable(self) -> bool:
        """Return whether the file takes anything."""
        return self._books is not None

    async def override(self, order_id: str, verb: Verb, named: Collection[str] | None, duration: timedelta) -> bool:
        """Store the override; return whether it is stored."""
        if self._here is None:
            return False
        now, _ = self._time.now()
        what = f"{verb.value} of {whom(named)}"
        line = Line(now, order_id, "", by_hand.ORDERED, f"{what} for {duration}, without a daemon")

        def work(connection: sqlite3.Connection) -> None:
            overrides.write(connection, order_id, verb, named, duration, self._clock)
            self._write_lines(connection, (line,))

        try:
            await self._here.run(work)
        except AgentError as error:
            self._lose(error)
            return False
        ramp = capped(NO_RAMP, self._settings.limits.max_step_w)
        detail = f"{what} until {self._clock.now() + duration:%Y-%m-%d %H:%M} UTC"
        entry = Entry(notices=[(NoticeCode.OVERRIDE_SET, order_id, detail)], announced=[order_id])
        if verb is Verb.STOP:
            ids = tuple(sorted(named or ()))
            entry.orders.append(OrderRecord(order_id, 0, Stage.STARTED, ids, ramp, ramp, now))
        await self._write(lambda _: entry)
        return self.usable

    async def release(self, named: Collection[str] | None, fleet: Collection[str]) -> tuple[str, ...]:
        """End overrides, for ``named`` miners or all; return the ids of those that changed.

        Raises:
            BadInput: the file cannot be used, so they stay.
            Transient: another process holds it; try again.
        """
        if self._here is None:
            raise BadInput(
                f"{self._settings.database}: cannot be used ({self._trouble}), so no override is ended. Start the "
                "daemon, it saves what can be read and replaces the file: systemctl start ballast-agent; then say this "
                "again. failsafe on starts miners meanwhile"
            )
        now, _ = self._time.now()
        what = f"for {whom(named)}, without a daemon"

        def work(connection: sqlite3.Connection) -> tuple[str, ...]:
            changed = overrides.release(connection, named, fleet, self._clock)
            lines = (Line(now, order_id, "", by_hand.RELEASED, what) for order_id in changed)
            self._write_lines(connection, tuple(lines))
            return changed

        changed = await self._here.run(work)
        gone = await self._let_go()
        await self._write(lambda books: released_entry(books, self._feeders, gone))
        return changed

    async def _let_go(self) -> Callable[[str, str], bool]:
        """Return what tells of an override and a miner whether it was released for that; of none where unknown."""
        if self._here is not None:
            try:
                return await self._here.run(overrides.let_go)
            except (AgentError, ValueError, TypeError) as error:
                self._lose(error)
        return lambda *_: False

    def active(self) -> tuple[overrides.StoredOverride, ...]:
        """Return the overrides in force. Raises BadInput when the file cannot be read."""
        return self._read(lambda connection: overrides.active(connection, self._clock), ())

    def doubts(self) -> Mapping[str, Any]:
        """Return what stands against miners and feeders. Raises as ``active``."""
        return self._read(lambda connection: stored_doubts(connection, self._feeders), NO_DOUBTS)

    def _read(self, work: Callable[[sqlite3.Connection], Result], nothing: Result) -> Result:
        path = self._settings.database
        if not is_there(path):
            return nothing
        try:
            with closing(connect_read_only(path)) as connection:
                return work(connection)
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{path}: cannot be read: {error}") from None

    def started_ago_s(self) -> dict[str, float]:
        """Return how long ago each miner was last told to start, by whomever; nothing where the file has no say."""
        now, _ = self._time.now()
        records_ = () if self._books is None else self._books.miners.values()
        return {
            record.miner_id: max(0.0, (now - record.sent_at).total_seconds())
            for record in records_
            if record.verb is Verb.START and record.sent_at is not None
        }

    async def earlier(self) -> Earlier:
        """Return what is known of stops before this run, nothing where the file cannot be used."""
        if self._books is None or self._here is None:
            return Earlier()
        try:
            over, found = await self._here.run(lambda file: (by_hand.over(file), by_hand.last_found(file)))
        except AgentError as error:
            self._lose(error)
            return Earlier()
        now, _ = self._time.now()
        stops = [record for record in self._books.miners.values() if record.verb is Verb.STOP]
        unfinished = {
            record.miner_id: _again(record)
            for record in stops
            if record.order_id not in over and self._is_under_way(record, now)
        }
        doubted = {
            record.miner_id: _again(record)
            for record in stops
            if record.baseline_w is not None and not record.complete
            if record.lie or record.outcome is not None or found.get(record.miner_id) == by_hand.UNPROVEN
        }
        caught = frozenset(record.miner_id for record in stops if record.lie is Lie.REPORTS_IDLE)
        return Earlier(unfinished, doubted, caught)

    def _is_under_way(self, record: MinerRecord, now: datetime) -> bool:
        """Return whether a stop was sent, under the order that its record names, a short while ago, and not judged."""
        if record.phase is not Phase.SENT or record.outcome is not None or record.sent_at is None:
            return False
        if record.baseline_w is None or record.feeder_before_w is None:
            return False
        order = None if self._books is None else self._books.orders.get(record.order_id)
        its_own = order is None or order.started_at <= record.sent_at
        return its_own and timedelta(0) <= now - record.sent_at <= _SHORT_WHILE

    async def ended(self, order_id: str, what: str) -> None:
        """Note that the run under ``order_id`` has looked at all its miners to the end."""
        now, _ = self._time.now()
        self._lines.append(Line(now, order_id, "", by_hand.ENDED, what))

    async def intend(self, intent: Intent) -> None:
        """Make it durable that ``intent`` is about to be sent, as far as the file takes it."""
        now, _ = self._time.now()
        self._lines.append(Line(now, intent.order_id, intent.miner_id, by_hand.SENDING, intent.verb.value))

        def build(books: Books) -> Entry:
            current = books.miners.get(intent.miner_id)
            self._earlier.setdefault(intent.miner_id, current)
            wanted = Desired(intent.miner_id, intent.verb, intent.order_id, OVERRIDE)
            change = records.retarget(current, wanted, 0)
            record = change.record if change is not None else current
            if record is None:
                record = MinerRecord(intent.miner_id, intent.verb, intent.order_id, 0, OVERRIDE)
            entry = Entry(miners=[self._sent(books, record, intent)])
            if change is not None and change.closes is not None and change.closing is not None:
                entry.acks.append((change.closes, change.closing))
            return entry

        await self._write(build)

    async def found(self, finding: Finding, verb: Verb, order_id: str) -> None:
        """Note what was found of a miner: one line, and what the books hold of it changes."""
        now, _ = self._time.now()
        name = finding.entry.miner_id
        event = by_hand.PROVEN if finding.proof is Proof.YES else by_hand.UNPROVEN
        what = f"nothing was changed there: {finding.what}" if finding.unsent else finding.what
        self._lines.append(Line(now, order_id, name, event, what))
        if name in self._earlier:
            earlier = self._earlier[name]
            self._waiting.append(lambda books: found_entry(books, finding, verb, earlier))

    async def balanced(self, feeders: Collection[str], balances: Iterable[Balance]) -> None:
        """Note, after the last ``found``, which of the run's ``feeders`` draw too much, as far as meters have told."""
        by_feeder = {balance.feeder_id: balance for balance in balances}
        now, _ = self._time.now()
        async with self._turn:
            await self._flush()
        gone = await self._let_go()

        def build(books: Books) -> Entry:
            names = {feeder: self._feeders.get(feeder, ()) for feeder in feeders}
            return joined(
                feeder_entry(books, feeder, names[feeder], by_feeder.get(feeder), self._earlier, gone, now)
                for feeder in sorted(names)
            )

        await self._write(build)

    def _sent(self, books: Books, record: MinerRecord, intent: Intent) -> MinerRecord:
        if intent.verb is Verb.STOP and intent.baseline_w is None and record.complete:
            return record  # it was off and proven so: the order takes that over
        now, _ = self._time.now()
        untold = replace(record, outcome=None, evidence=Evidence.NONE, reason="", detail="")
        sent = replace(untold, phase=Phase.SENT, touched=True)
        if intent.verb is not Verb.STOP or intent.baseline_w is not None or record.baseline_w is None:
            # else what is known of it was measured before its earlier order, and stays dated so
            sent = replace(sent, sent_at=now, sent_no=books.next_number())
        if intent.verb is not Verb.STOP:
            return sent
        sent = replace(sent, off_since=record.off_since or now)
        if intent.baseline_w is None:
            return sent
        before = intent.before
        return replace(
            sent,
            baseline_w=intent.baseline_w,
            feeder_before_w=None if before is None else before.power_w,
            feeder_spread_w=None if before is None else before.spread_w,
        )

    def _write_lines(self, connection: sqlite3.Connection, lines: Iterable[Line]) -> None:
        """Write ``lines`` by hand and journal them, in the transaction of ``connection``."""
        _, trust = self._time.now()
        by_hand.write_lines(connection, lines)
        self._chain.append(connection, by_hand.notes_of(lines, trust))

    async def _write(self, build: Callable[[Books], Entry]) -> None:
        """Hand in ``build`` and wait until it is written, with whatever others have handed in meanwhile."""
        self._waiting.append(build)
        await asyncio.sleep(0)  # those who are ready now join in
        async with self._turn:
            if any(one is build for one in self._waiting):
                await self._flush()

    async def _flush(self) -> None:
        books, here = self._books, self._here
        if books is None or here is None or not (self._waiting or self._lines):
            return
        builds, self._waiting = self._waiting, []
        try:
            await books.apply(lambda: joined(build(books) for build in builds))
            if self._lines:
                await here.run(lambda _: None)
        except (AgentError, sqlite3.Error, ValueError, KeyError, TypeError) as error:
            self._lose(error)

    def _lose(self, error: BaseException) -> None:
        self._trouble = str(error)
        if self._books is not None or self._here is None:
            self._say(
                f"warning: {self._settings.database} takes nothing ({error}): a daemon that starts later knows nothing "
                "of this; start these miners yourself afterwards, with failsafe on"
            )
        self._books = self._here = None


def _again(record: MinerRecord) -> Intent:
    before = None
    if record.feeder_before_w is not None:
        before = FeederBefore(record.feeder_before_w, record.feeder_spread_w or Watts(0))
    return Intent(record.miner_id, Verb.STOP, record.order_id, record.baseline_w, before)
