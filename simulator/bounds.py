"""What an option may say. Each refusal is one line that names the option, the cause and what to give instead. Pure.

Invariant: no number passes that is not a number, and no address that is not on loopback.
"""

import ipaddress
import re

from simulator.errors import BadInput

LAST_PORT = 65_535
_SITE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def check_range(option: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Refuse ``value`` outside ``low`` to ``high``; nan lies outside of everything.

    Raises:
        BadInput: as it says.
    """
    if not low <= value <= high:
        raise BadInput(f"{option}: {value} is out of range; give {low:g} to {high:g} {unit}".rstrip())


def check_site_id(option: str, site_id: str) -> None:
    """Refuse a site id that an agent would refuse.

    Raises:
        BadInput: as it says.
    """
    if not _SITE_ID.fullmatch(site_id):
        raise BadInput(f"{option}: {site_id!r} is not a site id; use small letters, digits and -, such as pecos-1")


def check_net(net: str) -> None:
    """Refuse a network that is not loopback.

    Raises:
        BadInput: ``net`` is not the first two bytes of 127.0.0.0/8.
    """
    if not is_loopback(f"{net}.0.1"):
        raise BadInput(f"--net: {net!r} is not a loopback network; give the first two bytes, such as 127.20")


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is an IPv4 address of 127.0.0.0/8."""
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False


def parse_listener(option: str, text: str) -> tuple[str, int]:
    """Return (host, port) of a ``HOST:PORT`` to listen at; port 0 is the kernel's choice.

    Raises:
        BadInput: it is something else, or not on loopback.
    """
    host, port = _split(option, text)
    if not is_loopback(host):
        raise BadInput(f"{option}: {host!r} is no loopback address; give one such as 127.0.0.1:8900")
    return host, port


def parse_target(option: str, text: str) -> tuple[str, int]:
    """Return (host, port) of a ``HOST:PORT`` to connect to.

    Raises:
        BadInput: it is something else.
    """
    host, port = _split(option, text)
    if port == 0:
        raise BadInput(f"{option}: nothing answers at port 0; give the port that is connected to")
    return host, port


def _split(option: str, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or len(port) > 5 or int(port) > LAST_PORT:
        raise BadInput(f"{option}: {text!r} is not HOST:PORT; give an address such as 127.0.0.1:8900")
    return host, int(port)
