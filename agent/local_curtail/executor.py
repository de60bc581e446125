"""The loop that makes a site do what its policy wants, and proves it.

    every half second:  time, plan, commands, overrides --policy.decide--> records retargeted (one transaction)
    whenever woken:     lanes.choose --> one task per miner: Stopper or Starter --> verdict, ack
                        orders advanced --> STARTED, HELD, RELEASED, RESTORED

Invariants: everything it acts on is durable first, so a killed process goes on where the books stand; nothing waits for
the cloud; a failing miner or meter delays nobody but itself (and its feeder for one deadline).
"""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from agent.errors import AgentError
from agent.local_curtail import policy
from agent.local_curtail.books import Books, Entry
from agent.local_curtail.feeders import Feeders
from agent.local_curtail.journal import Journal
from agent.local_curtail.lanes import Lanes
from agent.local_curtail.overrides import Overrides, StoredOverride
from agent.local_curtail.records import Change, MinerRecord, OrderRecord, Stage, retarget
from agent.local_curtail.rounds import Rounds
from agent.local_curtail.rules import SiteMiner, SiteRules
from agent.local_curtail.site_time import SiteTime
from agent.local_curtail.stages import advance, opened, slowed
from agent.local_curtail.starting import Starter
from agent.local_curtail.stopping import Stopper
from agent.local_curtail.surroundings import Surroundings
from sitelink.clock import Clock
from sitelink.types import ClockTrust, NoticeCode, Verb

_LOG: Final = logging.getLogger(__name__)
TICK_S: Final = 0.5
_GATHER_S: Final = 0.05
"""Who becomes free within this time is succeeded at once: choosing looks at every record."""
_SHORTEST_S: Final = 0.001
"""Two clocks differ by rounding; a wait below this would spin."""
_UNTOUCHED: Final = "untouched"
_UNTRUSTED_SINCE: Final = "untrusted_since"
FIRST_WORD_S: Final = 15.0
"""So long after its start an agent that cannot trust its clock waits for the time before it starts a miner."""
_KEEP_ORDERS: Final = timedelta(days=7)


@dataclass(slots=True)
class Wake:
    """Wakes the loop: ``decide`` when an order came, else only to choose the next miners."""

    event: asyncio.Event = field(default_factory=asyncio.Event)
    decide: bool = True

    def orders(self) -> None:
        """Say that the orders have changed."""
        self.decide = True
        self.event.set()

    def work(self) -> None:
        """Say that somebody has become free."""
        self.event.set()


