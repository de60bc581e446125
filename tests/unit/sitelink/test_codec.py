"""Frames and bodies survive the wire; bytes from elsewhere are refused; the wire itself does not drift."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from sitelink import codec
from sitelink.codec import MalformedFrame
from sitelink.signing import PrivateKey
from sitelink.types import (
    Batch,
    BatchBody,
    BatchKind,
    Cursor,
    Domain,
    DownFrame,
    Envelope,
    Gap,
    MinerState,
    PowerSource,
    Reading,
    Reason,
    Receipt,
    UpFrame,
    Welcome,
)
from sitelink.units import Celsius, RevolutionsPerMinute, TeraHashPerSecond, Watts
from sitelink.v1 import link_pb2 as pb
from tests.unit.sitelink import samples

BATCH = Batch("pecos-1", "e1", 42, 6, BatchKind.CONTROL, samples.NOON, b"payload")


def _as_32_bits(value: float) -> float:
    (kept,) = struct.unpack("f", struct.pack("f", value))
    return float(kept)


floats = st.none() | st.floats(min_value=0, max_value=1e6).map(_as_32_bits)
counts = st.none() | st.integers(0, 2**40)
readings = st.builds(
    Reading,
    miner_id=st.text(max_size=20),
    read_at=st.integers(0, 10**9).map(lambda ms: samples.NOON + timedelta(milliseconds=ms)),
    state=st.sampled_from(MinerState),
    reason=st.sampled_from(Reason),
    hashrate_ths=floats.map(lambda v: None if v is None else TeraHashPerSecond(v)),
    power_w=floats.map(lambda v: None if v is None else Watts(v)),
    power_source=st.sampled_from(PowerSource),
    board_temp_c=floats.map(lambda v: None if v is None else Celsius(v)),
    chip_temp_c=floats.map(lambda v: None if v is None else Celsius(v)),
    fan_rpm=st.none() | st.integers(0, 20_000).map(RevolutionsPerMinute),
    accepted=counts,
    rejected=counts,
    uptime_s=counts,
)


@given(st.lists(readings, max_size=6), st.data())
def test_some_rows_of_a_body_are_packed_as_if_they_had_been_alone(drawn: list[Reading], data: st.DataObject) -> None:
    rows = sorted(data.draw(st.sets(st.sampled_from(range(len(drawn))))) if drawn else ())
    gap = Gap(samples.NOON, samples.NOON + timedelta(hours=1), 900, 7)
    columns, _ = codec.unpack_columns(codec.pack(BatchBody(readings=tuple(drawn))))
    kept = BatchBody(readings=tuple(drawn[row] for row in rows), gaps=(gap,))
    assert codec.pack_rows(columns, rows, BatchBody(gaps=(gap,))) == codec.pack(kept)
    assert codec.unpack(codec.pack(kept)) == kept


@pytest.mark.parametrize(("items", "kept_every_s"), [(0, 60), (-1, 60), (1, -1)])
def test_a_gap_that_cannot_be_is_refused(items: int, kept_every_s: int) -> None:
    raw = pb.BatchBody(gaps=[pb.Gap(items=items, kept_every_s=kept_every_s)]).SerializeToString()
    with pytest.raises(MalformedFrame, match="a gap of"):
        codec.unpack_columns(zlib.compress(raw))


@given(st.lists(readings, max_size=5))
def test_readings_survive(drawn: list[Reading]) -> None:
    body = BatchBody(readings=tuple(drawn))
    assert codec.unpack(codec.pack(body)) == body


def test_a_whole_body_survives_as_values_and_as_columns() -> None:
    payload = codec.pack(samples.BODY)
    assert codec.unpack(payload) == samples.BODY
    columns, rest = codec.unpack_columns(payload)
    assert len(columns) == 2
    assert rest == replace(samples.BODY, readings=())
    assert codec.STATES[columns.state[1]] is MinerState.UNKNOWN
    assert columns.power_w[1] != columns.power_w[1]  # NaN: unknown, not zero
    assert columns.fan_rpm[1] == -1


@pytest.mark.parametrize("frame", [samples.HELLO, samples.FULL_HELLO, samples.HEARTBEAT, BATCH])
def test_up_frames_survive(frame: UpFrame) -> None:
    assert codec.decode_up(pb.Up.FromString(codec.encode_up(frame).SerializeToString())) == frame


@pytest.mark.parametrize(
    "frame",
    [
        Welcome(Cursor("pecos-1", "e1", -1)),
        Welcome(Cursor("pecos-1", "e1", 41, ((50, 59), (70, 70)))),
        Receipt("pecos-1", "e1", 5, 9, 9),
        PrivateKey.generate().sign(Domain.PLAN, b"plan"),
    ],
)
def test_down_frames_survive(frame: DownFrame) -> None:
    assert codec.decode_down(pb.Down.FromString(codec.encode_down(frame).SerializeToString())) == frame


def _bent_body(bend: Callable[[pb.BatchBody], None]) -> bytes:
    message = pb.BatchBody.FromString(zlib.decompress(codec.pack(samples.BODY)))
    bend(message)
    return zlib.compress(message.SerializeToString())


def _set_state(message: pb.BatchBody) -> None:
    message.readings.state[0] = 99


def _shorten_power(message: pb.BatchBody) -> None:
    del message.readings.power_w[-1]


def _rename_verb(message: pb.BatchBody) -> None:
    message.acks[0].verb = "explode"


def _rename_notice(message: pb.BatchBody) -> None:
    message.notices[0].code = "gossip"


@pytest.mark.parametrize(
    ("payload", "cause"),
    [
        (b"not zlib", "header"),
        (zlib.compress(b"\xff\xff\xff"), "body"),
        (codec.pack(samples.BODY)[:-9], "truncated"),
        (zlib.compress(bytes(codec.MAX_PAYLOAD_BYTES + 1)), "longer than"),
        (_bent_body(_shorten_power), "column power_w"),
        (_bent_body(_rename_verb), "explode"),
        (_bent_body(_rename_notice), "gossip"),
    ],
)
def test_a_bad_body_is_refused_with_its_cause(payload: bytes, cause: str) -> None:
    with pytest.raises(MalformedFrame, match=cause):
        codec.unpack(payload)
    with pytest.raises(MalformedFrame, match=cause):
        codec.unpack_columns(payload)


def test_a_state_of_a_later_version_is_refused() -> None:
    with pytest.raises(MalformedFrame):
        codec.unpack(_bent_body(_set_state))
    with pytest.raises(MalformedFrame):
        codec.unpack_columns(_bent_body(_set_state))


@given(st.binary(max_size=100))
def test_any_bytes_are_refused_or_understood(payload: bytes) -> None:
    for read in (codec.unpack, codec.unpack_columns):
        with pytest.raises(MalformedFrame):
            read(payload)


def test_frames_of_another_version_are_refused() -> None:
    bad_up = [
        pb.Up(),
        pb.Up(heartbeat=pb.Heartbeat(clock_trust="hopeful")),
        pb.Up(batch=pb.Batch(count=0, kind=pb.BATCH_KIND_CONTROL)),
        pb.Up(batch=pb.Batch(count=1)),
        pb.Up(batch=pb.Batch(count=1, kind=pb.BATCH_KIND_CONTROL, sealed_at_us=2**62)),
    ]
    for message in bad_up:
        with pytest.raises(MalformedFrame):
            codec.decode_up(message)
    for down in (pb.Down(), pb.Down(envelope=pb.Envelope(domain="ballast/lunch/v1"))):
        with pytest.raises(MalformedFrame):
            codec.decode_down(down)


GOLDEN_HELLO = "0a290a077065636f732d3112076167656e742d311a05302e312e3022026531282a30043a026b313a026b32"
GOLDEN_HEARTBEAT = "12180a076e6f6e63652d3110041a0468656c642003288020302a"
GOLDEN_BATCH = "1a250a077065636f732d3112026531182a200628023080a09e99c7a098033a077061796c6f6164"
GOLDEN_WELCOME = "0a0f0a077065636f732d31120265311829"
GOLDEN_RECEIPT = "12130a077065636f732d3112026531182a202f282f"
GOLDEN_ENVELOPE = "1a1b0a0f62616c6c6173742f706c616e2f763112026b311a0170220173"
GOLDEN_BODY = (
    "0a7a0a1163323a31313a32323a33333a34343a35350a1163323a31313a32323a33333a34343a353610f4ebead6c1681a0300"
    "dc0b220200022a02000532080000d1420000c07f3a0800204b450000c07f420201034a08000078420000c07f520800009d42"
    "0000c07f5a03f05b016203e012016a020601720480c60a0112210a04736974651080a09e99c7a098031900000000a1f02941"
    "2100000000004a934012130a086665656465722d311080a09e99c7a098031a6b0a02613112056375722d311804221163323a"
    "31313a32323a33333a34343a35352a0473746f703208636f6d706c6574653a0c6665656465725f6d657465724210706f7765"
    "725f62656c6f775f69646c654881a09e99c7a0980351000000000064a94059000000000080444022430a026e311080a09e99"
    "c7a098031a0a6c6961725f6e616d6564221163323a31313a32323a33333a34343a35372a156665656465722d312064696420"
    "6e6f742064726f702a740a07636861696e2d311007188080898b948b9103220468656c642a0473656e7432026d313a0a6974"
    "2073616964206f6b4220" + 32 * "00" + "4a20" + 32 * "01"
)


def _golden(message: Message) -> str:
    return message.SerializeToString(deterministic=True).hex()


def test_golden_wire_bytes() -> None:
    """A change here breaks every deployed agent: add fields, never renumber."""
    envelope = Envelope(Domain.PLAN, "k1", b"p", b"s")
    assert _golden(codec.encode_up(samples.HELLO)) == GOLDEN_HELLO
    assert _golden(codec.encode_up(samples.HEARTBEAT)) == GOLDEN_HEARTBEAT
    assert _golden(codec.encode_up(BATCH)) == GOLDEN_BATCH
    assert _golden(codec.encode_down(Welcome(Cursor("pecos-1", "e1", 41)))) == GOLDEN_WELCOME
    assert _golden(codec.encode_down(Receipt("pecos-1", "e1", 42, 47, 47))) == GOLDEN_RECEIPT
    assert _golden(codec.encode_down(envelope)) == GOLDEN_ENVELOPE
    assert zlib.decompress(codec.pack(samples.BODY)).hex() == GOLDEN_BODY


def test_times_are_utc_after_the_wire() -> None:
    (reading,) = codec.unpack(codec.pack(BatchBody(readings=(samples.FULL_READING,)))).readings
    assert reading.read_at == datetime(2026, 11, 24, 12, 0, 0, 250_000, tzinfo=UTC)
    assert reading.read_at.tzinfo is UTC
