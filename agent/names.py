"""Hosts to addresses: an IP address is one already; a name is looked up, on threads that nobody ever waits for.

Invariant: a resolver that does not answer holds up neither the event loop nor the end of the process. asyncio's own
lookup does the latter: it takes the loop's pool, which is waited for at the end, and a resolver's patience is longer
than any deadline of ours. At most a few lookups are under way in the whole process; the others wait.
"""

import asyncio
import socket
from functools import lru_cache, partial
from typing import Final

from agent.aside import Aside
from agent.errors import NoWay

_RESOLVERS: Final = Aside(16, "names")
"""The process's one pool: what it bounds is the machine's, whoever asks."""


async def locate(host: str, port: int, within_s: float) -> tuple[int, tuple[str, int]]:
    """Return family and target to connect to. Raises NoWay when a name is not known, or not in time."""
    family = literal_family(host)
    if family is not None:
        return family, (host, port)
    try:
        async with asyncio.timeout(within_s):
            found = await _RESOLVERS.run(partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM))
    except TimeoutError:
        raise NoWay(f"{host}:{port}: the host name was not found in time; write an IP address") from None
    except (OSError, UnicodeError):
        raise NoWay(f"{host}:{port}: the host name is not known; write an IP address or check the DNS") from None
    # Miners and meters speak IPv4; a name's IPv6 address is tried only where it has no other.
    family, _, _, _, target = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, (str(target[0]), int(target[1]))


@lru_cache(maxsize=65_536)
def literal_family(host: str) -> int | None:
    """Return the address family of an IP address, None for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return family
    return None
