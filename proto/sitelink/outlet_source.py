"""The switch before a miner, as inventory.csv writes it in ``outlet``. Pure.

    modbus://HOST[:502]/UNIT?coil=N[&off=1]     a coil that is on while the miner has power; off=1 turns that round
    http://HOST[:80]/OUTLET?pdu=NAME            outlet number OUTLET of a PDU, spoken to as the profile NAME says
    ...&wiring=checked                          a person has seen that it switches this miner and no other

Invariant: two texts that name one switch have the same ``switch``, whatever else they say.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from sitelink.meter_source import HOST, MAP_NAME

OUTLET_FORM: Final = "write modbus://HOST:PORT/UNIT?coil=N or http://HOST:PORT/OUTLET?pdu=NAME"
_LAST_COIL: Final = 0xFFFF
_LAST_OUTLET: Final = 9999
_LAST_UNIT: Final = 255
_WIRING: Final = "wiring"


class BadOutlet(ValueError):
    """The text names no switch; the message is the cause."""


@dataclass(frozen=True, slots=True)
class CoilSource:
    """A contactor behind a Modbus coil. ``wiring_checked``: a person vouches for what it feeds."""

    host: str
    port: int
    unit: int
    coil: int
    off_when_set: bool = False
    wiring_checked: bool = False

    @property
    def switch(self) -> str:
        """Return the name of the switch, the same however it is written."""
        return f"coil {self.coil} of unit {self.unit} at {self.host.lower()}:{self.port}"


@dataclass(frozen=True, slots=True)
class PduSource:
    """One outlet of a PDU. ``wiring_checked``: a person vouches for what it feeds."""

    host: str
    port: int
    number: int
    profile: str
    wiring_checked: bool = False

    @property
    def switch(self) -> str:
        """Return the name of the switch, the same however it is written."""
        return f"outlet {self.number} of the PDU at {self.host.lower()}:{self.port}"


OutletSource = CoilSource | PduSource


def parse_outlet(url: str) -> OutletSource:
    """Return the switch that ``url`` names.

    Raises:
        BadOutlet: it names none.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadOutlet(f"{url!r} is not an address") from None
    if parts.username is not None:
        raise BadOutlet("it has a user in it, and a password has no place here: ballast-agent credentials set pdu")
    named = HOST.fullmatch(parts.hostname or "") and port != 0 and not parts.fragment
    if parts.scheme not in ("modbus", "http") or not named:
        raise BadOutlet(f"{url!r} names no switch")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    asked = dict(pairs)
    if len(asked) < len(pairs):
        raise BadOutlet(f"{url!r} says something twice")
    if asked.get(_WIRING, "checked") != "checked":
        raise BadOutlet(f"{url!r}: {_WIRING} is {asked[_WIRING]!r} and not checked")
    checked = asked.pop(_WIRING, None) is not None
    return (_coil if parts.scheme == "modbus" else _pdu)(url, parts, port, asked, checked=checked)


def _coil(url: str, parts: SplitResult, port: int | None, asked: dict[str, str], *, checked: bool) -> CoilSource:
    if "coil" not in asked or not set(asked) <= {"coil", "off"} or asked.get("off", "0") not in ("0", "1"):
        raise BadOutlet(f"{url!r} does not say which coil it is")
    return CoilSource(
        str(parts.hostname),
        port or 502,
        _whole(url, parts.path.strip("/"), _LAST_UNIT),
        _whole(url, asked["coil"], _LAST_COIL),
        off_when_set=asked.get("off") == "1",
        wiring_checked=checked,
    )


def _pdu(url: str, parts: SplitResult, port: int | None, asked: dict[str, str], *, checked: bool) -> PduSource:
    if set(asked) != {"pdu"} or not MAP_NAME.fullmatch(asked["pdu"]):
        raise BadOutlet(f"{url!r} does not say which PDU it is")
    number = _whole(url, parts.path.strip("/"), _LAST_OUTLET)
    return PduSource(str(parts.hostname), port or 80, number, asked["pdu"], wiring_checked=checked)


def _whole(url: str, text: str, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) > most:
        raise BadOutlet(f"{url!r}: {text!r} is not between 0 and {most}")
    return int(text)
