"""How each miner reads now, and what stands against its word, as a technician is shown it. Pure.

No order was given, so nothing here is proven or not.

Invariant: a miner that answers and does not say whether it hashes is unknown, and counts as such.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.findings import filled_in
from agent.reasons import in_words, next_step
from sitelink.inventory import MinerEntry
from sitelink.types import MinerState
from sitelink.units import Watts, megawatts

_NAMED: Final = 8
_DISAGREES: Final = "feeder_disagrees"


@dataclass(frozen=True, slots=True)
class Sight:
    """How one miner reads; ``why`` is in words, empty where there is nothing to say. Unknown power is None."""

    entry: MinerEntry
    state: MinerState
    why: str = ""
    power_w: Watts | None = None


@dataclass(frozen=True, slots=True)
class Around:
    """What is known beside the looks: overrides in force and doubts, each as the daemon tells them.

    Both are plain documents (``StoredOverride.document``, ``local_curtail.doubts``). ``doubts`` is None where they
    cannot be known: nobody has been cleared then.
    """

    overrides: Sequence[Mapping[str, Any]] = ()
    doubts: Mapping[str, Any] | None = None

    def codes(self) -> dict[str, tuple[str, ...]]:
        """Return by miner the codes of what stands against it."""
        found = {} if self.doubts is None else self.doubts.get("miners", ())
        return {str(each["miner"]): tuple(str(code) for code in each["codes"]) for each in found}

    def feeders(self) -> Sequence[Mapping[str, Any]]:
        """Return the feeders that draw more than their miners own up to."""
        return () if self.doubts is None else self.doubts.get("feeders", ())


def show(sights: Sequence[Sight], around: Around, say: Callable[[str], None]) -> int:
    """Say the table of ``sights`` and what it comes to; return 1 when a miner's state is unknown, else 0."""
    codes = around.codes()
    width = max((len(sight.entry.miner_id) for sight in sights), default=5)
    say(f"{'miner':<{width}}  {'rack':<8} {'state':<8} {'power':>8}  note")
    for sight in sights:
        say(_line(sight, codes.get(sight.entry.miner_id, ()), width))
    counts = Counter(sight.state for sight in sights)
    sums = ", ".join(f"{counts[state]} {state.value}" for state in MinerState if counts[state])
    say(f"{len(sights)} {'miner' if len(sights) == 1 else 'miners'}: {sums or 'none'}")
    unknown = [sight.entry.miner_id for sight in sights if sight.state is MinerState.UNKNOWN]
    if unknown:
        say(f"unknown, so they may draw full power: {_some(unknown, ', marked above')}")
    for line in feeder_lines(around.feeders()):
        say(line)
    return 1 if unknown else 0


def document(sights: Sequence[Sight], around: Around) -> str:
    """Return the same as one JSON object on one line; unknown figures are null."""
    codes = around.codes()
    miners = [
        {
            "miner": sight.entry.miner_id,
            "rack": sight.entry.rack,
            "state": sight.state.value,
            "power_w": sight.power_w,
            "note": _note(sight, codes.get(sight.entry.miner_id, ())),
            "doubts": codes.get(sight.entry.miner_id, ()),
        }
        for sight in sights
    ]
    feeders = None if around.doubts is None else around.feeders()
    return json.dumps({"overrides": around.overrides, "miners": miners, "feeders": feeders})


def feeder_lines(feeders: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each feeder that disagrees by how much and who is open, and below them what to do."""
    lines = [f"feeder {feeder_words(feeder)}" for feeder in feeders]
    return [*lines, f"  -> {next_step(_DISAGREES)}"] if lines else []


def feeder_words(feeder: Mapping[str, Any]) -> str:
    """Return which feeder disagrees, by how much, since when, and who on it is open."""
    excess_mw = megawatts(Watts(float(feeder["excess_w"])))
    since = str(feeder["since"])[:16].replace("T", " ")
    open_names = [str(name) for name in feeder["open"]]
    return (
        f"{feeder['feeder']} draws {excess_mw:.4f} MW more than its miners own up to, since {since} UTC; "
        f"open: {_some(open_names) if open_names else 'none of those stopped'}"
    )


def _some(names: Sequence[str], where: str = "") -> str:
    more = f" and {len(names) - _NAMED} more{where}" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _note(sight: Sight, codes: Sequence[str]) -> str:
    words = [filled_in(in_words(code), sight.entry) for code in codes]
    return "; ".join(part for part in (*words, filled_in(sight.why, sight.entry)) if part)


def _line(sight: Sight, codes: Sequence[str], width: int) -> str:
    entry = sight.entry
    power = "unknown" if sight.power_w is None else f"{sight.power_w:.0f} W"
    note = _note(sight, codes)
    return f"{entry.miner_id:<{width}}  {entry.rack:<8} {sight.state.value:<8} {power:>8}  {note}".rstrip()
