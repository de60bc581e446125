"""The cloud's end of every transport, for the contract suite: answers like FakeCloud, or misbehaves as told."""

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import aiomqtt
import grpc
import grpc.aio

from agent.settings import Endpoint, Proxy
from agent.uplink import Tls, Uplink
from agent.uplink.grpc_link import CONNECT_METHOD, GrpcUplink
from agent.uplink.mqtt_link import MqttUplink
from sitelink import codec
from sitelink.brokered import ANY, HALF_BYTES, QOS, AgentSeal, Topics, Window, read_topic, seal_down
from sitelink.clock import SystemClock
from sitelink.signing import KeyRing, PrivateKey
from sitelink.types import Brokered, Closed, DownFrame, Hello, Opened, Opening
from sitelink.v1 import link_pb2 as pb
from tests.contract.pki import NAME, Authority
from tests.mosquitto import BROKER_NAME, CLOUD_NAME, Mosquitto, mosquitto
from tests.unit.agent.uplink_fakes import FakeCloud, FakeUplink

TENANT, SITE, AGENT = "8d1c7a1e-6f0e-4f55-9d8c-1f1f5f0b2b11", "pecos-1", "pecos-1-4f1d2c3b"
TOPICS = Topics(TENANT, SITE, AGENT)
HELLO = Hello(SITE, AGENT, "0.1.0", "epoch", 0, 0, ("key",))


@dataclass
class Server:
    """How the cloud behaves, whatever carries its frames."""

    cloud: FakeCloud
    refuse: str | None = None
    garbage: bool = False
    close_after_hello: bool = False
    silent: bool = False
    doubled: bool = False
    pushed: asyncio.Queue[DownFrame] = field(default_factory=asyncio.Queue)

    def answers(self, raw: bytes) -> list[bytes]:
        """What goes down after the frame ``raw`` came up."""
        answer = self.cloud.answer(codec.decode_up(pb.Up.FromString(raw)))
        sent = [b"\xff\xff", pb.Down().SerializeToString()] if self.garbage else []
        if answer is not None and not self.silent:
            sent += [codec.encode_down(answer).SerializeToString()] * (1 + self.doubled)
        return sent


