"""What a miner was set to before it was stopped, kept until it runs with it again, and then marked as settled.

Invariants: what is remembered is durable before the stop is sent; a start asks what is remembered and waits for
nothing: whoever keeps it answers from memory, with an empty text where nothing is known (ADR 0007).
"""

import json
from typing import Final, Protocol

from agent.cgminer.control.kept import kept_in

_SETTLED: Final = "settled"


class Former(Protocol):
    """Keeps one configuration, as JSON text, for each miner."""

    async def remember(self, miner_id: str, configuration: str) -> None:
        """Keep ``configuration`` for ``miner_id``; durable on return.

        Raises:
            Transient: nothing was stored; the stop is not to be sent yet.
        """
        ...

    async def recall(self, miner_id: str) -> str:
        """Return what was kept last, empty when nothing is known. Never raises and never waits for a disk."""
        ...


class HeldInMemory:
    """Keeps configurations as long as the process lives: where there is no database, or none that can be opened."""

    def __init__(self) -> None:
        self._kept: dict[str, str] = {}

    async def remember(self, miner_id: str, configuration: str) -> None:
        """See ``Former.remember``; never raises."""
        self._kept[miner_id] = configuration

    async def recall(self, miner_id: str) -> str:
        """See ``Former.recall``."""
        return self._kept.get(miner_id, "")


def settled(configuration: str) -> str:
    """Return ``configuration`` marked: the miner was seen to run with it again, or is meant to run otherwise."""
    return json.dumps({**kept_in(configuration), _SETTLED: True})


def is_settled(configuration: str) -> bool:
    """Return whether nothing of ``configuration`` is left to be brought back."""
    return f'"{_SETTLED}"' in configuration
