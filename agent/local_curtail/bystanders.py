"""Miners of a feeder that no order of ours has reached: they may trip, or come back, by themselves beside a round.

    round opens                 --> each is looked at: runs at so many watts, idles, or is gone
    before the meter's word counts --> looked at again: a fall beside the round clears nobody

Invariants: one that ran when some round opened and does not run as fully now may be what the meter has seen fall; one
that has idled, or run, for less long than a meter may be late counts as running before the round, or as rising in it.
One that had been gone before the round, by the poller's word, is taken to go on as it did: nobody can see it, and each
site has a few.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final, NamedTuple

from agent.errors import AgentError
from agent.local_curtail.drift import Drifts
from agent.local_curtail.evidence import reads_idle
from agent.local_curtail.ports import Observed
from agent.local_curtail.reach import Reach
from agent.local_curtail.resting import Doing, Resting
from sitelink.clock import Clock
from sitelink.types import MinerState
from sitelink.units import Watts


class _Shown(NamedTuple):
    """What a look at one of them showed; ``power_w`` is None where it does not say.

    ``lately`` is whether it may have begun to run so lately that a late meter shows it only now.
    """

    does: Doing
    power_w: Watts | None = None
    lately: bool = False

    def has_risen(self, before: "_Shown") -> bool:
        """Return whether it may run since ``before``, or did so only lately then."""
        return before.lately or (before.does is not Doing.RUNS and self.does is not Doing.IDLES)

    def fallen_w(self, before: "_Shown", load_w: Watts) -> float:
        """Return by how much it may draw less than ``before``, when it drew ``load_w`` if it did not say."""
        if self.does is not Doing.RUNS:
            return max(before.power_w or 0.0, load_w)
        if self.power_w is None or before.power_w is None:
            return 0.0
        return max(0.0, before.power_w - self.power_w)


_RAN: Final = _Shown(Doing.RUNS)


class Bystanders:
    """The miners that no order has reached, feeder by feeder."""

    def __init__(
        self,
        reach: Reach,
        loads_w: Callable[[str], Watts],
        resting: Resting,
        drifts: Drifts,
        clock: Clock,
        idle_share: float,
    ) -> None:
        """``loads_w`` gives what a miner draws by its nameplate."""
        self._reach = reach
        self._loads_w = loads_w
        self._resting = resting
        self._drifts = drifts
        self._clock = clock
        self._idle_share = idle_share
        self._opening: dict[str, dict[str, _Shown]] = {}
        self._beside: dict[str, dict[str, _Shown]] = {}

    async def remember(self, feeder_id: str, names: Collection[str]) -> None:
        """Look at ``names`` as a round opens on ``feeder_id``; who is known to be gone is not waited for."""
        opening = self._opening[feeder_id] = {}
        there = [name for name in names if not self._is_gone(name)]
        shown = await asyncio.gather(*(self._at_opening(feeder_id, name) for name in there))
        opening.update(zip(there, shown, strict=True))

    def joined(self, feeder_id: str, miner_id: str) -> None:
        """Take note that ``miner_id`` is stopped for the first time in the round open on ``feeder_id``."""
        self._beside[miner_id] = self._opening.setdefault(feeder_id, {})

    async def moved(self, feeder_id: str, names: Collection[str]) -> tuple[bool, bool]:
        """Return whether one of ``names`` may have fallen, and whether one may have risen, since the round opened."""
        opening = self._opening.get(feeder_id, {})
        known = [name for name in names if name in opening]
        fell = rose = False
        shown = await asyncio.gather(*(self._look(feeder_id, name) for name in known))
        for name, now in zip(known, shown, strict=True):
            fell |= opening[name].does is Doing.RUNS and now.does is not Doing.RUNS
            rose |= now.has_risen(opening[name])
        return fell, rose

    async def may_have_fallen_w(self, feeder_id: str, miner_id: str, names: Collection[str]) -> Watts:
        """Return the load of those of ``names`` that may have gone since ``miner_id`` was first told to stop.

        Of an order that an earlier process sent nobody knows who ran beside it: any of them may have.
        """
        opening, beside = self._opening.get(feeder_id, {}), self._beside.get(miner_id)
        before = dict.fromkeys(names, _RAN) if beside is None else beside
        ran = [name for name in names if name in before and before[name].does is Doing.RUNS]
        shown = await asyncio.gather(*(self._look(feeder_id, name) for name in ran))
        return Watts(
            sum(
                max(one.fallen_w(before[name], self._loads_w(name)) for one in (now, opening.get(name, now)))
                for name, now in zip(ran, shown, strict=True)
            )
        )

    async def _at_opening(self, feeder_id: str, name: str) -> _Shown:
        shown = await self._look(feeder_id, name, self._reach.look_along)  # it may be about to be stopped itself
        if self._resting.rests(name, shown.does):
            return shown
        if shown.does is Doing.RUNS:
            return shown._replace(lately=self._resting.polled(name) is not None)
        # It has tripped a moment ago for all we know, and its meter is late.
        return shown if self._resting.polled(name) is None else _RAN

    async def _look(
        self, feeder_id: str, name: str, look: Callable[[str, Watts], Awaitable[Observed]] | None = None
    ) -> _Shown:
        began_s = self._clock.monotonic()
        try:
            seen = await (look or self._reach.look)(name, Watts(0))
        except AgentError:
            self._resting.seen(name, Doing.SILENT)
            return _Shown(Doing.SILENT)
        runs = seen.state is MinerState.HASHING and not reads_idle(seen, self._loads_w(name), self._idle_share)
        does = Doing.RUNS if runs else Doing.IDLES
        self._resting.seen(name, does)
        if runs:
            self._drifts.shown(feeder_id, name, seen, began_s, self._loads_w(name))
        return _Shown(does, seen.power_w if runs else None)

    def _is_gone(self, name: str) -> bool:
        return self._resting.polled(name) is Doing.SILENT and self._resting.rests(name, Doing.SILENT)
