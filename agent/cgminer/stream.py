"""One connection to a miner's web page or framed API, read and written under deadlines.

Invariants:

* Nothing waits longer than its deadline: connect 1 s, first byte 2 s after the request, the whole exchange 5 s.
* What goes wrong is told in the words of ``client``, so that one outage reads the same on every wire.
* A connection that the other side has closed meanwhile says so before it is used again (``is_open``).
"""

import asyncio
import errno
import socket
from collections.abc import Awaitable
from typing import Final, TypeVar

from agent.cgminer.client import Address, Deadlines, cause_of, without_socket
from agent.errors import NoWay, TimedOut, TooLarge, Unreachable
from agent.names import locate

_OUR_OWN: Final = frozenset({errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM})
"""What keeps this machine from asking; EHOSTUNREACH is not of them: so is told of a miner that is off."""
_CHUNK_BYTES: Final = 65_536
_T = TypeVar("_T")


class Limits:
    """The limits of one exchange that begins now: how long it and each of its steps may take, and how much may come."""

    def __init__(self, address: Address, deadlines: Deadlines) -> None:
        self.deadlines = deadlines
        self._now = asyncio.get_running_loop().time
        self._address = address
        self._ends_at = self._now() + deadlines.total_s
        self._answer_by = self._ends_at
        self._awaits_first_byte = False

    async def connected(self, step: Awaitable[_T]) -> _T:
        """Wait for a connection. Raises Unreachable when it takes too long."""
        limit = self.deadlines.connect_s
        try:
            async with asyncio.timeout_at(min(self._now() + limit, self._ends_at)):
                return await step
        except TimeoutError:
            raise Unreachable(f"{self._address}: no connection within {limit:g} s; is the miner on?") from None

    def asked(self) -> None:
        """Note that a request is on its way: its first byte is due."""
        self._awaits_first_byte = True
        self._answer_by = min(self._now() + self.deadlines.first_byte_s, self._ends_at)

    def answered(self) -> None:
        """Note that the answer has begun: it may take the rest of the exchange."""
        self._awaits_first_byte = False
        self._answer_by = self._ends_at

    def check_size(self, size: int) -> None:
        """Raise TooLarge when a reply of ``size`` bytes is beyond the cap."""
        if size > self.deadlines.cap_bytes:
            raise TooLarge(f"{self._address}: the reply exceeds {self.deadlines.cap_bytes} bytes; not a miner?")

    async def in_time(self, step: Awaitable[_T]) -> _T:
        """Wait for a step of the exchange. Raises TimedOut when it takes too long."""
        try:
            async with asyncio.timeout_at(self._answer_by):
                return await step
        except TimeoutError:
            deadlines = self.deadlines
            if self._awaits_first_byte:
                limit, what = min(deadlines.first_byte_s, deadlines.total_s), "no answer"
            else:
                limit, what = deadlines.total_s, "the reply did not end"
            raise TimedOut(f"{self._address}: {what} within {limit:g} s; it is tried again") from None


class Stream:
    """One connection. ``used`` says whether an answer has come over it already."""

    def __init__(self, address: Address, connection: socket.socket) -> None:
        self._address = address
        self._socket = connection
        self.used = False

    @classmethod
    async def open(cls, address: Address, limits: Limits) -> "Stream":
        """Connect.

        Raises:
            NoWay: this machine knows no such name, has no network or no socket left.
            Unreachable: nobody answers there in time.
        """
        family, target = await locate(address.host, address.port, limits.deadlines.connect_s)
        try:
            connection = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise without_socket(address, error) from None
        connection.setblocking(False)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await limits.connected(asyncio.get_running_loop().sock_connect(connection, target))
        except OSError as error:
            connection.close()
            cause = cause_of(error)
            if error.errno in _OUR_OWN:
                raise NoWay(f"{address}: {cause}; check this machine's network") from None
            raise Unreachable(f"{address}: {cause}; is the miner on and its API enabled?") from None
        except BaseException:
            connection.close()
            raise
        return cls(address, connection)

    def is_open(self) -> bool:
        """Return whether the other side has neither closed the connection nor said anything unasked."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    async def send(self, data: bytes, limits: Limits) -> None:
        """Send all of ``data``. Raises Unreachable, TimedOut."""
        try:
            await limits.in_time(asyncio.get_running_loop().sock_sendall(self._socket, data))
        except OSError as error:
            raise self._broken(error) from None

    async def receive(self, limits: Limits) -> bytes:
        """Return what comes next, nothing at the end. Raises Unreachable, TimedOut."""
        try:
            return await limits.in_time(asyncio.get_running_loop().sock_recv(self._socket, _CHUNK_BYTES))
        except OSError as error:
            raise self._broken(error) from None

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close()

    def __del__(self) -> None:
        self.close()

    def _broken(self, error: OSError) -> Unreachable:
        return Unreachable(f"{self._address}: broke the connection ({cause_of(error)}); it is tried again")
