"""What feeders draw, read for a failsafe without a daemon.

Invariant: a meter that does not answer is waited for only so long, and holds up no order.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from agent.failsafe.weighing import Weighing
from agent.local_curtail.claims import Sample
from agent.local_curtail.evidence import FeederBefore
from agent.local_curtail.ports import FeederMeter
from sitelink.clock import Clock
from sitelink.units import Watts

_SAMPLES: Final = 3
_SAMPLE_S: Final = 0.25
_BEFORE_S: Final = 2.0
_AFTER_S: Final = 10.0
"""Where many meters share a gateway they answer one after the other; what was sent is proven by them."""


class Readings:
    """The feeder meters of a site, by feeder."""

    def __init__(self, meters: Mapping[str, FeederMeter], clock: Clock) -> None:
        self._meters = meters
        self._clock = clock

    def among(self, feeders: Iterable[str]) -> list[str]:
        """Return those of ``feeders`` that have a meter."""
        return sorted({*feeders} & self._meters.keys())

    async def before(self, feeders: list[str]) -> dict[str, FeederBefore | None]:
        """Return what each feeder draws before anything is sent, from a few samples; None when its meter is silent.

        No order waits longer than ``_BEFORE_S`` for them: a silent meter is not asked a second time.
        """
        samples: dict[str, list[Watts]] = {feeder: [] for feeder in feeders}
        ends_s, speaking = self._clock.monotonic() + _BEFORE_S, list(feeders)
        for place in range(_SAMPLES):
            if place and speaking:
                await asyncio.sleep(_SAMPLE_S)
            left_s = ends_s - self._clock.monotonic()
            if not speaking or left_s <= 0:
                break
            found = await self._read(speaking, left_s)
            for feeder, power_w in found.items():
                if power_w is not None:
                    samples[feeder].append(power_w)
            speaking = [feeder for feeder in speaking if found[feeder] is not None]
        return {feeder: FeederBefore.of(found) for feeder, found in samples.items()}

    async def take(self, weighings: Sequence[Weighing]) -> None:
        """Add two readings in a row to each of ``weighings``, as far as their meters answer."""
        by_feeder = {weighing.feeder_id: weighing for weighing in weighings}
        for place in range(2):
            if place:
                await asyncio.sleep(_SAMPLE_S)
            began_s = self._clock.monotonic()
            found = await self._read(list(by_feeder), _AFTER_S)
            ended_s = self._clock.monotonic()
            at_s, unsure_s = (began_s + ended_s) / 2, (ended_s - began_s) / 2
            for feeder, power_w in found.items():
                if power_w is not None:
                    by_feeder[feeder].samples.append(Sample(at_s, power_w, unsure_s))

    async def _read(self, feeders: Sequence[str], within_s: float) -> dict[str, Watts | None]:
        """Return what each feeder draws now; None where its meter has not answered ``within_s`` seconds."""
        reads = {feeder: asyncio.ensure_future(self._meters[feeder].read()) for feeder in feeders}
        if reads:
            await asyncio.wait(reads.values(), timeout=within_s)
        late = [read for read in reads.values() if not read.done()]
        for read in late:
            read.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return {feeder: None if read.cancelled() else read.result().power_w for feeder, read in reads.items()}
