"""Reads every meter once an interval.

Invariants: every read that was due ends in one sample; a silent meter gives a sample without power. Each meter has its
own task, so that a silent one delays no other.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Protocol

from agent.rota import Rota
from sitelink.clock import Clock
from sitelink.types import MeterSample


class Meter(Protocol):
    """A meter that can be read; it never raises."""

    async def read(self) -> MeterSample:
        """Return one sample; its power is None when the meter does not answer."""
        ...


class MeterPoller:
    """Polls ``meters`` (by meter id) and hands each sample to ``sink``."""

    def __init__(
        self,
        meters: Mapping[str, Meter],
        clock: Clock,
        rng: random.Random,
        sink: Callable[[MeterSample], None],
        *,
        interval_s: float,
    ) -> None:
        self._meters = dict(meters)
        self._clock = clock
        self._rng = rng
        self._sink = sink
        self._interval_s = interval_s
        self._latest: dict[str, MeterSample] = {}

    @property
    def latest(self) -> Mapping[str, MeterSample]:
        """Return the last sample of each meter read so far."""
        return self._latest

    async def run(self) -> None:
        """Poll until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for meter_id, meter in self._meters.items():
                tasks.create_task(self._poll(meter_id, meter))
            # A site without meters has nothing to do here, but its task must not end.
            tasks.create_task(asyncio.Event().wait())

    async def _poll(self, meter_id: str, meter: Meter) -> None:
        rota = Rota((meter_id,), self._interval_s, self._rng, self._clock.monotonic())
        while True:
            await asyncio.sleep(max(0.0, rota.due() - self._clock.monotonic()))
            due_mono = self._clock.monotonic()
            sample = await meter.read()
            self._latest[meter_id] = sample
            self._sink(sample)
            rota.put_back(rota.pop(), due_mono)
