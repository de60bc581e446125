"""Gathers readings and meter samples into batches.

Invariants: an item waits at most ``seal_s`` before it is sealed; a batch holds at most ``SEAL_ITEMS``; while the disk
takes nothing, a bounded number waits in memory, the newest are dropped, and the gap is told once it works again.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from agent.buffer import Buffer
from agent.errors import Transient
from sitelink.clock import Clock
from sitelink.types import BatchBody, MeterSample, Notice, NoticeCode, Reading

_LOG: Final = logging.getLogger(__name__)
SEAL_ITEMS: Final = 500
_PENDING_ITEMS: Final = 20_000
_RETRY_S: Final = 2.0


class Sealer:
    """Collects items from the pollers and appends them to the buffer."""

    def __init__(self, buffer: Buffer, clock: Clock, site_id: str, ids: Callable[[], str], seal_s: float) -> None:
        self._buffer = buffer
        self._clock = clock
        self._site_id = site_id
        self._ids = ids
        self._seal_s = seal_s
        self._pending: list[Reading | MeterSample] = []
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        self._dropped = 0
        self._failing = False

    def add(self, item: Reading | MeterSample) -> None:
        """Take one item; never waits."""
        if len(self._pending) >= _PENDING_ITEMS:
            self._dropped += 1
            return
        self._pending.append(item)
        self._some.set()
        if len(self._pending) >= SEAL_ITEMS:
            self._enough.set()

    async def run(self) -> None:
        """Seal until cancelled; call ``flush`` afterwards for what is left."""
        while True:
            await self._some.wait()
            await self._wait_for_more()
            try:
                await self.flush()
            except Transient as error:
                if not self._failing:
                    self._failing = True
                    _LOG.error("buffer: telemetry cannot be kept: %s", error)
                await asyncio.sleep(_RETRY_S)

    async def flush(self) -> None:
        """Seal everything gathered so far.

        Raises:
            Transient: the disk took nothing; the items are still held.
        """
        self._some.clear()
        self._enough.clear()
        while self._pending:
            part, self._pending = self._pending[:SEAL_ITEMS], self._pending[SEAL_ITEMS:]
            # Out of our hands before it is stored: if we are cancelled meanwhile, the writer still stores it, and
            # holding on to it would store it twice.
            try:
                await self._buffer.append(_body(part))
            except Transient:
                self._pending[:0] = part
                self._some.set()
                raise
        await self._tell_gap()
        if self._failing:
            self._failing = False
            _LOG.info("buffer: telemetry is kept again")

    async def _wait_for_more(self) -> None:
        try:
            async with asyncio.timeout(self._seal_s):
                await self._enough.wait()
        except TimeoutError:
            return

    async def _tell_gap(self) -> None:
        if not self._dropped:
            return
        dropped = self._dropped
        detail = f"{dropped} items were dropped because the disk took nothing"
        notice = Notice(self._ids(), self._clock.now(), NoticeCode.BUFFER_GAP, self._site_id, detail)
        await self._buffer.append(BatchBody(notices=(notice,)))
        self._dropped -= dropped


def _body(items: list[Reading | MeterSample]) -> BatchBody:
    return BatchBody(
        readings=tuple(item for item in items if isinstance(item, Reading)),
        meters=tuple(item for item in items if isinstance(item, MeterSample)),
    )
