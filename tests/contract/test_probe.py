"""`ballast-agent poll` shows what a device says, from where, and what was repaired."""

import asyncio
import json

import pytest

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.credentials import Credentials
from agent.cgminer.dialects import table_of
from agent.cgminer.wires import FRAMED, RPC, wire_of
from agent.cli import main
from agent.errors import TimedOut, Unreachable
from agent.probe import as_json, as_table, probe, raw_replies
from agent.reasons import reason_of
from sitelink.inventory import DIALECTS
from sitelink.types import MinerState, Reason
from tests.contract.fake_miner import FakeMiner, Speak, serving
from tests.contract.fake_web import Asked, FakeWeb, page, pages
from tests.contract.test_miner_web import digest_server
from tests.contract.test_no_answer_is_unknown import DRIPS, SCALED, SHORT_ERRORS, SLACK_S, dripping, spread_over
from tests.unit.agent.cgminer import replies_of as made
from tests.unit.agent.cgminer import wire_replies_of as native

pytestmark = pytest.mark.agent

SHORT = Deadlines(connect_s=1, first_byte_s=1, total_s=2)


async def test_each_figure_is_shown_with_where_it_stands() -> None:
    miner = FakeMiner(dict(made.luxos()))
    async with serving(miner.speak) as address:
        found = await probe(address, "auto", SHORT)
    assert found.observation.dialect == "luxos"
    assert found.observation.state is MinerState.HASHING
    assert found.sources["hashrate_ths"].startswith("summary ")
    assert found.sources["power_w"].startswith("power ")
    table = as_table(found)
    assert f"{address} answers as luxos" in table
    assert "repaired: nothing" in table
    line = next(line for line in table.splitlines() if line.strip().startswith("hashrate_ths"))
    assert "TH/s" in line
    assert "summary" in line


async def test_json_has_nulls_for_the_unknown_and_raw_replies_on_demand() -> None:
    miner = FakeMiner({"summary": made.whatsminer_summary(), "devs": made.WHATSMINER_DEVS, "pools": made.POOLS})
    async with serving(miner.speak) as address:
        found = await probe(address, "whatsminer", SHORT)
    plain = json.loads(as_json(found, raw=False))
    assert "replies" not in plain
    assert plain["observation"]["env_temp_c"] is None or isinstance(plain["observation"]["env_temp_c"], float)
    raw = json.loads(as_json(found, raw=True))
    assert set(raw["replies"]) == set(found.replies)
    assert "--- summary\n" in raw_replies(found)


async def test_what_had_to_be_repaired_is_named() -> None:
    reply = made.luxos()["summary"]
    text = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    miner = FakeMiner({**made.luxos(), "summary": text.rstrip()[:-1] + b",}"})
    async with serving(miner.speak) as address:
        found = await probe(address, "luxos", SHORT)
    assert found.observation.repaired == ("extra_comma",)
    assert "repaired: extra_comma" in as_table(found)
    assert found.observation.hashrate_ths is not None


def says(reply: bytes) -> Speak:
    async def speak(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()

    return speak


@pytest.mark.parametrize("dialect", [name for name in DIALECTS if wire_of(table_of(name).commands.poll[0]) == RPC])
@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n<html>", r"no miner's API answers there but 'HTTP/1.1 400 Bad Request"),
        (b"\x16\x03\x01\xff\xfe", r"no miner's API answers there but '\x16\x03\x01\xff\xfe'"),
        (b'{"error": "not found"}', 'no miner\'s API answers there but \'{"error": "not found"}\'; check'),
        (b"\0", "no miner's API answers there but ''"),
        (b"x" * 400_000, "the reply exceeds 262144 bytes"),
    ],
)
async def test_what_is_no_miner_is_named(dialect: str, reply: bytes, told: str) -> None:
    async with serving(says(reply)) as address:
        found = await probe(address, dialect, SHORT)
    assert found.stranger is not None
    assert found.stranger.startswith(f"{address}: ")
    assert told in found.stranger
    assert len(found.stranger.splitlines()) == 1


@pytest.mark.parametrize("dialect", [name for name in DIALECTS if wire_of(table_of(name).commands.poll[0]) != RPC])
@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "no miner's API answers there but '<html>'"),
        (b"\x16\x03\x01\xff\xfe", "is not HTTP"),
        (b'{"error": "not found"}', "is not HTTP"),
    ],
)
async def test_what_is_no_miners_page_is_named(dialect: str, reply: bytes, told: str) -> None:
    async with serving(says(reply)) as address:
        found = await probe(address, dialect, SHORT, web_port=address.port)
    assert found.stranger is not None
    if wire_of(table_of(dialect).commands.poll[0]) == FRAMED:
        told = "no framed reply" if reply[:1] != b"\x16" else "exceeds"
    assert told in found.stranger


async def test_a_miner_that_refuses_us_is_no_stranger() -> None:
    async with serving(FakeMiner({}).speak) as address:
        assert (await probe(address, "auto", SHORT)).stranger is None


