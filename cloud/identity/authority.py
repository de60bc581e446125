"""The certificate authority of the link: made at the first start, kept in ``key_dir`` with mode 0600.

Invariants: the CA signs server and agent certificates only (path length 0); an agent's key never leaves the agent;
a certificate says who an agent is, the ``agents`` table says whether it still may.

      ca.key ca.crt   ECDSA P-256, 10 years      server.key server.crt   90 days, renewed a month ahead at start
      time.pem        Ed25519, signs the time, and to a broker all that the cloud says
      broker.*, broker-client.*   as server.*: a broker of the link, and the cloud as its client
"""

import fcntl
import hashlib
import ipaddress
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.core.errors import Refused
from cloud.identity.model import AGENT_CERTIFICATE_LIFE, AgentIdentity, CertificateFacts
from sitelink.clock import Clock
from sitelink.signing import PrivateKey

_CA_LIFE: Final = timedelta(days=3650)
_SERVER_LIFE: Final = timedelta(days=90)
_RENEW_AHEAD: Final = timedelta(days=30)
_CLOCK_SLACK: Final = timedelta(days=1)
_LIST_LIFE: Final = timedelta(days=7)
CLOUD_NAME: Final = "ballast-cloud"
BROKER_NAME: Final = "ballast-broker"
LOCAL_NAMES: Final = ("localhost", "127.0.0.1")
ALWAYS_NAMES: Final = (*LOCAL_NAMES, CLOUD_NAME)


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """What one end of TLS presents: its key, and its certificate followed by the CA's."""

    key_pem: bytes
    chain_pem: bytes


