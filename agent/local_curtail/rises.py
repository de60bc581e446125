"""A feeder that draws more than when its stops were proven: whoever may draw again is no longer counted as shed.

    stops of a feeder proven --> its level: read a few times, with what all others on it say they draw
    each balance: above that by half a miner --> read again, everybody looked at --> whose word explains it?
        a proven one hashes                              the sweep's: it woke
        another came on, by its own figure               its rise belongs to the level from now on
        nobody does                                      each proven stop for which there is room --> UNVERIFIED

A process that comes back knows no level: a feeder then draws too much that exceeds both what its records leave it and
what all on it own up to.

Invariants: credit is withdrawn only while its stop order is in force, and by readings in a row of a meter that is alive
and quiet; beside miners that say they are off, only once their figures had time to catch up. Whose the rise is nobody
can say, so all it may be are taken back: better unproven than counted. The retries of a stop prove it anew.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from agent.errors import AgentError
from agent.local_curtail.books import Books, Entry
from agent.local_curtail.claims import OLDEST_S
from agent.local_curtail.evidence import CLOUDED, DROP_SHARE, reads_idle
from agent.local_curtail.ports import FeederMeter, Observed
from agent.local_curtail.reach import Reach
from agent.local_curtail.records import MinerRecord
from agent.local_curtail.resting import GONE
from agent.local_curtail.rules import SiteMiner
from sitelink.clock import Clock
from sitelink.types import Evidence, MinerState, Reading, Verb
from sitelink.units import Watts, megawatts

_READINGS: Final = 6
_APART_S: Final = 0.5
_ALIVE_VALUES: Final = 2
_AT_MOST: Final = 1.1
"""The largest share of its own figure that a miner is taken to draw."""
_INEXACT_SHARE: Final = 0.1
"""By how much all devices of a feeder together may say too much, where their records alone tell what it should draw."""
_LEAST_SHARE: Final = 0.8
_MOVES_SHARE: Final = 0.1
_BY_METER: Final = {Evidence.FEEDER_METER, Evidence.DEVICE_POWER}

_Key = tuple[tuple[object, ...], ...]
_Seen = Mapping[str, Observed]
"""One look at all miners of a feeder; those silent are missing."""
_Words = dict[str, float | None]
"""What those not proven off say they draw, in watts; None where one is silent."""


@dataclass(slots=True)
class _Level:
    """What a feeder draws while all orders on it stand as ``key`` says."""

    key: _Key
    power_w: float
    noise_w: float
    others: _Words


class Rises:
    """Watches the levels of all feeders. ``Rounds`` calls it for feeders on which nothing is under way."""

    def __init__(
        self,
        books: Books,
        reach: Reach,
        meters: Mapping[str, FeederMeter],
        neighbours: Callable[[str], tuple[str, ...]],
        miners: Mapping[str, SiteMiner],
        clock: Clock,
        idle_share: float,
        latest: Callable[[str], Reading | None],
    ) -> None:
        """``neighbours`` gives the miners of a feeder, ``latest`` a miner's last polled reading."""
        self._books = books
        self._reach = reach
        self._meters = meters
        self._neighbours = neighbours
        self._miners = miners
        self._clock = clock
        self._idle_share = idle_share
        self._latest = latest
        self._levels: dict[str, _Level] = {}
        self._since: dict[str, tuple[_Key, float]] = {}

    def has_level(self, feeder_id: str) -> bool:
        """Return whether what the feeder drew once its stops were proven is known."""
        return feeder_id in self._levels

    async def check(self, feeder_id: str, power_w: Watts) -> bool:
        """Hold ``power_w`` against the feeder's level; return whether somebody on it is to be looked at or tried again.

        Raises:
            Transient: the journal cannot be written now.
        """
        proven, key = self._proven(feeder_id), self._key(feeder_id)
        if not proven:
            self._forget(feeder_id)
            return False
        least_w = DROP_SHARE * min(record.baseline_w or 0.0 for record in proven)
        level = self._level(feeder_id, key, power_w + least_w)
        if level is not None and power_w <= level.power_w + level.noise_w + least_w:
            self._since.pop(feeder_id, None)
            return False
        if self._waits(feeder_id, key):
            return False
        before = await self._looks(feeder_id, gone=False) if level is None else {}
        readings_w = await self._read(feeder_id)
        if not readings_w or max(readings_w) - min(readings_w) > least_w:
            return False
        seen = await self._looks(feeder_id, gone=level is not None)
        if self._key(feeder_id) != key:
            return False
        if any(_runs(record, seen, self._idle_share) for record in proven):
            return True
        others = self._others(proven, feeder_id, seen)
        if level is None and self._moves(self._others(proven, feeder_id, before), others):
            return False
        room_w = self._room_w(feeder_id, level, proven, others, readings_w)
        taken = [record for record in proven if room_w >= DROP_SHARE * (record.baseline_w or 0.0)]
        return await self._doubt(
            feeder_id, key, taken, Watts(room_w), at_once=self._run_on(others), fresh=level is None
        )

    def _room_w(
        self,
        feeder_id: str,
        level: _Level | None,
        proven: Sequence[MinerRecord],
        others: _Words,
        readings_w: Sequence[Watts],
    ) -> float:
        """Return what the feeder draws that nobody's word explains; without a level its readings become that."""
        # A meter of coarse steps shows the same again and again; so does one that is stuck at what it once was.
        alive = len(set(readings_w)) >= _ALIVE_VALUES
        if level is not None:
            return self._above_w(level, others, min(readings_w)) if alive or not level.noise_w else 0.0
        noise_w = max(readings_w) - min(readings_w)
        if not alive and readings_w[0] < _LEAST_SHARE * sum(one or 0.0 for one in others.values()):
            return 0.0  # it does not show what runs on: it is stuck at what it once was
        self._levels[feeder_id] = _Level(self._key(feeder_id), _mean(readings_w), noise_w, others)
        return self._beyond_records_w(proven, others, min(readings_w)) if alive else 0.0

    async def _doubt(
        self, feeder_id: str, key: _Key, taken: Sequence[MinerRecord], room_w: Watts, *, at_once: bool, fresh: bool
    ) -> bool:
        """Take back ``taken``, once whoever else on the feeder says it is off has had time to show that it came on."""
        if taken and fresh:
            del self._levels[feeder_id]  # too high a level to hold anything against
        if not taken:
            self._since.pop(feeder_id, None)
        elif at_once or feeder_id in self._since:
            return await self._take_back(feeder_id, taken, room_w)
        else:
            self._since[feeder_id] = (key, self._clock.monotonic())
        return False

    async def _take_back(self, feeder_id: str, taken: Sequence[MinerRecord], room_w: Watts) -> bool:
        detail = (
            f"feeder {feeder_id} draws {megawatts(room_w):.4f} MW more than when it was proven off, and no miner says "
            "that it does: it may be this one; measure it at the rack"
        )
        verdict = replace(CLOUDED, detail=detail)

        def build() -> Entry | None:
            still = [record for record in taken if self._books.miners[record.miner_id] == record]
            back = [replace(one.judged(verdict, one.power_w), proven_no=0) for one in still]
            return Entry(miners=back, acks=[(record, verdict) for record in back])

        changed = await self._books.apply(build)
        self._forget(feeder_id)
        return changed

    def _level(self, feeder_id: str, key: _Key, most_w: float) -> _Level | None:
        """Return the level, None where orders have changed since, or it exceeds ``most_w``: somebody went off."""
        level = self._levels.get(feeder_id)
        return level if level is not None and level.key == key and level.power_w <= most_w else None

    def _forget(self, feeder_id: str) -> None:
        self._levels.pop(feeder_id, None)
        self._since.pop(feeder_id, None)

    def _waits(self, feeder_id: str, key: _Key) -> bool:
        """Return whether the others on a feeder that has risen have had no time yet to show it."""
        since = self._since.get(feeder_id)
        if since is not None and since[0] != key:
            del self._since[feeder_id]
            return False
        return since is not None and self._clock.monotonic() - since[1] < OLDEST_S

    def _moves(self, before: _Words, after: _Words) -> bool:
        """Return whether somebody goes up or down just now, so that a late meter and its word do not agree."""
        pairs = ((name, one, after[name]) for name, one in before.items())
        return any(
            (one is None) is not (two is None) or abs((one or 0.0) - (two or 0.0)) > _MOVES_SHARE * self._load_w(name)
            for name, one, two in pairs
        )

    def _run_on(self, others: _Words) -> bool:
        """Return whether no other that answers says it is off: its figures may be older than its coming on.

        One that is silent shows nothing later either.
        """
        return all(one is None or one >= DROP_SHARE * self._load_w(name) for name, one in others.items())

    def _above_w(self, level: _Level, others: _Words, power_w: Watts) -> float:
        """Return what the feeder draws above ``level`` that no other's word explains; what one does joins the level."""
        rise_w = power_w - level.power_w
        risen_w = {name: self._risen_w(name, then_w, others[name]) for name, then_w in level.others.items()}
        room_w = rise_w - sum(risen_w.values()) - level.noise_w
        left_w = max(0.0, rise_w)
        for name in sorted(risen_w, key=lambda name: others[name] is None):  # who tells what it draws goes first
            joins_w = min(left_w, risen_w[name])
            left_w -= joins_w
            level.power_w += joins_w
            now_w, then_w = others[name], level.others[name]
            if now_w is not None and now_w < (then_w or 0.0):
                level.others[name] = now_w
            elif now_w is not None or then_w is not None:
                # A meter may be late, and one that is silent on its way up: the rest explains what is still to come.
                level.others[name] = (then_w or 0.0) + joins_w / (1.0 if now_w is None else _AT_MOST)
        return room_w

    def _risen_w(self, name: str, then_w: float | None, now_w: float | None) -> float:
        """Return by how much another may draw more than it did; one that was silent all along goes on as it did."""
        if now_w is None:
            return 0.0 if then_w is None else max(0.0, self._load_w(name) - then_w)
        return _AT_MOST * max(0.0, now_w - (then_w or 0.0))

    def _beyond_records_w(self, proven: Sequence[MinerRecord], others: _Words, power_w: Watts) -> float:
        """Return what the feeder draws more than both its records and its miners' own words can tell."""
        measured = sorted((one for one in proven if one.feeder_before_w is not None), key=lambda one: one.sent_no)
        if len(measured) < len(proven) or any(record.woken for record in measured):
            return 0.0  # what they were measured against is not known any more
        fallen_w = sum(max(0.0, (one.baseline_w or 0.0) - (one.power_w or 0.0)) for one in measured)
        spread_w = max(one.feeder_spread_w or 0.0 for one in measured)
        left_w = (measured[0].feeder_before_w or 0.0) - (1.0 - _INEXACT_SHARE) * fallen_w + spread_w
        owned_w = sum(_AT_MOST * (self._load_w(name) if one is None else one) for name, one in others.items())
        owned_w += sum(_AT_MOST * (one.power_w or 0.0) for one in measured)
        return min(power_w - left_w, power_w - owned_w)

    def _others(self, proven: Sequence[MinerRecord], feeder_id: str, seen: _Seen) -> _Words:
        names = {record.miner_id for record in proven}
        return {name: self._word_w(name, seen) for name in self._neighbours(feeder_id) if name not in names}

    def _word_w(self, name: str, seen: _Seen) -> float | None:
        look = seen.get(name)
        if look is None:
            return None
        if look.power_w is not None:
            return float(look.power_w)
        return 0.0 if look.state is MinerState.IDLE else self._load_w(name)

    def _load_w(self, name: str) -> float:
        record = self._books.miners.get(name)
        return max(float(self._miners[name].load_w), 0.0 if record is None else record.baseline_w or 0.0)

    def _proven(self, feeder_id: str) -> list[MinerRecord]:
        records = (self._books.miners.get(name) for name in self._neighbours(feeder_id))
        return [
            record
            for record in records
            if record is not None and record.verb is Verb.STOP and record.complete
            if record.evidence in _BY_METER and record.baseline_w
        ]

    def _key(self, feeder_id: str) -> _Key:
        """Return how all orders on a feeder stand: while that stays, what it draws changes only by itself."""
        records = (self._books.miners.get(name) for name in self._neighbours(feeder_id))
        return tuple(
            (one.miner_id, one.verb, one.outcome, one.sent_no, one.proven_no) for one in records if one is not None
        )

    async def _read(self, feeder_id: str) -> list[Watts]:
        """Return a few readings in a row, none where the meter is silent."""
        found: list[Watts] = []
        for _ in range(_READINGS):
            await asyncio.sleep(_APART_S)
            sample = await self._meters[feeder_id].read()
            if sample.power_w is None:
                return []
            found.append(sample.power_w)
        return found

    async def _looks(self, feeder_id: str, *, gone: bool) -> _Seen:
        """Look at all on a feeder: with those the poller has found ``gone`` only once they may have come on since."""
        names = [name for name in self._neighbours(feeder_id) if gone or not self._is_gone(name)]
        looks = await asyncio.gather(*map(self._look, names))
        return {name: look for name, look in zip(names, looks, strict=True) if look is not None}

    def _is_gone(self, name: str) -> bool:
        polled = self._latest(name)
        return polled is not None and polled.reason in GONE

    async def _look(self, name: str) -> Observed | None:
        try:
            return await self._reach.observe(name)
        except AgentError:
            return None


def _mean(readings_w: Sequence[Watts]) -> float:
    return sum(readings_w) / len(readings_w)


def _runs(record: MinerRecord, seen: _Seen, idle_share: float) -> bool:
    look = seen.get(record.miner_id)
    return look is not None and not reads_idle(look, record.baseline_w or Watts(0), idle_share)
