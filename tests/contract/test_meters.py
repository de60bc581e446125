"""A meter answers with its figures or is unknown; it never raises and never reads zero for silence."""

import asyncio
import contextlib
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.errors import BadInput
from agent.meters import Meter, meter_of
from agent.modbus import CONNECTIONS, ModbusHosts
from sitelink.clock import ManualClock
from sitelink.inventory import MeterEntry
from sitelink.meter_source import ModbusSource, parse_source
from sitelink.types import MeterSample
from sitelink.units import Watts

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
async def metered(answer: Answer, delay_s: float = 0.0) -> AsyncIterator[tuple[Meter, list[int]]]:
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
    source = ModbusSource("127.0.0.1", server.sockets[0].getsockname()[1], 3, 40)
    meter = meter_of(MeterEntry("m1", "site", "", source), ModbusHosts(), ManualClock(NOW), timeout_s=0.2)
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
    assert "m1 does not answer: 127.0.0.1" in caplog.messages[0]


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
    entry = MeterEntry("m1", "site", "", ModbusSource(host, 1, 3, 40))
    meter = meter_of(entry, ModbusHosts(), ManualClock(NOW), timeout_s=0.2)
    assert await meter.read() == MeterSample("m1", NOW, None, None)


async def test_an_ip_address_is_read_whatever_the_resolver_does(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **_: looked_up.append(asked))
    async with metered(figures) as (meter, _):
        assert (await meter.read()).power_w == 123456.0
    assert looked_up == []


