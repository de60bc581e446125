"""Replies have the shape of their firmware: against plain json, against the agent's parser, in both framings."""

import asyncio
import contextlib
import json

import pytest

from agent.cgminer.client import Address
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.replies import identify, parse
from simulator.dialects.ciphers import close_envelope, md5_crypt, open_envelope
from simulator.roster import DIALECTS
from sitelink.clock import SystemClock
from sitelink.types import MinerState, Verb
from tests.contract.simulator.world import ask, clock_of, miner_of, model_of, raw, site

COMMANDS = {
    "luxos": ("summary", "stats", "pools", "devs", "version", "power", "temps", "fans", "config", "events"),
    "whatsminer": ("summary", "devs", "edevs", "pools", "devdetails", "version"),
    "avalon": ("summary", "stats", "litestats", "pools", "devs", "version", "config", "devdetails"),
    "antminer": ("summary", "stats", "pools", "version", "devs"),
    "braiins": ("summary", "pools", "devs", "version", "temps", "fans", "tunerstatus", "devdetails"),
}
OWN = ("status", "get_miner_info", "get_psu", "get_error_code", "get_version")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_every_command_answers_with_its_section(dialect):
    async with site() as opened:
        miner_id = miner_of(opened, dialect).place.miner_id
        for command in COMMANDS[dialect]:
            document = await ask(opened, miner_id, command)
            assert document["STATUS"][0]["STATUS"] == "S", command
            assert document["STATUS"][0]["When"] == int(clock_of(opened).now().timestamp())
            assert document["id"] == 1
            assert len(document) >= 3


async def test_btminers_own_commands_have_a_bare_status():
    async with site() as opened:
        miner_id = miner_of(opened, "whatsminer").place.miner_id
        for command in OWN:
            document = await ask(opened, miner_id, command)
            assert (document["STATUS"], document["Code"]) == ("S", 131)
            assert isinstance(document["Msg"], dict)
        by_cmd = json.loads(await raw(opened, miner_id, b'{"cmd":"status"}'))
        assert by_cmd["Msg"]["mineroff"] == "false"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_what_is_no_command_is_refused(dialect):
    async with site() as opened:
        miner_id = miner_of(opened, dialect).place.miner_id
        assert (await ask(opened, miner_id, "nonsense"))["STATUS"][0]["Code"] == 14
        for request, code in ((b'{"command":}', 23), (b'{"x":1}', 24)):
            document = json.loads((await raw(opened, miner_id, request)).rstrip(b"\x00"))
            assert document["STATUS"][0]["Code"] == code


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_plain_text_is_answered_in_plain_text(dialect):
    async with site() as opened:
        reply = await raw(opened, miner_of(opened, dialect).place.miner_id, b"summary")
        assert reply.startswith(b"STATUS=S,When=")
        assert b"|SUMMARY,Elapsed=" in reply or b"|SUMMARY,Accepted=" in reply
        assert reply.rstrip(b"\x00").endswith(b"|")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_joined_commands_work_where_the_firmware_takes_them(dialect):
    async with site() as opened:
        document = await ask(opened, miner_of(opened, dialect).place.miner_id, "summary+pools")
        if dialect == "antminer":
            assert document["STATUS"][0]["Code"] == 14
        else:
            assert document["summary"][0]["SUMMARY"]
            assert document["pools"][0]["POOLS"]


async def test_btminer_joins_only_its_cgminer_commands():
    async with site() as opened:
        document = await ask(opened, miner_of(opened, "whatsminer").place.miner_id, "summary+status")
        assert document["STATUS"][0]["Code"] == 14


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_agents_parser_reads_what_the_miner_is(dialect):
    async with site() as opened:
        miner = miner_of(opened, dialect)
        commands = COMMANDS[dialect] + (OWN if dialect == "whatsminer" else ())
        replies = {
            name: (await raw(opened, miner.place.miner_id, json.dumps({"command": name}).encode())).rstrip(b"\x00")
            for name in commands
        }
        read = parse(dialect, replies)
        assert read.state is MinerState.HASHING
        assert read.hashrate_ths == pytest.approx(miner.place.actual_ths, rel=0.02)
        if dialect != "antminer":
            assert read.power_w == pytest.approx(miner.place.actual_w, rel=0.02)
        if dialect in {"luxos", "whatsminer", "avalon"}:
            assert read.mac == miner.place.mac
        if dialect == "antminer":
            assert read.serial == miner.place.serial == miner.place.miner_id
        assert read.boards == 3
        assert max(read.board_temps_c) > 15
        assert max(read.fans_rpm) > 3000
        assert read.pools[0].accepted > 1000
        assert not read.repaired
        assert identify(replies) == dialect


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_agents_device_finds_out_the_dialect_by_itself(dialect):
    async with site() as opened:
        place = miner_of(opened, dialect).place
        device = Device(Address(place.host, place.port), "auto", SystemClock())
        assert (await device.observe()).dialect == dialect


