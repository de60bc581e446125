"""Who answers is found out by what only it says, wire by wire, with few requests, and none on a silent wire."""

import pytest

from agent.cgminer.identification import ALL_WIRES, Finding, find_dialect
from agent.cgminer.wires import FRAMED, RPC, WEB, wire_of
from agent.errors import AccessDenied, AgentError, Garbled, TimedOut, Unreachable
from tests.unit.agent.cgminer import replies_of as made
from tests.unit.agent.cgminer import web_replies_of as web
from tests.unit.agent.cgminer import wire_replies_of as native

pytestmark = pytest.mark.agent

BMMINER = made.answer(22, "VERSION", {"BMMiner": "2.0.0", "Type": "Antminer S19"})
BOSER = made.answer(22, "VERSION", {"API": "3.7", "BOSer": "0.1.0"})
BOSMINER = made.answer(22, "VERSION", {"API": "3.7", "BOSminer+": "0.2.0"})
CGMINER = made.answer(22, "VERSION", {"CGMiner": "4.11.1", "API": "3.7"})
VNISH_STATS = made.answer(70, "STATS", {"Type": "Antminer S21 Pro (Vnish 1.2.7)"}, {"GHS 5s": 1.0})
BITMAIN = made.answer(69, "DEVDETAILS", {"Driver": "bitmain_s21pro_drv"})
INVALID = made.answer(0, "X", letter="E")
REST = native.document({"major": 1, "minor": 0, "patch": 0})


class World:
    """A host that answers ``replies``; what is not there is refused, on ``silent`` wires nobody answers."""

    def __init__(self, replies: dict[str, bytes], *silent: str, refusal: AgentError | None = None) -> None:
        self.replies = replies
        self.silent = silent
        self.refusal = refusal or Garbled("nothing")
        self.asked: list[str] = []

    async def ask(self, command: str) -> bytes:
        self.asked.append(command)
        if wire_of(command) in self.silent:
            raise Unreachable(f"{command}: no connection")
        if command not in self.replies:
            raise self.refusal
        return self.replies[command]


@pytest.mark.parametrize(
    ("replies", "silent", "dialect", "requests"),
    [
        ({"version": BMMINER, "stats": made.antminer_stats()}, (FRAMED, WEB), "antminer", 4),
        ({"version": BOSMINER}, (FRAMED, WEB), "braiins", 2),
        ({"version": BOSER, "/api/v1/version": REST}, (FRAMED,), "braiins-rest", 2),
        ({"version": INVALID, "devdetails": BITMAIN, "stats": VNISH_STATS} | native.vnish(), (FRAMED,), "vnish", 5),
        (native.vnish(), (RPC, FRAMED), "vnish", 3),
        (native.whatsminer_v3(), (RPC, WEB), "whatsminer-v3", 2),
        ({"/api/v1/version": REST}, (RPC, FRAMED), "braiins-rest", 4),
        ({"/api/system/info": web.FAMILIES["bitaxe"]["/api/system/info"]}, (RPC, FRAMED), "bitaxe", 5),
        ({"version": b"HTTP/1.1 400 Bad Request\r\n\r\n", "/summary": web.FAMILIES["epic"]["/summary"]}, (), "epic", 2),
        (dict(made.luxos()), (FRAMED, WEB), "luxos", 1),
    ],
)
async def test_each_firmware_is_found(
    replies: dict[str, bytes], silent: tuple[str, ...], dialect: str, requests: int
) -> None:
    world = World(replies, *silent)
    found = await find_dialect(world.ask)
    assert (found.dialect, found.readable) == (dialect, True)
    assert len(world.asked) == requests
    assert len(set(world.asked)) == requests


async def test_an_old_vnish_without_its_own_api_is_never_taken_for_a_stock_antminer() -> None:
    world = World({"version": made.answer(22, "VERSION", {"CGMiner": "4.11.1", "Type": "Antminer S9 (vnish 3.8.6)"})})
    assert (await find_dialect(world.ask)).dialect == "cgminer"


async def test_plain_cgminer_is_certain_only_when_it_has_said_all() -> None:
    whole = {
        "version": CGMINER,
        "devdetails": made.answer(69, "DEVDETAILS"),
        "summary": made.answer(11, "SUMMARY", {"a": 1}),
    }
    assert await find_dialect(World(whole, FRAMED, WEB).ask) == Finding("cgminer", certain=True, readable=True)
    assert await find_dialect(World({"version": CGMINER}, FRAMED, WEB).ask) == Finding("cgminer", False, readable=True)


async def test_nobody_on_any_wire_is_the_first_wires_error_after_one_request_each() -> None:
    world = World({}, *ALL_WIRES)
    with pytest.raises(Unreachable, match="version"):
        await find_dialect(world.ask)
    assert len(world.asked) == 3


@pytest.mark.parametrize("refusal", [Garbled("x"), AccessDenied("x")])
async def test_who_answers_nothing_of_a_miner_is_none_and_asked_a_bounded_number_of_times(refusal: AgentError) -> None:
    world = World({}, refusal=refusal)
    assert await find_dialect(world.ask) == Finding("cgminer", certain=False, readable=False)
    assert len(world.asked) == len(set(world.asked)) <= 14


async def test_a_web_page_that_any_server_may_have_is_no_miner() -> None:
    world = World({"/summary": b"{}", "/api/info": b'{"x":1}', "/mcb/status": b"[]"}, RPC, FRAMED)
    assert not (await find_dialect(world.ask)).readable


async def test_only_the_wires_that_are_asked_for_are_used() -> None:
    world = World(native.vnish())
    assert not (await find_dialect(world.ask, (RPC,))).readable
    assert {wire_of(command) for command in world.asked} == {RPC}


async def test_a_wire_that_falls_silent_is_not_asked_on() -> None:
    class Dying(World):
        async def ask(self, command: str) -> bytes:
            if len(self.asked) == 1 and wire_of(command) == RPC:
                self.asked.append(command)
                raise TimedOut("gone")
            return await super().ask(command)

    world = Dying({"version": CGMINER}, FRAMED, WEB)
    found = await find_dialect(world.ask)
    assert (found.certain, found.readable) == (False, True)
    assert len(world.asked) == 4
