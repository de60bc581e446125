"""The link through a broker: its topics, and the seal that makes a broker a mere carrier.

Invariants:

* A topic names whose frames it carries and in which direction, and the signature covers it: what was said on one topic
  is worth nothing on another.
* Within a connection no number is taken twice; the connection's name is new each time, half of it from either end. So
  neither end takes a frame that the broker made, changed, or kept from an earlier time.

    agent --Opening(C)--> cloud --Opened(C S)--> agent --Hello(C S), ...--> cloud --Welcome(C S), ...--> agent
"""

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sitelink.signing import BadSignature, KeyRing, Signer
from sitelink.types import Domain, Envelope, Sealed

HALF_BYTES: Final = 16
"""The length of either half of a connection's name, in bytes."""
MAX_MESSAGE_BYTES: Final = 10 * 1024 * 1024
"""What is longer is not taken from a broker."""
QOS: Final = 1
_ROOT: Final = "ballast/v1"
_WINDOW: Final = 4096


@dataclass(frozen=True, slots=True)
class Topics:
    """The three topics of one agent. ``ANY`` in a field stands for all."""

    tenant_id: str
    site_id: str
    agent_id: str

    @property
    def up(self) -> str:
        """Return where the agent speaks."""
        return f"{self._base}/up"

    @property
    def down(self) -> str:
        """Return where the agent listens."""
        return f"{self._base}/down"

    @property
    def state(self) -> str:
        """Return where the link's state is retained."""
        return f"{self._base}/state"

    @property
    def _base(self) -> str:
        return f"{_ROOT}/{self.tenant_id}/{self.site_id}/{self.agent_id}"


ANY: Final = "+"


def read_topic(topic: str) -> tuple[Topics, str]:
    """Return whose topic it is and its last word.

    Raises:
        ValueError: it is none of the link's topics.
    """
    parts = topic.split("/")
    if len(parts) != 6 or "/".join(parts[:2]) != _ROOT or not all(parts) or parts[5] not in {"up", "down", "state"}:
        raise ValueError(f"{topic!r} is no topic of the link")
    return Topics(*parts[2:5]), parts[5]


class AgentKey:
    """The key of an agent's certificate, as the signer of what it says."""

    def __init__(self, key_pem: bytes) -> None:
        """Take the key from its PEM.

        Raises:
            ValueError: it is no ECDSA key.
        """
        key = serialization.load_pem_private_key(key_pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the agent's key must be ECDSA P-256")  # noqa: TRY004 - the content is wrong, not a type
        self._key = key

    def seal(self, topic: str, content: bytes) -> Sealed:
        """Return ``content`` signed for ``topic``."""
        return Sealed(content, self._key.sign(_tagged(topic, content), ec.ECDSA(hashes.SHA256())))


class AgentSeal:
    """The public key of an agent's certificate, against which the cloud holds what claims to be the agent's."""

    def __init__(self, certificate_pem: bytes) -> None:
        """Take the key from the certificate's PEM, whoever signed that.

        Raises:
            ValueError: it is no certificate of an ECDSA key.
        """
        key = x509.load_pem_x509_certificate(certificate_pem).public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("the agent's key must be ECDSA P-256")  # noqa: TRY004 - the content is wrong, not a type
        self._key = key

    def open(self, topic: str, sealed: Sealed) -> bytes:
        """Return the content.

        Raises:
            BadSignature: it is not this agent's, or was said on another topic.
        """
        try:
            self._key.verify(sealed.signature, _tagged(topic, sealed.content), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise BadSignature("the signature is not that of the agent's certificate") from None
        return sealed.content


def seal_down(key: Signer, topic: str, content: bytes) -> Sealed:
    """Return ``content`` signed for ``topic`` by the cloud."""
    envelope = key.sign(Domain.LINK, _said(topic, content))
    return Sealed(content, envelope.signature, envelope.key_id)


def open_down(keys: KeyRing, topic: str, sealed: Sealed) -> bytes:
    """Return the content.

    Raises:
        BadSignature: no trusted key signed it for this topic.
    """
    keys.open(Envelope(Domain.LINK, sealed.key_id, _said(topic, sealed.content), sealed.signature), Domain.LINK)
    return sealed.content


class Window:
    """Which numbers of a connection have come: each is taken once, in any order near the highest."""

    def __init__(self) -> None:
        self._highest = -1
        self._seen = 0

    def take(self, number: int) -> bool:
        """Return whether ``number`` is new; one far behind the highest counts as seen."""
        if number < 0:
            return False
        if number > self._highest:
            self._seen = ((self._seen << min(number - self._highest, _WINDOW)) | 1) & ((1 << _WINDOW) - 1)
            self._highest = number
            return True
        place = self._highest - number
        if place >= _WINDOW or self._seen >> place & 1:
            return False
        self._seen |= 1 << place
        return True


def _said(topic: str, content: bytes) -> bytes:
    return topic.encode("utf-8") + b"\0" + content


def _tagged(topic: str, content: bytes) -> bytes:
    return Domain.LINK.value.encode("ascii") + b"\0" + _said(topic, content)
