"""A miner whose firmware knows no stop: the switch before it takes its power and gives it back.

    stop    who answers? --> switch off
    start   switch on (nobody answers before) --> the firmware's own start, where it has one
    observe the miner, where it answers; where it is silent, a switch that reads off says why

Invariants: a firmware's own stop goes before its switch, which cuts the power off hard; nobody's power is taken before
the miner has said that it is the one; a start waits neither for the switch's state nor for its answer (ADR 0007); a
silent miner behind a switch that is on, or cannot be read, stays unknown.
"""

import asyncio
from typing import Final, Protocol

from agent.cgminer.control import MinerControl, controllable
from agent.cgminer.control.carry_out import DEADLINES_S, Keep, check_identity
from agent.cgminer.control.driver import Result, Wanted
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.errors import AgentError, Transient
from sitelink.types import Evidence, MinerState, Outcome, PowerSource, Reason, Verb
from sitelink.units import Watts

_SWITCHED: Final = frozenset({Verb.STOP, Verb.START})
_LOOK_S: Final = 1.0


class Switch(Protocol):
    """What stands before a miner. All raise AgentError."""

    async def switch(self, *, on: bool) -> None:
        """Switch it."""
        ...

    async def is_on(self) -> bool:
        """Return whether it is on."""
        ...

    async def power_w(self) -> Watts | None:
        """Return what flows through it; None where it does not measure."""
        ...


class OutletControl:
    """One miner behind a switch: its firmware's own stop and start where it has them, else the switch's."""

    def __init__(self, inner: MinerControl, device: Device, miner_id: str, outlet: Switch) -> None:
        """``inner`` is the control of the miner's firmware, ``device`` what it controls."""
        self._inner = inner
        self._device = device
        self._miner_id = miner_id
        self._outlet = outlet

    async def identity(self) -> str:
        """Read afresh who answers. Raises as ``MinerControl.identity``."""
        return await self._inner.identity()

    async def observe(self) -> Observation:
        """Read the miner; where it is silent and its switch reads off, it is idle because it was told to."""
        try:
            return await self._inner.observe()
        except Transient:
            if self._has_own_stop() or await self._outlet.is_on():
                raise
        power_w = await self._outlet.power_w()
        source = PowerSource.NONE if power_w is None else PowerSource.METER
        return Observation(
            self._device.dialect, MinerState.IDLE, Reason.COMMANDED, power_w=power_w, power_source=source
        )

    async def make_way(self) -> None:
        """See ``MinerControl.make_way``."""
        await self._inner.make_way()

    async def stop(self) -> None:
        """Take the miner's power once it has said who it is. Raises as ``MinerControl.stop``."""
        if self._has_own_stop():
            await self._inner.stop()
            return
        try:
            await check_identity(self._device, self._miner_id)
        except Transient:
            if await self._outlet.is_on():
                raise
        await self._outlet.switch(on=False)

    async def start(self) -> None:
        """Give the miner its power back, without which it cannot say who it is, and start its firmware.

        Raises as ``MinerControl.start``; where the firmware has no start, or is silent, as ``Switch.switch``.
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
            await asyncio.sleep(_LOOK_S)

    async def _told(self, verb: Verb) -> str:
        """Switch once; return why that could not be done now, empty once it was."""
        try:
            await (self.stop() if verb is Verb.STOP else self.start())
        except Transient as error:
            return str(error)
        return ""

    def _has_own_stop(self) -> bool:
        return controllable(self._device.dialect)
