"""A site's time: simulated seconds, which may run faster than the clock, and the air's temperature by the hour.

Invariant: the injected clock is the only one; its wall clock is used for ``When`` and the hour alone.
"""

from datetime import datetime, timedelta

from simulator.physics import ambient_c
from sitelink.clock import Clock

_LOCAL_OFFSET_H = -6


class SiteTime:
    """Simulated seconds since the site opened, from the injected clock, ``scale`` simulated seconds a real one."""

    def __init__(self, clock: Clock, scale: float = 1.0) -> None:
        self.clock = clock
        self.scale = scale
        self.opened_at = clock.now()
        self._opened_s = clock.monotonic()

    def seconds(self) -> float:
        """Return simulated seconds since the site opened."""
        return (self.clock.monotonic() - self._opened_s) * self.scale

    def now(self) -> datetime:
        """Return the wall clock, aware UTC."""
        return self.clock.now()

    def ambient_c(self) -> float:
        """Return the air temperature on site now, from the wall clock's hour."""
        now = self.now() + timedelta(hours=_LOCAL_OFFSET_H)
        return ambient_c(now.hour + now.minute / 60)
