"""Whatsminer's framed API is asked within deadlines; a length is believed only as far as the cap."""

import asyncio
import json
import struct

import pytest

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.framed import converse
from agent.errors import AgentError, Garbled, TimedOut, TooLarge, Unreachable
from tests.contract.fake_miner import serving

pytestmark = pytest.mark.agent

SHORT = Deadlines(connect_s=0.3, first_byte_s=0.3, total_s=0.6, cap_bytes=20_000)
REPLY = b'{"code":0,"msg":"ok"}'


def framed(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("pieces", [1, 3, 25])
async def test_one_request_and_its_reply_go_behind_their_lengths(pieces: int) -> None:
    heard: list[bytes] = []
    answer = framed(REPLY)
    size = -(-len(answer) // pieces)

    async def speak(request: bytes, writer: asyncio.StreamWriter) -> None:
        heard.append(request)
        for start in range(0, len(answer), size):
            writer.write(answer[start : start + size])
            await writer.drain()
            await asyncio.sleep(0.002)
        await asyncio.sleep(1)

    async with serving(speak) as address:
        assert await converse(address, {"cmd": "get.miner.status", "param": "summary"}, SHORT) == REPLY
    (length,) = struct.unpack("<I", heard[0][:4])
    assert length == len(heard[0]) - 4
    assert json.loads(heard[0][4:]) == {"cmd": "get.miner.status", "param": "summary"}


@pytest.mark.parametrize(
    ("said", "then_s", "error", "words"),
    [
        (b"", 0.0, Unreachable, "without an answer"),
        (b"", 5.0, TimedOut, "no answer within 0.3 s"),
        (b"\x05", 0.0, Unreachable, "amid its answer"),
        (b"\x05\x00\x00\x00ab", 0.0, Unreachable, "amid its answer"),
        (b"\x05\x00\x00\x00ab", 5.0, TimedOut, "did not end within 0.6 s"),
        (b"\x00\x00\x00\x00", 5.0, Garbled, "no framed reply"),
        (b'{"STATUS":"E"}\x00', 5.0, Garbled, "no framed reply"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 5.0, Garbled, "no framed reply"),
        (struct.pack("<I", 20_001), 5.0, TooLarge, "exceeds 20000 bytes"),
        (b"\xff\xff\xff\xff", 5.0, TooLarge, "exceeds 20000 bytes"),
    ],
)
async def test_whatever_it_says_ends_in_an_error_of_ours(
    said: bytes, then_s: float, error: type[AgentError], words: str
) -> None:
    async def speak(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        await asyncio.sleep(then_s)

    async with serving(speak) as address:
        with pytest.raises(error, match=words):
            await converse(address, {"cmd": "get.device.info"}, SHORT)


async def test_a_closed_port_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="connection refused"):
        await converse(Address("127.0.0.1", 1), {"cmd": "get.device.info"}, SHORT)
