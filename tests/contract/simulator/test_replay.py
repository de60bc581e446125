"""Recorded devices answer with what was recorded, byte for byte."""

import asyncio
import csv
import json

import pytest
from httpx import AsyncClient

from agent.cgminer.client import Address
from agent.cgminer.device import Device
from agent.inventory import load_inventory
from simulator.errors import BadInput
from simulator.replay import ReplayedDevices, ReplayOptions
from sitelink.clock import ManualClock, SystemClock
from sitelink.types import MinerState
from tests.contract.simulator.world import NOON, free_port

HEADER = "file,case,firmware,model,transport,command,expected"
SUMMARY = b'{"STATUS":[{"STATUS":"S"}],"SUMMARY":[{"MAC":"02:00:00:00:00:AA"}],"id":1}'
POOLS = b'{"STATUS":[{"STATUS":"S"}],"POOLS":[],"id":1}'
JOINED = b'{"stats":[{"STATS":[{"ID":"AVA0"}]}],"pools":[{"POOLS":[]}],"id":1}'


def folder(tmp_path, *rows: str, **files: bytes):
    (tmp_path / "MANIFEST.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def replay(where, **options: object) -> ReplayedDevices:
    return ReplayedDevices(
        ReplayOptions(**{"folder": where, "net": "127.79", "port": free_port(), **options}), ManualClock(NOON)
    )


async def reply(opened: ReplayedDevices, device, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(device.host, opened._options.port)
    try:
        async with asyncio.timeout(5):
            writer.write(request)
            return await reader.read(-1)
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


def plain(tmp_path):
    rows = (
        "a,lux,luxos,S19,rpc4028,summary,",
        "b,lux,luxos,S19,rpc4028,pools,",
        "c,lux,luxos,S19,http,web,",
        "d,avalon,avalon-cgminer,A10,rpc4028,pools+stats,",
        "e,avalon,avalon-cgminer,A10,rpc4028,ascset_softoff,",
    )
    return folder(tmp_path, *rows, a=SUMMARY, b=POOLS, c=b"web", d=JOINED, e=b"off")


async def test_recorded_bytes_leave_with_and_without_a_nul(tmp_path):
    async with replay(plain(tmp_path)) as opened:
        assert await reply(opened, opened.devices[0], b'{"command":"summary"}') == SUMMARY + b"\x00"
        assert await reply(opened, opened.devices[0], b"pools") == POOLS + b"\x00"
    async with replay(tmp_path, nul=False) as opened:
        assert await reply(opened, opened.devices[0], b'{"command":"summary"}') == SUMMARY


async def test_what_was_not_recorded_gets_the_firmwares_error(tmp_path):
    async with replay(plain(tmp_path), nul=False) as opened:
        document = json.loads(await reply(opened, opened.devices[0], b'{"command":"version"}'))
        assert (document["STATUS"][0]["STATUS"], document["STATUS"][0]["Code"]) == ("E", 14)
        assert json.loads(await reply(opened, opened.devices[0], b'{"command":' + b"}"))["STATUS"][0]["Code"] == 23


async def test_parameters_choose_among_recordings(tmp_path):
    async with replay(plain(tmp_path), nul=False) as opened:
        assert await reply(opened, opened.devices[1], b"ascset|0,softoff,1:1753434821") == b"off"
        assert b'"Code":14' in await reply(opened, opened.devices[1], b"ascset|0,softon,1:1753434821")


async def test_joined_requests_find_joined_recordings_and_their_parts(tmp_path):
    async with replay(plain(tmp_path), nul=False) as opened:
        assert await reply(opened, opened.devices[1], b'{"command":"stats+pools"}') == JOINED
        assert json.loads(await reply(opened, opened.devices[1], b'{"command":"stats"}')) == {"STATS": [{"ID": "AVA0"}]}
        spliced = await reply(opened, opened.devices[0], b'{"command":"summary+pools"}')
        assert SUMMARY in spliced
        assert set(json.loads(spliced)) == {"summary", "pools", "id"}
        assert b'"Code":14' in await reply(opened, opened.devices[0], b'{"command":"summary+devs"}')


async def test_recordings_of_one_command_take_turns(tmp_path):
    rows = ("a,m,whatsminer-btminer,M30,rpc4028,devs,", "b,m,whatsminer-btminer,M30,rpc4028,devs,")
    async with replay(folder(tmp_path, *rows, a=b"{1}", b=b"{2}"), nul=False) as opened:
        assert [await reply(opened, opened.devices[0], b"devs") for _ in range(3)] == [b"{1}", b"{2}", b"{1}"]
        refused = json.loads(await reply(opened, opened.devices[0], b'{"command":"stats"}'))
        assert (refused["STATUS"], refused["Msg"]) == ("E", "invalid cmd")


async def test_the_inventory_names_each_device_by_what_it_tells(tmp_path):
    where = plain(tmp_path)
    async with replay(where, out=tmp_path / "out") as opened:
        entries = load_inventory(tmp_path / "out" / "inventory.csv")
        assert [entry.miner_id for entry in entries] == ["02:00:00:00:00:aa", "avalon"]
        assert [entry.dialect for entry in entries] == ["luxos", "avalon"]
        assert {entry.port for entry in entries} == {opened._options.port}


async def test_a_recording_tells_no_nameplate_and_the_dialect_may_be_left_open(tmp_path):
    rows = ('a,lux,luxos,S19,rpc4028,summary,"{""hashrate_ths"": 90, ""wattage"": 3000}"',)
    async with replay(folder(tmp_path, *rows, a=SUMMARY), out=tmp_path / "out", dialect="auto"):
        (entry,) = load_inventory(tmp_path / "out" / "inventory.csv")
    assert (entry.dialect, entry.nameplate_w, entry.nameplate_ths) == ("auto", None, None)


async def test_a_device_says_what_its_recording_lacks_to_show_a_state(tmp_path):
    rows = (
        "a,lux,luxos,S19,rpc4028,summary,",
        "b,boser,braiins,S9,rpc4028,version,",
        "b,wm,whatsminer-btminer,M30,rpc4028,version,",
        "b,odd,unheard-of,X,rpc4028,version,",
        "b,joined,avalon-cgminer,A10,rpc4028,pools+summary,",
    )
    async with replay(folder(tmp_path, *rows, a=SUMMARY, b=b"{}"), control=("127.0.0.1", 0)) as opened:
        lacks = {device.case: device.lacks for device in opened.devices}
        assert lacks == {"lux": "", "boser": "summary", "wm": "summary or status", "odd": "its dialect", "joined": ""}
        await reply(opened, opened.devices[0], b"summary")
        async with AsyncClient() as client:
            told = (await client.get(f"{opened.control.url}/devices")).json()["devices"]
    assert [(row["case"], row["dialect"], row["asked"]) for row in told[:2]] == [
        ("lux", "luxos", 1),
        ("boser", "braiins", 0),
    ]


async def test_a_device_never_changes_its_name(tmp_path):
    other = SUMMARY.replace(b"00:AA", b"00:BB")
    rows = ("a,m,luxos,S19,rpc4028,summary,", "b,m,luxos,S19,rpc4028,summary,")
    async with replay(folder(tmp_path, *rows, a=SUMMARY, b=other), nul=False) as opened:
        assert [await reply(opened, opened.devices[0], b"summary") for _ in range(3)] == [SUMMARY] * 3


def test_devices_are_named_as_an_inventory_takes_it(tmp_path):
    dna = b'{"STATS":[{"MM ID0":"Ver[1246] DNA[02010000cb231da8] x"}]}'
    rows = (
        "a,my case,luxos,S19,rpc4028,pools,",
        f"a,{'long' * 20},luxos,S19,rpc4028,pools,",
        "a,***,luxos,S19,rpc4028,pools,",
        "b,ava,avalon-cgminer,A,rpc4028,stats,",
        "b,again,avalon-cgminer,A,rpc4028,stats,",
    )
    names = [device.miner_id for device in replay(folder(tmp_path, *rows, a=POOLS, b=dna)).devices]
    assert names == ["my-case", "long" * 12, "device-3", "02010000cb231da8", "again"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (("x,lux,luxos,S19,rpc4028,summary,",), "line 2: file: cannot read x"),
        (("a,lux,luxos",), "line 2: fewer columns"),
        (("a,lux,luxos,S19,http,summary,",), "no rpc4028 case"),
    ],
)
def test_a_broken_manifest_is_named_with_line_and_cause(tmp_path, rows, said):
    with pytest.raises(BadInput) as raised:
        replay(folder(tmp_path, *rows, a=b"{}"))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(BadInput, match="cannot read"):
        replay(tmp_path)
    (tmp_path / "MANIFEST.csv").write_text("file,case\n")
    with pytest.raises(BadInput, match="line 1: no column firmware"):
        replay(tmp_path)
    (tmp_path / "MANIFEST.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not UTF-8"):
        replay(tmp_path)
    (tmp_path / "MANIFEST.csv").write_text("")
    with pytest.raises(BadInput, match="line 1: no column file"):
        replay(tmp_path)


async def test_every_captured_reply_leaves_byte_for_byte(captures):
    rows = list(csv.DictReader((captures / "MANIFEST.csv").read_text(encoding="utf-8").splitlines()))
    async with replay(captures, nul=False) as opened:
        devices = {device.case: device for device in opened.devices}
        assert len(devices) == len({row["case"] for row in rows if row["transport"] == "rpc4028"})
        checked = 0
        for row in rows:
            if row["transport"] == "rpc4028" and not set(row["command"]) & set("_-") and row["command"] != "reply":
                answered = await reply(opened, devices[row["case"]], json.dumps({"command": row["command"]}).encode())
                recorded = [
                    (captures / other["file"]).read_bytes()
                    for other in rows
                    if (other["case"], other["command"]) == (row["case"], row["command"])
                ]
                assert answered in recorded
                checked += 1
        assert checked > 100


async def test_the_agent_polls_captured_devices_like_any_other(captures, tmp_path):
    async with replay(captures) as opened:
        states = {}
        for device in opened.devices:
            if device.dialect == "auto":
                continue
            miner = Device(Address(device.host, opened._options.port), device.dialect, SystemClock())
            states[device.case] = (await miner.observe()).state
        assert states["antminer-stock_s19-stock-2022"] is MinerState.HASHING
        assert states["antminer-stock_s19-sleeping"] is MinerState.IDLE
        assert states["luxos_s19k-pro"] is MinerState.HASHING
        assert states["whatsminer-btminer_m30s-v2"] is MinerState.HASHING
        assert states["avalon-cgminer_avalon-q"] is MinerState.IDLE
