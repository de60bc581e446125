"""A control port: JSON over HTTP/1.1 on loopback, small enough to stand beside thousands of simulated devices.

Invariants: every answer is JSON; a wrong request is answered with its cause and changes nothing.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from simulator.listener import bind

Handler = Callable[[dict[str, Any]], Awaitable[Any]]
_BODY_BYTES = 1_000_000
_CLOSE_S = 1.0
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large"}


class RequestError(ValueError):
    """The request cannot be carried out; the text says why and what to send instead."""


class ControlServer:
    """Serves ``routes``: (method, path) to an async handler of the JSON body."""

    def __init__(self, host: str, port: int, routes: Mapping[tuple[str, str], Handler]) -> None:
        self._host = host
        self._port = port
        self._routes = routes
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    @property
    def url(self) -> str:
        """Return the address to call, without path."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Start to listen; port 0 becomes the port the kernel chose.

        Raises:
            SimulatorError: the address cannot be bound.
        """
        listening = bind(self._host, self._port)
        self._port = listening.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, sock=listening)

    async def close(self) -> None:
        """Stop to listen, drop every connection and see its task end: a loop that must cancel one complains aloud."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await asyncio.sleep(0)  # those just accepted begin, and see that it is over
        serving = {task for task in self._open.values() if task is not None and task is not asyncio.current_task()}
        for writer in tuple(self._open):
            writer.transport.abort()
        if serving:
            await asyncio.wait(serving, timeout=_CLOSE_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            writer.transport.abort()
            return
        self._open[writer] = asyncio.current_task()
        try:
            while await self._serve_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # a client that breaks off or speaks no HTTP loses its connection and nothing else
        finally:
            self._open.pop(writer, None)
            writer.transport.abort() if writer.is_closing() else writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _version = head[0].split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        length = int(headers.get("content-length", "0"))
        if length > _BODY_BYTES:
            status, body = 413, {"error": f"the body is larger than {_BODY_BYTES} bytes"}
        else:
            status, body = await self._answer(method, target.partition("?")[0], await reader.readexactly(length))
        keep = headers.get("connection", "").lower() != "close" and status != 413
        data = json.dumps(body, separators=(",", ":")).encode()
        writer.write(
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n".encode()
            + data
        )
        await writer.drain()
        return keep

    async def _answer(self, method: str, path: str, data: bytes) -> tuple[int, Any]:
        handler = self._routes.get((method, path))
        if handler is None:
            known = sorted(f"{verb} {name}" for verb, name in self._routes)
            status = 405 if any(name == path for _, name in self._routes) else 404
            return status, {"error": f"no {method} {path} here; try {', '.join(known)}"}
        try:
            fields = json.loads(data) if data else {}
        except (ValueError, RecursionError) as error:
            return 400, {"error": f"the body is not JSON: {error}; send one JSON object"}
        if not isinstance(fields, dict):
            return 400, {"error": "the body is not a JSON object; send one with named fields"}
        try:
            return 200, await handler(fields)
        except RequestError as error:
            return 400, {"error": str(error)}
