"""The link over real gRPC and TLS, against a real PostgreSQL and a real signer process."""

import argparse
import asyncio
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import text

from agent.enrol import enrol as enrol_agent
from agent.enrol import read_token
from agent.errors import Refused as AgentRefused
from agent.settings import load_settings
from cloud.api.site_link import LinkAddresses, LinkServers
from cloud.cli import main, order
from cloud.core.access import Principal
from cloud.hosting import orders, queries, service
from cloud.identity import enrolment
from cloud.identity import service as identity
from cloud.identity.authority import CertificateAuthority
from cloud.infra.bus import AsyncBus
from cloud.infra.db import Database
from cloud.infra.postgres import EmbeddedPostgres
from cloud.infra.signer_client import SignerClient
from cloud.settings import Settings
from sitelink.batch_signing import BatchKeys, BatchSigner
from sitelink.clock import ManualClock, SystemClock
from sitelink.codec import decode_down, encode_up
from sitelink.inventory import METER_FIELDS, MINER_FIELDS
from sitelink.orders import read_command, read_plan, read_time
from sitelink.signing import KeyRing
from sitelink.types import (
    Ack,
    Batch,
    ClockTrust,
    Curtailment,
    CurtailmentCause,
    Domain,
    Envelope,
    Evidence,
    Fallback,
    Heartbeat,
    Hello,
    Interval,
    Outcome,
    Ramp,
    Receipt,
    SitePlan,
    UpFrame,
    Verb,
    Welcome,
)
from sitelink.units import Watts
from sitelink.v1 import link_pb2 as pb
from sitelink.v1 import link_pb2_grpc
from tests.telemetry import make_batch, make_readings

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def signer() -> Iterator[SignerClient]:
    with tempfile.TemporaryDirectory(prefix="bs-", dir="/tmp") as folder:
        socket_path = Path(folder) / "s" / "signer.sock"
        program = "import sys, pathlib; from cloud.signer import serve; serve(*map(pathlib.Path, sys.argv[1:]))"
        process = subprocess.Popen([sys.executable, "-c", program, str(Path(folder) / "s"), str(socket_path)])
        deadline = time.monotonic() + 20
        while not socket_path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        yield SignerClient(socket_path)
        process.kill()
        process.wait()


@dataclass
class Link:
    """A started link with one enrolled agent."""

    servers: LinkServers
    database: Database
    principal: Principal
    authority: CertificateAuthority
    signer: SignerClient
    agent_id: str = ""
    key_pem: bytes = b""
    certificate_pem: bytes = b""
    reply: pb.EnrolReply | None = None
    clock: ManualClock = field(default_factory=lambda: ManualClock(SystemClock().now(), 1000.0))

    def token(self, site_id: str = "pecos-1") -> str:
        with self.database.unit_of_work(self.principal) as uow:
            return enrolment.make_join_token(uow, self.authority, site_id)

    async def enrol(
        self, token: str, csr: bytes | None = None, site_id: str = "pecos-1"
    ) -> tuple[bytes, pb.EnrolReply]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site_id)])
        made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        csr = csr or made.public_bytes(serialization.Encoding.PEM)
        credentials = grpc.ssl_channel_credentials(self.authority.pem)
        async with grpc.aio.secure_channel(f"localhost:{self.servers.enrol_port}", credentials) as channel:
            stub = link_pb2_grpc.EnrolmentStub(channel)
            reply = await stub.Enrol(pb.EnrolRequest(join_token=token, csr_pem=csr), timeout=10)
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return key_pem, reply

    @asynccontextmanager
    async def stream(
        self, key_pem: bytes | None = None, certificate_pem: bytes | None = None
    ) -> AsyncIterator["Stream"]:
        credentials = grpc.ssl_channel_credentials(
            self.authority.pem, key_pem or self.key_pem, certificate_pem or self.certificate_pem
        )
        async with grpc.aio.secure_channel(f"localhost:{self.servers.link_port}", credentials) as channel:
            signer = BatchSigner.from_pem(key_pem or self.key_pem)
            yield Stream(link_pb2_grpc.SiteLinkStub(channel).Connect(), self.agent_id, signer)


