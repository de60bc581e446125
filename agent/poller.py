"""Reads every miner once an interval.

Invariants:

* Every poll that was due ends in one reading; a miner that does not answer gives UNKNOWN with the reason, never zeros.
* A miner is its identity, not its address: who answers is checked at first contact, after each silence, hourly, and
  when its uptime is not what it was plus the time that has passed; for free whenever an observation names itself.
  Another device's figures are never booked under this miner, nor those of one that hides its name from us; only one
  that has no name to tell is taken at the inventory's word.
* At most ``concurrency`` miners are read at once, and orders to miners go first.
* A dead one is asked less often, but at least every fifth interval.
* One broken miner costs its own reading, never the round.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from agent.cgminer.observation import Observation
from agent.cgminer.whose import stranger
from agent.errors import AccessDenied, AgentError, Garbled, Permanent, Refused, TimedOut, Transient
from agent.precedence import Precedence
from agent.reasons import reason_of
from agent.rota import Rota
from sitelink.clock import Clock
from sitelink.types import MinerState, Reading, Reason

_LOG: Final = logging.getLogger(__name__)
_IDENTITY_AGE_S: Final = 3600.0
_UPTIME_SLACK_S: Final = 5.0
"""Uptime is cut to whole seconds, told at some moment of a look, and by a clock of the miner's own."""
_GRACE_S: Final = 0.25
"""So much later than a device, which knows what it has read by then, the poller gives a look up."""
_SLOTS_BY_FAILURES: Final = (1, 1, 1, 2, 3, 4, 5)


class Pollable(Protocol):
    """A miner that can be read. Both raise Transient or Permanent."""

    async def observe(self) -> Observation:
        """Read the miner."""
        ...

    async def identity(self) -> str:
        """Read afresh what the miner calls itself."""
        ...


@dataclass(slots=True)
class _Miner:
    device: Pollable
    failures: int = 0
    identified_mono: float | None = None
    names: tuple[str, ...] = ()
    reported: Reason = Reason.NONE
    has_name: bool = False
    """Whether it has ever told one: then no device without a name is it."""
    began_mono: float | None = None
    """When the miner that answered last had started, by what it said."""


