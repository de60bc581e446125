"""A site's miners as a table: the rack map's equivalent for keyboards, screen readers and searches. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from cloud.api.source import SiteRead
from cloud.api.views import formats
from cloud.api.views.formats import Figure
from cloud.api.views.miners import MinerClass, classify, temperature_c
from cloud.hosting.model import MinerRow, SiteSummary

PAGE_SIZE: Final = 100


class Show(StrEnum):
    """Which miners a list holds."""

    ALL = "all"
    MISMATCH = "mismatch"
    OFF = "off"
    UNKNOWN = "unknown"
    STOPPED = "stopped"
    RUNNING = "running"
    LIARS = "liars"


_CLASSES: Final = {
    Show.MISMATCH: MinerClass.MISMATCH,
    Show.OFF: MinerClass.OFF,
    Show.UNKNOWN: MinerClass.UNKNOWN,
    Show.STOPPED: MinerClass.STOPPED,
    Show.RUNNING: MinerClass.RUNNING,
}


@dataclass(frozen=True, slots=True)
class MinerLine:
    """One miner in the list; what a silent miner last said is not shown as if it were live."""

    row: MinerRow
    kind: MinerClass
    hashrate: Figure
    power: Figure
    temperature: Figure


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of miners; ``counts`` are exact and hold for the whole site."""

    summary: SiteSummary
    as_of: datetime
    show: Show
    counts: dict[Show, int]
    lines: tuple[MinerLine, ...]
    page: int
    pages: int


def list_miners(read: SiteRead, show: Show, page: int) -> Listing:
    """Return page ``page`` (from 1) of the miners that ``show`` names, by rack and position."""
    kinds = [(classify(row), row) for row in read.miners]
    counts = {name: sum(kind is wanted for kind, _ in kinds) for name, wanted in _CLASSES.items()}
    counts[Show.ALL] = len(kinds)
    counts[Show.LIARS] = sum(row.liar for _, row in kinds)
    chosen = [(kind, row) for kind, row in kinds if _fits(kind, row, show)]
    pages = max(1, -(-len(chosen) // PAGE_SIZE))
    at = min(page, pages)
    lines = tuple(_line(kind, row) for kind, row in chosen[(at - 1) * PAGE_SIZE : at * PAGE_SIZE])
    return Listing(read.summary, read.read_at, show, counts, lines, at, pages)


def _fits(kind: MinerClass, row: MinerRow, show: Show) -> bool:
    if show is Show.ALL:
        return True
    return row.liar if show is Show.LIARS else kind is _CLASSES[show]


def _line(kind: MinerClass, row: MinerRow) -> MinerLine:
    live = kind is not MinerClass.UNKNOWN
    return MinerLine(
        row,
        kind,
        formats.device_hashrate(row.hashrate_ths if live else None),
        formats.device_power(row.power_w if live else None),
        formats.temperature(temperature_c(row) if live else None),
    )
