"""All metered feeders of a site, and how densely their meters may be read together.

Invariant: however many feeders are stopped at once, their meters are read at most ``_READS_PER_S`` times a second.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Final

from agent.local_curtail.feeder import Feeder, Thought
from agent.local_curtail.ports import FeederMeter
from sitelink.clock import Clock

_READS_PER_S: Final = 400.0


class Feeders(Mapping[str, Feeder]):
    """The metered feeders by id."""

    def __init__(self, meters: Mapping[str, FeederMeter], clock: Clock) -> None:
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
        return sum(feeder.open for feeder in self._feeders.values()) / _READS_PER_S
