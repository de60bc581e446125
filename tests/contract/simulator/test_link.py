"""The bad network: what comes through, what is reset, what stays silent."""

import asyncio
import contextlib

import httpx
import pytest

from simulator.errors import SimulatorError
from simulator.link import LinkProxy, Mode


class Echo:
    """A server that sends everything back, and knows who is connected."""

    async def __aenter__(self):
        self.writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for writer in self.writers:
            writer.close()
        await asyncio.sleep(0)

    async def _serve(self, reader, writer):
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def proxied(control: tuple[str, int] | None = None):
    async with Echo() as echo, LinkProxy(("127.0.0.1", 0), ("127.0.0.1", echo.port), control) as proxy:
        yield proxy, echo


@contextlib.asynccontextmanager
async def dialled(proxy: LinkProxy):
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def echoed(reader, writer, data: bytes) -> bytes:
    async with asyncio.timeout(5):
        writer.write(data)
        return await reader.readexactly(len(data))


async def is_reset(reader) -> bool:
    async with asyncio.timeout(5):
        try:
            return await reader.read(1) == b""
        except ConnectionError:
            return True


async def test_up_carries_everything_in_order():
    async with proxied() as (proxy, _), dialled(proxy) as (reader, writer):
        data = bytes(range(256)) * 20_000
        send = asyncio.create_task(_send(writer, data))
        async with asyncio.timeout(10):
            assert await reader.readexactly(len(data)) == data
        await send
        assert (proxy.bytes_up, proxy.bytes_down) == (len(data), len(data))


async def _send(writer, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def test_the_end_of_a_stream_comes_through():
    async with proxied() as (proxy, _), dialled(proxy) as (reader, writer):
        writer.write(b"last words")
        writer.write_eof()
        async with asyncio.timeout(5):
            assert await reader.read(-1) == b"last words"


async def test_cut_resets_old_and_new_connections_and_up_heals():
    async with proxied() as (proxy, _):
        async with dialled(proxy) as (reader, writer):
            assert await echoed(reader, writer, b"before") == b"before"
            proxy.set_mode(Mode.CUT)
            assert await is_reset(reader)
        async with dialled(proxy) as (reader, _):
            assert await is_reset(reader)
        proxy.set_mode(Mode.UP)
        async with dialled(proxy) as (reader, writer):
            assert await echoed(reader, writer, b"after") == b"after"


async def test_half_open_swallows_in_silence_both_ways():
    async with proxied() as (proxy, echo), dialled(proxy) as (reader, writer):
        assert await echoed(reader, writer, b"before") == b"before"
        proxy.set_mode(Mode.HALF_OPEN)
        writer.write(b"into the void")
        echo.writers[0].write(b"out of the void")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.read(1)
        async with dialled(proxy) as (fresh_reader, fresh_writer):
            fresh_writer.write(b"hello?")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await fresh_reader.read(1)
            proxy.set_mode(Mode.UP)
            assert await is_reset(fresh_reader)
        assert await is_reset(reader), "a stream with a hole must not go on"


async def test_a_connection_that_lost_nothing_survives_half_open():
    async with proxied() as (proxy, _), dialled(proxy) as (reader, writer):
        assert await echoed(reader, writer, b"before") == b"before"
        proxy.set_mode(Mode.HALF_OPEN)
        proxy.set_mode(Mode.UP)
        assert await echoed(reader, writer, b"after") == b"after"


async def test_delay_holds_each_byte_and_loses_none():
    async with proxied() as (proxy, _), dialled(proxy) as (reader, writer):
        proxy.set_mode(Mode.DELAY, 0.15)
        started = asyncio.get_running_loop().time()
        assert await echoed(reader, writer, b"slow") == b"slow"
        assert asyncio.get_running_loop().time() - started >= 0.3
        assert proxy.state()["delay_ms"] == 150


async def test_an_unreachable_far_end_resets_the_near_one():
    async with Echo() as echo:
        gone = echo.port
    async with LinkProxy(("127.0.0.1", 0), ("127.0.0.1", gone)) as proxy, dialled(proxy) as (reader, _):
        assert await is_reset(reader)


async def test_the_control_port_switches_and_tells():
    async with proxied(("127.0.0.1", 0)) as (proxy, _), httpx.AsyncClient(base_url=proxy.control.url) as client:
        assert (await client.get("/link")).json()["mode"] == "up"
        answer = await client.post("/link", json={"mode": "delay", "delay_ms": 250})
        assert (answer.json()["mode"], answer.json()["delay_ms"]) == ("delay", 250)
        for body, said in (
            ({"mode": "broken"}, "mode: 'broken' is not one of up, cut, delay, half_open"),
            ({"mode": "delay", "delay_ms": -1}, "delay_ms: -1"),
            ({"mode": "delay", "delay_ms": "x"}, "delay_ms: 'x'"),
        ):
            refused = await client.post("/link", json=body)
            assert (refused.status_code, said in refused.json()["error"]) == (400, True)
        assert proxy.mode is Mode.DELAY


async def test_a_taken_address_is_named():
    async with proxied() as (proxy, _):
        with pytest.raises(SimulatorError, match="the address is in use"):
            async with LinkProxy((proxy.host, proxy.port), ("127.0.0.1", 1)):
                pass


async def test_only_loopback_is_served():
    with pytest.raises(SimulatorError, match="only loopback"):
        async with LinkProxy(("0.0.0.0", 0), ("127.0.0.1", 1)):
            pass
