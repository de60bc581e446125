"""What lies between an agent and its cloud: a relay that cuts or falls silent, and an HTTP proxy that does CONNECT."""

import asyncio
import base64
from contextlib import suppress


class Relay:
    """Forwards TCP to a local port, until told to hang (silent, still open), cut, or refuse."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.passes = asyncio.Event()
        self.passes.set()
        self.refuses = False
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.sleep(0)

    def hang(self) -> None:
        self.passes.clear()

    def resume(self) -> None:
        self.passes.set()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refuses:
            writer.transport.abort()
            return
        await self.join(reader, writer, self.target)

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))
        finally:
            self._writers -= {writer, far_writer}
            for end in (writer, far_writer):
                end.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self.passes.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


class HttpProxy(Relay):
    """A proxy for CONNECT alone, with a user and password if given."""

    def __init__(self, user: str = "", password: str = "") -> None:
        super().__init__(0)
        self.secret = base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
        self.asked: list[str] = []
        self.allows = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, OSError):
            writer.transport.abort()
            return
        method, target, _ = head.split("\r\n", 1)[0].split(" ")
        self.asked.append(f"{method} {target}")
        if self.secret and f"basic {self.secret}".lower() not in head.lower():
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        elif not self.allows or method != "CONNECT":
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await self.join(reader, writer, int(target.rpartition(":")[2]))
            return
        writer.close()
