"""What one miner's stop keeps of its limit, mode or profile, and what becomes of it once the miner runs again.

    stop   --> last look, else one short read --> kept (Former)          start --> waits for none of this
    runs again, later, in a step of its own: lost? --> LIMIT order --> looked at again --> as it was: settled

Invariants:

* A stop neither waits for this reading longer than ``_READ_S`` nor fails for it; it then goes on without, and the log
  says so.
* What is kept stands until the miner has been seen to run with it again, or a limit of ours has taken its place: a
  second stop in between does not take what the restart left for what the miner was set to, nor what a stop taken in
  part left on for all that was on.
* It is asked back at most ``_TRIES`` times, of the miner that answers to its name alone, and never of one that stands.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, runtime_checkable

from agent.cgminer.control.driver import Driver, Wanted
from agent.cgminer.control.former import Former, is_settled, settled
from agent.cgminer.control.kept import kept_in
from agent.cgminer.control.limits import KeepsLimit
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.errors import AgentError, Permanent, Refused, Transient, WrongDevice
from sitelink.types import MinerState, Reason, Verb

_LOG: Final = logging.getLogger(__name__)
_READ_S: Final = 2.0
_FRESH_S: Final = 90.0
"""So long a look of the poller's counts for what the miner is limited to."""
_RUNS_S: Final = 20.0
"""A look sooner after the start may still show what the miner is about to forget."""
_TRIES: Final = 3


class GivesBack(Protocol):
    """Who tells what a miner has lost, and sends the order for it; see ``limits.KeepsLimit`` and ``driver.Driver``."""

    async def lost(self, device: Device, kept: Mapping[str, Any], seen: Observation) -> Wanted | None:
        """Return the order that gives it back, None when nothing is lost."""
        ...

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        """Send the order."""
        ...


@runtime_checkable
class JoinsFormers(Protocol):
    """A driver of a firmware that stops part by part, so that what a second attempt finds is not all there was."""

    def joined(self, earlier: str, found: str) -> str:
        """Return what was so before the first of two attempts: ``earlier`` was kept by it, ``found`` by the second."""
        ...


class Keeping:
    """Keeps what one miner was limited to before its stop."""

    def __init__(self, device: Device, miner_id: str, former: Former) -> None:
        self._device = device
        self._miner_id = miner_id
        self._former = former
        self._seen: tuple[float, Observation] | None = None
        self._started_s: float | None = None
        self._owed = False
        self._tries = 0

    def saw(self, seen: Observation) -> None:
        """Take up a look that somebody has made."""
        self._seen = (self._device.monotonic(), seen)

    def started(self) -> None:
        """Note that a start is being sent."""
        self._started_s, self._owed, self._tries = self._device.monotonic(), True, 0

    async def before_stop(self, driver: Driver) -> str:
        """Return what is to be kept before a stop by ``driver``; empty where what is kept is to stay.

        Raises Transient only of a firmware whose stop itself writes what is read here, so that it could not be sent.
        """
        look = self._look()
        if self._owed and await self.kept():
            return ""
        if look is not None and look.reason is Reason.COMMANDED:
            return ""
        hashing = look if look is not None and look.state is MinerState.HASHING else None
        try:
            if not isinstance(driver, KeepsLimit):
                return await self._with_earlier(driver, await driver.former(self._device, Wanted(Verb.STOP)))
            async with asyncio.timeout(_READ_S):
                return await driver.limits(self._device, hashing)
        except (TimeoutError, AgentError) as error:
            if isinstance(error, Transient) and not isinstance(driver, KeepsLimit):
                raise
            # A stop is worth more than the mode it is started in again.
            told = error if isinstance(error, AgentError) else f"no answer within {_READ_S:g} s"
            _LOG.warning("%s: is stopped without its configuration: %s", self._miner_id, told)
            return ""

    async def _with_earlier(self, driver: Driver, found: str) -> str:
        """Return ``found`` with what stops since the last proven start have kept before."""
        earlier = await self.kept()
        return driver.joined(earlier, found) if earlier and found and isinstance(driver, JoinsFormers) else found

    async def remember(self, configuration: str) -> None:
        """Keep what ``before_stop`` returned; durable on return. Raises Transient when nothing was stored."""
        if configuration:
            await self._former.remember(self._miner_id, configuration)
            self._owed = False

    async def kept(self) -> str:
        """Return what is kept and not settled, else nothing."""
        found = await self._former.recall(self._miner_id)
        return "" if not found or is_settled(found) else found

    async def settle(self) -> None:
        """End it: the miner is as it was, or is meant to be otherwise. Raises Transient when that cannot be stored."""
        found = await self.kept()
        if found:
            await self._former.remember(self._miner_id, settled(found))
        self._owed, self._tries = False, 0

    async def restore(self, driver: "GivesBack", check: Callable[[], Awaitable[None]]) -> bool:
        """Ask back what the restart has lost; return whether there is nothing left to do. ``check`` asks who answers.

        Raises:
            Transient: it cannot now. WrongDevice: another miner answers there.
        """
        kept = await self.kept()
        if not kept:
            return True
        self._owed = True
        seen = self._look()
        if seen is None or seen.state is not MinerState.HASHING or not self._runs():
            return False
        try:
            left = await self._ask_back(driver, kept, seen, check)
        except WrongDevice:
            raise
        except (Permanent, Refused) as error:
            _LOG.error("%s: keeps another limit than before its stop: %s", self._miner_id, error)
            left = False
        if not left:
            await self.settle()
        return not left

    async def _ask_back(
        self, driver: "GivesBack", kept: str, seen: Observation, check: Callable[[], Awaitable[None]]
    ) -> bool:
        """Return whether something was lost, and has been ordered again."""
        lost = await driver.lost(self._device, kept_in(kept), seen)
        if lost is None:
            return False
        if self._tries >= _TRIES:
            _LOG.error("%s: keeps another limit than before its stop, ordered %d times", self._miner_id, self._tries)
            return False
        await check()
        self._tries += 1
        _LOG.info("%s: its restart lost %s; ordered again", self._miner_id, dict(lost.parameters))
        await driver.send(self._device, lost, kept)
        self._started_s = self._device.monotonic()  # what was seen before shows nothing of this
        return True

    def _look(self) -> Observation | None:
        if self._seen is None or self._device.monotonic() - self._seen[0] > _FRESH_S:
            return None
        return self._seen[1]

    def _runs(self) -> bool:
        return self._seen is not None and (self._started_s is None or self._seen[0] - self._started_s >= _RUNS_S)
