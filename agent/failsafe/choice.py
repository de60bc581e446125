"""Which miners a technician means: all of them, racks, named ones, or so many MW. Pure.

    off --mw X   the least efficient first, whole miners, until at least X: less than one miner more than asked for
    on  --mw X   the most efficient first, whole miners, never more than X: what may not be drawn is not

Invariants: a miner that is never to be touched, cannot be switched, or whose state does not change by the order, is not
counted; figures are the device's own where it told them, else its nameplate's; a miner without any figure of its power
is left out and said; one whose efficiency nobody knows comes last. More than there is is refused: a slip of a digit
must not stop a site.
"""

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent.errors import BadInput
from sitelink.inventory import MinerEntry
from sitelink.miner_ids import canonical
from sitelink.types import MinerState, Verb
from sitelink.units import JoulesPerTeraHash, TeraHashPerSecond, Watts, efficiency_j_per_th, megawatts

_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Choice:
    """What was written: exactly one of ``everything``, ``racks``, ``miners`` and ``load_w``, or nothing at all."""

    everything: bool = False
    racks: tuple[str, ...] = ()
    miners: tuple[str, ...] = ()
    load_w: Watts | None = None

    def __bool__(self) -> bool:
        return self.everything or bool(self.racks or self.miners) or self.load_w is not None


@dataclass(frozen=True, slots=True)
class Figures:
    """What a miner last said of itself; unknown is None."""

    state: MinerState
    power_w: Watts | None = None
    hashrate_ths: TeraHashPerSecond | None = None


class Skip(StrEnum):
    """Why a miner was not to choose from."""

    FIXED = "never touched, or not switchable"
    SILENT = "not answering"
    NO_CHANGE = "already so, or of unknown state"
    UNKNOWN_POWER = "of unknown power"


@dataclass(frozen=True, slots=True)
class Picked:
    """The miners picked, what they come to, how many there were to choose from, and why each other was not."""

    entries: tuple[MinerEntry, ...]
    load_w: Watts
    candidates: int
    skipped: Mapping[str, Skip]

    def lines(self, verb: Verb, asked_w: Watts) -> list[str]:
        """Return what was chosen and what the MW asked for became."""
        order = "least" if verb is Verb.STOP else "most"
        names = ", ".join(entry.miner_id for entry in self.entries[:_NAMED])
        more = f" and {len(self.entries) - _NAMED} more" if len(self.entries) > _NAMED else ""
        asked = f"{megawatts(asked_w):.6g} MW asked for"
        became = f"{len(self.entries)} of {self.candidates} miners, {megawatts(self.load_w):.6g} MW"
        lines = [f"{asked}: {became}, the {order} efficient first: {names}{more}"]
        counts = Counter(self.skipped.values())
        if counts:
            lines.append("left out: " + ", ".join(f"{counts[why]} {why.value}" for why in Skip if counts[why]))
        return lines


def members(choice: Choice, fleet: tuple[MinerEntry, ...], inventory: str) -> tuple[MinerEntry, ...]:
    """Return the miners of ``fleet`` that ``choice`` names, all when it names none or a load.

    Raises:
        BadInput: a miner or rack named is not in ``inventory``.
    """
    if choice.miners:
        by_id = {entry.miner_id.lower(): entry for entry in fleet}
        names = [canonical(name) for name in _apart(choice.miners, by_id)]
        for name in names:
            if name.lower() not in by_id:
                raise BadInput(f"--miner: {name!r} is not in {inventory}; write one of its miner_id")
        return tuple(by_id[name] for name in dict.fromkeys(name.lower() for name in names))
    if choice.racks:
        known = sorted({entry.rack for entry in fleet if entry.rack})
        folded = {rack.lower() for rack in known}
        racks = _apart(choice.racks, folded)
        for rack in racks:
            if rack.lower() not in folded:
                raise BadInput(f"--rack: {rack!r} is not in {inventory}; its racks are {', '.join(known) or 'none'}")
        wanted = {rack.lower() for rack in racks}
        return tuple(entry for entry in fleet if entry.rack.lower() in wanted)
    return fleet


