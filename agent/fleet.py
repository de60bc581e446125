"""The site's miners as its files mean them: who may never be touched, who can be switched, and how each is reached.

Invariant: daemon and failsafe take these answers from here alone, so that neither touches whom the other spares.
"""

from collections.abc import Iterable
from functools import partial
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
from agent.outlets import Outlet, outlet_of
from agent.settings import Settings
from agent.vault import Vault
from agent.vault.rotation import VaultControl
from sitelink.clock import Clock
from sitelink.inventory import MeterEntry, MinerEntry

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
    return entry.controllable or entry.dialect == "auto"


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
    maps = settings.site.meters.parent / "meter_maps"
    return [meter_of(entry, hosts, clock, maps) for entry in entries]


def devices_of(entries: Iterable[MinerEntry], settings: Settings, clock: Clock, vault: Vault) -> dict[str, Device]:
    """Return the miners by id, each at its address, read as the settings say, opened by what the vault has for it."""
    exotic = Reader(clock)
    return {entry.miner_id: _device(entry, settings, clock, vault, exotic) for entry in entries}


def _device(entry: MinerEntry, settings: Settings, clock: Clock, vault: Vault, exotic: Reader) -> Device:
    poll = settings.poll
    address, access = Address(entry.host, entry.port), vault.credentials(entry)
    deadlines = Deadlines(poll.connect_s, poll.first_byte_s, poll.total_s, poll.cap_bytes)
    if entry.dialect == EXOTIC:
        return ExoticDevice(address, exotic, clock, miner_id=entry.miner_id, credentials=access, deadlines=deadlines)
    return Device(
        address,
        entry.dialect,
        clock,
        miner_id=entry.miner_id,
        web_port=entry.web_port,
        credentials=access,
        deadlines=deadlines,
    )


def outlet_before(entry: MinerEntry, settings: Settings, hosts: ModbusHosts, vault: Vault) -> Outlet | None:
    """Return the switch before the miner, None where there is none; the vault's group ``pdu`` opens PDUs.

    Profiles of the site's own lie in ``pdu_profiles`` beside the inventory.

    Raises:
        BadInput: the inventory names no switch that we know.
    """
    if not entry.outlet:
        return None
    profiles = settings.site.inventory.parent / "pdu_profiles"
    return outlet_of(entry.outlet, hosts, vault.group(_PDUS), profiles)


def control_of(
    entry: MinerEntry, device: Device, settings: Settings, former: Former, vault: Vault, outlet: Outlet | None
) -> MinerControl | OutletControl:
    """Return the control of the miner at ``device``, which whoever reads it uses too: one request at a time.

    ``former`` keeps what a start restores, ``vault`` its password; ``outlet`` is the switch before it, if any.
    """
    drivers = partial(driver_of, whatsminer_password=settings.control.whatsminer_password)
    control = VaultControl(entry, device, former, drivers, vault)
    return control if outlet is None else OutletControl(control, device, entry.miner_id, outlet)