class Stream:
    """The agent's side of a stream."""

    def __init__(self, call: Any, agent_id: str, signer: BatchSigner) -> None:
        self.call = call
        self.agent_id = agent_id
        self.signer = signer

    async def send(self, frame: UpFrame) -> None:
        await self.send_as_it_is(self.signer.sign(frame) if isinstance(frame, Batch) else frame)

    async def send_as_it_is(self, frame: UpFrame) -> None:
        await self.call.write(encode_up(frame))

    async def receive(self) -> Any:
        async with asyncio.timeout(20):
            message = await self.call.read()
        assert message is not grpc.aio.EOF, "the stream ended"
        return decode_down(message)

    async def until(self, wanted: Callable[[Any], bool]) -> Any:
        while True:
            frame = await self.receive()
            if wanted(frame):
                return frame

    async def hello(self, **changes: Any) -> Welcome:
        hello = replace(Hello("pecos-1", self.agent_id, "test", "e1", 0, 0), **changes)
        await self.send(hello)
        frame = await self.until(lambda frame: isinstance(frame, Welcome))
        assert isinstance(frame, Welcome)
        return frame

    async def refusal(self) -> grpc.aio.AioRpcError:
        try:
            async with asyncio.timeout(20):
                while await self.call.read() is not grpc.aio.EOF:
                    continue
        except grpc.aio.AioRpcError as error:
            return error
        code, details = await self.call.code(), await self.call.details()
        return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


@pytest.fixture
async def link(database: Database, principal: Principal, signer: SignerClient) -> AsyncIterator[Link]:
    with tempfile.TemporaryDirectory() as folder:
        clock = ManualClock(SystemClock().now(), 1000.0)
        authority = CertificateAuthority(Path(folder) / "keys", clock)
        bus = AsyncBus(database.url)
        addresses = LinkAddresses("127.0.0.1:0", "127.0.0.1:0")
        servers = LinkServers(database, bus, authority, authority.time_key(), signer, clock, addresses)
        await servers.start()
        listening = asyncio.create_task(bus.run())
        await bus.listening.wait()
        made = Link(servers, database, principal, authority, signer, clock=clock)
        with database.unit_of_work(principal) as uow:
            service.create_site(uow, "pecos-1", "Pecos", "America/Chicago")
            service.create_site(uow, "pecos-2", "Pecos two", "America/Chicago")
        made.key_pem, reply = await made.enrol(made.token())
        made.certificate_pem, made.agent_id, made.reply = reply.certificate_pem, reply.agent_id, reply
        yield made
        await servers.stop()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def plan(revision: int, miner_ids: tuple[str, ...] = ("m000",)) -> SitePlan:
    now = SystemClock().now()
    interval = Interval(now - timedelta(seconds=5), now + timedelta(minutes=5))
    ramp = Ramp(Watts(0.0), 1.0)
    item = Curtailment(f"c{revision}", CurtailmentCause.PRICE, interval, miner_ids, ramp, ramp)
    valid = Interval(now, now + timedelta(hours=1))
    return SitePlan(f"p{revision}", "pecos-1", "", 0, 0, revision, now, valid, Fallback.RUN, (item,))


def is_envelope(domain: Domain) -> Callable[[Any], bool]:
    return lambda frame: isinstance(frame, Envelope) and frame.domain is domain


async def test_batches_become_receipts_after_they_are_stored(link: Link) -> None:
    async with link.stream() as stream:
        assert (await stream.hello()).cursor.through_seq == -1
        for first_seq in range(0, 30, 3):
            await stream.send(make_batch(first_seq))
        last = await stream.until(lambda frame: isinstance(frame, Receipt) and frame.last_seq == 29)
        assert last.through_seq == 29
        with link.database.unit_of_work(link.principal) as uow:
            counts = queries.stored_counts(uow)
            assert queries.link(uow, "pecos-1").up
        assert (counts.items, counts.missing, counts.doubled) == (30, 0, 0)
    async with link.stream() as stream:
        assert (await stream.hello()).cursor.through_seq == 29