class GrpcCloud:
    """The cloud's end over a real grpc.aio server."""

    def __init__(self, server: Server, authority: Authority, port: int = 0) -> None:
        self.server = server
        self.authority = authority
        self.port = port
        self._running: grpc.aio.Server | None = None

    async def start(self) -> None:
        leaf = self.authority.leaf()
        running = self._running = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        handler = grpc.stream_stream_rpc_method_handler(self._connect)
        _, service, method = CONNECT_METHOD.split("/")
        running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        credentials = grpc.ssl_server_credentials(
            ((leaf.key, leaf.certificate),), root_certificates=self.authority.pem, require_client_auth=True
        )
        self.port = running.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        await running.start()

    async def stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            await running.stop(grace=None)

    async def _connect(self, stream: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        if self.server.refuse is not None:
            await context.abort(grpc.StatusCode[self.server.refuse], "no such agent")
        came: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def read() -> None:
            async for raw in stream:
                for answer in self.server.answers(raw):
                    came.put_nowait(answer)
                if self.server.close_after_hello:
                    break
            came.put_nowait(None)

        async def push() -> None:
            while True:
                came.put_nowait(codec.encode_down(await self.server.pushed.get()).SerializeToString())

        tasks = [asyncio.create_task(read()), asyncio.create_task(push())]
        try:
            while (raw := await came.get()) is not None:
                yield raw
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class MqttCloud:
    """The cloud's end through a real mosquitto."""

    def __init__(self, server: Server, authority: Authority, broker: Mosquitto, key: PrivateKey) -> None:
        self.server = server
        self.authority = authority
        self.broker = broker
        self.key = key
        self.seen: list[tuple[str, bytes]] = []
        self._seals: dict[str, AgentSeal] = {}
        self._windows: dict[bytes, Window] = {}
        self._current: tuple[Topics, bytes] | None = None
        self._number = 0
        self._task: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()

    async def start(self) -> None:
        self._listening = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        async with asyncio.timeout(10):
            await self._listening.wait()

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            with suppress(aiomqtt.MqttError):
                await self._serve()
            await asyncio.sleep(0.05)

    async def _serve(self) -> None:
        context = tls_context(self.authority, CLOUD_NAME)
        context.check_hostname = False
        async with aiomqtt.Client(
            "127.0.0.1", self.broker.port, tls_context=context, identifier=CLOUD_NAME, timeout=inf
        ) as client:
            client.pending_calls_threshold = 1000
            for topic in (Topics(ANY, ANY, ANY).up, Topics(ANY, ANY, ANY).state):
                await client.subscribe(topic, QOS)
            self._listening.set()
            pushing = asyncio.create_task(self._push(client))
            try:
                async for message in client.messages:
                    await self._take(client, str(message.topic), message.payload)
            finally:
                pushing.cancel()
                await asyncio.gather(pushing, return_exceptions=True)

    async def _push(self, client: aiomqtt.Client) -> None:
        while True:
            frame = await self.server.pushed.get()
            assert self._current is not None
            topics, connection = self._current
            await self._say(client, topics, connection, codec.encode_down(frame).SerializeToString())

    async def _take(self, client: aiomqtt.Client, topic: str, payload: bytes) -> None:
        self.seen.append((topic, payload))
        topics, kind = read_topic(topic)
        if kind != "up":
            return
        sealed = codec.decode_sealed(payload)
        message = codec.decode_brokered(sealed.content)
        if isinstance(message.content, Opening):
            self._seals[topics.agent_id] = AgentSeal(message.content.certificate_pem)
            self._seals[topics.agent_id].open(topic, sealed)
            if self.server.refuse is not None:
                await self._say(client, topics, message.connection, Closed(self.server.refuse, "no such agent"))
                return
            connection = message.connection + bytes(range(HALF_BYTES))
            self._windows[connection] = Window()
            self._current = (topics, connection)
            await self._say(client, topics, connection, Opened())
            return
        if message.connection not in self._windows:
            await self._say(client, topics, message.connection, Closed("UNAVAILABLE", "say Hello again"))
            return
        self._seals[topics.agent_id].open(topic, sealed)
        assert isinstance(message.content, bytes)
        if not self._windows[message.connection].take(message.number):
            return
        for answer in self.server.answers(message.content):
            await self._say(client, topics, message.connection, answer)
        if self.server.close_after_hello:
            del self._windows[message.connection]
            await self._say(client, topics, message.connection, Closed("UNAVAILABLE", "stopping"))

    async def _say(
        self, client: aiomqtt.Client, topics: Topics, connection: bytes, content: Opened | Closed | bytes
    ) -> None:
        self._number += 1
        said = codec.encode_brokered(Brokered(connection, self._number, content))
        await client.publish(topics.down, codec.encode_sealed(seal_down(self.key, topics.down, said)), QOS)


@dataclass
class Ends:
    """A transport's two ends."""

    uplink: Uplink
    server: Server
    far: GrpcCloud | MqttCloud | None = None
    broker: Mosquitto | None = None

    @property
    def cloud(self) -> FakeCloud:
        return self.server.cloud


def tls_context(authority: Authority, name: str) -> ssl.SSLContext:
    """A client's context with a certificate by ``name``."""
    leaf = authority.leaf(name)
    context = ssl.create_default_context(cadata=authority.pem.decode())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "leaf.pem"
        path.write_bytes(leaf.certificate + leaf.key)
        context.load_cert_chain(path)
    return context


def agent_tls(authority: Authority, client: Authority | None = None, name: str = AGENT) -> Tls:
    leaf = (client or authority).leaf(name)
    return Tls(authority.pem, leaf.certificate, leaf.key)


def grpc_uplink(
    port: int,
    tls: Tls,
    name: str = NAME,
    *,
    deadline_s: float = 3.0,
    proxy: Proxy | None = None,
    more_ca_pem: str = "",
) -> Uplink:
    return GrpcUplink(
        Endpoint("127.0.0.1", port),
        tls,
        name,
        deadline_s=deadline_s,
        keepalive_s=10.0,
        proxy=proxy,
        more_ca_pem=more_ca_pem,
    )


class Ids:
    """Names for connections, none twice in this process."""

    count = 0

    def __call__(self) -> str:
        Ids.count += 1
        return f"id-{Ids.count}"


def mqtt_uplink(
    port: int,
    tls: Tls,
    name: str = BROKER_NAME,
    *,
    deadline_s: float = 3.0,
    proxy: Proxy | None = None,
    key: PrivateKey | None = None,
    topics: Topics = TOPICS,
    more_ca_pem: str = "",
) -> MqttUplink:
    keys = KeyRing((key.public_bytes,) if key is not None else ())
    return MqttUplink(
        Endpoint("127.0.0.1", port),
        tls,
        topics,
        keys,
        Ids(),
        SystemClock().now,
        server_name=name,
        deadline_s=deadline_s,
        heartbeat_s=1.0,
        proxy=proxy,
        more_ca_pem=more_ca_pem,
    )


@asynccontextmanager
async def ends_of(kind: str, authority: Authority, more: str = "") -> AsyncIterator[Ends]:
    """Both ends of transport ``kind``, not yet connected."""
    server = Server(FakeCloud(SITE))
    if kind == "fake":
        yield Ends(FakeUplink(server.cloud), server)
    elif kind == "grpc":
        grpc_cloud = GrpcCloud(server, authority)
        await grpc_cloud.start()
        uplink = grpc_uplink(grpc_cloud.port, agent_tls(authority))
        yield Ends(uplink, server, grpc_cloud)
        await uplink.close()
        await grpc_cloud.stop()
    else:
        with mosquitto(authority, more) as broker:
            key = PrivateKey.generate()
            mqtt_cloud = MqttCloud(server, authority, broker, key)
            await mqtt_cloud.start()
            uplink = mqtt_uplink(broker.port, agent_tls(authority), key=key)
            yield Ends(uplink, server, mqtt_cloud, broker)
            await uplink.close()
            await mqtt_cloud.stop()
