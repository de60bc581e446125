"""Any other CGMiner: only what its own API documents, and that is pools.

    POOLS   addpool, switchpool, removepool, then save

Invariant: nothing is guessed. CGMiner documents no stop, no limit, no lamp and no password; its ``restart`` starts the
program again, which is no reboot, and its ``quit`` leaves a miner that nobody can start again over the network.

Source: cgminer API-README.
"""

import json
import logging
from typing import Final

from agent.cgminer.control.asked import pools_asked
from agent.cgminer.control.driver import ReadBack, Wanted
from agent.cgminer.control.rpc_pools import PoolChange, shows_pools
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.cgminer.status import Status
from sitelink.types import Verb

_LOG: Final = logging.getLogger(__name__)


class CgMiner:
    """Control of one miner that is known only to speak CGMiner's API."""

    def __init__(self) -> None:
        self._pools = PoolChange(escapes=True)

    @property
    def verbs(self) -> frozenset[Verb]:
        """Return what CGMiner's own API can be told."""
        return frozenset({Verb.POOLS})

    async def former(self, device: Device, wanted: Wanted) -> str:
        """Return the pools before new ones."""
        return json.dumps({"pools": (await device.ask("pools")).get("POOLS")})

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        """See ``Driver.send``."""
        await self._pools.replace(device, pools_asked(wanted))
        status = Status.of(await device.ask("save"))
        if not status.accepted:
            _LOG.warning("%s: works for its new pools, but forgets them at a restart: %s", device.address, status.text)
        return b""

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        """See ``Driver.shows``."""
        return await shows_pools(device, pools_asked(wanted))
