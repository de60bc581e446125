"""How fast load may be switched. Pure.

Invariant: within any ``step_s`` seconds at most ``step_w`` of load is switched under one order and verb, and by all of
them together, in each direction, at most the site's limits, except that one miner larger than a whole step may always
go alone. What was switched is remembered by time and watts, so that a restarted agent rebuilds the same windows from
its journal.

    t0      t0+step_s   t0+2 step_s
    |##.....|##.........|#..          # one miner, at most step_w of them in any window
"""

import math
import zlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sitelink.types import Ramp, Verb
from sitelink.units import Watts

NO_RAMP: Final = Ramp(Watts(0), 0.0)
LIMIT_STEP_S: Final = 10.0
"""The time in which a site's limit lets one step of load be switched."""
MINUTE_S: Final = 60.0
NO_LIMIT: Final = Watts(0)


@dataclass(frozen=True, slots=True)
class Switched:
    """One miner's load switched at ``at_s`` (monotonic seconds)."""

    miner_id: str
    at_s: float
    load_w: Watts


@dataclass(frozen=True, slots=True)
class RampRules:
    """How a site carries out the ramps of its orders.

    Each step of a ramp is up to its ``jitter`` longer, by chance of the miner's name, so that sites do not step
    together. The next step waits until the one before is proven, by the feeder's meter where there is one, or until
    ``feedback_s`` have passed: what does not follow slows a ramp and never stops it. ``first_models`` cool others of
    their rack: started before them, which wait ``first_wait_s`` at the most, and stopped after them.
    """

    jitter_down: float = 0.0
    jitter_up: float = 0.0
    feedback_down_s: float = 0.0
    feedback_up_s: float = 0.0
    first_models: frozenset[str] = frozenset()
    first_wait_s: float = 0.0

    def jitter(self, verb: Verb) -> float:
        """Return the jitter of ramps down or up."""
        return self.jitter_down if verb is Verb.STOP else self.jitter_up

    def feedback_s(self, verb: Verb) -> float:
        """Return how long a step down or up may wait for the one before."""
        return self.feedback_down_s if verb is Verb.STOP else self.feedback_up_s

    def slowest_up(self, ramp: Ramp) -> Ramp:
        """Return ``ramp`` at the slowest that it may come to."""
        return Ramp(ramp.step_w, max(ramp.step_s * (1.0 + self.jitter_up), self.feedback_up_s)) if paced(ramp) else ramp


PLAIN_RAMPS: Final = RampRules()


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a site lets load be switched in one direction, all orders together; 0 means no limit.

    ``max_step_w`` in any ``LIMIT_STEP_S``, ``max_per_min_w`` in any minute.
    """

    max_step_w: Watts = NO_LIMIT
    max_per_min_w: Watts = NO_LIMIT

    @property
    def ramps(self) -> tuple[Ramp, ...]:
        """Return the limits there are, each as a ramp."""
        ramps = (Ramp(self.max_step_w, LIMIT_STEP_S), Ramp(self.max_per_min_w, MINUTE_S))
        return tuple(ramp for ramp in ramps if paced(ramp))

    def longest_s(self, ramp: Ramp, loads_w: Iterable[Watts]) -> float:
        """Return as ``longest_s`` of ``ramp`` held to this pace."""
        loads = tuple(loads_w)
        return max(longest_s(each, loads) for each in (capped(ramp, self.max_step_w), *self.ramps))

    def slowing(self, ramp: Ramp, loads_w: Iterable[Watts]) -> str:
        """Return the name of the limit that holds up ``loads_w`` the longest beyond their ``ramp``, "" when none does.

        The name is its key in the settings, a stable code.
        """
        loads = tuple(loads_w)
        own_s = longest_s(ramp, loads)
        held = {
            "max_step_w": longest_s(capped(ramp, self.max_step_w), loads),
            "max_mw_per_min": longest_s(Ramp(self.max_per_min_w, MINUTE_S), loads),
        }
        code, longest = max(held.items(), key=lambda item: item[1])
        return code if longest > own_s else ""


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

    def __init__(self, ramp: Ramp, switched: Iterable[Switched] = (), jitter: float = 0.0) -> None:
        self._ramp = ramp
        self._jitter = jitter
        self._window = deque(sorted(switched, key=lambda item: item.at_s))
        self._sum_w: float = sum(item.load_w for item in self._window)

    def fits(self, load_w: Watts, now_s: float) -> bool:
        """Return whether ``load_w`` may be switched now."""
        if not paced(self._ramp):
            return True
        while self._window and self._window[0].at_s <= now_s - self._held_s(self._window[0]):
            self._sum_w -= self._window.popleft().load_w
        if not self._window:
            self._sum_w = 0.0  # no rounding is carried on
        return not self._window or self._sum_w + load_w <= self._ramp.step_w

    def _held_s(self, item: Switched) -> float:
        chance = zlib.crc32(item.miner_id.encode()) / 2**32
        return self._ramp.step_s * (1.0 + self._jitter * chance)

    def take(self, miner_id: str, load_w: Watts, now_s: float) -> None:
        """Count ``load_w`` as switched now."""
        if paced(self._ramp):
            self._window.append(Switched(miner_id, now_s, load_w))
            self._sum_w += load_w

    def refund(self, miner_id: str) -> None:
        """Give back what ``miner_id`` took last: nothing was switched, so it holds nobody up."""
        for place in range(len(self._window) - 1, -1, -1):
            if self._window[place].miner_id == miner_id:
                self._sum_w -= self._window[place].load_w
                del self._window[place]
                return


class SitePace:
    """The windows of a whole site: whatever switches load, counts here; each direction by itself."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._pacers = {verb: tuple(map(Pacer, pace.ramps)) for verb in (Verb.STOP, Verb.START)}

    def remember(self, verb: Verb, switched: Iterable[Switched]) -> None:
        """Begin with what an earlier process ``switched``."""
        items = tuple(switched)
        self._pacers[verb] = tuple(Pacer(ramp, items) for ramp in self._pace.ramps)

    def fits(self, verb: Verb, load_w: Watts, now_s: float) -> bool:
        """Return whether ``load_w`` may be switched now."""
        return all(pacer.fits(load_w, now_s) for pacer in self._pacers[verb])

    def take(self, verb: Verb, miner_id: str, load_w: Watts, now_s: float) -> None:
        """Count ``load_w`` as switched now."""
        for pacer in self._pacers[verb]:
            pacer.take(miner_id, load_w, now_s)

    def refund(self, verb: Verb, miner_id: str) -> None:
        """Give back what ``miner_id`` took last: nothing was switched."""
        for pacer in self._pacers[verb]:
            pacer.refund(miner_id)
