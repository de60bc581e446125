"""A site's miners as counts and as packed cells of the heat map. Pure.

Invariants: each miner stands in exactly one class, so the counts add up to the number of miners; the map's cells are
made in the same pass from the same rows.

    cell = 3 bytes:  class | hottest temperature in °C, 255 not known | hash rate in % of nameplate, 255 not known
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from cloud.hosting.model import Desired, MinerRow
from sitelink.types import MinerState, Reason
from sitelink.units import TeraHashPerSecond, Watts

CELL_BYTES: Final = 3
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
    if row.state is MinerState.UNKNOWN:
        return MinerClass.UNKNOWN
    if row.desired is Desired.STOP:
        if row.liar or row.state is MinerState.HASHING:
            return MinerClass.MISMATCH
        return MinerClass.STOPPED
    return MinerClass.RUNNING if row.state is MinerState.HASHING else MinerClass.OFF


def temperature_c(row: MinerRow) -> float | None:
    """Return the hottest board's temperature, or the hottest chip's where boards report none."""
    return row.chip_temp_c if row.board_temp_c is None else row.board_temp_c


def take_census(rows: Sequence[MinerRow]) -> Census:
    """Count ``rows`` once each and sum what they report; a sum over nobody is None."""
    counts = [0] * len(MinerClass)
    starting = hot = power_reporting = hash_reporting = ordered_off = 0
    power = hashrate = 0.0
    expected: list[TeraHashPerSecond | None] = []
    liars: list[str] = []
    for row in rows:
        kind = classify(row)
        counts[kind] += 1
        if row.liar:
            liars.append(row.miner_id)
        if row.desired is Desired.STOP:
            ordered_off += 1
        else:
            expected.append(row.nameplate_ths)
            starting += kind is MinerClass.OFF and row.reason is Reason.STARTING
        if kind is MinerClass.UNKNOWN:
            continue
        if row.power_w is not None:
            power += row.power_w
            power_reporting += 1
        if row.hashrate_ths is not None:
            hashrate += row.hashrate_ths
            hash_reporting += 1
        temperature = temperature_c(row)
        hot += temperature is not None and temperature >= HOT_C
    rated = [rate for rate in expected if rate is not None]
    return Census(
        running=counts[MinerClass.RUNNING],
        stopped=counts[MinerClass.STOPPED],
        mismatch=counts[MinerClass.MISMATCH],
        off=counts[MinerClass.OFF],
        unknown=counts[MinerClass.UNKNOWN],
        starting=starting,
        liars=tuple(liars),
        hot=hot,
        power_w=Watts(power) if power_reporting else None,
        power_reporting=power_reporting,
        hashrate_ths=TeraHashPerSecond(hashrate) if hash_reporting else None,
        expected_ths=TeraHashPerSecond(sum(rated)) if rated or not expected else None,
        expected_unknown=len(expected) - len(rated),
        ordered_off=ordered_off,
    )


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


def draw_racks(rows: Sequence[MinerRow]) -> RackMap:
    """Return the heat map of ``rows``: racks in natural order (C2 before C10), positions in order."""
    keys = {row.rack: _natural(row.rack) for row in rows}
    ordered = sorted(rows, key=lambda row: (keys[row.rack], row.position, row.miner_id))
    racks: list[tuple[str, int]] = []
    cells = bytearray()
    for row in ordered:
        if not racks or racks[-1][0] != row.rack:
            racks.append((row.rack, 0))
        racks[-1] = (row.rack, racks[-1][1] + 1)
        cells += _cell(row)
    ids = tuple(row.miner_id for row in ordered)
    digest = hashlib.sha256(repr((racks, ids)).encode()).hexdigest()[:16]
    return RackMap(Layout(tuple(racks), ids, digest), bytes(cells))


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


def _cell(row: MinerRow) -> bytes:
    kind = classify(row)
    temperature = _NOT_KNOWN
    share = _NOT_KNOWN
    if kind is not MinerClass.UNKNOWN:
        celsius = temperature_c(row)
        if celsius is not None:
            temperature = min(254, max(0, round(celsius)))
        if row.hashrate_ths is not None and row.nameplate_ths is not None:
            share = min(254, max(0, round(100 * row.hashrate_ths / row.nameplate_ths)))
    return bytes((kind, temperature, share))


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part)
