"""The link through a real mosquitto: the real agent's end, the real cloud's, a real PostgreSQL and signer."""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from cryptography import x509
from sqlalchemy import text

from agent.errors import AccessDenied, AgentError, Unreachable
from agent.settings import Endpoint
from agent.uplink import Tls
from agent.uplink.mqtt_link import MqttUplink
from cloud.api import link_conversation, mqtt_link
from cloud.api.mqtt_link import MqttLink
from cloud.cli import broker as cli_broker
from cloud.cli import main
from cloud.core.access import Principal
from cloud.hosting import queries, service
from cloud.identity import enrolment
from cloud.infra.broker import BrokerAddress
from cloud.infra.db import Database
from cloud.settings import Settings
from sitelink.batch_signing import BatchSigner
from sitelink.brokered import Topics
from sitelink.clock import SystemClock
from sitelink.orders import read_plan, read_time
from sitelink.signing import KeyRing
from sitelink.types import Batch, ClockTrust, Domain, Envelope, Heartbeat, Hello, Receipt, UpFrame, Verb, Welcome
from tests.contract.ends import Ids
from tests.integration.test_site_link import Link, link, plan, signer
from tests.mosquitto import BROKER_NAME, Mosquitto, broker_of
from tests.telemetry import make_batch

pytestmark = pytest.mark.timeout(90)

__all__ = ["link", "signer"]


@dataclass
class Site:
    """One agent's end, which speaks through the broker."""

    uplink: MqttUplink
    agent_id: str
    signer: BatchSigner

    async def hello(self, **changes: Any) -> Welcome:
        await self.uplink.connect()
        await self.uplink.send(replace(Hello("pecos-1", self.agent_id, "test", "e1", 0, 0), **changes))
        welcome = await self.until(lambda frame: isinstance(frame, Welcome))
        assert isinstance(welcome, Welcome)
        return welcome

    async def send(self, frame: UpFrame) -> None:
        await self.uplink.send(self.signer.sign(frame) if isinstance(frame, Batch) else frame)

    async def until(self, wanted: Callable[[Any], bool]) -> Any:
        async with asyncio.timeout(20):
            while not wanted(frame := await self.uplink.receive()):
                continue
        return frame

    async def ends(self) -> AgentError:
        """Wait until the cloud has ended the conversation; why."""
        try:
            async with asyncio.timeout(20):
                while True:
                    await self.uplink.receive()
        except AgentError as error:
            return error


@dataclass
class Brokered:
    """The cloud behind a broker, with one enrolled agent."""

    link: Link
    broker: Mosquitto
    reader: MqttLink
    tls: Tls
    topics: Topics

    def site(self, heartbeat_s: float = 5.0, tls: Tls | None = None, topics: Topics | None = None) -> Site:
        assert self.link.reply is not None
        uplink = MqttUplink(
            Endpoint("127.0.0.1", self.broker.port),
            tls or self.tls,
            topics or self.topics,
            KeyRing(tuple(self.link.reply.time_keys)),
            Ids(),
            SystemClock().now,
            server_name=BROKER_NAME,
            deadline_s=10.0,
            heartbeat_s=heartbeat_s,
        )
        return Site(uplink, (topics or self.topics).agent_id, BatchSigner.from_pem((tls or self.tls).key_pem))

    def made_reader(self) -> MqttLink:
        address = BrokerAddress("127.0.0.1", self.broker.port, BROKER_NAME)
        return MqttLink(self.link.servers.parts, self.link.authority, address)

    async def is_up(self) -> bool:
        def look() -> bool:
            with self.link.database.unit_of_work(self.link.principal) as uow:
                found = queries.link(uow, "pecos-1")
            return found is not None and found.up

        return await asyncio.to_thread(look)

    async def until_up(self, wanted: bool) -> None:
        async with asyncio.timeout(20):
            while await self.is_up() is not wanted:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def running(reader: MqttLink) -> AsyncIterator[MqttLink]:
    task = asyncio.create_task(reader.run())
    try:
        yield reader
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def broker_before(link: Link, *, stolen: bool = False) -> AsyncIterator[Brokered]:
    """A broker before the cloud, whose reader does not run yet."""
    served = link.authority.broker(())
    link.servers.withdrawn.update(link.database)
    crl_pem = link.servers.withdrawn.path.read_bytes()
    with broker_of(link.authority.pem, crl_pem, served.chain_pem, served.key_pem, stolen=stolen) as broker:
        tls = Tls(link.authority.pem, link.certificate_pem, link.key_pem)
        topics = Topics(str(link.principal.tenant_id), "pecos-1", link.agent_id)
        address = BrokerAddress("127.0.0.1", broker.port, BROKER_NAME)
        yield Brokered(link, broker, MqttLink(link.servers.parts, link.authority, address), tls, topics)


