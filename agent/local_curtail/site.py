"""Local curtailment of one site, put together for the agent's wiring."""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from agent.local_curtail.books import Books
from agent.local_curtail.executor import Executor, Wake
from agent.local_curtail.journal import Journal
from agent.local_curtail.lanes import Lanes
from agent.local_curtail.oneshot import OneShots
from agent.local_curtail.ports import Control, FeederMeter, Outbox
from agent.local_curtail.reach import Reach
from agent.local_curtail.records import MinerRecord, OrderRecord, Stage
from agent.local_curtail.rounds import Rounds
from agent.local_curtail.rules import SiteMiner, SiteRules
from agent.local_curtail.salvage import salvage
from agent.local_curtail.site_time import SiteTime
from agent.local_curtail.starting import Starter
from agent.local_curtail.stopping import Stopper
from agent.storage import Writer
from sitelink.clock import Clock
from sitelink.signing import KeyRing
from sitelink.types import ClockTrust, Reading

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
    ) -> None:
        """``controls`` gives a miner's control, ``feeder_meters`` holds meters by feeder, ``latest`` a reading."""
        by_id = {miner.miner_id: miner for miner in miners}
        wake = Wake()
        self.site_time = SiteTime(writer, clock, rules.site_id, time_keys)
        self.journal = Journal(writer, outbox, self.site_time, ids, rules, by_id, order_keys, wake.orders)
        self._books = Books(writer, outbox, ids, self.site_time)
        self._clock = clock
        self._writer = writer
        self._rules = rules
        self._miners = by_id
        reach = Reach(controls, rules.concurrency)
        neighbours = _neighbours(miners)
        self._lanes = Lanes(self._books, by_id, frozenset(feeder_meters), rules, latest)
        self._one_shots = OneShots(writer, self._books, reach, self.site_time)
        self._executor = Executor(
            rules=rules,
            miners=by_id,
            writer=writer,
            clock=clock,
            site_time=self.site_time,
            journal=self.journal,
            books=self._books,
            lanes=self._lanes,
            stopper=Stopper(self._books, reach, feeder_meters, neighbours, clock, self.site_time, rules),
            starter=Starter(self._books, reach, clock, self.site_time),
            rounds=Rounds(
                self._books,
                by_id,
                reach,
                feeder_meters,
                neighbours,
                self._lanes.busy,
                clock,
                self.site_time,
                wake.work,
            ),
            one_shots=self._one_shots,
            wake=wake,
        )

    async def load(self) -> None:
        """Take up where an earlier process stopped; the tables must exist."""
        await self.site_time.load()
        await self.journal.load()
        await self._books.load()
        await self._one_shots.load()
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
        whole = await self._writer.run(lambda connection: salvage(connection, broken))
        await self._books.load()
        if not whole:
            fleet = [miner.miner_id for miner in self._miners.values() if miner.controllable]
            touchable = [name for name in fleet if name not in self._rules.never_touch]
            await self._books.forget_orders(touchable, f"orders were lost with {broken.name}")

    def _is_out_of_reach(self, record: MinerRecord) -> bool:
        return record.touched and record.miner_id not in self._miners

    async def run(self) -> None:
        """Run until cancelled."""
        await self._executor.run()

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


def _neighbours(miners: tuple[SiteMiner, ...]) -> Callable[[str], tuple[str, ...]]:
    by_feeder: defaultdict[str, list[str]] = defaultdict(list)
    for miner in miners:
        by_feeder[miner.feeder_id].append(miner.miner_id)
    frozen = {feeder: tuple(names) for feeder, names in by_feeder.items()}
    return lambda feeder_id: frozen.get(feeder_id, ())
