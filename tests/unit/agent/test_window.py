"""Every lane has its own room, and the backlog takes no more than the link carries in a few seconds."""

from datetime import UTC, datetime

import pytest

from agent.buffer import BatchKey
from agent.window import MAX_BATCHES, Lane, Window
from sitelink.types import Batch, BatchKind, Receipt

pytestmark = pytest.mark.agent

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def batch(seq: int, size: int = 10, kind: BatchKind = BatchKind.TELEMETRY, epoch: str = "e2") -> Batch:
    return Batch("s", epoch, seq, 1, kind, NOON, bytes(size))


def land(window: Window, seq: int, at: float, epoch: str = "e2") -> int:
    return len(list(window.land(Receipt("s", epoch, seq, seq, -1), at)))


def room(window: Window, seq: int = 0) -> int:
    """How many backlog batches of 16 KB fit."""
    fits = 0
    while not window.is_full(Lane.BACKLOG):
        window.add(batch(seq + fits, 16 * 1024), 0.0)
        fits += 1
    return fits


def test_a_batch_takes_its_lane_by_number() -> None:
    window = Window(BatchKey("e1", 40), "e2")
    assert window.lane_of(batch(0, kind=BatchKind.CONTROL)) is Lane.CONTROL
    assert window.lane_of(batch(39, epoch="e1")) is Lane.BACKLOG
    assert window.lane_of(batch(40, epoch="e1")) is Lane.LIVE
    assert window.lane_of(batch(0, epoch="e2")) is Lane.LIVE, "the epoch that came after"
    assert window.lane_of(batch(90, epoch="e0")) is Lane.BACKLOG
    assert Window(BatchKey("e2", 7), "e2").lane_of(batch(3)) is Lane.BACKLOG


def test_a_full_lane_leaves_the_others_their_room() -> None:
    window = Window(BatchKey("e2", 100), "e2")
    for seq in range(MAX_BATCHES):
        assert not window.is_full(Lane.BACKLOG)
        window.add(batch(seq), 0.0)
    assert window.is_full(Lane.BACKLOG)
    assert not window.is_full(Lane.LIVE)
    for seq in range(MAX_BATCHES):
        window.add(batch(100 + seq), 0.0)
    assert window.is_full(Lane.LIVE)
    assert not window.is_full(Lane.CONTROL)


def test_slow_receipts_shrink_the_room_once_a_round_and_quick_ones_widen_it() -> None:
    window = Window(BatchKey("e2", 1000), "e2")
    first = room(window)
    assert first == 16, "256 KB"
    assert sum(land(window, seq, 8.0) for seq in range(first)) == first
    narrow = room(window)
    assert narrow == 12, "shrunk once, not once a batch"
    for seq in range(narrow):
        land(window, seq, 60.0)
    for round_ in range(40):
        window.add(batch(500 + round_, 16 * 1024), 100.0 + round_)
        land(window, 500 + round_, 101.0 + round_)
    assert room(window) > first


def test_the_room_never_closes() -> None:
    window = Window(BatchKey("e2", 1000), "e2")
    for round_ in range(30):
        window.add(batch(round_), 10.0 * round_)
        land(window, round_, 10.0 * round_ + 9)
    assert room(window) == 4, "64 KB"


def test_what_was_lost_is_let_go_and_what_is_only_slow_is_not() -> None:
    window = Window(BatchKey("e2", 0), "e2")
    window.add(batch(0), 0.0)
    window.add(batch(1), 20.0)
    window.expire(30.0, 40.0, passed_mono=0.0, silent=False)
    assert len(window.keys) == 2
    window.expire(30.0, 40.0, passed_mono=20.0, silent=False)
    assert window.keys == {BatchKey("e2", 1)}
    window.expire(30.0, 60.0, passed_mono=0.0, silent=True)
    assert not window.keys


def test_a_receipt_takes_out_its_range_and_all_up_to_its_cursor() -> None:
    window = Window(BatchKey("e2", 0), "e2")
    for seq in (0, 1, 5, 9):
        window.add(batch(seq), 0.0)
    assert land(window, 5, 1.0, "another epoch") == 0
    assert len(list(window.land(Receipt("s", "e2", 9, 9, 1), 1.0))) == 3
    assert window.keys == {BatchKey("e2", 5)}
