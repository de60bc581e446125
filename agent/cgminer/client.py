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
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from agent.errors import TimedOut, TooLarge, Unreachable

DEFAULT_PORT: Final = 4028
_SILENCE_S: Final = 0.05
_CLOSERS: Final = (b"}", b"]", b"|")


class Address(NamedTuple):
    """Where a miner's API listens. ``host`` is an IP address or a name."""

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long each part of an exchange may take, and how long a reply may be."""

    connect_s: float = 1.0
    first_byte_s: float = 2.0
    total_s: float = 5.0
    cap_bytes: int = 262_144


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
        Unreachable: no connection, or it broke before a reply came.
        TimedOut: the reply did not start or did not end in time.
        TooLarge: the reply exceeds ``deadlines.cap_bytes``.

    Source: cgminer API-README; framing as seen in the field (reference/devices.md, section 1).
    """
    if extra is None and parameter is None:
        return await exchange(address, _plain_request(command), deadlines)
    document: dict[str, object] = {"command": command}
    if parameter is not None:
        document["parameter"] = parameter
    return await exchange(address, _encoded({**document, **(extra or {})}), deadlines)


async def exchange(address: Address, request: bytes, deadlines: Deadlines = DEFAULT_DEADLINES) -> bytes:
    """Send ``request`` as it is and return the reply without its terminator. Raises as ``query`` does."""
    loop = asyncio.get_running_loop()
    conversation = _Conversation(loop, address, request, deadlines)
    timer = loop.call_later(deadlines.connect_s, conversation.connecting_too_long)
    connecting = asyncio.ensure_future(_connect(loop, conversation, address))
    conversation.connecting = connecting
    try:
        await connecting
    except asyncio.CancelledError:
        if not conversation.gave_up:
            raise
        raise Unreachable(f"{address}: no connection within {deadlines.connect_s:g} s; is the miner on?") from None
    except OSError as error:
        raise Unreachable(f"{address}: {_cause(error)}; is the miner on and its API enabled?") from None
    finally:
        timer.cancel()
    try:
        return await conversation.reply
    finally:
        conversation.close()


async def _connect(loop: asyncio.AbstractEventLoop, conversation: "_Conversation", address: Address) -> None:
    await loop.create_connection(lambda: conversation, address.host, address.port)


class _Conversation(asyncio.Protocol):
    """One request and its reply on one connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: Address, request: bytes, deadlines: Deadlines) -> None:
        self._loop = loop
        self._address = address
        self._request = request
        self._deadlines = deadlines
        self._started_at = loop.time()
        self._chunks: list[bytes] = []
        self._size = 0
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None
        self.connecting: asyncio.Future[None] | None = None
        self.gave_up = False
        self.reply: asyncio.Future[bytes] = loop.create_future()

    def connecting_too_long(self) -> None:
        self.gave_up = True
        if self.connecting is not None:
            self.connecting.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)
        self._timer = self._loop.call_later(self._deadlines.first_byte_s, self._too_late)

    def data_received(self, data: bytes) -> None:
        if self.reply.done():
            return
        if not self._chunks:
            self._restart_timer()
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

    def connection_lost(self, exc: Exception | None) -> None:
        if self.reply.done():
            return
        if self._chunks and exc is None:
            self._finish()
        else:
            how = "closed the connection without an answer" if exc is None else f"broke the connection ({_cause(exc)})"
            self._fail(Unreachable(f"{self._address}: {how}; it is tried again"))

    def close(self) -> None:
        for timer in (self._timer, self._silence):
            if timer is not None:
                timer.cancel()
        self._timer = self._silence = None
        if self._transport is not None:
            self._transport.abort()

    def _restart_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._started_at + self._deadlines.total_s, self._too_late)

    def _fell_silent(self) -> None:
        """End a reply whose sender neither terminates nor closes, if what came is whole."""
        self._silence = None
        joined = b"".join(self._chunks)
        if joined.rstrip().endswith(b"|") or _is_document(joined):
            self._finish()

    def _too_late(self) -> None:
        if self._chunks:
            cause = f"the reply did not end within {self._deadlines.total_s:g} s"
        else:
            cause = f"no answer within {self._deadlines.first_byte_s:g} s"
        self._fail(TimedOut(f"{self._address}: {cause}; it is tried again"))

    def _finish(self) -> None:
        if not self.reply.done():
            self.reply.set_result(self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks))

    def _fail(self, error: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)


def _is_document(reply: bytes) -> bool:
    try:
        json.loads(reply.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def _cause(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error).lower() or type(error).__name__


@lru_cache(maxsize=256)
def _plain_request(command: str) -> bytes:
    return _encoded({"command": command})


def _encoded(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
