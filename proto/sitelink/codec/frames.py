"""The frames of the link as messages, and back. Raises MalformedFrame rather than guess at a code unknown here."""

from typing import Final

from sitelink.codec.moments import MalformedFrame, microseconds, moment_of
from sitelink.types import (
    Batch,
    BatchKind,
    ClockTrust,
    Cursor,
    Domain,
    DownFrame,
    Envelope,
    Heartbeat,
    Hello,
    OrderNumber,
    Receipt,
    UpFrame,
    Welcome,
)
from sitelink.v1 import link_pb2 as pb

_KINDS: Final = {
    BatchKind.TELEMETRY: pb.BATCH_KIND_TELEMETRY,
    BatchKind.CONTROL: pb.BATCH_KIND_CONTROL,
}
_LARGEST_NUMBER: Final = 2**53
_KIND_OF: Final = {number: kind for kind, number in _KINDS.items()}


def encode_up(frame: UpFrame) -> pb.Up:
    """Return ``frame`` as the message an agent sends."""
    match frame:
        case Hello():
            hello = pb.Hello(
                site_id=frame.site_id,
                agent_id=frame.agent_id,
                agent_version=frame.agent_version,
                epoch=frame.epoch,
                next_seq=frame.next_seq,
                plan_revision=frame.plan_revision,
                key_ids=frame.key_ids,
                highest_signing_epoch=frame.highest.signing_epoch,
                highest_sequence=frame.highest.sequence,
                highest_order_id=frame.highest_order_id,
                instance_id=frame.instance_id,
                generation=frame.generation,
            )
            return pb.Up(hello=hello)
        case Heartbeat():
            heartbeat = pb.Heartbeat(
                nonce=frame.nonce,
                plan_revision=frame.plan_revision,
                clock_trust=frame.clock_trust.value,
                backlog_batches=frame.backlog_batches,
                backlog_bytes=frame.backlog_bytes,
                next_seq=frame.next_seq,
            )
            return pb.Up(heartbeat=heartbeat)
        case Batch():
            batch = pb.Batch(
                site_id=frame.site_id,
                epoch=frame.epoch,
                first_seq=frame.first_seq,
                count=frame.count,
                kind=_KINDS[frame.kind],
                sealed_at_us=microseconds(frame.sealed_at),
                payload=frame.payload,
                signature=frame.signature,
            )
            return pb.Up(batch=batch)


def decode_up(message: pb.Up) -> UpFrame:
    """Return the frame in ``message``.

    Raises:
        MalformedFrame: the message is empty or holds a value of another version.
    """
    try:
        match message.WhichOneof("frame"):
            case "hello":
                hello = message.hello
                return Hello(
                    hello.site_id,
                    hello.agent_id,
                    hello.agent_version,
                    hello.epoch,
                    hello.next_seq,
                    hello.plan_revision,
                    tuple(hello.key_ids),
                    _number(hello.highest_signing_epoch, hello.highest_sequence),
                    hello.highest_order_id,
                    hello.instance_id,
                    hello.generation,
                )
            case "heartbeat":
                beat = message.heartbeat
                return Heartbeat(
                    beat.nonce,
                    beat.plan_revision,
                    ClockTrust(beat.clock_trust),
                    beat.backlog_batches,
                    beat.backlog_bytes,
                    beat.next_seq,
                )
            case "batch":
                return _batch(message.batch)
    except (ValueError, KeyError, OverflowError) as error:
        raise MalformedFrame(f"up frame: {error}") from None
    raise MalformedFrame("up frame: empty or of a later version")


def encode_down(frame: DownFrame) -> pb.Down:
    """Return ``frame`` as the message the cloud sends."""
    match frame:
        case Welcome(cursor):
            return pb.Down(
                welcome=pb.Welcome(
                    site_id=cursor.site_id,
                    epoch=cursor.epoch,
                    through_seq=cursor.through_seq,
                    beyond=[pb.SeqRange(first_seq=first, last_seq=last) for first, last in cursor.beyond],
                )
            )
        case Receipt():
            receipt = pb.Receipt(
                site_id=frame.site_id,
                epoch=frame.epoch,
                first_seq=frame.first_seq,
                last_seq=frame.last_seq,
                through_seq=frame.through_seq,
            )
            return pb.Down(receipt=receipt)
        case Envelope():
            envelope = pb.Envelope(
                domain=frame.domain.value,
                key_id=frame.key_id,
                payload=frame.payload,
                signature=frame.signature,
            )
            return pb.Down(envelope=envelope)


def decode_down(message: pb.Down) -> DownFrame:
    """Return the frame in ``message``.

    Raises:
        MalformedFrame: the message is empty or holds a value of another version.
    """
    match message.WhichOneof("frame"):
        case "welcome":
            welcome = message.welcome
            beyond = tuple((held.first_seq, held.last_seq) for held in welcome.beyond)
            return Welcome(Cursor(welcome.site_id, welcome.epoch, welcome.through_seq, beyond))
        case "receipt":
            receipt = message.receipt
            return Receipt(
                receipt.site_id,
                receipt.epoch,
                receipt.first_seq,
                receipt.last_seq,
                receipt.through_seq,
            )
        case "envelope":
            sealed = message.envelope
            try:
                domain = Domain(sealed.domain)
            except ValueError as error:
                raise MalformedFrame(f"down frame: {error}") from None
            return Envelope(domain, sealed.key_id, sealed.payload, sealed.signature)
    raise MalformedFrame("down frame: empty or of a later version")


def _number(signing_epoch: int, sequence: int) -> OrderNumber:
    if not (0 <= signing_epoch <= _LARGEST_NUMBER and 0 <= sequence <= _LARGEST_NUMBER):
        raise ValueError(f"no order has the number {signing_epoch}.{sequence}")
    return OrderNumber(signing_epoch, sequence)


def _batch(message: pb.Batch) -> Batch:
    if message.count <= 0 or message.first_seq < 0:
        raise ValueError(f"batch at {message.first_seq} with {message.count} items")
    return Batch(
        message.site_id,
        message.epoch,
        message.first_seq,
        message.count,
        _KIND_OF[message.kind],
        moment_of(message.sealed_at_us),
        message.payload,
        message.signature,
    )
