"""The one place that opens sockets to miners: one request, one reply, one connection.

Invariants:

* Nothing waits longer than its deadline (connect 1 s, first byte 2 s, whole reply 5 s), and no reply grows beyond the
  cap.
* A reply ends at a NUL byte, at end of stream, or, for devices that send neither, when the document is complete and
  the line has fallen silent. A newline alone never ends it: some replies are pretty-printed.

      connect ----> request ----> first byte ----> ... NUL | FIN | complete and silent
      |<- connect_s ->|<- first_byte_s ->|
      |<--------------- total_s ------------------------------>|
"""

import asyncio
import errno
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from agent.errors import AgentError, NoWay, TimedOut, TooLarge, Unreachable
from agent.names import literal_family, locate
from sitelink.miners import RPC_PORT

_SILENCE_S: Final = 0.05
_CHUNK_BYTES: Final = 65_536
_SETTING_TIMES: Final = 10.0
"""20 s to the first byte where a reading has 2 s."""
_LOG_TIMES: Final = 15.0
_LOG_CAP_BYTES: Final = 8_388_608
_IMAGE_TIMES: Final = 120.0
"""4 min to the first byte, 10 min in all."""
_CLOSERS: Final = (b"}", b"]", b"|")


class Address(NamedTuple):
    """Where a miner's API listens. ``host`` is an IP address or a name."""

    host: str
    port: int = RPC_PORT

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long each part of an exchange may take, and how long a reply may be.

    ``transfer`` says that it takes minutes as a rule: nothing else waits for it.
    """

    connect_s: float = 1.0
    first_byte_s: float = 2.0
    total_s: float = 5.0
    cap_bytes: int = 262_144
    transfer: bool = False

    def longer(self, times: float, cap_bytes: int | None = None, *, transfer: bool = False) -> "Deadlines":
        """Return the deadlines of what takes ``times`` as long as a reading, and of an answer of ``cap_bytes``."""
        cap_bytes = self.cap_bytes if cap_bytes is None else cap_bytes
        return Deadlines(self.connect_s, times * self.first_byte_s, times * self.total_s, cap_bytes, transfer)

    def for_setting(self) -> "Deadlines":
        """Return those of a changed setting: a device that restarts its miner to take it answers only afterwards."""
        return self.longer(_SETTING_TIMES)

    def for_log(self) -> "Deadlines":
        """Return those of a log, which is put together while it is asked for."""
        return self.longer(_LOG_TIMES, _LOG_CAP_BYTES, transfer=True)

    def for_image(self) -> "Deadlines":
        """Return those of a firmware image, which is checked and written before it is answered.

        What takes longer still is looked at all the same.
        """
        return self.longer(_IMAGE_TIMES, transfer=True)


DEFAULT_DEADLINES: Final = Deadlines()


async def query(
    address: Address,
    command: str,
    parameter: str | None = None,
    deadlines: Deadlines = DEFAULT_DEADLINES,
    extra: Mapping[str, object] | None = None,
) -> bytes:
    """Send ``command`` as a CGMiner JSON request and return the reply without its terminator.

    ``command`` may be several joined with ``+``. ``extra`` adds top-level keys (Bitmain's ``new_api``).

    Raises:
        Transient: this machine has no socket left.
        Unreachable: no connection, or it broke before a reply came.
        TimedOut: the reply did not start or did not end in time.
        TooLarge: the reply exceeds ``deadlines.cap_bytes``.

    Source: cgminer API-README; framing as seen in the field (docs/devices.md).
    """
    if extra is None and parameter is None:
        return await exchange(address, _plain_request(command), deadlines)
    told = {} if parameter is None else {"parameter": parameter}
    return await exchange(address, request_of(command, {**told, **(extra or {})}), deadlines)


async def exchange(address: Address, request: bytes, deadlines: Deadlines = DEFAULT_DEADLINES) -> bytes:
    """Send ``request`` as it is and return the reply without its terminator. Raises as ``query`` does."""
    loop = asyncio.get_running_loop()
    conversation = _Conversation(loop, address, request, deadlines)
    try:
        family = literal_family(address.host)
        if family is None:
            family, target = await locate(address.host, address.port, deadlines.connect_s)
        else:
            target = (address.host, address.port)
        conversation.connect(family, target)
        return await conversation.reply
    finally:
        conversation.close()


class _Conversation:
    """One request and its reply on one connection, straight on a non-blocking socket.

    A transport and its protocol would cost as much again as all the rest of a poll; one timer serves all deadlines.
    """

    __slots__ = (
        "_address",
        "_chunks",
        "_deadline",
        "_deadlines",
        "_loop",
        "_reading",
        "_silence",
        "_size",
        "_socket",
        "_started_at",
        "_timer",
        "_to_send",
        "_writing",
        "reply",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, address: Address, request: bytes, deadlines: Deadlines) -> None:
        self._loop = loop
        self._address = address
        self._to_send = request
        self._deadlines = deadlines
        self._started_at = loop.time()
        self._deadline = self._started_at + min(deadlines.connect_s, deadlines.total_s)
        self._chunks: list[bytes] = []
        self._size = 0
        self._socket: socket.socket | None = None
        self._reading = self._writing = False
        self._timer: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None
        self.reply: asyncio.Future[bytes] = loop.create_future()

    def connect(self, family: int, target: tuple[str, int]) -> None:
        """Begin; the outcome arrives in ``reply``."""
        self._timer = self._loop.call_at(self._deadline, self._check_deadline)
        try:
            self._socket = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            self._fail(without_socket(self._address, error))
            return
        self._socket.setblocking(False)
        code = self._socket.connect_ex(target)
        if code == 0:
            self._connected()
        elif code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._writing = True
            self._loop.add_writer(self._socket.fileno(), self._writable)
        else:
            self._fail_to_connect(code)

    def close(self) -> None:
        """Let go of the socket and the timers."""
        for timer in (self._timer, self._silence):
            if timer is not None:
                timer.cancel()
        self._timer = self._silence = None
        if self._socket is not None:
            if self._writing:
                self._loop.remove_writer(self._socket.fileno())
            if self._reading:
                self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _writable(self) -> None:
        assert self._socket is not None
        if not self._reading:
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._fail_to_connect(code)
                return
            self._connected()
        else:
            self._send()

    def _connected(self) -> None:
        assert self._socket is not None
        limits = self._deadlines
        self._deadline = min(self._loop.time() + limits.first_byte_s, self._started_at + limits.total_s)
        self._send()
        self._reading = True
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def _send(self) -> None:
        assert self._socket is not None
        try:
            self._to_send = self._to_send[self._socket.send(self._to_send) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._break(error)
        if bool(self._to_send) != self._writing:
            self._writing = not self._writing
            if self._writing:
                self._loop.add_writer(self._socket.fileno(), self._writable)
            else:
                self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(error)
            return
        if not data:
            self._end_of_stream()
        elif not self.reply.done():
            self._take(data)

    def _take(self, data: bytes) -> None:
        if not self._chunks:
            self._deadline = self._started_at + self._deadlines.total_s
        end = data.find(0)
        if end >= 0:
            self._chunks.append(data[:end])
            self._finish()
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size > self._deadlines.cap_bytes:
            self._fail(TooLarge(f"{self._address}: the reply exceeds {self._deadlines.cap_bytes} bytes; not a miner?"))
            return
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        if data.rstrip().endswith(_CLOSERS):
            self._silence = self._loop.call_later(_SILENCE_S, self._fell_silent)

    def _end_of_stream(self) -> None:
        if self._chunks:
            self._finish()
        else:
            self._fail(Unreachable(f"{self._address}: closed the connection without an answer; it is tried again"))

    def _fell_silent(self) -> None:
        """End a reply whose sender neither terminates nor closes, if what came is whole."""
        self._silence = None
        joined = b"".join(self._chunks)
        if joined.rstrip().endswith(b"|") or _is_document(joined):
            self._finish()

    def _check_deadline(self) -> None:
        """Give up when the deadline now in force has passed, else wait for it; it moves with each step taken."""
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._check_deadline)
        elif not self._reading:
            limit = self._deadlines.connect_s
            self._fail(Unreachable(f"{self._address}: no connection within {limit:g} s; is the miner on?"))
        elif self._chunks:
            limit = self._deadlines.total_s
            self._fail(TimedOut(f"{self._address}: the reply did not end within {limit:g} s; it is tried again"))
        else:
            limit = min(self._deadlines.first_byte_s, self._deadlines.total_s)
            self._fail(TimedOut(f"{self._address}: no answer within {limit:g} s; it is tried again"))

    def _fail_to_connect(self, code: int) -> None:
        cause = os.strerror(code).lower()
        self._fail(Unreachable(f"{self._address}: {cause}; is the miner on and its API enabled?"))

    def _break(self, error: OSError) -> None:
        self._fail(Unreachable(f"{self._address}: broke the connection ({cause_of(error)}); it is tried again"))

    def _finish(self) -> None:
        if not self.reply.done():
            self.reply.set_result(self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks))

    def _fail(self, error: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)


def without_socket(address: Address, error: OSError) -> AgentError:
    """Return the error for a socket that this machine does not give."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return NoWay(
            f"{address}: not asked, because this machine's limit of open files is reached; "
            "raise it (ulimit -n) or lower concurrency in agent.toml"
        )
    return NoWay(f"{address}: {cause_of(error)}; check this machine's network")


def cause_of(error: OSError) -> str:
    """Return the system's words for an error, in lower case."""
    return os.strerror(error.errno).lower() if error.errno else "an error"


def _is_document(reply: bytes) -> bool:
    try:
        json.loads(reply.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return False
    return True


@lru_cache(maxsize=256)
def _plain_request(command: str) -> bytes:
    return request_of(command)


def request_of(command: str, extra: Mapping[str, object] | None = None) -> bytes:
    """Return a CGMiner JSON request. ``extra`` adds top-level keys."""
    return json.dumps({"command": command, **(extra or {})}, separators=(",", ":")).encode()
