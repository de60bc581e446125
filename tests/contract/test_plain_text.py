"""A device that understands only plain text (``cmd|param``) is found, read and told what to do as any other."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.control import MinerControl
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.errors import Garbled
from sitelink.clock import ManualClock
from sitelink.types import MinerState
from tests.contract.fake_miner import FakeMiner, serving
from tests.unit.agent.cgminer import replies_of as made

pytestmark = pytest.mark.agent

SHORT = Deadlines(connect_s=1, first_byte_s=1, total_s=3)
NO_COMMAND = "STATUS=E,When=986,Code=14,Msg=Invalid command,Description=cgminer 4.11.1|"
BAD_JSON = '{"STATUS":[{"STATUS":"E","When":986,"Code":23,"Msg":"Invalid JSON","Description":"cgminer"}],"id":1}'
ASCSET_DONE = "STATUS=I,When=986,Code=118,Msg=ASC 0 set info: success softoff,Description=cgminer 4.11.1|"
MAC = "b4:a2:eb:00:00:01"


def in_text(reply: bytes) -> str:
    """Return a JSON reply in CGMiner's plain text form."""
    document = json.loads(reply)
    parts = [row for key, rows in document.items() if key != "id" for row in ((key, each) for each in rows)]
    return "".join(
        ("" if key == "STATUS" or key in row else f"{key},") + ",".join(f"{k}={v}" for k, v in row.items()) + "|"
        for key, row in parts
    )


class TextMiner:
    """An Avalon that answers JSON with ``to_json``; ``heard`` holds all it was sent."""

    def __init__(self, to_json: str = NO_COMMAND) -> None:
        self.to_json = to_json
        self.answers = {command: in_text(reply) for command, reply in made.avalon().items()}
        self.heard: list[str] = []

    async def speak(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        said = request.decode()
        self.heard.append(said)
        command = said.partition("|")[0]
        told = ASCSET_DONE if command == "ascset" else self.answers.get(command, NO_COMMAND)
        if said.startswith("{"):
            told = self.to_json
        writer.write(told.encode() + b"\0")
        await writer.drain()


def device(address: Address, dialect: str, clock: ManualClock | None = None) -> Device:
    clock = clock or ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    return Device(address, dialect, clock, miner_id=MAC, deadlines=SHORT)


def figures(seen: Observation) -> tuple[object, ...]:
    return (seen.state, seen.mac, seen.model, seen.hashrate_ths, seen.power_w, seen.uptime_s, seen.fans_rpm)


@pytest.mark.parametrize("to_json", [NO_COMMAND, BAD_JSON, "what?"], ids=["no command", "bad JSON", "noise"])
@pytest.mark.parametrize("dialect", ["avalon", "auto"])
async def test_it_is_read_as_who_understands_json(dialect: str, to_json: str) -> None:
    miner, twin = TextMiner(to_json), FakeMiner(dict(made.avalon()))
    async with serving(miner.speak) as address, serving(twin.speak) as other:
        asked = device(address, dialect)
        seen = await asked.observe()
        assert asked.dialect == "avalon"
        assert figures(seen) == figures(await device(other, "avalon").observe())
        assert await asked.identity() == MAC
    assert seen.state is MinerState.HASHING
    assert len([said for said in miner.heard if said.startswith("{")]) == 1


async def test_it_is_remembered_for_an_hour() -> None:
    miner, clock = TextMiner(), ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    async with serving(miner.speak) as address:
        asked = device(address, "avalon", clock)
        for passes_s, in_json in ((0, 1), (60, 0), (3540, 1), (60, 0)):
            clock.advance(passes_s)
            miner.heard.clear()
            assert (await asked.observe()).state is MinerState.HASHING
            assert sum(said.startswith("{") for said in miner.heard) == in_json


async def test_a_stop_reaches_it_in_text_even_as_the_first_thing_asked() -> None:
    miner = TextMiner()
    async with serving(miner.speak) as address:
        await MinerControl(device(address, "avalon"), MAC).stop()
    assert "ascset|0,softoff,1:1760000002" in miner.heard


async def test_an_order_whose_answer_cannot_be_read_is_not_said_twice() -> None:
    """It may have been understood: who answers noise is not told to reboot again."""
    miner = TextMiner("what?")
    async with serving(miner.speak) as address:
        with pytest.raises(Garbled):
            await device(address, "avalon").ask("ascset", "0,reboot,0")
    assert miner.heard == ['{"command":"ascset","parameter":"0,reboot,0"}']


def answering(reply: bytes) -> Callable[[dict[str, object]], object]:
    return lambda _: reply


@pytest.mark.parametrize("reply", [b"<html>", b"HTTP/1.1 400 Bad Request", b"SSH-2.0-x"])
async def test_who_is_no_cgminer_is_not_asked_in_text(reply: bytes) -> None:
    miner = FakeMiner({"version": answering(reply)})
    async with serving(miner.speak) as address:
        with pytest.raises(Garbled):
            await device(address, "avalon").ask("version")
    assert miner.connections == 1
