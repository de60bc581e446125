"""A device is read over the wires its firmware has, one request at a time; what is closed or silent beside says nothing."""

import asyncio
import json
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.errors import AccessDenied, Garbled, SessionBusy, Unreachable
from sitelink.clock import ManualClock
from sitelink.types import MinerState, Reason
from tests.contract.fake_miner import FakeMiner, serving, status
from tests.contract.fake_web import Asked, FakeWeb, page, pages
from tests.unit.agent.cgminer import replies_of as made
from tests.unit.agent.cgminer import wire_replies_of as native

pytestmark = pytest.mark.agent

SHORT = Deadlines(connect_s=2, first_byte_s=2, total_s=4)
NOBODY = Address("127.0.0.1", 9)
ROOT = Credentials("root", "s3cret")


def device(address: Address, dialect: str, web: Address = NOBODY, **more: Any) -> Device:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    return Device(address, dialect, clock, web_port=web.port, deadlines=SHORT, **more)


class FakeFramed:
    """Whatsminer v3: ``replies`` by command and parameter; ``joins`` parameters, or refuses them."""

    def __init__(self, replies: dict[str, bytes], joins: bool = True) -> None:
        self.replies = replies
        self.joins = joins
        self.asked: list[str] = []

    async def speak(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        assert struct.unpack("<I", request[:4])[0] == len(request) - 4
        document = json.loads(request[4:])
        name, parameter = document["cmd"], document.get("param")
        self.asked.append(f"{name}:{parameter}" if parameter else name)
        reply = self._answer(name, parameter)
        writer.write(struct.pack("<I", len(reply)) + reply)
        await writer.drain()

    def _answer(self, name: str, parameter: str | None) -> bytes:
        parts = [f"v3:{name}:{part}" for part in parameter.split("+")] if parameter else [f"v3:{name}"]
        if any(part not in self.replies for part in parts) or (len(parts) > 1 and not self.joins):
            return native.document({"code": -2, "when": 1, "msg": "invalid command", "desc": name})
        message: dict[str, Any] = {}
        for part in parts:
            message |= json.loads(self.replies[part])["msg"]
        return native.framed(**message)


def web_of(replies: dict[str, bytes]) -> dict[str, object]:
    return {command: reply for command, reply in replies.items() if command.startswith("/")}


NEW_STATS = native.antminer_new()["new:stats"]
OLD_ANSWERS = [status(23, "Invalid JSON", "E"), status(14, "Invalid command", "E"), b"not JSON"]


@pytest.mark.parametrize("refusal", OLD_ANSWERS)
async def test_an_antminer_without_new_api_is_asked_as_ever_from_then_on(refusal: object) -> None:
    asked: list[bool] = []

    def stats(document: dict[str, Any]) -> object:
        asked.append("new_api" in document)
        return refusal if "new_api" in document else json.loads(made.antminer_stats())

    miner = FakeMiner({"stats": stats, "pools": json.loads(made.POOLS)}, joins=False)
    async with serving(miner.speak) as address:
        antminer = device(address, "antminer")
        seen = [await antminer.observe() for _ in range(2)]
    assert [one.state for one in seen] == [MinerState.HASHING] * 2
    assert asked == [True, False, False]


async def test_an_antminer_with_new_api_takes_two_requests_a_poll() -> None:
    miner = FakeMiner({"stats": json.loads(NEW_STATS), "pools": json.loads(made.POOLS)}, joins=False)
    async with serving(miner.speak) as address:
        antminer = device(address, "antminer")
        await antminer.observe()
        miner.asked.clear()
        assert (await antminer.observe()).power_w == 3010
    assert miner.commands() == ["stats", "pools"]


async def test_only_an_antminer_that_stands_still_is_asked_for_its_configuration() -> None:
    replies = native.antminer_new({"miner-mode": 1})
    stats = json.loads(replies["new:stats"])
    miner = FakeMiner({"stats": lambda _: stats, "pools": json.loads(made.POOLS)}, joins=False)
    server = FakeWeb(pages(web_of(replies)))
    async with serving(miner.speak) as address, server.serving() as web:
        antminer = device(address, "antminer", web)
        assert (await antminer.observe()).mac == native.MAC
        assert [asked.target for asked in server.asked] == ["/cgi-bin/get_system_info.cgi"]
        stats["STATS"][0]["rate_5s"] = 0.0
        idle = await antminer.observe()
    assert (idle.state, idle.reason) == (MinerState.IDLE, Reason.COMMANDED)
    assert [asked.target for asked in server.asked[1:]] == ["/cgi-bin/get_miner_conf.cgi", "/cgi-bin/summary.cgi"]


async def test_a_page_that_refuses_us_is_left_alone_until_we_come_with_another_password() -> None:
    replies = web_of(native.antminer_new({"miner-mode": 1}))

    def guarded(asked: Asked) -> bytes:
        if asked.headers.get("authorization") == "Basic cm9vdDpzM2NyZXQ=":
            return pages(replies)(asked)  # type: ignore[return-value]
        return page({}, "401 Unauthorized", 'WWW-Authenticate: Basic realm="x"')

    stats = json.loads(NEW_STATS)
    stats["STATS"][0]["rate_5s"] = 0.0
    miner = FakeMiner({"stats": stats, "pools": json.loads(made.POOLS)}, joins=False)
    server = FakeWeb(guarded)
    async with serving(miner.speak) as address, server.serving() as web:
        antminer = device(address, "antminer", web, credentials=Credentials("root", "wrong"))
        await antminer.observe()
        before = len(server.asked)
        idle = await antminer.observe()
        assert (idle.state, idle.reason, len(server.asked)) == (MinerState.IDLE, Reason.NOT_REPORTED, before)
        antminer.credentials = ROOT
        assert (await antminer.observe()).reason is Reason.COMMANDED


async def test_a_web_page_that_is_silent_beside_rpc_says_nothing() -> None:
    miner = FakeMiner({"stats": json.loads(NEW_STATS), "pools": json.loads(made.POOLS)}, joins=False)
    async with serving(miner.speak) as address:
        antminer = device(address, "antminer")
        for _ in range(2):
            assert (await antminer.observe()).state is MinerState.HASHING
        assert miner.commands().count("version") == 1


async def test_a_silent_wire_is_asked_once_a_reading() -> None:
    async def mute(asked: Asked) -> bytes:
        await asyncio.sleep(30)
        return b""

    stats = json.loads(NEW_STATS)
    stats["STATS"][0]["rate_5s"] = 0.0
    miner, server = FakeMiner({"stats": stats, "pools": json.loads(made.POOLS)}, joins=False), FakeWeb(mute)
    hasty = Deadlines(connect_s=1, first_byte_s=0.1, total_s=1)
    async with serving(miner.speak) as address, server.serving() as web:
        clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        antminer = Device(address, "antminer", clock, web_port=web.port, deadlines=hasty)
        for _ in range(2):
            assert (await antminer.observe()).state is MinerState.IDLE
    assert [asked.target for asked in server.asked] == ["/cgi-bin/get_miner_conf.cgi"] * 2


async def test_braiins_that_knows_no_command_is_read_by_graphql_behind_its_login() -> None:
    replies = native.braiins_graphql()
    miner = FakeMiner({"version": json.loads(replies["version"])}, joins=False)

    def answer(asked: Asked) -> bytes:
        if asked.target == "/cgi-bin/luci":
            good = asked.body == b"luci_username=root&luci_password=s3cret"
            return page({}, "302 Found", "Set-Cookie: session_id=luci; Path=/") if good else page({}, "403 Forbidden")
        if asked.target.startswith("/cgi-bin/luci/"):
            assert asked.headers["user-agent"] == "BTC Tools v0.1"
            return page(replies[asked.target]) if asked.headers.get("cookie") == "session_id=luci" else page(b"<html>")
        told = json.loads(asked.body)
        if "login" in told["query"]:
            assert told["variables"] == {"username": "root", "password": "s3cret"}
            return page({"data": {"auth": {"login": {"void": "x"}}}}, "200 OK", "Set-Cookie: session_id=gql; Path=/")
        if asked.headers.get("cookie") != "session_id=gql":
            return page({"data": None, "errors": [{"message": "Unauthorized"}]})
        names = {"pools": "poolGroups", "boards": "childSolvers", "state": "tunerStatus", "system": "fans"}
        name = next((name for name, word in names.items() if word in told["query"]), "names")
        return page(replies[f"gql:{name}"])

    server = FakeWeb(answer)
    async with serving(miner.speak) as address, server.serving() as web:
        braiins = device(address, "braiins", web, credentials=ROOT, miner_id=native.MAC)
        await braiins.observe()
        miner.asked.clear()
        server.asked.clear()
        seen = await braiins.observe()
        assert (miner.commands(), len(server.asked)) == ([], 3)
        assert await braiins.identity() == native.MAC
    assert (seen.hashrate_ths, seen.power_w, seen.mac) == (100.0, 3100, native.MAC)


@pytest.mark.parametrize("ended", [page(b"<html>log in"), page({}, "302 Found"), page({}, "403 Forbidden")])
async def test_a_session_that_has_ended_unsaid_is_opened_again_once(ended: bytes) -> None:
    replies = native.braiins_graphql()
    sessions = ["a"]

    def answer(asked: Asked) -> bytes:
        query = json.loads(asked.body)["query"] if asked.target == "/graphql" else ""
        if "login" in query or asked.target == "/cgi-bin/luci":
            return page({"data": {}}, "200 OK", f"Set-Cookie: session_id={sessions[0]}")
        if asked.headers.get("cookie") != f"session_id={sessions[0]}":
            return page({"data": None, "errors": [{"message": "Unauthorized"}]}) if query else ended
        return page(replies["gql:names" if query else asked.target])

    miner = FakeMiner({"config": status(33, "x", CONFIG=[{"API": "3.7"}])}, joins=False)
    server = FakeWeb(answer)
    async with serving(miner.speak) as address, server.serving() as web:
        time = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        braiins = Device(address, "braiins", time, web_port=web.port, deadlines=SHORT, credentials=ROOT)
        assert (await braiins.observe()).mac == native.MAC
        sessions[0] = "b"
        time.advance(3601)
        seen = await braiins.observe()
    assert (seen.mac, seen.hostname) == (native.MAC, "rack-2")


async def test_a_token_is_fetched_when_we_are_refused_and_renewed_when_it_has_expired() -> None:
    replies = native.braiins_rest()
    tokens = ["first"]

    def answer(asked: Asked) -> bytes:
        if asked.target == "/api/v1/auth/login":
            assert json.loads(asked.body) == {"username": "root", "password": "s3cret"}
            return page({"token": tokens[0], "timeout_s": 3600})
        if asked.headers.get("authorization") != tokens[0]:
            return page({"error": "unauthorized"}, "401 Unauthorized")
        return page(replies[asked.target])

    server = FakeWeb(answer)
    async with server.serving() as web:
        braiins = device(Address(web.host, 9), "braiins-rest", web, credentials=ROOT)
        assert (await braiins.observe()).hashrate_ths == 140.5
        assert (server.connections, len(server.asked)) == (1, 8)
        tokens[0] = "second"
        assert (await braiins.observe()).hashrate_ths == 140.5
        assert len(server.asked) == 16
        stranger = device(Address(web.host, 9), "braiins-rest", web)
        refused = await stranger.observe()
        assert (refused.state, refused.reason) == (MinerState.UNKNOWN, Reason.ACCESS_DENIED)
        with pytest.raises(AccessDenied, match="give its group credentials"):
            await stranger.identity()


async def test_whatsminer_v3_takes_one_connection_a_poll() -> None:
    miner = FakeFramed(native.whatsminer_v3())
    async with serving(miner.speak) as address:
        whatsminer = device(address, "whatsminer-v3", miner_id="SERIAL0003")
        await whatsminer.observe()
        miner.asked.clear()
        seen = await whatsminer.observe()
        assert await whatsminer.identity() == "SERIAL0003"
    assert miner.asked == ["get.miner.status:summary+edevs+pools", "get.device.info"]
    assert (seen.hashrate_ths, seen.boards, len(seen.pools)) == (171.259, 3, 2)


async def test_whatsminer_v3_that_does_not_join_is_asked_one_by_one_from_then_on() -> None:
    miner = FakeFramed(native.whatsminer_v3(), joins=False)
    async with serving(miner.speak) as address:
        whatsminer = device(address, "whatsminer-v3")
        await whatsminer.observe()
        miner.asked.clear()
        assert (await whatsminer.observe()).hashrate_ths == 171.259
    assert miner.asked == [f"get.miner.status:{part}" for part in ("summary", "edevs")]


async def test_an_idle_whatsminer_v3_is_asked_why_each_time() -> None:
    """What it said an hour ago must not call a miner commanded that has tripped since."""
    miner = FakeFramed(native.whatsminer_v3("false", **{"hash-realtime": 0.0}))
    async with serving(miner.speak) as address:
        whatsminer = device(address, "whatsminer-v3")
        assert (await whatsminer.observe()).reason is Reason.COMMANDED
        del miner.replies["v3:get.device.info"]
        assert (await whatsminer.observe()).reason is Reason.NOT_REPORTED


@pytest.mark.parametrize("dialect", ["braiins-rest", "vnish", "whatsminer-v3"])
async def test_a_device_that_is_silent_on_its_own_wire_is_unreachable(dialect: str) -> None:
    with pytest.raises(Unreachable):
        await device(NOBODY, dialect, NOBODY).observe()


@pytest.mark.parametrize("dialect", ["braiins-rest", "vnish"])
@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (page(b"<html>busy", "503 Service Unavailable"), Reason.SESSION_BUSY),
        (page({"error": "too many requests"}, "429 Too Many Requests"), Reason.SESSION_BUSY),
        (page({}, "500 Internal Server Error"), Reason.GARBLED),
        (page(b"<html>not found", "404 Not Found"), Reason.GARBLED),
        (page(b"", "302 Found", "Location: /login"), Reason.GARBLED),
        (page(b"\xff\xfe"), Reason.GARBLED),
        (page([]), Reason.NOT_REPORTED),
        (page({}, "403 Forbidden"), Reason.ACCESS_DENIED),
        (b'{"STATUS":"E"}\0', Reason.GARBLED),
    ],
)
async def test_whatever_a_web_page_says_is_unknown_with_a_reason(dialect: str, response: bytes, reason: Reason) -> None:
    server = FakeWeb(lambda asked: response)
    async with server.serving() as web:
        seen = await device(NOBODY, dialect, web).observe()
    assert (seen.state, seen.reason) == (MinerState.UNKNOWN, reason)


