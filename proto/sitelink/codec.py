"""Values to link messages and back.

Invariants:

* ``unpack(pack(body)) == body`` for times in whole milliseconds (readings) or microseconds (everything else) and
  float values that fit 32 bits (readings).
* Missing travels as NaN in float columns and -1 in integer columns, and comes back as None, never as zero.
* A code unknown to this side raises ``MalformedFrame`` rather than being guessed at.
"""

import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from google.protobuf.message import DecodeError

from sitelink.types import (
    Ack,
    Batch,
    BatchBody,
    BatchKind,
    ClockTrust,
    Cursor,
    Domain,
    DownFrame,
    Envelope,
    Evidence,
    Heartbeat,
    Hello,
    MeterSample,
    MinerState,
    Notice,
    NoticeCode,
    Outcome,
    PowerSource,
    Reading,
    Reason,
    Receipt,
    UpFrame,
    Verb,
    Welcome,
)
from sitelink.units import Celsius, RevolutionsPerMinute, TeraHashPerSecond, Watts
from sitelink.v1 import link_pb2 as pb

MAX_PAYLOAD_BYTES: Final = 8 * 1024 * 1024
"""A batch body may not inflate beyond this; a longer one is refused as hostile."""

STATES: Final = tuple(MinerState)
REASONS: Final = tuple(Reason)
POWER_SOURCES: Final = tuple(PowerSource)
_KINDS: Final = {
    BatchKind.TELEMETRY: pb.BATCH_KIND_TELEMETRY,
    BatchKind.CONTROL: pb.BATCH_KIND_CONTROL,
}
_KIND_OF: Final = {number: kind for kind, number in _KINDS.items()}
_STATE_NUMBER: Final = {state: number for number, state in enumerate(STATES)}
_REASON_NUMBER: Final = {reason: number for number, reason in enumerate(REASONS)}
_SOURCE_NUMBER: Final = {source: number for number, source in enumerate(POWER_SOURCES)}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAN: Final = float("nan")
_Unit = TypeVar("_Unit", bound=float)


