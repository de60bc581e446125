"""A log is worth less than a stop: while a miner is to be switched, no transfer of its log holds it.

    log  --------------> broken off                      (BrokenOff; a new one is refused alike)
    stop, start    '---> the device is free --> sent

Invariants: only what is handed to ``run`` is broken off, never an upload of firmware; whoever switches goes on only
when the transfer has let go of the device.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from agent.errors import BrokenOff

_T = TypeVar("_T")


class GivingWay:
    """What of one miner's orders gives way to its stop and start."""

    def __init__(self, whose: Callable[[], object]) -> None:
        """``whose`` names the device in messages."""
        self._whose = whose
        self._scope: asyncio.Timeout | None = None
        self._over = asyncio.Event()
        self._switches = 0

    async def run(self, transfer: Callable[[], Awaitable[_T]]) -> _T:
        """Return what ``transfer`` returns; one at a time.

        Raises:
            BrokenOff: the miner is to be stopped or started.
        """
        if self._switches:
            raise self._broken_off()
        self._over.clear()
        try:
            async with asyncio.timeout(None) as self._scope:
                return await transfer()
        except TimeoutError:
            raise self._broken_off() from None
        finally:
            self._scope = None
            self._over.set()

    async def break_off(self) -> None:
        """End the transfer that is under way, if one is, and wait until it has let go of the device."""
        if self._scope is None:
            return
        if self._scope.when() is None:
            self._scope.reschedule(asyncio.get_running_loop().time())
        await self._over.wait()

    @asynccontextmanager
    async def switching(self) -> AsyncIterator[None]:
        """Hold the way clear: what is under way is broken off, and nothing that gives way begins."""
        self._switches += 1
        try:
            await self.break_off()
            yield
        finally:
            self._switches -= 1

    def _broken_off(self) -> BrokenOff:
        return BrokenOff(f"{self._whose()}: its log gave way to a stop or start of the miner; order the log again")
