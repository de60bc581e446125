"""One device's TCP port: one request a connection, then the server closes; transport faults happen here.

Invariants: a device that is dead has no socket at all (the kernel refuses); every socket is on loopback; a request
is answered once it is complete, which for JSON means balanced braces and for plain text the first packet.

      accept -> bytes -> Dialect.answer -> spoil -> terminator -> deliver (at once, in chunks, 20 byte/s, never)
"""

import asyncio
import errno
import socket
import struct

from simulator.bounds import is_loopback
from simulator.dialects.rpc import Dialect
from simulator.errors import SimulatorError
from simulator.faults import TERMINATORS, spoil
from simulator.miner import Miner

_IDLE_S = 10.0
_REQUEST_BYTES = 65_536
_DRIP_BYTES, _DRIP_S = 4, 0.2
_CHUNK_BYTES, _CHUNK_S = 97, 0.002
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def bind(host: str, port: int, backlog: int = 128) -> socket.socket:
    """Return a listening socket on a loopback address.

    Raises:
        SimulatorError: the address is not loopback, is taken, or cannot be bound.
    """
    if not is_loopback(host):
        raise SimulatorError(f"cannot listen on {host}: the simulator serves only loopback; give a 127.x.y.z address")
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        raise SimulatorError(f"cannot listen on {host}:{port}: {_cause(error)}") from None
    return listening


def _cause(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the address is in use; stop what runs there or give another address"
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return "too many open files; raise the limit with `ulimit -n`"
    if error.errno == errno.EACCES:
        return "no permission; give a port above 1023"
    return error.strerror or str(error)


class DeviceListener:
    """The port of one miner. Faults that concern the socket itself take effect in ``apply``."""

    def __init__(self, miner: Miner, dialect: Dialect) -> None:
        self.miner = miner
        self.dialect = dialect
        self.polls = 0
        self._server: asyncio.Server | None = None
        self._stuck: list[socket.socket] = []
        self._open: set[_Connection] = set()

    async def apply(self) -> None:
        """Open, close or jam the port as the miner's fault wants it."""
        if self.miner.has("dead"):
            await self.close()
        elif self.miner.has("no_accept"):
            await self.close()
            self._jam()
        else:
            self._unjam()
            if self._server is None:
                place = self.miner.place
                listening = bind(place.host, place.port)
                self._server = await asyncio.get_running_loop().create_server(self._connection, sock=listening)

    async def close(self) -> None:
        """Close the port and every connection on it."""
        self._unjam()
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in tuple(self._open):
            connection.abort()

    def reply(self, request: bytes, client: str) -> bytes:
        """Return everything to be sent for ``request``, spoiled as the fault wants it."""
        self.polls += 1
        fault = self.miner.fault
        document = self.dialect.answer(self.miner, request, client)
        if fault is not None and fault.kind == "garbage":
            document = spoil(fault.detail, document)
        if fault is not None and fault.kind in TERMINATORS:
            return document + TERMINATORS[fault.kind]
        return document + self.dialect.terminator if document else document

    def _connection(self) -> "_Connection":
        return _Connection(self)

    def note(self, connection: "_Connection", *, is_open: bool) -> None:
        """Keep track of live connections."""
        if is_open:
            self._open.add(connection)
        else:
            self._open.discard(connection)

    def _jam(self) -> None:
        """Listen with a full queue, so that the kernel leaves further connection attempts unanswered."""
        place = self.miner.place
        self._stuck = [bind(place.host, place.port, backlog=0)]
        for _ in range(2):
            filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            filler.connect_ex((place.host, place.port))
            self._stuck.append(filler)

    def _unjam(self) -> None:
        for stuck in self._stuck:
            stuck.close()
        self._stuck = []


class _Connection(asyncio.Protocol):
    """One connection to a device."""

    __slots__ = ("_buffer", "_client", "_idle", "_listener", "_rest", "_transport")

    def __init__(self, listener: DeviceListener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._rest = b""
        self._client = ""
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if peer else ""
        self._listener.note(self, is_open=True)
        if not self._listener.miner.has("black_holed"):
            self._idle = asyncio.get_running_loop().call_later(_IDLE_S, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._stop_idle()
        self._transport = None
        self._listener.note(self, is_open=False)

    def data_received(self, data: bytes) -> None:
        if self._listener.miner.has("black_holed") or self._rest:
            return
        self._buffer += data
        if len(self._buffer) > _REQUEST_BYTES:
            self.abort()
        elif self._complete():
            self._answer()

    def eof_received(self) -> bool:
        if self._listener.miner.has("black_holed"):
            return True
        if self._buffer:
            self._answer()
            return True
        return bool(self._rest)

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _complete(self) -> bool:
        text = self._buffer.lstrip()
        if not text.startswith(b"{"):
            return bool(text)
        return text.count(b"{") == text.count(b"}")

    def _answer(self) -> None:
        assert self._transport is not None
        self._stop_idle()
        request, self._buffer = self._buffer, b""
        miner = self._listener.miner
        if miner.has("hang_up"):
            self._transport.close()
            return
        reply = self._listener.reply(request, self._client)
        if miner.has("slow_drip"):
            self._send_piecewise(reply, _DRIP_BYTES, _DRIP_S)
        elif miner.has("split_chunks"):
            self._send_piecewise(reply, _CHUNK_BYTES, _CHUNK_S)
        elif miner.has("reset"):
            self._transport.write(reply[: len(reply) // 2])
            self._reset()
        else:
            self._transport.write(reply)
            self._transport.close()

    def _send_piecewise(self, reply: bytes, size: int, pause_s: float) -> None:
        if self._transport is None:
            return
        self._transport.write(reply[:size])
        self._rest = reply[size:]
        if self._rest:
            asyncio.get_running_loop().call_later(pause_s, self._send_piecewise, self._rest, size, pause_s)
        else:
            self._transport.close()

    def _reset(self) -> None:
        assert self._transport is not None
        raw = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def _stop_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
