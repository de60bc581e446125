"""A miner that knows no stop, behind a contactor: the same cells, told over a Modbus coil.

It is no firmware and stands among them under its own name; the miner behind it is an ePIC, which is read and never told.
"""

from typing import Protocol

from agent.cgminer.control import MinerControl
from agent.cgminer.control.outlet import Outlet, OutletControl
from agent.cgminer.device import Device
from agent.modbus import ModbusHosts
from agent.outlets import outlet_of
from simulator.miner import Miner
from simulator.site import SimulatedSite
from sitelink.units import Watts

CONTACTOR = "contactor"
MINER_BEHIND = "epic"
SILENT = "contactor_silent"
"""The fault of the contactor itself; the simulator's own are those of the miner behind it."""
ATTEMPTS = 3
"""So often is a start given: the miner boots for longer than one attempt waits."""


class Way(Protocol):
    """What an order meets on its way."""

    async def on_its_way(self) -> None: ...

    def sent(self) -> None: ...


class StruckOutlet:
    """A switch whose orders the stage's fault, or the end of the process, meets on their way."""

    def __init__(self, outlet: Outlet, way: Way) -> None:
        self._outlet = outlet
        self._way = way

    async def switch(self, *, on: bool) -> None:
        await self._way.on_its_way()
        await self._outlet.switch(on=on)
        self._way.sent()

    async def is_on(self) -> bool:
        return await self._outlet.is_on()

    async def power_w(self) -> Watts | None:
        return await self._outlet.power_w()

    def close(self) -> None:
        self._outlet.close()


class Behind:
    """One miner's contactor, as it is reached."""

    def __init__(self, opened: SimulatedSite, miner: Miner) -> None:
        self._hosts = ModbusHosts()
        self._url = opened.contactors.url(miner, opened.modbus.host, opened.modbus.port)
        self._miner_id = miner.place.miner_id

    def control(self, inner: MinerControl, device: Device, way: Way) -> OutletControl:
        """A new control; the simulated power is gone at once, so that nothing is waited for."""
        outlet = StruckOutlet(outlet_of(self._url, self._hosts), way)
        return OutletControl(inner, device, self._miner_id, outlet, goes_off_s=0.0)

    def close(self) -> None:
        """Let go of the connections."""
        self._hosts.close()
