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
from dataclasses import replace
from datetime import datetime
from typing import Final

from agent.errors import Transient
from agent.local_curtail.anchor import Anchor, held_time, store_anchor, stored_anchor
from agent.storage import Writer
from sitelink.clock import Clock
from sitelink.orders import MalformedOrder, read_time
from sitelink.signing import BadSignature, KeyRing
from sitelink.types import ClockTrust, Domain, Envelope

_LOG: Final = logging.getLogger(__name__)
_WORST_ROUND_TRIP_S: Final = 30.0
_STORE_EVERY_S: Final = 10.0
"""A fresher anchor is only slightly better; storing each one would cost a disk write a heartbeat."""


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
        anchor = await self._writer.run(stored_anchor)
        if anchor is not None and anchor.holds(self._clock):
            self._anchor = anchor
            self._stored_mono_s = anchor.heard_mono_s

    def now(self) -> tuple[datetime, ClockTrust]:
        """Return the time in UTC and its trust."""
        return held_time(self._anchor, self._clock)

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
                await self._writer.run(lambda connection: store_anchor(connection, anchor))
            except Transient as error:
                _LOG.debug("signed time not stored, the next one is: %s", error)
                return  # this process knows the time all the same
            self._stored_mono_s = anchor.heard_mono_s
