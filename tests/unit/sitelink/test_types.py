"""The values hold their invariants when they are built."""

from datetime import datetime, timedelta

import pytest

from sitelink.types import Batch, BatchBody, BatchKind, Gap, Interval
from tests.unit.sitelink import samples


def test_an_interval_is_half_open() -> None:
    hour = Interval(samples.NOON, samples.NOON + timedelta(hours=1))
    assert hour.contains(samples.NOON)
    assert not hour.contains(samples.NOON + timedelta(hours=1))
    assert hour.duration == timedelta(hours=1)


def test_an_interval_refuses_naive_and_empty_spans() -> None:
    with pytest.raises(ValueError, match="aware"):
        Interval(datetime(2026, 1, 1), datetime(2026, 1, 2))
    with pytest.raises(ValueError, match="end after"):
        Interval(samples.NOON, samples.NOON)


def test_items_of_a_body_are_counted_over_all_kinds() -> None:
    assert len(samples.BODY) == 7
    assert len(BatchBody()) == 0
    gap = Gap(samples.NOON, samples.NOON, 60, 44)
    assert len(BatchBody(notices=samples.BODY.notices, gaps=(gap, gap))) == len(samples.BODY.notices) + 88
    batch = Batch("s", "e", 10, 6, BatchKind.TELEMETRY, samples.NOON, b"")
    assert batch.last_seq == 15
