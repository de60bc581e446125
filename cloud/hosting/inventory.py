"""Reads a site's inventory.csv and meters.csv, keeping what the cloud may know: never an address.

Invariant: a file is taken whole or not at all; the first broken row is named with its file, line, field, cause and
remedy.
"""

import csv
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

from cloud.core.errors import BadInput
from cloud.hosting.model import DIALECTS, MAX_MINER_ID_BYTES, InventoryMeter, InventoryMiner, MeterKind
from sitelink.units import TeraHashPerSecond, Watts

MINER_FIELDS: Final = (
    *("miner_id", "host", "port", "dialect", "model", "feeder_id", "rack", "position", "nameplate_w", "nameplate_ths"),
)
METER_FIELDS: Final = ("meter_id", "kind", "feeder_id", "url")
_Value = TypeVar("_Value")


def read_miners(path: Path) -> tuple[InventoryMiner, ...]:
    """Return the miners of ``path``.

    Raises:
        BadInput: the file is unreadable, or a row is broken or doubled.
    """
    miners: dict[str, InventoryMiner] = {}
    for where, row in _rows(path, MINER_FIELDS):
        miner = InventoryMiner(
            miner_id=_identity(where, row, "miner_id"),
            dialect=_one_of(where, row, "dialect", DIALECTS),
            model=row["model"],
            feeder_id=row["feeder_id"],
            rack=row["rack"],
            position=_number(where, row, "position", int, 0),
            nameplate_w=Watts(_number(where, row, "nameplate_w", float, 1)),
            nameplate_ths=TeraHashPerSecond(_number(where, row, "nameplate_ths", float, 0)),
        )
        if miner.miner_id in miners:
            raise BadInput(f"{where}: miner_id: {miner.miner_id!r} stands twice; remove one of the rows")
        miners[miner.miner_id] = miner
    if not miners:
        raise BadInput(f"{path.name}: no miners; write one row a miner under the header")
    return tuple(miners.values())


def read_meters(path: Path) -> tuple[InventoryMeter, ...]:
    """Return the meters of ``path``.

    Raises:
        BadInput: the file is unreadable, or a row is broken or doubled.
    """
    meters: dict[str, InventoryMeter] = {}
    for where, row in _rows(path, METER_FIELDS):
        kind = MeterKind(_one_of(where, row, "kind", frozenset(MeterKind)))
        meter = InventoryMeter(_identity(where, row, "meter_id"), kind, row["feeder_id"])
        if kind is MeterKind.FEEDER and not meter.feeder_id:
            raise BadInput(f"{where}: feeder_id: empty; a feeder meter names the feeder it measures")
        if meter.meter_id in meters:
            raise BadInput(f"{where}: meter_id: {meter.meter_id!r} stands twice; remove one of the rows")
        meters[meter.meter_id] = meter
    return tuple(meters.values())


def _rows(path: Path, fields: tuple[str, ...]) -> Iterator[tuple[str, Mapping[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; give the path of a readable CSV file") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not UTF-8 text; save it as CSV in UTF-8") from None
    reader = csv.reader(text.splitlines())
    header = tuple(next(reader, ()))
    if header != fields:
        raise BadInput(f"{path.name} line 1: the header is {','.join(header)[:120]!r}; write {','.join(fields)}")
    try:
        for cells in reader:
            where = f"{path.name} line {reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(fields):
                raise BadInput(f"{where}: {len(cells)} fields; write {len(fields)}: {','.join(fields)}")
            yield where, dict(zip(fields, (cell.strip() for cell in cells), strict=True))
    except csv.Error as error:
        raise BadInput(f"{path.name} line {reader.line_num}: {error}; mend the quoting") from None


def _identity(where: str, row: Mapping[str, str], field: str) -> str:
    value = row[field]
    if not value or not value.isprintable() or len(value.encode()) > MAX_MINER_ID_BYTES:
        raise BadInput(f"{where}: {field}: {value[:60]!r} is empty, unprintable or over {MAX_MINER_ID_BYTES} bytes")
    return value


def _one_of(where: str, row: Mapping[str, str], field: str, known: frozenset[str]) -> str:
    if row[field] not in known:
        raise BadInput(f"{where}: {field}: {row[field]!r} is unknown; write one of {', '.join(sorted(known))}")
    return row[field]


def _number(where: str, row: Mapping[str, str], field: str, kind: Callable[[str], _Value], least: float) -> _Value:
    try:
        value = kind(row[field])
        if not math.isfinite(float(value)) or float(value) < least:  # type: ignore[arg-type]
            raise ValueError
    except ValueError:
        form = "a whole number" if kind is int else "a number"
        raise BadInput(f"{where}: {field}: {row[field]!r} is not {form} of at least {least:g}") from None
    return value
