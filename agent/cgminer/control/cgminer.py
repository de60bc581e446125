"""Any other CGMiner: what its own API documents, and no more.

    STOP START   ascdisable, ascenable (pgadisable, pgaenable) for each device: those that were enabled before
    POOLS        addpool, switchpool, removepool, then save
    BLINK        ascidentify: the lamp flashes for four seconds and cannot be read back
    REBOOT       restart: the program alone, which its uptime shows; it enables every device again

Invariants: nothing is guessed. CGMiner shows no power, so the miner alone proves no stop. The right to write is asked
for before the first device is told, so that none is left half stopped. Its ``quit`` is never sent: it leaves a miner
that nobody can start again over the network.

Source: cgminer API-README (asc*, pga*, privileged, check, restart; api-allow, api-groups).
"""

import json
import logging
from dataclasses import dataclass
from typing import Final

from agent.cgminer.control.asked import blink_asked, pools_asked
from agent.cgminer.control.commanded import refuse_while_stopped, shows_commanded_stop
from agent.cgminer.control.driver import ReadBack, Shown, Wanted
from agent.cgminer.control.kept import kept_in
from agent.cgminer.control.read_back import shows_rebooted, shows_started
from agent.cgminer.control.rpc_pools import PoolChange, shows_pools
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.cgminer.sections import rows_of, whole
from agent.cgminer.status import Status
from agent.errors import Transient, UnsupportedDevice
from sitelink.types import Evidence, Verb

_LOG: Final = logging.getLogger(__name__)
_VERBS: Final = frozenset({Verb.STOP, Verb.START, Verb.POOLS, Verb.BLINK, Verb.REBOOT})
_KINDS: Final = ("ASC", "PGA")
_SWITCHES: Final = {Verb.STOP: "disable", Verb.START: "enable"}
_POOL_COMMANDS: Final = ("addpool", "switchpool", "removepool")
_LET_US_WRITE: Final = "let this gateway write: put it into the miner's api-allow list with W: before its address"
_FIND_IT: Final = "find it by rack and position"
_LAMP_UNKNOWN: Final = ReadBack(Shown.NOT_YET, Evidence.NONE, "lamp_unknown")


@dataclass(frozen=True, slots=True)
class _Part:
    """One device of a rig: an ASC or a PGA, by the number that its commands take."""

    kind: str
    number: int
    enabled: bool

    @property
    def name(self) -> str:
        return f"{self.kind} {self.number}"

    def command(self, verb: str) -> str:
        return self.kind.lower() + verb


class CgMiner:
    """Control of one miner that is known only to speak CGMiner's API."""

    def __init__(self) -> None:
        self._pools = PoolChange(escapes=True)

    @property
    def verbs(self) -> frozenset[Verb]:
        """Return what CGMiner's own API can be told."""
        return _VERBS

    async def former(self, device: Device, wanted: Wanted) -> str:
        """Return the pools before new ones, or which devices a stop disables; empty where none is enabled."""
        if wanted.verb is Verb.POOLS:
            return json.dumps({"pools": (await device.ask("pools")).get("POOLS")})
        if wanted.verb is not Verb.STOP:
            return ""
        enabled = [part.name for part in await _parts(device) if part.enabled]
        return json.dumps({"enabled": enabled}) if enabled else ""

    def joined(self, earlier: str, found: str) -> str:
        """See ``JoinsFormers.joined``: a stop that some devices did not take was sent again for these alone."""
        return json.dumps({"enabled": list(dict.fromkeys((*_enabled_in(earlier), *_enabled_in(found))))})

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        """See ``Driver.send``."""
        match wanted.verb:
            case Verb.STOP:
                await _switch(device, Verb.STOP, [part for part in await _parts(device) if part.enabled])
            case Verb.START:
                await _switch(device, Verb.START, _to_enable(await _parts(device), former))
            case Verb.BLINK:
                await _blink(device, on=blink_asked(wanted))
            case Verb.REBOOT:
                await _restart(device)
            case _:
                await self._set_pools(device, wanted)
        return b""

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        """See ``Driver.shows``. Without a power figure a stop stays ``power_unknown``: a meter must prove it."""
        match wanted.verb:
            case Verb.STOP:
                told = not any(part.enabled for part in await _parts(device))
                seen = await device.observe()
                found = shows_commanded_stop(seen, before, told=told, otherwise="not_stopped")
                unproven = found.shown is Shown.DONE and seen.power_w is None
                return ReadBack(Shown.NOT_YET, found.evidence, "power_unknown") if unproven else found
            case Verb.START:
                return shows_started(await device.observe())
            case Verb.BLINK:
                return _LAMP_UNKNOWN
            case Verb.REBOOT:
                found = shows_rebooted(await device.observe(), before)
                restarted = ReadBack(Shown.DONE, found.evidence, "program_restarted")
                return restarted if found.shown is Shown.DONE else found
            case _:
                return await shows_pools(device, pools_asked(wanted))

    async def _set_pools(self, device: Device, wanted: Wanted) -> None:
        pools = pools_asked(wanted)
        await _check_rights(device, *_POOL_COMMANDS)
        await self._pools.replace(device, pools)
        status = Status.of(await device.ask("save"))
        if not status.accepted:
            _LOG.warning("%s: works for its new pools, but forgets them at a restart: %s", device.address, status.text)


