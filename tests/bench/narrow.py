"""A narrow line: a TCP proxy on loopback that carries so many bits a second upwards, and holds little in between."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_CHUNK_BYTES = 4096
_HELD_BYTES = 32 * 1024


class NarrowLine:
    """Forwards connections to ``port`` at ``bits_per_s``; down the line is as wide as it comes."""

    def __init__(self, port: int, bits_per_s: float) -> None:
        self._port = port
        self._bytes_per_s = bits_per_s / 8
        self.carried_bytes = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        """Listen while the block runs; yields the port."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _HELD_BYTES)  # what waits, waits at the sender
        listener.bind(("127.0.0.1", 0))
        server = await asyncio.start_server(self._serve, sock=listener, limit=_CHUNK_BYTES)
        try:
            yield listener.getsockname()[1]
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._carry(reader, far_writer, self._bytes_per_s))
                tasks.create_task(self._carry(far_reader, writer, None))
        except* (ConnectionError, EOFError):
            pass
        finally:
            for end in (writer, far_writer):
                end.close()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, bytes_per_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while chunk := await source.read(_CHUNK_BYTES):
            sink.write(chunk)
            await sink.drain()
            if bytes_per_s is not None:
                self.carried_bytes += len(chunk)
                due = max(due, loop.time() - 0.05) + len(chunk) / bytes_per_s
                await asyncio.sleep(max(0.0, due - loop.time()))
        with suppress(OSError):
            sink.write_eof()
        raise EOFError
