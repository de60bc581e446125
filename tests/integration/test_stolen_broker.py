"""What a broker's clients may do there, and what whoever holds the broker itself can and cannot do.

It can read what passes, withhold it, and pass it on again. It cannot make, change or repeat a frame so that either end
takes it: not an order, not a receipt, not a batch, not a sign of life.
"""

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import aiomqtt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import Garbled, TimedOut, Unreachable
from agent.uplink import Tls
from cloud.hosting import queries
from cloud.identity import enrolment
from sitelink import codec
from sitelink.brokered import HALF_BYTES, AgentKey, Topics, seal_down
from sitelink.signing import PrivateKey
from sitelink.types import Brokered as Message
from sitelink.types import (
    ClockTrust,
    Closed,
    Cursor,
    Domain,
    Envelope,
    Heartbeat,
    Opened,
    Opening,
    Receipt,
    Sealed,
    Welcome,
)
from tests.integration.test_mqtt_link import Brokered, Site, brokered
from tests.integration.test_site_link import link, signer
from tests.telemetry import make_batch

pytestmark = pytest.mark.timeout(90)

__all__ = ["brokered", "link", "signer"]

BROKER_QUIET_S = 0.5


@asynccontextmanager
async def thief(brokered: Brokered) -> AsyncIterator[aiomqtt.Client]:
    """Whoever holds the broker: sees every topic, says anything on any."""
    async with aiomqtt.Client("127.0.0.1", brokered.broker.thiefs_port, timeout=10) as client:
        yield client


def client_of(brokered: Brokered, tls: Tls | None, identifier: str, **more: object) -> aiomqtt.Client:
    """A client with an agent's certificate, or none, and whatever name it likes."""
    context = ssl.create_default_context(cadata=brokered.link.authority.pem.decode())
    context.check_hostname = False
    if tls is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "leaf.pem"
            path.write_bytes(tls.certificate_pem + tls.key_pem)
            context.load_cert_chain(path)
    return aiomqtt.Client(
        "127.0.0.1", brokered.broker.port, tls_context=context, identifier=identifier, timeout=10, **more
    )


async def another_agent(brokered: Brokered, site_id: str = "pecos-2") -> tuple[Tls, Topics]:
    """A second enrolled agent, of another site."""
    link = brokered.link
    key_pem, reply = await link.enrol(link.token(site_id), site_id=site_id)
    tls = Tls(link.authority.pem, reply.certificate_pem, key_pem)
    return tls, Topics(str(link.principal.tenant_id), site_id, reply.agent_id)


async def heard(client: aiomqtt.Client, seconds: float = BROKER_QUIET_S) -> list[tuple[str, bytes]]:
    """What comes to ``client`` within ``seconds``."""
    came: list[tuple[str, bytes]] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                message = await anext(client.messages)
                came.append((str(message.topic), bytes(message.payload)))
    return came


def stored(brokered: Brokered, site_id: str = "pecos-1") -> int:
    with brokered.link.database.unit_of_work(brokered.link.principal) as uow:
        return sum(epoch.items for epoch in queries.stored_counts(uow).epochs if epoch.site_id == site_id)


# ------------------------------------------------------------------- what the access rules hold


async def test_an_agent_cannot_speak_as_another(brokered: Brokered) -> None:
    mallory, _ = await another_agent(brokered)
    victim = brokered.topics
    async with thief(brokered) as watcher, client_of(brokered, mallory, "mallory") as client:
        await watcher.subscribe("#", 1)
        for topic in (victim.up, victim.state, victim.down, "ballast/v1/x/y/z/up", "elsewhere"):
            await client.publish(topic, b"forged", 1, timeout=10)
        assert [topic for topic, payload in await heard(watcher) if payload == b"forged"] == []


