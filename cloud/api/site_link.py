"""The site link's two doors: the stream of enrolled agents, and enrolment.

Invariants:

* The stream needs a client certificate of our CA whose one URI is ``ballast://TENANT/SITE/AGENT``; the agents table
  must still know it. Whatever the frames say about site or agent is checked against it.
* Enrolment is TLS without a client certificate; the chain it presents ends with the CA, whose hash the token carries.
* Errors become gRPC codes in one table, with one line that says what to do.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from cloud.api.link_conversation import Conversation, LinkCounters, LinkParts, StreamClosed
from cloud.core.access import Principal, Role, system_principal
from cloud.core.errors import CloudError, Conflict, Forbidden, NotFound, Permanent, Refused, Transient
from cloud.hosting import service
from cloud.identity import certificates, enrolment
from cloud.identity.authority import CertificateAuthority, certificate_facts
from cloud.identity.model import AgentIdentity, CertificateFacts, Verdict, parse_agent_uri
from cloud.identity.revocation import WithdrawnCertificates
from cloud.infra.bus import AsyncBus
from cloud.infra.db import Database
from cloud.infra.signer_client import SignerClient
from sitelink.clock import Clock
from sitelink.codec import decode_up, encode_down
from sitelink.signing import PrivateKey
from sitelink.types import DownFrame, NoticeCode
from sitelink.v1 import link_pb2 as pb
from sitelink.v1 import link_pb2_grpc

_LOGGER: Final = logging.getLogger(__name__)
_Result = TypeVar("_Result")
_MAX_MESSAGE_BYTES: Final = 10 * 1024 * 1024
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
)

CODES: Final[Mapping[type[CloudError], grpc.StatusCode]] = {
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.ALREADY_EXISTS,
    Refused: grpc.StatusCode.FAILED_PRECONDITION,
    Permanent: grpc.StatusCode.INTERNAL,
    Transient: grpc.StatusCode.UNAVAILABLE,
}


def code_of(error: CloudError) -> grpc.StatusCode:
    """Return the gRPC code that stands for ``error``."""
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), grpc.StatusCode.UNKNOWN)


class SiteLink(link_pb2_grpc.SiteLinkServicer):
    """The stream of enrolled agents."""

    def __init__(self, parts: LinkParts) -> None:
        self._parts = parts

    async def Connect(  # noqa: N802 - the protocol's name
        self, request_iterator: AsyncIterator[pb.Up], context: grpc.aio.ServicerContext[pb.Up, pb.Down]
    ) -> None:
        """Converse with one agent until either side ends the stream."""
        try:
            identity, shown = _peer(context)
            principal = Principal(
                identity.tenant_id, f"agent:{identity.agent_id}", Role.AGENT, frozenset({identity.site_id})
            )
            await _in_thread(self._parts, lambda: admit(self._parts, identity, shown, principal))

            async def write(frame: DownFrame) -> None:
                await context.write(encode_down(frame))

            conversation = Conversation(self._parts, identity, shown.sha256, principal, uuid.uuid4().hex, write)
            await conversation.run(decode_up(message) async for message in request_iterator)
        except StreamClosed as closed:
            if closed.code is not grpc.StatusCode.UNAVAILABLE:
                _LOGGER.warning("site link: a stream was closed: %s", closed)
            await context.abort(closed.code, str(closed))
        except CloudError as error:
            self._parts.counters.refused += 1
            await context.abort(code_of(error), str(error))


def admit(parts: LinkParts, identity: AgentIdentity, shown: CertificateFacts, principal: Principal) -> None:
    """Let an agent in by the certificate that it showed, whatever it showed it through. Blocks.

    Raises:
        CloudError: it may not act, or the database cannot say.
    """
    verdict = parts.database.run(
        principal, lambda uow: certificates.admit(uow, identity, shown, parts.withdrawn.__contains__)
    )
    enforce(parts, identity, verdict)


def enforce(parts: LinkParts, identity: AgentIdentity, verdict: Verdict) -> None:
    """Raise Forbidden for a refusal; that an identity was locked goes among the site's notices first."""
    if verdict.locked:
        _LOGGER.error("site %s: %s", identity.site_id, verdict.refusal)
        principal = system_principal(identity.tenant_id, "site link")
        code, subject = NoticeCode.IDENTITY_LOCKED, identity.agent_id
        parts.database.run(
            principal, lambda uow: service.report_trust(uow, identity.site_id, subject, code, verdict.refusal)
        )
    if verdict.refusal:
        raise Forbidden(verdict.refusal)


