"""What the simulator's tests share: a small site on a private port, raw requests to its devices and meters."""

import asyncio
import json
import socket
import struct
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from simulator.roster import RosterOptions
from simulator.site import SimulatedSite, SiteOptions
from sitelink.clock import ManualClock

NOON = datetime(2026, 5, 8, 18, 0, tzinfo=UTC)


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def three_ports() -> tuple[int, int, int]:
    found = (free_port(), free_port(), free_port())
    return found if len(set(found)) == 3 else three_ports()


@asynccontextmanager
async def site(miners: int = 5, *, clock: ManualClock | None = None, out: Path | None = None, **roster: object):
    """A site without dead miners or liars unless asked for; its clock stands still until the test moves it."""
    port, web_port, framed_port = three_ports()
    base = RosterOptions("test-1", miners, 7, net="127.77", port=port, web_port=web_port, framed_port=framed_port)
    options = SiteOptions(replace(base, **roster), out, ("127.0.0.1", 0), "127.0.0.1", 0)
    async with SimulatedSite(options, clock or ManualClock(NOON)) as opened:
        yield opened


def clock_of(opened: SimulatedSite) -> ManualClock:
    clock = opened.time.clock
    assert isinstance(clock, ManualClock)
    return clock


def miner_of(opened: SimulatedSite, dialect: str):
    return next(m for m in opened.miners.values() if m.place.model.dialect == dialect and not m.dead)


def model_of(opened: SimulatedSite, name: str):
    return next(m for m in opened.miners.values() if m.place.model.name == name and not m.dead)


async def raw(opened: SimulatedSite, miner_id: str, request: bytes) -> bytes:
    """The reply to ``request`` as it came, terminator and all."""
    place = opened.miners[miner_id].place
    reader, writer = await asyncio.open_connection(place.host, place.rpc_port)
    try:
        writer.write(request)
        async with asyncio.timeout(5):
            return await reader.read(-1)
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def ask(opened: SimulatedSite, miner_id: str, command: str, parameter: str | None = None, **extra: object):
    request = {"command": command, **({"parameter": parameter} if parameter is not None else {}), **extra}
    return json.loads((await raw(opened, miner_id, json.dumps(request).encode())).rstrip(b"\x00\n"))


def web(opened: SimulatedSite, miner_id: str, auth: object = None, **more: object) -> httpx.AsyncClient:
    """Somebody else's HTTP client, at the miner's web page."""
    place = opened.miners[miner_id].place
    return httpx.AsyncClient(base_url=f"http://{place.host}:{place.web_port}", auth=auth, timeout=5, **more)


async def until(condition, opened: SimulatedSite | None = None, seconds: float = 0.0) -> None:
    """Wait until ``condition()`` holds; with ``seconds``, first let that much pass on the site's clock."""
    if opened is not None and seconds:
        clock_of(opened).advance(seconds)
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def power_share(opened: SimulatedSite, miner) -> float:
    """What the miner truly draws now, as a share of what it draws when it works."""
    return miner.true_power_w(opened.time.seconds()) / miner.place.actual_w


async def gone_and_back(opened: SimulatedSite, miner, seconds: float = 40) -> None:
    """Wait until every port of the miner has closed, as it reboots, and ``seconds`` later is open again."""
    ports = opened.listeners[miner.place.miner_id]
    await until(lambda: not any(port.is_open for port in ports), opened, 2)
    await until(lambda: all(port.is_open for port in ports), opened, seconds)


async def meter(opened: SimulatedSite, meter_id: str) -> tuple[float, float]:
    """(W, kWh) over Modbus TCP, as the meter's url says."""
    unit, register = opened.bank.meters[meter_id].unit, opened.bank.meters[meter_id].register
    body = await modbus(opened, unit, 4, register, 4)
    assert body[:2] == b"\x04\x08"
    return struct.unpack(">ff", body[2:])


async def modbus(opened: SimulatedSite, unit: int, function: int, register: int, count: int) -> bytes:
    reader, writer = await asyncio.open_connection(opened.modbus.host, opened.modbus.port)
    try:
        writer.write(struct.pack(">HHHBBHH", 7, 0, 6, unit, function, register, count))
        async with asyncio.timeout(5):
            transaction, protocol, length, answered = struct.unpack(">HHHB", await reader.readexactly(7))
            assert (transaction, protocol, answered) == (7, 0, unit)
            return await reader.readexactly(length - 1)
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def post(opened: SimulatedSite, path: str, body: object) -> httpx.Response:
    assert opened.control is not None
    async with httpx.AsyncClient(base_url=opened.control.url) as client:
        return await client.post(path, json=body)


async def get(opened: SimulatedSite, path: str) -> object:
    assert opened.control is not None
    async with httpx.AsyncClient(base_url=opened.control.url) as client:
        return (await client.get(path)).json()


def url_parts(url: str) -> tuple[str, str, int, str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or 0, parts.path, parts.query
