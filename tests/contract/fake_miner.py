"""A CGMiner-like server on loopback that answers as told, for the contract tests of the device layer."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from agent.cgminer.client import Address

Speak = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
Answer = Callable[[dict[str, Any]], object]


@asynccontextmanager
async def serving(speak: Speak, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Address]:
    """Serve ``speak(request, writer)`` on a loopback port, a free one if 0; each connection carries one request."""
    tasks: set[asyncio.Task[None]] = set()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await speak(await reader.read(65536), writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(on_connection, host, port)
    try:
        yield Address(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class FakeMiner:
    """A miner whose answers are functions of the decoded request; ``asked`` records command and parameter."""

    def __init__(self, answers: dict[str, object | Answer], joins: bool = True) -> None:
        self.answers = answers
        self.joins = joins
        self.asked: list[tuple[str, str | None]] = []
        self.connections = 0

    async def speak(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        """Answer one request in JSON, ended by a NUL."""
        self.connections += 1
        document = json.loads(request)
        command = str(document.get("command", document.get("cmd", "enc")))
        self.asked.append((command, document.get("parameter")))
        reply: object
        if "+" in command and self.joins:
            reply = {name: [self._one(name, document)] for name in command.split("+")} | {"id": 1}
        else:
            reply = self._one(command, document)
        writer.write((reply if isinstance(reply, bytes) else json.dumps(reply).encode()) + b"\0")
        await writer.drain()

    def _one(self, command: str, document: dict[str, Any]) -> object:
        answer = self.answers.get(command)
        if answer is None:
            return status(14, "Invalid command", "E")
        found = answer(document) if callable(answer) else answer
        return json.loads(found) if isinstance(found, bytes) and "+" in str(document.get("command")) else found

    def commands(self) -> list[str]:
        """Return the commands asked so far."""
        return [command for command, _ in self.asked]


def status(code: int, message: str, letter: str = "S", when: int = 1_760_000_000, **more: object) -> dict[str, object]:
    """Return a reply that is little more than its STATUS."""
    entry = {"STATUS": letter, "When": when, "Code": code, "Msg": message, "Description": "test"}
    return {"STATUS": [entry], **more, "id": 1}
