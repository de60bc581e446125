"""How old the figures that a device shows may be, by how they change from look to look. Pure.

    look      1      2      3      4      5
    shows   3075   3075   3071   3071   3066 W     new at 3 and at 5: what 5 shows was measured after look 2 began

Invariants: a figure may be read by one part of a firmware and passed on by another, each in its own time, so a new one
is only known to have been measured after the one before it was passed on; it may be a mean over minutes, which hides a
fall for as long as the share of it that it shows. A hash rate is measured over seconds only while it wavers: means over
minutes do not. Figures that do not change may be as old as any firmware's (``OLDEST_S``).
"""

from collections import deque
from typing import Final

from agent.local_curtail.claims import OLDEST_S

_RENEWALS: Final = 2
"""So often a figure must have changed before it is known how old the last one is."""
_LONGEST_MEAN_S: Final = 300.0
_POWER_WAVERS_SHARE: Final = 0.002
"""By how much a steady miner's power may be less than what it was first read as."""
_RATE_WAVERS_SHARE: Final = 0.02
"""The same of its hash rate."""
_RATE_MOVES_SHARE: Final = 0.004
"""A hash rate measured over seconds moves by more than this from look to look."""


class _Figure:
    """One figure of a device, look after look."""

    def __init__(self, wavers_share: float, moves_share: float) -> None:
        self._wavers_share = wavers_share
        self._moves_share = moves_share
        self._level: float | None = None
        self._last: tuple[float, float] | None = None
        self._renewed_s: deque[float] = deque(maxlen=_RENEWALS)

    def shown(self, began_s: float, value: float | None) -> float | None:
        """Take note of a look begun at ``began_s``; return how old it may be, None where it does not show that."""
        if value is None:
            self._last = None
            self._renewed_s.clear()
            return None
        if self._last is not None and abs(value - self._last[1]) > self._moves_share * (self._level or 0.0):
            self._renewed_s.append(self._last[0])
        self._last = (began_s, value)
        self._level = self._level or value
        if len(self._renewed_s) < _RENEWALS or self._level <= 0.0:
            return None
        hidden = max(0.0, 1.0 - value / self._level) + self._wavers_share
        return began_s - self._renewed_s[0] + hidden * _LONGEST_MEAN_S


class FigureAge:
    """One device's power and hash rate, look after look."""

    def __init__(self) -> None:
        self._power = _Figure(_POWER_WAVERS_SHARE, 0.0)
        self._rate = _Figure(_RATE_WAVERS_SHARE, _RATE_MOVES_SHARE)

    def shown(self, began_s: float, power_w: float | None, rate_ths: float | None) -> float:
        """Return by how many seconds what a look begun at ``began_s`` showed may trail the device at most."""
        ages_s = (self._power.shown(began_s, power_w), self._rate.shown(began_s, rate_ths))
        return min((age_s for age_s in ages_s if age_s is not None), default=OLDEST_S)
