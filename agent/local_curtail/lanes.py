"""Who may be worked on now: feeders, ramps, retries.

Invariants: a start waits for no stop; a stop on a metered feeder waits while a miner on it starts, and for a place in
its round; one too hot goes first and waits for nobody; what a killed process had under way comes next, while its drop
still stands alone, then first tries, then repeated ones; a stop that only a person can make possible is repeated once
after each mend, and after each start of the process, by an attempt that begins after it; a miner known dead goes last
and gives its place in the ramp back. All but a stop by hand or for heat waits for the site's own pace, repeated tries
too, and everything counts in it. Where no ramp counts the order of stopping, one feeder goes after the other, so that
each is judged as soon as it can be. The next step of a ramp waits for the one before to be proven, for a while; where a
ramp stands is rebuilt from the books.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from agent.local_curtail.books import Books
from agent.local_curtail.cooling import Cooling
from agent.local_curtail.failures import lasts
from agent.local_curtail.feeders import Feeders
from agent.local_curtail.policy import OVERRIDE, TOO_HOT
from agent.local_curtail.ramp import NO_RAMP, Pacer, SitePace, Switched, capped, paced
from agent.local_curtail.records import MinerRecord, Phase
from agent.local_curtail.resting import GONE
from agent.local_curtail.rules import SiteMiner, SiteRules
from sitelink.types import Ramp, Reading, Verb

_RETRY_S: Final = {Verb.STOP: (5.0, 60.0), Verb.START: (2.0, 15.0)}
"""First and slowest wait between attempts on a miner; each wait doubles the one before."""
_STILL_OFF_S: Final = 600.0
"""A start that was refused for good is tried again so seldom: a miner is not to stay off because nobody looked."""
_AT_ONCE: Final = frozenset({OVERRIDE, TOO_HOT})
"""Causes of a stop that waits for no ramp and no limit."""
_BOTH: Final = (Verb.STOP, Verb.START)
_ATTEMPTS_A_CONVERSATION: Final = 32
"""An attempt waits most of its time: this many share one open conversation with a device."""
_SETTLE_S: Final = 12.0
"""A started miner's power climbs for a while; a stop beside it would not show."""


@dataclass(frozen=True, slots=True)
class _Retry:
    """When a miner may be tried again under one order and verb."""

    key: tuple[str, Verb]
    tries: int
    due_s: float


