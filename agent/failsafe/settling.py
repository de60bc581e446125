"""Holds stops that were sent at once against their feeders' meters, until these have told of each or the time is over.

    before the first order   what each feeder draws, and who runs on it beside those that are ordered
    after the last look      two readings, a look at everybody, who cannot be drawing any more? -- again, 12 s at most

Invariants: no order waits for a meter or a neighbour that is silent longer than two seconds; whom is waited for is
said.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agent.cgminer.control.driver import LOOK_S
from agent.errors import AgentError
from agent.failsafe.ledger import Earlier
from agent.failsafe.readings import Readings
from agent.failsafe.report import settling_line
from agent.failsafe.stops import Stop, stop_of
from agent.failsafe.weighing import Weighing
from agent.local_curtail.evidence import FeederBefore
from agent.local_curtail.member import Member
from agent.local_curtail.ports import Control
from sitelink.clock import Clock
from sitelink.inventory import MinerEntry

_SETTLE_S: Final = 12.0
"""A miner that says it is off may be early, a contactor slow and a meter late; after this all would have shown."""
_PROGRESS_S: Final = 5.0
_BESIDE_S: Final = 2.0


class Settling:
    """The metered feeders of one run.

    ``before`` is what each drew before the run's orders; who goes on from a run that was killed corrects it.
    """

    def __init__(
        self,
        readings: Readings,
        controls: Mapping[str, Control],
        fleet: Sequence[MinerEntry],
        places: asyncio.Semaphore,
        clock: Clock,
        idle_share: float,
        say: Callable[[str], None],
    ) -> None:
        """``fleet`` are all that ``controls`` reach; ``places`` bounds how many are talked to at a time."""
        self.before: dict[str, FeederBefore | None] = {}
        self._readings = readings
        self._controls = controls
        self._fleet = fleet
        self._places = places
        self._clock = clock
        self._idle_share = idle_share
        self._say = say
        self._beside: list[Stop] = []

    async def measure(self, entries: Sequence[MinerEntry]) -> None:
        """Read what the feeders of ``entries`` draw before anything is sent, and who runs beside."""
        feeders = self._readings.among(entry.feeder_id for entry in entries)
        self.before, self._beside = await asyncio.gather(
            self._readings.before(feeders), self._running_beside(entries, feeders)
        )

    async def settle(self, stops: Sequence[Stop]) -> dict[str, Weighing]:
        """Hold the stops against their feeders' meters until these agree, or ``_SETTLE_S`` is over."""
        weighings = {
            feeder: Weighing(
                feeder,
                before,
                [stop.member for stop in stops if stop.entry.feeder_id == feeder],
                {stop.entry.miner_id for stop in (*stops, *self._beside) if stop.tells_power},
                [stop.member for stop in self._beside if stop.entry.feeder_id == feeder],
            )
            for feeder, before in self.before.items()
        }
        waiting = [each for each in weighings.values() if each.open and each.before is not None]
        ends_s, told_s = self._clock.monotonic() + _SETTLE_S, float("-inf")
        while waiting:
            await self._weigh(waiting)
            waiting = [each for each in waiting if each.open]
            now_s = self._clock.monotonic()
            if now_s >= ends_s:
                break
            if waiting and now_s - told_s >= _PROGRESS_S:
                self._say(settling_line([each.feeder_id for each in waiting], ends_s - now_s))
                told_s = now_s
            if waiting:
                await asyncio.sleep(LOOK_S)
        return weighings

    async def _running_beside(self, entries: Sequence[MinerEntry], feeders: Sequence[str]) -> list[Stop]:
        """Return the miners of ``feeders`` beside ``entries`` that are seen running, as far as they answer at once."""
        ordered = {entry.miner_id for entry in entries}
        beside = [entry for entry in self._fleet if entry.feeder_id in feeders and entry.miner_id not in ordered]
        looks = [asyncio.ensure_future(self._beside_look(entry)) for entry in beside]
        if not looks:
            return []
        _, late = await asyncio.wait(looks, timeout=_BESIDE_S)
        for look in late:
            look.cancel()
        found = await asyncio.gather(*looks, return_exceptions=True)
        return [each for each in found if isinstance(each, Stop) and each.was_hashing]

    async def _beside_look(self, entry: MinerEntry) -> Stop | None:
        async with self._places:
            began_s = self._clock.monotonic()
            try:
                seen = await self._controls[entry.miner_id].observe()
            except AgentError:
                return None
            stop = stop_of(entry, seen, self._idle_share, Earlier())
            stop.member.look(seen, began_s, self._clock.monotonic())
            return stop

    async def _weigh(self, weighings: Sequence[Weighing]) -> None:
        """Read the meters; where that is not enough, look at each miner after it: so it draws at the most."""
        await self._readings.take(weighings)
        for each in weighings:
            each.judge()
        unclear = [each for each in weighings if each.open]
        members = [one for each in unclear for one in (*each.members, *each.beside) if one.seen is not None]
        await asyncio.gather(*(self._look_again(member) for member in members))
        for each in unclear:
            each.judge()

    async def _look_again(self, member: Member) -> None:
        async with self._places:
            began_s = self._clock.monotonic()
            try:
                seen = await self._controls[member.miner.miner_id].observe()
            except AgentError:
                return  # what it draws at the least is not known then, and it may have fallen by all that it drew
            except Exception:  # noqa: BLE001 - each miner's supervisor; it is judged by what was seen before
                return
            member.look(seen, began_s, self._clock.monotonic())
