"""One suite for the real uplink over grpc.aio and mutual TLS, and for the fake that the forwarder is tested with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
import grpc.aio
import pytest

from agent.errors import AccessDenied, Garbled, TimedOut, Transient, Unreachable
from agent.settings import Endpoint
from agent.uplink import Tls, Uplink
from agent.uplink.grpc_link import CONNECT_METHOD, GrpcUplink
from sitelink import codec
from sitelink.types import Batch, BatchBody, BatchKind, Hello, MinerState, Reading, Receipt, Welcome
from sitelink.v1 import link_pb2 as pb
from tests.contract.pki import NAME, Authority
from tests.unit.agent.uplink_fakes import FakeCloud, FakeUplink

pytestmark = pytest.mark.agent

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SITE = "pecos-1"
HELLO = Hello(SITE, "agent-1", "0.1.0", "epoch", 0, 0, ("key",))


def batch(first_seq: int) -> Batch:
    body = BatchBody(readings=(Reading("m", NOON, MinerState.IDLE),))
    return Batch(SITE, "epoch", first_seq, 1, BatchKind.TELEMETRY, NOON, codec.pack(body))


class Server:
    """The cloud's end: answers like FakeCloud, or misbehaves as told."""

    def __init__(self, cloud: FakeCloud) -> None:
        self.cloud = cloud
        self.refuse: grpc.StatusCode | None = None
        self.garbage = False
        self.close_after_hello = False
        self.silent = False

    async def connect(self, stream: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        if self.refuse is not None:
            await context.abort(self.refuse, "no such agent")
        async for raw in stream:
            frame = codec.decode_up(pb.Up.FromString(raw))
            answer = self.cloud.answer(frame)
            if self.garbage:
                yield b"\xff\xff"
                yield pb.Down().SerializeToString()
            if answer is not None and not self.silent:
                yield codec.encode_down(answer).SerializeToString()
            if self.close_after_hello:
                return


@dataclass
class Ends:
    uplink: Uplink
    cloud: FakeCloud


@asynccontextmanager
async def grpc_server(server: Server, authority: Authority) -> AsyncIterator[int]:
    leaf = authority.leaf()
    running = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(server.connect)
    _, service, method = CONNECT_METHOD.split("/")
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    credentials = grpc.ssl_server_credentials(
        ((leaf.key, leaf.certificate),), root_certificates=authority.pem, require_client_auth=True
    )
    port = running.add_secure_port("127.0.0.1:0", credentials)
    await running.start()
    try:
        yield port
    finally:
        await running.stop(grace=None)


def grpc_uplink(port: int, authority: Authority, client: Authority | None = None, name: str = NAME) -> GrpcUplink:
    leaf = (client or authority).leaf("agent-1")
    tls = Tls(authority.pem, leaf.certificate, leaf.key)
    return GrpcUplink(Endpoint("127.0.0.1", port), tls, name, deadline_s=3.0, keepalive_s=10.0)


async def converse(uplink: Uplink) -> None:
    await uplink.connect()
    await uplink.send(HELLO)
    await uplink.receive()


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture(params=["grpc", "fake"])
async def ends(request: pytest.FixtureRequest, authority: Authority) -> AsyncIterator[Ends]:
    cloud = FakeCloud(SITE)
    if request.param == "fake":
        yield Ends(FakeUplink(cloud), cloud)
        return
    async with grpc_server(Server(cloud), authority) as port:
        uplink = grpc_uplink(port, authority)
        yield Ends(uplink, cloud)
        await uplink.close()


async def test_hello_is_welcomed(ends: Ends) -> None:
    await ends.uplink.connect()
    await ends.uplink.send(HELLO)
    welcome = await ends.uplink.receive()
    assert isinstance(welcome, Welcome)
    assert welcome.cursor.through_seq == -1
    assert ends.cloud.hellos == [HELLO]


async def test_a_batch_arrives_whole_and_is_receipted(ends: Ends) -> None:
    await ends.uplink.connect()
    await ends.uplink.send(HELLO)
    await ends.uplink.receive()
    await ends.uplink.send(batch(0))
    assert await ends.uplink.receive() == Receipt(SITE, "epoch", 0, 0, 0)
    assert ends.cloud.arrivals == [batch(0)]


async def test_many_senders_do_not_disturb_each_other(ends: Ends) -> None:
    await ends.uplink.connect()
    await ends.uplink.send(HELLO)
    await ends.uplink.receive()
    async with asyncio.TaskGroup() as tasks:
        for place in range(50):
            tasks.create_task(ends.uplink.send(batch(place)))
    receipts = [await ends.uplink.receive() for _ in range(50)]
    assert {r.first_seq for r in receipts if isinstance(r, Receipt)} == set(range(50))


async def test_a_closed_uplink_can_connect_again(ends: Ends) -> None:
    for _ in range(3):
        await ends.uplink.connect()
        await ends.uplink.send(HELLO)
        assert isinstance(await ends.uplink.receive(), Welcome)
        await ends.uplink.close()
        await ends.uplink.close()
    assert len(ends.cloud.hellos) == 3


async def test_nothing_can_be_sent_while_closed(ends: Ends) -> None:
    with pytest.raises(Transient):
        await ends.uplink.send(HELLO)


async def test_nobody_listening_is_unreachable(authority: Authority) -> None:
    uplink = grpc_uplink(9, authority)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        await uplink.connect()


async def test_a_server_of_another_authority_is_not_spoken_to(authority: Authority) -> None:
    server = Server(FakeCloud(SITE))
    async with grpc_server(server, authority) as port:
        other = Authority("somebody else")
        with pytest.raises(Transient):
            await grpc_uplink(port, other).connect()
    assert server.cloud.hellos == []


async def test_a_server_by_another_name_is_not_spoken_to(authority: Authority) -> None:
    async with grpc_server(Server(FakeCloud(SITE)), authority) as port:
        with pytest.raises(Transient):
            await grpc_uplink(port, authority, name="other-cloud").connect()


async def test_an_agent_the_cloud_does_not_know_is_denied(authority: Authority) -> None:
    server = Server(FakeCloud(SITE))
    server.refuse = grpc.StatusCode.PERMISSION_DENIED
    async with grpc_server(server, authority) as port:
        uplink = grpc_uplink(port, authority)
        with pytest.raises(AccessDenied, match="no such agent"):
            await converse(uplink)
        await uplink.close()


async def test_a_stream_closed_by_the_cloud_is_a_transient_failure(authority: Authority) -> None:
    server = Server(FakeCloud(SITE))
    server.close_after_hello = True
    async with grpc_server(server, authority) as port:
        uplink = grpc_uplink(port, authority)
        await uplink.connect()
        await uplink.send(HELLO)
        assert isinstance(await uplink.receive(), Welcome)
        with pytest.raises(Transient):
            await uplink.receive()
        with pytest.raises(Transient):
            await uplink.send(batch(0))
        await uplink.close()


async def test_a_frame_that_cannot_be_read_leaves_the_stream_standing(authority: Authority) -> None:
    server = Server(FakeCloud(SITE))
    server.garbage = True
    async with grpc_server(server, authority) as port:
        uplink = grpc_uplink(port, authority)
        await uplink.connect()
        await uplink.send(HELLO)
        for _ in range(2):
            with pytest.raises(Garbled):
                await uplink.receive()
        assert isinstance(await uplink.receive(), Welcome)
        await uplink.close()


async def test_a_listener_that_says_nothing_is_given_up(authority: Authority) -> None:
    held = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    listener = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    leaf = authority.leaf("agent-1")
    tls = Tls(authority.pem, leaf.certificate, leaf.key)
    uplink = GrpcUplink(Endpoint("127.0.0.1", port), tls, NAME, deadline_s=0.2, keepalive_s=10.0)
    with pytest.raises(TimedOut):
        await uplink.connect()
    for writer in held:
        writer.close()
    listener.close()


def test_keys_do_not_show_in_logs(authority: Authority) -> None:
    leaf = authority.leaf()
    assert "PRIVATE" not in repr(Tls(authority.pem, leaf.certificate, leaf.key))
