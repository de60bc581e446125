"""Local curtailment of one site, put together for the agent's wiring."""

import logging
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from agent.errors import Transient
from agent.local_curtail import by_hand
from agent.local_curtail.books import Books
from agent.local_curtail.bystanders import Bystanders
from agent.local_curtail.chain import Chain
from agent.local_curtail.doubts import doubts
from agent.local_curtail.drift import Drifts
from agent.local_curtail.executor import Executor, Wake
from agent.local_curtail.feeders import Feeders
from agent.local_curtail.held import HEAT_MARK
from agent.local_curtail.history import Event, last_events
from agent.local_curtail.journal import Journal
from agent.local_curtail.lanes import Lanes
from agent.local_curtail.neighbourhood import Neighbourhood
from agent.local_curtail.notices import NotedOutbox
from agent.local_curtail.orders import Files, Orders
from agent.local_curtail.outside import Outside
from agent.local_curtail.overrides import Overrides, StoredOverride
from agent.local_curtail.policy import whom
from agent.local_curtail.ports import Control, FeederMeter, Observed, Outbox
from agent.local_curtail.ramp import SitePace
from agent.local_curtail.reach import Reach
from agent.local_curtail.records import MinerRecord, OrderRecord, Stage
from agent.local_curtail.resting import Resting
from agent.local_curtail.rises import Rises
from agent.local_curtail.rounds import Rounds
from agent.local_curtail.rules import SiteMiner, SiteRules
from agent.local_curtail.salvage import salvage
from agent.local_curtail.secrets import Secrets
from agent.local_curtail.site_time import SiteTime
from agent.local_curtail.standing import Standing
from agent.local_curtail.starting import Starter
from agent.local_curtail.stopping import Stopper
from agent.local_curtail.surroundings import Surroundings
from agent.local_curtail.thermometers import Thermometers
from agent.local_curtail.unsent import hand_on
from agent.precedence import Precedence
from agent.storage import Writer
from sitelink.clock import Clock
from sitelink.signing import KeyRing
from sitelink.types import BatchBody, ClockTrust, Notice, Reading, Verb
from sitelink.units import Watts

_LOG: Final = logging.getLogger(__name__)

__all__ = ["CurtailStatus", "LocalCurtail", "SiteMiner", "SiteRules"]


@dataclass(frozen=True, slots=True)
class CurtailStatus:
    """How curtailment stands: time, plan, counts of miners by (verb, phase or outcome), orders not yet restored."""

    now: datetime
    trust: ClockTrust
    plan_id: str
    plan_revision: int
    counts: Mapping[str, int]
    open_orders: tuple[OrderRecord, ...]
    miners: Mapping[str, MinerRecord]


