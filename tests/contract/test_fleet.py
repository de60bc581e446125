"""What is opened on the way to a site's miners, outlets and meters is closed by whoever made it."""

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.fleet import Fleet
from agent.settings import load_settings
from agent.vault import Vault
from sitelink.clock import ManualClock
from sitelink.inventory import MeterEntry, MinerEntry
from sitelink.meter_source import parse_source
from tests.contract.test_meters import Registers
from tests.contract.test_outlets import Relays

pytestmark = pytest.mark.agent

WORKER = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    print(json.dumps({"id": json.loads(line)["id"], "data": {"mac": "02:00:00:00:00:01"}}), flush=True)
"""


class Pages:
    """A web server that keeps its connections open; ``open`` counts them."""

    def __init__(self) -> None:
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n" + b'{"output":true}')
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


def entry(miner_id: str, host: str, dialect: str, outlet: str = "") -> MinerEntry:
    return MinerEntry(miner_id, host, 9, dialect, "S9", "F1", "R1", 1, None, None, 80, "", outlet)


async def test_whatever_was_opened_is_closed_with_the_fleet(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\n')
    settings = load_settings(tmp_path / "agent.toml", {})
    clock = ManualClock(datetime(2026, 6, 1, tzinfo=UTC))
    pages, registers, relays = Pages(), Registers(), Relays()
    server = await asyncio.start_server(pages.serve, "127.0.0.1", 0)
    gateway = await asyncio.start_server(registers.serve, "127.0.0.1", 0)
    web, modbus = (each.sockets[0].getsockname()[1] for each in (server, gateway))
    fleet = Fleet(settings, clock, Vault.open(settings))
    fleet._exotic._command = (sys.executable, "-c", WORKER)
    async with server, gateway, relays.listening() as url:
        exotic = entry("02:00:00:00:00:01", "127.0.0.1", "exotic")
        device = fleet.devices((exotic,))[exotic.miner_id]
        assert await device.identity() == exotic.miner_id
        pdu = fleet.outlet_before(entry("m2", "127.0.0.1", "cgminer", f"http://127.0.0.1:{web}/1?pdu=shelly-gen2"))
        coil = fleet.outlet_before(entry("m3", "127.0.0.1", "cgminer", f"{url}?coil=1"))
        assert pdu is not None
        assert coil is not None
        assert (await pdu.is_on(), await coil.is_on()) == (True, False)
        (meter,) = fleet.meters(
            (MeterEntry("m", "site", "", parse_source(f"modbus://127.0.0.1:{modbus}/1?register=0")),), clock
        )
        await meter.read()
        worker = fleet._exotic._worker
        assert worker is not None
        assert (pages.open, registers.open, worker.ended) == (1, 1, False)
        await fleet.aclose()
        assert worker.gone.is_set()
        async with asyncio.timeout(5):
            while pages.open or registers.open:
                await asyncio.sleep(0.01)
        await fleet.aclose()


async def test_a_fleet_that_nobody_asked_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\n')
    settings = load_settings(tmp_path / "agent.toml", {})
    fleet = Fleet(settings, ManualClock(datetime(2026, 6, 1, tzinfo=UTC)), Vault.open(settings))
    fleet.devices((entry("02:00:00:00:00:01", "127.0.0.1", "exotic"),))
    await fleet.aclose()
    assert fleet._exotic._worker is None
