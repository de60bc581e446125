"""Contactors before miners that take no stop: coils over Modbus TCP, power that really goes, ports that really close."""

import asyncio
import struct
from dataclasses import replace

import pytest

from agent.cgminer.control import HeldInMemory
from agent.errors import Refused
from agent.fleet import Fleet
from agent.inventory import load_inventory
from agent.settings import load_settings
from agent.vault import Vault
from simulator.contactors import UNIT
from sitelink.clock import SystemClock
from sitelink.types import MinerState, Reason
from tests.contract.simulator.world import clock_of, get, miner_of, site, until, web

ON, OFF = 0xFF00, 0x0000


async def coil(opened, function: int, first: int, value: int, data: bytes = b"", unit: int = UNIT) -> bytes:
    reader, writer = await asyncio.open_connection(opened.modbus.host, opened.modbus.port)
    try:
        body = struct.pack(">BHH", function, first, value) + data
        writer.write(struct.pack(">HHHB", 9, 0, len(body) + 1, unit) + body)
        async with asyncio.timeout(5):
            _, _, length, answered = struct.unpack(">HHHB", await reader.readexactly(7))
            assert answered == unit
            return await reader.readexactly(length - 1)
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


def ports_of(opened, miner):
    return opened.listeners[miner.place.miner_id]


async def test_a_coil_takes_the_power_and_gives_it_back():
    async with site(4, dialects=("bitaxe",)) as opened:
        miner = miner_of(opened, "bitaxe")
        number = miner.place.index
        assert await coil(opened, 1, number, 1) == b"\x01\x01\x01"
        assert await coil(opened, 5, number, OFF) == struct.pack(">BHH", 5, number, OFF)
        await until(lambda: not any(port.is_open for port in ports_of(opened, miner)), opened, 1)
        assert miner.true_power_w(opened.time.seconds()) == 0
        assert await coil(opened, 1, number, 1) == b"\x01\x01\x00"
        clock_of(opened).advance(300)
        assert not any(port.is_open for port in ports_of(opened, miner))
        assert await coil(opened, 5, number, ON) == struct.pack(">BHH", 5, number, ON)
        assert not any(port.is_open for port in ports_of(opened, miner)), "it boots first"
        await until(lambda: all(port.is_open for port in ports_of(opened, miner)), opened, 40)
        clock_of(opened).advance(30)
        assert miner.true_power_w(opened.time.seconds()) > 0.97 * miner.place.actual_w
        async with web(opened, miner.place.miner_id) as client:
            assert (await client.get("/api/system/info")).json()["uptimeSeconds"] < 60
        rows = [(row["verb"], row["detail"], row["effect_at"] is not None) for row in await get(opened, "/orders")]
        assert rows == [("stop", {"outlet": True}, True), ("start", {"outlet": True}, True)]


async def test_many_coils_are_read_and_switched_at_once():
    async with site(10, dialects=("goldshell",)) as opened:
        assert await coil(opened, 1, 0, 10) == b"\x01\x02\xff\x03"
        assert await coil(opened, 15, 0, 10, b"\x02\xaa\x02") == struct.pack(">BHH", 15, 0, 10)
        assert await coil(opened, 1, 0, 16) == b"\x01\x02\xaa\x02"
        plugged = [miner.plugged for miner in opened.miners.values()]
        assert plugged == [False, True] * 5


async def test_a_welded_contactor_reads_as_told_and_lets_power_flow():
    async with site(4, dialects=("innosilicon",)) as opened:
        miner = miner_of(opened, "innosilicon")
        await opened.set_fault(miner.place.miner_id, "ack_without_effect")
        await coil(opened, 5, miner.place.index, OFF)
        clock_of(opened).advance(60)
        assert await coil(opened, 1, miner.place.index, 1) == b"\x01\x01\x00"
        assert miner.true_power_w(opened.time.seconds()) > 0.97 * miner.place.actual_w
        assert opened.order_rows()[0]["effect_at"] is None


async def test_a_fault_that_ends_gives_no_power_to_an_open_contactor():
    async with site(4, dialects=("epic",)) as opened:
        miner = miner_of(opened, "epic")
        await coil(opened, 5, miner.place.index, OFF)
        for fault in ("overheated", None, "dead", None):
            await opened.set_fault(miner.place.miner_id, fault)
            clock_of(opened).advance(60)
            assert miner.true_power_w(opened.time.seconds()) == 0
            assert not any(port.is_open for port in ports_of(opened, miner))


@pytest.mark.parametrize(
    ("function", "first", "value", "data", "refusal"),
    [
        (3, 0, 1, b"", b"\x83\x01"),
        (1, 99, 1, b"", b"\x81\x02"),
        (1, 0, 0, b"", b"\x81\x02"),
        (5, 99, ON, b"", b"\x85\x02"),
        (5, 0, 1, b"", b"\x85\x03"),
        (15, 0, 9, b"\x01\xff", b"\x8f\x03"),
        (15, 0, 8, b"\x01\xff", b"\x8f\x02"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_switches_nothing(function, first, value, data, refusal):
    async with site(4, dialects=("bitaxe",)) as opened:
        assert await coil(opened, function, first, value, data) == refusal
        assert all(miner.plugged for miner in opened.miners.values())


async def test_the_inventory_names_a_contactor_where_no_firmware_stops(tmp_path):
    async with site(8, dialects=("luxos", "bitaxe"), out=tmp_path) as opened:
        for entry in load_inventory(tmp_path / "inventory.csv"):
            place = opened.miners[entry.miner_id].place
            address = f"modbus://{opened.modbus.host}:{opened.modbus.port}/{UNIT}?coil={place.index}"
            assert entry.outlet == (address if entry.dialect == "bitaxe" else "")
        assert await coil(opened, 1, miner_of(opened, "luxos").place.index, 1) == b"\x81\x02"


async def test_a_row_with_its_neighbours_contactor_costs_nobody_the_power_for_long(tmp_path):
    (tmp_path / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\n[poll]\nconnect_s = 1\ntotal_s = 2\n')
    settings = load_settings(tmp_path / "agent.toml", {})
    async with site(2, dialects=("bitaxe",), out=tmp_path) as opened:
        one, other = load_inventory(tmp_path / "inventory.csv")
        fleet = Fleet(settings, SystemClock(), Vault.open(settings))

        def control(entry, cell):
            device = fleet.devices([entry])[entry.miner_id]
            made = fleet.control(entry, device, HeldInMemory(), fleet.outlet_before(replace(entry, outlet=cell)))
            made._goes_off_s = 0.3
            return made

        with pytest.raises(Refused, match="does not feed this miner, or is welded; it is on again"):
            await control(one, other.outlet).stop()
        rows = [(row["miner_id"], row["verb"]) for row in await get(opened, "/orders")]
        assert rows == [(other.miner_id, "stop"), (other.miner_id, "start")]
        assert all(miner.plugged for miner in opened.miners.values())
        right = control(one, one.outlet)
        await right.stop()
        seen = await right.observe()
        assert (seen.state, seen.reason) == (MinerState.IDLE, Reason.COMMANDED)
        assert await right.identity() == one.miner_id
        assert [opened.miners[each.miner_id].plugged for each in (one, other)] == [False, True]
        await fleet.aclose()


async def test_a_site_without_contactors_has_no_such_unit(tmp_path):
    async with site(5, out=tmp_path) as opened:
        assert await coil(opened, 1, 0, 1) == b"\x81\x01"
        assert "outlet" not in (tmp_path / "inventory.csv").read_text().splitlines()[0]
