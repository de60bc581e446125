"""Watches how hot the miners are, between the polls too where one look is not enough.

    poll's reading --> ``Heat`` --suspect--> looked at again at once --both agree--> held: HEAT_TRIPPED, stopped
                                                              --both cool--> released: HEAT_CLEARED

Invariants: who is held is marked on the disk with its notice, so that a restarted agent holds the same; on a full disk
it is held all the same. Nobody's look keeps another's waiting. Without limits nothing is watched.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from agent.errors import AgentError, Transient
from agent.local_curtail.books import Books, Entry
from agent.local_curtail.heat import Heat, HeatRules, Look, look_of, racks_too_hot
from agent.local_curtail.held import HEAT_MARK, held_of, mark_of_held
from agent.local_curtail.ports import Warm
from agent.local_curtail.reach import Reach
from agent.local_curtail.rules import SiteMiner
from sitelink.clock import Clock
from sitelink.types import NoticeCode, Reading

_LOG: Final = logging.getLogger(__name__)
TICK_S: Final = 1.0
_AGAIN_S: Final = 2.0
"""So soon is one looked at again whose last look alone says that something has changed."""


class Thermometers:
    """All miners' temperatures, and who is held for them."""

    def __init__(
        self,
        rules: HeatRules,
        miners: Mapping[str, SiteMiner],
        latest: Callable[[str], Reading | None],
        reach: Reach,
        books: Books,
        clock: Clock,
        on_change: Callable[[], None],
    ) -> None:
        """``latest`` gives a miner's last polled reading; ``on_change`` hears that who is held has changed."""
        self._rules = rules
        self._latest = latest
        self._reach = reach
        self._books = books
        self._clock = clock
        self._on_change = on_change
        limits = {miner.miner_id: rules.of(miner.rack, miner.feeder_id, miner.model) for miner in miners.values()}
        by_rack = rules.rack_c is not None
        self._heat = {name: Heat(limit) for name, limit in limits.items() if limit.is_set or by_rack}
        self._racks: defaultdict[str, list[str]] = defaultdict(list)
        for miner in miners.values():
            if miner.rack and by_rack:
                self._racks[miner.rack].append(miner.miner_id)
        self._read_at: dict[str, datetime] = {}
        self._looked_s: dict[str, float] = {}
        self._racks_held: frozenset[str] = frozenset()
        self._told: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())

    @property
    def hot(self) -> frozenset[str]:
        """Return who is too hot to run, by itself or with its rack."""
        alone = {name for name, heat in self._heat.items() if heat.held}
        return frozenset(alone.union(*(self._racks[rack] for rack in self._racks_held)))

    @property
    def suspect(self) -> frozenset[str]:
        """Return who may be too hot by its last look alone: it is not to be started before the next."""
        return frozenset(name for name, heat in self._heat.items() if not heat.held and heat.suspect)

    def load(self) -> None:
        """Take up whom an earlier process held; the books must be loaded."""
        miners, racks = held_of(self._books.mark(HEAT_MARK))
        for name in miners & self._heat.keys():
            self._heat[name].hold(self._clock.monotonic())
        self._racks_held = frozenset(racks & self._racks.keys())
        self._told = (frozenset(miners), frozenset(racks))

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as looks:
            while True:
                for name in self.take_in():
                    looks.create_task(self._look_again(name))
                await self.settle()
                await asyncio.sleep(TICK_S)

    def take_in(self) -> list[str]:
        """Take in what was polled since; return whom to look at again now."""
        now_s = self._clock.monotonic()
        again = []
        for name, heat in self._heat.items():
            reading = self._latest(name)
            if reading is not None and self._read_at.get(name) != reading.read_at:
                self._read_at[name] = reading.read_at
                heat.shown(Look(now_s, reading.board_temp_c, reading.chip_temp_c, reading.power_w))
            heat.expire(now_s)
            due = now_s - self._looked_s.get(name, -_AGAIN_S) >= _AGAIN_S
            if due and (heat.suspect or heat.is_odd):
                self._looked_s[name] = now_s
                again.append(name)
        return again

    async def settle(self) -> None:
        """Judge the racks, and tell and keep whom that and the looks have changed."""
        racks = {rack: [self._heat[name] for name in names] for rack, names in self._racks.items()}
        cooled_by_c = self._rules.limit.cooled_by_c
        self._racks_held = racks_too_hot(racks, self._racks_held, self._rules.rack_c, cooled_by_c)
        held = (frozenset(name for name, heat in self._heat.items() if heat.held), self._racks_held)
        if held == self._told:
            return
        entry = Entry(marks={HEAT_MARK: mark_of_held(*held)})
        for before, after, words in ((self._told[0], held[0], self._words), (self._told[1], held[1], self._rack_words)):
            entry.notices += [(NoticeCode.HEAT_TRIPPED, name, words(name)) for name in sorted(after - before)]
            entry.notices += [(NoticeCode.HEAT_CLEARED, name, words(name)) for name in sorted(before - after)]
        try:
            await self._books.apply(lambda: entry)
        except Transient as error:
            _LOG.warning("heat: who is held could not be noted, it holds all the same: %s", error)
        else:
            self._told = held
        self._on_change()

    async def _look_again(self, name: str) -> None:
        began_s = self._clock.monotonic()
        try:
            seen = await self._reach.observe(name)
        except AgentError as error:
            _LOG.debug("%s: its temperature cannot be read again: %s", name, error)
            return
        if isinstance(seen, Warm):
            self._heat[name].shown(look_of(began_s, seen.board_temps_c, seen.chip_temps_c, seen.power_w))

    def _words(self, name: str) -> str:
        return self._heat[name].words() if name in self._heat else "it is no longer watched"

    def _rack_words(self, rack: str) -> str:
        count = len(self._racks.get(rack, ()))
        return f"rack of {count} miners by its median board, limit {self._rules.rack_c or 0.0:.0f} C"
