"""The way to the miners: so many at a time, whatever else goes on.

Invariant: at most ``concurrency`` looks at devices are under way, as many stops and as many starts: a stop waits behind
no look, a start behind no stop, and a stop whose order has ended meanwhile is not sent. A dead device holds its place
only for the connect deadline that its control keeps. Polling stands back while an order is being sent. COMPLETE is said
only of the miner that was asked for: a look tells what a device does, not who it is.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import cast

from agent.errors import AgentError
from agent.local_curtail.evidence import Verdict
from agent.local_curtail.ports import Control, GivesWay, Glances, Observed
from agent.precedence import Precedence
from agent.reasons import reason_of
from sitelink.types import Evidence, Outcome, Reason
from sitelink.units import Watts


class Reach:
    """Controls by miner id, behind one limit."""

    def __init__(self, controls: Callable[[str], Control], concurrency: int, precedence: Precedence) -> None:
        self._controls = controls
        self._precedence = precedence
        self._under_way: dict[str, asyncio.Future[Observed | AgentError | None]] = {}
        self._looks = asyncio.Semaphore(concurrency)
        self._stops = asyncio.Semaphore(concurrency)
        self._starts = asyncio.Semaphore(concurrency)

    def control(self, miner_id: str) -> Control:
        """Return the control of one miner."""
        return self._controls(miner_id)

    async def make_way(self, miner_id: str) -> None:
        """End what is under way at one miner and worth less than the stop or start that begins now."""
        control = self._controls(miner_id)
        if _gives_way(type(control)):
            await cast("GivesWay", control).make_way()

    async def identity(self, miner_id: str) -> str:
        """Read afresh who answers at one miner's address. Raises AgentError."""
        async with self._looks:
            return await self._controls(miner_id).identity()

    async def vouched(self, miner_id: str, verdict: Verdict) -> Verdict:
        """Return ``verdict``, unless it is COMPLETE and who answers there now is not shown to be ``miner_id``."""
        if verdict.outcome is not Outcome.COMPLETE:
            return verdict
        try:
            found = await self.identity(miner_id)
        except AgentError as error:
            return Verdict(Outcome.UNVERIFIED, Evidence.NONE, reason_of(error).value, detail=str(error))
        if found.lower() != miner_id.lower():
            detail = f"{found} answers where {miner_id} was ordered; ballast-agent inventory follow finds it"
            return Verdict(Outcome.UNVERIFIED, Evidence.NONE, Reason.WRONG_DEVICE.value, detail=detail)
        return verdict

    async def observe(self, miner_id: str) -> Observed:
        """Read one miner. Raises AgentError."""
        async with self._looks:
            return await self._controls(miner_id).observe()

    async def look(self, miner_id: str, idle_w: Watts) -> Observed:
        """Read what one miner does, and why once it draws no more than ``idle_w``. Raises AgentError."""
        shown: asyncio.Future[Observed | AgentError | None] = asyncio.get_running_loop().create_future()
        self._under_way[miner_id] = shown
        found: Observed | AgentError | None = None
        try:
            async with self._looks:
                found = seen = await self._looked(miner_id, idle_w)
            return seen
        except AgentError as error:
            found = error
            raise
        finally:
            shown.set_result(found)
            if self._under_way.get(miner_id) is shown:
                del self._under_way[miner_id]

    async def look_along(self, miner_id: str, idle_w: Watts) -> Observed:
        """Return what somebody else's look that is under way shows, or raise as it does; look where none is."""
        under_way = self._under_way.get(miner_id)
        found = None if under_way is None else await asyncio.shield(under_way)
        if isinstance(found, AgentError):
            raise found
        return await self.look(miner_id, idle_w) if found is None else found

    async def _looked(self, miner_id: str, idle_w: Watts) -> Observed:
        control = self._controls(miner_id)
        if _glances(type(control)):
            return await cast("Glances", control).glance(idle_w)
        return await control.observe()

    async def stop(self, miner_id: str, wanted: Callable[[], bool]) -> bool:
        """Order one miner to stop if that is still ``wanted`` at its turn; return whether it was. Raises AgentError."""
        async with self._stops:
            if not wanted():
                return False
            with self._precedence.order():
                await self._controls(miner_id).stop()
            return True

    async def start(self, miner_id: str) -> None:
        """Order one miner to start. Raises AgentError."""
        with self._precedence.order():
            async with self._starts:
                await self._controls(miner_id).start()


@lru_cache(maxsize=64)
def _glances(kind: type) -> bool:
    """Return what ``isinstance`` takes as long as a request to find out anew."""
    return issubclass(kind, Glances)


@lru_cache(maxsize=64)
def _gives_way(kind: type) -> bool:
    return issubclass(kind, GivesWay)
