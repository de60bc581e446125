"""Whose turn it is at a device: one holder at a time, in the order of asking, and nobody waits without end.

Invariants:

* Who has waited his limit gives up, having sent nothing; nobody waits at all for a transfer of minutes.
* The turn passes straight to who has waited longest; nobody overtakes him, and none who has given up gets it.

    taken --> held --> passed on to the first in line ... --> free
"""

import asyncio
from collections.abc import Callable
from types import TracebackType

from agent.errors import SessionBusy


class Turn:
    """A lock that is waited for at most ``limit_s`` seconds. ``whose`` names the device in messages.

    asyncio's own lock under asyncio's own timeout would cost a poll more than its whole deadline keeping does.
    """

    __slots__ = ("_held", "_limit_s", "_line", "_transfers", "_whose")

    def __init__(self, whose: Callable[[], object], limit_s: float) -> None:
        self._whose = whose
        self._limit_s = limit_s
        self._held = self._transfers = False
        self._line: list[asyncio.Future[None]] = []

    @property
    def is_free(self) -> bool:
        """Return whether it can be had at once."""
        return not self._held

    async def __aenter__(self) -> None:
        """Take the turn.

        Raises:
            SessionBusy: it did not come in time, or is held by a transfer.
        """
        if not self._held:
            self._held = True
            return
        if self._transfers:
            raise SessionBusy(f"{self._whose()}: a transfer of ours is under way; it is tried again after it")
        place = asyncio.get_running_loop().create_future()
        self._line.append(place)
        try:
            async with asyncio.timeout(self._limit_s):
                await place
        except TimeoutError:
            self._step_out(place)
            raise SessionBusy(
                f"{self._whose()}: other requests of ours took more than {self._limit_s:g} s; it is tried again"
            ) from None
        except BaseException:
            self._step_out(place)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Pass the turn on."""
        self._pass_on()

    def transfer(self) -> None:
        """Note that the holder's request takes minutes; who waits in line gives up now, having sent nothing."""
        self._transfers = True
        for place in self._line:
            if not place.done():
                place.set_exception(
                    SessionBusy(f"{self._whose()}: a transfer of ours is under way; it is tried again after it")
                )
        self._line.clear()

    def _pass_on(self) -> None:
        self._transfers = False
        while self._line:
            place = self._line.pop(0)
            if not place.done():
                place.set_result(None)
                return
        self._held = False

    def _step_out(self, place: "asyncio.Future[None]") -> None:
        """Leave the line; the turn that came at the very moment of giving up goes to the next."""
        if place in self._line:
            self._line.remove(place)
        elif place.done() and not place.cancelled() and place.exception() is None:
            self._pass_on()
