"""How old the power that a device shows may be, by how it changes from look to look. Pure.

    look      1      2      3      4      5
    shows   3075   3075   3071   3071   3066 W     new at 3 and at 5: what 5 shows was measured after look 2 began

Invariants: a figure may be read by one part of a firmware and passed on by another, each in its own time, so a new one
is only known to have been measured after the one before it was passed on. It may be a mean over minutes, which hides a
fall for as long as the share of it that it shows; but no mean of one that has stopped rises: who rises ran when that
was measured. Power that tells nothing is ``OLDEST_S`` old. The hash rate vouches for nothing: it wavers by more than a
mean over a minute shows of a fall.
"""

from collections import deque
from typing import Final

from agent.local_curtail.claims import OLDEST_S

_RENEWALS: Final = 2
"""So often a figure must have changed before it is known how old the last one is."""
_LONGEST_MEAN_S: Final = 300.0
_WAVERS_SHARE: Final = 0.002
"""By how much a steady miner's power may be less than what it was first read as."""
_RISES_SHARE: Final = 0.0002
"""By how much of its first value a figure must be more than at the last look to count as risen."""


class FigureAge:
    """One device's power, look after look."""

    def __init__(self) -> None:
        self._level_w: float | None = None
        self._last: tuple[float, float] | None = None
        self._renewed_s: deque[float] = deque(maxlen=_RENEWALS)
        self._ran_s: float | None = None

    def shown(self, began_s: float, power_w: float | None) -> float:
        """Take note of what a look begun at ``began_s`` showed; return by how many seconds that may trail at most."""
        if power_w is None:
            self._last = self._ran_s = None
            self._renewed_s.clear()
            return OLDEST_S
        self._level_w = self._level_w or power_w
        if self._last is not None and power_w != self._last[1]:
            self._renewed_s.append(self._last[0])
            if self._measured_s is not None and power_w - self._last[1] > _RISES_SHARE * self._level_w:
                self._ran_s = self._measured_s
        self._last = (began_s, power_w)
        since_s = (self._ran_s, self._unhidden_s(power_w))
        return min((began_s - one for one in since_s if one is not None), default=OLDEST_S)

    @property
    def _measured_s(self) -> float | None:
        """Return since when what it shows was measured at the earliest, None while nobody knows."""
        return self._renewed_s[0] if len(self._renewed_s) == _RENEWALS else None

    def _unhidden_s(self, power_w: float) -> float | None:
        """Return until when it drew what it shows, were that a mean over minutes."""
        measured_s, level_w = self._measured_s, self._level_w
        if measured_s is None or not level_w:
            return None
        return measured_s - _LONGEST_MEAN_S * (max(0.0, 1.0 - power_w / level_w) + _WAVERS_SHARE)
