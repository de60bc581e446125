"""The site's miners as its files mean them: who may never be touched, who can be switched, and how each is reached.

Invariants: daemon and failsafe take these answers from here alone, so that neither touches whom the other spares; what
is opened on the way to a miner or meter belongs to one ``Fleet``, which closes it.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.control import Former, MinerControl
from agent.cgminer.control.drivers import driver_of
from agent.cgminer.control.outlet import OutletControl
from agent.cgminer.device import Device
from agent.errors import BadInput
from agent.exotic import DIALECT as EXOTIC
from agent.exotic import ExoticDevice, Reader, is_installed
from agent.meters import Meter, meter_of
from agent.modbus import ModbusHosts
from agent.outlets import Outlet, outlet_of, source_of
from agent.settings import Settings
from agent.vault import Vault
from agent.vault.rotation import VaultControl
from sitelink.clock import Clock
from sitelink.inventory import MeterEntry, MinerEntry
from sitelink.miners import AUTO

_PDUS: Final = "pdu"


def untouchable(settings: Settings, inventory: tuple[MinerEntry, ...]) -> frozenset[str]:
    """Return the inventory's own form of each id that no order may touch, however it is written.

    Raises:
        BadInput: one is not in the inventory: a misspelt id would protect nobody.
    """
    known = {entry.miner_id.lower(): entry.miner_id for entry in inventory}
    for miner_id in settings.limits.never_touch:
        if miner_id.lower() not in known:
            raise BadInput(
                f"{settings.source}: [limits] never_touch: {miner_id!r} is not in {settings.site.inventory.name}; "
                "write the id as the inventory has it"
            )
    return frozenset(known[miner_id.lower()] for miner_id in settings.limits.never_touch)


def switchable(entry: MinerEntry) -> bool:
    """Return whether the miner can be stopped and started: by its firmware, once that is known, or by its outlet."""
    return entry.controllable or entry.dialect == AUTO


def check_extras(settings: Settings, inventory: tuple[MinerEntry, ...]) -> None:
    """Raise BadInput when a miner needs an extra of ours that is not installed."""
    needing = next((entry.miner_id for entry in inventory if entry.dialect == EXOTIC), None)
    if needing is not None and not is_installed():
        raise BadInput(
            f"{settings.site.inventory.name}: {needing}: the dialect {EXOTIC} needs an extra; "
            f"install this agent's own wheel file with it: pip install './ballast_agent-VERSION.whl[{EXOTIC}]'"
        )


def meters_of(entries: tuple[MeterEntry, ...], settings: Settings, hosts: ModbusHosts, clock: Clock) -> list[Meter]:
    """Return the site's meters; their own register maps lie in ``meter_maps`` beside the list.

    Raises:
        BadInput: a meter's register map is missing or wrong.
    """
    return [meter_of(entry, hosts, clock, maps_of(settings)) for entry in entries]


def maps_of(settings: Settings) -> Path:
    """Return the site's own folder of register maps."""
    return settings.site.meters.parent / "meter_maps"


class Fleet:
    """What a site's miners, outlets and meters are reached through; whoever makes it closes it.

    Nothing is opened before it is first asked.
    """

    def __init__(self, settings: Settings, clock: Clock, vault: Vault) -> None:
        """``vault`` has what opens miners and PDUs; ``clock`` measures what miners are waited for."""
        self._settings = settings
        self._clock = clock
        self._vault = vault
        self._hosts = ModbusHosts()
        self._exotic = Reader(clock)
        self._open: list[Device | Outlet] = []
        self._meters: list[Meter] = []

    def devices(self, entries: Iterable[MinerEntry]) -> dict[str, Device]:
        """Return the miners by id, each at its address, read as the settings say, opened by what the vault has."""
        devices = {entry.miner_id: self._device(entry) for entry in entries}
        self._open += devices.values()
        return devices

    def meters(self, entries: tuple[MeterEntry, ...], clock: Clock) -> list[Meter]:
        """Return the site's meters, their samples stamped by ``clock``. Raises as ``meters_of``."""
        meters = meters_of(entries, self._settings, self._hosts, clock)
        self._meters += meters
        return meters

    def outlet_before(self, entry: MinerEntry) -> Outlet | None:
        """Return the switch before the miner, None where there is none; the vault's group ``pdu`` opens PDUs.

        Profiles of the site's own lie in ``pdu_profiles`` beside the inventory.

        Raises:
            BadInput: the inventory names no switch that we know.
        """
        if not entry.outlet:
            return None
        profiles = self._settings.site.inventory.parent / "pdu_profiles"
        outlet = outlet_of(entry.outlet, self._hosts, self._vault.group(_PDUS), profiles)
        self._open.append(outlet)
        return outlet

    def outlets(
        self, entries: Iterable[MinerEntry], complain: Callable[[str], None]
    ) -> tuple[tuple[MinerEntry, ...], dict[str, Outlet]]:
        """Return the miners, and by id the switches before them.

        One that cannot be used is complained of, and its miner returned without it: no reason to leave the others.
        """
        found: list[MinerEntry] = []
        outlets: dict[str, Outlet] = {}
        for entry in entries:
            try:
                outlet = self.outlet_before(entry)
            except BadInput as error:
                complain(f"{entry.miner_id}: {error}; going on without its outlet")
                found.append(replace(entry, outlet=""))
                continue
            found.append(entry)
            if outlet is not None:
                outlets[entry.miner_id] = outlet
        return tuple(found), outlets

    def control(
        self, entry: MinerEntry, device: Device, former: Former, outlet: Outlet | None
    ) -> MinerControl | OutletControl:
        """Return the control of the miner at ``device``, which whoever reads it uses too: one request at a time.

        ``former`` keeps what a start restores; ``outlet`` is the switch before it, if any.
        """
        drivers = partial(driver_of, whatsminer_password=self._settings.control.whatsminer_password)
        control = VaultControl(entry, device, former, drivers, self._vault)
        if outlet is None:
            return control
        wired = source_of(entry.outlet).wiring_checked
        return OutletControl(control, device, entry.miner_id, outlet, wiring_checked=wired)

    async def aclose(self) -> None:
        """Close every connection that is kept, and end the process that reads exotic miners. Safe to repeat."""
        for each in self._open:
            each.close()
        for meter in self._meters:
            await meter.close()
        self._hosts.close()
        await self._exotic.close()

    def _device(self, entry: MinerEntry) -> Device:
        poll = self._settings.poll
        address, access = Address(entry.host, entry.port), self._vault.credentials(entry)
        deadlines = Deadlines(poll.connect_s, poll.first_byte_s, poll.total_s, poll.cap_bytes)
        if entry.dialect == EXOTIC:
            return ExoticDevice(
                address, self._exotic, self._clock, miner_id=entry.miner_id, credentials=access, deadlines=deadlines
            )
        return Device(
            address,
            entry.dialect,
            self._clock,
            miner_id=entry.miner_id,
            web_port=entry.web_port,
            credentials=access,
            deadlines=deadlines,
        )
