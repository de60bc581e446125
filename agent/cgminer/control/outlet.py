"""A miner whose firmware knows no stop: the switch before it takes its power and gives it back.

    stop    who answers? --> switch off --> does it go silent? else: switch on again, and never off for this miner
    start   switch on (nobody answers before) --> the firmware's own start, where it has one
    observe the miner, where it answers; where it is silent, a switch that reads off says why

Invariants: a firmware's own stop goes before its switch, which cuts the power off hard, but for plain CGMiner's, which
proves nothing; nobody's power is taken before the miner has said that it is the one, or, where its firmware has no
name to tell, a person has vouched for the wiring; a switch that reads off while its miner hashes on feeds another,
which gets its power back at once; that we got nowhere, or were busy with the miner ourselves, is no silence of it; a
start waits neither for the switch's state nor for its answer (ADR 0007); a silent
miner behind a switch that is on, or cannot be read, stays unknown.
"""

import asyncio
import logging
from typing import Final, Protocol

from agent.cgminer.control import MinerControl
from agent.cgminer.control.carry_out import DEADLINES_S, Keep, check_identity
from agent.cgminer.control.driver import LOOK_S, Result, Wanted
from agent.cgminer.control.drivers import stops_before_outlet
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.errors import AgentError, Nameless, NoWay, Refused, TimedOut, Transient, Unreachable
from sitelink.types import Evidence, MinerState, Outcome, PowerSource, Reason, Verb
from sitelink.units import Watts

_LOG: Final = logging.getLogger(__name__)
_SWITCHED: Final = frozenset({Verb.STOP, Verb.START})
_GOES_OFF_S: Final = 8.0
"""So long after its power was taken, no miner hashes on; a slow PDU and its contactor are done by then."""


class Outlet(Protocol):
    """One switch."""

    async def switch(self, *, on: bool) -> None:
        """Switch it; returning proves nothing. Raises AgentError."""
        ...

    async def is_on(self) -> bool:
        """Return whether it is on. Raises AgentError."""
        ...

    async def power_w(self) -> Watts | None:
        """Return what flows through it; None where it does not measure. Raises AgentError."""
        ...

    def close(self) -> None:
        """Let go of the connections to it."""
        ...


