"""Hosts to addresses: an IP address is one already; a name is looked up, on threads that nobody ever waits for.

Invariant: a resolver that does not answer holds up neither the event loop, nor its pool of threads, nor the end of the
process. asyncio's own lookup does the last two: it takes the loop's pool, which is waited for at the end, and a
resolver's patience is longer than any deadline of ours. At most a few lookups are under way in the whole process; the
others wait, and one whose asker has given up is not begun.
"""

import asyncio
import contextlib
import queue
import socket
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from agent.errors import Unreachable

_THREADS: Final = 16

Entry = tuple[int, Any, int, str, Any]
"""What ``getaddrinfo`` gives: family, kind, protocol, canonical name, address."""


class Resolver:
    """Looks names up."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[tuple[asyncio.Future[Sequence[Entry]], str, int]] = queue.SimpleQueue()
        self._threads = 0

    def look_up(self, host: str, port: int) -> "asyncio.Future[Sequence[Entry]]":
        """Return the addresses of ``host``, to be awaited under a deadline. Raises OSError, UnicodeError."""
        if self._threads < _THREADS:
            self._threads += 1
            threading.Thread(target=self._serve, name="names", daemon=True).start()
        found = asyncio.get_running_loop().create_future()
        self._asked.put((found, host, port))
        return found

    def _serve(self) -> None:
        while True:
            found, host, port = self._asked.get()
            if found.done():
                continue
            try:
                entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                _tell(found, error)
            else:
                _tell(found, entries)


_RESOLVER: Final = Resolver()
"""The process's one pool: what it bounds is the machine's, whoever asks."""


async def locate(host: str, port: int, within_s: float) -> tuple[int, tuple[str, int]]:
    """Return family and target to connect to. Raises Unreachable when a name is not known, or not in time."""
    family = literal_family(host)
    if family is not None:
        return family, (host, port)
    try:
        async with asyncio.timeout(within_s):
            found = await _RESOLVER.look_up(host, port)
    except TimeoutError:
        raise Unreachable(f"{host}:{port}: the host name was not found in time; write an IP address") from None
    except (OSError, UnicodeError):
        raise Unreachable(f"{host}:{port}: the host name is not known; write an IP address or check the DNS") from None
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


def _tell(found: "asyncio.Future[Sequence[Entry]]", outcome: Sequence[Entry] | Exception) -> None:
    def settle() -> None:
        if found.done():
            return
        if isinstance(outcome, Exception):
            found.set_exception(outcome)
        else:
            found.set_result(outcome)

    with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever asked
        found.get_loop().call_soon_threadsafe(settle)
