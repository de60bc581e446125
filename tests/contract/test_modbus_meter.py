"""A meter answers with its figures or is unknown; it never raises and never reads zero for silence."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from agent.meters import ModbusMeter
from sitelink.clock import ManualClock
from sitelink.inventory import MeterEntry
from sitelink.types import MeterSample

pytestmark = pytest.mark.agent

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Answer = Callable[[bytes], bytes | None]


def figures(request: bytes, power_w: float = 123456.0, energy_kwh: float = 7.5, **changes: int) -> bytes:
    transaction, _, _, unit, function, register, count = struct.unpack(">HHHBBHH", request)
    assert (function, register, count) == (4, 40, 4)
    head = {"transaction": transaction, "protocol": 0, "unit": unit, "function": function} | changes
    body = struct.pack(">Bff", 8, power_w, energy_kwh)
    return (
        struct.pack(">HHHBB", head["transaction"], head["protocol"], 2 + len(body), head["unit"], head["function"])
        + body
    )


@asynccontextmanager
async def metered(answer: Answer, delay_s: float = 0.0) -> AsyncIterator[tuple[ModbusMeter, list[int]]]:
    connections: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        try:
            while True:
                reply = answer(await reader.readexactly(12))
                if reply is None:
                    return
                await asyncio.sleep(delay_s)
                writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    entry = MeterEntry("m1", "site", "", "127.0.0.1", server.sockets[0].getsockname()[1], 3, 40)
    meter = ModbusMeter(entry, ManualClock(NOW), 0.2)
    try:
        yield meter, connections
    finally:
        await meter.close()
        server.close()


async def test_power_and_energy_are_read_over_one_connection() -> None:
    async with metered(figures) as (meter, connections):
        assert await meter.read() == MeterSample("m1", NOW, 123456.0, 7500.0)
        assert await meter.read() == MeterSample("m1", NOW, 123456.0, 7500.0)
        assert len(connections) == 1


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: None,
        lambda _: b"",
        lambda request: figures(request, transaction=99),
        lambda request: figures(request, unit=9),
        lambda request: figures(request, protocol=1),
        lambda request: figures(request, function=3),
        lambda _: struct.pack(">HHHBBB", 1, 0, 3, 3, 0x84, 2),
        lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
async def test_anything_else_is_no_figure(answer: Answer) -> None:
    async with metered(answer) as (meter, _):
        assert await meter.read() == MeterSample("m1", NOW, None, None)


async def test_figures_that_are_no_number_are_unknown() -> None:
    async with metered(lambda request: figures(request, power_w=float("nan"))) as (meter, _):
        assert await meter.read() == MeterSample("m1", NOW, None, 7500.0)


async def test_a_meter_comes_back_over_a_new_connection_and_each_outage_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    silent = [True, True, False]
    async with metered(lambda request: None if silent.pop(0) else figures(request)) as (meter, connections):
        assert [(await meter.read()).power_w for _ in range(3)] == [None, None, 123456.0]
        assert len(connections) == 3
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "m1 at 127.0.0.1" in caplog.messages[0]


async def test_a_slow_meter_serves_all_who_wait_for_it() -> None:
    """Three tasks of the agent read one meter; an answer takes longer than a third of the deadline."""
    async with metered(figures, delay_s=0.09) as (meter, connections):
        samples = await asyncio.gather(*(meter.read() for _ in range(4)))
        assert [sample.power_w for sample in samples] == [123456.0] * 4
        assert len(connections) == 1


async def test_a_reader_that_gives_up_waiting_breaks_off_nobody_elses_read() -> None:
    asked = asyncio.Event()

    def answer(request: bytes) -> bytes:
        asked.set()
        return figures(request)

    async with metered(answer, delay_s=0.05) as (meter, connections):
        first = asyncio.create_task(meter.read())
        await asked.wait()
        waiting = asyncio.create_task(meter.read())
        await asyncio.sleep(0)
        waiting.cancel()
        assert (await first).power_w == 123456.0
        assert len(connections) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "a..b"])
async def test_nobody_there_is_no_figure(host: str) -> None:
    entry = MeterEntry("m1", "site", "", host, 1, 3, 40)
    assert await ModbusMeter(entry, ManualClock(NOW), 0.2).read() == MeterSample("m1", NOW, None, None)
