"""A site's miners as a table: the rack map's equivalent for keyboards, screen readers and searches. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cloud.api.source import SiteRead
from cloud.api.views import formats
from cloud.api.views.formats import Figure
from cloud.api.views.heard import without_unheard
from cloud.api.views.miners import MinerClass, classes, rack_order, temperature_c, tried_in_vain
from cloud.hosting.columns import Bools, MinerColumns
from cloud.hosting.model import MinerRow, SiteSummary

PAGE_SIZE: Final = 100


class Show(StrEnum):
    """Which miners a list holds, in the order offered."""

    ALL = "all"
    RUNNING = "running"
    STOPPED = "stopped"
    MISMATCH = "mismatch"
    OFF = "off"
    UNKNOWN = "unknown"
    LIARS = "liars"


_CLASSES: Final = {
    Show.RUNNING: MinerClass.RUNNING,
    Show.STOPPED: MinerClass.STOPPED,
    Show.MISMATCH: MinerClass.MISMATCH,
    Show.OFF: MinerClass.OFF,
    Show.UNKNOWN: MinerClass.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class MinerLine:
    """One miner in the list; what a silent miner last said is not shown as if it were live."""

    row: MinerRow
    kind: MinerClass
    hashrate: Figure
    power: Figure
    temperature: Figure
    tried: bool


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
    miners = without_unheard(read).miners
    kinds = classes(miners)
    counts = {name: int((kinds == wanted).sum()) for name, wanted in _CLASSES.items()}
    counts = {Show.ALL: len(miners), **counts, Show.LIARS: int(miners.liar.sum())}
    order, _ = rack_order(miners)
    chosen = order[_fits(miners, kinds, show)[order]]
    pages = max(1, -(-len(chosen) // PAGE_SIZE))
    at = min(page, pages)
    places = chosen[(at - 1) * PAGE_SIZE : at * PAGE_SIZE].tolist()
    lines = tuple(_line(MinerClass(kinds[place]), miners[place]) for place in places)
    return Listing(read.summary, read.read_at, show, counts, lines, at, pages)


def _fits(miners: MinerColumns, kinds: NDArray[np.uint8], show: Show) -> Bools:
    if show is Show.ALL:
        return np.ones(len(miners), dtype=bool)
    return miners.liar if show is Show.LIARS else kinds == _CLASSES[show]


def _line(kind: MinerClass, row: MinerRow) -> MinerLine:
    live = kind is not MinerClass.UNKNOWN
    return MinerLine(
        row,
        kind,
        formats.device_hashrate(row.hashrate_ths if live else None),
        formats.device_power(row.power_w if live else None),
        formats.temperature(temperature_c(row) if live else None),
        tried_in_vain(row),
    )
