"""Renews the agent's certificate from a third of its life on: it never runs out while the cloud can be reached.

    due? --> key, durable --> Renew over mTLS, showing the old --> new identity, whole and durable --> the link
             identity.next.key                                     identity/                           goes over to it

Invariants: at every moment the old identity or the new one stands on disk whole; a renewal that was cut off is asked
again with the same key, and the cloud answers it with the same certificate; a certificate that ran out ends nothing at
the site: plans are finished, only the cloud is not reached.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.aside import on_disk
from agent.backoff import Backoff
from agent.errors import AccessDenied, AgentError, Permanent, Transient, Unreachable
from agent.files import replace_file
from agent.identity import Identity, certificate_life, store_identity
from agent.settings import Endpoint, LinkSettings
from agent.uplink import Tls

RENEW_METHOD: Final = "/ballast.sitelink.v1.Enrolment/Renew"
_LOG: Final = logging.getLogger(__name__)
_LOOK_S: Final = 3600.0
_DEADLINE_S: Final = 15.0

Ask = Callable[[Identity, bytes], Awaitable[tuple[bytes, int]]]


class Renewal:
    """Keeps the identity in ``folder`` fresh; ``renewed`` is told of each new one, which is on disk by then."""

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        now: Callable[[], datetime],
        ask: Ask,
        renewed: Callable[[Identity], None],
        backoff: Backoff,
    ) -> None:
        """``ask`` trades a signing request for a certificate and its number, showing the identity."""
        self._folder = folder
        self._now = now
        self._ask = ask
        self._renewed = renewed
        self._backoff = backoff
        self._trouble = ""
        self.identity = identity

    @property
    def standing(self) -> str:
        """Return how the certificate stands, as one line; "" when it says nothing about its life."""
        life = certificate_life(self.identity)
        if life is None:
            return ""
        named = f"number {self.identity.generation}"
        if life.expires_at <= self._now():
            return f"{named}, EXPIRED {life.expires_at:%Y-%m-%d %H:%M} UTC; {expired_step(self.identity.site_id)}"
        overdue = f"; renewing it fails: {self._trouble}" if self._trouble else ""
        return f"{named}, holds until {life.expires_at:%Y-%m-%d %H:%M} UTC{overdue}"

    async def run(self) -> None:
        """Renew whenever it is due, until cancelled."""
        while True:
            wait_s = self._due_in_s()
            if wait_s <= 0:
                wait_s = await self._try()
            await asyncio.sleep(min(wait_s, _LOOK_S))

    async def renew(self) -> None:
        """Renew now.

        Raises:
            Transient: the cloud cannot be reached, or the disk takes nothing; the old identity stands.
            Permanent: the cloud does not give one, or answers nonsense.
        """
        try:
            key = await on_disk(partial(pending_key, self._folder, self.identity))
            certificate_pem, generation = await self._ask(self.identity, request_for(key, self.identity.site_id))
            fresh = checked(self.identity, key, certificate_pem, generation)
            await on_disk(partial(_store, self._folder, fresh))
        except OSError as error:
            raise Transient(f"{self._folder}: cannot be written: {error}; make room there") from None
        self.identity = fresh
        self._renewed(fresh)

    def _due_in_s(self) -> float:
        life = certificate_life(self.identity)
        if life is None:
            return _LOOK_S
        due = life.issued_at + (life.expires_at - life.issued_at) / 3
        return (due - self._now()) / timedelta(seconds=1)

    async def _try(self) -> float:
        try:
            await self.renew()
        except AgentError as error:
            if str(error) != self._trouble:
                _LOG.warning("certificate: cannot be renewed: %s", error)
            self._trouble = str(error)
            return _LOOK_S if isinstance(error, Permanent) else self._backoff.failed()
        self._backoff.succeeded()
        self._trouble = ""
        _LOG.info("certificate: renewed, %s", self.standing)
        return 0.0


def expired_step(site_id: str) -> str:
    """Return what to do about a certificate that has run out."""
    return (
        f"plans are finished, new ones do not arrive: make a token (ballast site token {site_id}), then ballast-agent"
        " enrol --token TOKEN, and restart the agent"
    )


def pending_key(folder: Path, identity: Identity) -> ec.EllipticCurvePrivateKey:
    """Return the key of a renewal that was cut off, else a new one, durable before it is used. Raises OSError."""
    path = _pending(folder)
    used = serialization.load_pem_private_key(identity.tls.key_pem, password=None).public_key()
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if isinstance(found, ec.EllipticCurvePrivateKey) and found.public_key() != used:
            return found
    except (FileNotFoundError, ValueError, UnsupportedAlgorithm):
        pass
    key = ec.generate_private_key(ec.SECP256R1())
    replace_file(path, key_pem(key))
    return key


def request_for(key: ec.EllipticCurvePrivateKey, site_id: str) -> bytes:
    """Return the signing request, PEM, of an agent of ``site_id`` for ``key``."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site_id)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as unencrypted PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def checked(identity: Identity, key: ec.EllipticCurvePrivateKey, certificate_pem: bytes, generation: int) -> Identity:
    """Return ``identity`` with its next certificate, when that is truly for our key, from the same CA, and later.

    Raises:
        Permanent: it is not.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(identity.tls.ca_pem))
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise Permanent(
            f"the cloud's new certificate is broken or of another CA: {error!r}; the old one stands"
        ) from None
    if certificate.public_key() != key.public_key():
        raise Permanent("the cloud's new certificate is not for the key made here; the old one stands")
    if generation <= identity.generation:
        raise Permanent(f"the cloud gave certificate {generation} after {identity.generation}; the old one stands")
    return replace(identity, tls=Tls(identity.tls.ca_pem, certificate_pem, key_pem(key)), generation=generation)


def asker(link: LinkSettings) -> Ask:
    """Return what asks the cloud at the link's gRPC endpoint; the library is loaded when it is first asked.

    Raises:
        OSError: ``ca_file`` cannot be read.
    """
    endpoint = link.endpoint
    more_ca_pem = b"" if link.ca_file is None else link.ca_file.read_bytes()

    async def ask(identity: Identity, csr_pem: bytes) -> tuple[bytes, int]:
        try:
            import grpc  # noqa: PLC0415 - a site linked by a broker alone loads it for this only
            import grpc.aio  # noqa: PLC0415
        except ImportError:
            raise Permanent("a certificate is renewed over gRPC; install ballast-agent[grpc] beside it") from None

        from agent.uplink.grpc_link import proxy_options  # noqa: PLC0415
        from sitelink.v1 import link_pb2 as pb  # noqa: PLC0415

        tls = identity.tls
        credentials = grpc.ssl_channel_credentials(tls.ca_pem + more_ca_pem, tls.key_pem, tls.certificate_pem)
        named = (("grpc.ssl_target_name_override", link.server_name), ("grpc.enable_retries", 0))
        options = (*named, *proxy_options(link.proxy))
        request = pb.RenewRequest(csr_pem=csr_pem, generation=identity.generation)
        async with grpc.aio.secure_channel(str(endpoint), credentials, options=options) as channel:
            call: Any = channel.unary_unary(RENEW_METHOD, response_deserializer=pb.RenewReply.FromString)
            try:
                reply = await call(request.SerializeToString(), timeout=_DEADLINE_S)
            except grpc.aio.AioRpcError as error:
                raise _translated(endpoint, error.code().name, error.details() or error.code().name) from None
        return reply.certificate_pem, reply.generation

    return ask


def _translated(endpoint: Endpoint, code: str, details: str) -> AgentError:
    said = details.splitlines()[0]
    if code in {"UNAUTHENTICATED", "PERMISSION_DENIED"}:
        return AccessDenied(f"{endpoint}: {said}")
    if code in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}:
        return Unreachable(f"{endpoint}: {said}; trying again")
    return Permanent(f"{endpoint}: the cloud gives no new certificate: {said}")


def _store(folder: Path, identity: Identity) -> None:
    store_identity(folder, identity)
    _pending(folder).unlink(missing_ok=True)


def _pending(folder: Path) -> Path:
    return folder.with_name(folder.name + ".next.key")