async def listens(reader: MqttLink) -> None:
    async with asyncio.timeout(20):
        await reader.reading.wait()


@pytest.fixture
async def brokered(link: Link) -> AsyncIterator[Brokered]:
    async with broker_before(link, stolen=True) as made, running(made.reader):
        await listens(made.reader)
        yield made


async def test_batches_become_receipts_after_they_are_stored(brokered: Brokered) -> None:
    site = brokered.site()
    assert (await site.hello()).cursor.through_seq == -1
    for first_seq in range(0, 30, 3):
        await site.send(make_batch(first_seq))
    last = await site.until(lambda frame: isinstance(frame, Receipt) and frame.last_seq == 29)
    assert last.through_seq == 29
    with brokered.link.database.unit_of_work(brokered.link.principal) as uow:
        counts = queries.stored_counts(uow)
    assert (counts.items, counts.missing, counts.doubled) == (30, 0, 0)
    assert await brokered.is_up()
    await site.uplink.close()
    await brokered.until_up(False)
    assert (await site.hello()).cursor.through_seq == 29
    await site.uplink.close()


async def test_heartbeats_are_answered_with_signed_time_and_orders_come_down(brokered: Brokered) -> None:
    assert brokered.link.reply is not None
    site = brokered.site()
    await site.hello()
    await site.send(Heartbeat("nonce-1", 0, ClockTrust.SYNCED, 2, 100, 5))
    answer = await site.until(lambda frame: isinstance(frame, Envelope) and frame.domain is Domain.TIME)
    opened = KeyRing(tuple(brokered.link.reply.time_keys)).open(answer, Domain.TIME)
    assert read_time(opened).nonce == "nonce-1"
    with brokered.link.database.unit_of_work(brokered.link.principal) as uow:
        service.dispatch_plan(uow, plan(1), brokered.link.signer)
    pushed = await site.until(lambda frame: isinstance(frame, Envelope) and frame.domain is Domain.PLAN)
    assert read_plan(KeyRing(tuple(brokered.link.reply.order_keys)).open(pushed, Domain.PLAN)).revision == 1
    await site.uplink.close()


async def test_an_order_that_the_broker_dropped_is_said_again(
    brokered: Brokered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_conversation, "_LOOK_EVERY_S", 0.2)
    site = brokered.site()
    await site.hello()
    with brokered.link.database.unit_of_work(brokered.link.principal) as uow:
        service.queue_command(uow, "pecos-1", Verb.STOP, ("m001",), "test", brokered.link.signer)
    first = await site.until(lambda frame: isinstance(frame, Envelope) and frame.domain is Domain.COMMAND)
    brokered.link.clock.advance(31)  # nothing answered it
    assert await site.until(lambda frame: isinstance(frame, Envelope) and frame.domain is Domain.COMMAND) == first
    await site.uplink.close()


async def test_a_torn_connection_is_down_by_its_last_will(brokered: Brokered) -> None:
    site = brokered.site(heartbeat_s=60.0)
    await site.hello()
    await brokered.until_up(True)
    assert site.uplink._client is not None
    site.uplink._client.drop()
    await brokered.until_up(False)
    await site.uplink.close()


async def test_a_silent_agent_is_down_though_its_connection_to_the_broker_stands(brokered: Brokered) -> None:
    site = brokered.site(heartbeat_s=0.3)
    await site.hello()
    await brokered.until_up(True)
    await brokered.until_up(False)
    assert isinstance(await site.ends(), Unreachable)
    await site.uplink.close()


async def test_the_retained_state_is_what_the_forwarder_said_last(brokered: Brokered) -> None:
    async def retained() -> dict[str, str]:
        async with aiomqtt.Client("127.0.0.1", brokered.broker.thiefs_port) as client:
            await client.subscribe(brokered.topics.state, 1)
            async with asyncio.timeout(10):
                message = await anext(client.messages)
            assert message.retain
            return dict(json.loads(message.payload))

    site = brokered.site()
    await site.hello()
    await site.uplink.show(True)
    said = await retained()
    assert said["link"] == "up"
    assert datetime.fromisoformat(said["until"]) > SystemClock().now()
    await site.uplink.show(False)
    assert (await retained())["link"] == "down"
    await site.uplink.show(True)
    assert site.uplink._client is not None
    site.uplink._client.drop()
    async with asyncio.timeout(10):
        while (await retained())["link"] == "up":
            await asyncio.sleep(0.05)
    await site.uplink.close()


