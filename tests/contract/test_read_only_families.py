"""The read-only families are polled end to end over real sockets: RPC and web pages, open, by digest and by token."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.replies import parse
from sitelink.clock import ManualClock
from sitelink.types import MinerState, Reason
from tests.contract.fake_miner import FakeMiner, serving
from tests.contract.fake_web import Answer, Asked, FakeWeb, page, pages
from tests.unit.agent.cgminer import web_replies_of as made

pytestmark = pytest.mark.agent

SHORT = Deadlines(connect_s=1, first_byte_s=1, total_s=2)
US = Credentials("root", "s3cret")
NONCE = "5e7"


@asynccontextmanager
async def miner(
    dialect: str, web: FakeWeb, rpc: FakeMiner, credentials: Credentials | None = US
) -> AsyncIterator[Device]:
    clock = ManualClock(datetime(2029, 1, 1, tzinfo=UTC))
    async with serving(rpc.speak) as address, web.serving() as page_address:
        device = Device(address, dialect, clock, web_port=page_address.port, credentials=credentials, deadlines=SHORT)
        yield device
        device.close()


def rpc_of(replies: Mapping[str, bytes]) -> FakeMiner:
    return FakeMiner({command: reply for command, reply in replies.items() if not command.startswith("/")})


def pages_of(replies: Mapping[str, bytes]) -> Answer:
    return pages({command: reply for command, reply in replies.items() if command.startswith("/")})


@pytest.mark.parametrize("dialect", sorted(set(made.FAMILIES) - {"auradine", "obelisk"}))
async def test_a_poll_reads_what_the_replies_tell(dialect: str) -> None:
    replies = made.FAMILIES[dialect]
    async with miner(dialect, FakeWeb(pages_of(replies)), rpc_of(replies)) as device:
        seen = await device.observe()
        again = await device.observe()
        name = await device.identity()
    asked = {command: replies[command] for command in replies if "summary.cgi" not in command}
    told = parse(dialect, {command: reply for command, reply in asked.items() if "conf" not in command})
    assert (seen.state, seen.hashrate_ths, seen.power_w) == (MinerState.HASHING, told.hashrate_ths, told.power_w)
    assert (seen.fans_rpm, seen.pools, seen.mac) == (told.fans_rpm, told.pools, told.mac)
    assert seen == again
    assert name in told.identities


async def test_static_pages_are_read_once_an_hour_and_a_poll_is_one_connection() -> None:
    replies = made.goldshell()
    web = FakeWeb(pages_of(replies))
    async with miner("goldshell", web, rpc_of(replies)) as device:
        await device.observe()
        web.asked.clear()
        await device.observe()
    assert [asked.target for asked in web.asked] == ["/mcb/cgminer?cgminercmd=devs", "/mcb/pools"]
    assert web.connections == 1


def closed_by_digest(inner: Answer) -> Answer:
    """Return ``inner`` behind a digest as lighttpd asks for it on these control boards."""

    def md5(value: str) -> str:
        return hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()

    def answer(asked: Asked) -> bytes:
        said = dict(re.findall(r'(\w+)="?([^",]*)"?', asked.headers.get("authorization", "")))
        secret = md5(f"{US.user}:miner:{US.password}")
        proof = md5(
            f"{secret}:{NONCE}:{said.get('nc')}:{said.get('cnonce')}:auth:{md5(f'{asked.method}:{asked.target}')}"
        )
        if said.get("response") != proof:
            challenge = f'WWW-Authenticate: Digest realm="miner", nonce="{NONCE}", qop="auth"'
            return page(b"<html>401</html>", "401 Unauthorized", challenge)
        found = inner(asked)
        assert isinstance(found, bytes)
        return found

    return answer


@pytest.mark.parametrize("dialect", ["elphapex", "antminer-web", "hammer"])
async def test_a_page_behind_a_digest_opens_to_our_credentials(dialect: str) -> None:
    replies = made.FAMILIES[dialect]
    async with miner(dialect, FakeWeb(closed_by_digest(pages_of(replies))), rpc_of(replies)) as device:
        seen = await device.observe()
    assert (seen.state, seen.mac) == (MinerState.HASHING, made.MAC.lower())


@pytest.mark.parametrize(("dialect", "state"), [("elphapex", MinerState.UNKNOWN), ("hammer", MinerState.HASHING)])
async def test_without_credentials_a_closed_page_is_access_denied_and_open_rpc_still_read(
    dialect: str, state: MinerState
) -> None:
    replies = made.FAMILIES[dialect]
    web = FakeWeb(closed_by_digest(pages_of(replies)))
    async with miner(dialect, web, rpc_of(replies), credentials=None) as device:
        seen = await device.observe()
    assert (seen.state, seen.mac) == (state, None)
    assert (seen.reason is Reason.ACCESS_DENIED) == (state is MinerState.UNKNOWN)


def auradine_pages(replies: Mapping[str, bytes], issued: list[str], uses: int = 1000) -> Answer:
    """Return Auradine's pages, closed but to the token last issued, each good for ``uses`` pages."""
    left = {"uses": 0}

    def answer(asked: Asked) -> bytes:
        if asked.target == "/token":
            assert asked.body == b'{"command":"token","user":"root","password":"s3cret"}'
            issued.append(f"t{len(issued)}")
            left["uses"] = uses
            return page(made.document({"STATUS": [{"STATUS": "S"}], "Token": [{"Token": issued[-1]}]}))
        if not issued or asked.headers.get("token") != issued[-1] or not left["uses"]:
            return page({"STATUS": [{"STATUS": "E", "Msg": "token"}]}, "401 Unauthorized")
        left["uses"] -= 1
        found = pages_of(replies)(asked)
        assert isinstance(found, bytes)
        return found

    return answer


