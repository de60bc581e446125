"""Tell a miner what to do, whatever its firmware. What these return proves nothing; what is read back does.

    stop      --> who answers? --> former configuration kept --> driver.send        restore: keeping.py
    start     --> who answers? --> former recalled           --> driver.send
    carry_out --> any verb, read back to its end (carry_out.py)

Invariants: each order first reads who answers at the address and refuses another miner; at most one order is being
sent to a device at a time, and its turn is waited for under a deadline, while reading back holds up nobody; a start
waits for nothing (ADR 0007); a log that is being fetched gives way to a stop and a start.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from agent.cgminer.control.carry_out import DEADLINES_S, Keep, carry_out, check_identity, unsupported
from agent.cgminer.control.driver import Driver, ReadBack, Result, Wanted
from agent.cgminer.control.drivers import controllable, controllable_dialects, driver_of
from agent.cgminer.control.former import Former, HeldInMemory
from agent.cgminer.control.giving_way import GivingWay
from agent.cgminer.control.keeping import Keeping
from agent.cgminer.control.limits import KeepsLimit
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.cgminer.turn import Turn
from agent.errors import AccessDenied, Transient, UnsupportedDevice
from sitelink.miners import AUTO
from sitelink.types import Outcome, Reason, Verb
from sitelink.units import Watts
from sitelink.verbs import SWITCHING

__all__ = ["Former", "HeldInMemory", "MinerControl", "Result", "Wanted", "controllable", "controllable_dialects"]

_WAIT_S: Final = 5.0
"""How long an order waits for another one to the same device; it is then tried again, and holds up no others."""


class MinerControl:
    """One miner under control: reads its identity, orders, observes."""

    def __init__(
        self,
        device: Device,
        miner_id: str,
        former: Former | None = None,
        drivers: Callable[[str], Driver | None] = driver_of,
    ) -> None:
        """``former`` keeps what a start restores (None: memory); ``drivers`` makes the driver of a dialect."""
        self._device = device
        self._miner_id = miner_id
        self._former = former if former is not None else HeldInMemory()
        self._keeping = Keeping(device, miner_id, self._former)
        self._drivers = drivers
        self._made: dict[str, _InTurn | None] = {}
        self._turn = Turn(lambda: device.address, _WAIT_S)
        self._logs = GivingWay(lambda: device.address)

    async def identity(self) -> str:
        """Read afresh who answers: the inventory's miner id if the device goes by it, else its own first name.

        Raises:
            Transient: it does not answer.
            Permanent: it names itself by nothing.
        """
        return await self._device.identity()

    async def observe(self) -> Observation:
        """Read the miner. Raises Transient or Permanent."""
        seen = await self._device.observe()
        self._keeping.saw(seen)
        return seen

    async def glance(self, idle_w: Watts) -> Observation:
        """Read whether the miner hashes, what it draws, and why if no more than ``idle_w``. Raises as ``observe``."""
        seen = await self._device.observe(glance=True, idle_w=idle_w)
        if seen.reason is Reason.COMMANDED:
            self._keeping.saw(seen)  # of what it is set to while it runs, a glance says nothing
        return seen

    async def stop(self) -> None:
        """Order the miner to stop, once what its start restores is kept; safe to repeat.

        Raises:
            Transient: unreachable, timed out, its session is busy, or nothing could be kept.
            Permanent: access denied, garbled, or unsupported.
            WrongDevice: another miner answers at this address.
        """
        wanted = Wanted(Verb.STOP)
        async with self._logs.switching():
            driver = await self._checked(wanted.verb)
            former = await driver.former(self._device, wanted)
            await self._keeping.remember(former)
            await driver.send(self._device, wanted, former)

    async def start(self) -> None:
        """Order the miner to start as it was before its stop; safe to repeat. Raises as ``stop`` does."""
        wanted = Wanted(Verb.START)
        async with self._logs.switching():
            driver = await self._checked(wanted.verb)
            self._keeping.started()
            await driver.send(self._device, wanted, await self._former.recall(self._miner_id))

    async def restore(self) -> bool:
        """Give a miner that runs again what its restart has lost; return whether nothing is left to do.

        It goes by the looks that others make: it makes none itself, and tells a miner that stands nothing.

        Raises:
            Transient: it cannot now. WrongDevice: another miner answers there.
        """
        if not await self._keeping.kept():
            return True
        driver = self._driver()
        if driver is None:
            return False
        return await self._keeping.restore(driver, self._identify)

    async def make_way(self) -> None:
        """End the fetching of a log, if one is under way: the miner is about to be looked at for a stop or start."""
        await self._logs.break_off()

    async def carry_out(self, wanted: Wanted, keep: Keep, *, kept: str = "", deadline_s: float | None = None) -> Result:
        """Carry out any verb and return how it ended; see ``carry_out.carry_out`` for ``keep``, ``kept`` and Raises.

        A stop's former configuration is kept for its start beside what ``keep`` does with it.
        """
        if wanted.verb not in SWITCHING:
            return await self._carried_out(wanted, keep, kept, deadline_s)
        async with self._logs.switching():
            return await self._carried_out(wanted, keep, kept, deadline_s)

    async def _carried_out(self, wanted: Wanted, keep: Keep, kept: str, deadline_s: float | None) -> Result:
        if self._driver() is None:
            await self._identify()  # which finds out the firmware, too
        driver = self._known_driver(wanted.verb)

        async def keep_both(former: str) -> None:
            if wanted.verb is Verb.STOP:
                await self._keeping.remember(former)
            await keep(former)

        if wanted.verb is Verb.START:
            self._keeping.started()
            kept = kept or await self._former.recall(self._miner_id)
        patience_s = DEADLINES_S[wanted.verb] if deadline_s is None else deadline_s
        result = await carry_out(
            driver, self._device, self._miner_id, wanted, keep=keep_both, deadline_s=patience_s, kept=kept
        )
        if wanted.verb is Verb.LIMIT and result.outcome is not Outcome.REFUSED:
            await self._keeping.settle()  # it is meant to run so from now on
        return result

    async def _checked(self, verb: Verb) -> Driver:
        """Return the driver, once the device has shown that it is ours and can be told ``verb``."""
        await self._identify()
        driver = self._known_driver(verb)
        if verb not in driver.verbs:
            raise unsupported(self._device, verb)
        return driver

    async def _identify(self) -> None:
        """Read afresh who answers; the making of a driver brings what opens a firmware found out just now."""
        self._driver()
        credentials = self._device.credentials
        try:
            await check_identity(self._device, self._miner_id)
        except AccessDenied:
            self._driver()
            if self._device.credentials == credentials:
                raise
            await check_identity(self._device, self._miner_id)

    def _known_driver(self, verb: Verb) -> Driver:
        if self._device.dialect == AUTO:
            raise Transient(f"{self._device.address}: does not say yet which firmware it runs; it is tried again")
        driver = self._driver()
        if driver is None:
            raise UnsupportedDevice(
                f"{self._device.address}: {self._device.dialect} firmware cannot {verb.value} by us; "
                f"only {', '.join(controllable_dialects())} can"
            )
        return driver

    def _driver(self) -> "_InTurn | None":
        dialect = self._device.dialect
        if dialect not in self._made:
            driver = self._drivers(dialect)
            self._made[dialect] = None if driver is None else _InTurn(driver, self._turn, self._logs, self._keeping)
        return self._made[dialect]


class _InTurn:
    """A driver whose orders wait for each other: a session, and a configuration read and written back, is for one."""

    def __init__(self, driver: Driver, turn: Turn, logs: GivingWay, keeping: Keeping) -> None:
        self._driver = driver
        self._keeping = keeping
        self._turn = turn
        self._logs = logs

    @property
    def verbs(self) -> frozenset[Verb]:
        return self._driver.verbs

    async def former(self, device: Device, wanted: Wanted) -> str:
        if wanted.verb is Verb.STOP:
            return await self._keeping.before_stop(self._driver)
        return await self._driver.former(device, wanted)

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        async with self._turn:
            if wanted.verb is Verb.LOGS:
                return await self._logs.run(partial(self._driver.send, device, wanted, former))
            return await self._driver.send(device, wanted, former)

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        return await self._driver.shows(device, wanted, before)

    async def lost(self, device: Device, kept: Mapping[str, Any], seen: Observation) -> Wanted | None:
        return await self._driver.lost(device, kept, seen) if isinstance(self._driver, KeepsLimit) else None
