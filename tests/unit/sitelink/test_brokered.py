"""What passes through a broker: whose it is and when it was said is sealed; nothing is taken twice."""

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from sitelink import codec
from sitelink.brokered import (
    ANY,
    HALF_BYTES,
    AgentKey,
    AgentSeal,
    Topics,
    Window,
    open_down,
    read_topic,
    seal_down,
)
from sitelink.codec import MalformedFrame
from sitelink.signing import BadSignature, KeyRing, PrivateKey
from sitelink.types import Brokered, Closed, Opened, Opening, Sealed
from sitelink.v1 import link_pb2 as pb

TOPICS = Topics("t1", "pecos-1", "pecos-1-ab")
OTHER = Topics("t1", "pecos-1", "pecos-1-cd")
NAME = bytes(range(2 * HALF_BYTES))


def leaf() -> tuple[bytes, bytes]:
    """A key and a certificate of it, both PEM."""
    key, name, then = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(then).not_valid_after(then.replace(year=2027))
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain), certificate


@pytest.mark.parametrize(
    "content", [Opening(b"-----BEGIN", 15.0), Opened(), Closed("UNAVAILABLE", "again"), b"", b"\x00frame"]
)
def test_a_message_survives_the_wire(content: Opening | Opened | Closed | bytes) -> None:
    message = Brokered(NAME, 7, content)
    assert codec.decode_brokered(codec.encode_brokered(message)) == message
    sealed = Sealed(codec.encode_brokered(message), b"signature", "key")
    assert codec.decode_sealed(codec.encode_sealed(sealed)) == sealed


def test_the_wire_does_not_drift() -> None:
    assert codec.encode_brokered(Brokered(b"C", 1, Opening(b"P", 15.0))).hex() == "0a014310011a060a015010987 5".replace(
        " ", ""
    )
    assert codec.encode_brokered(Brokered(b"C", 2, Opened())).hex() == "0a014310022200"
    assert codec.encode_brokered(Brokered(b"C", 3, Closed("A", "B"))).hex() == "0a014310032a060a0141120142"
    assert codec.encode_brokered(Brokered(b"C", 4, b"F")).hex() == "0a01431004320146"
    assert codec.encode_sealed(Sealed(b"M", b"S", "k")).hex() == "0a014d1201531a016b"


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff\xff",
        b"",
        pb.Brokered(connection=b"C").SerializeToString(),
        pb.Brokered(opening=pb.Opening(silence_ms=0)).SerializeToString(),
        pb.Brokered(opening=pb.Opening(silence_ms=-5)).SerializeToString(),
        pb.Brokered(opening=pb.Opening(silence_ms=10**12)).SerializeToString(),
    ],
)
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedFrame):
        codec.decode_brokered(raw)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(raw: bytes) -> None:
    for decode in (codec.decode_brokered, codec.decode_sealed):
        try:
            decode(raw)
        except MalformedFrame:
            continue


def test_topics_are_read_back_and_others_refused() -> None:
    assert TOPICS.up == "ballast/v1/t1/pecos-1/pecos-1-ab/up"
    for kind in ("up", "down", "state"):
        assert read_topic(getattr(TOPICS, kind)) == (TOPICS, kind)
    assert Topics(ANY, ANY, ANY).up == "ballast/v1/+/+/+/up"
    for bad in (
        "",
        "ballast/v1/t/s/up",
        "ballast/v2/t/s/a/up",
        "ballast/v1/t/s/a/left",
        "ballast/v1/t//a/up",
        "x/" * 9,
    ):
        with pytest.raises(ValueError, match="no topic of the link"):
            read_topic(bad)


def test_what_an_agent_sealed_opens_with_its_certificate_on_its_topic_alone() -> None:
    (key, certificate), (_, other) = leaf(), leaf()
    sealed = AgentKey(key).seal(TOPICS.up, b"said")
    seal = AgentSeal(certificate)
    assert seal.open(TOPICS.up, sealed) == b"said"
    changed = Sealed(b"Said", sealed.signature)
    for wrong, topic, what in ((seal, OTHER.up, sealed), (seal, TOPICS.state, sealed), (seal, TOPICS.up, changed),
                               (AgentSeal(other), TOPICS.up, sealed)):  # fmt: skip
        with pytest.raises(BadSignature):
            wrong.open(topic, what)


def test_what_the_cloud_sealed_opens_with_its_key_on_its_topic_alone() -> None:
    key, other = PrivateKey.generate(), PrivateKey.generate()
    ring = KeyRing((key.public_bytes,))
    sealed = seal_down(key, TOPICS.down, b"said")
    assert open_down(ring, TOPICS.down, sealed) == b"said"
    for topic, what in (
        (OTHER.down, sealed),
        (TOPICS.down, Sealed(b"Said", sealed.signature, sealed.key_id)),
        (TOPICS.down, seal_down(other, TOPICS.down, b"said")),
        (TOPICS.down, Sealed(b"said", sealed.signature, "")),
    ):
        with pytest.raises(BadSignature):
            open_down(ring, topic, what)


def test_keys_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="ECDSA"):
        AgentKey(PrivateKey.generate().to_pem())
    with pytest.raises(ValueError, match="PEM"):
        AgentSeal(b"no certificate")


@given(st.lists(st.integers(min_value=-5, max_value=6000), max_size=60))
def test_no_number_is_taken_twice_and_none_near_the_highest_is_lost(numbers: list[int]) -> None:
    window, taken = Window(), set()
    for number in numbers:
        fresh = number >= 0 and number not in taken and number > max(taken, default=-1) - 4096
        assert window.take(number) == fresh
        if fresh:
            taken.add(number)