class MalformedFrame(Exception):
    """The bytes are not a frame or body of this version; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class ReadingColumns:
    """Readings as columns of equal length, for code that must not pay for one object a reading.

    ``state``, ``reason`` and ``power_source`` are indexes into ``STATES``, ``REASONS`` and ``POWER_SOURCES``.
    Missing is NaN in float columns, -1 in integer columns.
    """

    miner_id: Sequence[str]
    read_at_ms: Sequence[int]
    state: Sequence[int]
    reason: Sequence[int]
    hashrate_ths: Sequence[float]
    power_w: Sequence[float]
    power_source: Sequence[int]
    board_temp_c: Sequence[float]
    chip_temp_c: Sequence[float]
    fan_rpm: Sequence[int]
    accepted: Sequence[int]
    rejected: Sequence[int]
    uptime_s: Sequence[int]

    def __len__(self) -> int:
        return len(self.miner_id)


def pack(body: BatchBody) -> bytes:
    """Return ``body`` as compressed bytes, the payload of a batch."""
    message = pb.BatchBody(
        readings=_columns_message(body.readings),
        meters=[_meter_message(sample) for sample in body.meters],
        acks=[_ack_message(ack) for ack in body.acks],
        notices=[_notice_message(notice) for notice in body.notices],
    )
    return zlib.compress(message.SerializeToString(deterministic=True), level=6)


def unpack(payload: bytes) -> BatchBody:
    """Return the body in ``payload``.

    Raises:
        MalformedFrame: the bytes do not inflate, are too long, or are not a body of this version.
    """
    message = _inflate(payload)
    columns = _columns(message.readings)
    try:
        return BatchBody(
            readings=tuple(_readings(columns)),
            meters=tuple(_meter(sample) for sample in message.meters),
            acks=tuple(_ack(ack) for ack in message.acks),
            notices=tuple(_notice(notice) for notice in message.notices),
        )
    except (ValueError, IndexError, OverflowError) as error:
        raise MalformedFrame(f"batch body: {error}") from None


def unpack_columns(payload: bytes) -> tuple[ReadingColumns, BatchBody]:
    """Return the readings of ``payload`` as columns, and the rest of the body (its ``readings`` left empty).

    Raises:
        MalformedFrame: as ``unpack``.
    """
    message = _inflate(payload)
    columns = _columns(message.readings)
    try:
        rest = BatchBody(
            meters=tuple(_meter(sample) for sample in message.meters),
            acks=tuple(_ack(ack) for ack in message.acks),
            notices=tuple(_notice(notice) for notice in message.notices),
        )
    except (ValueError, OverflowError) as error:
        raise MalformedFrame(f"batch body: {error}") from None
    return columns, rest


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
                sealed_at_us=_microseconds(frame.sealed_at),
                payload=frame.payload,
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
            return Welcome(Cursor(welcome.site_id, welcome.epoch, welcome.through_seq))
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


def _batch(message: pb.Batch) -> Batch:
    if message.count <= 0 or message.first_seq < 0:
        raise ValueError(f"batch at {message.first_seq} with {message.count} items")
    return Batch(
        message.site_id,
        message.epoch,
        message.first_seq,
        message.count,
        _KIND_OF[message.kind],
        _moment(message.sealed_at_us),
        message.payload,
    )


def _inflate(payload: bytes) -> pb.BatchBody:
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(payload, MAX_PAYLOAD_BYTES)
        if inflater.unconsumed_tail or not inflater.eof:
            raise MalformedFrame(f"batch body: truncated, or longer than {MAX_PAYLOAD_BYTES} bytes")
        return pb.BatchBody.FromString(raw)
    except (zlib.error, DecodeError) as error:
        raise MalformedFrame(f"batch body: {error}") from None


def _columns_message(readings: Sequence[Reading]) -> pb.ReadingColumns:
    times = [_milliseconds(reading.read_at) for reading in readings]
    base = times[0] if times else 0
    return pb.ReadingColumns(
        miner_id=[reading.miner_id for reading in readings],
        base_time_ms=base,
        read_at_delta_ms=[moment - base for moment in times],
        state=[_STATE_NUMBER[reading.state] for reading in readings],
        reason=[_REASON_NUMBER[reading.reason] for reading in readings],
        hashrate_ths=_floats(reading.hashrate_ths for reading in readings),
        power_w=_floats(reading.power_w for reading in readings),
        power_source=[_SOURCE_NUMBER[reading.power_source] for reading in readings],
        board_temp_c=_floats(reading.board_temp_c for reading in readings),
        chip_temp_c=_floats(reading.chip_temp_c for reading in readings),
        fan_rpm=_integers(reading.fan_rpm for reading in readings),
        accepted=_integers(reading.accepted for reading in readings),
        rejected=_integers(reading.rejected for reading in readings),
        uptime_s=_integers(reading.uptime_s for reading in readings),
    )


def _columns(message: pb.ReadingColumns) -> ReadingColumns:
    base = message.base_time_ms
    columns = ReadingColumns(
        message.miner_id,
        [base + delta for delta in message.read_at_delta_ms],
        message.state,
        message.reason,
        message.hashrate_ths,
        message.power_w,
        message.power_source,
        message.board_temp_c,
        message.chip_temp_c,
        message.fan_rpm,
        message.accepted,
        message.rejected,
        message.uptime_s,
    )
    expected = len(columns)
    for name in ReadingColumns.__slots__:
        if len(getattr(columns, name)) != expected:
            raise MalformedFrame(f"batch body: column {name} does not have {expected} entries")
    for name, known in (
        ("state", STATES),
        ("reason", REASONS),
        ("power_source", POWER_SOURCES),
    ):
        highest = max(getattr(columns, name), default=0)
        if highest >= len(known):
            raise MalformedFrame(f"batch body: column {name} holds the unknown code {highest}")
    return columns


def _readings(columns: ReadingColumns) -> Iterable[Reading]:
    for row in range(len(columns)):
        yield Reading(
            miner_id=columns.miner_id[row],
            read_at=_EPOCH + timedelta(milliseconds=columns.read_at_ms[row]),
            state=STATES[columns.state[row]],
            reason=REASONS[columns.reason[row]],
            hashrate_ths=_known(columns.hashrate_ths[row], TeraHashPerSecond),
            power_w=_known(columns.power_w[row], Watts),
            power_source=POWER_SOURCES[columns.power_source[row]],
            board_temp_c=_known(columns.board_temp_c[row], Celsius),
            chip_temp_c=_known(columns.chip_temp_c[row], Celsius),
            fan_rpm=None if columns.fan_rpm[row] < 0 else RevolutionsPerMinute(columns.fan_rpm[row]),
            accepted=_known_integer(columns.accepted[row]),
            rejected=_known_integer(columns.rejected[row]),
            uptime_s=_known_integer(columns.uptime_s[row]),
        )


def _meter_message(sample: MeterSample) -> pb.MeterSample:
    return pb.MeterSample(
        meter_id=sample.meter_id,
        read_at_us=_microseconds(sample.read_at),
        power_w=sample.power_w,
        energy_wh=sample.energy_wh,
    )


def _meter(message: pb.MeterSample) -> MeterSample:
    return MeterSample(
        message.meter_id,
        _moment(message.read_at_us),
        Watts(message.power_w) if message.HasField("power_w") else None,
        message.energy_wh if message.HasField("energy_wh") else None,
    )


def _ack_message(ack: Ack) -> pb.Ack:
    return pb.Ack(
        ack_id=ack.ack_id,
        order_id=ack.order_id,
        plan_revision=ack.plan_revision,
        miner_id=ack.miner_id,
        verb=ack.verb.value,
        outcome=ack.outcome.value,
        evidence=ack.evidence.value,
        reason=ack.reason,
        at_us=_microseconds(ack.at),
        power_before_w=ack.power_before_w,
        power_after_w=ack.power_after_w,
    )


def _ack(message: pb.Ack) -> Ack:
    return Ack(
        message.ack_id,
        message.order_id,
        message.plan_revision,
        message.miner_id,
        Verb(message.verb),
        Outcome(message.outcome),
        Evidence(message.evidence),
        message.reason,
        _moment(message.at_us),
        Watts(message.power_before_w) if message.HasField("power_before_w") else None,
        Watts(message.power_after_w) if message.HasField("power_after_w") else None,
    )


def _notice_message(notice: Notice) -> pb.Notice:
    return pb.Notice(
        notice_id=notice.notice_id,
        at_us=_microseconds(notice.at),
        code=notice.code.value,
        subject=notice.subject,
        detail=notice.detail,
    )


def _notice(message: pb.Notice) -> Notice:
    return Notice(
        message.notice_id,
        _moment(message.at_us),
        NoticeCode(message.code),
        message.subject,
        message.detail,
    )


def _floats(values: Iterable[float | None]) -> list[float]:
    return [_NAN if value is None else value for value in values]


def _integers(values: Iterable[int | None]) -> list[int]:
    return [-1 if value is None else value for value in values]


def _known(value: float, unit: Callable[[float], _Unit]) -> _Unit | None:
    return None if math.isnan(value) else unit(value)


def _known_integer(value: int) -> int | None:
    return None if value < 0 else value


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
