"""An HTTP server on loopback that answers as told, for the contract tests of the device layer."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agent.cgminer.client import Address


@dataclass
class Asked:
    """One request as it came."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


Answer = Callable[[Asked], Awaitable[bytes] | bytes]


@dataclass
class FakeWeb:
    """A web server: ``answer`` gives the raw bytes of each response; ``asked`` and ``connections`` are counted.

    ``close_after`` is how many requests a connection carries before the server closes it.
    """

    answer: Answer
    close_after: int = 1_000
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Address]:
        """Serve on a free loopback port."""
        tasks: set[asyncio.Task[None]] = set()

        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            self.connections += 1
            try:
                for _ in range(self.close_after):
                    if not await self._one(reader, writer):
                        break
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                tasks.discard(task)
                writer.close()

        server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
        try:
            yield Address(*server.sockets[0].getsockname()[:2])
        finally:
            server.close()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        pairs = [line.split(": ", 1) for line in head[1:] if line]
        headers = {name.lower(): value for name, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        asked = Asked(method, target, headers, body)
        self.asked.append(asked)
        answer = self.answer(asked)
        response = answer if isinstance(answer, bytes) else await answer
        writer.write(response)
        await writer.drain()
        return b"connection: close" not in response.lower()


def page(document: object, status: str = "200 OK", *more: str) -> bytes:
    """Return a response with a JSON body and its length. ``more`` are header lines."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def pages(documents: Mapping[str, object]) -> Answer:
    """Return an answer that serves ``documents`` by target, and 404 for anything else."""

    def answer(asked: Asked) -> bytes:
        if asked.target not in documents:
            return page({}, "404 Not Found")
        return page(documents[asked.target])

    return answer