class Lanes:
    """Chooses the next miners to work on and remembers who is being worked on."""

    def __init__(
        self,
        books: Books,
        miners: Mapping[str, SiteMiner],
        feeders: Feeders,
        rules: SiteRules,
        latest: Callable[[str], Reading | None],
        pace: SitePace,
    ) -> None:
        """``feeders`` are those with a meter, ``latest`` gives a miner's last reading, ``pace`` bounds the site."""
        self._books = books
        self._miners = miners
        self._metered = feeders
        self._rank = {feeder_id: n for n, feeder_id in enumerate(dict.fromkeys(m.feeder_id for m in miners.values()))}
        self._most = _ATTEMPTS_A_CONVERSATION * rules.concurrency
        self._rules = rules
        self._latest = latest
        self._in_flight: dict[str, Verb] = {}
        self._mends: Counter[str] = Counter()
        self._began: dict[str, int] = {}
        self._tried: dict[str, int] = {}
        self._feeders: defaultdict[str, list[str]] = defaultdict(list)
        self._climbing_until_s: dict[str, float] = {}
        self._retries: dict[str, _Retry] = {}
        self._turns: dict[str, tuple[tuple[str, ...], dict[str, int]]] = {}
        self._pacers: dict[tuple[str, Verb], Pacer] = {}
        self._unseen: dict[tuple[str, Verb], Pacer] = {}
        self._cooling = Cooling(rules.ramps.first_models, rules.ramps.first_wait_s, miners)
        self._site = pace

    def load(self, now: datetime, now_s: float) -> None:
        """Rebuild the ramps' windows from the books; what was refused for good may have been mended meanwhile."""
        self._mends.update(record.miner_id for record in self._books.miners.values() if _given_up(record))
        switched: defaultdict[tuple[str, Verb], list[Switched]] = defaultdict(list)
        unseen: defaultdict[tuple[str, Verb], list[Switched]] = defaultdict(list)
        limited: defaultdict[Verb, list[Switched]] = defaultdict(list)
        for record in self._books.miners.values():
            miner = self._miners.get(record.miner_id)
            if record.sent_at is None or miner is None:
                continue
            at_s = now_s - max(0.0, (now - record.sent_at).total_seconds())
            item = Switched(record.miner_id, at_s, miner.load_w)
            if record.phase is not Phase.WAITING:
                switched[record.order_id, record.verb].append(item)
                if record.outcome is None:
                    unseen[record.order_id, record.verb].append(item)
            # What was sent before an order that still waits may have been either.
            for verb in (record.verb,) if record.phase is not Phase.WAITING else _BOTH:
                limited[verb].append(item)
        for verb in _BOTH:
            self._site.remember(verb, limited[verb])
        for key, items in switched.items():
            self._open(key, self._ramp(key, ""), items, unseen[key])

    def forgive(self, miner_ids: Collection[str]) -> None:
        """Let none of these miners wait any longer: somebody may have mended what it refused.

        Of an attempt under way nobody knows whether it meets the miner as it was before.
        """
        self._mends.update(miner_ids)
        for miner_id in miner_ids:
            self._retries.pop(miner_id, None)

    def busy(self, name: str) -> bool:
        """Return whether the miner or feeder ``name`` is being worked on."""
        return name in self._in_flight or bool(self._feeders.get(name))

    def choose(self, now_s: float, may_start: Callable[[MinerRecord], bool] = lambda _: True) -> Iterator[SiteMiner]:
        """Yield the miners to work on now, each taken at once: starts first, then stops; a start that ``may_start``.

        Whoever the site's pace holds up holds up those behind: smaller ones would never let it pass.
        """
        self._cooling.settle(self._books.miners)
        for verb in (Verb.START, Verb.STOP):
            held_up = False
            for record in sorted(self._wanting(verb, now_s), key=self._turn):
                miner = self._miners[record.miner_id]
                if verb is Verb.START and not may_start(record):
                    continue
                if not _waits_for_none(record) and self._cooling.waits(record, self._books.miners, now_s):
                    continue
                if (held_up and not _waits_for_none(record)) or not self._free(miner, verb, now_s):
                    continue
                own = self._own_pacers(record)
                if not all(pacer.fits(miner.load_w, now_s) for pacer in own):
                    continue
                if not _waits_for_none(record) and not self._site.fits(verb, miner.load_w, now_s):
                    held_up = True
                    continue
                for pacer in own:
                    pacer.take(miner.miner_id, miner.load_w, now_s)
                self._site.take(verb, miner.miner_id, miner.load_w, now_s)
                self._take(miner, verb)
                yield miner

    def _take(self, miner: SiteMiner, verb: Verb) -> None:
        self._in_flight[miner.miner_id] = verb
        self._began[miner.miner_id] = self._mends[miner.miner_id]
        self._feeders[miner.feeder_id].append(miner.miner_id)
        feeder = self._metered.get(miner.feeder_id)
        if feeder is not None and verb is Verb.START:
            feeder.disturb()

    def give_back(self, miner: SiteMiner, now_s: float, *, sent: bool, judged: bool) -> None:
        """Take note that the attempt on ``miner`` has ended, ``judged`` or broken off."""
        if judged:
            self._tried[miner.miner_id] = self._began[miner.miner_id]
        verb = self._in_flight.pop(miner.miner_id)
        self._feeders[miner.feeder_id].remove(miner.miner_id)
        record = self._books.miners[miner.miner_id]
        if not sent:
            self._site.refund(verb, miner.miner_id)
            for key in ((record.order_id, verb), (record.order_id, record.verb)):
                if key in self._pacers:
                    self._pacers[key].refund(miner.miner_id)
                    self._unseen[key].refund(miner.miner_id)
        elif verb is Verb.START:
            self._climbing_until_s[miner.feeder_id] = now_s + _SETTLE_S
        if record.complete and (record.order_id, verb) in self._unseen:
            self._unseen[record.order_id, verb].refund(miner.miner_id)  # it is seen: the next step need not wait for it
        if record.complete or record.verb is not verb:
            self._retries.pop(miner.miner_id, None)
            return
        key = (record.order_id, verb)
        last = self._retries.get(miner.miner_id)
        tries = last.tries + 1 if last is not None and last.key == key else 1
        first_s, slowest_s = _RETRY_S[verb]
        wait_s = min(slowest_s, first_s * 2.0 ** min(tries - 1, 10))
        if lasts(record.outcome, record.reason) and not self._mended(miner.miner_id):
            wait_s = _STILL_OFF_S
        self._retries[miner.miner_id] = _Retry(key, tries, now_s + wait_s)

    def _wanting(self, verb: Verb, now_s: float) -> list[MinerRecord]:
        return [
            record
            for record in self._books.miners.values()
            if record.verb is verb
            and record.miner_id in self._miners
            and record.miner_id not in self._in_flight
            and (_unfinished(record) or self._forgiven(record))
            and self._due(record, now_s)
        ]

    def _mended(self, miner_id: str) -> bool:
        """Return whether somebody may have mended the miner since its last judged attempt began."""
        return self._mends[miner_id] > self._tried.get(miner_id, 0)

    def _forgiven(self, record: MinerRecord) -> bool:
        return _given_up(record) and self._mended(record.miner_id)

    def _due(self, record: MinerRecord, now_s: float) -> bool:
        retry = self._retries.get(record.miner_id)
        # A wait earned under another order, or by the opposite verb, holds up nothing.
        return retry is None or retry.key != (record.order_id, record.verb) or retry.due_s <= now_s

    def _turn(self, record: MinerRecord) -> tuple[bool, bool, bool, bool, int, int, str]:
        reading = self._latest(record.miner_id)
        dead = reading is not None and reading.reason in GONE
        turn = self._places(record.order_id).get(record.miner_id, 0)
        stops = record.verb is Verb.STOP
        at_once = stops and not paced(self._ramp((record.order_id, record.verb), record.cause))
        feeder = self._rank[self._miners[record.miner_id].feeder_id] if at_once else 0
        turn = turn if stops else -turn
        hot, done = record.cause == TOO_HOT, record.phase is Phase.DONE
        return (not hot, done, record.phase is not Phase.SENT, dead, feeder, turn, record.miner_id)

    def _places(self, order_id: str) -> dict[str, int]:
        """Return each miner's place in the order of stopping; starting goes in reverse."""
        order = self._books.orders.get(order_id)
        if order is None:
            return {}
        kept = self._turns.get(order_id)
        if kept is None or kept[0] is not order.miner_ids:
            kept = self._turns[order_id] = (order.miner_ids, {name: n for n, name in enumerate(order.miner_ids)})
        return kept[1]

    def _free(self, miner: SiteMiner, verb: Verb, now_s: float) -> bool:
        if verb is Verb.START:
            return True
        feeder = self._metered.get(miner.feeder_id)
        if len(self._in_flight) >= self._most:
            return False
        if feeder is None or self._books.miners[miner.miner_id].cause == TOO_HOT:
            return True
        working = self._feeders[miner.feeder_id]
        if any(self._in_flight[name] is Verb.START for name in working):
            return False
        climbing = self._climbing_until_s.get(miner.feeder_id, now_s) > now_s
        return not climbing and feeder.accepts(now_s)

    def _own_pacers(self, record: MinerRecord) -> tuple[Pacer, ...]:
        """Return what paces the miner under its order, none where its load was counted the first time."""
        if record.phase is Phase.DONE and not self._forgiven(record):
            return ()
        key = (record.order_id, record.verb)
        if key not in self._pacers:
            self._open(key, self._ramp(key, record.cause))
        return self._pacers[key], self._unseen[key]

    def _open(
        self, key: tuple[str, Verb], ramp: Ramp, switched: Iterable[Switched] = (), unseen: Iterable[Switched] = ()
    ) -> None:
        """Open the windows of an order and verb: of what was switched, and of what is not proven yet."""
        verb, rules = key[1], self._rules.ramps
        self._pacers[key] = Pacer(ramp, switched, rules.jitter(verb))
        wait = Ramp(ramp.step_w, rules.feedback_s(verb)) if paced(ramp) else NO_RAMP
        self._unseen[key] = Pacer(wait, unseen)

    def _ramp(self, key: tuple[str, Verb], cause: str) -> Ramp:
        order_id, verb = key
        order = self._books.orders.get(order_id)
        if order is None:
            return NO_RAMP if cause in _AT_ONCE else capped(NO_RAMP, self._rules.max_step_w)
        return order.ramp_down if verb is Verb.STOP else order.ramp_up


def _unfinished(record: MinerRecord) -> bool:
    if record.phase is not Phase.DONE:
        return True
    if record.complete or record.reason == "already_idle" or _given_up(record):
        return False
    return record.verb is Verb.STOP or record.touched


def _waits_for_none(record: MinerRecord) -> bool:
    """Return whether no limit of the site's slows it, though it counts: somebody may be standing in front of it."""
    return record.verb is Verb.STOP and record.cause in _AT_ONCE


def _given_up(record: MinerRecord) -> bool:
    """Return whether its stop was refused for a reason that only a person can mend."""
    return record.verb is Verb.STOP and record.phase is Phase.DONE and lasts(record.outcome, record.reason)
