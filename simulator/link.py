"""A TCP proxy that is a bad network: cut, slow or half-open at a word.

Invariants: in ``up`` and ``delay`` bytes arrive complete and in order; whoever was connected during ``cut`` or
``half_open`` is reset at the latest when the mode ends, since bytes are missing from the stream; listening never
stops, so the address stays ours.

      agent -> listen ==[ up | delay | half_open | cut ]==> to -> cloud
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from simulator.httpd import ControlServer, RequestError
from simulator.listener import bind
from simulator.service import Service

_CHUNK_BYTES = 65_536
_CHUNKS_IN_FLIGHT = 64
_MAX_DELAY_MS = 600_000


class Mode(StrEnum):
    """What the link does: pass, reset everything, pass late, or swallow everything in silence."""

    UP = "up"
    CUT = "cut"
    DELAY = "delay"
    HALF_OPEN = "half_open"


@dataclass(slots=True, eq=False)
class _Connection:
    """One connection through the proxy; ``torn`` once bytes of it were swallowed."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    torn: bool = False

    def reset(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


class LinkProxy(Service):
    """A proxy from ``listen`` to ``to``, as an async context manager; port 0 becomes the kernel's choice.

    Raises (on entering):
        SimulatorError: ``listen`` or ``control`` cannot be bound.
    """

    def __init__(self, listen: tuple[str, int], to: tuple[str, int], control: tuple[str, int] | None = None) -> None:
        self.host, self.port = listen
        self._to = to
        self.mode = Mode.UP
        self.delay_s = 0.0
        self.bytes_up = 0
        self.bytes_down = 0
        self._server: asyncio.Server | None = None
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        routes = {
            ("GET", "/link"): self._on_get,
            ("POST", "/link"): self._on_post,
            ("GET", "/health"): self._on_get,
        }
        self.control = ControlServer(*control, routes) if control else None

    async def open(self) -> None:
        """Start to listen."""
        listening = bind(self.host, self.port)
        self.port = listening.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, sock=listening)
        if self.control is not None:
            await self.control.start()

    async def close(self) -> None:
        """Stop to listen and reset every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in tuple(self._open):
            connection.reset()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.control is not None:
            await self.control.close()

    def set_mode(self, mode: Mode, delay_s: float = 0.0) -> None:
        """Change what the link does, for open connections too."""
        self.mode, self.delay_s = mode, delay_s if mode is Mode.DELAY else 0.0
        for connection in tuple(self._open):
            if mode is Mode.CUT or (connection.torn and mode is not Mode.HALF_OPEN):
                connection.reset()

    def state(self) -> dict[str, Any]:
        """Return mode, delay and counters."""
        return {
            "mode": self.mode.value,
            "delay_ms": round(self.delay_s * 1e3),
            "connections": len(self._open),
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "listen": f"{self.host}:{self.port}",
            "to": f"{self._to[0]}:{self._to[1]}",
        }

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = _Connection([writer])
        self._open.add(connection)
        try:
            await self._carry(connection, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # either end broke off, or the proxy closes: both ends are reset below
        finally:
            connection.reset()
            self._open.discard(connection)
            self._tasks.discard(task)

    async def _carry(self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode is Mode.CUT:
            return
        if self.mode is Mode.HALF_OPEN:
            connection.torn = True
            while await reader.read(_CHUNK_BYTES):
                pass
            return
        far_reader, far_writer = await asyncio.open_connection(*self._to)
        connection.writers.append(far_writer)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump(connection, reader, far_writer, up=True))
            group.create_task(self._pump(connection, far_reader, writer, up=False))

    async def _pump(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        """Carry one direction until its end; bytes wait out the delay in a queue, so that many can be under way."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_IN_FLIGHT)
        sender = asyncio.create_task(self._send(queue, writer))
        loop = asyncio.get_running_loop()
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(_CHUNK_BYTES):
                    if self.mode is Mode.HALF_OPEN:
                        connection.torn = True
                        continue
                    self._count(len(data), up=up)
                    await queue.put((loop.time() + self.delay_s, data))
            await queue.put((0.0, b""))
            await sender
        finally:
            sender.cancel()

    async def _send(self, queue: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(due - loop.time(), 0.0))
                if not data:
                    if writer.can_write_eof():
                        writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

    def _count(self, size: int, *, up: bool) -> None:
        if up:
            self.bytes_up += size
        else:
            self.bytes_down += size

    async def _on_get(self, _fields: Mapping[str, Any]) -> dict[str, Any]:
        return self.state()

    async def _on_post(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        try:
            mode = Mode(str(fields.get("mode")))
        except ValueError:
            raise RequestError(f"mode: {fields.get('mode')!r} is not one of {', '.join(Mode)}; send one") from None
        delay_ms = fields.get("delay_ms", 0)
        if not isinstance(delay_ms, int | float) or not 0 <= delay_ms <= _MAX_DELAY_MS:
            raise RequestError(f"delay_ms: {delay_ms!r} is not 0 to {_MAX_DELAY_MS}; send milliseconds")
        self.set_mode(mode, delay_ms / 1e3)
        return self.state()
