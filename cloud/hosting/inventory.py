"""Reads a site's inventory.csv and meters.csv, keeping what the cloud may know: never an address."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import sitelink.inventory
from cloud.core.errors import BadInput
from cloud.hosting.model import InventoryMeter, InventoryMiner, MeterKind
from sitelink.rows import BadList

_Entry = TypeVar("_Entry")


def read_miners(path: Path) -> tuple[InventoryMiner, ...]:
    """Return the miners of ``path``.

    Raises:
        BadInput: the file is unreadable or lists no miner, or a row is broken or doubled.
    """
    entries = _read(path, sitelink.inventory.read_miners)
    if not entries:
        raise BadInput(f"{path.name}: no miners; write one row a miner under the header")
    return tuple(
        InventoryMiner(
            miner_id=entry.miner_id,
            dialect=entry.dialect,
            model=entry.model,
            feeder_id=entry.feeder_id,
            rack=entry.rack,
            position=entry.position,
            nameplate_w=entry.nameplate_w,
            nameplate_ths=entry.nameplate_ths,
            controllable=entry.controllable,
        )
        for entry in entries
    )


def read_meters(path: Path) -> tuple[InventoryMeter, ...]:
    """Return the meters of ``path``.

    Raises:
        BadInput: the file is unreadable, or a row is broken or doubled.
    """
    entries = _read(path, sitelink.inventory.read_meters)
    return tuple(InventoryMeter(entry.meter_id, MeterKind(entry.kind), entry.feeder_id) for entry in entries)


def _read(path: Path, read: Callable[[str, bytes], tuple[_Entry, ...]]) -> tuple[_Entry, ...]:
    try:
        return read(path.name, path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; give the path of a readable CSV file") from None
    except BadList as error:
        raise BadInput(str(error)) from None