class Enrolment(link_pb2_grpc.EnrolmentServicer):
    """Trades a join token and a signing request for a certificate."""

    def __init__(self, parts: LinkParts, authority: CertificateAuthority, signer: SignerClient) -> None:
        self._parts = parts
        self._authority = authority
        self._signer = signer

    async def Enrol(  # noqa: N802 - the protocol's name
        self, request: pb.EnrolRequest, context: grpc.aio.ServicerContext[pb.EnrolRequest, pb.EnrolReply]
    ) -> pb.EnrolReply:
        """Enrol one agent."""
        try:
            return await _in_thread(self._parts, lambda: self._enrol(request))
        except CloudError as error:
            self._parts.counters.refused += 1
            await context.abort(code_of(error), str(error))
        raise AssertionError("unreachable: abort raises")

    async def Renew(  # noqa: N802 - the protocol's name
        self, request: pb.RenewRequest, context: grpc.aio.ServicerContext[pb.RenewRequest, pb.RenewReply]
    ) -> pb.RenewReply:
        """Give the agent that shows a certificate the next one."""
        try:
            identity, shown = _peer(context)
            return await _in_thread(self._parts, lambda: self._renew(identity, shown, request))
        except CloudError as error:
            self._parts.counters.refused += 1
            await context.abort(code_of(error), str(error))
        raise AssertionError("unreachable: abort raises")

    def _renew(self, identity: AgentIdentity, shown: CertificateFacts, request: pb.RenewRequest) -> pb.RenewReply:
        if request.generation != shown.generation:
            raise Refused("bad_request", f"certificate {shown.generation} is shown, {request.generation} is named")
        principal = system_principal(identity.tenant_id, f"agent:{identity.agent_id}")
        withdrawn = self._parts.withdrawn.__contains__
        renewal = self._parts.database.run(
            principal,
            lambda uow: certificates.renew(uow, self._authority, identity, shown, request.csr_pem, withdrawn),
        )
        enforce(self._parts, identity, renewal.verdict)
        assert renewal.certificate is not None
        _LOGGER.info(
            "site %s: agent %s gets certificate %d", identity.site_id, identity.agent_id, renewal.certificate.generation
        )
        return pb.RenewReply(certificate_pem=renewal.certificate.pem, generation=renewal.certificate.generation)

    def _enrol(self, request: pb.EnrolRequest) -> pb.EnrolReply:
        tenant_id, secret = enrolment.token_tenant(request.join_token)
        order_key = self._signer.public_key()
        with self._parts.database.unit_of_work(system_principal(tenant_id, "enrolment")) as uow:
            made = enrolment.enrol(uow, self._authority, secret, request.csr_pem)
        waits = made.certificate is None
        if not waits:
            _LOGGER.info("site %s: agent %s enrolled", made.identity.site_id, made.identity.agent_id)
        return pb.EnrolReply(
            certificate_pem=b"" if made.certificate is None else made.certificate.pem,
            generation=0 if made.certificate is None else made.certificate.generation,
            awaits_approval=waits,
            fingerprint=made.fingerprint,
            ca_pem=made.ca_pem,
            tenant_id=str(made.identity.tenant_id),
            site_id=made.identity.site_id,
            agent_id=made.identity.agent_id,
            order_keys=[order_key],
            time_keys=[self._parts.time_key.public_bytes],
        )


@dataclass(frozen=True, slots=True)
class LinkAddresses:
    """Where the two doors listen (``host:port``, port 0 for any) and the names agents reach them under."""

    link: str
    enrol: str
    names: Sequence[str] = ()


class LinkServers:
    """The two gRPC servers on one event loop. ``link_port`` and ``enrol_port`` are known once started."""

    def __init__(
        self,
        database: Database,
        bus: AsyncBus,
        authority: CertificateAuthority,
        time_key: PrivateKey,
        signer: SignerClient,
        clock: Clock,
        addresses: LinkAddresses,
        threads: int = 4,
    ) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="link")
        self.withdrawn = WithdrawnCertificates(authority.folder, authority)
        self._parts = LinkParts(database, bus, signer, time_key, clock, self._threads, self.withdrawn)
        self._authority = authority
        self._signer = signer
        self._addresses = addresses
        self._servers: list[grpc.aio.Server] = []
        self.link_port = 0
        self.enrol_port = 0

    @property
    def parts(self) -> LinkParts:
        """Return what every conversation stands on, whatever carries it."""
        return self._parts

    @property
    def counters(self) -> LinkCounters:
        """Return what the link counted."""
        return self._parts.counters

    async def start(self) -> None:
        """Listen.

        Raises:
            Refused: an address is taken or not ours.
        """
        identity = self._authority.server((*self._addresses.names, *_hosts(self._addresses)))
        pair = [(identity.key_pem, identity.chain_pem)]
        mutual = grpc.ssl_server_credentials(pair, root_certificates=self._authority.pem, require_client_auth=True)
        link = grpc.aio.server(options=_OPTIONS)
        link_pb2_grpc.add_SiteLinkServicer_to_server(SiteLink(self._parts), link)
        renewing = Enrolment(self._parts, self._authority, self._signer)
        link_pb2_grpc.add_EnrolmentServicer_to_server(renewing, link)
        enrol = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=16)
        link_pb2_grpc.add_EnrolmentServicer_to_server(renewing, enrol)
        self.link_port = _bind(link, self._addresses.link, mutual, "link_listen")
        self.enrol_port = _bind(enrol, self._addresses.enrol, grpc.ssl_server_credentials(pair), "enrol_listen")
        for server in (link, enrol):
            await server.start()
            self._servers.append(server)

    async def stop(self, grace_s: float = 1.0) -> None:
        """End every stream, stop listening, and wait for what is being stored."""
        self._parts.closing.set()
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials, setting: str) -> int:
    try:
        port = server.add_secure_port(address, credentials)
    except RuntimeError:
        port = 0
    if not port:
        raise Refused("address_taken", f"{setting}: cannot listen on {address}; end what uses it, or choose another")
    return port


def _hosts(addresses: LinkAddresses) -> list[str]:
    hosts = [address.rpartition(":")[0].strip("[]") for address in (addresses.link, addresses.enrol)]
    return [host for host in dict.fromkeys(hosts) if host not in ("0.0.0.0", "::", "*")]  # noqa: S104 - left out


def _peer(context: Any) -> tuple[AgentIdentity, CertificateFacts]:
    """Return who the client certificate says is there, and what else stands in it."""
    pems = context.auth_context().get("x509_pem_cert", ())
    try:
        shown = certificate_facts(pems[0])
        return parse_agent_uri(shown.uri), shown
    except (IndexError, ValueError) as error:
        raise Forbidden(f"the client certificate is not an agent's: {error}; enrol this agent") from None


async def _in_thread(parts: LinkParts, work: Callable[[], _Result]) -> _Result:
    return await asyncio.get_running_loop().run_in_executor(parts.threads, work)
