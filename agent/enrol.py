"""Trades a one-use join token for a certificate and the keys whose orders this site obeys.

Invariants: the private key is made here and never leaves; nothing is sent, least of all the token, before the cloud
has shown a CA whose SHA-256 stands in the token, and the identity's folder has proved writable; nothing on disk changes
unless everything held.

    token = ballast1.<secret>.<sha256 hex of the CA certificate, DER>

    read the server's chain --> CA hash fits? --> TLS with that CA as root: token + CSR --> certificate, keys --> disk
"""

import hashlib
import json
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import AgentError, BadInput, Permanent, Refused, Transient, Unreachable
from agent.files import replace_file
from agent.identity import Identity, check_writable, store_identity
from agent.renewal import key_pem, request_for
from agent.settings import Endpoint, LinkSettings, Proxy, Settings
from agent.uplink import Tls
from agent.uplink.grpc_link import proxy_options
from agent.uplink.proxy import END, asked, check, is_whole
from sitelink.signing import fingerprint
from sitelink.v1 import link_pb2 as pb

ENROL_METHOD: Final = "/ballast.sitelink.v1.Enrolment/Enrol"
_TOKEN: Final = re.compile(r"ballast1\.([A-Za-z0-9_-]{8,256})\.([0-9a-f]{64})")
_DEADLINE_S: Final = 10.0
_APPROVAL_POLL_S: Final = 5.0
_TRANSIENT: Final = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_SPENT: Final = "nothing changed here, but the token is used up: make a new one"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A join token, taken apart; ``text`` is what the cloud gave out."""

    text: str
    ca_sha256: str

    def __repr__(self) -> str:
        return "JoinToken(***)"


def read_token(text: str) -> JoinToken:
    """Return the token in ``text``.

    Raises:
        BadInput: it does not have the form of a token.
    """
    match = _TOKEN.fullmatch(text.strip())
    if match is None:
        raise BadInput("--token: not a join token; copy the whole line that `ballast site token SITE` printed")
    return JoinToken(match[0], match[2])


def enrol(
    settings: Settings,
    token: JoinToken,
    waits: Callable[[str], None] = lambda _: None,
    pause: Callable[[float], None] = sleep,
) -> Identity:
    """Enrol this site's agent and store its identity. Blocks for some seconds, or until an operator approves its key.

    ``waits`` is told the key's fingerprint each time the cloud answers that it awaits an operator's word. Whoever gives
    up meanwhile asks again later with the same token: the key is kept.

    Raises:
        Transient: the cloud cannot be reached.
        Permanent: the cloud shows another CA than the token names, fails, or answers nonsense.
        Refused: the cloud does not take the token, or it is for another site.
        BadInput: the folder of the identity cannot be written; the token was not sent.
    """
    endpoint = settings.link.enrol_endpoint
    ca_pem = _trusted_ca(endpoint, settings.link, token.ca_sha256)
    try:
        check_writable(settings.identity_dir)
    except OSError as error:
        raise BadInput(
            f"{settings.identity_dir}: cannot be written: {error}; make it writable for the agent's user;"
            " nothing changed, the token is not used up"
        ) from None
    key = _waiting_key(settings.identity_dir, token) or ec.generate_private_key(ec.SECP256R1())
    request = pb.EnrolRequest(join_token=token.text, csr_pem=request_for(key, settings.site.site_id))
    while True:
        reply = _ask(endpoint, settings.link, ca_pem, request.SerializeToString())
        if not reply.awaits_approval:
            break
        _keep_key(settings.identity_dir, token, key)
        waits(shown_fingerprint(key))
        pause(_APPROVAL_POLL_S)
    identity = _checked(reply, key, ca_pem, settings.site.site_id)
    try:
        store_identity(settings.identity_dir, identity)
    except OSError as error:
        raise BadInput(f"{settings.identity_dir}: cannot be written: {error}; {_SPENT}") from None
    _waiting_file(settings.identity_dir).unlink(missing_ok=True)
    return identity


def shown_fingerprint(key: ec.EllipticCurvePrivateKey) -> str:
    """Return what an operator compares with what the cloud shows."""
    public = key.public_key()
    return fingerprint(public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def _waiting_file(folder: Path) -> Path:
    return folder.with_name(folder.name + ".waiting.json")


def _waiting_key(folder: Path, token: JoinToken) -> ec.EllipticCurvePrivateKey | None:
    """Return the key that ``token`` was used with before and that awaits approval."""
    try:
        kept = json.loads(_waiting_file(folder).read_bytes())
        if kept["token_sha256"] != hashlib.sha256(token.text.encode()).hexdigest():
            return None
        key = serialization.load_pem_private_key(kept["key_pem"].encode(), password=None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _keep_key(folder: Path, token: JoinToken, key: ec.EllipticCurvePrivateKey) -> None:
    digest = hashlib.sha256(token.text.encode()).hexdigest()
    kept = {"token_sha256": digest, "key_pem": key_pem(key).decode()}
    try:
        replace_file(_waiting_file(folder), json.dumps(kept).encode())
    except OSError as error:
        raise BadInput(
            f"{folder.parent}: cannot be written: {error}; make room; the token waits for this key"
        ) from None


def _trusted_ca(endpoint: Endpoint, link: LinkSettings, sha256: str) -> bytes:
    """Return, as PEM, the certificate in the server's chain that the token names."""
    for certificate in _presented_chain(endpoint, link):
        if hashlib.sha256(certificate).hexdigest() == sha256:
            return ssl.DER_cert_to_PEM_cert(certificate).encode("ascii")
    raise Permanent(
        f"{endpoint}: the server there is not the one this token was made by; "
        "check [link] enrol_endpoint, or who answers in its place"
    )


