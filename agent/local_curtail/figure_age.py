"""How old the figures that a device shows may be, by how they change from look to look. Pure.

    look      1      2      3      4      5
    shows   3075   3075   3071   3071   3066 W     new at 3 and at 5: what 5 shows was measured after look 2 began

Invariants: a figure may be read by one part of a firmware and passed on by another, each in its own time, so a new one
is only known to have been measured after the one before it was passed on. It may be a mean over a minute, which hides a
fall for as long as the share of it that it shows; but no mean of one that has stopped rises, however it wavered before:
who rises ran when that was measured. A hash rate counts only when it rises. Figures that tell nothing are ``OLDEST_S``
old.
"""

from collections import deque
from typing import Final

from agent.local_curtail.claims import OLDEST_S

_RENEWALS: Final = 2
"""So often a figure must have changed before it is known how old the last one is."""
_WAVERS_SHARE: Final = 0.002
"""By how much a steady miner's power may be less than what it was first read as."""
_RISES_SHARE: Final = 0.0002
"""By how much of its first value a figure must be more than at the last look to count as risen."""


class _Figure:
    """One figure of a device, look after look."""

    def __init__(self) -> None:
        self.level: float | None = None
        self._last: tuple[float, float] | None = None
        self._renewed_s: deque[float] = deque(maxlen=_RENEWALS)
        self._ran_s: float | None = None

    def shown(self, began_s: float, value: float | None) -> None:
        """Take note of a look begun at ``began_s``."""
        if value is None:
            self._last = self._ran_s = None
            self._renewed_s.clear()
            return
        self.level = self.level or value
        if self._last is not None and value != self._last[1]:
            self._renewed_s.append(self._last[0])
            if self.measured_s is not None and value - self._last[1] > _RISES_SHARE * self.level:
                self._ran_s = self.measured_s
        self._last = (began_s, value)

    @property
    def measured_s(self) -> float | None:
        """Return since when what it shows was measured at the earliest, None while nobody knows."""
        return self._renewed_s[0] if len(self._renewed_s) == _RENEWALS else None

    @property
    def ran_s(self) -> float | None:
        """Return when its miner ran at the least, by the last rise."""
        return self._ran_s


class FigureAge:
    """One device's power and hash rate, look after look."""

    def __init__(self) -> None:
        self._power = _Figure()
        self._rate = _Figure()

    def shown(self, began_s: float, power_w: float | None, rate_ths: float | None) -> float:
        """Return by how many seconds what a look begun at ``began_s`` showed may trail the device at most."""
        self._power.shown(began_s, power_w)
        self._rate.shown(began_s, rate_ths)
        since_s = [self._power.ran_s, self._rate.ran_s, self._unhidden_s(power_w)]
        return min((began_s - one for one in since_s if one is not None), default=OLDEST_S)

    def _unhidden_s(self, power_w: float | None) -> float | None:
        """Return until when it drew what it shows, were that a mean over a minute."""
        measured_s, level_w = self._power.measured_s, self._power.level
        if measured_s is None or power_w is None or not level_w:
            return None
        return measured_s - OLDEST_S * (max(0.0, 1.0 - power_w / level_w) + _WAVERS_SHARE)
