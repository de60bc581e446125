"""How old the power that a device shows may be, by how it changes from look to look. Pure.

    look      1      2      3      4      5
    shows   3075   3075   3071   3071   3066 W     new at 3 and at 5: what 5 shows was measured after look 2 began

Invariants: a figure may be read by one part of a firmware and passed on by another, each in its own time, so a new one
is only known to have been measured after the one before it was passed on; it may be a mean over minutes, which hides a
fall for as long as the share of it that it shows; one that never changes may be as old as any (``TRAILS_S``). The hash
rate vouches for nothing: it wavers by more than a mean over a minute shows of a fall.
"""

from collections import deque
from typing import Final

from agent.local_curtail.claims import TRAILS_S

_RENEWALS: Final = 2
"""So often a figure must have changed before it is known how old the last one is."""


_LONGEST_MEAN_S: Final = 300.0
_WAVERS_SHARE: Final = 0.002
"""By how much a steady miner's power may be less than what it was first read as."""


class FigureAge:
    """One device's power, look after look."""

    def __init__(self) -> None:
        self._level_w: float | None = None
        self._last: tuple[float, float] | None = None
        self._renewed_s: deque[float] = deque(maxlen=_RENEWALS)

    def shown(self, began_s: float, power_w: float | None) -> float:
        """Take note of what a look begun at ``began_s`` showed; return by how many seconds that may trail at most."""
        if power_w is None:
            self._last = None
            self._renewed_s.clear()
            return TRAILS_S
        if self._last is not None and power_w != self._last[1]:
            self._renewed_s.append(self._last[0])
        self._last = (began_s, power_w)
        self._level_w = self._level_w or power_w
        if len(self._renewed_s) < _RENEWALS or self._level_w <= 0.0:
            return TRAILS_S
        hidden = max(0.0, 1.0 - power_w / self._level_w) + _WAVERS_SHARE
        return min(TRAILS_S, began_s - self._renewed_s[0] + hidden * _LONGEST_MEAN_S)
