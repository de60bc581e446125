"""Whatever stands at a miner's address, no dialect calls it hashing or idle without an answer, nor waits long.

Deadlines are a fifth of those at a site, where the same must end within 5 s.
"""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from agent.cgminer.client import DEFAULT_DEADLINES, Address, Deadlines
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.dialects import TABLES
from agent.cgminer.wires import wire_of
from agent.errors import AgentError
from agent.reasons import reason_of
from sitelink.clock import ManualClock
from sitelink.types import MinerState, Reason
from tests.contract.fake_miner import FakeMiner, serving
from tests.unit.agent.cgminer import replies_of

pytestmark = pytest.mark.agent

SCALED = Deadlines(connect_s=0.2, first_byte_s=0.4, total_s=1.0)
SLACK_S = 0.6
"""What a busy machine may add. A dialect that waits out two whole replies one after the other is over it."""
DIALECTS = [*sorted(TABLES), "auto"]

Speak = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def test_the_deadlines_here_are_a_fifth_of_those_at_a_site() -> None:
    site = DEFAULT_DEADLINES
    assert (site.connect_s, site.first_byte_s, site.total_s) == (1.0, 2.0, 5.0)
    assert (SCALED.connect_s, SCALED.first_byte_s, SCALED.total_s) == (0.2, 0.4, 1.0)


def made(dialect: str, address: Address) -> Device:
    """Return a device of ``dialect`` that is reached at ``address`` on every wire."""
    clock = ManualClock(datetime(2029, 1, 1, tzinfo=UTC))
    us = Credentials("root", "s3cret")
    return Device(address, dialect, clock, web_port=address.port, credentials=us, deadlines=SCALED)


async def verdict(dialect: str, address: Address) -> tuple[MinerState, Reason, float]:
    """Return what a poll of ``dialect`` says of who answers at ``address``, on every wire, and how long it took."""
    device = made(dialect, address)
    began = time.monotonic()
    try:
        seen = await device.observe()
        state, reason = seen.state, seen.reason
    except AgentError as error:
        state, reason = MinerState.UNKNOWN, reason_of(error)
    finally:
        device.close()
    return state, reason, time.monotonic() - began


async def judged(address: Address, reasons: set[Reason], within_s: float) -> None:
    """Poll by every dialect at once and hold each verdict to UNKNOWN, one of ``reasons``, in time.

    ``auto`` tries one wire after the other, so it may take as long as one whole reply.
    """
    found = await asyncio.gather(*(verdict(dialect, address) for dialect in DIALECTS))
    wrong = {
        dialect: (state, reason, round(took_s, 2))
        for dialect, (state, reason, took_s) in zip(DIALECTS, found, strict=True)
        if state is not MinerState.UNKNOWN
        or reason not in reasons
        or took_s > (SCALED.total_s if dialect == "auto" else within_s) + SLACK_S
    }
    assert wrong == {}


def test_a_silent_miner_is_noticed_before_anything_else_is_asked() -> None:
    """What is read once an hour begins on the wire that the poll uses, or the poll's silence comes second."""
    for dialect, table in TABLES.items():
        told = [wire_of(command) for command in table.commands.static]
        assert not told or wire_of(table.commands.poll[0]) in told, dialect


