"""Gathers readings and meter samples into batches.

Invariants: an item waits at most ``seal_s`` before it is sealed; a batch holds at most ``SEAL_ITEMS``; while the disk
takes nothing, a bounded number waits in memory, the newest are dropped, and the gap is sealed once it works again.
"""

import asyncio
import logging
from datetime import timedelta
from typing import Final

from agent.buffer import Buffer
from agent.errors import Transient
from sitelink.types import BatchBody, Gap, MeterSample, Reading

_LOG: Final = logging.getLogger(__name__)
SEAL_ITEMS: Final = 500
_PENDING_ITEMS: Final = 20_000
_RETRY_S: Final = 2.0
_MILLISECOND: Final = timedelta(milliseconds=1)


class Sealer:
    """Collects items from the pollers and appends them to the buffer."""

    def __init__(self, buffer: Buffer, seal_s: float) -> None:
        self._buffer = buffer
        self._seal_s = seal_s
        self._pending: list[Reading | MeterSample] = []
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        self._dropped: Gap | None = None
        self._failing = False

    def add(self, item: Reading | MeterSample) -> None:
        """Take one item; never waits."""
        if len(self._pending) >= _PENDING_ITEMS:
            self._drop(item)
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

    def _drop(self, item: Reading | MeterSample) -> None:
        gap = self._dropped
        if gap is None:
            self._dropped = Gap(item.read_at, item.read_at + _MILLISECOND, 0, 1)
            return
        since, until = min(gap.since, item.read_at), max(gap.until, item.read_at + _MILLISECOND)
        self._dropped = Gap(since, until, 0, gap.items + 1)

    async def _tell_gap(self) -> None:
        gap, self._dropped = self._dropped, None
        if gap is None:
            return
        _LOG.error("buffer: %d items were dropped because the disk took nothing", gap.items)
        try:
            await self._buffer.append(BatchBody(gaps=(gap,)))
        except Transient:
            self._dropped = _joined(gap, self._dropped)
            raise


def _joined(one: Gap, other: Gap | None) -> Gap:
    if other is None:
        return one
    return Gap(min(one.since, other.since), max(one.until, other.until), 0, one.items + other.items)


def _body(items: list[Reading | MeterSample]) -> BatchBody:
    return BatchBody(
        readings=tuple(item for item in items if isinstance(item, Reading)),
        meters=tuple(item for item in items if isinstance(item, MeterSample)),
    )
