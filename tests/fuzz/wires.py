"""The wires' readers over a connection that is no socket: what was sent arrives in pieces, then the stream ends."""

import asyncio
from unittest import mock

from agent.cgminer import framed, web
from agent.cgminer.client import Address, Deadlines
from agent.cgminer.credentials import Credentials

ADDRESS = Address("192.0.2.1", 80)
DEADLINES = Deadlines(cap_bytes=65_536)
_LOOP = asyncio.new_event_loop()


class Pieces:
    """A ``Stream`` whose other side has sent everything already: pieces as long as the first byte says, then the end."""

    used = False

    def __init__(self, data: bytes) -> None:
        size = (data[0] if data else 0) * 4 + 1
        self._pieces = [data[place : place + size] for place in range(1, len(data), size)]

    def is_open(self) -> bool:
        """Return whether more is to come."""
        return bool(self._pieces)

    async def send(self, _data: bytes, _exchange: object) -> None:
        """Take what is sent."""

    async def receive(self, _exchange: object) -> bytes:
        """Return the next piece, empty at the end."""
        return self._pieces.pop(0) if self._pieces else b""

    def close(self) -> None:
        """Nothing is open."""


def web_reply(data: bytes) -> bytes:
    """Return the body of an HTTP response as our client hears it. Raises AgentError."""

    async def heard() -> bytes:
        client = web.WebClient(ADDRESS, DEADLINES, Credentials("root", "s3cret"))
        try:
            return (await client.request("GET", "/x")).body
        finally:
            client.close()

    return _run(web, data, heard)


def framed_reply(data: bytes) -> bytes:
    """Return a framed reply as our client hears it. Raises AgentError."""

    async def heard() -> bytes:
        return await framed.converse(ADDRESS, {"cmd": "get.device.info"}, DEADLINES)

    return _run(framed, data, heard)


def _run(module: object, data: bytes, heard) -> bytes:
    async def opened(*_arguments: object) -> Pieces:
        return Pieces(data)

    with mock.patch.object(module.Stream, "open", opened):
        return _LOOP.run_until_complete(heard())