async def silent(request: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


def dripping(head: bytes, drop: bytes) -> Speak:
    async def speak(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.05)

    return speak


def spread_over(reply: bytes, seconds: float) -> Speak:
    async def speak(request: bytes, writer: asyncio.StreamWriter) -> None:
        pieces = 20
        step = -(-len(reply) // pieces)
        for place in range(0, len(reply), step):
            writer.write(reply[place : place + step])
            await writer.drain()
            await asyncio.sleep(seconds / pieces)

    return speak


def saying(reply: bytes) -> Speak:
    async def speak(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()

    return speak


@asynccontextmanager
async def black_hole() -> AsyncIterator[Address]:
    """Yield an address whose host answers no SYN: its queue of connections is full and nobody accepts."""
    with contextlib.ExitStack() as sockets:
        listening = sockets.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(8):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield Address(*listening.getsockname()[:2])


async def test_a_host_that_never_answers_syn_is_unreachable() -> None:
    async with black_hole() as address:
        await judged(address, {Reason.UNREACHABLE}, SCALED.connect_s)


async def test_a_closed_port_is_unreachable_at_once() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        await judged(Address(*bound.getsockname()[:2]), {Reason.UNREACHABLE}, 0.0)


async def test_silence_after_the_request_is_a_timeout() -> None:
    async with serving(silent) as address:
        await judged(address, {Reason.TIMEOUT}, SCALED.first_byte_s)


DRIPS = {
    "json": (b'{"STATUS":[{"STATUS":"S","Code":11,"Msg":"x', b"x"),
    "http head": (b"HTTP/1.1 200 OK\r\nX-Filler: ", b"x"),
    "http body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{", b" "),
    "http chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "frame": (b"\xff\x00\x00\x00{", b" "),
}


@pytest.mark.parametrize("drip", DRIPS)
async def test_a_drip_ends_with_the_deadline(drip: str) -> None:
    async with serving(dripping(*DRIPS[drip])) as address:
        await judged(address, {Reason.TIMEOUT, Reason.GARBLED}, SCALED.total_s)


SHORT_ERRORS = {
    "rpc": b'{"STATUS":[{"STATUS":"E","When":1700000000,"Code":14,"Msg":"Invalid command"}],"id":1}\0',
    "frame": b'\x26\0\0\0{"code":-2,"when":1,"msg":"invalid cmd"}',
    "page": b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n{}",
    "login": b"HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm=x, nonce=y, qop=auth\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("kind", SHORT_ERRORS)
async def test_one_whole_answer_after_the_other_at_a_drip_costs_one_deadline(kind: str) -> None:
    """Each answer took most of a deadline, and a poll of four of them 20 s; whatever it asks, a look has one deadline."""
    told = set(Reason) - {Reason.NONE, Reason.COMMANDED, Reason.THERMAL, Reason.STARTING}
    async with serving(spread_over(SHORT_ERRORS[kind], 0.85 * SCALED.total_s)) as address:
        await judged(address, told, SCALED.total_s)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_who_answers_is_asked_within_one_deadline_too(dialect: str) -> None:
    async with serving(spread_over(SHORT_ERRORS["rpc"], 0.85 * SCALED.total_s)) as address:
        device = made(dialect, address)
        began = time.monotonic()
        with pytest.raises(AgentError):
            await device.identity()
        device.close()
    assert time.monotonic() - began < SCALED.total_s + SLACK_S


@pytest.mark.parametrize("hashes", [True, False])
async def test_a_look_cut_short_tells_only_the_state_that_was_truly_told(hashes: bool) -> None:
    """A rate above nothing shows that it hashes; nothing in a part of the poll does not show that it stands still."""
    rate = 100_000.0 if hashes else 0.0
    summary = {"STATUS": [{"STATUS": "S", "Code": 11}], "SUMMARY": [{"Elapsed": 9000, "MHS 5s": rate}], "id": 1}
    slowly = dripping(b"{", b" ")

    async def speak(request: bytes, writer: asyncio.StreamWriter) -> None:
        if json.loads(request)["command"] == "summary":
            writer.write(json.dumps(summary).encode() + b"\0")
        elif "+" not in request.decode():
            await slowly(request, writer)
        else:
            writer.write(SHORT_ERRORS["rpc"])

    async with serving(speak) as address:
        state, reason, took_s = await verdict("cgminer", address)
    assert (state, reason) == ((MinerState.HASHING, Reason.NONE) if hashes else (MinerState.UNKNOWN, Reason.TIMEOUT))
    assert took_s < SCALED.total_s + SLACK_S


async def test_what_does_not_change_is_read_over_several_looks_of_a_slow_miner() -> None:
    """Three answers a look is all that fits; static data is four more, and no look is lost to it."""
    quick = FakeMiner(dict(replies_of.luxos()))

    async def speak(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3 * SCALED.total_s)
        await quick.speak(request, writer)

    async with serving(speak) as address:
        luxos = made("luxos", address)
        seen = [await luxos.observe() for _ in range(2)]
        quick.asked.clear()
        seen.append(await luxos.observe())
    assert [one.state for one in seen] == [MinerState.HASHING] * 3
    assert (seen[1].mac, seen[1].power_limit_w) == ("62:f7:5e:00:00:01", 3050)
    assert quick.commands() == ["summary+power+temps+fans+pools"]


GARBAGE = {
    "zeros": bytes(300),
    "noise": bytes(range(256)) * 4,
    "a greeting": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a page": b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>hi</html>",
    "an empty page": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "an empty object": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n",
    "a server error": b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}",
    "no such page": b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
    "a closed page": b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
    "a bad challenge": b'HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="\r\nContent-Length: 0\r\n\r\n',
    "a bare object": b"{}\0",
    "a list": b"[[[[[]]]]]\0",
    "an empty status": b'{"STATUS":[],"id":1}\0',
    "an error": b'{"STATUS":[{"STATUS":"E","Code":14,"Msg":"Invalid command"}],"id":1}\0',
    "a word": b"nan\0",
    "an empty frame": b"\0\0\0\0",
    "a huge frame": b"\xff\xff\xff\x7f{}",
    "a frame of null": b"\x04\0\0\0null",
    "nothing": b"",
}


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_is_never_hashing_nor_idle(garbage: str) -> None:
    told = set(Reason) - {Reason.NONE, Reason.COMMANDED, Reason.THERMAL, Reason.STARTING}
    async with serving(saying(GARBAGE[garbage])) as address:
        await judged(address, told, SCALED.total_s)


async def test_a_reply_that_never_ends_is_cut_at_the_cap() -> None:
    async def flood(request: bytes, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b'{"a":"' + b"x" * 65_536)
            await writer.drain()

    async with serving(flood) as address:
        await judged(address, {Reason.GARBLED, Reason.TIMEOUT, Reason.UNREACHABLE}, SCALED.total_s)
