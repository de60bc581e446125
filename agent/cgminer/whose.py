"""Whose figures these are: who answers at an address, as far as it has a name to tell.

Invariant: only a device that has no name to tell is taken at the inventory's word; one that hides it is not.
"""

from typing import Protocol

from agent.errors import Garbled, WrongDevice


class Named(Protocol):
    """Whatever can be asked who it is."""

    async def identity(self) -> str:
        """Read afresh what the miner calls itself. Raises Transient or Permanent."""
        ...


async def name_of(device: Named, miner_id: str) -> str:
    """Return what ``device`` calls itself, lower-case; ``miner_id`` where it never names itself.

    Raises:
        Transient: it does not answer.
        AccessDenied: it tells its name only to who has its password.
    """
    try:
        return (await device.identity()).lower()
    except Garbled:
        return miner_id.lower()  # it cannot be told from another


async def check_whose(device: Named, miner_id: str) -> None:
    """Raise WrongDevice when another than ``miner_id`` answers; else as ``name_of``."""
    name = await name_of(device, miner_id)
    if name != miner_id.lower():
        raise stranger(name, miner_id)


def stranger(name: str, miner_id: str) -> WrongDevice:
    """Return the error for ``name`` answering where ``miner_id`` is listed."""
    return WrongDevice(f"{name} answers where the inventory has {miner_id}; find it: inventory follow")
