"""Since when each miner does what it does, as far as polls and looks tell.

Invariant: a miner rests in what it does once nobody has seen it do anything else for longer than any feeder's meter is
late: only then the meter shows it so.
"""

from collections.abc import Callable, Collection
from enum import Enum, auto
from typing import Final

from agent.local_curtail.attribution import SLOWEST_METER_S
from sitelink.clock import Clock
from sitelink.types import MinerState, Reading, Reason

SCAN_S: Final = 2.0
GONE: Final = frozenset({Reason.UNREACHABLE, Reason.TIMEOUT})
"""Reasons of a reading of a miner that does not answer."""


class Doing(Enum):
    """What a miner does."""

    RUNS = auto()
    IDLES = auto()
    SILENT = auto()


class Resting:
    """What each miner was last seen doing, and since when without a break."""

    def __init__(self, latest: Callable[[str], Reading | None], clock: Clock) -> None:
        """``latest`` gives a miner's last polled reading."""
        self._latest = latest
        self._clock = clock
        self._known: dict[str, tuple[Doing, float]] = {}

    def scan(self, names: Collection[str]) -> None:
        """Take note of what the poller has last read of ``names``."""
        for name in names:
            polled = self.polled(name)
            if polled is not None:
                self.seen(name, polled)

    def seen(self, name: str, doing: Doing) -> None:
        """Take note of what a miner was seen doing just now."""
        known = self._known.get(name)
        if known is None or known[0] is not doing:
            self._known[name] = (doing, self._clock.monotonic())

    def rests(self, name: str, doing: Doing) -> bool:
        """Return whether the miner has done just this for longer than any meter is late."""
        known = self._known.get(name)
        return known is not None and known[0] is doing and self._clock.monotonic() - known[1] > SLOWEST_METER_S

    def polled(self, name: str) -> Doing | None:
        """Return what the poller has last read of a miner, None where that tells nothing."""
        reading = self._latest(name)
        if reading is None:
            return None
        if reading.reason in GONE:
            return Doing.SILENT
        if reading.state is MinerState.UNKNOWN:
            return None
        return Doing.RUNS if reading.state is MinerState.HASHING else Doing.IDLES
