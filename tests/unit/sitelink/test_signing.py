"""A signature holds for exactly the bytes, the domain and the keys it was made for."""

import dataclasses

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from sitelink.signing import BadSignature, KeyRing, PrivateKey, canonical
from sitelink.types import Domain

KEY = PrivateKey.generate()
RING = KeyRing((KEY.public_bytes,))


def test_a_sealed_payload_opens() -> None:
    envelope = KEY.sign(Domain.PLAN, b"payload")
    assert RING.open(envelope, Domain.PLAN) == b"payload"
    assert RING.key_ids == (KEY.key_id,)


def test_another_domain_is_refused_both_ways() -> None:
    envelope = KEY.sign(Domain.TIME, b"payload")
    with pytest.raises(BadSignature, match="not for"):
        RING.open(envelope, Domain.PLAN)
    with pytest.raises(BadSignature, match="does not fit"):
        RING.open(dataclasses.replace(envelope, domain=Domain.PLAN), Domain.PLAN)


def test_an_unknown_key_is_refused_by_name() -> None:
    stranger = PrivateKey.generate()
    with pytest.raises(BadSignature, match=stranger.key_id):
        RING.open(stranger.sign(Domain.PLAN, b"payload"), Domain.PLAN)


@given(st.binary(min_size=1, max_size=64), st.data())
def test_any_changed_byte_is_refused(payload: bytes, data: st.DataObject) -> None:
    envelope = KEY.sign(Domain.PLAN, payload)
    place = data.draw(st.integers(0, len(payload) - 1))
    flip = data.draw(st.integers(1, 255))
    forged = payload[:place] + bytes([payload[place] ^ flip]) + payload[place + 1 :]
    with pytest.raises(BadSignature):
        RING.open(dataclasses.replace(envelope, payload=forged), Domain.PLAN)


def test_keys_survive_pem() -> None:
    again = PrivateKey.from_pem(KEY.to_pem())
    assert again.key_id == KEY.key_id
    with pytest.raises(ValueError, match=r"PEM|deserialize|key"):
        PrivateKey.from_pem(b"-----BEGIN NOTHING-----\n-----END NOTHING-----\n")


def test_canonical_bytes_do_not_depend_on_order() -> None:
    assert canonical({"b": 1, "a": "ü"}) == canonical({"a": "ü", "b": 1}) == '{"a":"ü","b":1}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"a": float("nan")})


def test_a_key_of_another_kind_is_refused() -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(ValueError, match="does not hold an Ed25519 private key"):
        PrivateKey.from_pem(pem)
