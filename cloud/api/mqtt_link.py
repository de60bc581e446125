"""The site link through a broker: the same conversations as over gRPC, for agents that reach only a broker.

Invariants:

* One replica reads at a time, the one with the lease; only it connects. Should two overlap for a moment, the broker
  keeps the newest, each conversation belongs to the one that opened it, and an agent hears the other say only that it
  must open anew. What is stored stays stored once: safety does not rest on the lease.
* A replica that cannot reach the database keeps the conversations it has, answers heartbeats, and opens none.
* The broker's own acknowledgement settles nothing; receipts do, as on a stream.
* An agent is admitted exactly as over gRPC, by the certificate that it shows in its first message.

    broker --up--> take --> Session --> Conversation --> Voice --down--> broker
                     +----> Opening --> admit (threads) --> Opened
    lease --kept--> connected
"""

import asyncio
import logging
import secrets
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import aiomqtt
import grpc

from cloud.api.link_conversation import Conversation, LinkParts, StreamClosed
from cloud.api.mqtt_session import Admitted, Publish, Room, Session, Voice, is_farewell
from cloud.api.site_link import admit, code_of
from cloud.core.access import Principal, Role, system_principal
from cloud.core.errors import CloudError, Forbidden, LeaseLost, Transient
from cloud.identity.authority import CLOUD_NAME, CertificateAuthority
from cloud.identity.model import parse_agent_uri
from cloud.infra.broker import BrokerAddress, BrokerClient, broker_context
from cloud.infra.leases import Lease, Leases
from cloud.infra.outage import OutageLog
from sitelink.brokered import ANY, HALF_BYTES, MAX_MESSAGE_BYTES, QOS, AgentSeal, Topics, read_topic
from sitelink.codec import MalformedFrame, decode_brokered, decode_sealed
from sitelink.signing import BadSignature
from sitelink.types import Brokered, Closed, Opened, Opening, Sealed

_LOGGER: Final = logging.getLogger(__name__)
_LEASE: Final = "mqtt link"
_LEASE_S: Final = 10.0
_RENEW_EVERY_S: Final = 3.0
_CONNECT_S: Final = 15.0
_AGAIN_S: Final = 1.0
_OPENINGS: Final = 1024
_OPENERS: Final = 4
_ROOM_BYTES: Final = 256 * 1024 * 1024
_REPEAT_ORDERS_S: Final = 30.0
_REFUSED: Final = 128
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Knock:
    """A message that needs an answer but belongs to no conversation."""

    topics: Topics
    sealed: Sealed
    message: Brokered


