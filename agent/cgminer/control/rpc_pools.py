"""Pools over CGMiner's own commands: take out the spare ones, add the wanted, switch, take out the last old one.

    old: A B C (A works)   remove C, B -> A   add X, Y -> A X Y   switch X -> A X Y (X works)   remove A -> X Y

Invariants: at each moment at least one pool is there to work for, so a process that dies midway leaves a miner that
works, and the next attempt begins from whatever it finds. Pools are numbered anew after each removal, so they are read
again. A pool's password cannot be read back; that it is as wanted rests on the device having taken it.

Source: cgminer API-README: pools, addpool, removepool, switchpool, save.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent.cgminer.control.asked import Pool
from agent.cgminer.control.driver import ReadBack
from agent.cgminer.control.read_back import shows
from agent.cgminer.device import Device
from agent.cgminer.sections import whole
from agent.cgminer.status import Status
from agent.errors import Refused, Transient, UnsupportedDevice

_SWITCH_TRIES: Final = 8
_SWITCH_S: Final = 0.5
"""A switch shows once the new pool has answered; until then the old one cannot be removed."""


async def replace_pools(device: Device, wanted: Sequence[Pool], *, escapes: bool = False) -> None:
    """Make ``wanted`` the only pools, first choice first. ``escapes``: a backslash before a comma is understood.

    Raises:
        Transient: it does not answer, or does not leave its old pool. AccessDenied: writing is not allowed to us.
        UnsupportedDevice: it refuses. Refused: a value cannot be written in this firmware's form.
    """
    added = [",".join(_written(device, part, escapes) for part in pool) for pool in wanted]
    rows = await _pools(device)
    working = next((row for row in rows if row.get("Stratum Active") is True), rows[0] if rows else None)
    for row in reversed(rows):
        if row is not working:
            await _tell(device, "removepool", str(_number_of(row)))
    for parameter in added:
        await _tell(device, "addpool", parameter)
    if working is not None:
        await _leave(device, len(wanted))


async def _leave(device: Device, wanted: int) -> None:
    """Switch from the one old pool to the first of the ``wanted`` new ones behind it, and remove the old one."""
    rows = await _pools(device)
    old, first = rows[-wanted - 1 : -wanted], rows[-wanted:][:1]
    if not old or not first:
        raise Transient(f"{device.address}: shows other pools than it was given; it is tried again")
    await _tell(device, "switchpool", str(_number_of(first[0])))
    for _ in range(_SWITCH_TRIES):
        status = await _ask(device, "removepool", str(_number_of(old[0])))
        if status.accepted:
            return
        await asyncio.sleep(_SWITCH_S)
    raise Transient(
        f"{device.address}: does not leave its old pool: {status.text}; are the new ones reachable from it?"
    )


async def shows_pools(device: Device, wanted: Sequence[Pool]) -> ReadBack:
    """Return whether the device's pools are the wanted ones, in their order of priority."""
    rows = sorted(await _pools(device), key=lambda row: (whole(row.get("Priority")) or 0, _number_of(row)))
    found = [(str(row.get("URL", "")).rstrip("/"), str(row.get("User", ""))) for row in rows]
    return shows(
        found == [(pool.url.rstrip("/"), pool.user) for pool in wanted], "pools_as_wanted", "pools_not_as_wanted"
    )


async def _pools(device: Device) -> list[Mapping[str, Any]]:
    rows = (await device.ask("pools")).get("POOLS")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _number_of(row: Mapping[str, Any]) -> int:
    return whole(row.get("POOL")) or 0


def _written(device: Device, part: str, escapes: bool) -> str:
    if escapes:
        return part.replace("\\", "\\\\").replace(",", "\\,")
    if "," in part:
        raise Refused("bad_parameters", f"{device.address}: cannot be told a pool with a comma in it; write it without")
    return part


async def _tell(device: Device, command: str, parameter: str) -> None:
    status = await _ask(device, command, parameter)
    if not status.accepted:
        raise UnsupportedDevice(f"{device.address}: refuses {command}: {status.text}; set its pools on its own page")


async def _ask(device: Device, command: str, parameter: str) -> Status:
    status = Status.of(await device.ask(command, parameter))
    status.raise_if_denied(device.address)
    return status