async def test_one_request_at_a_time_whichever_wire_it_takes() -> None:
    under_way, most = [0], [0]

    def counted(speak: Callable[..., Any]) -> Callable[..., Any]:
        async def counting(*arguments: Any) -> Any:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
            await asyncio.sleep(0.01)
            under_way[0] -= 1
            return await speak(*arguments)

        return counting

    async def answer(asked: Asked) -> bytes:
        return page({})

    miner, server = FakeMiner({"version": status(22, "x", VERSION=[{"API": "3.7"}])}), FakeWeb(counted(answer))
    async with serving(counted(miner.speak)) as address, server.serving() as web:
        antminer = device(address, "antminer", web)
        await asyncio.gather(
            *(antminer.ask("version") for _ in range(3)), *(antminer.call("GET", "/x") for _ in range(3))
        )
    assert most == [1]


async def test_a_name_that_cannot_be_compared_is_no_other_device() -> None:
    miner = FakeMiner({"stats": json.loads(made.antminer_stats())}, joins=False)
    async with serving(miner.speak) as address:
        with pytest.raises(Garbled, match=r"names itself only 81abcdef0123481c.*or list it as 81abcdef0123481c"):
            await device(address, "antminer", miner_id=native.MAC).identity()
        assert await device(address, "antminer", miner_id="81ABCDEF0123481C").identity() == "81ABCDEF0123481C"
        assert await device(address, "antminer", miner_id="OTHER").identity() == "81abcdef0123481c"
        server = FakeWeb(lambda asked: page({}, "401 Unauthorized"))
        async with server.serving() as web:
            with pytest.raises(AccessDenied, match="closed to us"):
                await device(address, "antminer", web, miner_id="OTHER").identity()


