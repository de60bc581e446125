"""Stop and start a miner, whatever its firmware. What these return proves nothing; what is read back does.

Invariants: each order first reads who answers at the address and refuses another miner; at most one order is under
way per device.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from agent.cgminer.control import avalon, luxos, whatsminer
from agent.cgminer.control.whatsminer import WhatsminerAccess
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.errors import Transient, UnsupportedDevice, WrongDevice

_Order = Callable[[Device], Awaitable[None]]
CONTROLLABLE: Final = ("luxos", "whatsminer", "avalon")


def controllable(dialect: str) -> bool:
    """Return whether miners of this dialect can be stopped and started by us."""
    return dialect in CONTROLLABLE


class MinerControl:
    """One miner under control: reads its identity, orders stop and start, observes."""

    def __init__(self, device: Device, miner_id: str, whatsminer_password: str = "admin") -> None:  # noqa: S107
        self._device = device
        self._miner_id = miner_id
        access = WhatsminerAccess(whatsminer_password)
        self._stops: Mapping[str, _Order] = {
            "luxos": luxos.stop,
            "whatsminer": lambda device: whatsminer.stop(device, access),
            "avalon": avalon.stop,
        }
        self._starts: Mapping[str, _Order] = {
            "luxos": luxos.start,
            "whatsminer": lambda device: whatsminer.start(device, access),
            "avalon": avalon.start,
        }
        self._turn = asyncio.Lock()

    async def identity(self) -> str:
        """Read afresh who answers: the inventory's miner id if the device goes by it, else its own first name.

        Raises:
            Transient: it does not answer.
            Permanent: it names itself by nothing.
        """
        return await self._device.identity()

    async def stop(self) -> None:
        """Order the miner to stop; safe to repeat.

        Raises:
            Transient: unreachable, timed out, or its session is busy.
            Permanent: access denied, garbled, or unsupported.
            WrongDevice: another miner answers at this address.
        """
        await self._order(self._stops, "stop")

    async def start(self) -> None:
        """Order the miner to start; safe to repeat. Raises as ``stop`` does."""
        await self._order(self._starts, "start")

    async def observe(self) -> Observation:
        """Read the miner. Raises Transient or Permanent."""
        return await self._device.observe()

    async def _order(self, orders: Mapping[str, _Order], verb: str) -> None:
        async with self._turn:
            found = await self._device.identity()
            if found.lower() != self._miner_id.lower():
                raise WrongDevice(
                    f"{self._device.address}: {found} answers where the inventory has {self._miner_id}; "
                    "correct the address in inventory.csv"
                )
            if self._device.dialect == "auto":
                raise Transient(f"{self._device.address}: does not say yet which firmware it runs; it is tried again")
            order = orders.get(self._device.dialect)
            if order is None:
                raise UnsupportedDevice(
                    f"{self._device.address}: {self._device.dialect} firmware cannot {verb} by us; "
                    f"only {', '.join(CONTROLLABLE)} can"
                )
            await order(self._device)
