"""Where a device answers: a host name, or an address in its one form. Pure.

Invariant: one address has one form, however it was written, so that two devices at it are seen; what only looks like
an address is refused, because whoever resolves it might find another one (``10.0.0.010`` is 10.0.0.8 to some).
"""

import ipaddress
import re
from typing import Final

_NUMBERS: Final = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)(?:\.(?:0[xX][0-9A-Fa-f]*|[0-9]+))*\.?")
"""What a resolver takes for an IPv4 address, in whichever old way of writing one."""


class BadAddress(ValueError):
    """The text is neither a name nor an address."""


def one_form(host: str) -> str:
    """Return ``host``, an address in its shortest form; a name stays as it is.

    Raises:
        BadAddress: it is written like an address and is none.
    """
    if ":" not in host and not _NUMBERS.fullmatch(host):
        return host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise BadAddress(f"{host!r} is no address") from None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