class Executor:
    """Runs a site's curtailments."""

    def __init__(
        self,
        rules: SiteRules,
        miners: Mapping[str, SiteMiner],
        clock: Clock,
        site_time: SiteTime,
        overrides: Overrides,
        journal: Journal,
        books: Books,
        lanes: Lanes,
        feeders: Feeders,
        stopper: Stopper,
        starter: Starter,
        rounds: Rounds,
        surroundings: Surroundings,
        wake: Wake,
    ) -> None:
        self._surroundings = surroundings
        self._rules = rules
        self._miners = miners
        self._clock = clock
        self._site_time = site_time
        self._overrides = overrides
        self._journal = journal
        self._books = books
        self._lanes = lanes
        self._feeders = feeders
        self._stopper = stopper
        self._starter = starter
        self._rounds = rounds
        self._wake = wake
        self._fleet = tuple(miner.miner_id for miner in miners.values() if miner.controllable)
        self._failing = False
        self._seen_revision = 0
        self._began_s = clock.monotonic()
        self._stops: frozenset[str] | None = None

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feeders.run())
            group.create_task(self._stopper.watch_neighbours())
            group.create_task(self._rounds.sweep_forever())
            group.create_task(self._rounds.balance_forever())
            group.create_task(self._surroundings.thermometers.run())
            due_s = self._clock.monotonic()
            while True:
                self._wake.event.clear()
                now_s = self._clock.monotonic()
                if self._wake.decide or now_s >= due_s:
                    self._wake.decide = False
                    due_s = now_s + TICK_S
                    await self._guarded_tick()
                for miner in self._lanes.choose(self._clock.monotonic(), self._may_start):
                    group.create_task(self._work_on(miner))
                await self._sleep(due_s)
                if not self._wake.decide:
                    await asyncio.sleep(_GATHER_S)

    async def tick(self) -> None:
        """Decide once and write what changed.

        Raises:
            Transient: the journal cannot be written now.
        """
        active = await self._overrides.active()
        situation = self._situation(active)
        desired = policy.decide(situation)
        self._stops = frozenset(wanted.miner_id for wanted in desired if wanted.verb is Verb.STOP)
        await self._books.apply(lambda: self._retarget(situation, desired, active))
        self._stopper.recall()
        await self._books.apply(self._advance)
        await self._journal.drop_expired_commands()

    def _may_start(self, record: MinerRecord) -> bool:
        """Return whether the miner may be started: none is into an event in force, or before its orders are known.

        After a boot without a clock that may be trusted nobody knows whether the plan's window is open now: the cloud
        has a while to tell the time. By hand nothing waits.
        """
        if record.cause == policy.OVERRIDE:
            return True
        if self._clock.monotonic() - self._began_s < FIRST_WORD_S:
            dated = self._site_time.now()[1] is not ClockTrust.UNTRUSTED
            orders = self._journal.plan is not None or self._journal.commands
            if self._stops is None or not (dated or not orders):
                return False
        return self._stops is None or record.miner_id not in self._stops

    async def _guarded_tick(self) -> None:
        try:
            await self.tick()
        except AgentError as error:
            if not self._failing:
                _LOG.error("curtailment cannot write its journal, trying on: %s", error)
            self._failing = True
        else:
            if self._failing:
                _LOG.info("curtailment writes its journal again")
            self._failing = False

    async def _sleep(self, due_s: float) -> None:
        try:
            async with asyncio.timeout(max(_SHORTEST_S, due_s - self._clock.monotonic())):
                await self._wake.event.wait()
        except TimeoutError:
            return

    async def _work_on(self, miner: SiteMiner) -> None:
        sent = judged = False
        try:
            starts = self._books.miners[miner.miner_id].verb is Verb.START
            sent = await (self._starter if starts else self._stopper).attempt(miner)
            judged = True
        except AgentError as error:
            _LOG.warning("miner %s: attempt broken off, it is repeated: %s", miner.miner_id, error)
        except Exception:  # noqa: BLE001 - the supervisor of these tasks: one miner must not end the others
            _LOG.exception("miner %s: attempt failed on a defect of ours; it is repeated", miner.miner_id)
        finally:
            self._lanes.give_back(miner, self._clock.monotonic(), sent=sent, judged=judged)
            self._wake.work()

    def _situation(self, active: tuple[StoredOverride, ...]) -> policy.Situation:
        now, trust = self._site_time.now()
        now_s = self._clock.monotonic()
        since_s = self._untrusted_since_s() if trust is ClockTrust.UNTRUSTED else None
        records = self._books.miners
        return policy.Situation(
            now=now,
            trust=trust,
            fleet=self._fleet,
            limits=self._rules.limits,
            plan=self._journal.plan,
            overrides=tuple(item.override for item in active),
            commands=self._journal.commands,
            fallback=self._rules.fallback,
            grace_s=self._rules.grace_s,
            untrusted_s=0.0 if since_s is None else now_s - since_s,
            last_desired={miner_id: record.desired for miner_id, record in records.items()},
            off_s={
                miner_id: (now - record.off_since).total_seconds()
                for miner_id, record in records.items()
                if record.off_since is not None
            },
            hot=self._surroundings.thermometers.hot,
            suspect=self._surroundings.thermometers.suspect,
            loads=self._surroundings.loads(records, now),
            rule=self._rules.silence,
            order=self._surroundings.order,
            sights=self._surroundings.sights(records, now),
        )

    def _untrusted_since_s(self) -> float | None:
        """Return since when the clock is untrusted, by monotonic time; a restart does not begin the grace anew."""
        boot_id, _, since = self._books.mark(_UNTRUSTED_SINCE).partition(" ")
        return float(since) if boot_id == self._clock.boot_id() else None

    def _retarget(
        self, situation: policy.Situation, desired: tuple[policy.Desired, ...], active: tuple[StoredOverride, ...]
    ) -> Entry:
        entry = Entry()
        plan, revision = self._journal.plan, self._journal.plan_revision
        new_orders: dict[str, list[str]] = {}
        kept: Counter[tuple[str, str]] = Counter()
        for wanted in desired:
            change = retarget(self._books.miners.get(wanted.miner_id), wanted, revision)
            if change is None:
                continue
            _note(entry, change)
            if wanted.reason in {policy.MIN_LOAD, policy.MAX_OFF}:
                kept[wanted.order_id, wanted.reason] += 1
            # Heat is no curtailment: it has no stages, and nothing tells of it as of one.
            known = wanted.order_id == policy.HEAT_ORDER or wanted.order_id in self._books.orders
            if wanted.verb is Verb.STOP and not known:
                new_orders.setdefault(wanted.order_id, []).append(wanted.miner_id)
        for order_id, miner_ids in new_orders.items():
            order = opened(order_id, miner_ids, plan, revision, self._rules.max_step_w, situation.now)
            entry.orders.append(order)
            entry.notices.append((NoticeCode.CURTAILMENT_STARTED, order_id, f"{len(miner_ids)} miners to stop"))
            loads_w = [self._miners[miner_id].load_w for miner_id in miner_ids]
            slow = slowed(order_id, loads_w, plan, self._rules.pace)
            if slow:
                entry.notices.append((NoticeCode.LIMIT_APPLIED, order_id, slow))
        entry.notices += [(NoticeCode.LIMIT_APPLIED, key[0], self._kept(key[1], count)) for key, count in kept.items()]
        self._note_untouched(entry)
        entry.orders += self._revised()
        self._note_trust(entry, situation)
        for item in active:
            if not item.announced:
                entry.notices.append((NoticeCode.OVERRIDE_SET, item.override.override_id, item.words()))
                entry.announced.append(item.override.override_id)
        return entry

    def _kept(self, reason: str, count: int) -> str:
        if reason == policy.MIN_LOAD:
            return f"{reason}: {count} more miners stay on: the site is to draw {self._rules.min_load_w / 1e3:g} kW"
        return f"{reason}: {count} miners run again: they were off for {self._rules.max_off_s:g} s"

    def _note_untouched(self, entry: Entry) -> None:
        """Tell once of each plan whom it names in vain, for this site never touches them."""
        plan = self._journal.plan
        if plan is None or not self._rules.never_touch:
            return
        key = f"{plan.plan_id} {plan.revision}"
        spared = {
            one.curtailment_id: len(self._rules.never_touch.intersection(one.miner_ids)) for one in plan.curtailments
        }
        if not any(spared.values()) or self._books.mark(_UNTOUCHED) == key:
            return
        entry.marks[_UNTOUCHED] = key
        entry.notices += [
            (NoticeCode.LIMIT_APPLIED, order_id, f"{policy.NEVER_TOUCH}: {count} of its miners are left alone")
            for order_id, count in spared.items()
            if count
        ]

    def _revised(self) -> list[OrderRecord]:
        """Return the orders whose curtailment reads otherwise in the plan now in force."""
        plan = self._journal.plan
        if plan is None or plan.revision == self._seen_revision:
            return []
        self._seen_revision = plan.revision
        found = []
        for item in plan.curtailments:
            order = self._books.orders.get(item.curtailment_id)
            if order is not None:
                fresh = opened(order.order_id, (), plan, plan.revision, self._rules.max_step_w, order.started_at)
                found.append(replace(fresh, stage=order.stage))
        return found

    def _note_trust(self, entry: Entry, situation: policy.Situation) -> None:
        trust, before = situation.trust.value, self._books.mark("clock_trust")
        if trust != before:
            entry.marks["clock_trust"] = trust
            detail = f"{before or 'none'} -> {trust}"
            entry.notices.append((NoticeCode.CLOCK_TRUST_CHANGED, self._rules.site_id, detail))
        untrusted = situation.trust is ClockTrust.UNTRUSTED
        if trust != before or (untrusted and self._untrusted_since_s() is None):
            since = f"{self._clock.boot_id()} {self._clock.monotonic()}" if untrusted else ""
            entry.marks[_UNTRUSTED_SINCE] = since
        reason, before = policy.fallback_reason(situation) or "", self._books.mark("fallback")
        if reason != before:
            entry.marks["fallback"] = reason
            code = NoticeCode.FALLBACK_STARTED if reason else NoticeCode.FALLBACK_ENDED
            entry.notices.append((code, self._rules.site_id, reason or before))

    def _advance(self) -> Entry:
        entry = Entry()
        now, _ = self._site_time.now()
        under: defaultdict[str, list[MinerRecord]] = defaultdict(list)
        for record in self._books.miners.values():
            if record.miner_id in self._miners:  # one that left the inventory is beyond our reach and holds up nothing
                under[record.order_id].append(record)
        for order in self._books.orders.values():
            own = under.get(order.order_id, [])
            step = advance(order, own, now)
            if step is not None:
                entry.orders.append(step.order)
                entry.notices.append(step.notice)
            elif order.stage is Stage.RESTORED and not own and now - order.started_at > _KEEP_ORDERS:
                entry.forgotten.append(order.order_id)
        return entry


def _note(entry: Entry, change: Change) -> None:
    entry.miners.append(change.record)
    if change.closes is not None and change.closing is not None:
        entry.acks.append((change.closes, change.closing))
    if change.carries is not None:
        entry.acks.append((change.record, change.carries))
