"""Orders to miners go before polling: a burst of stops finds the event loop and the network free.

Invariant: polling stands back only while orders are being sent, and at most ``LONGEST_S`` from a burst's beginning, so
that a curtailment of hours leaves no site unread.

    orders   ----XXXXXXXX------------XX-----
    polling  xxxx........xxxxxxxxxxxx..xxxxx
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sitelink.clock import Clock

LONGEST_S: Final = 6.0
_ONE_BURST_S: Final = 1.0
"""What follows so soon belongs to the same burst."""


class Precedence:
    """Known to those who send orders and to those who poll."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._under_way = 0
        self._began_mono = self._ended_mono = float("-inf")
        self._clear = asyncio.Event()
        self._clear.set()

    @contextmanager
    def order(self) -> Iterator[None]:
        """Stand before polling while the block runs."""
        now_mono = self._clock.monotonic()
        if not self._under_way and now_mono - self._ended_mono > _ONE_BURST_S:
            self._began_mono = now_mono
        self._under_way += 1
        self._clear.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            self._ended_mono = self._clock.monotonic()
            if not self._under_way:
                self._clear.set()

    async def give_way(self) -> None:
        """Return once no order is being sent, or when the burst under way has had its time."""
        while self._under_way:
            left_s = self._began_mono + LONGEST_S - self._clock.monotonic()
            if left_s <= 0:
                return
            try:
                async with asyncio.timeout(left_s):
                    await self._clear.wait()
            except TimeoutError:
                return
