"""All metered feeders of a site, and how densely their meters may be read together.

Invariant: however many feeders are stopped at once, their meters are read at most ``_READS_PER_S`` times a second once
each has shown what it carried before.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Final

from agent.local_curtail.feeder import Feeder, Thought
from agent.local_curtail.ports import FeederMeter
from sitelink.clock import Clock

_READS_PER_S: Final = 400.0
_COUNT_S: Final = 0.05
"""How often it is counted at the most whose rounds are open: each reading asks for it."""


class Feeders(Mapping[str, Feeder]):
    """The metered feeders by id."""

    def __init__(self, meters: Mapping[str, FeederMeter], clock: Clock) -> None:
        self._clock = clock
        self._open = 0
        self._counted_s = float("-inf")
        thought = Thought()
        self._feeders = {name: Feeder(name, meter, clock, self._pace_s, thought) for name, meter in meters.items()}

    def __getitem__(self, feeder_id: str) -> Feeder:
        return self._feeders[feeder_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._feeders)

    def __len__(self) -> int:
        return len(self._feeders)

    async def run(self) -> None:
        """Read the meters of feeders with a round open, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for feeder in self._feeders.values():
                group.create_task(feeder.sample_forever())

    def _pace_s(self) -> float:
        now_s = self._clock.monotonic()
        if not self._counted_s <= now_s < self._counted_s + _COUNT_S:
            self._counted_s, self._open = now_s, sum(feeder.open for feeder in self._feeders.values())
        return self._open / _READS_PER_S