def _apart(written: Iterable[str], known: Container[str]) -> list[str]:
    """Return the names written, one or several in a text: ``A,B`` and ``A, B`` are two, unless one is called so."""
    names: list[str] = []
    for text in written:
        parts = [text] if text.lower() in known else [part.strip() for part in text.split(",")]
        names += [part for part in parts if part]
    return names


def pick(
    verb: Verb, asked_w: Watts, fleet: Iterable[MinerEntry], figures: Mapping[str, Figures], spared: Collection[str]
) -> Picked:
    """Return the miners whose stop sheds at least ``asked_w``, or whose start draws at most as much.

    ``spared`` are those that no order may or can touch.

    Raises:
        BadInput: there is not that much to stop, or too little to start a single miner.
    """
    wanted = MinerState.HASHING if verb is Verb.STOP else MinerState.IDLE
    ranked: list[tuple[float, str, MinerEntry, Watts]] = []
    skipped: dict[str, Skip] = {}
    for entry in fleet:
        seen = figures.get(entry.miner_id)
        if entry.miner_id in spared:
            skipped[entry.miner_id] = Skip.FIXED
            continue
        if seen is None or seen.state is not wanted:
            skipped[entry.miner_id] = Skip.SILENT if seen is None else Skip.NO_CHANGE
            continue
        load_w = seen.power_w if verb is Verb.STOP and seen.power_w else entry.nameplate_w
        if not load_w:
            skipped[entry.miner_id] = Skip.UNKNOWN_POWER
            continue
        ranked.append((_rank(verb, _efficiency(entry, seen)), entry.miner_id, entry, load_w))
    ranked.sort(key=lambda item: item[:2])
    loads = [(entry, load_w) for _, _, entry, load_w in ranked]
    chosen = _at_least(loads, asked_w) if verb is Verb.STOP else _at_most(loads, asked_w)
    total_w = Watts(sum(load_w for _, load_w in chosen))
    return Picked(tuple(entry for entry, _ in chosen), total_w, len(loads), skipped)


def _at_least(loads: list[tuple[MinerEntry, Watts]], asked_w: Watts) -> list[tuple[MinerEntry, Watts]]:
    there_w = Watts(sum(load_w for _, load_w in loads))
    if there_w < asked_w:
        raise BadInput(
            f"--mw: {megawatts(asked_w):g} MW is more than runs here and may be stopped; "
            f"write at most {megawatts(there_w):.6g}, or --all"
        )
    chosen: list[tuple[MinerEntry, Watts]] = []
    sum_w = 0.0
    for entry, load_w in loads:
        if sum_w >= asked_w:
            break
        chosen.append((entry, load_w))
        sum_w += load_w
    return chosen


def _at_most(loads: list[tuple[MinerEntry, Watts]], asked_w: Watts) -> list[tuple[MinerEntry, Watts]]:
    chosen: list[tuple[MinerEntry, Watts]] = []
    sum_w = 0.0
    for entry, load_w in loads:
        if sum_w + load_w <= asked_w:
            chosen.append((entry, load_w))
            sum_w += load_w
    if not chosen:
        least = min((load_w for _, load_w in loads), default=None)
        cause = "no miner is idle" if least is None else f"the smallest idle miner draws {least:.0f} W"
        raise BadInput(f"--mw: nothing to start within {megawatts(asked_w):g} MW: {cause}; write more, or name miners")
    return chosen


def _efficiency(entry: MinerEntry, seen: Figures) -> JoulesPerTeraHash | None:
    """Return J/TH: live while it hashes, else from the nameplate."""
    if seen.state is MinerState.HASHING and seen.power_w and seen.hashrate_ths:
        return efficiency_j_per_th(seen.power_w, seen.hashrate_ths)
    if entry.nameplate_w and entry.nameplate_ths:
        return efficiency_j_per_th(entry.nameplate_w, entry.nameplate_ths)
    return None


def _rank(verb: Verb, efficiency: JoulesPerTeraHash | None) -> float:
    if efficiency is None:
        return float("inf")
    return -efficiency if verb is Verb.STOP else efficiency
