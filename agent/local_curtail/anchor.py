"""The last signed time of this boot, and what time it makes it. No keys, no cryptography: the failsafe reads it, too.

SYNCED     the cloud answered within ten minutes        HELD       same boot as the anchor, however long ago
UNTRUSTED  no anchor of this boot: the wall clock, which nobody vouches for
"""

import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agent.local_curtail.moments import microseconds, moment_of
from sitelink.clock import Clock
from sitelink.types import ClockTrust

_SYNCED_S: Final = 600.0
_DRIFT: Final = 1e-4
"""A plain quartz stays well within 100 microseconds a second."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """The cloud said ``cloud_time`` at ``mono_s`` of boot ``boot_id``, give or take ``uncertainty_s``."""

    boot_id: str
    mono_s: float
    cloud_time: datetime
    uncertainty_s: float
    heard_mono_s: float

    def bound_s(self, mono_s: float) -> float:
        """Return the largest error at ``mono_s``."""
        return self.uncertainty_s + _DRIFT * max(0.0, mono_s - self.mono_s)

    def holds(self, clock: Clock) -> bool:
        """Return whether it is of the present boot."""
        return self.boot_id == clock.boot_id() and self.mono_s <= clock.monotonic()


def held_time(anchor: Anchor | None, clock: Clock) -> tuple[datetime, ClockTrust]:
    """Return the time in UTC and its trust, from ``anchor`` of this boot; None when there is none."""
    if anchor is None:
        return clock.now(), ClockTrust.UNTRUSTED
    mono_s = clock.monotonic()
    moment = anchor.cloud_time + timedelta(seconds=mono_s - anchor.mono_s)
    fresh = mono_s - anchor.heard_mono_s <= _SYNCED_S
    return moment, ClockTrust.SYNCED if fresh else ClockTrust.HELD


class StoredTime:
    """The site's time as the file last had it: for a process that does not hear the cloud."""

    def __init__(self, anchor: Anchor | None, clock: Clock) -> None:
        self._anchor = anchor if anchor is not None and anchor.holds(clock) else None
        self._clock = clock

    def now(self) -> tuple[datetime, ClockTrust]:
        """Return the time in UTC and its trust."""
        return held_time(self._anchor, self._clock)


def stored_anchor(connection: sqlite3.Connection) -> Anchor | None:
    """Return the anchor kept, of whatever boot."""
    row = connection.execute(
        "SELECT boot_id, mono_s, cloud_time_us, uncertainty_s, heard_mono_s FROM curtail_clock"
    ).fetchone()
    return None if row is None else Anchor(row[0], row[1], moment_of(row[2]), row[3], row[4])


def store_anchor(connection: sqlite3.Connection, anchor: Anchor) -> None:
    """Keep ``anchor`` in place of the one before."""
    connection.execute(
        "INSERT OR REPLACE INTO curtail_clock (id, boot_id, mono_s, cloud_time_us, uncertainty_s, heard_mono_s)"
        " VALUES (1, ?, ?, ?, ?, ?)",
        (
            anchor.boot_id,
            anchor.mono_s,
            microseconds(anchor.cloud_time),
            anchor.uncertainty_s,
            anchor.heard_mono_s,
        ),
    )
