"""The client ends a reply as the field's devices end theirs, and nothing waits or grows without bound."""

import asyncio
import contextlib
import errno
import json
import os
import socket
import threading

import pytest

from agent.cgminer import client
from agent.cgminer.client import Address, Deadlines, exchange, query
from agent.errors import TimedOut, TooLarge, Transient, Unreachable
from tests.contract.fake_miner import serving

pytestmark = pytest.mark.agent

SHORT = Deadlines(connect_s=0.2, first_byte_s=0.1, total_s=0.3, cap_bytes=2000)
REPLY = b'{"STATUS":[{"STATUS":"S"}],\n"SUMMARY":[{"Elapsed":1}]\n}'


async def until_cancelled() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("ending", [b"\0", b"\n\0", b"", b"\n", b"\0left over"])
async def test_a_reply_ends_at_nul_or_end_of_stream(ending: bytes) -> None:
    async def speak(request: bytes, writer: asyncio.StreamWriter) -> None:
        assert json.loads(request) == {"command": "summary"}
        writer.write(REPLY + ending)

    async with serving(speak) as address:
        assert (await query(address, "summary", deadlines=SHORT)).strip() == REPLY


async def test_a_reply_in_pieces_is_joined_even_where_a_piece_ends_in_a_newline() -> None:
    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        for part in (REPLY[:27], REPLY[27:28], REPLY[28:], b"\0"):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    async with serving(speak) as address:
        assert await query(address, "summary", deadlines=SHORT) == REPLY


async def test_a_device_that_neither_terminates_nor_closes_is_done_when_its_document_is() -> None:
    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(REPLY + b"\n")
        await until_cancelled()

    async with serving(speak) as address:
        assert (await query(address, "summary", deadlines=SHORT)).strip() == REPLY


async def test_parameter_and_extra_keys_go_into_the_request() -> None:
    seen: list[object] = []

    async def speak(request: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(json.loads(request))
        writer.write(b"{}\0")

    async with serving(speak) as address:
        await query(address, "ascset", "0,softoff,1:7", SHORT)
        await query(address, "stats", None, SHORT, {"new_api": True})
    assert seen == [{"command": "ascset", "parameter": "0,softoff,1:7"}, {"command": "stats", "new_api": True}]


async def test_nobody_there_is_unreachable() -> None:
    async with serving(lambda _request, _writer: until_cancelled()) as address:
        pass
    with pytest.raises(Unreachable, match="connection refused; is the miner on"):
        await query(address, "summary", deadlines=SHORT)


async def test_an_unknown_name_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="the host name"):
        await query(Address("no-such-miner.invalid"), "summary", deadlines=Deadlines(connect_s=5))


def test_a_resolver_that_does_not_answer_holds_up_neither_the_query_nor_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A lookup that took 8 s made a command end after 8.5 s, although its reader had given up after one."""
    ended, enough = threading.Event(), threading.Event()

    def black_hole(*_: object, **__: object) -> None:
        enough.wait(30)
        ended.set()
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", black_hole)
    with pytest.raises(Unreachable, match="not found in time"):
        asyncio.run(query(Address("miner7.lan"), "summary", deadlines=SHORT))
    assert not ended.is_set()
    enough.set()
    assert ended.wait(30)


async def test_without_a_free_file_the_machines_limit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bare OSError ended the whole round."""
    code = errno.EMFILE

    class NoSocket(socket.socket):
        def __init__(self, *_: object) -> None:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(client, "socket", SocketModule(NoSocket))
    with pytest.raises(Transient, match="this machine's limit of open files is reached; raise it"):
        await query(Address("127.0.0.1", 9), "summary", deadlines=SHORT)
    code = errno.EAFNOSUPPORT
    with pytest.raises(Unreachable, match="address family not supported"):
        await query(Address("::1", 9), "summary", deadlines=SHORT)


async def test_a_silent_device_is_timed_out() -> None:
    async with serving(lambda _request, _writer: until_cancelled()) as address:
        with pytest.raises(TimedOut, match=r"no answer within 0\.1 s"):
            await query(address, "summary", deadlines=SHORT)


