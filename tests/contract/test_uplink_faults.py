"""The forwarder over each real transport, with a bad wire in between: everything arrives once, the link tells the truth."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiomqtt
import pytest

from agent.errors import Transient, Unreachable
from agent.uplink import Uplink
from sitelink import codec
from sitelink.types import Domain, DownFrame, Envelope, UpFrame, Welcome
from tests.contract.ends import AGENT, HELLO, TOPICS, Ends, agent_tls, ends_of, grpc_uplink, mqtt_uplink, tls_context
from tests.contract.pki import Authority
from tests.contract.wire import Relay
from tests.unit.agent.test_forwarder import Site, Weather, until

pytestmark = pytest.mark.agent

REAL = ("grpc", "mqtt")


class Weathered:
    """A real uplink whose frames get lost, doubled and reordered on the way, either way, from a seed."""

    def __init__(self, inner: Uplink, weather: Weather, seed: int) -> None:
        self.inner = inner
        self.weather = weather
        self.rng = random.Random(seed)
        self.held: list[DownFrame] = []

    async def connect(self) -> None:
        self.held = []
        await self.inner.connect()

    async def send(self, frame: UpFrame) -> None:
        for _ in range(self.times(frame)):
            await self.inner.send(frame)

    async def receive(self) -> DownFrame:
        while not self.held:
            frame = await self.inner.receive()
            self.held += [frame] * self.times(frame)
            if self.rng.random() < self.weather.reorder:
                another = asyncio.create_task(self.inner.receive())
                await asyncio.wait((another,), timeout=0.02)
                if another.done():
                    self.held.insert(0, another.result())
                else:
                    another.cancel()
                    await asyncio.gather(another, return_exceptions=True)
                    raise Unreachable("the wire broke while it reordered")
        return self.held.pop(0)

    async def close(self) -> None:
        await self.inner.close()

    async def show(self, up: bool) -> None:
        await self.inner.show(up)

    def times(self, frame: UpFrame | DownFrame) -> int:
        if isinstance(frame, type(HELLO) | Welcome):
            return 1
        if self.rng.random() < self.weather.lose:
            return 0
        return 2 if self.rng.random() < self.weather.double else 1


@dataclass
class Linked:
    """A site whose forwarder speaks over a real transport through a relay."""

    site: Site
    ends: Ends
    relay: Relay
    uplink: Uplink


@asynccontextmanager
async def linked(
    kind: str, authority: Authority, heartbeat_s: float = 0.1, weather: Weather | None = None, seed: int = 0
) -> AsyncIterator[Linked]:
    async with ends_of(kind, authority) as ends:
        relay = Relay(ends.far.port if ends.broker is None else ends.broker.port)
        await relay.start()
        tls = agent_tls(authority)
        uplink = grpc_uplink(relay.port, tls) if kind == "grpc" else mqtt_uplink(relay.port, tls, key=ends.far.key)
        site = Site(heartbeat_s=heartbeat_s)
        site.cloud = ends.cloud
        carried = uplink if weather is None else Weathered(uplink, weather, seed)
        site.forwarder.change(carried)
        site.forwarder._resend_s = 0.5
        yield Linked(site, ends, relay, uplink)
        await uplink.close()
        await relay.stop()


async def drained(site: Site, within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while await site.backlog():
            await asyncio.sleep(0.01)


def stored(site: Site) -> list[str]:
    return [
        reading.miner_id for batch in site.cloud.stored.values() for reading in codec.unpack(batch.payload).readings
    ]


async def whole(site: Site, expected: int) -> None:
    """All that was appended is stored, each once."""
    await drained(site)
    names = stored(site)
    assert len(names) == len(set(names)) == expected
    assert site.cloud.through(site.cloud.hellos[0].epoch) == (await site.buffer.status()).next_seq - 1


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(params=REAL)
async def link(request: pytest.FixtureRequest, authority: Authority) -> AsyncIterator[Linked]:
    async with linked(request.param, authority) as made:
        yield made


@pytest.mark.parametrize("kind", REAL)
@pytest.mark.parametrize("seed", range(2))
async def test_lost_doubled_and_reordered_frames_lose_and_double_nothing(
    kind: str, seed: int, authority: Authority
) -> None:
    weather = Weather(lose=0.15, double=0.2, reorder=0.3)
    async with linked(kind, authority, weather=weather, seed=seed) as made:
        await made.site.fill(40, "before")
        async with made.site.running():
            await made.site.fill(40, "during")
            await whole(made.site, 80)


async def test_a_wire_that_is_cut_again_and_again_loses_nothing(link: Linked) -> None:
    await link.site.fill(30, "before")
    async with link.site.running():
        for cut in range(5):
            await until(lambda: link.site.forwarder.link_up)
            await link.site.fill(10, f"cut{cut}-")
            hellos = len(link.site.cloud.hellos)
            link.relay.cut()
            await until(lambda seen=hellos: len(link.site.cloud.hellos) > seen)
        await whole(link.site, 80)


async def test_a_half_open_wire_is_down_and_is_left(link: Linked) -> None:
    async with link.site.running():
        await until(lambda: link.site.forwarder.link_up)
        link.relay.hang()
        await link.site.fill(5, "silent")
        await until(lambda: not link.site.forwarder.link_up)
        await until(lambda: link.site.forwarder.link_trouble)
        link.relay.resume()
        await until(lambda: link.site.forwarder.link_up)
        await whole(link.site, 5)


async def test_a_cloud_that_falls_silent_behind_an_open_socket_is_down(link: Linked) -> None:
    async with link.site.running():
        await until(lambda: link.site.forwarder.link_up)
        link.ends.server.silent = True
        await until(lambda: not link.site.forwarder.link_up)
        link.ends.server.silent = False
        await until(lambda: link.site.forwarder.link_up)


async def test_a_cloud_started_again_is_told_all_that_it_has_no_receipt_for(link: Linked) -> None:
    link.site.cloud.answers_batches = False
    await link.site.fill(20)
    async with link.site.running():
        await until(lambda: len(link.site.cloud.arrivals) >= 20)
        await link.ends.far.stop()
        link.site.cloud.answers_batches = True
        await link.ends.far.start()
        await whole(link.site, 20)


@pytest.mark.parametrize("kill", [False, True])
async def test_a_broker_started_again_loses_nothing(kill: bool, authority: Authority) -> None:
    async with linked("mqtt", authority) as made, made.site.running():
        await until(lambda: made.site.forwarder.link_up)
        await made.site.fill(10, "before")
        made.ends.broker.stop(kill=kill)
        await made.site.fill(10, "without")
        await until(lambda: not made.site.forwarder.link_up)
        made.ends.broker.start()
        await until(lambda: made.site.forwarder.link_up)
        await whole(made.site, 20)


async def test_what_an_old_session_left_at_the_broker_does_no_harm(authority: Authority) -> None:
    async with linked("mqtt", authority) as made:
        port, old = made.ends.broker.port, tls_context(authority, AGENT)
        old.check_hostname = False
        leftover = aiomqtt.Client("127.0.0.1", port, tls_context=old, identifier=AGENT, clean_session=False)
        async with leftover as client:
            await client.subscribe(TOPICS.down, 1)
        context = tls_context(authority, "ballast-cloud")
        context.check_hostname = False
        # Queued for the session that is away, and kept for whoever comes: neither is of the agent's connection.
        await made.ends.far.stop()
        async with aiomqtt.Client("127.0.0.1", port, tls_context=context, identifier="ballast-cloud") as cloud:
            for retain in (False, True):
                await cloud.publish(TOPICS.down, b"from another time", 1, retain=retain)
        await made.ends.far.start()
        async with made.site.running():
            await made.site.fill(10)
            await whole(made.site, 10)
        assert made.site.forwarder._garbled is False


async def test_a_reader_that_stops_ends_its_connection_rather_than_fill_its_memory(authority: Authority) -> None:
    async with ends_of("mqtt", authority) as ends:
        await ends.uplink.connect()
        await ends.uplink.send(HELLO)
        assert isinstance(await ends.uplink.receive(), Welcome)
        for number in range(1100):
            ends.server.pushed.put_nowait(Envelope(Domain.COMMAND, "key", str(number).encode(), b"s"))
        async with asyncio.timeout(30):
            while ends.uplink._ended is None:
                await asyncio.sleep(0.01)
        assert ends.uplink._waiting.qsize() <= 1025
        while not ends.uplink._waiting.empty():
            last = await asyncio.gather(ends.uplink.receive(), return_exceptions=True)
        assert isinstance(last[0], Transient)
        assert "faster than they were taken" in str(last[0])
