"""The doctor's look at the switches before miners: is each usable, and does it say whether it is on. Switches none."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from agent.doctor.finding import Finding, bad, ok, warn
from agent.errors import AgentError, BadInput
from agent.fleet import Fleet
from agent.inventory import load_usable
from agent.outlets import Outlet, source_of
from agent.settings import Settings
from agent.vault import Vault
from sitelink.clock import Clock
from sitelink.inventory import MinerEntry

_AT_ONCE: Final = 32
_WITHIN_S: Final = 10.0
_SHOWN: Final = 5
_NAMELESS: Final = frozenset({"innosilicon"})
"""Firmwares that tell no name by which their miner could be known."""


def outlets(settings: Settings, clock: Clock) -> Iterator[Finding]:
    """Return which outlets cannot be used, and which do not answer."""
    try:
        fleet, complaints = load_usable(settings.site.inventory)
    except BadInput:
        return  # what is wrong with the list stands under inventory
    for complaint in complaints:
        yield bad("outlets", complaint, "correct the cell; until then the agent goes on without this outlet")
    behind = [entry for entry in fleet if entry.outlet]
    unchecked = [
        entry.miner_id for entry in behind if entry.dialect in _NAMELESS and not source_of(entry.outlet).wiring_checked
    ]
    if unchecked:
        what = f"{len(unchecked)} before miners that tell no name, so none is switched: {_some(unchecked)}"
        yield warn("outlets", what, "see that each switches its miner and no other; then add wiring=checked to it")
    if behind:
        yield from asyncio.run(_looked_at(behind, settings, clock))


async def _looked_at(behind: Sequence[MinerEntry], settings: Settings, clock: Clock) -> list[Finding]:
    fleet = Fleet(settings, clock, Vault.open(settings))
    found: list[Finding] = []

    def complain(cause: str) -> None:
        found.append(bad("outlets", cause, "correct outlet in inventory.csv, or write that profile"))

    _, switches = fleet.outlets(behind, complain)
    turn = asyncio.Semaphore(_AT_ONCE)
    looks = {name: asyncio.create_task(_trouble(outlet, turn)) for name, outlet in switches.items()}
    try:
        if looks:
            await asyncio.wait(looks.values(), timeout=_WITHIN_S)
        late = [name for name, look in looks.items() if not look.done()]
        troubles = {name: look.result() for name, look in looks.items() if look.done() and look.result()}
    finally:
        for look in looks.values():
            look.cancel()
        await asyncio.gather(*looks.values(), return_exceptions=True)
        await fleet.aclose()
    for name, trouble in list(troubles.items())[:_SHOWN]:
        found.append(bad("outlets", f"{name}: {trouble}", "its miner cannot be switched until its outlet answers"))
    if len(troubles) > _SHOWN:
        found.append(bad("outlets", f"{len(troubles) - _SHOWN} more do not answer", "mend the first ones, look again"))
    if late:
        what = f"{len(late)} not looked at within {_WITHIN_S:g} s: {_some(late)}"
        found.append(warn("outlets", what, "mend those that do not answer, and look again"))
    answer = len(switches) - len(troubles) - len(late)
    return [*found, ok("outlets", f"{answer} of {len(behind)} say whether they are on")]


async def _trouble(outlet: Outlet, turn: asyncio.Semaphore) -> str:
    async with turn:
        try:
            await outlet.is_on()
        except AgentError as error:
            return str(error)
    return ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