class LocalCurtail:
    """Journal, site time and executor of one site."""

    def __init__(
        self,
        *,
        rules: SiteRules,
        miners: tuple[SiteMiner, ...],
        writer: Writer,
        outbox: Outbox,
        clock: Clock,
        ids: Callable[[], str],
        order_keys: KeyRing,
        time_keys: KeyRing,
        controls: Callable[[str], Control],
        feeder_meters: Mapping[str, FeederMeter],
        latest: Callable[[str], Reading | None],
        precedence: Precedence,
        files: Files,
        secrets: Secrets,
        site_w: Callable[[], Watts | None] = lambda: None,
        outside: Outside | None = None,
    ) -> None:
        """``controls`` gives a miner's control, ``feeder_meters`` holds meters by feeder, ``latest`` a reading.

        ``site_w`` tells what the site's meter shows, None while it is silent; ``outside`` has prices and the air.
        """
        by_id = {miner.miner_id: miner for miner in miners}
        wake = Wake()
        reach = Reach(controls, rules.concurrency, precedence)
        self.site_time = SiteTime(writer, clock, rules.site_id, time_keys)
        self._chain = Chain(ids)
        self._noted = noted = NotedOutbox(outbox, self._chain, self.site_time)
        self.journal = Journal(writer, noted, self.site_time, ids, rules, by_id, order_keys, wake.orders, secrets)
        self._books = Books(writer, noted, ids, self.site_time)
        self._overrides = Overrides(writer, clock)
        self._clock, self._writer, self._outbox = clock, writer, outbox
        self._wake, self._reach, self._rules, self._miners = wake, reach, rules, by_id
        self._by_feeder = _by_feeder(miners)
        feeders = Feeders(feeder_meters, clock)
        resting, drifts = Resting(latest, clock), Drifts()
        around = self._around(reach, resting, drifts)
        rises = Rises(self._books, reach, feeder_meters, self._neighbours, by_id, clock, rules.idle_share, latest)
        pace = SitePace(rules.pace)
        self._lanes = Lanes(self._books, by_id, feeders, rules, latest, pace)
        self._orders = Orders(
            writer, self._books, reach, files, by_id, rules, clock, self.site_time, secrets, pace, self._chain
        )
        self._thermometers = Thermometers(rules.heat, by_id, latest, reach, self._books, clock, wake.orders)
        self._executor = Executor(
            rules=rules,
            miners=by_id,
            clock=clock,
            site_time=self.site_time,
            overrides=self._overrides,
            journal=self.journal,
            books=self._books,
            lanes=self._lanes,
            feeders=feeders,
            stopper=Stopper(self._books, reach, feeders, around, clock, self.site_time, rules),
            starter=Starter(self._books, reach, clock, self.site_time),
            rounds=Rounds(
                self._books,
                by_id,
                reach,
                feeder_meters,
                self._neighbours,
                self._lanes.busy,
                clock,
                self.site_time,
                latest,
                wake.work,
                rises,
            ),
            surroundings=Surroundings(rules, by_id, latest, site_w, self._thermometers, outside),
            wake=wake,
        )

    def _around(self, reach: Reach, resting: Resting, drifts: Drifts) -> Neighbourhood:
        share = self._rules.idle_share
        bystanders = Bystanders(reach, self._load_w, resting, drifts, self._clock, share)
        rest = (self.site_time, self._rules, bystanders, resting, drifts, self._clock)
        return Neighbourhood(self._books, reach, self._neighbours, self._load_w, *rest)

    def _neighbours(self, feeder_id: str) -> tuple[str, ...]:
        return self._by_feeder.get(feeder_id, ())

    async def load(self) -> None:
        """Take up where an earlier process stopped; the tables must exist."""
        await self.site_time.load()
        await self.journal.load()
        await self._books.load()
        await self._take_up_chain()
        self._thermometers.load()
        await self._hand_on()
        now, _ = self.site_time.now()
        self._lanes.load(now, self._clock.monotonic())
        gone = sorted(record.miner_id for record in self._books.miners.values() if self._is_out_of_reach(record))
        if gone:
            _LOG.warning(
                "stopped by us and no longer in the inventory: %s; put them back, or start them by hand",
                ", ".join(gone),
            )

    async def recover(self, broken: Path) -> None:
        """Before the first ``load`` after ``agent.db`` was moved to ``broken``: save its orders, or undo them."""
        now, trust = self.site_time.now()

        def work(connection: sqlite3.Connection) -> bool:
            whole = salvage(connection, broken)
            self._chain.begin(connection, now, trust, f"agent.db was broken and moved to {broken.name}")
            return whole

        whole = await self._writer.run(work)
        await self._books.load()
        if not whole:
            fleet = [miner.miner_id for miner in self._miners.values() if miner.controllable]
            touchable = [name for name in fleet if name not in self._rules.never_touch]
            await self._books.forget_orders(touchable, f"orders were lost with {broken.name}")

    async def _take_up_chain(self) -> None:
        """Look at the journal's last entries; where they do not hold, begin a new chain that names it."""
        now, trust = self.site_time.now()
        fault = await self._writer.run(lambda connection: self._chain.take_up(connection, now, trust))
        if fault:
            _LOG.error("the journal is broken: %s; a new chain begins, what is there is kept", fault)

    async def tell(self, notice: Notice) -> None:
        """Journal ``notice`` and hand it to the cloud, in one transaction. Raises Transient."""
        await self._writer.run(lambda connection: self._noted.append_in(connection, BatchBody(notices=(notice,))))

    async def _hand_on(self) -> None:
        try:
            await self._writer.run(lambda connection: hand_on(connection, self._outbox))
        except (Transient, ValueError, KeyError, TypeError) as error:
            _LOG.warning("what a failsafe had to report waits on: %s", error)

    def _load_w(self, miner_id: str) -> Watts:
        return self._miners[miner_id].load_w

    def _is_out_of_reach(self, record: MinerRecord) -> bool:
        return record.touched and record.miner_id not in self._miners

    async def run_orders(self) -> None:
        """Carry out the commands beside the policy until cancelled; the books must be loaded."""
        await self._orders.load()
        await self._orders.run(lambda: self.journal.commands)

    async def run(self) -> None:
        """Run until cancelled."""
        await self._executor.run()

    async def override(
        self, override_id: str, verb: Verb, miner_ids: Collection[str] | None, duration: timedelta
    ) -> str:
        """Keep to a technician's order from now on; return why it is not stored, "" when it is. Twice is once."""
        now, _ = self.site_time.now()
        what = f"{verb.value} of {whom(miner_ids)} for {duration}"
        line = by_hand.Line(now, override_id, "", by_hand.ORDERED, what)
        if any(item.override.override_id == override_id for item in await self._overrides.active()):
            return ""
        failure = await self._overrides.set(override_id, verb, miner_ids, duration)
        if failure is None:
            await self._note_by_hand(line)
        self._wake.orders()
        return "" if failure is None else str(failure)

    async def mended(self, miner_ids: Collection[str]) -> None:
        """Try again what these miners refused for good: somebody may have mended it.

        Never raises and waits for no disk; a process that ends before it did so tries them when it starts again.
        """
        self._lanes.forgive(miner_ids)
        self._wake.work()

    def holds_off(self, miner_id: str) -> bool:
        """Return whether an order of ours keeps the miner off, or its start has not been seen to work yet."""
        record = self._books.miners.get(miner_id)
        return record is not None and record.holds_off

    async def release(self, miner_ids: Collection[str] | None) -> tuple[tuple[str, ...], str]:
        """End overrides, for ``miner_ids`` or all; return the ids of those ended or cut, and why it is not stored."""
        names = frozenset(self._miners)
        before = await self._overrides.active()
        failure = await self._overrides.release(miner_ids, names)
        after = {item.override.override_id: item.override.miner_ids for item in await self._overrides.active()}
        kinds = [item.override for item in before]
        changed = tuple(one.override_id for one in kinds if after.get(one.override_id, frozenset()) != one.miner_ids)
        if failure is None:
            now, _ = self.site_time.now()
            for override_id in changed:
                what = f"for {whom(miner_ids)}"
                await self._note_by_hand(by_hand.Line(now, override_id, "", by_hand.RELEASED, what))
        self._wake.orders()
        return changed, "" if failure is None else str(failure)

    async def overrides(self) -> tuple[StoredOverride, ...]:
        """Return the overrides in force."""
        return await self._overrides.active()

    async def standing(self) -> dict[str, Any]:
        """Return how orders stand, as a plain document."""
        now, trust = self.site_time.now()
        active, records = await self._overrides.active(), tuple(self._books.miners.values())
        return Standing(
            now, trust, self.journal.plan, active, records, self._books.mark("fallback"), self._books.mark(HEAT_MARK)
        ).document()

    def doubts(self) -> dict[str, Any]:
        """Return what stands against the word of miners and feeders, as a plain document."""
        return doubts(self._books.miners, self._books.marks, self._by_feeder)

    async def history(self, count: int) -> tuple[Event, ...]:
        """Return the last ``count`` events of the journal, oldest first. Raises Transient."""
        return await self._writer.run(lambda connection: last_events(connection, count))

    def ruling(self, miner_id: str) -> str:
        """Return the id of the override that a miner is under, as last known, empty when it is under none."""
        return self._overrides.ruling(miner_id)

    def too_hot(self, miner_id: str) -> bool:
        """Return whether the miner is held for heat: nothing starts it before it has cooled."""
        return miner_id in self._thermometers.hot

    async def observe(self, miner_id: str) -> Observed:
        """Look at one miner now, in its turn. Raises AgentError."""
        return await self._reach.observe(miner_id)

    async def _note_by_hand(self, line: by_hand.Line) -> None:
        _, trust = self.site_time.now()

        def work(connection: sqlite3.Connection) -> None:
            by_hand.write_lines(connection, (line,))
            self._chain.append(connection, by_hand.notes_of((line,), trust))

        try:
            await self._writer.run(work)
        except Transient as error:
            _LOG.warning("%s by hand could not be noted: %s", line.event, error)

    def status(self) -> CurtailStatus:
        """Return how curtailment stands now."""
        now, trust = self.site_time.now()
        plan = self.journal.plan
        counts = Counter(
            f"{record.verb.value} {record.phase.value if record.outcome is None else record.outcome.value}"
            for record in self._books.miners.values()
        )
        open_orders = tuple(order for order in self._books.orders.values() if order.stage is not Stage.RESTORED)
        plan_id = "" if plan is None else plan.plan_id
        return CurtailStatus(
            now, trust, plan_id, self.journal.plan_revision, counts, open_orders, dict(self._books.miners)
        )


def _by_feeder(miners: tuple[SiteMiner, ...]) -> dict[str, tuple[str, ...]]:
    by_feeder: defaultdict[str, list[str]] = defaultdict(list)
    for miner in miners:
        by_feeder[miner.feeder_id].append(miner.miner_id)
    return {feeder: tuple(names) for feeder, names in by_feeder.items()}