class Registers:
    """A Modbus TCP server of one table of registers a function; what it does not hold it refuses with exception 2."""

    def __init__(self, **tables: dict[int, bytes]) -> None:
        self.tables = {3: tables.get("holding", {}), 4: tables.get("input", {})}
        self.asked: list[tuple[int, int, int]] = []
        self.open = self.most = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            while True:
                request = await reader.readexactly(12)
                transaction, _, _, unit, function, register, count = struct.unpack(">HHHBBHH", request)
                self.asked.append((function, register, count))
                words = self.words(function, register, count)
                if words is None:
                    writer.write(struct.pack(">HHHBBB", transaction, 0, 3, unit, function | 0x80, 2))
                else:
                    writer.write(
                        struct.pack(">HHHBBB", transaction, 0, 3 + len(words), unit, function, len(words)) + words
                    )
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self.open -= 1
            writer.close()

    def words(self, function: int, register: int, count: int) -> bytes | None:
        table = bytearray(2 * 65_536)
        known = [False] * 65_536
        for place, data in self.tables[function].items():
            table[2 * place : 2 * place + len(data)] = data
            known[place : place + len(data) // 2] = [True] * (len(data) // 2)
        if not known[register] or not known[register + count - 1]:
            return None
        return bytes(table[2 * register : 2 * (register + count)])

    @asynccontextmanager
    async def metered(self, query: str, maps: Path | None = None) -> AsyncIterator[Meter]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        source = parse_source(f"modbus://127.0.0.1:{server.sockets[0].getsockname()[1]}/7?{query}")
        meter = meter_of(MeterEntry("m1", "site", "", source), ModbusHosts(), ManualClock(NOW), maps, timeout_s=1.0)
        try:
            yield meter
        finally:
            await meter.close()
            server.close()


def low_word_first(value: int) -> bytes:
    high, low = divmod(value & 0xFFFFFFFF, 0x10000)
    return struct.pack(">HH", low, high)


@pytest.mark.parametrize(
    ("name", "registers", "requests"),
    [
        (
            "eastron-sdm630",
            Registers(input={52: struct.pack(">f", 123456.0), 72: struct.pack(">f", 789.5)}),
            [(4, 52, 22)],
        ),
        (
            "carlo-gavazzi-em340",
            Registers(input={0x28: low_word_first(1_234_560), 0x34: low_word_first(7_895)}),
            [(4, 0x28, 14)],
        ),
        (
            "schneider-iem3000",
            Registers(holding={3059: struct.pack(">f", 123.456), 3203: struct.pack(">q", 789_500)}),
            [(3, 3059, 2), (3, 3203, 4)],
        ),
    ],
)
async def test_a_meter_is_read_by_the_map_of_its_model(name: str, registers: Registers, requests: list[object]) -> None:
    async with registers.metered(f"map={name}") as meter:
        sample = await meter.read()
    assert sample.power_w == pytest.approx(123_456.0)
    assert sample.energy_wh == pytest.approx(789_500.0)
    assert registers.asked == requests


async def test_a_load_that_feeds_back_reads_negative() -> None:
    registers = Registers(input={0x28: low_word_first(-500), 0x34: low_word_first(0)})
    async with registers.metered("map=carlo-gavazzi-em340") as meter:
        assert await meter.read() == MeterSample("m1", NOW, -50.0, 0.0)


@pytest.mark.parametrize(
    ("form", "word", "told_w"),
    [
        ("int16", "7FFF", None),
        ("int16", "8000", None),
        ("int16", "FFFF", -1.0),
        ("uint16", "FFFF", None),
        ("uint16", "8000", 32_768.0),
        ("int32", "7FFFFFFF", None),
        ("int32", "80000000", None),
        ("int32", "7FFFFFFE", 2_147_483_646.0),
        ("uint32", "FFFFFFFF", None),
        ("int64", "8000000000000000", None),
        ("uint64", "FFFFFFFFFFFFFFFF", None),
        ("float32", "7FC00000", None),
        ("float32", "FF800000", None),
        ("float64", "7FF8000000000000", None),
    ],
)
async def test_a_register_at_the_end_of_its_range_is_no_figure(
    form: str, word: str, told_w: float | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "own.toml").write_text(f'model = "x"\nregisters = "input"\n[power]\nregister = 9\nform = "{form}"\n')
    registers = Registers(input={9: bytes.fromhex(word)})
    async with registers.metered("map=own", tmp_path) as meter:
        assert await meter.read() == MeterSample("m1", NOW, None if told_w is None else Watts(told_w))
    assert [f"register 9 holds 0x{word}" in message for message in caplog.messages] == ([] if told_w else [True])


async def test_an_overflow_hides_its_own_figure_alone_and_is_told_once_with_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    power = {0x28: low_word_first(0x7FFFFFFF)}
    registers = Registers(input={**power, 0x34: low_word_first(7_895)})
    async with registers.metered("map=carlo-gavazzi-em340") as meter:
        for _ in range(2):
            assert await meter.read() == MeterSample("m1", NOW, None, 789_500.0)
        registers.tables[4][0x28] = low_word_first(10)
        assert await meter.read() == MeterSample("m1", NOW, Watts(1.0), 789_500.0)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "m1 tells no figure: register 40 holds 0x7FFFFFFF" in caplog.messages[0]


async def test_a_sites_own_map_comes_before_ours(tmp_path: Path) -> None:
    own = 'model = "x"\nregisters = "holding"\n[power]\nregister = 9\nform = "uint16"\nfactor = 10\n'
    (tmp_path / "eastron-sdm630.toml").write_text(own)
    registers = Registers(holding={9: struct.pack(">H", 777)})
    async with registers.metered("map=eastron-sdm630", tmp_path) as meter:
        assert await meter.read() == MeterSample("m1", NOW, 7770.0, None)


async def test_a_register_that_the_meter_refuses_is_told_with_its_exception(caplog: pytest.LogCaptureFixture) -> None:
    registers = Registers(input={})
    async with registers.metered("register=0") as meter:
        assert (await meter.read()).power_w is None
    assert "exception 2; check unit and register" in caplog.messages[0]


async def test_meters_behind_one_gateway_share_few_connections() -> None:
    registers = Registers(input={0: struct.pack(">ff", 5.0, 1.0)})
    server = await asyncio.start_server(registers.serve, "127.0.0.1", 0)
    hosts = ModbusHosts()
    port = server.sockets[0].getsockname()[1]
    meters = [
        meter_of(
            MeterEntry(f"m{unit}", "feeder", f"F{unit}", ModbusSource("127.0.0.1", port, unit)), hosts, ManualClock(NOW)
        )
        for unit in range(1, 41)
    ]
    samples = await asyncio.gather(*(meter.read() for meter in meters))
    assert {sample.power_w for sample in samples} == {5.0}
    assert registers.most <= CONNECTIONS
    hosts.close()
    server.close()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "model: is missing"),
        ('model = "x"\nregisters = "coils"', "registers: 'coils' is not known"),
        ('model = "x"\nregisters = "input"', "[power]: is missing"),
        ('model = "x"\nregisters = "input"\npower = 3', "[power]: is no table"),
        ('model = "x"\nregisters = "input"\n[power]\nform = "int16"', "register: None does not fit"),
        ('model = "x"\nregisters = "input"\n[power]\nregister = 1\nform = "text"', "form: 'text' is not known"),
        ('model = "x"\nregisters = "input"\n[power]\nregister = 65535\nform = "int64"', "does not fit there"),
        (
            'model = "x"\nregisters = "input"\n[power]\nregister = 1\nform = "int16"\nfactor = 0',
            "factor: 0 does not fit",
        ),
        (
            'model = "x"\nregisters = "input"\n[power]\nregister = 1\nform = "int16"\nunit = "W"',
            "unit: is not a known key",
        ),
        ('colour = "red"', "colour: is not a known key"),
        ("model = ", "not a TOML file"),
    ],
)
def test_a_wrong_map_is_refused_by_file_and_key(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(text)
    entry = MeterEntry("m1", "site", "", ModbusSource("h", 502, 1, map_name="own"))
    with pytest.raises(BadInput) as caught:
        meter_of(entry, ModbusHosts(), ManualClock(NOW), tmp_path)
    assert str(tmp_path / "own.toml") in str(caught.value)
    assert told in str(caught.value)


def test_a_map_nobody_has_names_those_there_are() -> None:
    entry = MeterEntry("m1", "site", "", ModbusSource("h", 502, 1, map_name="own"))
    with pytest.raises(BadInput, match="carlo-gavazzi-em340, eastron-sdm630, schneider-iem3000"):
        meter_of(entry, ModbusHosts(), ManualClock(NOW))


Page = Callable[[], bytes]


@asynccontextmanager
async def page(answer: Page, selectors: str) -> AsyncIterator[Meter]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    source = parse_source(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/status{selectors}")
    meter = meter_of(MeterEntry("m1", "site", "", source), ModbusHosts(), ManualClock(NOW), timeout_s=0.3)
    try:
        yield meter
    finally:
        await meter.close()
        server.close()


def replied(body: bytes, status: str = "200 OK") -> Page:
    return lambda: f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def test_a_page_is_read_where_its_selectors_say() -> None:
    body = b'{"emeters": [{"power": 1.5}, {"power": "2.25", "total": 12}]}'
    async with page(replied(body), "#power=emeters.1.power&power_unit=kW&energy=emeters.1.total") as meter:
        assert await meter.read() == MeterSample("m1", NOW, 2250.0, 12_000.0)


async def test_a_page_may_be_nothing_but_the_number() -> None:
    async with page(replied(b" 4711.5\n"), "") as meter:
        assert await meter.read() == MeterSample("m1", NOW, 4711.5, None)


@pytest.mark.parametrize(
    "answer",
    [
        replied(b"{}"),
        replied(b'{"power": null}'),
        replied(b'{"power": true}'),
        replied(b'{"power": [1]}'),
        replied(b'{"power": "much"}'),
        replied(b'{"power": "1_000"}'),
        replied(b'{"power": "inf"}'),
        replied(b"[" * 50_000),
        replied(b"<html>"),
        replied(b"\xff\xfe"),
        replied(b'{"power": 5}', "500 Internal Server Error"),
        replied(b'{"power": 5}', "401 Unauthorized"),
        lambda: b"SSH-2.0-OpenSSH\r\n",
        lambda: b"",
        lambda: b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        replied(b'{"power": 1e400}'),
        replied(b"1" * 70_000),
    ],
)
async def test_a_page_without_the_figure_is_no_figure(answer: Page) -> None:
    async with page(answer, "#power=power") as meter:
        assert await meter.read() == MeterSample("m1", NOW, None, None)


def filed(path: Path, clock: ManualClock, selectors: str = "#max_age_s=30") -> Meter:
    return meter_of(MeterEntry("m1", "site", "", parse_source(f"file://{path}{selectors}")), ModbusHosts(), clock)


async def test_a_file_tells_as_long_as_it_is_written_anew(tmp_path: Path) -> None:
    path, clock = tmp_path / "meter.txt", ManualClock(NOW)
    path.write_text("1200")
    os.utime(path, (NOW.timestamp(), NOW.timestamp()))
    meter = filed(path, clock)
    assert (await meter.read()).power_w == 1200.0
    clock.advance(29)
    assert (await meter.read()).power_w == 1200.0
    clock.advance(2)
    assert (await meter.read()).power_w is None
    path.write_text("1300")
    os.utime(path, (1, 1))  # a writer whose clock is unset still shows by writing
    assert (await meter.read()).power_w == 1300.0


async def test_a_file_that_is_old_at_first_sight_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "meter.json"
    path.write_text('{"p": 5}')
    os.utime(path, (NOW.timestamp() - 60, NOW.timestamp() - 60))
    assert (await filed(path, ManualClock(NOW), "#power=p").read()).power_w is None


async def test_a_file_that_is_not_there_is_a_silent_meter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    meter = filed(tmp_path / "none", ManualClock(NOW))
    assert (await meter.read()).power_w is None
    assert "check the program that writes it" in caplog.messages[0]


async def test_a_file_that_hangs_holds_up_nothing_and_is_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, enough, opened = tmp_path / "meter.txt", threading.Event(), os.open

    def as_on_a_mount_that_went_away(*wanted: Path | int) -> int:
        enough.wait(30)
        return opened(*wanted)  # type: ignore[arg-type]

    path.write_text("4711")
    os.utime(path, (NOW.timestamp(), NOW.timestamp()))
    monkeypatch.setattr(os, "open", as_on_a_mount_that_went_away)
    meter, looks = filed(path, ManualClock(NOW)), threading.active_count()
    async with asyncio.timeout(10):
        assert [(await meter.read()).power_w for _ in range(3)] == [None, None, None]
    assert threading.active_count() <= looks + 1
    enough.set()
    async with asyncio.timeout(10):
        while (await meter.read()).power_w != 4711:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
async def test_a_pipe_a_folder_and_a_device_are_no_meter_and_are_not_waited_for(
    make: Callable[[Path], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path / "meter.txt")
    async with asyncio.timeout(0.5):
        assert (await filed(tmp_path / "meter.txt", ManualClock(NOW)).read()).power_w is None
    assert "is a pipe, device or folder; name a file in meters.csv" in caplog.messages[0]


async def test_a_cancelled_read_ends_though_what_it_awaits_swallows_the_cancellation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On Python 3.11 ``wait_for``, which pymodbus uses, does when the answer comes in the same moment."""
    asked = asyncio.Event()

    class Swallows:
        connected = True

        async def read(self) -> str:
            asked.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return "an answer"
            return ""

        def close(self) -> None:
            pass

    async def connected(*_: object) -> Swallows:
        return Swallows()

    host = ModbusHosts().at("127.0.0.1", 502)
    monkeypatch.setattr(host, "_connected", connected)
    reading = asyncio.create_task(host._ask(lambda client: client.read(), 4, 60.0))
    async with asyncio.timeout(5):
        await asked.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
