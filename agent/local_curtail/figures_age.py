"""How old what a device shows may be, by how its figures change from look to look. Pure.

    look      1      2      3      4      5
    shows   3075   3075   3071   3071   3066 W     new at 3 and at 5: what 5 shows was measured after look 2 began

Invariants: a figure may be read by one part of a firmware and passed on by another, each in its own time, so a new one
is only known to have been measured after the one before it was passed on; an average hides a fall for as long as the
share of it that it shows; a figure that never changes may be as old as any (``TRAILS_S``).
"""

from collections import deque
from typing import Final

from agent.local_curtail.claims import TRAILS_S

_RENEWALS: Final = 2
"""So often a figure must have changed before it is known how old the last one is."""


class FiguresAge:
    """The figures of one device, look after look. A miner that still hashes as ever still draws: either may tell."""

    def __init__(self) -> None:
        self._power, self._hashrate = _Figure(), _Figure()

    def shown(self, began_s: float, power_w: float | None, hashrate_ths: float | None) -> float:
        """Take note of what a look begun at ``began_s`` showed; return by how many seconds that may trail at most."""
        return min(TRAILS_S, self._power.shown(began_s, power_w), self._hashrate.shown(began_s, hashrate_ths))


class _Figure:
    def __init__(self) -> None:
        self._level: float | None = None
        self._last: tuple[float, float] | None = None
        self._renewed_s: deque[float] = deque(maxlen=_RENEWALS)

    def shown(self, began_s: float, value: float | None) -> float:
        """Take note of ``value``; return by how many seconds it may be older than the look."""
        if value is None:
            self._last = None
            self._renewed_s.clear()
            return TRAILS_S
        if self._last is not None and value != self._last[1]:
            self._renewed_s.append(self._last[0])
        self._last = (began_s, value)
        self._level = self._level or value
        if len(self._renewed_s) < _RENEWALS or self._level <= 0.0:
            return TRAILS_S
        return began_s - self._renewed_s[0] + max(0.0, 1.0 - value / self._level) * TRAILS_S