async def test_heartbeats_are_answered_with_signed_time(link: Link) -> None:
    assert link.reply is not None
    async with link.stream() as stream:
        await stream.hello()
        await stream.send(Heartbeat("nonce-1", 0, ClockTrust.SYNCED, 2, 100, 5))
        envelope = await stream.until(is_envelope(Domain.TIME))
        signed = read_time(KeyRing(tuple(link.reply.time_keys)).open(envelope, Domain.TIME))
        assert (signed.nonce, signed.site_id) == ("nonce-1", "pecos-1")
        assert abs(signed.cloud_time - SystemClock().now()) < timedelta(seconds=30)

        def trusted() -> bool:
            with link.database.unit_of_work(link.principal) as uow:
                state = queries.link(uow, "pecos-1")
            return (state.clock_trust, state.backlog_batches) == ("synced", 2)

        await eventually(trusted)


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.02)


async def test_plans_are_pushed_on_notify_and_on_connect(link: Link) -> None:
    assert link.reply is not None
    ring = KeyRing(tuple(link.reply.order_keys))
    async with link.stream() as stream:
        await stream.hello()
        with link.database.unit_of_work(link.principal) as uow:
            service.dispatch_plan(uow, plan(1), link.signer)
        pushed = await stream.until(is_envelope(Domain.PLAN))
        received = read_plan(ring.open(pushed, Domain.PLAN))
        assert (received.revision, received.agent_id, received.signing_epoch, received.sequence) == (
            1,
            link.agent_id,
            1,
            1,
        )
        with link.database.unit_of_work(link.principal) as uow:
            command_id = service.queue_command(uow, "pecos-1", Verb.STOP, ("m001",), "test", link.signer)
        command = read_command(ring.open(await stream.until(is_envelope(Domain.COMMAND)), Domain.COMMAND))
        assert (command.command_id, command.sequence) == (command_id, 2)
    async with link.stream() as stream:
        await stream.hello()
        again = [await stream.receive(), await stream.receive()]
        assert again[0] == pushed and again[1].domain is Domain.COMMAND