async def test_newer_antminers_show_power_when_asked_in_the_new_form():
    async with site(12, dialects=("antminer",)) as opened:
        miner = model_of(opened, "Antminer S21")
        row = (await ask(opened, miner.place.miner_id, "stats", new_api=True))["STATS"][0]
        assert row["watt"] == pytest.approx(miner.place.actual_w, rel=0.02)
        assert len(row["chain"]) == 3
        older = model_of(opened, "Antminer S19 Pro")
        assert "chain" not in (await ask(opened, older.place.miner_id, "stats", new_api=True))["STATS"][0]


# -------------------------------------------------------------------- luxos sessions


async def luxos_session(opened, miner_id: str) -> str:
    document = await ask(opened, miner_id, "logon")
    assert document["STATUS"][0]["Code"] == 316
    return document["SESSION"][0]["SessionID"]


async def settled(opened, miner_id: str, seconds: float = 30.0) -> float:
    clock_of(opened).advance(seconds)
    return opened.miners[miner_id].true_power_w(opened.time.seconds())


async def test_luxos_sleeps_and_wakes_within_one_session():
    async with site() as opened:
        miner = miner_of(opened, "luxos")
        name, full_w = miner.place.miner_id, miner.place.actual_w
        session = await luxos_session(opened, name)
        document = await ask(opened, name, "curtail", f"{session},sleep")
        assert (document["STATUS"][0]["Code"], document["CURTAIL"]) == (335, [{"Action": "sleep mode"}])
        assert await settled(opened, name) < 0.03 * full_w
        assert (await ask(opened, name, "summary"))["SUMMARY"][0]["GHS 5s"] == 0
        assert (await ask(opened, name, "config"))["CONFIG"][0]["CurtailMode"] == "Sleep"
        assert (await ask(opened, name, "curtail", f"{session},wakeup"))["CURTAIL"] == [{"Action": "wake up"}]
        assert await settled(opened, name) == pytest.approx(full_w, rel=0.02)
        assert (await ask(opened, name, "logoff", session))["STATUS"][0]["STATUS"] == "S"


async def test_luxos_has_one_session_and_no_change_without_it():
    async with site() as opened:
        name = miner_of(opened, "luxos").place.miner_id
        assert (await ask(opened, name, "curtail", "wrong,sleep"))["STATUS"][0]["STATUS"] == "E"
        session = await luxos_session(opened, name)
        assert (await ask(opened, name, "logon"))["STATUS"][0]["STATUS"] == "E"
        assert (await ask(opened, name, "session"))["SESSION"] == [{"SessionID": session}]
        assert (await ask(opened, name, "curtail", "wrong,sleep"))["STATUS"][0]["STATUS"] == "E"
        await ask(opened, name, "logoff", session)
        assert (await ask(opened, name, "session"))["SESSION"] == [{"SessionID": ""}]
        assert await luxos_session(opened, name) != session
        assert not opened.orders


async def test_a_luxos_session_dies_after_60_s_without_use():
    async with site() as opened:
        name = miner_of(opened, "luxos").place.miner_id
        session = await luxos_session(opened, name)
        for _ in range(3):
            clock_of(opened).advance(50)
            assert (await ask(opened, name, "curtail", f"{session},wakeup"))["STATUS"][0]["STATUS"] == "S"
        clock_of(opened).advance(61)
        assert (await ask(opened, name, "curtail", f"{session},sleep"))["STATUS"][0]["STATUS"] == "E"
        await luxos_session(opened, name)


# -------------------------------------------------------------------- whatsminer tokens


class Whats:
    """A client of the write protocol, spelled out from the vendor's text."""

    def __init__(self, opened, miner_id: str, password: str = "admin") -> None:
        self._opened, self._miner_id, self._password = opened, miner_id, password

    async def token(self):
        return await ask(self._opened, self._miner_id, "get_token")

    async def write(self, command: str, granted=None, **fields: str):
        message = (granted or await self.token())["Msg"]
        key = md5_crypt(self._password, message["salt"])
        sign = md5_crypt(key + message["time"], message["newsalt"])
        data = close_envelope(json.dumps({"cmd": command, "token": sign, **fields}).encode(), key)
        reply = json.loads(await raw(self._opened, self._miner_id, json.dumps({"enc": 1, "data": data}).encode()))
        return json.loads(open_envelope(reply["enc"], key)) if "enc" in reply else reply


