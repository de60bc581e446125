"""A site's miners as counts and as packed cells of the heat map. Pure.

Invariants: each miner stands in exactly one class, so the counts add up to the number of miners; the map's cells are
made from the same columns.

    cell = 3 bytes:  class, + 8: a liar | hottest temperature in °C, 255 not known | hash rate in % of nameplate, or 255
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cloud.api.views.formats import number
from cloud.api.views.wording import Level
from cloud.hosting.columns import STARTING, MinerColumns
from cloud.hosting.model import Desired, MinerRow
from sitelink.codec import STATES
from sitelink.types import MinerState, Reason
from sitelink.units import TeraHashPerSecond, Watts

CELL_BYTES: Final = 3
LIAR_BIT: Final = 8
_NOT_KNOWN: Final = 255
HOT_C: Final = 85.0
WARM_C: Final = 75.0


class MinerClass(IntEnum):
    """What a miner counts as. The numbers travel to the map."""

    RUNNING = 0
    STOPPED = 1
    MISMATCH = 2
    OFF = 3
    UNKNOWN = 4

    @property
    def label(self) -> str:
        """Return what the legend says."""
        return _LABELS[self]

    @property
    def level(self) -> Level:
        """Return how far from normal that is."""
        return _LEVELS.get(self, Level.NORMAL)


_LEVELS: Final = {MinerClass.MISMATCH: Level.HIGH, MinerClass.OFF: Level.LOW, MinerClass.UNKNOWN: Level.UNKNOWN}
_LABELS: Final = {
    MinerClass.RUNNING: "running",
    MinerClass.STOPPED: "stopped by plan",
    MinerClass.MISMATCH: "should be off, is on",
    MinerClass.OFF: "should run, is off",
    MinerClass.UNKNOWN: "not known",
}


@dataclass(frozen=True, slots=True)
class Census:
    """The miners of a site counted once each, with sums over those that report.

    ``meter_disagrees`` names miners that say they are off while their feeder's meter says otherwise; they count as
    mismatch. ``power_w`` sums ``power_reporting`` devices, ``hashrate_ths`` all that report one, ``expected_ths`` the
    nameplates of those that should run; ``expected_unknown`` of these have none.
    """

    running: int
    stopped: int
    mismatch: int
    off: int
    unknown: int
    starting: int
    liars: tuple[str, ...]
    hot: int
    power_w: Watts | None
    power_reporting: int
    hashrate_ths: TeraHashPerSecond | None
    expected_ths: TeraHashPerSecond | None
    expected_unknown: int
    ordered_off: int

    @property
    def total(self) -> int:
        """Return every miner of the site."""
        return self.running + self.stopped + self.mismatch + self.off + self.unknown

    @property
    def reporting(self) -> int:
        """Return the miners whose state is known."""
        return self.total - self.unknown


def classify(row: MinerRow) -> MinerClass:
    """Return the one class of ``row``; a liar that should be off counts as on, whatever it reports."""
    return _class_of(row.state, stopped=row.desired is Desired.STOP, liar=row.liar)


def _class_of(state: MinerState, *, stopped: bool, liar: bool) -> MinerClass:
    if state is MinerState.UNKNOWN:
        return MinerClass.UNKNOWN
    if stopped:
        return MinerClass.MISMATCH if liar or state is MinerState.HASHING else MinerClass.STOPPED
    return MinerClass.RUNNING if state is MinerState.HASHING else MinerClass.OFF


_NO_YES: Final = (False, True)
_CLASSES: Final = np.array(
    [[[_class_of(state, stopped=stop, liar=liar) for liar in _NO_YES] for stop in _NO_YES] for state in STATES],
    dtype=np.uint8,
)


def classes(miners: MinerColumns) -> NDArray[np.uint8]:
    """Return the class of each miner."""
    found: NDArray[np.uint8] = _CLASSES[miners.state, miners.stopped.astype(np.intp), miners.liar.astype(np.intp)]
    return found


def tried_in_vain(row: MinerRow) -> bool:
    """Return whether the latest reading holds nothing but that the miner could not be read."""
    return row.state is MinerState.UNKNOWN and row.reason is not Reason.NOT_REPORTED


def temperature_c(row: MinerRow) -> float | None:
    """Return the hottest board's temperature, or the hottest chip's where boards report none."""
    return row.chip_temp_c if row.board_temp_c is None else row.board_temp_c


def take_census(miners: MinerColumns) -> Census:
    """Count ``miners`` once each and sum what they report; a sum over nobody is None."""
    kinds = classes(miners)
    counts = np.bincount(kinds, minlength=len(MinerClass)).tolist()
    known = kinds != MinerClass.UNKNOWN
    power, power_reporting = _sum(miners.records["power_w"][known])
    hashrate, hash_reporting = _sum(miners.records["hashrate_ths"][known])
    to_run = ~miners.stopped
    expected, rated = _sum(miners.nameplate_ths[to_run])
    unrated = int(to_run.sum()) - rated
    return Census(
        running=counts[MinerClass.RUNNING],
        stopped=counts[MinerClass.STOPPED],
        mismatch=counts[MinerClass.MISMATCH],
        off=counts[MinerClass.OFF],
        unknown=counts[MinerClass.UNKNOWN],
        starting=int(((kinds == MinerClass.OFF) & (miners.reason == STARTING)).sum()),
        liars=miners.ids(miners.liar),
        hot=int((miners.hottest_c[known] >= HOT_C).sum()),
        power_w=Watts(power) if power_reporting else None,
        power_reporting=power_reporting,
        hashrate_ths=TeraHashPerSecond(hashrate) if hash_reporting else None,
        expected_ths=TeraHashPerSecond(expected) if rated or not unrated else None,
        expected_unknown=unrated,
        ordered_off=int(miners.stopped.sum()),
    )


def _sum(values: NDArray[np.floating]) -> tuple[float, int]:
    """Return the sum of the known values and how many they are."""
    known = values[~np.isnan(values)]
    return float(known.sum(dtype=np.float64)), len(known)


def add_up(parts: Sequence[Census]) -> Census:
    """Return several sites counted as one; a sum is known where any part of it is."""
    names = [field.name for field in fields(Census)]
    sums: dict[str, Any] = {name: [getattr(part, name) for part in parts] for name in names}
    for name, values in sums.items():
        known = [value for value in values if value is not None]
        sums[name] = sum(known, start=() if name == "liars" else 0) if known else None
    return Census(**sums)


def count_words(census: Census) -> str:
    """Return what does not simply run, in words; empty when everything does."""
    parts = (
        f"{number(census.mismatch)} still on, should be off" if census.mismatch else "",
        f"{number(census.off)} should run" if census.off else "",
        f"{number(census.stopped)} stopped by plan" if census.stopped else "",
        f"{number(census.unknown)} not known" if census.unknown else "",
    )
    return " · ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each cell stands: ``racks`` are (name, cells) in drawing order; ``miner_ids`` is one id a cell."""

    racks: tuple[tuple[str, int], ...]
    miner_ids: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class RackMap:
    """The map's layout and its cells (``CELL_BYTES`` x n_miners)."""

    layout: Layout
    cells: bytes

    @property
    def text(self) -> str:
        """Return the cells as base64."""
        return b64encode(self.cells).decode("ascii")


