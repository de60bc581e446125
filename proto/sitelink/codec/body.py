"""The body of a batch, packed and unpacked.

Invariants: ``unpack(pack(body)) == body`` for times in whole milliseconds (readings) or microseconds (the rest) and
float values that fit 32 bits (readings); a body never inflates beyond ``MAX_PAYLOAD_BYTES``.
"""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from google.protobuf.message import DecodeError

from sitelink.codec.columns import ReadingColumns, columns_message, columns_of, readings_of, rows_message
from sitelink.codec.moments import MalformedFrame, microseconds, moment_of
from sitelink.types import Ack, BatchBody, Evidence, Gap, JournalEntry, MeterSample, Notice, NoticeCode, Outcome, Verb
from sitelink.units import Watts
from sitelink.v1 import link_pb2 as pb

MAX_PAYLOAD_BYTES: Final = 8 * 1024 * 1024
"""A batch body may not inflate beyond this; a longer one is refused as hostile."""


def pack(body: BatchBody) -> bytes:
    """Return ``body`` as compressed bytes, the payload of a batch."""
    return _packed(columns_message(body.readings), body)


def pack_rows(columns: ReadingColumns, rows: Sequence[int], rest: BatchBody) -> bytes:
    """Return as compressed bytes the readings at ``rows`` of ``columns``, and the rest of a body."""
    return _packed(rows_message(columns, rows), rest)


def unpack(payload: bytes) -> BatchBody:
    """Return the body in ``payload``.

    Raises:
        MalformedFrame: the bytes do not inflate, are too long, or are not a body of this version.
    """
    message = _inflate(payload)
    columns = columns_of(message.readings)
    try:
        return replace(_rest(message), readings=tuple(readings_of(columns)))
    except (ValueError, IndexError, OverflowError) as error:
        raise MalformedFrame(f"batch body: {error}") from None


def unpack_columns(payload: bytes) -> tuple[ReadingColumns, BatchBody]:
    """Return the readings of ``payload`` as columns, and the rest of the body (its ``readings`` left empty).

    Raises:
        MalformedFrame: as ``unpack``.
    """
    message = _inflate(payload)
    columns = columns_of(message.readings)
    try:
        return columns, _rest(message)
    except (ValueError, OverflowError) as error:
        raise MalformedFrame(f"batch body: {error}") from None


def _packed(readings: pb.ReadingColumns, rest: BatchBody) -> bytes:
    message = pb.BatchBody(
        readings=readings,
        meters=[_meter_message(sample) for sample in rest.meters],
        acks=[_ack_message(ack) for ack in rest.acks],
        notices=[_notice_message(notice) for notice in rest.notices],
        gaps=[_gap_message(gap) for gap in rest.gaps],
        journal=[_entry_message(entry) for entry in rest.journal],
    )
    return zlib.compress(message.SerializeToString(deterministic=True), level=6)


def _rest(message: pb.BatchBody) -> BatchBody:
    return BatchBody(
        meters=tuple(_meter(sample) for sample in message.meters),
        acks=tuple(_ack(ack) for ack in message.acks),
        notices=tuple(_notice(notice) for notice in message.notices),
        gaps=tuple(_gap(gap) for gap in message.gaps),
        journal=tuple(_entry(entry) for entry in message.journal),
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


def _meter_message(sample: MeterSample) -> pb.MeterSample:
    return pb.MeterSample(
        meter_id=sample.meter_id,
        read_at_us=microseconds(sample.read_at),
        power_w=sample.power_w,
        energy_wh=sample.energy_wh,
    )


def _meter(message: pb.MeterSample) -> MeterSample:
    return MeterSample(
        message.meter_id,
        moment_of(message.read_at_us),
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
        at_us=microseconds(ack.at),
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
        moment_of(message.at_us),
        Watts(message.power_before_w) if message.HasField("power_before_w") else None,
        Watts(message.power_after_w) if message.HasField("power_after_w") else None,
    )


def _notice_message(notice: Notice) -> pb.Notice:
    return pb.Notice(
        notice_id=notice.notice_id,
        at_us=microseconds(notice.at),
        code=notice.code.value,
        subject=notice.subject,
        detail=notice.detail,
    )


def _notice(message: pb.Notice) -> Notice:
    return Notice(
        message.notice_id,
        moment_of(message.at_us),
        NoticeCode(message.code),
        message.subject,
        message.detail,
    )


def _gap_message(gap: Gap) -> pb.Gap:
    return pb.Gap(
        since_us=microseconds(gap.since),
        until_us=microseconds(gap.until),
        kept_every_s=gap.kept_every_s,
        items=gap.items,
    )


def _gap(message: pb.Gap) -> Gap:
    if message.items <= 0 or message.kept_every_s < 0:
        raise ValueError(f"a gap of {message.items} items, one kept in {message.kept_every_s} s")
    return Gap(moment_of(message.since_us), moment_of(message.until_us), message.kept_every_s, message.items)


def _entry_message(entry: JournalEntry) -> pb.JournalEntry:
    return pb.JournalEntry(
        chain=entry.chain,
        seq=entry.seq,
        at_us=entry.at_us,
        trust=entry.trust,
        kind=entry.kind,
        subject=entry.subject,
        detail=entry.detail,
        previous=entry.previous,
        hash=entry.hash,
    )


def _entry(message: pb.JournalEntry) -> JournalEntry:
    return JournalEntry(
        message.chain,
        message.seq,
        message.at_us,
        message.trust,
        message.kind,
        message.subject,
        message.detail,
        message.previous,
        message.hash,
    )
