"""Readings as columns, and back.

Invariants: missing travels as NaN in float columns and -1 in integer columns, and comes back as None, never as zero;
times are whole milliseconds, floats have 32 bits.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from sitelink.codec.moments import EPOCH, MalformedFrame
from sitelink.types import MinerState, PowerSource, Reading, Reason
from sitelink.units import Celsius, RevolutionsPerMinute, TeraHashPerSecond, Watts
from sitelink.v1 import link_pb2 as pb

STATES: Final = tuple(MinerState)
REASONS: Final = tuple(Reason)
POWER_SOURCES: Final = tuple(PowerSource)
_STATE_NUMBER: Final = {state: number for number, state in enumerate(STATES)}
_REASON_NUMBER: Final = {reason: number for number, reason in enumerate(REASONS)}
_SOURCE_NUMBER: Final = {source: number for number, source in enumerate(POWER_SOURCES)}
_NAN: Final = float("nan")
_Unit = TypeVar("_Unit", bound=float)


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


_ON_THE_WIRE: Final = tuple(name for name in ReadingColumns.__slots__ if name != "read_at_ms")


def columns_message(readings: Sequence[Reading]) -> pb.ReadingColumns:
    """Return ``readings`` as a message."""
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


def rows_message(columns: ReadingColumns, rows: Sequence[int]) -> pb.ReadingColumns:
    """Return the readings at ``rows`` of ``columns`` as a message."""
    times = [columns.read_at_ms[row] for row in rows]
    base = times[0] if times else 0
    kept = {name: [getattr(columns, name)[row] for row in rows] for name in _ON_THE_WIRE}
    return pb.ReadingColumns(base_time_ms=base, read_at_delta_ms=[moment - base for moment in times], **kept)


def columns_of(message: pb.ReadingColumns) -> ReadingColumns:
    """Return the columns of ``message``. Raises MalformedFrame when they are uneven or hold an unknown code."""
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


def readings_of(columns: ReadingColumns) -> Iterable[Reading]:
    """Yield the readings in ``columns``. Raises OverflowError for a time beyond all calendars."""
    for row in range(len(columns)):
        yield Reading(
            miner_id=columns.miner_id[row],
            read_at=EPOCH + timedelta(milliseconds=columns.read_at_ms[row]),
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


def _floats(values: Iterable[float | None]) -> list[float]:
    return [_NAN if value is None else value for value in values]


def _integers(values: Iterable[int | None]) -> list[int]:
    return [-1 if value is None else value for value in values]


def _known(value: float, unit: Callable[[float], _Unit]) -> _Unit | None:
    return None if math.isnan(value) else unit(value)


def _known_integer(value: int) -> int | None:
    return None if value < 0 else value


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)