class CertificateAuthority:
    """The CA in ``folder``; made there when there is none."""

    def __init__(self, folder: Path, clock: Clock, agent_life: timedelta = AGENT_CERTIFICATE_LIFE) -> None:
        """``agent_life`` is how long an agent's certificate holds."""
        self.folder = folder
        self._clock = clock
        self._agent_life = agent_life
        _make_private(folder)
        with self._locked():
            self._key, self._certificate = self._load() or self._create()
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        self.sha256_hex = hashlib.sha256(der).hexdigest()

    def server(self, names: Sequence[str]) -> ServerIdentity:
        """Return the server's key and chain for ``names`` (and the local ones), renewed when they near their end."""
        return self._kept("server", "ballast-cloud", ExtendedKeyUsageOID.SERVER_AUTH, (*ALWAYS_NAMES, *names))

    def broker(self, names: Sequence[str]) -> ServerIdentity:
        """Return what a broker of the link presents; it is never ``ballast-cloud``, so it cannot pass for the cloud."""
        wanted = (BROKER_NAME, *LOCAL_NAMES, *names)
        return self._kept("broker", BROKER_NAME, ExtendedKeyUsageOID.SERVER_AUTH, wanted)

    def broker_client(self) -> ServerIdentity:
        """Return what the cloud presents to a broker."""
        return self._kept("broker-client", CLOUD_NAME, ExtendedKeyUsageOID.CLIENT_AUTH, (CLOUD_NAME,))

    def check_agent(self, certificate_pem: bytes) -> CertificateFacts:
        """Return what an agent's certificate says that came by itself, not in a TLS handshake which had checked it.

        Raises:
            ValueError: it is not an agent's certificate of this CA, or does not hold now.
        """
        facts = certificate_facts(certificate_pem)
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        try:
            certificate.verify_directly_issued_by(self._certificate)
            purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            raise ValueError("it is not from this cloud's CA") from None
        if ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
            raise ValueError("it is not for a client")
        if not certificate.not_valid_before_utc <= self._clock.now() < certificate.not_valid_after_utc:
            raise ValueError(f"it holds from {certificate.not_valid_before_utc} to {certificate.not_valid_after_utc}")
        return facts

    def issue(self, identity: AgentIdentity, csr_pem: bytes, generation: int) -> CertificateFacts:
        """Return a certificate of ``generation`` for the key in ``csr_pem``.

        Raises: as ``requested_key``.
        """
        public_key = requested_key(csr_pem, identity.site_id)
        expires_at = self._clock.now() + self._agent_life
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri)]
        subject = x509.Name([*_name(identity.agent_id), x509.NameAttribute(NameOID.SERIAL_NUMBER, str(generation))])
        certificate = self._sign(self._builder(subject, public_key, expires_at, names), ExtendedKeyUsageOID.CLIENT_AUTH)
        return certificate_facts(_pem(certificate))

    def write_list(self, path: Path, withdrawn: Iterable[tuple[int, datetime]]) -> None:
        """Write the certificate revocation list, PEM, of ``(serial, withdrawn at)``; it holds for a week.

        It holds no secret: a broker that runs as somebody else reads it.

        Raises:
            OSError: the folder cannot be written.
        """
        now = self._clock.now()
        builder = x509.CertificateRevocationListBuilder(self._certificate.subject, now, now + _LIST_LIFE)
        for serial, at in sorted(withdrawn):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at)
            builder = builder.add_revoked_certificate(entry.build())
        with self._locked():
            write_private(path, builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
            path.chmod(0o644)

    def time_key(self) -> PrivateKey:
        """Return the key that signs the cloud's time; made when there is none."""
        path = self.folder / "time.pem"
        with self._locked():
            try:
                return PrivateKey.from_pem(path.read_bytes())
            except FileNotFoundError:
                key = PrivateKey.generate()
                write_private(path, key.to_pem())
                return key
            except ValueError:
                raise Refused("bad_key", f"{path}: not an Ed25519 key in PEM; restore it from the backup") from None

    def _load(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None:
        try:
            key_pem = (self.folder / "ca.key").read_bytes()
            certificate = x509.load_pem_x509_certificate((self.folder / "ca.crt").read_bytes())
            key = serialization.load_pem_private_key(key_pem, password=None)
        except FileNotFoundError:
            return None
        except ValueError:
            raise Refused("bad_key", f"{self.folder}: ca.key or ca.crt is damaged; restore both") from None
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key, certificate

    def _create(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("Ballast site link CA")
        now = self._clock.now()
        usage = _key_usage(key_cert_sign=True, digital_signature=False)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SLACK)
            .not_valid_after(now + _CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_private(self.folder / "ca.key", _key_pem(key))
        write_private(self.folder / "ca.crt", _pem(certificate))
        return key, certificate

    def _serves(self, certificate: x509.Certificate, names: Sequence[str]) -> bool:
        if certificate.issuer != self._certificate.subject:
            return False
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, it is issued anew
            return False
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        fresh = certificate.not_valid_after_utc - self._clock.now() > _RENEW_AHEAD
        return fresh and list(found) == [_general_name(name) for name in names]

    def _kept(
        self, stem: str, common_name: str, purpose: x509.ObjectIdentifier, names: Sequence[str]
    ) -> ServerIdentity:
        """Return the key and chain in ``stem.key`` and ``stem.crt``, made anew when they do not fit or soon end."""
        wanted = tuple(dict.fromkeys(names))
        key_path, certificate_path = self.folder / f"{stem}.key", self.folder / f"{stem}.crt"
        with self._locked():
            try:
                key_pem, certificate_pem = key_path.read_bytes(), certificate_path.read_bytes()
                usable = self._serves(x509.load_pem_x509_certificate(certificate_pem), wanted)
            except (FileNotFoundError, ValueError):
                usable = False
            if not usable:
                key = ec.generate_private_key(ec.SECP256R1())
                alternatives = [_general_name(name) for name in wanted]
                until = self._clock.now() + _SERVER_LIFE
                builder = self._builder(_name(common_name), key.public_key(), until, alternatives)
                key_pem, certificate_pem = _key_pem(key), _pem(self._sign(builder, purpose))
                write_private(key_path, key_pem)
                write_private(certificate_path, certificate_pem)
        return ServerIdentity(key_pem, certificate_pem + self.pem)

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        until: datetime,
        alternatives: Sequence[x509.GeneralName],
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._clock.now() - _CLOCK_SLACK)
            .not_valid_after(until)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        )

    def _sign(self, builder: x509.CertificateBuilder, purpose: x509.ObjectIdentifier) -> x509.Certificate:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(key_cert_sign=False, digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def requested_key(csr_pem: bytes, site_id: str) -> ec.EllipticCurvePublicKey:
    """Return the key for which ``csr_pem`` asks a certificate of an agent of ``site_id``.

    The request's common name, when it has one, is the site that the agent's settings name; whatever else the request
    asks for is ignored.

    Raises:
        Refused: the request is not one, its key is of an unexpected kind, or it names another site.
    """
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        genuine = request.is_signature_valid
        public_key = request.public_key()
    except (ValueError, TypeError) as error:
        raise Refused("bad_request", f"not a certificate signing request: {error}") from None
    if not genuine:
        raise Refused("bad_request", "the signing request is not signed by its own key")
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or public_key.curve.name != "secp256r1":
        raise Refused("bad_request", "the agent's key must be ECDSA P-256")
    _check_site(request, site_id)
    return public_key


def key_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key as its SubjectPublicKeyInfo in DER: what fingerprints are made of."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def certificate_facts(certificate_pem: bytes) -> CertificateFacts:
    """Return what an agent's certificate says; one of an earlier version, which names no generation, is the first.

    Raises:
        ValueError: it is not a certificate, or does not hold exactly one URI.
    """
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ValueError("the certificate names nobody") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise ValueError("the certificate does not hold exactly one URI")
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("the certificate is not for a key of an agent's kind")  # noqa: TRY004 - the content is wrong
    numbers = [str(item.value) for item in certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]
    return CertificateFacts(
        pem=certificate_pem,
        uri=uris[0],
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        key_sha256=hashlib.sha256(key_bytes(key)).hexdigest(),
        generation=int(numbers[0]) if numbers else 1,
        serial=certificate.serial_number,
        issued_at=certificate.not_valid_before_utc + _CLOCK_SLACK,
        expires_at=certificate.not_valid_after_utc,
    )


def write_private(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` with mode 0600, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise Refused("foreign_folder", f"{folder} belongs to somebody else; remove it or move data_dir")
    folder.chmod(0o700)


def _check_site(request: x509.CertificateSigningRequest, site_id: str) -> None:
    named = [attribute.value for attribute in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if named and named != [site_id]:
        raise Refused(
            "other_site",
            f"the token is for site {site_id!r}, the settings say {named[0]!r}; set site_id right, or make a token for"
            " that site: ballast site token SITE; nothing changed, the token is not used up",
        )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, key_cert_sign: bool, digital_signature: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
