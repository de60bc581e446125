"""The agent's word on a batch: ECDSA over its key and its payload's digest.

Invariants: what is signed names site, epoch, range, kind, sealing time and payload, so that no batch passes for
another; a signature made here never verifies in another domain.

    batch --statement--> domain, NUL, canonical JSON --ECDSA P-256, SHA-256--> Batch.signature (DER)

Source: FIPS 186-5 (ECDSA over P-256), RFC 3279 section 2.2.3 (the signature's DER form).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sitelink.codec.moments import microseconds
from sitelink.signing import BadSignature, canonical, key_id
from sitelink.types import Batch

BATCH_DOMAIN: Final = b"ballast/batch/v1"
_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())


def statement(batch: Batch) -> bytes:
    """Return the bytes that are signed for ``batch``."""
    document = {
        "site_id": batch.site_id,
        "epoch": batch.epoch,
        "first_seq": batch.first_seq,
        "count": batch.count,
        "kind": batch.kind.value,
        "sealed_at_us": microseconds(batch.sealed_at),
        "payload_sha256": hashlib.sha256(batch.payload).hexdigest(),
    }
    return BATCH_DOMAIN + b"\0" + canonical(document)


class BatchSigner:
    """The agent's key, for batches. ``key_id`` names it; ``public_der`` is its SubjectPublicKeyInfo."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public_der = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.key_id = key_id(self.public_der)

    @classmethod
    def from_pem(cls, pem: bytes) -> "BatchSigner":
        """Return the signer over the private key in an unencrypted PEM.

        Raises:
            ValueError: the PEM does not hold a private key of an elliptic curve.
        """
        key = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the PEM does not hold an elliptic curve key")  # noqa: TRY004 - the content is wrong, not a type
        return cls(key)

    def sign(self, batch: Batch) -> Batch:
        """Return ``batch`` with this key's signature."""
        return replace(batch, signature=self._key.sign(statement(batch), _ALGORITHM))


class BatchKeys:
    """The public keys that a site's agents have shown, the newest first."""

    def __init__(self, public_ders: Sequence[bytes]) -> None:
        """``public_ders`` are SubjectPublicKeyInfo; raises ValueError when one is no elliptic curve key."""
        self._keys = [(key_id(der), _public(der)) for der in public_ders]

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Return the ids of the keys."""
        return tuple(name for name, _ in self._keys)

    def check(self, batch: Batch) -> str:
        """Return the id of the key that signed ``batch``.

        Raises:
            BadSignature: none of them did.
        """
        if not batch.signature:
            raise BadSignature("the batch is not signed; update this site's agent")
        said = statement(batch)
        for name, key in self._keys:
            try:
                key.verify(batch.signature, said, _ALGORITHM)
            except InvalidSignature:
                continue
            return name
        raise BadSignature("no key that this site's agents have shown signed the batch")


def _public(der: bytes) -> ec.EllipticCurvePublicKey:
    key = serialization.load_der_public_key(der)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("not an elliptic curve key")  # noqa: TRY004 - the content is wrong, not a type
    return key