async def test_an_agent_cannot_listen_to_another(brokered: Brokered) -> None:
    mallory, own = await another_agent(brokered)
    victim = brokered.topics
    async with thief(brokered) as sender, client_of(brokered, mallory, "mallory") as client:
        for topic in (victim.down, victim.up, victim.state, "#", "ballast/v1/+/+/+/down", own.down):
            await client.subscribe(topic, 1)
        for topic in (victim.down, victim.up, victim.state, own.down):
            await sender.publish(topic, b"secret", 1)
        assert [topic for topic, _ in await heard(client)] in ([own.down], [own.down] * 2, [own.down] * 3)


async def test_an_agent_cannot_throw_another_out_by_its_name(brokered: Brokered) -> None:
    mallory, _ = await another_agent(brokered)
    site = brokered.site()
    await site.hello()
    for name in (brokered.topics.agent_id, "ballast-cloud"):
        async with client_of(brokered, mallory, name):
            await site.send(make_batch(0))
            assert isinstance(await site.until(lambda frame: isinstance(frame, Receipt)), Receipt)
            assert brokered.reader.reading.is_set()
    await site.uplink.close()


async def test_nobody_connects_without_a_certificate(brokered: Brokered) -> None:
    with pytest.raises(aiomqtt.MqttError):
        async with client_of(brokered, None, "nobody"):
            pass


async def test_an_agent_that_speaks_for_another_is_refused_even_where_no_rule_holds_it(brokered: Brokered) -> None:
    """The broker lets it through: the certificate still names somebody else."""
    mallory, _ = await another_agent(brokered)
    key, half = AgentKey(mallory.key_pem), b"h" * HALF_BYTES
    said = codec.encode_brokered(Message(half, 0, Opening(mallory.certificate_pem, 15.0)))
    async with thief(brokered) as client:
        await client.subscribe(brokered.topics.down, 1)
        await client.publish(brokered.topics.up, codec.encode_sealed(key.seal(brokered.topics.up, said)), 1)
        answers = [codec.decode_brokered(codec.decode_sealed(raw).content) for _, raw in await heard(client)]
    assert [answer.content.code for answer in answers if isinstance(answer.content, Closed)] == ["PERMISSION_DENIED"]
    assert brokered.reader.forged == 1
    assert brokered.reader._pending == {}


async def test_a_withdrawn_certificate_is_refused_by_the_broker_too(brokered: Brokered) -> None:
    site = brokered.site()
    await site.hello()
    await site.uplink.close()
    link = brokered.link
    with link.database.unit_of_work(link.principal) as uow:
        enrolment.revoke(uow, link.agent_id, "stolen")
    link.servers.withdrawn.update(link.database)
    (brokered.broker.folder / "agents.crl").write_bytes(link.servers.withdrawn.path.read_bytes())
    brokered.broker.reload()
    await asyncio.sleep(0.3)
    with pytest.raises(Unreachable, match="the broker hung up"):  # it does not even get to the cloud
        await site.uplink.connect()
    await site.uplink.close()


# ------------------------------------------------------------------- what the broker's holder cannot do upwards


async def conversation(brokered: Brokered) -> tuple[Site, list[tuple[str, bytes]]]:
    """A site that has said Hello, a heartbeat and a batch; all that passed the broker meanwhile."""
    site = brokered.site()
    async with thief(brokered) as watcher:
        await watcher.subscribe("ballast/#", 1)
        await site.hello()
        await site.send(Heartbeat("nonce", 0, ClockTrust.SYNCED, 0, 0, 0))
        await site.send(make_batch(0))
        await site.until(lambda frame: isinstance(frame, Receipt))
        return site, await heard(watcher)


async def test_it_reads_everything_but_no_secret_is_in_it(brokered: Brokered) -> None:
    site, passed = await conversation(brokered)
    assert {topic.rpartition("/")[2] for topic, _ in passed} >= {"up", "down"}
    assert not [raw for _, raw in passed if b"PRIVATE" in raw or b"password" in raw]
    await site.uplink.close()


