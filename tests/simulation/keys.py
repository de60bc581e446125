"""The keys of every history: fixed, since a trace names them, and a history must replay in another process."""

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sitelink.signing import BadSignature, PrivateKey
from sitelink.types import Domain, Envelope


def fixed(name: str) -> PrivateKey:
    return PrivateKey(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


ORDER_KEY = fixed("order")
TIME_KEY = fixed("time")
FORGER = fixed("forger")


class KeyedHash:
    """Signs and opens by a keyed hash: a hundredth of what Ed25519 costs, for what is signed every few seconds."""

    def __init__(self, name: str) -> None:
        self._secret = name.encode()
        self.key_id = hashlib.sha256(self._secret).hexdigest()[:16]
        self.key_ids = (self.key_id,)

    def sign(self, domain: Domain, payload: bytes) -> Envelope:
        return Envelope(domain, self.key_id, payload, self._tag(domain, payload))

    def open(self, envelope: Envelope, domain: Domain) -> bytes:
        if envelope.domain != domain or envelope.key_id != self.key_id:
            raise BadSignature(f"key {envelope.key_id} is not trusted for {domain}")
        if envelope.signature != self._tag(domain, envelope.payload):
            raise BadSignature("the keyed hash does not fit the bytes")
        return envelope.payload

    def _tag(self, domain: Domain, payload: bytes) -> bytes:
        return hmac.digest(self._secret, domain.value.encode() + b"\0" + payload, "sha256")
