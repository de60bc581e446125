"""How each miner reads now, as a technician is shown it: no order was given, so nothing here is proven or not. Pure.

Invariant: a miner that answers and does not say whether it hashes is unknown, and counts as such.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from agent.findings import filled_in
from sitelink.inventory import MinerEntry
from sitelink.types import MinerState
from sitelink.units import Watts

_NAMED: Final = 8


@dataclass(frozen=True, slots=True)
class Sight:
    """How one miner reads; ``why`` is in words, empty where there is nothing to say. Unknown power is None."""

    entry: MinerEntry
    state: MinerState
    why: str = ""
    power_w: Watts | None = None


def show(sights: Sequence[Sight], say: Callable[[str], None]) -> int:
    """Say the table of ``sights`` and what it comes to; return 1 when a miner's state is unknown, else 0."""
    width = max((len(sight.entry.miner_id) for sight in sights), default=5)
    say(f"{'miner':<{width}}  {'rack':<8} {'state':<8} {'power':>8}  note")
    for sight in sights:
        say(_line(sight, width))
    counts = Counter(sight.state for sight in sights)
    sums = ", ".join(f"{counts[state]} {state.value}" for state in MinerState if counts[state])
    say(f"{len(sights)} {'miner' if len(sights) == 1 else 'miners'}: {sums or 'none'}")
    unknown = [sight.entry.miner_id for sight in sights if sight.state is MinerState.UNKNOWN]
    if unknown:
        more = f" and {len(unknown) - _NAMED} more, marked above" if len(unknown) > _NAMED else ""
        say(f"unknown, so they may draw full power: {', '.join(unknown[:_NAMED])}{more}")
    return 1 if unknown else 0


def _line(sight: Sight, width: int) -> str:
    entry = sight.entry
    power = "unknown" if sight.power_w is None else f"{sight.power_w:.0f} W"
    why = filled_in(sight.why, entry)
    return f"{entry.miner_id:<{width}}  {entry.rack:<8} {sight.state.value:<8} {power:>8}  {why}".rstrip()
