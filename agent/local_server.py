"""Serves the daemon's local socket: who may ask, how many at once, and that nobody who asks or reads holds it up.

    one line in --read, checked--> ask(request) --> lines out, and a beat each second in between

Invariants: only this user and root are heard; one request a connection, read within a deadline and a cap. At most
``_MOST`` connections wait to ask: the one that has waited longest makes room for the next. At most ``_MOST`` are
answered, the next is told so at once; orders have as many places of their own, so that no watcher keeps one out. A
client that does not read is cut off and holds up nothing; whatever is sent here, the daemon goes on.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Final

from agent.errors import AgentError, BadInput, Refused
from agent.local_socket import BEAT_S, CAP_BYTES, SOCKET_NAME, Garbage, decoded, encoded, listening, peer_uid, welcome

_LOG: Final = logging.getLogger(__name__)
_MOST: Final = 8
_REQUEST_S: Final = 5.0
_SEND_S: Final = 5.0
_NO_DOOR_S: Final = 10.0

Answer = Mapping[str, Any]
Ask = Callable[[Answer], AsyncGenerator[Answer, None]]


class LocalServer:
    """Serves the socket of one ``state_dir``: each of ``asks`` by its name; those of ``first`` are the orders."""

    def __init__(self, state_dir: Path, asks: Mapping[str, Ask], first: frozenset[str]) -> None:
        self._state_dir = state_dir
        self._asks = asks
        self._first = first
        self._waiting: dict[asyncio.StreamWriter, None] = {}
        self._answering = Counter[bool]()

    async def run(self) -> None:
        """Serve until cancelled. The caller holds the state lock."""
        server = await self._door()
        try:
            async with server:
                await server.serve_forever()
        finally:
            with suppress(OSError):
                (self._state_dir / SOCKET_NAME).unlink()

    async def _door(self) -> asyncio.Server:
        """Listen, once the folder takes a socket; until then, why it does not is said."""
        while True:
            try:
                return await asyncio.start_unix_server(self._serve, sock=listening(self._state_dir), limit=CAP_BYTES)
            except OSError as error:
                _LOG.error(
                    "%s: cannot be made: %s; failsafe and doctor cannot speak to this daemon; move away what lies "
                    "there, it is tried again each %.0f s",
                    self._state_dir / SOCKET_NAME,
                    error.strerror,
                    _NO_DOOR_S,
                )
            await asyncio.sleep(_NO_DOOR_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection, whatever comes through it."""
        try:
            await self._answer(reader, writer)
        except (OSError, TimeoutError, EOFError) as error:
            _LOG.debug("local socket: a client went away: %s", error)
        except Exception:  # noqa: BLE001 - the supervisor of one connection: a bug costs one answer, not the daemon
            _LOG.exception("local socket: a request failed on a defect of ours")
        finally:
            with suppress(OSError, RuntimeError):  # uvloop raises the latter where the connection is gone
                if writer.transport.get_write_buffer_size():
                    writer.transport.abort()  # it does not read: what is left for it is dropped
                writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = peer_uid(writer.get_extra_info("socket"))
        if not welcome(uid):
            _LOG.warning("local socket: user %d is not heard; only this daemon's user and root are", uid)
            return
        try:
            request = decoded(await self._asked(reader, writer))
            ask = self._asks.get(str(request.get("ask")))
            if ask is None:
                raise Garbage(f"it knows no {str(request.get('ask'))[:40]!r}; it knows {', '.join(self._asks)}")
        except (Garbage, asyncio.LimitOverrunError, asyncio.IncompleteReadError) as error:
            await _send(writer, _error("bad_request", str(error)))
            return
        first = request["ask"] in self._first
        if self._answering[first] >= _MOST:
            await _send(writer, _error("busy", f"{_MOST} others are being answered; try again"))
            return
        self._answering[first] += 1
        try:
            await self._stream(ask(request), writer)
        finally:
            self._answering[first] -= 1

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Return the line that asks. Whoever waits longest without asking makes room for one more."""
        if len(self._waiting) >= _MOST:
            idle = next(iter(self._waiting))
            del self._waiting[idle]
            idle.transport.abort()
        self._waiting[writer] = None
        try:
            async with asyncio.timeout(_REQUEST_S):
                return await reader.readuntil(b"\n")
        finally:
            self._waiting.pop(writer, None)

    async def _stream(self, answers: AsyncGenerator[Answer, None], writer: asyncio.StreamWriter) -> None:
        """Send what comes of a request, and a beat each second in between."""
        turn = asyncio.Lock()

        async def beat() -> None:
            with suppress(OSError, TimeoutError):  # the client went away: whoever answers it finds that, too
                while True:
                    await asyncio.sleep(BEAT_S)
                    async with turn:
                        await _send(writer, {"beat": 1})

        beating = asyncio.create_task(beat())
        try:
            async with aclosing(answers):
                async for answer in answers:
                    async with turn:
                        await _send(writer, answer)
        except AgentError as error:
            async with turn:
                await _send(writer, _error(_code_of(error), str(error)))
        finally:
            beating.cancel()
            await asyncio.wait({beating})


def _error(code: str, message: str) -> Answer:
    return {"error": {"code": code, "message": message}}


def _code_of(error: AgentError) -> str:
    if isinstance(error, Refused):
        return error.code
    return "bad_request" if isinstance(error, BadInput) else "failed"


async def _send(writer: asyncio.StreamWriter, answer: Answer) -> None:
    """Send one line. Raises OSError or TimeoutError when the client is gone or does not read."""
    try:
        writer.write(encoded(answer))
    except RuntimeError as error:  # uvloop's word for a connection that is gone
        raise ConnectionResetError(str(error)) from None
    async with asyncio.timeout(_SEND_S):
        await writer.drain()