class OutletControl:
    """One miner behind a switch: its firmware's own stop and start where it has them, else the switch's."""

    def __init__(
        self,
        inner: MinerControl,
        device: Device,
        miner_id: str,
        outlet: Outlet,
        *,
        wiring_checked: bool = False,
        goes_off_s: float = _GOES_OFF_S,
    ) -> None:
        """``inner`` is the control of the miner's firmware, ``device`` what it controls.

        ``wiring_checked``: a person vouches that ``outlet`` feeds this miner.
        """
        self._inner = inner
        self._device = device
        self._miner_id = miner_id
        self._outlet = outlet
        self._wiring_checked = wiring_checked
        self._goes_off_s = goes_off_s
        self._feeds_another = ""

    async def identity(self) -> str:
        """Read afresh who answers; a miner without power is known by its switch, which is no other's.

        Raises as ``MinerControl.identity``.
        """
        try:
            return await self._inner.identity()
        except Transient as error:
            if not await self._is_cut_off(error):
                raise
        except Nameless:
            if not self._wiring_checked:
                raise
        return self._miner_id

    async def observe(self) -> Observation:
        """Read the miner; where it is silent and its switch reads off, it is idle because it was told to."""
        try:
            return await self._inner.observe()
        except Transient as error:
            if not await self._is_cut_off(error):
                raise
        power_w = await self._outlet.power_w()
        source = PowerSource.NONE if power_w is None else PowerSource.METER
        idle, why = MinerState.IDLE, Reason.COMMANDED
        return Observation(self._device.dialect, idle, why, power_w=power_w, power_source=source, by_outlet=True)

    async def make_way(self) -> None:
        """See ``MinerControl.make_way``."""
        await self._inner.make_way()

    async def stop(self) -> None:
        """Take the miner's power once it has said who it is. Raises as ``MinerControl.stop``.

        Raises:
            Refused: the wiring is unchecked and the miner nameless, or the switch feeds another: nothing has changed.
        """
        if self._has_own_stop():
            await self._inner.stop()
            return
        if self._feeds_another:
            raise Refused("wrong_outlet", self._feeds_another)
        answers = await self._is_ours()
        await self._outlet.switch(on=False)
        if answers and await self._hashes_on():
            raise await self._given_back()

    async def _is_cut_off(self, error: Transient) -> bool:
        """Return whether ``error`` is the silence of a miner whose switch reads off."""
        return _is_silence(error) and not self._has_own_stop() and await self._reads_off()

    async def _reads_off(self) -> bool:
        """Return whether the switch says that it is off; one that cannot be read does not, whatever keeps it."""
        try:
            return not await self._outlet.is_on()
        except AgentError:
            return False

    async def _is_ours(self) -> bool:
        """Return whether the miner answers; False where it has no power already. Raises who must not be cut off."""
        try:
            await check_identity(self._device, self._miner_id)
        except Transient as error:
            if not _is_silence(error) or await self._outlet.is_on():
                raise
            return False
        except Nameless:
            if not self._wiring_checked:
                raise Refused(
                    "wiring_unchecked",
                    f"{self._device.address}: its {self._device.dialect} firmware tells no name, so nobody knows that "
                    "its outlet feeds it; switch that by hand, see that this miner and no other goes off, "
                    "and add &wiring=checked to its outlet in inventory.csv",
                ) from None
        return True

    async def _hashes_on(self) -> bool:
        """Return whether the miner still hashes when it must have gone off, behind a switch that reads off."""
        ends_s = self._device.monotonic() + self._goes_off_s
        while True:
            try:
                seen = await self._inner.observe()
                if self._device.monotonic() >= ends_s:
                    return seen.state is MinerState.HASHING and not await self._outlet.is_on()
            except AgentError as error:
                if _is_silence(error) or self._device.monotonic() >= ends_s:
                    return False  # it is silent, or its switch is: how the stop stands is read back as ever
            await asyncio.sleep(min(LOOK_S, self._goes_off_s))

    async def _given_back(self) -> Refused:
        """Give the power back to whomever it was taken from; return what to tell."""
        trouble = await self._powered()
        again = "it is on again" if trouble is None else f"it could NOT be switched on again ({trouble})"
        self._feeds_another = (
            f"{self._device.address}: hashes on though its outlet is off: that switch does not feed this miner, "
            f"or is welded; {again}; mend it, or correct outlet in inventory.csv, and restart the agent"
        )
        _LOG.error("%s: %s", self._miner_id, self._feeds_another)
        return Refused("wrong_outlet", self._feeds_another)

    async def start(self) -> None:
        """Give the miner its power back, without which it cannot say who it is, and start its firmware.

        Raises as ``MinerControl.start``; where the firmware has no start, or is silent, as ``Outlet.switch``.
        """
        trouble = await self._powered()
        if not self._has_own_stop():
            if trouble is not None:
                raise trouble
            return
        try:
            await self._inner.start()
        except Transient as error:
            raise error if trouble is None else trouble from None

    async def restore(self) -> bool:
        """See ``MinerControl.restore``. Raises as it does."""
        return await self._inner.restore()

    async def _powered(self) -> AgentError | None:
        """Switch on; return what the switch came to: the miner may have its power all the same."""
        try:
            await self._outlet.switch(on=True)
        except AgentError as error:
            return error
        return None

    async def carry_out(self, wanted: Wanted, keep: Keep, *, kept: str = "", deadline_s: float | None = None) -> Result:
        """Carry out any verb and return how it ended; raises as ``MinerControl.carry_out``."""
        if wanted.verb not in _SWITCHED or self._has_own_stop():
            if wanted.verb is Verb.START:
                await self._powered()
            return await self._inner.carry_out(wanted, keep, kept=kept, deadline_s=deadline_s)
        await keep("")
        patience_s = DEADLINES_S[wanted.verb] if deadline_s is None else deadline_s
        return await self._switched(wanted.verb, self._device.monotonic() + patience_s)

    async def _switched(self, verb: Verb, ends_s: float) -> Result:
        """Switch until it shows, or the time is over."""
        trouble, evidence, reason = "", Evidence.NONE, "unreachable"
        while True:
            untold = await self._told(verb)
            try:
                # Only the miner itself shows that its power is back; that it is gone, its switch says.
                seen = await (self.observe() if verb is Verb.STOP else self._inner.observe())
            except Transient as error:
                trouble = untold or str(error)
            else:
                trouble, evidence = untold, Evidence.DEVICE_STATE
                reason = "still_hashing" if verb is Verb.STOP else "idle"
                if verb is Verb.STOP and seen.state is MinerState.IDLE and not untold:
                    return Result(Outcome.COMPLETE, evidence, "outlet_off")
                if verb is Verb.START and seen.state is not MinerState.UNKNOWN:
                    return Result(Outcome.COMPLETE, evidence, "outlet_on")
            if self._device.monotonic() >= ends_s:
                return Result(Outcome.UNVERIFIED, evidence, reason, trouble)
            await asyncio.sleep(LOOK_S)

    async def _told(self, verb: Verb) -> str:
        """Switch once; return why that could not be done now, empty once it was."""
        try:
            await (self.stop() if verb is Verb.STOP else self.start())
        except Transient as error:
            return str(error)
        return ""

    def _has_own_stop(self) -> bool:
        return stops_before_outlet(self._device.dialect)


def _is_silence(error: AgentError) -> bool:
    """Return whether nobody answered: that we got nowhere, or were busy with it ourselves, says nothing of a miner."""
    return isinstance(error, Unreachable | TimedOut) and not isinstance(error, NoWay)
