"""How those found stand to the inventory: known, moved, replaced, swapped, new. Pure.

    its name is listed, here           known        its name is listed, elsewhere           moved (the network's doing)
    its other name is known            new board    another's address, an unknown name      replaced
    no name                            unnamed      an unknown name at an unknown address   new

Invariants: a miner is who it says it is, never where it answers; a name that answers at two addresses moves nobody; who
moves keeps its ports, which are its firmware's; nothing here changes anything.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from agent.cgminer.observation import Observation
from agent.discover.shown import Look
from agent.inventory.learned import Learned, Names
from sitelink.inventory import MinerEntry, miner_of, row_of
from sitelink.miner_ids import is_mac
from sitelink.rows import BadList


class Standing(StrEnum):
    """How one that was found stands to the inventory."""

    KNOWN = "in inventory"
    MOVED = "moved"
    BOARD = "new board"
    REPLACED = "replaced"
    NEW = "new"
    UNNAMED = "no name"
    DOUBLE = "name twice"
    STRANGER = "no miner"


@dataclass(frozen=True, slots=True)
class Sighting:
    """One that was found. ``entry`` is the miner of the inventory it is, or whose place it has taken."""

    look: Look
    standing: Standing
    entry: MinerEntry | None = None
    notes: tuple[str, ...] = ()


def judge(looks: Sequence[Look], inventory: Sequence[MinerEntry], learned: Learned) -> tuple[Sighting, ...]:
    """Return how each of ``looks`` stands to the inventory; ``learned`` holds both names of miners seen before."""
    book = _Book(inventory, learned)
    said = Counter(name for look in looks for name in set(look.names))
    return tuple(book.judge(look, double=any(said[name] > 1 for name in look.names)) for look in looks)


def missing(sightings: Iterable[Sighting], inventory: Iterable[MinerEntry], swept: Iterable[str]) -> list[MinerEntry]:
    """Return the miners of the inventory that should have answered at a swept address and answered nowhere.

    One that answers there without a name may be it.
    """
    there = set(swept)
    seen = {each.entry.miner_id for each in sightings if each.entry is not None and each.standing in _MAY_BE_IT}
    return [entry for entry in inventory if entry.host in there and entry.miner_id not in seen]


def remembered(learned: Learned, sightings: Iterable[Sighting]) -> Learned:
    """Return ``learned`` with both names of each miner that is beyond doubt the inventory's."""
    for each in sightings:
        if each.entry is not None and each.standing in {Standing.KNOWN, Standing.MOVED}:
            learned = learned.named(each.entry.miner_id, _names(each.look))
    return learned


def candidates(sightings: Iterable[Sighting]) -> tuple[list[MinerEntry], list[str]]:
    """Return a row for each new miner and each that moved, and why some could not be written."""
    rows: list[MinerEntry] = []
    unwritten: list[str] = []
    for each in sightings:
        if each.standing is Standing.MOVED and each.entry is not None:
            rows.append(replace(each.entry, host=each.look.host))
        elif each.standing is Standing.NEW and each.look.observation is not None:
            try:
                rows.append(_row(each.look, each.look.observation))
            except BadList as error:
                unwritten.append(f"{each.look.host}: {error}")
    return rows, unwritten


def standing_at(listed: Sequence[MinerEntry], port: int) -> MinerEntry | None:
    """Return who of those ``listed`` at one host is meant: behind a forwarded one, each has a port of its own."""
    return listed[0] if len(listed) == 1 else next((each for each in listed if each.port == port), None)


_MAY_BE_IT: Final = {Standing.KNOWN, Standing.MOVED, Standing.BOARD, Standing.DOUBLE, Standing.UNNAMED}