class MqttLink:
    """The reader of a broker; ``run`` keeps it going until cancelled."""

    def __init__(self, parts: LinkParts, authority: CertificateAuthority, address: BrokerAddress) -> None:
        """Prepare to connect.

        Raises:
            BadInput: the broker's CA file cannot be read.
        """
        self._parts = parts
        self._authority = authority
        self._address = address
        client = authority.broker_client()
        self._context = broker_context(address, authority.pem, client.key_pem, client.chain_pem)
        self._holder = f"mqtt {uuid.uuid4().hex}"
        self._outage = OutageLog(_LOGGER, f"the broker {address.host}:{address.port}")
        self._sessions: dict[Topics, Session] = {}
        self._pending: dict[Topics, Session] = {}
        self._talks: set[asyncio.Task[None]] = set()
        self._knocks: asyncio.Queue[_Knock] = asyncio.Queue(_OPENINGS)
        self.room = Room(_ROOM_BYTES)
        self.forged = 0
        self.reading = asyncio.Event()
        """Set while this replica is the one that reads, and listens."""

    async def run(self) -> None:
        """Read whenever the lease is ours."""
        outage = OutageLog(_LOGGER, "the lease of the MQTT link")
        while True:
            try:
                leases, lease = await self._acquire()
                outage.recovered()
            except CloudError as error:
                outage.failed(error)
                lease = None
            if lease is None:
                await asyncio.sleep(_RENEW_EVERY_S)
                continue
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._keep(leases, lease))
                    tasks.create_task(self._read())
            except* LeaseLost as lost:
                _LOGGER.warning("MQTT link: %s; that replica reads on", lost.exceptions[0])
            finally:
                await asyncio.shield(self._release(leases, lease))

    async def stop(self, within_s: float) -> None:
        """Wait until the conversations, which the link's closing ends, have said so to their agents."""
        if self._talks:
            await asyncio.wait(self._talks, timeout=within_s)

    async def _acquire(self) -> tuple[Leases, Lease | None]:
        """Ask for the lease; it stands with the first tenant, whoever's agents speak."""

        def ask() -> tuple[Leases, Lease | None]:
            tenant_id = min(self._parts.database.tenant_ids())
            leases = Leases(self._parts.database, system_principal(tenant_id, _LEASE), self._holder)
            return leases, leases.acquire(_LEASE, _LEASE_S)

        return await self._in_thread(ask)

    async def _keep(self, leases: Leases, lease: Lease) -> None:
        outage = OutageLog(_LOGGER, "renewing the lease of the MQTT link")
        while True:
            await asyncio.sleep(_RENEW_EVERY_S)
            try:
                held = await self._in_thread(lambda: leases.renew(lease))
            except Transient as error:
                outage.failed(error)  # nobody can take it either, or, if the database lives, somebody opens all anew
                continue
            outage.recovered()
            if not held:
                raise LeaseLost(f"the lease (token {lease.token}) has gone to another replica")

    async def _release(self, leases: Leases, lease: Lease) -> None:
        try:
            await self._in_thread(lambda: leases.release(lease))
        except (CloudError, RuntimeError) as error:  # the second: the threads have ended
            _LOGGER.info("MQTT link: the lease is not given back and runs out by itself: %s", error)

    async def _read(self) -> None:
        """Stay connected to the broker."""
        while True:
            try:
                async with self._connected() as client:
                    await self._serve(client)
            except (aiomqtt.MqttError, OSError, TimeoutError) as error:
                self._outage.failed(str(error) or "no answer")
            await asyncio.sleep(_AGAIN_S)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[BrokerClient]:
        client = BrokerClient(self._address, self._context, CLOUD_NAME)
        try:
            async with asyncio.timeout(_CONNECT_S):
                await client.__aenter__()
                everyone = Topics(ANY, ANY, ANY)
                for topic in (everyone.up, everyone.state):
                    if _REFUSED in await client.subscribe(topic, QOS):
                        raise aiomqtt.MqttError(f"it does not let the cloud listen on {topic}; see its access rules")
            yield client
        finally:
            client.drop()

    async def _serve(self, client: BrokerClient) -> None:
        self._outage.recovered()
        _LOGGER.info("MQTT link: reading from %s:%d", self._address.host, self._address.port)
        try:
            async with asyncio.TaskGroup() as tasks:
                openers = [tasks.create_task(self._answer(client)) for _ in range(_OPENERS)]
                self.reading.set()
                try:
                    async for message in client.messages:
                        if not message.retain and isinstance(message.payload, bytes):
                            self._take(str(message.topic), message.payload, tasks)
                finally:
                    self.reading.clear()
                    for opener in openers:
                        opener.cancel()
                    for session in self._sessions.values():
                        session.end()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._sessions.clear()
            self._pending.clear()

    def _take(self, topic: str, payload: bytes, tasks: asyncio.TaskGroup) -> None:
        """Give a message to its session, or to whoever opens them; what is nobody's is counted and forgotten."""
        try:
            topics, kind = read_topic(topic)
            if kind == "state":
                self._look_at_state(topics, payload)
                return
            if len(payload) > MAX_MESSAGE_BYTES:
                raise MalformedFrame(f"a message of {len(payload)} bytes")
            sealed = decode_sealed(payload)
            message = decode_brokered(sealed.content)
            if len(message.connection) > 2 * HALF_BYTES:
                raise MalformedFrame("a connection's name is too long")
            session = self._session_of(topics, message, tasks)
            if session is not None:
                session.take(sealed, message)
            elif not self._knocks.full():
                self._knocks.put_nowait(_Knock(topics, sealed, message))
        except (MalformedFrame, BadSignature, ValueError) as error:
            self.forged += 1
            self._parts.counters.refused += 1
            _LOGGER.debug("MQTT link: a message on %s is ignored: %s", topic, error)

    def _session_of(self, topics: Topics, message: Brokered, tasks: asyncio.TaskGroup) -> Session | None:
        if isinstance(message.content, Opening):
            return None
        current = self._sessions.get(topics)
        if current is not None and current.connection == message.connection:
            return current
        opened = self._pending.get(topics)
        if opened is None or opened.connection != message.connection:
            return None
        return self._begin(topics, opened, tasks)

    def _begin(self, topics: Topics, session: Session, tasks: asyncio.TaskGroup) -> Session:
        """Make the opened connection the agent's current one; an earlier one ends."""
        del self._pending[topics]
        earlier = self._sessions.get(topics)
        if earlier is not None:
            earlier.end()
        self._sessions[topics] = session
        talk = tasks.create_task(self._converse(topics, session))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)
        return session

    def _look_at_state(self, topics: Topics, payload: bytes) -> None:
        session = self._sessions.get(topics)
        if session is not None and is_farewell(payload, session.connection):
            session.end()

    async def _converse(self, topics: Topics, session: Session) -> None:
        admitted = session.admitted
        conversation = Conversation(
            self._parts,
            admitted.identity,
            admitted.shown.sha256,
            admitted.principal,
            uuid.uuid4().hex,
            session.write,
            repeat_orders_s=_REPEAT_ORDERS_S,
        )
        closed = Closed(grpc.StatusCode.UNAVAILABLE.name, "the conversation has ended; connect again")
        try:
            await conversation.run(session.frames())
        except StreamClosed as error:
            closed = Closed(error.code.name, str(error))
            if error.code is not grpc.StatusCode.UNAVAILABLE:
                _LOGGER.warning("MQTT link: a conversation was closed: %s", error)
        except CloudError as error:
            self._parts.counters.refused += 1
            closed = Closed(code_of(error).name, str(error))
        except Exception:  # a task supervisor: a defect ends one conversation, not all
            _LOGGER.exception("MQTT link: the conversation of agent %s has a defect", admitted.identity.agent_id)
        finally:
            if self._sessions.get(topics) is session:
                del self._sessions[topics]
        await self._tell(session.voice, closed)

    async def _tell(self, voice: Voice, said: Opened | Closed) -> None:
        try:
            await voice.say(said)
        except StreamClosed as error:
            _LOGGER.debug("MQTT link: %s", error)

    async def _answer(self, client: BrokerClient) -> None:
        """Open connections, and tell whoever speaks on none that it must open one."""

        async def publish(topic: str, payload: bytes) -> None:
            await client.publish(topic, payload, QOS)

        while True:
            knock = await self._knocks.get()
            await self._open(knock, publish)

    async def _open(self, knock: _Knock, publish: Publish) -> None:
        topics, half, opening = knock.topics, knock.message.connection, knock.message.content
        if not isinstance(opening, Opening):
            answer = Closed(grpc.StatusCode.UNAVAILABLE.name, "this connection is not known here; connect again")
            await self._tell(Voice(self._parts.time_key, publish, topics, half), answer)
            return
        try:
            admitted = await self._admitted(knock, opening)
        except CloudError as error:
            self._parts.counters.refused += 1
            answer = Closed(code_of(error).name, str(error))
            await self._tell(Voice(self._parts.time_key, publish, topics, half), answer)
            return
        connection = half + secrets.token_bytes(HALF_BYTES)
        voice = Voice(self._parts.time_key, publish, topics, connection)
        self._pending[topics] = Session(admitted, topics, connection, opening.silence_s, voice, self.room)
        await self._tell(voice, Opened())

    async def _admitted(self, knock: _Knock, opening: Opening) -> Admitted:
        """Admit an agent by the certificate in its Opening, which must be its own and of this topic.

        Raises:
            CloudError: it may not act, or the database cannot say.
        """
        try:
            if len(knock.message.connection) != HALF_BYTES:
                raise ValueError("its connection's name has another length")
            shown = self._authority.check_agent(opening.certificate_pem)
            AgentSeal(shown.pem).open(knock.topics.up, knock.sealed)
            identity = parse_agent_uri(shown.uri)
        except (ValueError, BadSignature) as error:
            self.forged += 1
            raise Forbidden(f"the certificate is not this agent's: {error}; enrol this agent") from None
        named = Topics(str(identity.tenant_id), identity.site_id, identity.agent_id)
        if named != knock.topics:
            self.forged += 1
            raise Forbidden("the certificate names another agent than the topic; enrol this agent")
        principal = Principal(
            identity.tenant_id, f"agent:{identity.agent_id}", Role.AGENT, frozenset({identity.site_id})
        )
        await self._in_thread(lambda: admit(self._parts, identity, shown, principal))
        return Admitted(identity, shown, principal)

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._parts.threads, work)