async def test_what_passed_before_is_worth_nothing_again(brokered: Brokered) -> None:
    site, passed = await conversation(brokered)
    await site.uplink.close()
    await brokered.until_up(False)
    upwards = [(topic, raw) for topic, raw in passed if topic.endswith("/up")]
    assert len(upwards) >= 4
    async with thief(brokered) as client:
        await client.subscribe(brokered.topics.down, 1)
        for topic, raw in upwards * 2:
            await client.publish(topic, raw, 1)
        answers = [codec.decode_brokered(codec.decode_sealed(raw).content).content for _, raw in await heard(client)]
    assert not await brokered.is_up(), "yesterday's signs of life are none"
    assert [answer for answer in answers if not isinstance(answer, Closed | Opened)] == []
    assert brokered.reader._sessions == {}
    # And within a conversation that lives, a frame repeated is a frame ignored.
    await site.hello()
    live = brokered.reader._sessions[brokered.topics]
    async with thief(brokered) as client:
        for topic, raw in upwards:
            await client.publish(topic, raw, 1)
        await heard(client, 0.2)
    assert brokered.reader._sessions[brokered.topics] is live
    await site.send(make_batch(3))
    assert await site.until(lambda frame: isinstance(frame, Receipt) and frame.first_seq == 3)
    await site.uplink.close()


async def test_a_repeated_sign_of_life_keeps_no_dead_agent_alive(brokered: Brokered) -> None:
    site = brokered.site(heartbeat_s=0.4)
    async with thief(brokered) as client:
        await client.subscribe(brokered.topics.up, 1)
        await site.hello()
        await site.send(Heartbeat("nonce", 0, ClockTrust.SYNCED, 0, 0, 0))
        beats = [raw for _, raw in await heard(client, 0.3)]
        for _ in range(12):  # past the agent's own silence limit
            await client.publish(brokered.topics.up, beats[-1], 1)
            await asyncio.sleep(0.2)
    await brokered.until_up(False)
    assert brokered.topics not in brokered.reader._sessions
    await site.uplink.close()