def rack_order(miners: MinerColumns) -> tuple[NDArray[np.intp], tuple[tuple[str, int], ...]]:
    """Return the places in reading order, and the racks as (name, miners): C2 before C10, positions in order."""
    racks = miners.inventory.rack
    names = sorted(set(racks), key=_natural)
    ranks = {name: rank for rank, name in enumerate(names)}
    rank_of = np.fromiter((ranks[rack] for rack in racks), dtype=np.intp, count=len(racks))
    sizes = np.bincount(rank_of, minlength=len(names)).tolist()
    positions = np.array(miners.inventory.position, dtype=np.int64)
    return np.lexsort((positions, rank_of)), tuple(zip(names, sizes, strict=True))


def draw_racks(miners: MinerColumns) -> RackMap:
    """Return the heat map of ``miners``."""
    order, racks = rack_order(miners)
    ids = tuple(miners.inventory.miner_id[place] for place in order.tolist())
    digest = hashlib.sha256("\n".join((*(f"{name} {size}" for name, size in racks), *ids)).encode()).hexdigest()[:16]
    return RackMap(Layout(racks, ids, digest), _cells(miners)[order].tobytes())


def cell_changes(old: bytes, new: bytes) -> bytes | None:
    """Return the changed cells as (index: 2 bytes, little-endian; cell: 3 bytes) each.

    None when the full map is shorter or the two maps differ in size.
    """
    if len(old) != len(new):
        return None
    changes = bytearray()
    for start in range(0, len(new), CELL_BYTES):
        cell = new[start : start + CELL_BYTES]
        if cell != old[start : start + CELL_BYTES]:
            place = start // CELL_BYTES
            if place > 0xFFFF:
                return None
            changes += place.to_bytes(2, "little") + cell
    return bytes(changes) if len(changes) < len(new) else None


def _cells(miners: MinerColumns) -> NDArray[np.uint8]:
    """Return n_miners x ``CELL_BYTES``."""
    kinds = classes(miners)
    named = kinds | np.where(miners.liar, LIAR_BIT, 0).astype(np.uint8)
    rated = np.where(miners.nameplate_ths > 0, miners.nameplate_ths, np.nan)
    share = 100 * miners.records["hashrate_ths"] / rated
    figures = np.stack((miners.hottest_c, share), axis=1)
    figures[kinds == MinerClass.UNKNOWN] = np.nan
    shown = np.where(np.isnan(figures), _NOT_KNOWN, np.clip(np.rint(figures), 0, 254)).astype(np.uint8)
    return np.column_stack((named, shown))


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part)