def test_md5_crypt_agrees_with_the_published_scheme():
    # `openssl passwd -1 -salt BQ5hoXV9 admin` and the like
    assert md5_crypt("admin", "BQ5hoXV9") == "RxmaDUO33TS7O26yeMHZ81"
    assert md5_crypt("", "abcdefgh") == "M55TzYaaccxVGbptZWaxX/"
    assert md5_crypt("a much longer password than sixteen bytes", "x") == "Csw7VKF4Pd3clFEHHx7b20"


def test_envelopes_open_to_what_was_put_in():
    assert open_envelope(close_envelope(b'{"cmd":"power_off"}', "k"), "k") == b'{"cmd":"power_off"}'
    with pytest.raises(ValueError):
        open_envelope("bm8gYmxvY2s=", "k")


async def test_whatsminer_stops_and_starts_under_a_token():
    async with site() as opened:
        miner = miner_of(opened, "whatsminer")
        name, full_w = miner.place.miner_id, miner.place.actual_w
        client = Whats(opened, name)
        reply = await client.write("power_off", respbefore="true")
        assert (reply["STATUS"], reply["Code"], reply["Msg"]) == ("S", 131, "API command OK")
        assert await settled(opened, name) < 0.03 * full_w
        assert (await ask(opened, name, "status"))["Msg"]["mineroff"] == "true"
        assert (await ask(opened, name, "summary"))["SUMMARY"][0]["HS RT"] == 0
        assert (await client.write("power_on"))["Code"] == 131
        assert await settled(opened, name) == pytest.approx(full_w, rel=0.02)


async def test_whatsminer_takes_no_write_without_the_right_token():
    async with site() as opened:
        name = miner_of(opened, "whatsminer").place.miner_id
        client = Whats(opened, name)
        assert (await Whats(opened, name, "other").write("power_off"))["Code"] == 135
        granted = await client.token()
        granted["Msg"]["time"] = "0000" if granted["Msg"]["time"] != "0000" else "0001"
        assert (await client.write("power_off", granted))["Code"] == 135
        assert (await ask(opened, name, "power_off"))["Code"] == 45
        assert not opened.orders


async def test_whatsminer_tokens_live_30_minutes_and_are_32_a_client():
    async with site() as opened:
        client = Whats(opened, miner_of(opened, "whatsminer").place.miner_id)
        first = await client.token()
        assert first["Code"] == 134
        for _ in range(31):
            assert (await client.token())["Code"] == 134
        assert (await client.token())["Code"] == 136
        assert (await client.write("power_on", first))["Code"] == 131
        clock_of(opened).advance(1801)
        assert (await client.write("power_on", first))["Code"] == 135
        assert (await client.token())["Code"] == 134


# -------------------------------------------------------------------- avalon, braiins


@pytest.mark.parametrize("as_text", [False, True])
async def test_avalon_switches_at_the_second_of_its_own_clock(as_text):
    async with site() as opened:
        miner = miner_of(opened, "avalon")
        name, full_w = miner.place.miner_id, miner.place.actual_w
        at = miner.device_time() + 5
        if as_text:
            reply = (await raw(opened, name, f"ascset|0,softoff,1:{at}".encode())).decode()
            assert f"STATUS=I,When={at - 5},Code=118,Msg=ASC 0 set info: success softoff:{at}," in reply
        else:
            status = (await ask(opened, name, "ascset", f"0,softoff,1:{at}"))["STATUS"][0]
            assert (status["STATUS"], status["Code"]) == ("I", 118)
            assert status["Msg"] == f"ASC 0 set info: success softoff:{at}"
        assert await settled(opened, name, 4.9) == pytest.approx(full_w, rel=0.02)
        assert await settled(opened, name, 10) < 0.03 * full_w
        text = (await ask(opened, name, "stats"))["STATS"][0]["MM ID0"]
        assert "SYSTEMSTATU[Work: In Idle" in text
        assert "GHSspd[0.00]" in text
        await ask(opened, name, "ascset", "0,softon")
        assert await settled(opened, name) == pytest.approx(full_w, rel=0.02)