async def _parts(device: Device) -> list[_Part]:
    """Return the devices of the rig. Raises Transient while it lists none, UnsupportedDevice where it never will."""
    reply = await device.ask("devs")
    status, rows = Status.of(reply), rows_of(reply.get("DEVS"))
    status.raise_if_denied(device.address)
    kinds = [(next((kind for kind in _KINDS if kind in row), ""), row) for row in rows]
    found = [
        _Part(kind, whole(row[kind]) or 0, str(row.get("Enabled", "")).upper() != "N") for kind, row in kinds if kind
    ]
    if found:
        return found
    if rows or status.unknown_command:
        raise UnsupportedDevice(f"{device.address}: lists no ASC and no PGA that could be told; give it an outlet")
    raise Transient(f"{device.address}: lists no devices now; it is asked again")


def _to_enable(parts: list[_Part], former: str) -> list[_Part]:
    """Return what a start enables: what the stop has disabled, else whatever is disabled."""
    off = [part for part in parts if not part.enabled]
    kept = _enabled_in(former)
    return [part for part in off if part.name in kept] or off


def _enabled_in(former: str) -> list[str]:
    """Return the names of the devices that were enabled before a stop, as far as they were kept."""
    kept = kept_in(former).get("enabled")
    return [name for name in kept if isinstance(name, str)] if isinstance(kept, list) else []


async def _switch(device: Device, verb: Verb, parts: list[_Part]) -> None:
    """Tell each of ``parts``. Raises Transient for those that do not take it, once all have been told."""
    commands = [part.command(_SWITCHES[verb]) for part in parts]
    opposite = _SWITCHES[Verb.START if verb is Verb.STOP else Verb.STOP]
    await _check_rights(device, *dict.fromkeys(commands), *dict.fromkeys(part.command(opposite) for part in parts))
    refused = ""
    for part, command in zip(parts, commands, strict=True):
        status = await _told(device, command, part)
        refused = refused if status.accepted else f"does not {_SWITCHES[verb]} {part.name}: {status.text}"
    if refused:
        raise Transient(f"{device.address}: {refused}; it is told again")


async def _blink(device: Device, *, on: bool) -> None:
    if not on:
        raise UnsupportedDevice(f"{device.address}: its lamp goes out by itself; nothing is there to end")
    parts = await _parts(device)
    await _check_rights(device, *dict.fromkeys(part.command("identify") for part in parts))
    told = [await _told(device, part.command("identify"), part) for part in parts]
    if not any(status.letter in "SI" and status.accepted for status in told):
        raise UnsupportedDevice(f"{device.address}: {told[0].text}; {_FIND_IT}")


async def _restart(device: Device) -> None:
    stopped = not any(part.enabled for part in await _parts(device))
    refuse_while_stopped(stopped, device.address, "a restart of its cgminer")
    await _check_rights(device, "restart")
    status = Status.of(await device.ask("restart"))
    status.raise_if_denied(device.address, _LET_US_WRITE)
    if status.letter in ("E", "F"):
        raise UnsupportedDevice(f"{device.address}: refuses restart: {status.text}; restart it on its host")


async def _told(device: Device, command: str, part: _Part) -> Status:
    status = Status.of(await device.ask(command, str(part.number)))
    status.raise_if_denied(device.address, _LET_US_WRITE)
    if status.unknown_command:
        raise UnsupportedDevice(
            f"{device.address}: its cgminer has no {command}; give it an outlet, or a newer cgminer"
        )
    return status


async def _check_rights(device: Device, *commands: str) -> None:
    """Return when we may send ``commands``, as far as the miner says. Raises AccessDenied, with what to do."""
    status = Status.of(await device.ask("privileged"))
    if not status.denied:
        return
    for command in commands:  # a group of its own may have just these
        rows = rows_of((await device.ask("check", command)).get("COMMAND"))
        if not rows or rows[0].get("Access") != "Y":
            status.raise_if_denied(device.address, _LET_US_WRITE)
