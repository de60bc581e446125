"""Who is read when. Pure: the caller brings the time and sleeps.

Invariants: each name comes up once an interval on its own fixed grid, spread over the interval by its name, so that
neither a restart nor a slow round lets everything fall due at once; slots that were missed are skipped, not caught up.
The ends of an interval stay free for the jitter and for the reading itself, so that each interval holds one reading.

    interval   |......................|......................|
    miner a       x                      x
    miner b              x                      x              (failing: every second, third ... fifth slot)
"""

import heapq
import math
import random
import zlib
from collections.abc import Iterable
from typing import Final

_JITTER_SHARE: Final = 0.02


class Rota:
    """The next due time of each name, in monotonic seconds."""

    def __init__(self, names: Iterable[str], interval_s: float, rng: random.Random, start_mono: float) -> None:
        self._interval_s = interval_s
        self._rng = rng
        self._start_mono = start_mono
        self._heap = [(start_mono + self._phase_s(name), name) for name in names]
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._heap)

    def due(self) -> float:
        """Return when the next name is due; infinity when there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def pop(self) -> str:
        """Take the next name off the rota; it comes back by ``put_back``."""
        return heapq.heappop(self._heap)[1]

    def put_back(self, name: str, now_mono: float, slots: int = 1) -> None:
        """Put ``name`` into its ``slots``-th slot after ``now_mono``, with a little jitter."""
        first_mono = self._start_mono + self._phase_s(name)
        passed = math.floor((now_mono - first_mono) / self._interval_s + _JITTER_SHARE)
        jitter_s = self._interval_s * _JITTER_SHARE * self._rng.random()
        heapq.heappush(self._heap, (first_mono + (passed + slots) * self._interval_s - jitter_s, name))

    def _phase_s(self, name: str) -> float:
        share = zlib.crc32(name.encode()) / 2**32
        return (_JITTER_SHARE + (1 - 2 * _JITTER_SHARE) * share) * self._interval_s