async def test_a_person_is_not_told_that_it_is_tried_again() -> None:
    async def hang_up(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with serving(hang_up) as address:
        with pytest.raises(Unreachable, match="closed the connection without an answer; try again"):
            await probe(address, "auto", SHORT)


async def verdict(dialect: str, address: Address) -> tuple[MinerState, Reason, str | None, float]:
    """Return what a probe by ``dialect``, on every wire at ``address``, says: state, reason, why; and its seconds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        found = await probe(address, dialect, SCALED, web_port=address.port)
    except TimedOut as error:
        return MinerState.UNKNOWN, reason_of(error), str(error), loop.time() - began
    return found.observation.state, found.observation.reason, found.stranger, loop.time() - began


@pytest.mark.parametrize("drip", DRIPS)
async def test_a_host_that_drips_is_unknown_with_a_reason_within_one_deadline(drip: str) -> None:
    """Each wire waited out a whole deadline before the next was tried: 20 s of nothing at a site."""
    dialects = ("auto", "antminer", "braiins", "vnish", "whatsminer-v3")
    async with serving(dripping(*DRIPS[drip])) as address:
        found = await asyncio.gather(*(verdict(dialect, address) for dialect in dialects))
    for dialect, (state, reason, why, took_s) in zip(dialects, found, strict=True):
        assert state is MinerState.UNKNOWN, dialect
        assert reason in (Reason.TIMEOUT, Reason.GARBLED), dialect
        assert (why or "").startswith(f"{address}: "), dialect
        assert took_s < SCALED.total_s + SLACK_S, dialect


async def test_a_host_that_drips_is_asked_nothing_more_once_its_time_is_over() -> None:
    asked: list[bytes] = []
    drip = dripping(*DRIPS["http body"])

    async def speak(request: bytes, writer: asyncio.StreamWriter) -> None:
        asked.append(request)
        await drip(request, writer)

    async with serving(speak) as address:
        with pytest.raises(TimedOut, match="no whole reply within 1 s; check what runs there"):
            await probe(address, "auto", SCALED, web_port=address.port)
    assert [json.loads(request)["command"] for request in asked] == ["version"]


async def test_who_answers_wholly_but_too_slowly_to_be_told_is_not_called_silent() -> None:
    async with serving(spread_over(SHORT_ERRORS["rpc"], 0.6 * SCALED.total_s)) as address:
        with pytest.raises(TimedOut, match="no firmware showed itself within 1 s"):
            await probe(address, "auto", SCALED, web_port=address.port)


async def test_the_command_says_why_nothing_is_known_of_a_host_that_drips(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agent.cgminer.client.DEFAULT_DEADLINES", SCALED)
    async with serving(dripping(*DRIPS["http head"])) as address:
        told = ("poll", str(address), "--web-port", str(address.port))
        assert await asyncio.to_thread(main, told) != 0
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"ballast-agent: {address}: no whole reply within 1 s; check what runs there\n"


async def test_nobody_there_is_an_error() -> None:
    with pytest.raises(Unreachable):
        await probe(Address("127.0.0.1", 9), "auto", SHORT)


async def test_a_miner_that_is_only_on_the_web_is_shown_with_its_pages() -> None:
    server = FakeWeb(pages(dict(native.vnish())))
    async with server.serving() as web:
        found = await probe(Address("127.0.0.1", 9), "auto", SHORT, web_port=web.port)
    assert (found.observation.dialect, found.stranger) == ("vnish", None)
    assert found.sources["power_w"] == "/api/v1/summary 'miner.power_consumption'"
    assert found.sources["mac"] == "/api/v1/info 'system.network_status.mac'"
    assert "no reply" in as_table(found)


async def test_a_page_is_opened_by_the_credentials_given() -> None:
    replies = native.antminer_new({"miner-mode": 1}, rate_5s=0.0)
    by_digest = digest_server("MD5", qop=True, nonces=["n"])

    def guarded(asked: Asked) -> bytes:
        answer = by_digest(asked)
        return answer if b" 401 " in answer[:40] else page(replies[asked.target])

    stats = json.loads(replies["new:stats"])
    miner = FakeMiner({"stats": stats, "pools": json.loads(made.POOLS)}, joins=False)
    replies["/cgi-bin/summary.cgi"] = b"{}"
    async with serving(miner.speak) as address, FakeWeb(guarded).serving() as web:
        closed = await probe(address, "antminer", SHORT, web_port=web.port)
        opened = await probe(address, "antminer", SHORT, web_port=web.port, credentials=Credentials("root", "s3cret"))
    assert closed.observation.reason is Reason.NOT_REPORTED
    assert "give its group credentials" in closed.failures["/cgi-bin/get_miner_conf.cgi"]
    assert (opened.observation.reason, opened.observation.mac) == (Reason.COMMANDED, native.MAC)