async def test_an_order_for_decades_ahead_does_not_come_for_a_device_without_clock():
    async with site() as opened:
        miner = miner_of(opened, "avalon")
        name = miner.place.miner_id
        await opened.set_fault(name, "clock_unset")
        when = (await ask(opened, name, "version"))["STATUS"][0]["When"]
        assert when < 10_000
        await ask(opened, name, "ascset", f"0,softoff,1:{int(clock_of(opened).now().timestamp())}")
        assert await settled(opened, name, 600) > 0.9 * miner.place.actual_w
        await ask(opened, name, "ascset", f"0,softoff,1:{when + 602}")
        assert await settled(opened, name, 30) < 0.03 * miner.place.actual_w


@pytest.mark.parametrize("parameter", ["0,softoff,1:soon", "3,softoff", "0,explode"])
async def test_avalon_refuses_what_it_does_not_know(parameter):
    async with site() as opened:
        status = (await ask(opened, miner_of(opened, "avalon").place.miner_id, "ascset", parameter))["STATUS"][0]
        assert status["STATUS"] == "E"
        assert not opened.orders


async def test_braiins_pauses_and_resumes():
    async with site() as opened:
        miner = miner_of(opened, "braiins")
        assert (await ask(opened, miner.place.miner_id, "pause"))["PAUSE"] == [True]
        assert await settled(opened, miner.place.miner_id) < 0.03 * miner.place.actual_w
        assert (await ask(opened, miner.place.miner_id, "resume"))["STATUS"][0]["STATUS"] == "S"
        assert await settled(opened, miner.place.miner_id) == pytest.approx(miner.place.actual_w, rel=0.02)


async def test_a_stock_antminer_cannot_be_changed_over_rpc():
    async with site() as opened:
        name = miner_of(opened, "antminer").place.miner_id
        for command in ("restart", "quit", "ascset", "privileged"):
            assert (await ask(opened, name, command))["STATUS"][0]["Code"] == 45


# -------------------------------------------------------------------- requests in pieces


async def test_a_request_may_come_in_pieces_and_end_with_nothing():
    async with site() as opened:
        place = miner_of(opened, "luxos").place
        reader, writer = await asyncio.open_connection(place.host, place.port)
        for piece in (b'{"comm', b'and":"ver', b'sion"}'):
            writer.write(piece)
            await writer.drain()
        assert b"LUXminer versions" in await reader.read(-1)
        writer.close()


async def test_an_endless_request_is_dropped():
    async with site() as opened:
        place = miner_of(opened, "luxos").place
        reader, writer = await asyncio.open_connection(place.host, place.port)
        writer.write(b"{" * 70_000)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                assert await reader.read(-1) == b""
        writer.close()
        assert (await ask(opened, place.miner_id, "version"))["VERSION"]


@pytest.mark.parametrize("dialect", sorted({*DIALECTS, "whatsminer-v3", "braiins-rest", "vnish", "cgminer"}))
async def test_a_glance_shows_what_a_look_shows_of_state_and_power(dialect):
    async with site(3, dialects=(dialect,)) as opened:
        miner = miner_of(opened, dialect)
        place = miner.place
        secret = Credentials(miner.kept.user, miner.kept.password)
        device = Device(
            Address(place.host, place.port),
            dialect,
            clock_of(opened),
            miner_id=place.miner_id,
            web_port=place.web_port,
            credentials=secret,
        )
        try:
            glance, look = await device.observe(glance=True), await device.observe()
            assert (glance.state, glance.power_w) == (look.state, look.power_w)
            assert look.state is MinerState.HASHING
            miner.order(Verb.STOP)
            clock_of(opened).advance(60)
            glance, look = await device.observe(glance=True), await device.observe()
            assert (glance.state, glance.power_w) == (look.state, look.power_w)
        finally:
            device.close()


@pytest.mark.parametrize(
    ("dialect", "capture"),
    [
        ("antminer", "antminer-stock_s19-stock-2022_summary.json"),
        ("avalon", "avalon-cgminer_avalon-q_summary.json"),
        ("braiins", "braiins-bosplus_s9-bos_summary.json"),
        ("luxos", "luxos_s19k-pro_summary.json"),
    ],
)
async def test_a_summary_names_what_it_counts_as_its_firmware_does(captures, dialect, capture):
    """All from one builder; stock Antminers alone write ``Getwork`` there, and ``Getworks`` of a pool."""
    (real,) = json.loads((captures / capture).read_bytes())["SUMMARY"]
    async with site() as opened:
        miner_id = miner_of(opened, dialect).place.miner_id
        (row,) = (await ask(opened, miner_id, "summary"))["SUMMARY"]
        pools = (await ask(opened, miner_id, "pools"))["POOLS"]
    assert set(row) == set(real)
    assert all("Getworks" in pool for pool in pools)