@pytest.mark.parametrize(
    ("dialect", "replies"),
    [
        ("vnish", native.vnish()),
        ("braiins-rest", native.braiins_rest() | {"/api/v1/version": native.document({"major": 1, "minor": 3})}),
    ],
)
async def test_auto_finds_out_who_is_only_on_the_web(dialect: str, replies: dict[str, bytes]) -> None:
    server = FakeWeb(pages(dict(replies)))
    async with server.serving() as web:
        unknown = device(NOBODY, "auto", web)
        assert (await unknown.observe()).state is MinerState.HASHING
        assert unknown.dialect == dialect
        asked = len(server.asked)
        await unknown.observe()
        assert len(server.asked) - asked <= 6


async def test_auto_finds_a_whatsminer_v3_that_hangs_up_on_rpc() -> None:
    framed = FakeFramed(native.whatsminer_v3())

    async def speak(request: bytes, writer: asyncio.StreamWriter) -> None:
        if not request.startswith(b"{"):
            await framed.speak(request, writer)

    async with serving(speak) as address:
        unknown = device(address, "auto")
        assert (await unknown.observe()).hashrate_ths == 171.259
        assert unknown.dialect == "whatsminer-v3"


async def test_auto_reads_a_braiins_by_its_rest_where_it_has_one() -> None:
    rest = native.braiins_rest() | {"/api/v1/version": native.document({"major": 1})}
    miner, server = FakeMiner({"version": json.loads(native.braiins_graphql()["version"])}), FakeWeb(pages(dict(rest)))
    async with serving(miner.speak) as address, server.serving() as web:
        unknown = device(address, "auto", web)
        assert (await unknown.observe()).hashrate_ths == 140.5
        assert unknown.dialect == "braiins-rest"


