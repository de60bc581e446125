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

from agent.cgminer.control.driver import ReadBack
from agent.cgminer.control.read_back import shows_set
from agent.cgminer.device import Device
from agent.cgminer.sections import Row, rows_of, whole
from agent.cgminer.status import Status
from agent.errors import Refused, Transient, UnsupportedDevice
from sitelink.types import Verb
from sitelink.verbs import Pool

_SWITCH_TRIES: Final = 4
_SWITCH_S: Final = 0.25
"""A switch shows once the new pool has answered; until then the old one cannot be removed."""

_MOST_WAITS: Final = 5
"""New pools that do not show after so many looks are gone, and added again."""


class PoolChange:
    """One miner's change of pools. An order that is sent again goes on where it stands, rather than from the start."""

    def __init__(self, *, escapes: bool = False) -> None:
        """``escapes``: a backslash before a comma is understood."""
        self._escapes = escapes
        self._added: tuple[Pool, ...] | None = None
        self._waits = 0

    async def replace(self, device: Device, wanted: tuple[Pool, ...]) -> None:
        """Make ``wanted`` the only pools, first choice first.

        Raises:
            Transient: it does not answer, or does not leave its old pool. AccessDenied: writing is not allowed to us.
            UnsupportedDevice: it refuses. Refused: a value cannot be written in this firmware's form.
        """
        self._waits += 1
        if self._added != wanted or self._waits > _MOST_WAITS:
            added = [",".join(_written(device, part, self._escapes) for part in pool) for pool in wanted]
            await _add(device, added)
            self._added, self._waits = wanted, 0
        await _leave_old(device, wanted)
        self._added = None


async def _add(device: Device, added: Sequence[str]) -> None:
    """Take out all pools but the one it works for, and add the new ones behind it."""
    rows = await _pools(device)
    working = _working(rows)
    for row in reversed(rows):
        if row is not working:
            await _tell(device, "removepool", str(_number_of(row)))
    for parameter in added:
        await _tell(device, "addpool", parameter)


async def _leave_old(device: Device, wanted: Sequence[Pool]) -> None:
    """Switch to the first of the new pools and take out whatever stands before them."""
    rows = await _pools(device)
    new = rows[-len(wanted) :]
    if [_names(row) for row in new] != [_wanted_names(pool) for pool in wanted]:
        raise Transient(f"{device.address}: does not show its new pools yet; it is looked at again")
    old = rows[: -len(wanted)]
    if not old:
        return
    await _tell(device, "switchpool", str(_number_of(new[0])))
    for row in reversed(old):
        await _remove(device, row)


async def _remove(device: Device, row: Mapping[str, Any]) -> None:
    for _ in range(_SWITCH_TRIES):
        status = await _ask(device, "removepool", str(_number_of(row)))
        if status.accepted:
            return
        await asyncio.sleep(_SWITCH_S)
    raise Transient(
        f"{device.address}: does not leave its old pool: {status.text}; are the new ones reachable from it?"
    )


async def shows_pools(device: Device, wanted: Sequence[Pool]) -> ReadBack:
    """Return whether the device's pools are the wanted ones, in their order of priority."""
    rows = sorted(await _pools(device), key=lambda row: (whole(row.get("Priority")) or 0, _number_of(row)))
    as_wanted = [_names(row) for row in rows] == [_wanted_names(pool) for pool in wanted]
    return shows_set(Verb.POOLS, as_wanted)


def _names(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row.get("URL", "")).rstrip("/"), str(row.get("User", ""))


def _wanted_names(pool: Pool) -> tuple[str, str]:
    return pool.url.rstrip("/"), pool.user


def _working(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((row for row in rows if row.get("Stratum Active") is True), rows[0] if rows else None)


async def _pools(device: Device) -> list[Row]:
    return rows_of((await device.ask("pools")).get("POOLS"))


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
