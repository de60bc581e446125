"""By how much those that run beside a round have come to draw less, or more, since it opened, in watts.

Invariants: many small falls count as one of their sum; a neighbour without a power figure is told by its hash rate. How
old a neighbour's figures may be is told as a member's is (``figure_age``), but for one that does not show it: nobody
has told it to stop, and it is taken to be as late as most firmware.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agent.local_curtail.claims import OLDEST_S, TRAILS_S
from agent.local_curtail.figure_age import FigureAge
from agent.local_curtail.ports import Observed
from sitelink.units import Watts

_RATE_WAVERS_SHARE: Final = 0.2
"""By so much a hash rate that is counted over seconds wavers by itself."""


class Drift(NamedTuple):
    """Watts that neighbours draw less and more since the round opened; by how many seconds that may trail at most.

    ``runs_w`` is what those draw that run, by their own word, and no more than their load.
    """

    fell_w: float = 0.0
    rose_w: float = 0.0
    trails_s: float = 0.0
    runs_w: float = 0.0


@dataclass(slots=True)
class _Track:
    power_w: float | None
    rate_ths: float | None
    load_w: float
    change_w: float = 0.0
    runs_w: float = 0.0
    looked_s: float = 0.0
    trails_s: float = TRAILS_S
    age: FigureAge = field(default_factory=FigureAge)


class Drifts:
    """The running neighbours of each round, look after look."""

    def __init__(self) -> None:
        self._tracks: dict[str, dict[str, _Track]] = {}

    def opens(self, feeder_id: str) -> None:
        """Begin anew on a feeder."""
        self._tracks[feeder_id] = {}

    def shown(self, feeder_id: str, name: str, seen: Observed, began_s: float, load_w: Watts) -> None:
        """Take note of what a look at a running neighbour of ``load_w`` has shown."""
        tracks = self._tracks.setdefault(feeder_id, {})
        track = tracks.setdefault(name, _Track(seen.power_w, seen.hashrate_ths, float(load_w)))
        track.change_w = _change_w(track, seen)
        track.runs_w, track.looked_s = min(seen.power_w or 0.0, track.load_w), began_s
        age_s = track.age.shown(began_s, seen.power_w)
        track.trails_s = TRAILS_S if age_s >= OLDEST_S else age_s

    def since(self, feeder_id: str, names: Collection[str], looked_s: float = -math.inf) -> Drift:
        """Return how ``names`` have drifted since the round opened; those run that were seen so at ``looked_s``."""
        known = self._tracks.get(feeder_id, {})
        tracks = [known[name] for name in names if name in known]
        return Drift(
            sum(max(0.0, -one.change_w) for one in tracks),
            sum(max(0.0, one.change_w) for one in tracks),
            max((one.trails_s for one in tracks), default=0.0),
            sum(one.runs_w for one in tracks if one.looked_s >= looked_s),
        )


def _change_w(track: _Track, seen: Observed) -> float:
    if seen.power_w is not None and track.power_w is not None:
        return seen.power_w - track.power_w
    if seen.hashrate_ths is None or not track.rate_ths:
        return 0.0
    share = seen.hashrate_ths / track.rate_ths - 1.0
    beyond = max(0.0, abs(share) - _RATE_WAVERS_SHARE)
    return track.load_w * (beyond if share > 0.0 else -beyond)
