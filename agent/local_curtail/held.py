"""Who is held for heat, as the books' mark tells it. Pure."""

import json
from collections.abc import Collection
from typing import Final

HEAT_MARK: Final = "heat"


def held_of(mark: str) -> tuple[set[str], set[str]]:
    """Return the miners and the racks that are held, as marked."""
    found = json.loads(mark) if mark else {}
    return set(found.get("miners", ())), set(found.get("racks", ()))


def mark_of_held(miners: Collection[str], racks: Collection[str]) -> str:
    """Return the mark of who is held, "" for nobody."""
    return json.dumps({"miners": sorted(miners), "racks": sorted(racks)}) if miners or racks else ""
