"""Switches before miners that have no stop command: a contactor behind a Modbus coil, or an outlet of a rack's PDU.

    modbus://HOST[:502]/UNIT?coil=N[&off=1]     a coil that is on while the miner has power; off=1 turns that round
    http://HOST[:80]/OUTLET?pdu=NAME            outlet number OUTLET of a PDU, spoken to as the profile NAME says

Invariants: what a switch was told proves nothing, its state is read back; a switch that cannot be read is unknown,
never off.
"""

from pathlib import Path
from typing import Final, Protocol
from urllib.parse import parse_qsl, urlsplit

from agent.cgminer.client import DEFAULT_DEADLINES, Address, Deadlines
from agent.cgminer.credentials import Credentials
from agent.errors import BadInput
from agent.modbus import ModbusHost, ModbusHosts
from agent.outlets.pdu import PduOutlet
from agent.outlets.profiles import load_profile
from sitelink.meter_source import HOST, MAP_NAME
from sitelink.units import Watts

_FORM: Final = "write modbus://HOST:PORT/UNIT?coil=N or http://HOST:PORT/OUTLET?pdu=NAME"
_LAST_COIL: Final = 0xFFFF


class Outlet(Protocol):
    """One switch."""

    async def switch(self, *, on: bool) -> None:
        """Switch it; returning proves nothing. Raises AgentError."""
        ...

    async def is_on(self) -> bool:
        """Return whether it is on. Raises AgentError."""
        ...

    async def power_w(self) -> Watts | None:
        """Return what flows through it; None where it does not measure. Raises AgentError."""
        ...

    def close(self) -> None:
        """Let go of the connections to it."""
        ...


class CoilOutlet:
    """A contactor whose relay is a Modbus coil."""

    def __init__(self, host: ModbusHost, unit: int, coil: int, *, off_when_set: bool, timeout_s: float) -> None:
        self._host = host
        self._unit = unit
        self._coil = coil
        self._off_when_set = off_when_set
        self._timeout_s = timeout_s

    async def switch(self, *, on: bool) -> None:
        """Switch it. Raises as ``ModbusHost.write_coil``.

        Source: Modbus Application Protocol 1.1b3, function 5.
        """
        await self._host.write_coil(self._unit, self._coil, self._timeout_s, on=on is not self._off_when_set)

    async def is_on(self) -> bool:
        """Return whether it is on. Raises as ``ModbusHost.coil``."""
        return await self._host.coil(self._unit, self._coil, self._timeout_s) is not self._off_when_set

    async def power_w(self) -> Watts | None:
        """Return None: a relay measures nothing."""
        return None

    def close(self) -> None:
        """Close the connections to its address; others who use it open new ones."""
        self._host.close()


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
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _bad(url, "is not an address") from None
    asked = dict(parse_qsl(parts.query, keep_blank_values=True))
    host = parts.hostname or ""
    if parts.scheme not in ("modbus", "http") or not HOST.fullmatch(host) or port == 0 or parts.username is not None:
        raise _bad(url, "names no switch")
    if parts.scheme == "modbus":
        return _coil(url, hosts.at(host, port or 502), parts.path, asked, deadlines.first_byte_s)
    if set(asked) != {"pdu"} or not MAP_NAME.fullmatch(asked["pdu"]):
        raise _bad(url, "does not say which PDU it is")
    number = _whole(url, parts.path.strip("/"), 0, 9999)
    profile = load_profile(asked["pdu"], profiles)
    return PduOutlet(profile, number, Address(host, port or 80), credentials, deadlines)


def _coil(url: str, host: ModbusHost, path: str, asked: dict[str, str], timeout_s: float) -> CoilOutlet:
    if "coil" not in asked or not set(asked) <= {"coil", "off"} or asked.get("off", "0") not in ("0", "1"):
        raise _bad(url, "does not say which coil it is")
    unit, coil = _whole(url, path.strip("/"), 0, 255), _whole(url, asked["coil"], 0, _LAST_COIL)
    return CoilOutlet(host, unit, coil, off_when_set=asked.get("off") == "1", timeout_s=timeout_s)


def _whole(url: str, text: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 6 or not low <= int(text) <= high:
        raise _bad(url, f"{text!r} is not between {low} and {high}")
    return int(text)


def _bad(url: str, cause: str) -> BadInput:
    return BadInput(f"inventory.csv: outlet: {url!r} {cause}; {_FORM}")
