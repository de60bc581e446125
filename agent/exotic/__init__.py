"""Makes outside our native drivers, read by asic-rs in a process of its own (extra ``exotic``).

    ExoticDevice.observe --> Reader.ask --pipe--> worker: asic-rs --> device
                                  '-- 5 s without a word: the worker is killed, the next ask starts another

Invariants: the library never runs in the agent's own process, where an abort of it would end a curtailment; what it
says of a miner's state is not heard: a miner is hashing or idle by its hash rate alone, and without figures unknown.
"""

import importlib.util
from typing import Final

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.errors import Garbled
from agent.exotic.figures import observation_of
from agent.exotic.reader import Reader
from sitelink.clock import Clock
from sitelink.miners import EXOTIC
from sitelink.units import Watts

__all__ = ["DIALECT", "ExoticDevice", "Reader", "is_installed"]

DIALECT: Final = EXOTIC


class ExoticDevice(Device):
    """A miner that asic-rs reads. It is asked at the ports of its make, whatever the inventory says."""

    def __init__(
        self,
        address: Address,
        reader: Reader,
        clock: Clock,
        *,
        miner_id: str,
        credentials: Credentials | None,
        deadlines: Deadlines,
    ) -> None:
        super().__init__(address, DIALECT, clock, miner_id=miner_id, credentials=credentials, deadlines=deadlines)
        self._reader = reader
        self._name = miner_id.lower()

    async def observe(
        self,
        *,
        glance: bool = False,  # noqa: ARG002 - the library knows no less
        idle_w: Watts | None = None,  # noqa: ARG002 - it is all asked anyway
    ) -> Observation:
        """Read the miner, all of it however little is wanted.

        Raises:
            Transient: it does not answer in time, or the library's process has ended.
        """
        return observation_of(await self._reader.ask(self.address.host, self.credentials))

    async def identity(self) -> str:
        """Read afresh who answers. Raises as ``observe``, and Garbled when it names itself by nothing."""
        names = (await self.observe()).identities
        if not names:
            raise Garbled(f"{self.address}: names neither MAC nor serial; a miner without a name is not controlled")
        return self._name if self._name in names else names[0]


def is_installed() -> bool:
    """Return whether the library is there."""
    return importlib.util.find_spec("pyasic_rs") is not None
