"""Miners that run again are given back the limit, mode or profile that their restart has lost.

    owed (formers) --> nothing of ours holds it off? --> its control: lost? ordered again : settled
       '---- every 10 s, one miner after the other ----'

Invariants: no start waits for this, and no miner that an order of ours keeps off is told anything. One at a time: a
limit restarts some miners, and a whole site must not lose its load at once. What cannot be done now is tried again.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol, runtime_checkable

from agent.errors import AgentError

_LOG: Final = logging.getLogger(__name__)
_ROUND_S: Final = 10.0
_ONE_S: Final = 30.0
"""So long one miner may hold up the others."""


@runtime_checkable
class Restorable(Protocol):
    """A control that gives a running miner back what its restart has lost."""

    async def restore(self) -> bool:
        """Do so; return whether nothing is left to do. Raises AgentError."""
        ...


class Restorer:
    """Looks after the miners that were started."""

    def __init__(
        self,
        owed: Callable[[], Iterable[str]],
        controls: Callable[[str], object | None],
        held_off: Callable[[str], bool],
    ) -> None:
        """``owed`` gives who may have lost something, ``held_off`` whether an order of ours keeps a miner off."""
        self._owed = owed
        self._controls = controls
        self._held_off = held_off
        self._told: set[str] = set()

    async def run(self) -> None:
        """Look after them until cancelled."""
        while True:
            await asyncio.sleep(_ROUND_S)
            await self.round()

    async def round(self) -> None:
        """Look at each once."""
        for miner_id in self._owed():
            control = self._controls(miner_id)
            if isinstance(control, Restorable) and not self._held_off(miner_id):
                await self._restore(miner_id, control)

    async def _restore(self, miner_id: str, control: Restorable) -> None:
        try:
            async with asyncio.timeout(_ONE_S):
                await control.restore()
        except (TimeoutError, AgentError) as error:
            if miner_id not in self._told:
                _LOG.info("%s: what it was set to before its stop waits: %s", miner_id, error)
            self._told.add(miner_id)
        else:
            self._told.discard(miner_id)
