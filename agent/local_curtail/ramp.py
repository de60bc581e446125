"""How fast load may be switched. Pure.

Invariant: within any ``step_s`` seconds at most ``step_w`` of load is switched under one order and verb, and by all of
them together at most the site's limit, except that one miner larger than a whole step may always go alone. What was
switched is remembered by time and watts, so that a restarted agent rebuilds the same windows from its journal.

    t0      t0+step_s   t0+2 step_s
    |##.....|##.........|#..          # one miner, at most step_w of them in any window
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sitelink.types import Ramp
from sitelink.units import Watts

NO_RAMP: Final = Ramp(Watts(0), 0.0)
LIMIT_STEP_S: Final = 10.0
"""The time in which a site's limit lets one step of load be switched."""


@dataclass(frozen=True, slots=True)
class Switched:
    """One miner's load switched at ``at_s`` (monotonic seconds)."""

    miner_id: str
    at_s: float
    load_w: Watts


def capped(ramp: Ramp, max_step_w: Watts) -> Ramp:
    """Return ``ramp`` held to the site's ``max_step_w`` in ``LIMIT_STEP_S`` (0: no limit): no larger and no faster."""
    if max_step_w <= 0:
        return ramp
    if not paced(ramp):
        return Ramp(max_step_w, LIMIT_STEP_S)
    step_w = Watts(min(ramp.step_w, max_step_w))
    return Ramp(step_w, max(ramp.step_s, LIMIT_STEP_S * step_w / max_step_w))


def longest_s(ramp: Ramp, loads_w: Iterable[Watts]) -> float:
    """Return the seconds after which the last of ``loads_w`` has been switched at the latest."""
    loads = tuple(loads_w)
    if not paced(ramp) or not loads:
        return 0.0
    a_step = max(1, math.floor(ramp.step_w / max(loads)))
    return (math.ceil(len(loads) / a_step) - 1) * ramp.step_s


def paced(ramp: Ramp) -> bool:
    """Return whether ``ramp`` limits anything."""
    return ramp.step_w > 0 and ramp.step_s > 0


class Pacer:
    """The window of one order and verb, or of the whole site and one verb."""

    def __init__(self, ramp: Ramp, switched: Iterable[Switched] = ()) -> None:
        self._ramp = ramp
        self._window = deque(sorted(switched, key=lambda item: item.at_s))

    def fits(self, load_w: Watts, now_s: float) -> bool:
        """Return whether ``load_w`` may be switched now."""
        if not paced(self._ramp):
            return True
        while self._window and self._window[0].at_s <= now_s - self._ramp.step_s:
            self._window.popleft()
        return not self._window or sum(item.load_w for item in self._window) + load_w <= self._ramp.step_w

    def take(self, miner_id: str, load_w: Watts, now_s: float) -> None:
        """Count ``load_w`` as switched now."""
        if paced(self._ramp):
            self._window.append(Switched(miner_id, now_s, load_w))

    def refund(self, miner_id: str) -> None:
        """Give back what ``miner_id`` took: nothing was switched, so it holds nobody up."""
        self._window = deque(item for item in self._window if item.miner_id != miner_id)
