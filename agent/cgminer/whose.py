"""Whose figures these are: who answers at an address, as far as it has a name to tell.

Invariant: only a device that has no name to tell is taken at the inventory's word; one that hides it is not.
"""

from typing import Protocol

from agent.cgminer.client import Address
from agent.cgminer.observation import Observation
from agent.cgminer.sections import Sections
from agent.errors import AccessDenied, AgentError, Garbled, Nameless, SessionBusy, Transient, WrongDevice


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


def nameless(address: Address, seen: Observation, sections: Sections) -> AgentError:
    """Return why the device at ``address`` could not be told by what it calls itself, ``seen`` in ``sections``."""
    told = f"names itself only {seen.identities[0]}" if seen.identities else "names neither MAC nor serial"
    if sections.failing:
        kind = SessionBusy if sections.busy else Transient
        return kind(f"{address}: {told}; its web page cannot answer now; it is tried again")
    trouble = next((status for status in sections.statuses if status.failed), None)
    if trouble is not None:
        return Transient(f"{address}: {told}; it cannot answer now ({trouble.text}); it is tried again")
    if sections.denied:
        return AccessDenied(f"{address}: {told}; the rest is closed to us: give its group credentials")
    if sections and not seen.identities and not sections.garbled:
        return Nameless(f"{address}: {told}; {seen.dialect} firmware may have none to tell; see docs/outlets.md")
    list_so = f", or list it as {seen.identities[0]}" if seen.identities else ""
    return Garbled(f"{address}: {told}; check that {seen.dialect} firmware and its web page run there{list_so}")
