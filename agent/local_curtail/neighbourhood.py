"""Miners of a feeder that are not being stopped now: what they do beside a round is not to be taken for its stops.

    round opens --> each neighbour that an order of ours has touched is looked at --> remembered
    before the meter's word counts --> looked at again: who has fallen? who has risen?

Invariants: a fall beside the round clears nobody, a rise beside it accuses nobody; a neighbour that does not answer may
have done either. Those that no order of ours has reached are ``bystanders``.
"""

import asyncio
from collections.abc import Callable, Collection
from enum import Enum, auto
from typing import Final, NamedTuple

from agent.errors import AgentError
from agent.local_curtail.books import Books
from agent.local_curtail.bystanders import Bystanders
from agent.local_curtail.claims import OLDEST_S
from agent.local_curtail.drift import Drift, Drifts
from agent.local_curtail.evidence import DROP_SHARE, reads_idle
from agent.local_curtail.feeder import Feeder
from agent.local_curtail.member import Member
from agent.local_curtail.reach import Reach
from agent.local_curtail.records import MinerRecord
from agent.local_curtail.resting import SCAN_S, Doing, Resting
from agent.local_curtail.rules import ASSUMED_NAMEPLATE_W, SiteRules
from agent.local_curtail.site_time import SiteTime
from sitelink.clock import Clock
from sitelink.types import MinerState, Verb
from sitelink.units import Watts

_LATE_S: Final = 120.0
"""A stop that a device carries out later than this after the next order to it is not expected."""

_RAN_ON: Final = frozenset({"still_hashing", "no_reply"})
_FULL_SHARE: Final = 0.9


class _Stance(Enum):
    RUNS = auto()
    IDLE = auto()
    UNSURE = auto()
    """It does not answer, or draws less than it did: it may be going down or coming back."""


_DOING: Final = {_Stance.RUNS: Doing.RUNS, _Stance.IDLE: Doing.IDLES}


class _Opening(NamedTuple):
    """How a neighbour stood as a round opened, and whether it may have come to so lately that a late meter hides it."""

    stance: _Stance
    lately: bool


class Moved(NamedTuple):
    """Whether some neighbour may have fallen, or risen, since the round opened."""

    fell: bool
    rose: bool
    drift: Drift = Drift()


