"""One suite for every transport: grpc.aio and a real mosquitto over mutual TLS, and the fake the forwarder is tested with."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.errors import AccessDenied, AgentError, Garbled, TimedOut, Transient, Unreachable
from agent.uplink import Tls, Uplink
from sitelink import codec
from sitelink.signing import PrivateKey
from sitelink.types import Batch, BatchBody, BatchKind, Domain, Envelope, MinerState, Reading, Receipt, Welcome
from tests.contract.ends import HELLO, SITE, Ends, agent_tls, ends_of, grpc_uplink, mqtt_uplink
from tests.contract.pki import Authority

pytestmark = pytest.mark.agent

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
REAL = ("grpc", "mqtt")


def batch(first_seq: int, payload: bytes | None = None) -> Batch:
    body = BatchBody(readings=(Reading("m", NOON, MinerState.IDLE),))
    return Batch(SITE, "epoch", first_seq, 1, BatchKind.TELEMETRY, NOON, payload or codec.pack(body))


def uplink_to(kind: str, port: int, tls: Tls, name: str | None = None, deadline_s: float = 3.0) -> Uplink:
    """A client of `kind` whose cloud nobody has set up."""
    named = {} if name is None else {"name": name}
    if kind == "grpc":
        return grpc_uplink(port, tls, deadline_s=deadline_s, **named)
    return mqtt_uplink(port, tls, deadline_s=deadline_s, key=PrivateKey.generate(), **named)


async def converse(uplink: Uplink) -> Welcome:
    await uplink.connect()
    await uplink.send(HELLO)
    welcome = await uplink.receive()
    assert isinstance(welcome, Welcome)
    return welcome


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(params=[*REAL, "fake"])
async def ends(request: pytest.FixtureRequest, authority: Authority) -> AsyncIterator[Ends]:
    async with ends_of(request.param, authority) as made:
        yield made


@pytest.fixture(params=REAL)
async def real(request: pytest.FixtureRequest, authority: Authority) -> AsyncIterator[Ends]:
    async with ends_of(request.param, authority) as made:
        yield made


async def test_hello_is_welcomed(ends: Ends) -> None:
    welcome = await converse(ends.uplink)
    assert welcome.cursor.through_seq == -1
    assert ends.cloud.hellos == [HELLO]


async def test_a_batch_arrives_whole_and_is_receipted(ends: Ends) -> None:
    await converse(ends.uplink)
    await ends.uplink.send(batch(0))
    assert await ends.uplink.receive() == Receipt(SITE, "epoch", 0, 0, 0)
    assert ends.cloud.arrivals == [batch(0)]


async def test_many_senders_do_not_disturb_each_other(ends: Ends) -> None:
    await converse(ends.uplink)
    async with asyncio.TaskGroup() as tasks:
        for place in range(50):
            tasks.create_task(ends.uplink.send(batch(place)))
    receipts = [await ends.uplink.receive() for _ in range(50)]
    assert {r.first_seq for r in receipts if isinstance(r, Receipt)} == set(range(50))


async def test_a_closed_uplink_can_connect_again(ends: Ends) -> None:
    for _ in range(3):
        await converse(ends.uplink)
        await ends.uplink.close()
        await ends.uplink.close()
    assert len(ends.cloud.hellos) == 3


async def test_nothing_can_be_sent_while_closed(ends: Ends) -> None:
    with pytest.raises(Transient):
        await ends.uplink.send(HELLO)


async def test_big_frames_pass_either_way(real: Ends) -> None:
    await converse(real.uplink)
    big = batch(0, bytes(3_000_000))
    await real.uplink.send(big)
    assert await real.uplink.receive() == Receipt(SITE, "epoch", 0, 0, 0)
    assert real.cloud.arrivals == [big]
    plan = Envelope(Domain.PLAN, "key", bytes(3_000_000), b"s")
    real.server.pushed.put_nowait(plan)
    assert await real.uplink.receive() == plan


async def test_what_the_cloud_says_twice_comes_twice_or_once_but_whole(real: Ends) -> None:
    real.server.doubled = True
    await converse(real.uplink)
    await real.uplink.send(batch(0))
    seen = [await real.uplink.receive() for _ in range(2)]
    assert Receipt(SITE, "epoch", 0, 0, 0) in seen


async def test_a_slow_reader_misses_nothing_that_fits_and_blocks_nobody(real: Ends) -> None:
    await converse(real.uplink)
    orders = [Envelope(Domain.COMMAND, "key", str(number).encode(), b"s") for number in range(300)]
    for order in orders:
        real.server.pushed.put_nowait(order)
    async with asyncio.timeout(20):
        await real.uplink.send(batch(0))  # sending does not wait for what lies unread
        while not (real.server.pushed.empty() and real.cloud.arrivals):
            await asyncio.sleep(0.01)
        came = []
        while len(came) < len(orders):
            frame = await real.uplink.receive()
            came += [frame] if isinstance(frame, Envelope) else []
    assert came == orders


@pytest.mark.parametrize("kind", REAL)
async def test_nobody_listening_is_unreachable(kind: str, authority: Authority) -> None:
    uplink = uplink_to(kind, 9, agent_tls(authority))
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        await uplink.connect()
    await uplink.close()


async def test_a_server_of_another_authority_is_not_spoken_to(real: Ends, authority: Authority) -> None:
    port = real.far.port if real.broker is None else real.broker.port
    other = Authority("somebody else")
    tls = replace(agent_tls(authority), ca_pem=other.pem)
    uplink = uplink_to("grpc" if real.broker is None else "mqtt", port, tls)
    with pytest.raises(Transient):
        await uplink.connect()
    assert real.cloud.hellos == []
    await uplink.close()


async def test_a_server_by_another_name_is_not_spoken_to(real: Ends, authority: Authority) -> None:
    port = real.far.port if real.broker is None else real.broker.port
    uplink = uplink_to("grpc" if real.broker is None else "mqtt", port, agent_tls(authority), name="other-cloud")
    with pytest.raises(Transient):
        await uplink.connect()
    await uplink.close()


async def test_an_agent_of_another_authority_is_not_listened_to(real: Ends, authority: Authority) -> None:
    port = real.far.port if real.broker is None else real.broker.port
    tls = agent_tls(authority, Authority("somebody else"))
    uplink = uplink_to("grpc" if real.broker is None else "mqtt", port, tls)
    with pytest.raises(AgentError):
        await converse(uplink)
    assert real.cloud.hellos == []
    await uplink.close()


async def test_an_agent_the_cloud_does_not_know_is_denied(real: Ends) -> None:
    real.server.refuse = "PERMISSION_DENIED"
    with pytest.raises(AccessDenied, match="no such agent"):
        await converse(real.uplink)


async def test_a_cloud_that_cannot_serve_now_is_a_transient_failure(real: Ends) -> None:
    real.server.refuse = "UNAVAILABLE"
    with pytest.raises(Transient, match="no such agent"):
        await converse(real.uplink)


async def test_a_stream_closed_by_the_cloud_is_a_transient_failure(real: Ends) -> None:
    real.server.close_after_hello = True
    await converse(real.uplink)
    with pytest.raises(Transient):
        await real.uplink.receive()
    with pytest.raises(Transient):
        await real.uplink.receive()


async def test_a_frame_that_cannot_be_read_leaves_the_stream_standing(real: Ends) -> None:
    real.server.garbage = True
    await real.uplink.connect()
    await real.uplink.send(HELLO)
    for _ in range(2):
        with pytest.raises(Garbled):
            await real.uplink.receive()
    assert isinstance(await real.uplink.receive(), Welcome)


@pytest.mark.parametrize("kind", REAL)
async def test_a_listener_that_says_nothing_is_given_up(kind: str, authority: Authority) -> None:
    held = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    listener = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    uplink = uplink_to(kind, port, agent_tls(authority), deadline_s=0.2)
    with pytest.raises(TimedOut):
        await uplink.connect()
    await uplink.close()
    for writer in held:
        writer.close()
    listener.close()


async def test_a_connection_called_off_leaves_nothing_behind(real: Ends) -> None:
    for _ in range(20):
        connecting = asyncio.create_task(real.uplink.connect())
        await asyncio.sleep(0.005)
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        await real.uplink.close()
    await converse(real.uplink)


def test_keys_do_not_show_in_logs(authority: Authority) -> None:
    assert "PRIVATE" not in repr(agent_tls(authority))
