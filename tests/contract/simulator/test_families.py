"""Every dialect that can stand on a site is met by the agent as it is met in the field, its own table reading it."""

import contextlib

import httpx
import pytest

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.dialects import TABLES
from agent.inventory import load_inventory
from simulator.dialects import build_firmwares
from simulator.kept import FACTORY_ACCOUNTS
from simulator.roster import ALL_DIALECTS, DIALECTS, FURTHER_DIALECTS, MODELS
from sitelink.clock import SystemClock
from sitelink.types import MinerState
from tests.contract.simulator.world import ask, clock_of, miner_of, raw, site, until, web

PATIENT = Deadlines(connect_s=5, first_byte_s=10, total_s=20)
NO_POWER = {"antminer", "cgminer", "goldshell", "innosilicon"}
NO_MAC = {"antminer", "braiins", "innosilicon"}
READABLE = [name for name in ALL_DIALECTS if name in TABLES]


def device_of(miner, miner_id: str = "") -> Device:
    place = miner.place
    credentials = Credentials(miner.kept.user, miner.kept.password)
    address = Address(place.host, place.port)
    return Device(
        address,
        place.model.dialect,
        SystemClock(),
        miner_id=miner_id,
        web_port=place.web_port,
        credentials=credentials,
        deadlines=PATIENT,
    )


@contextlib.asynccontextmanager
async def pages(dialect: str):
    async with site(4, dialects=(dialect,)) as opened, web(opened, miner_of(opened, dialect).place.miner_id) as client:
        yield client


def test_every_dialect_has_a_firmware_a_model_and_an_account():
    assert set(build_firmwares()) == set(ALL_DIALECTS) == {model.dialect for model in MODELS}
    assert set(ALL_DIALECTS) <= set(FACTORY_ACCOUNTS)
    assert not set(DIALECTS) & set(FURTHER_DIALECTS)


@pytest.mark.parametrize("dialect", READABLE)
async def test_the_agents_device_reads_what_the_miner_does(dialect):
    async with site(4, dialects=(dialect,)) as opened:
        miner = miner_of(opened, dialect)
        device = device_of(miner)
        read = await device.observe()
        assert read.state is MinerState.HASHING
        assert read.hashrate_ths == pytest.approx(miner.place.actual_ths, rel=0.02)
        if dialect not in NO_POWER:
            assert read.power_w == pytest.approx(miner.place.actual_w, rel=0.02)
        if dialect not in NO_MAC:
            assert read.mac == miner.place.mac
        assert max(read.board_temps_c + read.chip_temps_c) > 15


@pytest.mark.parametrize("dialect", READABLE)
async def test_the_agent_takes_no_overheated_miner_for_a_stopped_one(dialect):
    async with site(4, dialects=(dialect,)) as opened:
        miner = miner_of(opened, dialect)
        await opened.set_fault(miner.place.miner_id, "overheated")
        clock_of(opened).advance(300)
        read = await device_of(miner).observe()
        assert read.hashrate_ths == 0
        assert read.reason.value != "commanded"


async def test_all_dialects_stand_on_one_site_and_its_inventory_names_their_ports(tmp_path):
    async with site(60, dialects=ALL_DIALECTS, out=tmp_path) as opened:
        entries = load_inventory(tmp_path / "inventory.csv")
        assert {entry.dialect for entry in entries} == set(ALL_DIALECTS)
        for entry in entries:
            place = opened.miners[entry.miner_id].place
            assert (entry.port, entry.web_port) == (place.port, place.web_port)
            assert entry.port == (place.rpc_port if entry.dialect != "whatsminer-v3" else place.port)


async def test_hiveon_leaves_out_the_comma_between_the_rows_of_its_stats():
    async with site(4, dialects=("hiveon",)) as opened:
        name = miner_of(opened, "hiveon").place.miner_id
        reply = await raw(opened, name, b'{"command":"stats"}')
        assert b"}{" in reply
        assert b"(AB)" in reply
        assert (await ask(opened, name, "version"))["VERSION"][0]["BMMiner"].endswith("rwglr")


async def test_innosilicon_opens_its_pages_to_a_token():
    async with site(4, dialects=("innosilicon",)) as opened:
        miner = miner_of(opened, "innosilicon")
        async with web(opened, miner.place.miner_id) as client:
            assert (await client.post("/api/getAll")).status_code == 401
            assert (await client.post("/api/auth", json={"username": "admin", "password": "x"})).status_code == 401
            token = (await client.post("/api/auth", data={"username": "admin", "password": "admin"})).json()["jwt"]
            client.headers["Authorization"] = f"Bearer {token}"
            found = (await client.post("/api/getAll")).json()["all"]
            assert found["power"] == pytest.approx(miner.place.actual_w, rel=0.02)
            assert (await client.get("/api/overview")).json()["version"]["ethaddr"] == miner.place.mac
            assert (await client.get("/api/nothing")).status_code == 404


async def test_epic_serves_pages_on_the_port_of_the_rpc():
    async with site(4, dialects=("epic",)) as opened:
        miner = miner_of(opened, "epic")
        assert miner.place.port == miner.place.web_port
        assert (await raw(opened, miner.place.miner_id, b'{"command":"version"}')).startswith(b"HTTP/1.1 400")
        async with web(opened, miner.place.miner_id) as client:
            assert (await client.get("/summary")).json()["Status"]["Operating State"] == "Mining"
            assert (await client.post("/miner", json={"param": "Stop"})).json()["result"] is False
            assert (await client.get("/nothing")).status_code == 404


async def test_auradine_opens_its_pages_to_a_token_in_a_header_of_its_own():
    async with pages("auradine") as client:
        assert (await client.get("/psu")).status_code == 401
        body = {"command": "token", "user": "admin", "password": "x"}
        assert (await client.post("/token", json=body)).status_code == 401
        reply = await client.post("/token", json=body | {"password": "admin"})
        client.headers["Token"] = reply.json()["Token"][0]["Token"]
        assert (await client.get("/psu")).json()["PSU"][0]["PowerIn"].endswith("W")
        assert (await client.get("/mode")).json()["Mode"][0]["Sleep"] == "off"
        assert (await client.get("/nothing")).status_code == 404


async def test_bitaxe_restarts_and_cannot_be_stopped():
    async with site(4, dialects=("bitaxe",)) as opened:
        miner = miner_of(opened, "bitaxe")
        ports = opened.listeners[miner.place.miner_id]
        async with web(opened, miner.place.miner_id) as client:
            assert (await client.post("/api/system/stop")).status_code == 404
            assert (await client.post("/api/system/restart")).status_code == 200
            await until(lambda: not any(port.is_open for port in ports), opened, 2)
            with pytest.raises(httpx.TransportError):
                await client.get("/api/system/info")
            await until(lambda: all(port.is_open for port in ports), opened, 20)
            assert (await client.get("/api/system/info")).json()["uptimeSeconds"] < 30


async def test_goldshell_writes_units_behind_its_figures():
    async with pages("goldshell") as client:
        row = (await client.get("/mcb/cgminer?cgminercmd=devs")).json()["data"][0]
        assert "rpm / " in row["fanspeed"]
        assert "\u00b0C" in row["temp"]
        assert (await client.get("/mcb/pools")).json()[0]["active"] is True
        assert (await client.get("/mcb/nothing")).status_code == 404
