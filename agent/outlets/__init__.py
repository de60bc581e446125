"""Switches before miners that have no stop command: a contactor behind a Modbus coil, or an outlet of a rack's PDU.

Invariants: what a switch was told proves nothing, its state is read back; a switch that cannot be read is unknown,
never off. How each is written stands in ``sitelink.outlet_source``.
"""

from pathlib import Path

from agent.cgminer.client import DEFAULT_DEADLINES, Address, Deadlines
from agent.cgminer.control.outlet import Outlet as Outlet
from agent.cgminer.credentials import Credentials
from agent.errors import BadInput
from agent.modbus import ModbusHost, ModbusHosts
from agent.outlets.pdu import PduOutlet
from agent.outlets.profiles import load_profile
from sitelink.outlet_source import OUTLET_FORM, BadOutlet, CoilSource, OutletSource, parse_outlet
from sitelink.units import Watts


class CoilOutlet:
    """A contactor whose relay is a Modbus coil."""

    def __init__(self, source: CoilSource, host: ModbusHost, timeout_s: float) -> None:
        self._source = source
        self._host = host
        self._timeout_s = timeout_s

    async def switch(self, *, on: bool) -> None:
        """Switch it. Raises as ``ModbusHost.write_coil``.

        Source: Modbus Application Protocol 1.1b3, function 5.
        """
        source = self._source
        await self._host.write_coil(source.unit, source.coil, self._timeout_s, on=on is not source.off_when_set)

    async def is_on(self) -> bool:
        """Return whether it is on. Raises as ``ModbusHost.coil``."""
        source = self._source
        return await self._host.coil(source.unit, source.coil, self._timeout_s) is not source.off_when_set

    async def power_w(self) -> Watts | None:
        """Return None: a relay measures nothing."""
        return None

    def close(self) -> None:
        """Close the connections to its address; others who use it open new ones."""
        self._host.close()


def source_of(url: str) -> OutletSource:
    """Return the switch that ``url`` names. Raises BadInput when it names none."""
    try:
        return parse_outlet(url)
    except BadOutlet as error:
        raise BadInput(f"inventory.csv: outlet: {error}; {OUTLET_FORM}") from None


def outlet_of(
    url: str,
    hosts: ModbusHosts,
    credentials: Credentials | None = None,
    profiles: Path | None = None,
    deadlines: Deadlines = DEFAULT_DEADLINES,
) -> Outlet:
    """Return the switch that ``url`` names; ``credentials`` open a PDU, ``profiles`` is the site's own folder of them.

    Raises:
        BadInput: the url names none, or its profile is missing or wrong.
    """
    source = source_of(url)
    if isinstance(source, CoilSource):
        return CoilOutlet(source, hosts.at(source.host, source.port), deadlines.first_byte_s)
    profile = load_profile(source.profile, profiles)
    return PduOutlet(profile, source.number, Address(source.host, source.port), credentials, deadlines)
