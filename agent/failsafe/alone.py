"""One run of the failsafe without a daemon: everything the miners need is made here, used, and closed.

Invariant: what cannot be had (meters, vault, database) is said, and the rest goes on without it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from agent.cgminer.control.former import Former, HeldInMemory
from agent.errors import AgentError, BadInput
from agent.failsafe.choice import Choice, members, pick
from agent.failsafe.direct import Failsafe, at_once
from agent.failsafe.ledger import Ledger
from agent.failsafe.report import override_lines
from agent.failsafe.sights import Around, Sight
from agent.fleet import Fleet, switchable, untouchable
from agent.inventory import load_meters
from agent.local_curtail.formers import FormersOnFile
from agent.local_curtail.house import heat_rules
from agent.meters import Meter
from agent.outlets import Outlet
from agent.settings import Settings
from agent.vault import Vault
from sitelink.clock import Clock
from sitelink.inventory import MinerEntry
from sitelink.types import Verb


@dataclass(frozen=True, slots=True)
class Alone:
    """What a run without a daemon needs to know. ``order_id`` is that of the override it sets."""

    settings: Settings
    fleet: tuple[MinerEntry, ...]
    choice: Choice
    order_id: str
    clock: Clock
    new_id: Callable[[], str]
    say: Callable[[str], None]
    partial: bool = False  # rows of the inventory were left out

    def switch(self, verb: Verb, duration: timedelta) -> int:
        """Stop or start the miners chosen, and print what is proven. Raises BadInput."""
        return asyncio.run(self._switch(verb, duration))

    def look(self) -> tuple[list[Sight], Around]:
        """Look at the miners chosen; return how each reads, and what the file knows beside."""
        return asyncio.run(self._look())

    def release(self) -> int:
        """End overrides; who runs then is the daemon's to decide, once it is back."""
        return asyncio.run(self._release())

    async def _switch(self, verb: Verb, duration: timedelta) -> int:
        spared = self._spared()
        chosen = members(self.choice, self.fleet, self.settings.site.inventory.name)
        async with self._ledger() as ledger:
            failsafe, reached = self._failsafe(
                chosen, spared, ledger, self._beside(chosen) if verb is Verb.STOP else ()
            )
            try:
                if self.choice.load_w is not None:
                    fixed = spared | {entry.miner_id for entry in self.fleet if not switchable(entry)}
                    self.say(f"reading {len(chosen)} miners to choose among them")
                    picked = pick(verb, self.choice.load_w, chosen, await failsafe.figures(chosen), fixed)
                    for line in picked.lines(verb, self.choice.load_w):
                        self.say(line)
                    chosen = picked.entries
                named = None if self.choice.everything else frozenset(entry.miner_id for entry in chosen)
                if await ledger.override(self.order_id, verb, named, duration):
                    until = self.clock.now() + duration
                    self.say(f"override {self.order_id}: the daemon keeps to it until {until:%Y-%m-%d %H:%M} UTC")
                return await failsafe.switch(verb, chosen, self.order_id)
            finally:
                await reached.aclose()

    async def _look(self) -> tuple[list[Sight], Around]:
        chosen = members(self.choice, self.fleet, self.settings.site.inventory.name)
        async with self._ledger(read_only=True) as ledger:
            around = self._around(ledger)
            failsafe, reached = self._failsafe(chosen, frozenset(), ledger)
            try:
                return await failsafe.looks(chosen), around
            finally:
                await reached.aclose()

    def _around(self, ledger: Ledger) -> Around:
        """Return overrides and doubts as the file holds them; what is wrong with it is said."""
        try:
            stored, doubts = ledger.active(), ledger.doubts()
        except AgentError as error:
            self.say(f"overrides, liars and feeders that disagree: unknown ({error})")
            return Around()
        for line in override_lines(stored):
            self.say(line)
        return Around([item.document() for item in stored], doubts)

    async def _release(self) -> int:
        chosen = members(self.choice, self.fleet, self.settings.site.inventory.name)
        all_of_them = self.choice.everything or not self.choice
        named = None if all_of_them else frozenset(entry.miner_id for entry in chosen)
        async with self._ledger() as ledger:
            changed = await ledger.release(named, frozenset(entry.miner_id for entry in self.fleet))
        self.say(f"released: {', '.join(changed)}" if changed else "no override in force to release")
        self.say("no daemon runs: it takes these miners up by plan once it is started; until then nothing changes")
        return 0

    def _spared(self) -> frozenset[str]:
        """Return who may never be touched: one whose row was left out cannot be. Raises BadInput as ``untouchable``."""
        try:
            return untouchable(self.settings, self.fleet)
        except BadInput as error:
            if not self.partial:
                raise
            self.say(f"warning: {error}")
            named = {miner_id.lower() for miner_id in self.settings.limits.never_touch}
            return frozenset(entry.miner_id for entry in self.fleet if entry.miner_id.lower() in named)

    def _ledger(self, *, read_only: bool = False) -> Ledger:
        feeders: defaultdict[str, list[str]] = defaultdict(list)
        for entry in self.fleet:
            feeders[entry.feeder_id].append(entry.miner_id)
        return Ledger(self.settings, self.clock, self.new_id, self.say, feeders=feeders, read_only=read_only)

    def _beside(self, chosen: tuple[MinerEntry, ...]) -> tuple[MinerEntry, ...]:
        """Return the miners on the feeders of those chosen: what they do beside is not to be taken for a stop."""
        ids, feeders = {entry.miner_id for entry in chosen}, {entry.feeder_id for entry in chosen} - {""}
        return tuple(entry for entry in self.fleet if entry.feeder_id in feeders and entry.miner_id not in ids)

    def _failsafe(
        self,
        chosen: tuple[MinerEntry, ...],
        spared: frozenset[str],
        ledger: Ledger,
        beside: tuple[MinerEntry, ...] = (),
    ) -> tuple[Failsafe, Fleet]:
        """Return what drives the miners chosen and looks at those ``beside``, and what is to be closed afterwards."""
        settings, clock = self.settings, self.clock
        vault = Vault.open(settings)
        if vault.problem is not None:
            self.say(f"vault: {vault.problem}")
        fleet = Fleet(settings, clock, vault)
        meters = self._meters(fleet)
        formers: Former = FormersOnFile(settings.database) if ledger.usable else HeldInMemory()
        reached = (*chosen, *beside)
        devices = fleet.devices(reached)
        controls = {
            entry.miner_id: fleet.control(entry, devices[entry.miner_id], formers, self._outlet(entry, fleet))
            for entry in reached
        }
        places = at_once(len(meters), self.say)
        heat = heat_rules(settings.limits.heat)
        failsafe = Failsafe(
            settings, spared, dict(controls), dict(meters), clock, ledger, self.say, places, reached, heat
        )
        return failsafe, fleet

    def _outlet(self, entry: MinerEntry, fleet: Fleet) -> Outlet | None:
        try:
            return fleet.outlet_before(entry)
        except BadInput as error:
            self.say(f"warning: {entry.miner_id}: {error}; going on without its outlet")
            return None

    def _meters(self, fleet: Fleet) -> dict[str, Meter]:
        try:
            meters = fleet.meters(load_meters(self.settings.site.meters), self.clock)
        except BadInput as error:
            self.say(f"warning: {error}; going on without meters, on the devices' word alone")
            return {}
        return {meter.entry.feeder_id: meter for meter in meters if meter.entry.kind == "feeder"}
