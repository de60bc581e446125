"""The link through an MQTT 3.1.1 broker, which carries and is trusted with nothing else.

Invariants:

* Every frame is signed and belongs to this connection; what the broker made up, changed or kept is not taken.
* The broker keeps nothing for us: sessions are clean, and only the link's state is retained. That it has a frame
  (PUBACK) is worth no more than that a socket took it.
* The retained state says ``up`` only while ``show`` says so, and until when; the last will says ``down``.
* What waits here unread is bounded; a reader that falls further behind ends the connection, and is told all again.

    Up --seal--> publish ballast/v1/TENANT/SITE/AGENT/up      .../down --open--> waiting --> receive
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import ssl
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from google.protobuf.message import DecodeError

from agent.errors import AccessDenied, AgentError, BadInput, Garbled, TimedOut, Transient, Unreachable
from agent.settings import Endpoint, Proxy
from agent.uplink.broker import Client
from agent.uplink.dial import client_context, dial
from agent.uplink.port import Tls
from sitelink import codec
from sitelink.brokered import HALF_BYTES, MAX_MESSAGE_BYTES, QOS, AgentKey, Topics, Window, open_down
from sitelink.signing import BadSignature, KeyRing
from sitelink.types import Brokered, Closed, DownFrame, Opened, Opening, UpFrame
from sitelink.v1 import link_pb2 as pb

_LOG: Final = logging.getLogger(__name__)
_WAITING_FRAMES: Final = 1024
_WAITING_BYTES: Final = 32 * 1024 * 1024
_SHORTEST_KEEPALIVE_S: Final = 10
_FAREWELL_S: Final = 1.0
_HEARTBEATS: Final = 3
_REFUSED: Final = 128
_DENIED: Final = {"PERMISSION_DENIED", "UNAUTHENTICATED"}


class MqttUplink:
    """``Uplink`` through a broker."""

    def __init__(
        self,
        endpoint: Endpoint,
        tls: Tls,
        topics: Topics,
        cloud_keys: KeyRing,
        ids: Callable[[], str],
        now: Callable[[], datetime],
        *,
        server_name: str,
        deadline_s: float,
        heartbeat_s: float,
        proxy: Proxy | None = None,
        more_ca_pem: str = "",
    ) -> None:
        """``cloud_keys`` sign what the cloud says; ``deadline_s`` bounds connecting and each send.

        Raises:
            BadInput: the certificate or key is broken.
        """
        self._endpoint = endpoint
        self._topics = topics
        self._cloud_keys = cloud_keys
        self._ids = ids
        self._now = now
        self._server_name = server_name
        self._deadline_s = deadline_s
        self._heartbeat_s = heartbeat_s
        self._proxy = proxy
        self._certificate_pem = tls.certificate_pem
        try:
            self._key = AgentKey(tls.key_pem)
            self._context = client_context(tls, more_ca_pem)
        except (ValueError, ssl.SSLError) as error:
            raise BadInput(f"the agent's certificate, its key or [link] ca_file is broken: {error}") from None
        self._client: Client | None = None
        self._pump: asyncio.Task[None] | None = None
        self._forget()

    def _forget(self) -> None:
        self._connection = b""
        self._number = 0
        self._window = Window()
        self._opened: asyncio.Future[None] | None = None
        self._waiting: asyncio.Queue[tuple[DownFrame | AgentError, int]] = asyncio.Queue()
        self._waiting_bytes = 0
        self._ended: AgentError | None = None

    async def connect(self) -> None:
        """See ``Uplink.connect``. It returns once the cloud has answered through the broker."""
        await self.close()
        said = "no connection"
        try:
            async with asyncio.timeout(self._deadline_s):
                client = await self._reach()
                said = "the broker is there, but no cloud answers through it"
                await self._open(client)
        except TimeoutError:
            await self.close()
            raise TimedOut(f"{self._endpoint}: {said} within {self._deadline_s:g} s") from None
        except aiomqtt.MqttError as error:
            await self.close()
            raise self._translated(error) from None
        except BaseException:
            await self.close()
            raise

    async def send(self, frame: UpFrame) -> None:
        """See ``Uplink.send``."""
        client = self._open_client()
        await self._publish(client, codec.encode_up(frame).SerializeToString())

    async def receive(self) -> DownFrame:
        """See ``Uplink.receive``."""
        self._open_client()
        if self._ended is not None and self._waiting.empty():
            raise self._ended
        item, size = await self._waiting.get()
        self._waiting_bytes -= size
        if isinstance(item, AgentError):
            raise item
        return item

    async def show(self, up: bool) -> None:
        """See ``Uplink.show``."""
        client = self._client
        if client is None or not self._known_to_cloud:
            return
        try:
            async with asyncio.timeout(self._deadline_s):
                await client.publish(self._topics.state, self._state(up), QOS, retain=True)
        except (TimeoutError, aiomqtt.MqttError) as error:
            _LOG.debug("link: its state could not be told: %s", error)

    async def close(self) -> None:
        """See ``Uplink.close``."""
        client, self._client = self._client, None
        pump, self._pump = self._pump, None
        if client is not None and self._ended is None and self._known_to_cloud:
            with contextlib.suppress(TimeoutError, aiomqtt.MqttError):
                async with asyncio.timeout(_FAREWELL_S):
                    await client.publish(self._topics.state, self._state(False), QOS, retain=True)
                    await client.__aexit__(None, None, None)
        if client is not None:
            client.drop()
        if pump is not None:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
        self._forget()

    async def _reach(self) -> Client:
        """Connect to the broker and listen."""
        connection = await dial(self._endpoint, self._proxy, self._context, self._server_name, self._deadline_s)
        self._connection = hashlib.sha256(self._ids().encode()).digest()[:HALF_BYTES]
        self._opened = asyncio.get_running_loop().create_future()
        will = aiomqtt.Will(self._topics.state, self._state(False), QOS, retain=True)
        client = self._client = Client(
            connection, self._topics.agent_id, will, max(_SHORTEST_KEEPALIVE_S, int(2 * self._heartbeat_s))
        )
        await client.__aenter__()
        self._pump = asyncio.create_task(self._listen(client))
        granted = await client.subscribe(self._topics.down, QOS)
        if _REFUSED in granted:
            raise AccessDenied(f"{self._endpoint}: the broker does not let this agent listen on {self._topics.down}")
        return client

    async def _open(self, client: Client) -> None:
        """Make ourselves known to the cloud, and wait until it knows us."""
        opened = self._opened
        assert opened is not None
        silence_s = _HEARTBEATS * self._heartbeat_s
        await self._publish(client, Opening(self._certificate_pem, silence_s))
        await opened

    async def _publish(self, client: Client, content: Opening | bytes) -> None:
        number, self._number = self._number, self._number + 1
        said = codec.encode_brokered(Brokered(self._connection, number, content))
        payload = codec.encode_sealed(self._key.seal(self._topics.up, said))
        try:
            async with asyncio.timeout(self._deadline_s):
                await client.publish(self._topics.up, payload, QOS)
        except TimeoutError:
            raise TimedOut(f"{self._endpoint}: takes nothing more for {self._deadline_s:g} s") from None
        except aiomqtt.MqttError as error:
            raise self._translated(error) from None

    async def _listen(self, client: Client) -> None:
        """Take what comes until the connection ends."""
        try:
            async for message in client.messages:
                if message.retain or not isinstance(message.payload, bytes):
                    continue  # kept from some other time
                self._take(message.payload)
        except aiomqtt.MqttError as error:
            self._end(self._translated(error))

    def _take(self, raw: bytes) -> None:
        try:
            if len(raw) > MAX_MESSAGE_BYTES:
                raise codec.MalformedFrame(f"a message of {len(raw)} bytes")
            sealed = codec.decode_sealed(raw)
            message = codec.decode_brokered(open_down(self._cloud_keys, self._topics.down, sealed))
        except (codec.MalformedFrame, BadSignature) as error:
            self._offer(Garbled(f"{self._endpoint}: {error}"), 0)
            return
        if message.connection[:HALF_BYTES] != self._connection[:HALF_BYTES]:
            return  # of an earlier connection
        match message.content:
            case Closed(code, reason):
                self._end(_closed(self._endpoint, code, reason))
            case Opened():
                self._known(message.connection)
            case bytes() as frame if message.connection == self._connection and self._window.take(message.number):
                self._take_frame(frame)
            case _:
                return

    def _known(self, connection: bytes) -> None:
        if self._opened is not None and not self._opened.done() and len(connection) == 2 * HALF_BYTES:
            self._connection = connection
            self._opened.set_result(None)

    def _take_frame(self, frame: bytes) -> None:
        try:
            self._offer(codec.decode_down(pb.Down.FromString(frame)), len(frame))
        except (codec.MalformedFrame, DecodeError) as error:
            self._offer(Garbled(f"{self._endpoint}: {error}"), 0)

    def _offer(self, item: DownFrame | AgentError, size: int) -> None:
        if self._ended is not None:
            return
        self._waiting_bytes += size
        if self._waiting.qsize() >= _WAITING_FRAMES or self._waiting_bytes > _WAITING_BYTES:
            self._end(Transient(f"{self._endpoint}: the cloud's frames came faster than they were taken"))
            return
        self._waiting.put_nowait((item, size))

    def _end(self, error: AgentError) -> None:
        if self._ended is not None:
            return
        self._ended = error
        self._waiting.put_nowait((error, 0))
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error)

    @property
    def _known_to_cloud(self) -> bool:
        return len(self._connection) == 2 * HALF_BYTES

    def _state(self, up: bool) -> bytes:
        until = self._now() + timedelta(seconds=_HEARTBEATS * self._heartbeat_s)
        said = {
            "link": "up" if up else "down",
            "connection": self._connection[:HALF_BYTES].hex(),
            **({"until": until.isoformat(timespec="seconds")} if up else {}),
        }
        return json.dumps(said).encode("ascii")

    def _open_client(self) -> Client:
        if self._client is None:
            raise Unreachable(f"{self._endpoint}: not connected")
        return self._client

    def _translated(self, error: aiomqtt.MqttError) -> AgentError:
        if isinstance(error, MqttConnectError):
            return AccessDenied(f"{self._endpoint}: the broker does not accept this agent: {error}")
        said = str(error.__cause__ or error).splitlines()[0]
        return Unreachable(f"{self._endpoint}: {said}")


def _closed(endpoint: Endpoint, code: str, reason: str) -> AgentError:
    said = (reason or code).splitlines()[0]
    if code in _DENIED:
        return AccessDenied(f"{endpoint}: the cloud does not accept this agent: {said}; enrol again if it was removed")
    return Unreachable(f"{endpoint}: the cloud closed the conversation: {said}")
