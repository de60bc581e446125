"""What importing a list would do to the inventory, row by row. Pure.

    present rows + told rows --> changes, the rows after them, and what forbids them

A told row is about the miner of its id. What it leaves empty (model, feeder, rack, nameplates, credentials, outlet, web
port, a dialect of ``auto``, a position of 0 without a rack) stays as it was. A new id at the address or place of a
miner that is not told of takes over that place: the same place under another name, never the other miner's nameplate.

Invariants: nobody leaves the inventory unless that is asked for; the rows after it would be read back without
complaint.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Final

from sitelink.inventory import MinerEntry
from sitelink.miners import AUTO, WEB_PORT
from sitelink.outlet_source import BadOutlet, parse_outlet

_ADDRESS: Final = ("host", "port", "web_port")


class What(StrEnum):
    """What happens to a miner, or happened."""

    ADDED = "added"
    MOVED = "moved"
    CHANGED = "changed"
    RENAMED = "renamed"
    REMOVED = "removed"
    SWAPPED = "swapped"
    RMA_OUT = "rma out"
    RMA_BACK = "rma back"
    FOUND = "found elsewhere"
    UNDONE = "not done after all"


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one miner; ``was`` or ``now`` is None when it comes or goes."""

    what: What
    was: MinerEntry | None
    now: MinerEntry | None

    @property
    def entry(self) -> MinerEntry:
        """Return the miner's row after the change, or the last one it had."""
        found = self.now or self.was
        assert found is not None
        return found

    @property
    def detail(self) -> str:
        """Return in words which fields change."""
        was, now = self.was, self.now
        if was is None or now is None:
            return f"at {self.entry.host}:{self.entry.port}"
        return ", ".join(
            f"{each.name} {_shown(getattr(was, each.name))} -> {_shown(getattr(now, each.name))}"
            for each in fields(MinerEntry)
            if getattr(was, each.name) != getattr(now, each.name)
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What importing would come to. With ``complaints`` it must not be done."""

    changes: tuple[Change, ...]
    result: tuple[MinerEntry, ...]
    complaints: tuple[str, ...]


def merge(
    present: Sequence[MinerEntry], told: Sequence[MinerEntry], *, remove: bool, web_ports: Collection[str] = ()
) -> Outcome:
    """Return what taking the rows ``told`` into ``present`` comes to; ``remove`` drops the miners not told of.

    ``web_ports`` are the ids of those whose row writes a web port; another's usual one says nothing.
    """
    rest = {entry.miner_id.lower(): entry for entry in told}
    known = {entry.miner_id.lower() for entry in present}
    heirs = _heirs([entry for entry in present if entry.miner_id.lower() not in rest], rest, known)
    changes: list[Change] = []
    result: list[MinerEntry] = []
    for entry in present:
        now = rest.pop(entry.miner_id.lower(), None)
        heir = heirs.get(entry.miner_id)
        if now is not None:
            result.append(filled(now, entry, web_port_told=now.miner_id in web_ports))
            changes += _change(entry, result[-1])
        elif heir is not None:
            result.append(in_place_of(rest.pop(heir), entry))
            changes.append(Change(What.RENAMED, entry, result[-1]))
        elif remove:
            changes.append(Change(What.REMOVED, entry, None))
        else:
            result.append(entry)
    result += rest.values()
    changes += [Change(What.ADDED, None, entry) for entry in rest.values()]
    told_of = {entry.miner_id.lower() for entry in told}
    return Outcome(tuple(changes), tuple(result), tuple(collisions(result, told_of)))


def filled(told: MinerEntry, was: MinerEntry, *, web_port_told: bool) -> MinerEntry:
    """Return the told row of a known miner; what it leaves empty stays as it was."""
    placed = _placed(told, was)
    return replace(
        placed,
        miner_id=was.miner_id,
        dialect=was.dialect if told.dialect == AUTO else told.dialect,
        model=told.model or was.model,
        nameplate_w=was.nameplate_w if told.nameplate_w is None else told.nameplate_w,
        nameplate_ths=was.nameplate_ths if told.nameplate_ths is None else told.nameplate_ths,
        web_port=was.web_port if told.web_port == WEB_PORT and not web_port_told else told.web_port,
    )


def in_place_of(told: MinerEntry, was: MinerEntry) -> MinerEntry:
    """Return the row of another miner at the same place: the place's facts stay, the former miner's own do not."""
    return _placed(told, was)


def collisions(rows: Iterable[MinerEntry], told_of: Iterable[str] = ()) -> list[str]:
    """Return what keeps the rows from being one inventory; ``told_of`` are the ids that somebody just wrote."""
    complaints: list[str] = []
    fresh = set(told_of)
    for name, of in (("address", _address), ("place", _place), ("outlet", _switch)):
        holders: dict[str, MinerEntry] = {}
        for entry in rows:
            key = of(entry)
            other = holders.setdefault(key, entry)
            if key and other is not entry:
                mover, holder = (entry, other) if entry.miner_id.lower() in fresh else (other, entry)
                complaints.append(
                    f"{mover.miner_id}: {name}: {key} is {holder.miner_id}'s; move or remove that one too, "
                    "or put one in the other's place: ballast-agent inventory swap"
                )
    return complaints


def _heirs(silent: Sequence[MinerEntry], told: Mapping[str, MinerEntry], known: set[str]) -> dict[str, str]:
    """Return, for each miner not told of whose address or place a new id takes, that id; the address counts first."""
    fresh = {name: entry for name, entry in told.items() if name not in known}
    found: dict[str, str] = {}
    for of in (_address, _place):
        places = {of(entry): name for name, entry in fresh.items() if of(entry) and name not in found.values()}
        for entry in silent:
            heir = places.get(of(entry))
            if heir is not None and entry.miner_id not in found:
                found[entry.miner_id] = heir
    return found


def _placed(told: MinerEntry, was: MinerEntry) -> MinerEntry:
    return replace(
        told,
        feeder_id=told.feeder_id or was.feeder_id,
        rack=told.rack or was.rack,
        position=told.position if told.rack or told.position else was.position,
        credentials=told.credentials or was.credentials,
        outlet=told.outlet or was.outlet,
    )


def _change(was: MinerEntry, now: MinerEntry) -> list[Change]:
    if was == now:
        return []
    moved = any(getattr(was, name) != getattr(now, name) for name in _ADDRESS)
    return [Change(What.MOVED if moved else What.CHANGED, was, now)]


def _address(entry: MinerEntry) -> str:
    return f"{entry.host.lower()}:{entry.port}"


def _place(entry: MinerEntry) -> str:
    return f"{entry.rack} {entry.position}" if entry.rack else ""


def _switch(entry: MinerEntry) -> str:
    try:
        return parse_outlet(entry.outlet).switch if entry.outlet else ""
    except BadOutlet:
        return ""  # the list that it is written into tells what is wrong


def _shown(value: object) -> str:
    return "nothing" if value in (None, "") else str(value)
