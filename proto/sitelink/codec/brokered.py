"""What passes through a broker, as bytes and back. Raises MalformedFrame for whatever is not of this version."""

from typing import Final

from google.protobuf.message import DecodeError

from sitelink.codec.moments import MalformedFrame
from sitelink.types import Brokered, Closed, Opened, Opening, Sealed
from sitelink.v1 import link_pb2 as pb

_LONGEST_SILENCE_S: Final = 3600.0


def encode_brokered(message: Brokered) -> bytes:
    """Return ``message`` as the bytes that are signed."""
    made = pb.Brokered(connection=message.connection, number=message.number)
    match message.content:
        case Opening(certificate_pem, silence_s):
            made.opening.certificate_pem = certificate_pem
            made.opening.silence_ms = round(silence_s * 1000)
        case Opened():
            made.opened.SetInParent()
        case Closed(code, reason):
            made.closed.code = code
            made.closed.reason = reason
        case bytes() as frame:
            made.frame = frame
    return made.SerializeToString()


def decode_brokered(content: bytes) -> Brokered:
    """Return the message in ``content``.

    Raises:
        MalformedFrame: it is not one, or of a later version.
    """
    try:
        found = pb.Brokered.FromString(content)
    except DecodeError as error:
        raise MalformedFrame(f"brokered: {error}") from None
    inner: Opening | Opened | Closed | bytes
    match found.WhichOneof("content"):
        case "opening":
            silence_s = found.opening.silence_ms / 1000
            if not 0 < silence_s <= _LONGEST_SILENCE_S:
                raise MalformedFrame(f"brokered: silent for {silence_s:g} s at most, which is no such time")
            inner = Opening(found.opening.certificate_pem, silence_s)
        case "opened":
            inner = Opened()
        case "closed":
            inner = Closed(found.closed.code, found.closed.reason)
        case "frame":
            inner = found.frame
        case _:
            raise MalformedFrame("brokered: empty or of a later version")
    return Brokered(found.connection, found.number, inner)


def encode_sealed(sealed: Sealed) -> bytes:
    """Return ``sealed`` as it is published."""
    return pb.Sealed(content=sealed.content, signature=sealed.signature, key_id=sealed.key_id).SerializeToString()


def decode_sealed(raw: bytes) -> Sealed:
    """Return what was published as ``raw``.

    Raises:
        MalformedFrame: it is no message of this link.
    """
    try:
        found = pb.Sealed.FromString(raw)
    except DecodeError as error:
        raise MalformedFrame(f"sealed: {error}") from None
    return Sealed(found.content, found.signature, found.key_id)