async def test_auto_says_that_nobody_is_there() -> None:
    with pytest.raises(Unreachable, match="connection refused"):
        await device(NOBODY, "auto").observe()


async def test_a_transfer_of_minutes_holds_up_no_order_and_no_look() -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def speak(request: bytes, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await over.wait()
        writer.write(b"logs")
        await writer.drain()

    async with serving(speak) as address:
        whatsminer = device(address, "whatsminer", address)

        async def transfer() -> bytes:
            async with whatsminer.connection(Deadlines(1, 60, 60, transfer=True)) as (stream, exchange):
                await stream.send(b"image", exchange)
                return await stream.receive(exchange)

        transferring = asyncio.create_task(transfer())
        await begun.wait()
        async with asyncio.timeout(0.5):
            for asked in (whatsminer.observe, whatsminer.identity, lambda: whatsminer.ask("summary")):
                with pytest.raises(SessionBusy, match="a transfer of ours is under way"):
                    await asked()
        over.set()
        assert await transferring == b"logs"


async def test_a_request_waits_for_its_turn_no_longer_than_for_an_answer() -> None:
    async def speak(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with serving(speak) as address:
        clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        slow = Device(address, "luxos", clock, deadlines=Deadlines(0.2, 0.2, 0.2))

        async def hold() -> None:
            async with slow.connection(Deadlines(1, 5, 5)) as (stream, exchange):
                await stream.send(b"{}", exchange)
                await stream.receive(exchange)

        holding = asyncio.create_task(hold())
        await asyncio.sleep(0.05)
        with pytest.raises(SessionBusy, match=r"other requests of ours took more than 0\.2 s"):
            await slow.ask("summary")
        holding.cancel()


async def test_looks_that_cross_each_other_go_by_what_each_has_seen_itself() -> None:
    """What was silent to one look is asked by the other, which began later."""

    async def mute(asked: Asked) -> bytes:
        await asyncio.sleep(30)
        return b""

    miner, server = FakeMiner({"stats": json.loads(NEW_STATS)}, joins=False), FakeWeb(mute)
    async with serving(miner.speak) as address, server.serving() as web:
        clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        antminer = Device(address, "antminer", clock, web_port=web.port, deadlines=Deadlines(1, 0.2, 4))
        naming = asyncio.create_task(antminer.identity())
        await asyncio.sleep(0.05)
        seen = await antminer.observe()
        with pytest.raises(Garbled):
            await naming
    assert seen.state is MinerState.HASHING
    assert [asked.target for asked in server.asked] == ["/cgi-bin/get_system_info.cgi"] * 2
