"""What the site's network taught us about its miners: where each answers now, and which names are one device.

    {"miners": {id: {"host": .., "was": "HOST:PORT", "at": ISO time}},
     "names": {id: {"mac": .., "serial": ..}}}

Invariants: it adds no miner and renames none; it is a note that may be lost at any time, nothing else rests on it; an
address counts only while the inventory still has the one it replaced, so the operator's newer word always wins.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from agent.files import alone_with, replace_file
from sitelink.inventory import MinerEntry


@dataclass(frozen=True, slots=True)
class Found:
    """Where a miner answered, instead of at ``was`` (``HOST:PORT`` of the inventory)."""

    host: str
    was: str
    at: str


@dataclass(frozen=True, slots=True)
class Names:
    """Both names of one device; None where it has never said one."""

    mac: str | None = None
    serial: str | None = None

    def merged(self, newer: "Names") -> "Names":
        """Return these names, overlaid with those that were said more recently."""
        return Names(newer.mac or self.mac, newer.serial or self.serial)


@dataclass(frozen=True, slots=True)
class Learned:
    """Everything learned, by miner id as the inventory has it, lower-case."""

    miners: Mapping[str, Found] = field(default_factory=dict)
    names: Mapping[str, Names] = field(default_factory=dict)

    @classmethod
    def load(cls, state_dir: Path) -> Self:
        """Return what is noted in ``state_dir``; nothing when there is no note, or a broken one."""
        try:
            document = json.loads(path_in(state_dir).read_bytes())
            return cls(_all_of(Found, document["miners"]), _all_of(Names, document["names"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return cls()

    def applied(self, inventory: Iterable[MinerEntry]) -> tuple[MinerEntry, ...]:
        """Return the inventory with each miner at the address where it was found last."""
        return tuple(self._placed(entry) for entry in inventory)

    def moved(self, entry: MinerEntry, host: str, at: datetime) -> "Learned":
        """Return this, with ``entry`` (as the inventory has it) found at ``host``; its ports are its firmware's."""
        miners = {name: found for name, found in self.miners.items() if name != entry.miner_id.lower()}
        if host != entry.host:
            miners[entry.miner_id.lower()] = Found(host, _address(entry), at.isoformat(timespec="seconds"))
        return replace(self, miners=miners)

    def named(self, miner_id: str, names: Names) -> "Learned":
        """Return this, with both names of one miner as it said them last."""
        known = self.names.get(miner_id.lower(), Names())
        return replace(self, names={**self.names, miner_id.lower(): known.merged(names)})

    def only(self, inventory: Iterable[MinerEntry]) -> "Learned":
        """Return what still concerns a miner of the inventory at the address that it has there."""
        listed = {entry.miner_id.lower(): _address(entry) for entry in inventory}
        return Learned(
            {name: found for name, found in self.miners.items() if listed.get(name) == found.was},
            {name: names for name, names in self.names.items() if name in listed},
        )

    def save(self, state_dir: Path) -> None:
        """Replace the note in ``state_dir``.

        Raises:
            OSError: the disk takes nothing, or another process writes at this moment; what was there stays.
        """
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        document = {
            "miners": {name: asdict(found) for name, found in sorted(self.miners.items())},
            "names": {name: asdict(names) for name, names in sorted(self.names.items())},
        }
        with alone_with(path_in(state_dir)):
            replace_file(path_in(state_dir), json.dumps(document, indent=1).encode() + b"\n")

    def _placed(self, entry: MinerEntry) -> MinerEntry:
        found = self.miners.get(entry.miner_id.lower())
        if found is None or found.was != _address(entry):
            return entry
        return replace(entry, host=found.host)


def path_in(state_dir: Path) -> Path:
    """Return where the note stands."""
    return state_dir / "learned.json"


def _address(entry: MinerEntry) -> str:
    return f"{entry.host}:{entry.port}"


def _all_of(kind: type[Any], document: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    made = {name: kind(**values) for name, values in document.items()}
    if any(not isinstance(value, str | None) for each in made.values() for value in asdict(each).values()):
        raise TypeError("all of it is text")
    return made