class Poller:
    """Polls ``devices`` (by miner id) and hands each reading to ``sink``."""

    def __init__(
        self,
        devices: Mapping[str, Pollable],
        clock: Clock,
        rng: random.Random,
        sink: Callable[[Reading], None],
        *,
        interval_s: float,
        concurrency: int,
        deadline_s: float,
        precedence: Precedence,
    ) -> None:
        """``deadline_s`` bounds one poll, the asking of a name included, whatever connections that takes."""
        self._miners = {miner_id: _Miner(device) for miner_id, device in devices.items()}
        self._clock = clock
        self._rng = rng
        self._sink = sink
        self._interval_s = interval_s
        self._free = asyncio.Semaphore(concurrency)
        self._deadline_s = deadline_s
        self._precedence = precedence
        self._latest: dict[str, Reading] = {}

    @property
    def latest(self) -> Mapping[str, Reading]:
        """Return the last reading of each miner polled so far."""
        return self._latest

    async def run(self) -> None:
        """Poll until cancelled."""
        rota = Rota(self._miners, self._interval_s, self._rng, self._clock.monotonic())
        back = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            while True:
                back.clear()
                await _until(rota.due() - self._clock.monotonic(), back)
                while rota.due() <= self._clock.monotonic():
                    await self._precedence.give_way()
                    await self._free.acquire()
                    tasks.create_task(self._turn(rota.pop(), rota, back))

    async def _turn(self, miner_id: str, rota: Rota, back: asyncio.Event) -> None:
        due_mono = self._clock.monotonic()
        try:
            await self.poll(miner_id)
        finally:
            self._free.release()
        failures = min(self._miners[miner_id].failures, len(_SLOTS_BY_FAILURES) - 1)
        rota.put_back(miner_id, due_mono, _SLOTS_BY_FAILURES[failures])
        back.set()

    async def poll(self, miner_id: str) -> Reading:
        """Read one miner now and hand the reading on. Never raises for what a device does."""
        miner = self._miners[miner_id]
        try:
            async with asyncio.timeout(self._deadline_s + _GRACE_S) as limit:
                observation = await miner.device.observe()
                await self._identify(miner_id, miner, observation, limit)
            reading = observation.reading(miner_id, self._clock.now())
            miner.failures = 0
        except TimeoutError:
            reading = self._failed(miner_id, miner, TimedOut(f"no reading within {self._deadline_s:g} s"))
        except AgentError as error:
            reading = self._failed(miner_id, miner, error)
        except Exception as error:  # noqa: BLE001 - the supervisor of one poll: a bug costs one reading, not the round
            _LOG.error("poller: miner %s: %r", miner_id, error, exc_info=miner.reported is not Reason.GARBLED)
            reading = self._failed(miner_id, miner, Permanent(str(error)))
        if reading.reason is Reason.NONE and miner.reported is not Reason.NONE:
            miner.reported = Reason.NONE
            _LOG.info("poller: miner %s answers again", miner_id)
        self._latest[miner_id] = reading
        self._sink(reading)
        return reading

    async def _identify(self, miner_id: str, miner: _Miner, observation: Observation, limit: asyncio.Timeout) -> None:
        now_mono = self._clock.monotonic()
        names = observation.identities
        named = observation.answers_to(miner_id)
        began_mono = None if observation.uptime_s is None else now_mono - observation.uptime_s
        same = _is_same(miner.began_mono, began_mono)
        if named is None or not same:
            recent = miner.identified_mono is not None and now_mono - miner.identified_mono < _IDENTITY_AGE_S
            if same and recent and names == miner.names:
                return
            limit.reschedule((limit.when() or 0.0) - _GRACE_S)
            found = await self._asked_who(miner_id, miner, names, same=same)
            named, names = found == miner_id.lower(), (found,)
        if not named:
            raise stranger(names[0], miner_id)
        miner.identified_mono, miner.names = now_mono, observation.identities
        miner.has_name = miner.has_name or bool(miner.names)
        miner.began_mono = miner.began_mono if began_mono is None else began_mono

    async def _asked_who(self, miner_id: str, miner: _Miner, names: tuple[str, ...], *, same: bool) -> str:
        """Ask who answers, lower-case; one who tells it no more stays who it was, unless it may be another by now."""
        known = same and miner.identified_mono is not None
        try:
            found = (await miner.device.identity()).lower()
        except Garbled:
            if miner.has_name and not known:
                raise
            return miner_id.lower()  # a device that never names itself cannot be told from another
        except AccessDenied:
            if not known or names != miner.names:
                raise
            return miner_id.lower()
        miner.has_name = miner.has_name or found == miner_id.lower()
        return found

    def _failed(self, miner_id: str, miner: _Miner, error: AgentError) -> Reading:
        reason = reason_of(error)
        # A device that refuses or babbles is there: only silence makes it wait longer.
        miner.failures = miner.failures + 1 if isinstance(error, Transient) else 0
        miner.identified_mono = None
        if miner.reported is not reason:
            miner.reported = reason
            level = logging.WARNING if isinstance(error, Refused) else logging.INFO
            _LOG.log(level, "poller: miner %s: %s: %s", miner_id, reason, error)
        return Reading(miner_id, self._clock.now(), MinerState.UNKNOWN, reason)


def _is_same(before_mono: float | None, began_mono: float | None) -> bool:
    """Return whether who started at ``began_mono`` may be who had at ``before_mono``; unknown tells nothing."""
    return before_mono is None or began_mono is None or abs(began_mono - before_mono) <= _UPTIME_SLACK_S


async def _until(delay_s: float, back: asyncio.Event) -> None:
    """Wait ``delay_s`` seconds, or less when a name came back that may be due sooner."""
    if delay_s <= 0:
        return
    try:
        async with asyncio.timeout(min(delay_s, 3600.0)):
            await back.wait()
    except TimeoutError:
        return