async def test_a_silent_device_is_given_up_by_the_total_where_that_is_sooner() -> None:
    async with serving(lambda _request, _writer: until_cancelled()) as address:
        with pytest.raises(TimedOut, match=r"no answer within 0\.1 s"):
            await query(address, "summary", deadlines=Deadlines(connect_s=60, first_byte_s=60, total_s=0.1))


async def test_a_dripping_device_is_timed_out_in_the_end() -> None:
    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(speak) as address:
        with pytest.raises(TimedOut, match=r"did not end within 0\.3 s"):
            await query(address, "summary", deadlines=SHORT)


async def test_an_endless_reply_is_cut_off() -> None:
    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x" * 500)
            await writer.drain()

    async with serving(speak) as address:
        with pytest.raises(TooLarge, match="exceeds 2000 bytes"):
            await query(address, "summary", deadlines=SHORT)


@pytest.mark.parametrize("sent", [b"", b'{"half":'])
async def test_a_broken_connection_is_unreachable(sent: bytes) -> None:
    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        writer.transport.abort()

    async with serving(speak) as address:
        with contextlib.suppress(Unreachable):
            # A reset may arrive before or after the half reply; a clean end after it gives the half.
            assert await exchange(address, b"x", SHORT) == sent
            assert sent


async def test_cancelling_a_query_leaves_no_connection() -> None:
    closed = asyncio.Event()
    started = asyncio.Event()

    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        started.set()
        try:
            while not writer.transport.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    async with serving(speak) as address:
        task = asyncio.create_task(query(address, "summary", deadlines=Deadlines(cap_bytes=10**9)))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            await closed.wait()


class HesitantSocket(socket.socket):
    """A socket that connects the way one does over a real network: not at once."""

    failure = 0

    def connect_ex(self, address: object) -> int:
        super().connect_ex(address)  # type: ignore[arg-type]
        return errno.EINPROGRESS

    def getsockopt(self, *args: int) -> int:  # type: ignore[override]
        return self.failure or int(super().getsockopt(*args))


class SocketModule:
    """The socket module with another socket class in it, for the client alone."""

    def __init__(self, kind: type[socket.socket]) -> None:
        self.socket = kind

    def __getattr__(self, name: str) -> object:
        return getattr(socket, name)


async def test_a_connection_that_takes_its_time_and_sends_in_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not seen.endswith(b"}"):
            seen.extend(await reader.read(100))
        writer.write(REPLY + b"\0")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = Address(*server.sockets[0].getsockname()[:2])
    sends = iter(range(10**6))

    class Bits(HesitantSocket):
        def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]
            if next(sends) % 2:
                raise BlockingIOError
            return socket.socket.send(self, data[:5], flags)

    monkeypatch.setattr(client, "socket", SocketModule(Bits))
    async with server:
        assert await query(address, "summary+devs+pools", deadlines=SHORT) == REPLY
    assert json.loads(seen) == {"command": "summary+devs+pools"}


async def test_a_connection_refused_late_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(HesitantSocket):
        failure = errno.EHOSTUNREACH

    async with serving(lambda _request, _writer: until_cancelled()) as address:
        monkeypatch.setattr(client, "socket", SocketModule(Refused))
        with pytest.raises(Unreachable, match="no route to host; is the miner on"):
            await query(address, "summary", deadlines=SHORT)


async def test_a_connection_that_never_stands_is_unreachable() -> None:
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = Address(*listener.getsockname())
        for _ in range(3):
            filler = waiting.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(tuple(address))
        with pytest.raises(Unreachable, match=r"no connection within 0\.2 s"):
            await query(address, "summary", deadlines=SHORT)


async def test_a_name_is_resolved_and_ipv4_preferred() -> None:
    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(REPLY + b"\0")

    async with serving(speak) as address:
        assert await query(Address("localhost", address.port), "summary", deadlines=SHORT) == REPLY
