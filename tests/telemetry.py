"""Batches for tests: small, readable, deterministic."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sitelink.codec import pack
from sitelink.types import (
    Ack,
    Batch,
    BatchBody,
    BatchKind,
    JournalEntry,
    MeterSample,
    MinerState,
    Notice,
    PowerSource,
    Reading,
)
from sitelink.units import TeraHashPerSecond, Watts

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


def make_readings(count: int, at: datetime, power_w: float = 3000.0, first: int = 0) -> tuple[Reading, ...]:
    """Return one hashing reading for each of the miners ``m000..``."""
    return tuple(
        Reading(
            f"m{first + number:03}",
            at,
            MinerState.HASHING,
            hashrate_ths=TeraHashPerSecond(100.0),
            power_w=Watts(power_w),
            power_source=PowerSource.DEVICE,
        )
        for number in range(count)
    )


def make_batch(
    first_seq: int,
    readings: Sequence[Reading] = (),
    *,
    site_id: str = "pecos-1",
    epoch: str = "e1",
    meters: Sequence[MeterSample] = (),
    acks: Sequence[Ack] = (),
    notices: Sequence[Notice] = (),
    journal: Sequence[JournalEntry] = (),
) -> Batch:
    """Return a sealed batch of the given items; three readings when none are given."""
    if not (readings or meters or acks or notices or journal):
        readings = make_readings(3, START + timedelta(seconds=first_seq))
    body = BatchBody(tuple(readings), tuple(meters), tuple(acks), tuple(notices), journal=tuple(journal))
    kind = BatchKind.CONTROL if acks or notices or journal else BatchKind.TELEMETRY
    return Batch(site_id, epoch, first_seq, len(body), kind, START, pack(body))