async def test_a_revoked_agent_is_told_so_and_let_in_no_more(brokered: Brokered) -> None:
    site = brokered.site()
    await site.hello()
    with brokered.link.database.unit_of_work(brokered.link.principal) as uow:
        assert enrolment.revoke(uow, brokered.link.agent_id, "stolen")
    await site.send(Heartbeat("n", 0, ClockTrust.SYNCED, 0, 0, 0))
    error = await site.ends()
    assert isinstance(error, AccessDenied)
    assert "stolen" in str(error)
    with pytest.raises(AccessDenied, match="stolen"):
        await site.uplink.connect()


async def test_a_newer_connection_takes_the_agent_over(brokered: Brokered) -> None:
    first, second = brokered.site(), brokered.site()
    await first.hello()
    await second.hello()
    assert isinstance(await first.ends(), Unreachable), "the broker lets one client of a name stay"
    await second.send(make_batch(0))
    assert isinstance(await second.until(lambda frame: isinstance(frame, Receipt)), Receipt)
    await second.uplink.close()
    await first.uplink.close()


async def test_a_stopping_cloud_ends_its_conversations_itself(brokered: Brokered) -> None:
    site = brokered.site()
    await site.hello()
    brokered.link.servers.parts.closing.set()
    await brokered.reader.stop(5.0)
    error = await site.ends()
    assert isinstance(error, Unreachable)
    assert "the cloud is stopping; connect again" in str(error)
    await site.uplink.close()


async def test_a_connection_that_the_cloud_has_forgotten_must_open_anew(brokered: Brokered) -> None:
    site = brokered.site()
    await site.hello()
    brokered.reader._sessions.clear()
    await site.send(make_batch(0))
    error = await site.ends()
    assert isinstance(error, Unreachable)
    assert "not known here; connect again" in str(error)
    await site.hello()
    await site.send(make_batch(0))
    assert isinstance(await site.until(lambda frame: isinstance(frame, Receipt)), Receipt)
    await site.uplink.close()


async def test_of_two_replicas_one_reads_and_the_other_takes_over(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_link, "_RENEW_EVERY_S", 0.2)
    async with broker_before(link) as made:
        pair = (made.made_reader(), made.made_reader())
        site = made.site()
        async with running(pair[0]), running(pair[1]):
            async with asyncio.timeout(20):
                while not any(reader.reading.is_set() for reader in pair):
                    await asyncio.sleep(0.02)
            await asyncio.sleep(1.0)  # the other asks again and again
            assert [reader.reading.is_set() for reader in pair].count(True) == 1
            reader, other = pair if pair[0].reading.is_set() else pair[::-1]
            await site.hello()
            assert (list(reader._sessions), other._sessions) == ([made.topics], {})
            # The lease goes to the other, as when this replica was held up for longer than it lasts.
            with link.database.unit_of_work(link.principal) as uow:
                uow.session.execute(text("UPDATE leases SET token = token + 1, expires_at = clock_timestamp()"))
            async with asyncio.timeout(20):
                while [reader.reading.is_set() for reader in pair].count(True) != 1 or made.topics in reader._sessions:
                    await asyncio.sleep(0.02)
            await site.send(make_batch(0))
            assert isinstance(await site.ends(), Unreachable)
            await site.hello()
            await site.send(make_batch(0))
            assert isinstance(await site.until(lambda frame: isinstance(frame, Receipt)), Receipt)
            await site.uplink.close()


def test_what_ballast_broker_writes_the_shipped_configuration_reads(
    link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def opened(_: argparse.Namespace) -> Iterator[tuple[Database, Settings, Principal]]:
        yield link.database, Settings(data_dir=link.authority.folder.parent), link.principal

    monkeypatch.setattr(cli_broker, "open_database", opened)
    folder = tmp_path / "ballast"
    assert main.run(["broker", str(folder), "--name", "broker.example.com"]) == 0
    assert "have the broker read them" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["agents.crl", "broker.crt", "broker.key", "ca.crt"]
    assert (folder / "broker.key").stat().st_mode & 0o777 == 0o600
    served = x509.load_pem_x509_certificate((folder / "broker.crt").read_bytes())
    names = served.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    )
    assert {BROKER_NAME, "broker.example.com"} <= set(names)
    assert "ballast-cloud" not in names, "a stolen broker's key must not pass for the cloud over gRPC"
    (folder / "broker.key").chmod(0o640)
    kept = (folder / "broker.crt").read_bytes()
    assert main.run(["broker", str(folder), "--name", "broker.example.com"]) == 0
    assert (folder / "broker.crt").read_bytes() == kept
    assert (folder / "broker.key").stat().st_mode & 0o777 == 0o640, "who may read the key is the operator's to say"
    files = [(folder / name).read_bytes() for name in ("ca.crt", "agents.crl", "broker.crt", "broker.key")]
    with broker_of(*files) as running_broker:
        assert running_broker.port
    (tmp_path / "file").touch()
    assert main.run(["broker", str(tmp_path / "file")]) == 2
