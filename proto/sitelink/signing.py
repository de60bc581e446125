"""Ed25519 over domain-tagged canonical bytes.

Invariant: the bytes that were signed are the bytes that are parsed; nothing is re-serialised to verify.

    payload --canonical JSON--> bytes --domain, NUL in front--> Ed25519 --> Envelope(domain, key_id, payload, signature)

Source: RFC 8032 (Ed25519); canonical form: sorted keys, no white space, UTF-8, as RFC 8785 for the types used here
(strings, integers, booleans, null, arrays, objects; floats only as shortest repr).
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from sitelink.types import Domain, Envelope


class BadSignature(Exception):
    """The envelope is not signed by a trusted key for the expected domain; its content must be ignored."""


class Signer(Protocol):
    """Signs bytes for one domain."""

    def sign(self, domain: Domain, payload: bytes) -> Envelope:
        """Return ``payload`` sealed for ``domain``."""
        ...


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON bytes of ``document``.

    Raises:
        ValueError: a float is not finite.
        TypeError: a value has no JSON form.
    """
    text = json.dumps(
        document,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return text.encode("utf-8")


def key_id(public_key: bytes) -> str:
    """Return the short name of a raw 32-byte public key: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def fingerprint(public_key_der: bytes) -> str:
    """Return what two people compare of a public key: eight groups of four hex digits of its SHA-256."""
    digits = hashlib.sha256(public_key_der).hexdigest()[:32]
    return "-".join(digits[place : place + 4] for place in range(0, 32, 4))


class PrivateKey:
    """An Ed25519 signing key held in memory."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_bytes = key.public_key().public_bytes_raw()
        self.key_id = key_id(self.public_bytes)

    @classmethod
    def generate(cls) -> "PrivateKey":
        """Return a new key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> "PrivateKey":
        """Return the key in an unencrypted PKCS#8 PEM.

        Raises:
            ValueError: the PEM does not hold an Ed25519 private key.
        """
        key = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("the PEM does not hold an Ed25519 private key")  # noqa: TRY004 - the content is wrong, not a type
        return cls(key)

    def to_pem(self) -> bytes:
        """Return the key as unencrypted PKCS#8 PEM."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(self, domain: Domain, payload: bytes) -> Envelope:
        """Return ``payload`` sealed for ``domain``."""
        return Envelope(domain, self.key_id, payload, self._key.sign(_tagged(domain, payload)))


class KeyRing:
    """The public keys an agent trusts (the current one and the next), by key id."""

    def __init__(self, public_keys: tuple[bytes, ...]) -> None:
        self._keys = {key_id(raw): Ed25519PublicKey.from_public_bytes(raw) for raw in public_keys}

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Return the ids of the trusted keys."""
        return tuple(self._keys)

    def open(self, envelope: Envelope, domain: Domain) -> bytes:
        """Return the payload of ``envelope`` when a trusted key signed it for ``domain``.

        Raises:
            BadSignature: another domain, an unknown key, or a signature that does not fit.
        """
        if envelope.domain != domain:
            raise BadSignature(f"signed for {envelope.domain}, not for {domain}")
        key = self._keys.get(envelope.key_id)
        if key is None:
            raise BadSignature(f"key {envelope.key_id} is not trusted here; enrol again to learn new keys")
        try:
            key.verify(envelope.signature, _tagged(domain, envelope.payload))
        except InvalidSignature:
            raise BadSignature(f"the signature of key {envelope.key_id} does not fit the bytes") from None
        return envelope.payload


def _tagged(domain: Domain, payload: bytes) -> bytes:
    return domain.value.encode("ascii") + b"\0" + payload
