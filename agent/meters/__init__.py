"""Site and feeder meters: Modbus TCP by the register map of their model, a page, or a file.

Invariants: a meter that does not answer gives a sample with ``power_w`` None, never an exception and never zero; reads
of one meter take turns, each with its own deadline from the start of its turn; a silence is told once, and its end,
and so is a figure that its register does not tell.
"""

import asyncio
import logging
import math
from pathlib import Path
from typing import Final, Protocol

from agent.errors import AgentError
from agent.meters.figures import Figures
from agent.meters.modbus import ModbusFigures
from agent.meters.register_maps import load_map
from agent.meters.texts import FileFigures, PageFigures
from agent.modbus import ModbusHosts
from sitelink.clock import Clock
from sitelink.inventory import MeterEntry
from sitelink.meter_source import FileSource, MeterSource, ModbusSource
from sitelink.types import MeterSample

_LOG: Final = logging.getLogger(__name__)
_TIMEOUT_S: Final = 1.0


class Figured(Protocol):
    """Where a meter's figures come from."""

    async def read(self, timeout_s: float) -> Figures:
        """Return the figures of this moment. Raises AgentError."""
        ...

    def close(self) -> None:
        """Let go of what is kept open for it."""
        ...


class Meter:
    """One meter. Several tasks may read it: a meter serves one request at a time, so each waits for its turn."""

    def __init__(self, entry: MeterEntry, figured: Figured, clock: Clock, timeout_s: float = _TIMEOUT_S) -> None:
        self._entry = entry
        self._figured = figured
        self._clock = clock
        self._timeout_s = timeout_s
        self._silent = self._unsaid = False
        self._turn = asyncio.Lock()

    @property
    def entry(self) -> MeterEntry:
        """Return the meter's place in the list."""
        return self._entry

    async def read(self) -> MeterSample:
        """Return total active power in W and imported energy in Wh; both None when the meter does not answer."""
        async with self._turn:
            try:
                figures = await self._figured.read(self._timeout_s)
            except AgentError as error:
                self._note_silence(error)
                return MeterSample(self._entry.meter_id, self._clock.now(), None)
        self._note_answer(figures.unsaid)
        power_w, energy_wh = figures.power_w, figures.energy_wh
        return MeterSample(
            self._entry.meter_id,
            self._clock.now(),
            power_w if power_w is not None and math.isfinite(power_w) else None,
            energy_wh if energy_wh is not None and math.isfinite(energy_wh) else None,
        )

    async def close(self) -> None:
        """Close its connection."""
        self._figured.close()

    def _note_silence(self, error: AgentError) -> None:
        if not self._silent:
            _LOG.warning("meter %s does not answer: %s", self._entry.meter_id, error)
        self._silent = True

    def _note_answer(self, unsaid: str) -> None:
        if self._silent:
            _LOG.info("meter %s answers again", self._entry.meter_id)
        self._silent = False
        if unsaid and not self._unsaid:
            _LOG.warning("meter %s tells no figure: %s", self._entry.meter_id, unsaid)
        if self._unsaid and not unsaid:
            _LOG.info("meter %s tells all its figures again", self._entry.meter_id)
        self._unsaid = bool(unsaid)


def meter_of(
    entry: MeterEntry, hosts: ModbusHosts, clock: Clock, maps: Path | None = None, timeout_s: float = _TIMEOUT_S
) -> Meter:
    """Return the meter of ``entry``; ``maps`` is the site's own folder of register maps.

    Raises:
        BadInput: its register map is missing or wrong.
    """
    return Meter(entry, _figured(entry.source, hosts, clock, maps), clock, timeout_s)


def _figured(source: MeterSource, hosts: ModbusHosts, clock: Clock, maps: Path | None) -> Figured:
    if isinstance(source, ModbusSource):
        registers = load_map(source.map_name, maps) if source.map_name else None
        return ModbusFigures(source, hosts.at(source.host, source.port), registers)
    if isinstance(source, FileSource):
        return FileFigures(source, clock)
    return PageFigures(source)