class Neighbourhood:
    """The neighbours of every metered feeder's round."""

    def __init__(
        self,
        books: Books,
        reach: Reach,
        neighbours: Callable[[str], tuple[str, ...]],
        loads_w: Callable[[str], Watts],
        site_time: SiteTime,
        rules: SiteRules,
        bystanders: Bystanders,
        resting: Resting,
        drifts: Drifts,
        clock: Clock,
    ) -> None:
        """``neighbours`` gives the miners of a feeder, ``loads_w`` what a miner draws by its nameplate."""
        self._books = books
        self._reach = reach
        self._neighbours = neighbours
        self._loads_w = loads_w
        self._site_time = site_time
        self._rules = rules
        self._bystanders = bystanders
        self._resting = resting
        self._drifts = drifts
        self._clock = clock
        self._opening: dict[str, dict[str, _Opening]] = {}

    async def remember(self, feeder: Feeder) -> None:
        """Look at the neighbours of a round that has just opened."""
        self._opening.pop(feeder.feeder_id, None)
        self._drifts.opens(feeder.feeder_id)
        loose = [record for record in self._others(feeder) if self._is_loose(record)]
        stances, _ = await asyncio.gather(
            asyncio.gather(*(self._stance(record, feeder.feeder_id) for record in loose)),
            self._bystanders.remember(feeder.feeder_id, self._untouched(feeder)),
        )
        known = zip(loose, stances, strict=True)
        self._opening[feeder.feeder_id] = {record.miner_id: self._at_opening(record, one) for record, one in known}

    def _at_opening(self, record: MinerRecord, stance: _Stance) -> _Opening:
        """Return how one stands, and whether for less long than its meter may be late.

        One that is held off was proven so by its meter.
        """
        held = record.verb is Verb.STOP and record.complete and stance is _Stance.IDLE
        doing = _DOING.get(stance)
        return _Opening(stance, doing is not None and not held and not self._resting.rests(record.miner_id, doing))

    def noted(self, miner_id: str, doing: Doing) -> None:
        """Take note of what a look at a miner in a round has shown."""
        self._resting.seen(miner_id, doing)

    def rests_off(self, miner_id: str) -> bool:
        """Return whether a miner has been off for longer than its meter may be late."""
        return self._resting.rests(miner_id, Doing.IDLES)

    async def watch_forever(self, feeder_ids: Collection[str]) -> None:
        """Follow what the poller reads of the miners of metered feeders, until cancelled."""
        names = [name for feeder_id in feeder_ids for name in self._neighbours(feeder_id)]
        while True:
            self._resting.scan(names)
            await asyncio.sleep(SCAN_S)

    async def moved(self, feeder: Feeder) -> Moved:
        """Look at them again and return what may have happened beside the round."""
        if feeder.feeder_id not in self._opening:
            return Moved(fell=True, rose=True)  # the round has just begun, and they are still being looked at
        opening = self._opening[feeder.feeder_id]
        joined = {member.miner.miner_id for member in feeder.members}
        resumed = {member.miner.miner_id for member in feeder.members if member.resumed}
        others = {record.miner_id: record for record in self._others(feeder)}
        left = [others[name] for name in opening if name in others]
        untouched, began_s = self._untouched(feeder), self._clock.monotonic()
        stances, beside = await asyncio.gather(
            asyncio.gather(*(self._stance(record, feeder.feeder_id) for record in left)),
            self._bystanders.moved(feeder.feeder_id, untouched),
        )
        beside_it = [*untouched, *(record.miner_id for record in left)]
        # One that idled when the round opened and has been stopped in it since woke between: it rose, then fell.
        # One that did not idle then, and does as it joins, has fallen before its word was heard.
        fell = rose = any(
            (opening[one].stance is _Stance.IDLE) is not (one in resumed) for one in opening.keys() & joined
        )
        for record, now in zip(left, stances, strict=True):
            before, lately = opening[record.miner_id]
            fell |= lately and before is _Stance.IDLE
            rose |= lately and before is _Stance.RUNS
            held = record.verb is Verb.STOP and record.complete
            gone = before is not _Stance.IDLE and not (held and before is _Stance.UNSURE)
            fell |= gone and now is not _Stance.RUNS
            if gone and now is _Stance.IDLE:
                opening[record.miner_id] = _Opening(now, lately=True)  # though it may run again in this round
            rose |= record.woken or now is _Stance.UNSURE or (before is not _Stance.RUNS and now is not _Stance.IDLE)
        return Moved(fell or beside[0], rose or beside[1], self._drifts.since(feeder.feeder_id, beside_it, began_s))

    def runs_w(self, feeder: Feeder) -> Watts:
        """Return what neighbours drew, by their own word, when they were last seen running beside the round."""
        names = [*self._untouched(feeder), *self._opening.get(feeder.feeder_id, ())]
        inside = {member.miner.miner_id for member in feeder.members}
        return Watts(self._drifts.since(feeder.feeder_id, set(names) - inside).runs_w)

    def joined(self, member: Member) -> None:
        """Take note that ``member`` has joined the round open on its feeder."""
        if not member.resumed:
            self._bystanders.joined(member.miner.feeder_id, member.miner.miner_id)

    async def covered(self, member: Member, feeder: Feeder) -> bool:
        """Return whether a resumed stop is proven by the fall since its own order, beside all others that may fall."""
        left_w = feeder.left_w()
        if left_w is not None and await self._covers(member, feeder, left_w):
            return True
        # Whom no order of ours had reached ran until this round's; anybody else may have come back since.
        untouched = frozenset(other.miner.miner_id for other in feeder.members if other.untouched)
        before = await feeder.before()
        return before is not None and await self._covers(member, feeder, before.power_w, untouched, came_back=True)

    async def _covers(
        self,
        member: Member,
        feeder: Feeder,
        left_w: Watts,
        untold: frozenset[str] = frozenset(),
        *,
        came_back: bool = False,
    ) -> bool:
        """Return whether all but ``untold`` may have fallen, and ``member`` has, when the feeder drew ``left_w``.

        ``came_back`` is whether those that run now may not have done so then.
        """
        before = member.before
        if before is None:
            return False
        fallen_w = before.power_w - left_w - 2.0 * before.spread_w
        if fallen_w < DROP_SHARE * member.load_w:
            return False
        own = self._books.miners[member.miner.miner_id]
        names = self._neighbours(feeder.feeder_id)
        others = [self._books.miners[name] for name in names if name != own.miner_id and name in self._books.miners]
        others = [other for other in others if other.miner_id not in untold]
        maybe_w = await asyncio.gather(
            *(self._may_have_fallen_w(own, other, came_back) for other in others),
            self._bystanders.may_have_fallen_w(feeder.feeder_id, own.miner_id, self._untouched(feeder)),
        )
        return fallen_w >= DROP_SHARE * member.load_w + sum(maybe_w)

    async def _may_have_fallen_w(self, own: MinerRecord, other: MinerRecord, came_back: bool) -> Watts:
        """Return the load of ``other`` that may have gone since ``own``'s feeder was measured."""
        load_w = other.baseline_w
        if other.woken:  # what it drew before its stop is not on record any more, nor, until it is told again, anything
            load_w = Watts(max(load_w or 0.0, self._loads_w(other.miner_id)))
        if load_w is None or not self._is_loose(other):
            return Watts(0)
        if other.sent_no > own.sent_no:
            # It woke and was told again: what it drew before, when ``own`` was measured, is not on record any more.
            load_w = Watts(max(load_w, self._loads_w(other.miner_id)))
        together = other.feeder_before_w == own.feeder_before_w
        if other.complete and other.verb is Verb.STOP and not other.woken:
            later = together or other.sent_no > own.sent_no or other.proven_no > own.sent_no
            return load_w if later else Watts(0)
        stance = await self._stance(other)
        told_before = together or other.sent_no < own.sent_no
        # One that runs now and came back since may have been down when a late meter was read.
        ran_on = told_before and (other.verb is Verb.STOP and not other.woken and not _was_down(other))
        ran_on = ran_on and not came_back and not self._trails(other)
        return Watts(0) if stance is _Stance.RUNS and ran_on else load_w

    def _trails(self, record: MinerRecord) -> bool:
        """Return whether its figures may still show it as it was before its last order."""
        now, _ = self._site_time.now()
        return record.sent_at is None or abs((now - record.sent_at).total_seconds()) < OLDEST_S

    def _others(self, feeder: Feeder) -> list[MinerRecord]:
        inside = {member.miner.miner_id for member in feeder.members}
        names = (name for name in self._neighbours(feeder.feeder_id) if name not in inside)
        return [self._books.miners[name] for name in names if name in self._books.miners]

    def _untouched(self, feeder: Feeder) -> list[str]:
        """Return the miners of the feeder, outside the round, that no order of ours can move."""
        inside = {member.miner.miner_id for member in feeder.members}
        records = self._books.miners
        return [
            name
            for name in self._neighbours(feeder.feeder_id)
            if name not in inside and not (name in records and self._is_loose(records[name]))
        ]

    def _is_loose(self, record: MinerRecord) -> bool:
        """Return whether an order of ours may still move the miner."""
        if record.touched:
            return True
        now, _ = self._site_time.now()
        return record.sent_at is not None and abs((now - record.sent_at).total_seconds()) < _LATE_S

    async def _stance(self, record: MinerRecord, feeder_id: str = "") -> _Stance:
        """Look at one; with ``feeder_id`` what it draws is kept for that feeder's round."""
        began_s = self._clock.monotonic()
        try:
            seen = await self._reach.observe(record.miner_id)
        except AgentError:
            return _Stance.UNSURE
        load_w = record.baseline_w or ASSUMED_NAMEPLATE_W
        idle = reads_idle(seen, load_w, self._rules.idle_share)
        self._resting.seen(record.miner_id, Doing.IDLES if idle else Doing.RUNS)
        if idle:
            return _Stance.IDLE
        full = seen.power_w is None or record.baseline_w is None or seen.power_w >= _FULL_SHARE * record.baseline_w
        if not full or seen.state is not MinerState.HASHING:
            return _Stance.UNSURE
        if feeder_id:
            most_w = Watts(min(load_w, self._loads_w(record.miner_id)))
            self._drifts.shown(feeder_id, record.miner_id, seen, began_s, most_w)
        return _Stance.RUNS


def _was_down(record: MinerRecord) -> bool:
    """Return whether its stop was judged with the miner anything but running on."""
    return record.outcome is not None and record.reason not in _RAN_ON
