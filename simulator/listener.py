"""One TCP port of a device, in any of its protocols; transport faults happen here.

Invariants: a device that is dead or rebooting has no socket at all (the kernel refuses); every socket is on loopback;
a request is answered once it is complete, and requests on one connection are answered in their order.

      accept -> bytes -> Speech.cut -> Speech.answer -> deliver (at once, late, in chunks, 20 byte/s, never)
"""

import asyncio
import errno
import socket
import struct

from simulator.bounds import is_loopback
from simulator.errors import SimulatorError
from simulator.speech import Answer, Speech

_IDLE_S = 10.0
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
    """One port of one miner. Faults that concern the socket itself take effect in ``apply``."""

    __slots__ = ("_open", "_port", "_server", "_stuck", "polls", "speech")

    def __init__(self, speech: Speech, port: int) -> None:
        self.speech = speech
        self.polls = 0
        self._port = port
        self._server: asyncio.Server | None = None
        self._stuck: list[socket.socket] = []
        self._open: set[_Connection] = set()

    @property
    def is_open(self) -> bool:
        """Return whether the port accepts connections."""
        return self._server is not None

    async def apply(self) -> None:
        """Open, close or jam the port as the miner's fault wants it."""
        miner = self.speech.miner
        if miner.has("dead") or miner.away:
            await self.close()
        elif miner.has("no_accept"):
            await self.close()
            self._jam()
        else:
            self._unjam()
            if self._server is None:
                listening = bind(miner.place.host, self._port)
                self._server = await asyncio.get_running_loop().create_server(self._connection, sock=listening)

    async def close(self) -> None:
        """Close the port and every connection on it."""
        self._unjam()
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in tuple(self._open):
            connection.abort()

    def answer(self, request: bytes, client: str) -> Answer:
        """Return what is to be sent for ``request``, once everything due until now has happened to the miner."""
        self.polls += 1
        self.speech.miner.advance(self.speech.miner.time.seconds())
        return self.speech.answer(request, client)

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
        host = self.speech.miner.place.host
        self._stuck = [bind(host, self._port, backlog=0)]
        for _ in range(2):
            filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            filler.connect_ex((host, self._port))
            self._stuck.append(filler)

    def _unjam(self) -> None:
        for stuck in self._stuck:
            stuck.close()
        self._stuck = []


class _Connection(asyncio.Protocol):
    """One connection to a device. While an answer is being delivered, what comes in waits in the buffer."""

    __slots__ = ("_buffer", "_busy", "_client", "_ended", "_idle", "_listener", "_transport")

    def __init__(self, listener: DeviceListener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._busy = False
        self._ended = False
        self._client = ""
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if peer else ""
        self._listener.note(self, is_open=True)
        self._start_idle()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._stop_idle()
        self._transport = None
        self._listener.note(self, is_open=False)

    def data_received(self, data: bytes) -> None:
        if self._listener.speech.miner.has("black_holed"):
            return
        self._buffer += data
        if len(self._buffer) > self._listener.speech.most_bytes:
            self.abort()
        else:
            self._next()

    def eof_received(self) -> bool:
        if self._listener.speech.miner.has("black_holed"):
            return True
        self._ended = True
        self._next()
        return self._busy

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _next(self) -> None:
        """Answer the first request in the buffer, if one is complete and none is being answered."""
        while not self._busy and self._transport is not None and not self._transport.is_closing():
            found = self._listener.speech.cut(self._buffer, at_end=self._ended)
            if found is None:
                if self._ended:
                    self._transport.close()
                return
            request, self._buffer = found[0], bytearray(found[1])
            self._stop_idle()
            self._busy = True
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        assert self._transport is not None
        miner = self._listener.speech.miner
        if miner.has("hang_up"):
            self._transport.close()
            return
        answer = self._listener.answer(request, self._client)
        fault = miner.fault
        if fault is not None and fault.kind == "slow_reply":
            asyncio.get_running_loop().call_later(fault.seconds, self._deliver, answer)
        else:
            self._deliver(answer)

    def _deliver(self, answer: Answer) -> None:
        if self._transport is None:
            return
        miner = self._listener.speech.miner
        if miner.has("slow_drip"):
            self._send_piecewise(answer, _DRIP_BYTES, _DRIP_S)
        elif miner.has("split_chunks"):
            self._send_piecewise(answer, _CHUNK_BYTES, _CHUNK_S)
        elif miner.has("reset"):
            self._transport.write(answer.data[: len(answer.data) // 2])
            self._reset()
        else:
            self._transport.write(answer.data)
            self._done(answer)

    def _send_piecewise(self, answer: Answer, size: int, pause_s: float) -> None:
        if self._transport is None:
            return
        self._transport.write(answer.data[:size])
        rest = Answer(answer.data[size:], answer.keep)
        if rest.data:
            asyncio.get_running_loop().call_later(pause_s, self._send_piecewise, rest, size, pause_s)
        else:
            self._done(answer)

    def _done(self, answer: Answer) -> None:
        assert self._transport is not None
        self._busy = False
        if not answer.keep:
            self._transport.close()
            return
        self._start_idle()
        asyncio.get_running_loop().call_soon(self._next)

    def _reset(self) -> None:
        assert self._transport is not None
        raw = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def _start_idle(self) -> None:
        if not self._listener.speech.miner.has("black_holed"):
            self._idle = asyncio.get_running_loop().call_later(_IDLE_S, self.abort)

    def _stop_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