def _presented_chain(endpoint: Endpoint, link: LinkSettings) -> list[bytes]:
    """Return the server's certificates, DER, unverified: they are only searched for a known hash."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            _reached(endpoint, link.proxy) as plain,
            context.wrap_socket(plain, server_hostname=link.server_name) as secure,
        ):
            return _chain_of(secure)
    except OSError as error:
        cause = error.strerror or str(error) or "no answer"
        raise Unreachable(
            f"{endpoint}: cannot be reached: {cause}; check [link] enrol_endpoint and the cloud"
        ) from None


def _reached(endpoint: Endpoint, proxy: Proxy | None) -> socket.socket:
    """Return a connection to ``endpoint``, by the proxy when there is one. Raises OSError, AgentError."""
    hop = endpoint if proxy is None else proxy.endpoint
    plain = socket.create_connection((hop.host, hop.port), timeout=_DEADLINE_S)
    if proxy is None:
        return plain
    try:
        plain.sendall(asked(endpoint, proxy))
        answer = b""
        while not is_whole(answer, proxy):
            answer += plain.recv(1) or END
        check(answer, endpoint, proxy)
    except BaseException:
        plain.close()
        raise
    return plain


def _chain_of(secure: ssl.SSLSocket) -> list[bytes]:
    # Public from Python 3.13 on; before, the same call stands on the inner object and gives certificate objects.
    chain: Any = getattr(secure, "get_unverified_chain", None)
    if chain is not None:
        return list(chain())
    inner: Any = secure._sslobj  # type: ignore[attr-defined]  # noqa: SLF001 - see above
    return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in inner.get_unverified_chain()]


def _ask(endpoint: Endpoint, link: LinkSettings, ca_pem: bytes, request: bytes) -> pb.EnrolReply:
    credentials = grpc.ssl_channel_credentials(root_certificates=ca_pem)
    named = (("grpc.ssl_target_name_override", link.server_name), ("grpc.enable_retries", 0))
    options = (*named, *proxy_options(link.proxy))
    with grpc.secure_channel(str(endpoint), credentials, options=options) as channel:
        call: Any = channel.unary_unary(ENROL_METHOD, response_deserializer=pb.EnrolReply.FromString)
        try:
            reply: pb.EnrolReply = call(request, timeout=_DEADLINE_S)
        except grpc.RpcError as error:
            raise _translated(endpoint, error) from None
    return reply


def _translated(endpoint: Endpoint, error: grpc.RpcError) -> AgentError:
    code, details = error.code(), error.details()
    said = (details or code.name).splitlines()[0]
    if code in _TRANSIENT:
        return Transient(f"{endpoint}: {said}; nothing changed here, try again")
    if code in {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}:
        return Permanent(
            f"{endpoint}: the cloud failed to enrol: {said}; nothing changed here, look into the cloud's log"
        )
    # The cloud's line says what to do.
    return Refused("token_refused", f"{endpoint}: the cloud refused to enrol: {said}")


def _checked(reply: pb.EnrolReply, key: ec.EllipticCurvePrivateKey, ca_pem: bytes, site_id: str) -> Identity:
    """Return the identity in ``reply`` when it truly is for our key, from the pinned CA, for this site."""
    if reply.site_id != site_id:
        raise Refused("other_site", f"the token is for site {reply.site_id!r}, the settings say {site_id!r}; {_SPENT}")
    try:
        certificate = x509.load_pem_x509_certificate(reply.certificate_pem)
        authority = x509.load_pem_x509_certificate(ca_pem)
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Permanent(f"the cloud's certificate for this agent is broken: {error}; {_SPENT}") from None
    except InvalidSignature:
        raise Permanent(f"the cloud's certificate is not from the token's CA; {_SPENT}") from None
    if certificate.public_key() != key.public_key():
        raise Permanent(f"the cloud's certificate is not for the key made here; {_SPENT}")
    order_keys, time_keys = tuple(reply.order_keys), tuple(reply.time_keys)
    if not order_keys or not time_keys or any(len(raw) != 32 for raw in order_keys + time_keys):
        raise Permanent(f"the cloud named no usable order or time keys; {_SPENT}")
    tls = Tls(ca_pem, reply.certificate_pem, key_pem(key))
    generation = max(1, reply.generation)  # a cloud of an earlier version numbers none
    return Identity(reply.tenant_id, reply.site_id, reply.agent_id, order_keys, time_keys, tls, generation)