@pytest.mark.parametrize("uses", [1000, 2])
async def test_auradine_gives_a_token_and_a_spent_one_is_fetched_again(uses: int) -> None:
    issued: list[str] = []
    replies = made.auradine()
    async with miner("auradine", FakeWeb(auradine_pages(replies, issued, uses)), rpc_of(replies)) as device:
        seen = await device.observe()
        await device.observe()
    assert (seen.state, seen.power_w, seen.power_limit_w) == (MinerState.HASHING, 2950.5, 3000)
    assert (seen.mac, len(issued) > 1) == (made.MAC.lower(), uses == 2)


async def test_an_auradine_that_knows_us_not_is_read_over_rpc() -> None:
    replies = made.auradine()
    web = FakeWeb(lambda asked: page({"STATUS": [{"STATUS": "E"}]}, "401 Unauthorized"))
    async with miner("auradine", web, rpc_of(replies)) as device:
        seen = await device.observe()
        before = len(web.asked)
        await device.observe()
    assert (seen.state, seen.power_w, seen.mac) == (MinerState.HASHING, None, None)
    assert len(web.asked) == before  # what is closed is not knocked at again within the hour


def obelisk_pages(replies: Mapping[str, bytes]) -> Answer:
    def answer(asked: Asked) -> bytes:
        if asked.target == "/api/login":
            assert asked.body == b'{"username":"root","password":"s3cret"}'
            return page({}, "200 OK", "Set-Cookie: sessionid=abc123; Path=/; HttpOnly", "Set-Cookie: theme=dark")
        if asked.target == "/api/status/dashboard" and asked.headers.get("cookie") != "sessionid=abc123":
            return page({}, "401 Unauthorized")
        found = pages_of(replies)(asked)
        assert isinstance(found, bytes)
        return found

    return answer


async def test_obelisk_opens_its_dashboard_to_a_session() -> None:
    replies = made.obelisk()
    async with miner("obelisk", FakeWeb(obelisk_pages(replies)), rpc_of({})) as device:
        seen = await device.observe()
        assert await device.identity() == made.MAC.lower()
    assert (seen.state, seen.hashrate_ths, seen.model) == (MinerState.HASHING, pytest.approx(0.505), "SC1")


async def test_an_epic_is_asked_for_pages_on_the_port_of_the_api() -> None:
    replies = made.epic()
    async with FakeWeb(pages_of(replies)).serving() as address:
        clock = ManualClock(datetime(2029, 1, 1, tzinfo=UTC))
        device = Device(Address(address.host, 1), "epic", clock, web_port=address.port, deadlines=SHORT)
        seen = await device.observe()
        device.close()
    assert (seen.state, seen.power_w, seen.mac) == (MinerState.HASHING, 2500.5, made.MAC.lower())


@pytest.mark.parametrize("dialect", sorted(made.FAMILIES))
async def test_auto_finds_each_family_out_and_reads_it(dialect: str) -> None:
    replies = made.FAMILIES[dialect]
    issued: list[str] = []
    closed = {"auradine": auradine_pages(replies, issued), "obelisk": obelisk_pages(replies)}
    rpc = rpc_of(replies)
    async with miner("auto", FakeWeb(closed.get(dialect, pages_of(replies))), rpc) as device:
        if not rpc.answers:
            device.address = Address(device.address.host, 1)  # nobody answers RPC there
        seen = await device.observe()
        assert (device.dialect, seen.dialect, seen.state) == (dialect, dialect, MinerState.HASHING)
        assert (await device.identity()) in seen.identities


async def test_an_epic_is_found_by_the_http_that_answers_rpc() -> None:
    async with FakeWeb(pages_of(made.epic())).serving() as address:
        clock = ManualClock(datetime(2029, 1, 1, tzinfo=UTC))
        device = Device(address, "auto", clock, web_port=address.port, deadlines=SHORT)
        seen = await device.observe()
        device.close()
    assert (device.dialect, seen.state) == ("epic", MinerState.HASHING)


async def test_names_that_a_silent_page_left_out_are_asked_for_again_within_minutes() -> None:
    replies = made.FAMILIES["hiveon"]
    mute = {"yes": True}

    async def answer(asked: Asked) -> bytes:
        if mute["yes"]:
            await asyncio.sleep(60)
        found = pages_of(replies)(asked)
        assert isinstance(found, bytes)
        return found

    web, clock = FakeWeb(answer), ManualClock(datetime(2029, 1, 1, tzinfo=UTC))
    hasty = Deadlines(connect_s=0.3, first_byte_s=0.3, total_s=0.6)
    async with serving(rpc_of(replies).speak) as address, web.serving() as page_address:
        device = Device(address, "hiveon", clock, web_port=page_address.port, deadlines=hasty)
        assert ((await device.observe()).state, (await device.observe()).mac) == (MinerState.HASHING, None)
        assert len(web.asked) == 1
        mute["yes"] = False
        clock.advance(301)
        assert (await device.observe()).mac == made.MAC.lower()
        clock.advance(301)
        await device.observe()
        assert len(web.asked) == 2
        device.close()
