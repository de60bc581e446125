"""Who stays on so that the site never draws less than its minimum load. Pure.

    sure load of those left on      |#########|            minimum
    kept on, last to be stopped first         |####|####|
                                                       -> these are not stopped: ``min_load``

Invariants: what is not surely drawn counts nothing (a liar, a miner that does not answer, one that tells no power); the
choice follows from the situation alone, and who is kept stays kept until the rest draws a margin more than needed;
where nothing is sure, nobody is stopped.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sitelink.units import Watts

MARGIN: Final = 0.05
"""By this share of the minimum must the rest draw more before a kept miner is let go: figures waver."""


@dataclass(frozen=True, slots=True)
class Loads:
    """What is known of the site's load.

    ``sure_w`` holds what each miner surely draws now, ``could_w`` what one that we stopped drew before; who is missing
    counts nothing. ``most_w`` is what each may draw at most, ``site_w`` the site's meter, None where there is none;
    ``gone`` are those off for so long that the meter shows them off.
    """

    sure_w: Mapping[str, Watts] = field(default_factory=dict)
    could_w: Mapping[str, Watts] = field(default_factory=dict)
    most_w: Mapping[str, Watts] = field(default_factory=dict)
    site_w: Watts | None = None
    gone: frozenset[str] = frozenset()


def kept_on(
    stops: Sequence[str],
    others: Collection[str],
    kept: Collection[str],
    off: Collection[str],
    loads: Loads,
    min_w: Watts,
) -> frozenset[str]:
    """Return those of ``stops`` that must stay on, or come back, for the site to draw ``min_w``.

    ``stops`` are in the order of stopping; ``others`` are left on anyway; ``kept`` stay on already, ``off`` are off by
    an order of ours. The site's meter counts where it tells more than the miners do: what it shows, less all that
    those still to be stopped may draw.
    """
    if min_w <= 0 or not stops:
        return frozenset()
    left_w = _without(stops, loads)
    sure_w = sum(loads.sure_w.get(miner, 0.0) for miner in others)
    staying: list[str] = []
    for miner in _ranked(stops, kept, off, loads):
        needed_w = min_w * (1.0 + MARGIN) if miner in kept else min_w
        if max(sure_w, left_w) >= needed_w:
            continue
        staying.append(miner)
        sure_w += loads.could_w.get(miner, 0.0) if miner in off else loads.sure_w.get(miner, 0.0)
        left_w += loads.could_w.get(miner, 0.0) if miner in loads.gone else loads.most_w.get(miner, 0.0)
    return frozenset(staying)


def _without(stops: Sequence[str], loads: Loads) -> float:
    """Return what the site's meter shows, less all that ``stops`` may draw that it still counts."""
    still = [miner for miner in stops if miner not in loads.gone]
    if loads.site_w is None or any(miner not in loads.most_w for miner in still):
        return -math.inf
    return loads.site_w - sum(loads.most_w[miner] for miner in still)


def _ranked(stops: Sequence[str], kept: Collection[str], off: Collection[str], loads: Loads) -> list[str]:
    """Return who is to stay on first: who does already, who surely draws, who runs; the last to be stopped first."""
    place = {miner: number for number, miner in enumerate(stops)}

    def rank(miner: str) -> tuple[bool, bool, bool, int]:
        draws = loads.could_w if miner in off else loads.sure_w
        return (miner not in kept, not draws.get(miner), miner in off, -place[miner])

    return sorted(stops, key=rank)