async def test_what_it_changes_or_makes_is_not_stored(brokered: Brokered) -> None:
    site, passed = await conversation(brokered)
    before = await asyncio.to_thread(stored, brokered)
    live = brokered.reader._sessions[brokered.topics].connection
    forged_batch = codec.encode_up(make_batch(100)).SerializeToString()
    stranger = AgentKey(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    genuine = codec.decode_sealed([raw for topic, raw in passed if topic.endswith("/up")][-1])
    said = codec.encode_brokered(Message(live, 1000, forged_batch))
    tried = [
        codec.encode_sealed(stranger.seal(brokered.topics.up, said)),
        codec.encode_sealed(Sealed(said, genuine.signature)),
        codec.encode_sealed(Sealed(said, b"")),
        codec.encode_sealed(replace(genuine, content=genuine.content[:-1] + bytes([genuine.content[-1] ^ 1]))),
        b"",
        b"\xff" * 100,
    ]
    async with thief(brokered) as client:
        for raw in tried:
            await client.publish(brokered.topics.up, raw, 1)
        # The agent's own words on another topic, or as another agent's.
        await client.publish(replace(brokered.topics, site_id="pecos-2").up, codec.encode_sealed(genuine), 1)
        await heard(client, 0.3)
    await site.send(make_batch(3))
    await site.until(lambda frame: isinstance(frame, Receipt) and frame.first_seq == 3)
    assert await asyncio.to_thread(stored, brokered) == before + 3
    assert await asyncio.to_thread(stored, brokered, "pecos-2") == 0
    assert brokered.reader.forged >= len(tried) - 1
    await site.uplink.close()


# ------------------------------------------------------------------- and downwards


async def test_it_cannot_settle_close_or_order_anything(brokered: Brokered) -> None:
    site, passed = await conversation(brokered)
    topics, thiefs_key = brokered.topics, PrivateKey.generate()
    live = brokered.reader._sessions[topics].connection
    receipt = Receipt("pecos-1", "e1", 0, 999, 999)
    frames = [
        codec.encode_down(receipt).SerializeToString(),
        codec.encode_down(Welcome(Cursor("pecos-1", "e1", 999))).SerializeToString(),
        codec.encode_down(Envelope(Domain.TIME, "k", b"{}", b"s")).SerializeToString(),
    ]
    down = [codec.decode_sealed(raw) for topic, raw in passed if topic.endswith("/down")]
    contents = [Message(live, 1000 + place, content) for place, content in enumerate([*frames, Closed("ABORTED", "x")])]
    async with thief(brokered) as client:
        for message in contents:
            said = codec.encode_brokered(message)
            for sealed in (seal_down(thiefs_key, topics.down, said), Sealed(said, b"", down[-1].key_id),
                           replace(down[-1], content=said)):  # fmt: skip
                await client.publish(topics.down, codec.encode_sealed(sealed), 1)
        for sealed in down:  # what the cloud truly said, once more
            await client.publish(topics.down, codec.encode_sealed(sealed), 1)
        await heard(client, 0.3)
    taken = []
    while not site.uplink._waiting.empty():
        try:
            taken.append(await site.uplink.receive())
        except Garbled:
            continue
    assert taken == []
    await site.send(make_batch(3))
    assert await site.until(lambda frame: isinstance(frame, Receipt)) == Receipt("pecos-1", "e1", 3, 5, 5)
    await site.uplink.close()


async def test_it_cannot_pass_for_the_cloud(brokered: Brokered) -> None:
    """With the cloud gone it answers in its place, with its own key and with what the cloud said before."""
    site, passed = await conversation(brokered)
    await site.uplink.close()
    downwards = [raw for topic, raw in passed if topic.endswith("/down")]
    key = PrivateKey.generate()

    async def pretend(client: aiomqtt.Client) -> None:
        async for message in client.messages:
            opening = codec.decode_brokered(codec.decode_sealed(bytes(message.payload)).content)
            opened = codec.encode_brokered(Message(opening.connection + b"s" * HALF_BYTES, 0, Opened()))
            await client.publish(
                brokered.topics.down, codec.encode_sealed(seal_down(key, brokered.topics.down, opened)), 1
            )
            for raw in downwards:
                await client.publish(brokered.topics.down, raw, 1)

    async with thief(brokered) as client:
        brokered.reader._knocks = asyncio.Queue(1)  # the cloud hears nothing any more
        for _ in range(2):
            if not brokered.reader._knocks.full():
                brokered.reader._knocks.put_nowait(None)  # type: ignore[arg-type]
        await client.subscribe(brokered.topics.up, 1)
        pretending = asyncio.create_task(pretend(client))
        again = brokered.site()
        again.uplink._deadline_s = 2.0
        with pytest.raises(TimedOut, match="no cloud answers through it"):
            await again.uplink.connect()
        pretending.cancel()
        await asyncio.gather(pretending, return_exceptions=True)


async def test_an_agents_frames_are_bounded_in_the_clouds_memory(brokered: Brokered) -> None:
    site = brokered.site()
    await site.hello()
    live = brokered.reader._sessions[brokered.topics]
    live._waiting = asyncio.Queue()  # its conversation reads no more
    for first_seq in range(0, 900, 3):
        await site.send(make_batch(first_seq))
    assert live._waiting.qsize() <= 257
    assert live._over
    await site.uplink.close()


async def test_when_the_room_of_all_is_full_batches_are_dropped_and_signs_of_life_are_not(brokered: Brokered) -> None:
    site = brokered.site()
    await site.hello()
    brokered.reader.room._most_bytes = 0
    await site.send(make_batch(0))
    await site.send(Heartbeat("nonce", 0, ClockTrust.SYNCED, 0, 0, 0))
    frame = await site.until(lambda frame: not isinstance(frame, Welcome))
    assert isinstance(frame, Envelope)
    assert brokered.reader.room.dropped == 1
    brokered.reader.room._most_bytes = 1_000_000
    await site.send(make_batch(0))
    assert isinstance(await site.until(lambda frame: isinstance(frame, Receipt)), Receipt)
    assert brokered.reader.room._held_bytes == 0
    await site.uplink.close()
