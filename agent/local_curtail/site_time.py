"""What time it is at the site, and how far that may be trusted.

    heartbeat(nonce) --> cloud --> SignedTime(nonce, cloud_time) --> anchor: cloud_time at a monotonic instant, one boot
    now = anchor.cloud_time + (monotonic - anchor.mono)

    SYNCED     the cloud answered within ten minutes        HELD       same boot as the anchor, however long ago
    UNTRUSTED  no anchor of this boot: the wall clock, which nobody vouches for

Invariants: the wall clock is never read while an anchor of this boot exists, so stepping it changes nothing; the anchor
is durable, so a killed process holds the time as before; only an answer to a nonce of ours, signed by a time key for
this site, moves it (the forwarder hands over each nonce's answer once). The error is at most half the round trip plus
the drift since; an answer with a worse bound than the anchor's own does not replace it.
"""

import logging
import sqlite3
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from agent.errors import Transient
from agent.local_curtail.moments import microseconds, moment_of
from agent.storage import Writer
from sitelink.clock import Clock
from sitelink.orders import MalformedOrder, read_time
from sitelink.signing import BadSignature, KeyRing
from sitelink.types import ClockTrust, Domain, Envelope

_LOG: Final = logging.getLogger(__name__)
_SYNCED_S: Final = 600.0
_DRIFT: Final = 1e-4
"""A plain quartz stays well within 100 microseconds a second."""
_WORST_ROUND_TRIP_S: Final = 30.0
_STORE_EVERY_S: Final = 10.0
"""A fresher anchor is only slightly better; storing each one would cost a disk write a heartbeat."""


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


class SiteTime:
    """The site's time. ``learn`` is the forwarder's TimeSink."""

    def __init__(self, writer: Writer, clock: Clock, site_id: str, keys: KeyRing) -> None:
        self._writer = writer
        self._clock = clock
        self._site_id = site_id
        self._keys = keys
        self._anchor: Anchor | None = None
        self._stored_mono_s: float | None = None
        self._forged = False

    async def load(self) -> None:
        """Take up the anchor of an earlier process of this boot, if there is one."""
        anchor = await self._writer.run(_stored)
        if anchor is not None and anchor.boot_id == self._clock.boot_id() and anchor.mono_s <= self._clock.monotonic():
            self._anchor = anchor
            self._stored_mono_s = anchor.heard_mono_s

    def now(self) -> tuple[datetime, ClockTrust]:
        """Return the time in UTC and its trust."""
        anchor = self._anchor
        if anchor is None:
            return self._clock.now(), ClockTrust.UNTRUSTED
        mono_s = self._clock.monotonic()
        moment = anchor.cloud_time + timedelta(seconds=mono_s - anchor.mono_s)
        fresh = mono_s - anchor.heard_mono_s <= _SYNCED_S
        return moment, ClockTrust.SYNCED if fresh else ClockTrust.HELD

    async def learn(self, envelope: Envelope, sent_mono: float, received_mono: float) -> bool:
        """Take the answer to a heartbeat sent at ``sent_mono``; return whether the cloud has truly spoken."""
        try:
            signed = read_time(self._keys.open(envelope, Domain.TIME))
        except (BadSignature, MalformedOrder) as error:
            if not self._forged:
                _LOG.warning("signed time ignored: %s", error)
            self._forged = True
            return False
        if signed.site_id != self._site_id:
            return False
        self._forged = False
        round_trip_s = received_mono - sent_mono
        if not 0 <= round_trip_s <= _WORST_ROUND_TRIP_S:
            return True
        middle = sent_mono + round_trip_s / 2
        fresh = Anchor(self._clock.boot_id(), middle, signed.cloud_time, round_trip_s / 2, received_mono)
        held = self._anchor
        worse = held is not None and fresh.uncertainty_s > held.bound_s(received_mono)
        await self._take(replace(held, heard_mono_s=received_mono) if held is not None and worse else fresh)
        return True

    async def _take(self, anchor: Anchor) -> None:
        self._anchor = anchor
        due = self._stored_mono_s is None or anchor.heard_mono_s - self._stored_mono_s >= _STORE_EVERY_S
        if due:
            try:
                await self._writer.run(lambda connection: _store(connection, anchor))
            except Transient as error:
                _LOG.debug("signed time not stored, the next one is: %s", error)
                return  # this process knows the time all the same
            self._stored_mono_s = anchor.heard_mono_s


def _stored(connection: sqlite3.Connection) -> Anchor | None:
    row = connection.execute(
        "SELECT boot_id, mono_s, cloud_time_us, uncertainty_s, heard_mono_s FROM curtail_clock"
    ).fetchone()
    return None if row is None else Anchor(row[0], row[1], moment_of(row[2]), row[3], row[4])


def _store(connection: sqlite3.Connection, anchor: Anchor) -> None:
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
