"""A batch's signature is over everything that names it, by one key, for this purpose alone."""

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from sitelink.batch_signing import BatchKeys, BatchSigner, statement
from sitelink.signing import BadSignature
from sitelink.types import Batch, BatchKind
from tests.unit.sitelink import samples

BATCH = Batch("pecos-1", "e1", 42, 6, BatchKind.CONTROL, samples.NOON, b"payload")


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def signer() -> BatchSigner:
    return BatchSigner(ec.generate_private_key(ec.SECP256R1()))


def test_a_signed_batch_is_checked_and_tells_its_key() -> None:
    old, new = signer(), signer()
    keys = BatchKeys([new.public_der, old.public_der])
    assert keys.check(old.sign(BATCH)) == old.key_id
    assert keys.check(new.sign(BATCH)) == new.key_id
    assert keys.key_ids == (new.key_id, old.key_id)


@pytest.mark.parametrize(
    "changed",
    [
        {"site_id": "pecos-2"},
        {"epoch": "e2"},
        {"first_seq": 43},
        {"count": 7},
        {"kind": BatchKind.TELEMETRY},
        {"sealed_at": samples.NOON + timedelta(microseconds=1)},
        {"payload": b"payloae"},
    ],
)
def test_nothing_of_a_signed_batch_can_be_changed(changed: dict[str, object]) -> None:
    own = signer()
    with pytest.raises(BadSignature, match="no key"):
        BatchKeys([own.public_der]).check(replace(own.sign(BATCH), **changed))  # type: ignore[arg-type]


def test_another_key_none_and_garbage_are_refused() -> None:
    own, other = signer(), signer()
    with pytest.raises(BadSignature, match="no key"):
        BatchKeys([own.public_der]).check(other.sign(BATCH))
    with pytest.raises(BadSignature, match="no key"):
        BatchKeys([own.public_der]).check(replace(BATCH, signature=b"\x30\x06garbage"))
    with pytest.raises(BadSignature, match="not signed"):
        BatchKeys([own.public_der]).check(BATCH)
    with pytest.raises(BadSignature, match="no key"):
        BatchKeys([]).check(own.sign(BATCH))


def test_what_is_signed_is_told_apart_from_every_other_domain() -> None:
    assert statement(BATCH).startswith(b"ballast/batch/v1\0{")


def test_a_key_of_another_kind_is_refused() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(ValueError, match="elliptic"):
        BatchSigner.from_pem(pem(key))
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ValueError, match="elliptic"):
        BatchKeys([der])


def test_a_key_comes_back_from_its_pem() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    again = BatchSigner.from_pem(pem(key))
    assert BatchKeys([BatchSigner(key).public_der]).check(again.sign(BATCH)) == again.key_id
