"""Looking again at what has been done: nothing stays true by itself.

    every 15 s  a held miner that hashes      -> SELF_WOKEN, stopped again
                a restored miner that idles   -> started again (a late stop reached it), for two minutes after its
                                                 start, and for the first two of a process that comes back
    every 5 s   feeder meter against what should remain on it -> FEEDER_DISAGREES, once per change; the first time
    of a feeder  as soon as its orders are settled: a liar on it waits for no round
                 marked for as long as it stands             (``doubts``)
                against what it drew when its stops were proven -> these are no longer counted   (``rises``)

What should remain on a feeder is its power before the first stop, less what those say to have shed who are proven off
or cannot be told apart (``feeder_clouded``). Where a miner reads off unproven, what all miners report is held against
the meter as well: that also finds one that reported idle all along. A difference is load that nobody owns up to.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final

from agent.errors import AgentError, Transient
from agent.local_curtail.books import Books, Entry
from agent.local_curtail.claims import OLDEST_S
from agent.local_curtail.doubts import Difference, difference_of, difference_words, mark_of, open_stops, reads_off
from agent.local_curtail.evidence import CLOUDED, Lie
from agent.local_curtail.ports import FeederMeter, Observed
from agent.local_curtail.reach import Reach
from agent.local_curtail.records import MinerRecord, Phase
from agent.local_curtail.resting import GONE
from agent.local_curtail.rises import Rises
from agent.local_curtail.rules import ASSUMED_NAMEPLATE_W
from agent.local_curtail.site_time import SiteTime
from sitelink.clock import Clock
from sitelink.types import Evidence, MinerState, NoticeCode, Outcome, Reading, Reason, Verb
from sitelink.units import Watts

_LOG: Final = logging.getLogger(__name__)
SWEEP_S: Final = 15.0
BALANCE_S: Final = 5.0
_TICK_S: Final = 1.0
_RESTORED_WATCH_S: Final = 2 * OLDEST_S
"""A figure as old as any may show a miner as it was before its stop."""
_RESTORED_EARLIER_S: Final = 600.0
_TOLERATED_SHARE: Final = 0.03
_HALF: Final = 0.5
_AT_MOST: Final = 1.1
"""The largest share of its own figure that a miner is taken to draw."""


class Rounds:
    """The two rounds. They change records; the executor acts on them."""

    def __init__(
        self,
        books: Books,
        fleet: Collection[str],
        reach: Reach,
        meters: Mapping[str, FeederMeter],
        neighbours: Callable[[str], tuple[str, ...]],
        busy: Callable[[str], bool],
        clock: Clock,
        site_time: SiteTime,
        latest: Callable[[str], Reading | None],
        on_change: Callable[[], None],
        rises: Rises,
    ) -> None:
        """``fleet`` is the inventory; ``busy`` tells whether a feeder or miner is worked on now and proves nothing."""
        self._books = books
        self._fleet = fleet
        self._reach = reach
        self._meters = meters
        self._neighbours = neighbours
        self._busy = busy
        self._clock = clock
        self._site_time = site_time
        self._latest = latest
        self._on_change = on_change
        self._rises = rises
        self._began_s = clock.monotonic()
        self._due_s: dict[str, float] = {}
        self._at_work: set[str] = set()

    async def sweep_forever(self) -> None:
        """Look at held and freshly restored miners again and again."""
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.sweep([miner_id for miner_id in self._books.miners if miner_id in self._fleet])

    async def balance_forever(self) -> None:
        """Compare each feeder that holds stopped miners with its meter again and again; a slow one delays no other."""
        async with asyncio.TaskGroup() as feeders:
            while True:
                await asyncio.sleep(_TICK_S)
                await self._forget()
                for feeder_id in self._now_due():
                    feeders.create_task(self._balance(feeder_id))

    def _now_due(self) -> list[str]:
        """Return the feeders to compare now: each some seconds after it was, one that has just settled at once."""
        now_s = self._clock.monotonic()
        held = {feeder_id for feeder_id in self._meters if self._held(feeder_id)}
        self._due_s = {name: due_s for name, due_s in self._due_s.items() if name in held}
        due = [
            name
            for name in self._meters
            if name in held and name not in self._at_work and self._due_s.get(name, now_s) <= now_s
        ]
        self._due_s |= dict.fromkeys(due, now_s + BALANCE_S)
        return due

    async def sweep(self, miner_ids: list[str]) -> None:
        """Look once at those of ``miner_ids`` whose state we vouch for."""
        now, _ = self._site_time.now()
        due = []
        for miner_id in miner_ids:
            record = self._books.miners[miner_id]
            if record.phase is not Phase.DONE or self._busy(miner_id):
                continue
            held = record.verb is Verb.STOP and (record.complete or record.reason == "already_idle")
            fresh = record.sent_at is not None and (now - record.sent_at).total_seconds() < self._watch_s()
            if held or (record.verb is Verb.START and record.complete and fresh):
                due.append(miner_id)
        await asyncio.gather(*(self._look_at(miner_id) for miner_id in due))

    def _watch_s(self) -> float:
        """Return how old a start may be whose miner is looked at: older after a process that died."""
        begun_lately = self._clock.monotonic() - self._began_s < _RESTORED_WATCH_S
        return _RESTORED_EARLIER_S if begun_lately else _RESTORED_WATCH_S

    async def _look_at(self, miner_id: str) -> None:
        try:
            seen = await self._reach.observe(miner_id)
            changed = await self._books.apply(lambda: self._contradicted(miner_id, seen))
        except Transient:
            return
        except AgentError as error:
            _LOG.debug("%s: not readable: %s", miner_id, error)
            return
        if changed:
            self._on_change()

    def _contradicted(self, miner_id: str, seen: Observed) -> Entry | None:
        """Return the record taken up again when ``seen`` contradicts it."""
        record = self._books.miners[miner_id]
        if record.phase is not Phase.DONE or self._busy(miner_id):
            return None
        again = replace(record, phase=Phase.WAITING, outcome=None, evidence=Evidence.NONE, reason="")
        held = record.verb is Verb.STOP and (record.complete or record.reason == "already_idle")
        if held and seen.state is MinerState.HASHING:
            woken = replace(again, woken=True, baseline_w=None, feeder_before_w=None, feeder_spread_w=None)
            drawn = "" if seen.power_w is None else f" and draws {seen.power_w:.0f} W"
            notice = (NoticeCode.SELF_WOKEN, miner_id, f"hashes again{drawn}; it is stopped again")
            return Entry(miners=[woken], notices=[notice])
        stopped = seen.state is MinerState.IDLE and seen.reason in {Reason.COMMANDED, Reason.NONE, Reason.NOT_REPORTED}
        if record.verb is Verb.START and record.complete and stopped:
            return Entry(miners=[replace(again, touched=True)])
        return None

    def _held(self, feeder_id: str) -> list[MinerRecord]:
        """Return the stops on a feeder, none while one of them, or a start, is not settled."""
        records = [self._books.miners[name] for name in self._neighbours(feeder_id) if name in self._books.miners]
        unsettled = any(
            record.phase is not Phase.DONE or (record.verb is Verb.START and record.touched) for record in records
        )
        return [] if unsettled else [record for record in records if record.verb is Verb.STOP]

    async def _balance(self, feeder_id: str) -> None:
        self._at_work.add(feeder_id)
        try:
            power_w = (await self._meters[feeder_id].read()).power_w
            if power_w is None:
                return
            # A level takes seconds to be taken; where one stands, who woke is found before the feeder is accused.
            if self._rises.has_level(feeder_id):
                await self._recheck(feeder_id, power_w)
                await self._compare(feeder_id, power_w)
            else:
                await self._compare(feeder_id, power_w)
                await self._recheck(feeder_id, power_w)
        finally:
            self._at_work.discard(feeder_id)

    async def _compare(self, feeder_id: str, power_w: Watts) -> None:
        """Hold what the feeder draws against what should remain on it, and tell what has changed of that."""
        held = self._held(feeder_id)
        if not held:
            return
        tolerated_w = _tolerated_w(held)
        excess_w = _missing_w(held, power_w)
        if excess_w <= tolerated_w:
            excess_w, tolerated_w = self._unowned_w(feeder_id, held, power_w), _least_w(held)
        name, now = mark_of(feeder_id), self._site_time.now()[0]
        known = difference_of(self._books.mark(name))
        # Whole steps of the tolerance: noise does not count as a change.
        step = round(excess_w / tolerated_w) if excess_w > tolerated_w else 0
        if step == (0 if known is None else known.step):
            return
        entry = Entry(marks={name: ""})
        if step:
            entry.marks[name] = Difference(step, excess_w, now if known is None else known.since).text()
            entry.notices.append((NoticeCode.FEEDER_DISAGREES, feeder_id, self._difference(feeder_id, held, excess_w)))
        try:
            await self._books.apply(lambda: entry)
        except Transient as error:
            _LOG.warning("feeder %s: its difference could not be noted: %s", feeder_id, error)
        if step:
            await self.sweep([record.miner_id for record in held])

    async def _recheck(self, feeder_id: str, power_w: Watts) -> None:
        """Look whether those proven off still are; who may not be is tried again, who hashes was woken."""
        if not self._held(feeder_id) or self._busy(feeder_id):
            return
        try:
            doubted = await self._rises.check(feeder_id, power_w)
        except Transient as error:
            _LOG.warning("feeder %s: its rise could not be noted: %s", feeder_id, error)
            return
        if doubted:
            await self.sweep([record.miner_id for record in self._held(feeder_id)])
            self._on_change()

    async def _forget(self) -> None:
        """Strike the differences of feeders that hold no stopped miner any more."""
        over = [
            mark_of(feeder_id)
            for feeder_id in self._meters
            if self._books.mark(mark_of(feeder_id)) and not self._stops(feeder_id)
        ]
        if not over:
            return
        try:
            await self._books.apply(lambda: Entry(marks=dict.fromkeys(over, "")))
        except Transient as error:
            _LOG.debug("differences that are over could not be struck: %s", error)

    def _stops(self, feeder_id: str) -> list[MinerRecord]:
        records = (self._books.miners.get(name) for name in self._neighbours(feeder_id))
        return [record for record in records if record is not None and record.verb is Verb.STOP]

    def _unowned_w(self, feeder_id: str, held: list[MinerRecord], feeder_w: Watts) -> Watts:
        """Return what the feeder draws more than all its miners can by their own word, where one reads off unproven."""
        if not any(reads_off(record) and not record.complete for record in held):
            return Watts(0)
        stopped = {record.miner_id: record.power_w for record in held if reads_off(record)}
        left_w = float(feeder_w)
        for miner_id in self._neighbours(feeder_id):
            reading = self._latest(miner_id)
            if miner_id in stopped:
                left_w -= _AT_MOST * (stopped[miner_id] or 0.0)
            elif reading is not None and reading.power_w is not None:
                left_w -= _AT_MOST * reading.power_w
            elif reading is not None and reading.state is MinerState.HASHING:
                return Watts(0)  # it draws, and nobody knows how much
        return Watts(left_w)

    def _difference(self, feeder_id: str, held: list[MinerRecord], excess_w: Watts) -> str:
        silent = sum(self._silent(miner_id) for miner_id in self._neighbours(feeder_id))
        return difference_words(excess_w, open_stops(held), silent)

    def _silent(self, miner_id: str) -> bool:
        reading = self._latest(miner_id)
        return reading is not None and reading.reason in GONE


def _missing_w(held: list[MinerRecord], feeder_w: Watts) -> Watts:
    """Return by how much the feeder exceeds what should remain by the word of those off who are not called liars."""
    measured = sorted((one for one in held if one.feeder_before_w is not None), key=lambda record: record.sent_no)
    # A miner that woke and was stopped again was off when others were measured: only the last measure counts then.
    counted = measured[-1:] if any(record.woken for record in held) else measured
    if not counted:
        return Watts(0)
    remain_w = counted[0].feeder_before_w or 0.0
    for record in counted:
        off = record.outcome in {Outcome.COMPLETE, Outcome.PARTIAL} or record.reason == CLOUDED.reason
        if off and record.lie is Lie.NONE and record.baseline_w is not None:
            remain_w -= max(0.0, record.baseline_w - (record.power_w or 0.0))
    return Watts(feeder_w - remain_w)


def _tolerated_w(held: list[MinerRecord]) -> Watts:
    """Return how much of a difference between the fall and the miners' word is noise."""
    before_w = max((record.feeder_before_w or 0.0 for record in held), default=0.0)
    return Watts(max(_least_w(held), _TOLERATED_SHARE * before_w))


def _least_w(held: list[MinerRecord]) -> Watts:
    """Return half the load of the smallest: less says nothing of a miner."""
    smallest_w = min((record.baseline_w for record in held if record.baseline_w), default=ASSUMED_NAMEPLATE_W)
    return Watts(max(_HALF * smallest_w, 1.0))