def typed(link: Link, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    @contextmanager
    def opened(_: argparse.Namespace) -> Iterator[tuple[Database, Settings, Principal]]:
        yield link.database, Settings(), link.principal

    with tempfile.TemporaryDirectory() as folder:
        inventory, meters = Path(folder) / "inventory.csv", Path(folder) / "meters.csv"
        rows = [f"m00{place},10.0.0.{place + 1},4028,luxos,S21,F1,R1,{place},3500,200" for place in range(2)]
        inventory.write_text("\n".join((",".join(MINER_FIELDS), *rows, "")))
        meters.write_text(",".join(METER_FIELDS) + "\n")
        with link.database.unit_of_work(link.principal) as uow:
            service.import_inventory(uow, "pecos-1", inventory, meters)
    monkeypatch.setattr(order, "open_database", opened)
    monkeypatch.setattr(order, "SignerClient", lambda _: link.signer)
    return lambda *words: main.run(["order", *words])


async def test_an_order_that_is_typed_reaches_the_site_signed_with_all_it_says(
    link: Link, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert link.reply is not None
    run, ring = typed(link, monkeypatch), KeyRing(tuple(link.reply.order_keys))
    image = ("--file", "fw.bin", "--sha256", "0" * 64, "--version", "2")
    async with link.stream() as stream:
        await stream.hello()
        assert (
            await asyncio.to_thread(run, "limit", "pecos-1", "--miner", "m001", "m000", "m001", "--power-w", "2500")
            == 0
        )
        command = read_command(ring.open(await stream.until(is_envelope(Domain.COMMAND)), Domain.COMMAND))
        assert (command.verb, command.miner_ids, dict(command.parameters)) == (
            Verb.LIMIT,
            ("m001", "m000"),
            {"power_w": "2500"},
        )
        two = ("--approved-by", "Ann@example.com", "bob@example.com")
        for name in ("ann", "bob"):
            operator(link, f"{name}@example.com", f"{name}'s own words")
        monkeypatch.setattr("sys.stdin", io.StringIO("ann's own words\nbob's own words\n"))
        assert await asyncio.to_thread(run, "firmware", "pecos-1", "--miner", "m001", *image, *two) == 0
        command = read_command(ring.open(await stream.until(is_envelope(Domain.COMMAND)), Domain.COMMAND))
        assert (command.verb, command.approved_by) == (Verb.FIRMWARE, ("ann@example.com", "bob@example.com"))
    assert "order " in capsys.readouterr().out


def operator(link: Link, email: str, password: str) -> None:
    """One more operator, who has chosen a password; none for one who has not."""
    with link.database.unit_of_work(link.principal) as uow:
        once = identity.add_operator(uow, email)
        found = identity.authenticate(uow, email, once)
        assert found is not None
        if password:
            identity.change_password(uow, found.account_id, once, password)


@pytest.mark.parametrize(
    ("emails", "typed_words", "told"),
    [
        (("ann@example.com", "ann@example.com"), "ann's own words\nann's own words\n", "two people are needed"),
        (("ann@example.com", "ANN@example.com "), "ann's own words\nann's own words\n", "two people are needed"),
        (
            ("ann@example.com", "bob@example.com"),
            "ann's own words\nann's own words\n",
            "bob@example.com does not stand",
        ),
        (("ann@example.com", "bob@example.com"), "", "ends before the password of ann@example.com"),
        (("ann@example.com", "new@example.com"), "ann's own words\nx\n", "new@example.com does not stand"),
        (("ann@example.com", "nobody@example.com"), "ann's own words\nx\n", "nobody@example.com does not stand"),
    ],
)
def test_one_person_cannot_stand_for_two(
    link: Link,
    emails: tuple[str, str],
    typed_words: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = typed(link, monkeypatch)
    for name in ("ann", "bob"):
        operator(link, f"{name}@example.com", f"{name}'s own words")
    operator(link, "new@example.com", "")
    monkeypatch.setattr("sys.stdin", io.StringIO(typed_words))
    image = ("--file", "fw.bin", "--sha256", "0" * 64, "--version", "2", "--approved-by", *emails)
    assert run("firmware", "pecos-1", "--miner", "m001", *image) in (1, 2)
    assert told in capsys.readouterr().err
    with link.database.unit_of_work(link.principal) as uow:
        assert orders.pending(uow, "pecos-1", link.agent_id).commands == ()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("limit", "pecos-1", "--miner", "m001", "--power-w", "much"), 2, "not a miner's power"),
        (("blink", "pecos-1", "--miner", "nobody"), 1, "'nobody' is not at pecos-1"),
        (("blink", "nowhere", "--miner", "m001"), 1, "there is no site nowhere"),
        (("reboot", "pecos-1", "--miner", "m001", "--for", "3 days"), 2, "not a duration"),
    ],
)
def test_an_order_that_cannot_be_meant_is_one_line_and_nothing_is_signed(
    link: Link,
    words: tuple[str, ...],
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert typed(link, monkeypatch)(*words) == code
    heard = capsys.readouterr()
    assert (heard.out, heard.err.count("\n")) == ("", 1)
    assert told in heard.err
    with link.database.unit_of_work(link.principal) as uow:
        assert orders.pending(uow, "pecos-1", link.agent_id).commands == ()


def test_whoever_watches_sees_each_miners_end(
    link: Link, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = typed(link, monkeypatch)
    heard = [("m000", Outcome.COMPLETE, "mode_as_ordered"), ("m001", Outcome.REFUSED, "access_denied")]

    def acks(uow: object, site_id: str, order_id: str) -> tuple[Ack, ...]:
        found = heard[: len(heard)] if told else heard[:1]
        told.append(order_id)
        return tuple(
            Ack("a", order_id, 0, name, Verb.LIMIT, outcome, Evidence.DEVICE_STATE, reason, link.clock.now())
            for name, outcome, reason in found
        )

    told: list[str] = []
    monkeypatch.setattr(order.queries, "acks", acks)
    monkeypatch.setattr(order.time, "sleep", lambda _: None)
    assert run("limit", "pecos-1", "--miner", "m000", "m001", "--mode", "low", "--watch") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["m000  complete  mode_as_ordered", "m001  refused  access_denied", "1 of 2 complete"]


async def test_a_plan_is_sent_again_when_the_site_lags_behind_it(link: Link) -> None:
    with link.database.unit_of_work(link.principal) as uow:
        service.dispatch_plan(uow, plan(3), link.signer)
    async with link.stream() as stream:
        await stream.hello()
        first = await stream.until(is_envelope(Domain.PLAN))
        await eventually(lambda: link.servers.counters.plans_sent == 1)
        link.clock.advance(11)
        await stream.send(Heartbeat("n", 3, ClockTrust.SYNCED, 0, 0, 0))
        await stream.until(is_envelope(Domain.TIME))
        await stream.send(Heartbeat("n", 2, ClockTrust.SYNCED, 0, 0, 0))
        frames = [await stream.receive(), await stream.receive()]
        assert first in frames


async def test_dispatching_again_or_late_changes_nothing(link: Link) -> None:
    for revision in (1, 2, 2, 1):
        with link.database.unit_of_work(link.principal) as uow:
            service.dispatch_plan(uow, plan(revision), link.signer)
    with link.database.unit_of_work(link.principal) as uow:
        waiting = orders.pending(uow, "pecos-1", link.agent_id)
        assert orders.in_force(uow, "pecos-1").stopped == {"m000"}
    assert waiting.plan is not None
    assert (waiting.plan_revision, read_plan(waiting.plan.payload).sequence) == (2, 2)


async def test_a_signature_whose_transaction_failed_spends_its_epoch(link: Link) -> None:
    with pytest.raises(ZeroDivisionError), link.database.unit_of_work(link.principal) as uow:
        _ = service.dispatch_plan(uow, plan(1, ("m007",)), link.signer) or 1 / 0
    with link.database.unit_of_work(link.principal) as uow:
        service.dispatch_plan(uow, plan(1), link.signer)
        waiting = orders.pending(uow, "pecos-1", link.agent_id)
    assert waiting.plan is not None
    kept = read_plan(waiting.plan.payload)
    assert (kept.signing_epoch, kept.sequence) == (2, 1)


async def test_a_new_agent_gets_the_plan_addressed_anew_and_the_old_one_is_refused(link: Link) -> None:
    with link.database.unit_of_work(link.principal) as uow:
        service.dispatch_plan(uow, plan(4), link.signer)
    key_pem, reply = await link.enrol(link.token())
    async with link.stream(key_pem, reply.certificate_pem) as stream:
        await stream.hello(agent_id=reply.agent_id)
        received = read_plan((await stream.until(is_envelope(Domain.PLAN))).payload)
        assert (received.revision, received.agent_id) == (4, reply.agent_id)
    assert reply.agent_id in await refusal_of_the_first_agent(link)


async def refusal_of_the_first_agent(link: Link) -> str:
    async with link.stream() as stream:
        await stream.send(Hello("pecos-1", link.agent_id, "test", "e1", 0, 0))
        refused = await stream.refusal()
        assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "replaced by" in str(refused.details())
        return str(refused.details())


async def test_an_agent_works_until_its_successor_connects(link: Link) -> None:
    async with link.stream() as stream:
        await stream.hello()
        await link.enrol(link.token())
        key_pem, reply = await link.enrol(link.token())
        with link.database.unit_of_work(link.principal) as uow:
            service.dispatch_plan(uow, plan(1), link.signer)
            (waiting,) = enrolment.open_agents(uow).values()
        assert (waiting[0], waiting[-1]) == (link.agent_id, reply.agent_id)
        received = read_plan((await stream.until(is_envelope(Domain.PLAN))).payload)
        assert (received.revision, received.agent_id) == (1, link.agent_id)
        async with link.stream() as again:
            await again.hello()
        async with link.stream(key_pem, reply.certificate_pem) as successor:
            await successor.hello(agent_id=reply.agent_id)
            received = read_plan((await successor.until(is_envelope(Domain.PLAN))).payload)
            assert (received.revision, received.agent_id) == (1, reply.agent_id)
    assert reply.agent_id in await refusal_of_the_first_agent(link)


async def test_enrolling_with_a_token_of_another_site_changes_nothing(link: Link, tmp_path: Path) -> None:
    token = link.token("pecos-1")
    path = tmp_path / "agent.toml"
    endpoint = f"localhost:{link.servers.enrol_port}"
    path.write_text(f'[site]\nsite_id = "pecos-2"\n[link]\nenrol_endpoint = "{endpoint}"\n')
    settings = load_settings(path, {})
    async with link.stream() as stream:
        await stream.hello()
        with pytest.raises(AgentRefused, match="for site 'pecos-1', the settings say 'pecos-2'") as caught:
            await asyncio.to_thread(enrol_agent, settings, read_token(token))
        assert "\n" not in str(caught.value)
        assert not settings.identity_dir.exists()
        await stream.send(make_batch(0))
        await stream.until(lambda frame: isinstance(frame, Receipt))
    async with link.stream() as stream:
        await stream.hello()
    path.write_text(path.read_text().replace("pecos-2", "pecos-1"))
    made = await asyncio.to_thread(enrol_agent, load_settings(path, {}), read_token(token))
    assert made.site_id == "pecos-1", "the refused token is still good"


async def test_a_plan_needs_an_agent(link: Link) -> None:
    from cloud.core.errors import Refused

    with pytest.raises(Refused, match="no enrolled agent") as caught, link.database.unit_of_work(link.principal) as uow:
        service.dispatch_plan(uow, replace(plan(1), site_id="pecos-2"), link.signer)
    assert caught.value.code == "no_agent"


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([make_batch(0)], grpc.StatusCode.FAILED_PRECONDITION),
        ([Hello("pecos-2", "?", "t", "e", 0, 0)], grpc.StatusCode.PERMISSION_DENIED),
        ([Hello("pecos-1", "other", "t", "e", 0, 0)], grpc.StatusCode.PERMISSION_DENIED),
        (["hello", make_batch(0, site_id="pecos-2")], grpc.StatusCode.PERMISSION_DENIED),
        (["hello", "hello"], grpc.StatusCode.FAILED_PRECONDITION),
        (["hello", replace(make_batch(0), epoch="e\0")], grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["no-hello", "other-site", "other-agent", "other-site-batch", "hello-twice", "bad-epoch"],
)
async def test_a_stream_that_breaks_the_rules_is_closed(link: Link, frames: list[Any], code: grpc.StatusCode) -> None:
    async with link.stream() as stream:
        for frame in frames:
            await stream.send(Hello("pecos-1", link.agent_id, "t", "e", 0, 0) if frame == "hello" else frame)
        assert (await stream.refusal()).code() is code
    with link.database.unit_of_work(link.principal) as uow:
        assert queries.stored_counts(uow).items == 0


async def test_an_empty_frame_is_refused(link: Link) -> None:
    async with link.stream() as stream:
        await stream.call.write(pb.Up())
        assert (await stream.refusal()).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_garbage_is_quarantined_and_the_stream_goes_on(link: Link) -> None:
    async with link.stream() as stream:
        await stream.hello()
        await stream.send(replace(make_batch(0), payload=b"garbage"))
        await stream.send(make_batch(3))
        assert (await stream.until(lambda frame: isinstance(frame, Receipt))).first_seq == 3
        await stream.send(make_batch(3, make_readings(3, SystemClock().now())))
        await stream.send(make_batch(0))
        receipt = await stream.until(lambda frame: isinstance(frame, Receipt))
        assert (receipt.first_seq, receipt.through_seq) == (0, 5)
        with link.database.unit_of_work(link.principal) as uow:
            counts = queries.stored_counts(uow)
        assert (counts.items, counts.doubled, counts.quarantined) == (6, 0, 2)
        assert link.servers.counters.quarantined == 2


async def test_a_batch_that_this_agent_did_not_sign_is_quarantined_and_never_receipted(link: Link) -> None:
    other = BatchSigner(ec.generate_private_key(ec.SECP256R1()))
    async with link.stream() as stream:
        await stream.hello()
        await stream.send_as_it_is(make_batch(0))
        await stream.send_as_it_is(other.sign(make_batch(3)))
        await stream.send_as_it_is(replace(stream.signer.sign(make_batch(6)), payload=make_batch(9).payload))
        await stream.send(make_batch(0))
        receipt = await stream.until(lambda frame: isinstance(frame, Receipt))
        assert (receipt.first_seq, receipt.through_seq) == (0, 2)
    assert link.servers.counters.unsigned == 3
    with link.database.unit_of_work(link.principal) as uow:
        assert queries.stored_counts(uow).quarantined == 3
        row = uow.session.execute(text("SELECT signature, key_id FROM miner_telemetry")).one()
    assert row.key_id == stream.signer.key_id
    assert BatchKeys([stream.signer.public_der]).check(replace(make_batch(0), signature=bytes(row.signature)))


async def test_a_welcome_tells_what_is_stored_beyond_the_cursor(link: Link) -> None:
    async with link.stream() as stream:
        await stream.hello()
        for first_seq in (0, 6, 9, 15):
            await stream.send(make_batch(first_seq))
            await stream.until(lambda frame: isinstance(frame, Receipt))
    async with link.stream() as stream:
        welcome = await stream.hello()
    assert welcome.cursor.through_seq == 2
    assert welcome.cursor.beyond == ((6, 11), (15, 17))


async def test_a_certificate_of_another_authority_is_refused(link: Link, tmp_path: Path) -> None:
    other = CertificateAuthority(tmp_path / "keys", SystemClock())
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    from cloud.identity.model import AgentIdentity

    identity = AgentIdentity(link.principal.tenant_id, "pecos-1", link.agent_id)
    forged = other.issue(identity, csr.public_bytes(serialization.Encoding.PEM), 1).pem
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    async with link.stream(key_pem, forged) as stream:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.hello()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_no_certificate_is_refused(link: Link) -> None:
    credentials = grpc.ssl_channel_credentials(link.authority.pem)
    async with grpc.aio.secure_channel(f"localhost:{link.servers.link_port}", credentials) as channel:
        stream = Stream(
            link_pb2_grpc.SiteLinkStub(channel).Connect(), link.agent_id, BatchSigner.from_pem(link.key_pem)
        )
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.hello()


async def test_a_token_works_once_and_only_in_its_form(link: Link) -> None:
    token = link.token()
    await link.enrol(token)
    for bad in (token, "ballast1.x.y", "", token.replace("ballast1", "ballast2")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await link.enrol(bad)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "\n" not in str(caught.value.details())


async def test_a_bad_request_leaves_the_token_unused(link: Link) -> None:
    token = link.token()
    with pytest.raises(grpc.aio.AioRpcError):
        await link.enrol(token, csr=b"not a csr")
    await link.enrol(token)


async def test_a_stopping_cloud_ends_its_streams_itself(link: Link, caplog: pytest.LogCaptureFixture) -> None:
    async with link.stream() as stream:
        await stream.hello()
        stopping = asyncio.create_task(link.servers.stop(5))
        assert (await stream.refusal()).code() is grpc.StatusCode.UNAVAILABLE
        await stopping
    with link.database.unit_of_work(link.principal) as uow:
        assert not queries.link(uow, "pecos-1").up
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_newer_connection_takes_the_site_over(link: Link) -> None:
    async with link.stream() as first, link.stream() as second:
        await first.hello()
        await second.hello()
        await first.send(Heartbeat("n", 0, ClockTrust.SYNCED, 0, 0, 0))
        assert (await first.refusal()).code() is grpc.StatusCode.ABORTED
        with link.database.unit_of_work(link.principal) as uow:
            assert queries.link(uow, "pecos-1").up


async def test_kill_minus_9_of_postgresql_in_the_middle_loses_and_doubles_nothing(
    link: Link, cluster: EmbeddedPostgres
) -> None:
    batches: list[Batch] = [make_batch(first_seq) for first_seq in range(0, 900, 3)]
    async with link.stream() as stream:
        await stream.hello()

        async def send() -> None:
            for place, batch in enumerate(batches):
                if place in (60, 160):
                    kill_and_restart(cluster)
                await stream.send(batch)

        sending = asyncio.create_task(send())
        last = await stream.until(lambda frame: isinstance(frame, Receipt) and frame.through_seq == 899)
        await sending
        assert last.through_seq == 899

    def counted() -> bool:
        with link.database.unit_of_work(link.principal) as uow:
            counts = queries.stored_counts(uow)
        return (counts.items, counts.missing, counts.doubled) == (900, 0, 0)

    await eventually(counted)


def kill_and_restart(cluster: EmbeddedPostgres) -> None:
    assert cluster.pid is not None
    os.kill(cluster.pid, signal.SIGKILL)
    while cluster.alive():
        time.sleep(0.005)
    cluster.start()