class _Book:
    """The inventory by name and by address."""

    def __init__(self, inventory: Sequence[MinerEntry], learned: Learned) -> None:
        self._by_id = {entry.miner_id.lower(): entry for entry in inventory}
        self._by_host: dict[str, list[MinerEntry]] = {}
        for entry in inventory:
            self._by_host.setdefault(entry.host.lower(), []).append(entry)
        self._learned = learned
        self._other_names = {
            name.lower(): miner_id
            for miner_id, names in learned.names.items()
            for name in (names.mac, names.serial)
            if name is not None
        }

    def judge(self, look: Look, *, double: bool) -> Sighting:
        here = self._listed_at(look)
        if look.observation is None:
            return Sighting(look, Standing.STRANGER, here)
        if not look.names:
            return Sighting(look, Standing.UNNAMED, here)
        entry = next((self._by_id[name] for name in look.names if name in self._by_id), None)
        if double:
            return Sighting(look, Standing.DOUBLE, entry, ("another address answers to the same name",))
        if entry is not None:
            return self._itself(look, entry)
        former = next((self._other_names[name] for name in look.names if name in self._other_names), "")
        if former in self._by_id:
            known = self._by_id[former]
            return self._new_board(look, known) if _comparable(known, look) else self._itself(look, known)
        if here is not None and not _comparable(here, look):
            told, other = ("serial", "MAC") if is_mac(here.miner_id) else ("MAC", "serial")
            note = f"tells only its {told} {look.names[0]}, and {here.miner_id} is listed here by its {other}"
            opened_by = f"{look.opened_by}, or " if look.opened_by else ""
            return Sighting(look, Standing.UNNAMED, here, (f"{note}; {opened_by}list it by its {told}",))
        if here is not None:
            note = f"{here.miner_id} is listed here; record it: ballast-agent inventory swap"
            return Sighting(look, Standing.REPLACED, here, (note,))
        return Sighting(look, Standing.NEW)

    def _listed_at(self, look: Look) -> MinerEntry | None:
        return standing_at(self._by_host.get(look.host.lower(), ()), look.port)

    def _itself(self, look: Look, entry: MinerEntry) -> Sighting:
        known, now = self._learned.names.get(entry.miner_id.lower(), Names()), _names(look)
        notes: list[str] = []
        for what, was, says in (("MAC", known.mac, now.mac), ("serial", known.serial, now.serial)):
            if was is not None and says is not None and was.lower() != says.lower():
                notes.append(f"its {what} was {was}: a board or the whole miner was changed")
        if entry.host.lower() == look.host.lower() or not _is_address(entry.host):
            return Sighting(look, Standing.BOARD if notes else Standing.KNOWN, entry, tuple(notes))
        notes.insert(0, f"listed at {entry.host}")
        return Sighting(look, Standing.BOARD if len(notes) > 1 else Standing.MOVED, entry, tuple(notes))

    @staticmethod
    def _new_board(look: Look, entry: MinerEntry) -> Sighting:
        note = (
            f"listed as {entry.miner_id}; record it: ballast-agent inventory swap {entry.miner_id} {look.names[0]} "
            "--board"
        )
        return Sighting(look, Standing.BOARD, entry, (note,))


def _comparable(entry: MinerEntry, look: Look) -> bool:
    """Return whether the miner told the kind of name by which ``entry`` is listed: a MAC says nothing of a serial."""
    said = _names(look)
    return said.mac is not None if is_mac(entry.miner_id) else said.serial is not None


def _names(look: Look) -> Names:
    seen = look.observation
    return Names() if seen is None else Names(seen.mac, seen.serial)


def _is_address(host: str) -> bool:
    return host.replace(".", "").isdigit() or ":" in host


def _row(look: Look, seen: Observation) -> MinerEntry:
    """Return a new miner's row: who and where, never a place or a nameplate. Raises BadList."""
    bare = MinerEntry(
        miner_id=look.names[0],
        host=look.host,
        port=look.port,
        dialect=seen.dialect,
        model=plain(seen.model),
        feeder_id="",
        rack="",
        position=0,
        nameplate_w=None,
        nameplate_ths=None,
        web_port=look.web_port,
    )
    return miner_of(row_of(bare))


def plain(text: str | None, limit: int = 48) -> str:
    """Return what a device said of itself as a short text that neither a terminal nor a spreadsheet obeys."""
    shown = "".join(letter for letter in " ".join((text or "").split()) if letter.isprintable())
    return shown.lstrip("=+-@ ")[:limit].rstrip()
