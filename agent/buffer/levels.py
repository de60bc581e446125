"""How thin telemetry may become: whole, then one item in 1, 5 and 15 minutes, then none; and how it is cut. Pure.

Invariant: what a cut leaves out is counted in a gap of the same batch, so that the batch goes on covering all its
numbers.

    level   0 whole      1 one in 60 s      2 one in 300 s      3 one in 900 s      4 nothing left
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from sitelink import codec
from sitelink.codec.moments import EPOCH
from sitelink.types import BatchBody, Gap

KEPT_EVERY_S: Final = (0, 60, 300, 900)
COARSEST: Final = len(KEPT_EVERY_S) - 1
NOTHING_LEFT: Final = COARSEST + 1
_MILLISECOND: Final = timedelta(milliseconds=1)


class Cutter:
    """Cuts batches to one item in ``every_s`` seconds for each miner and each meter, in the order it is given them.

    It remembers the last slot of time it kept an item in, so that the rule holds over batches; by number, not by
    time: a clock that was set back starts a new slot.
    """

    def __init__(self, every_s: int) -> None:
        self._every_s = every_s
        self._last_slot: dict[tuple[str, str], int] = {}

    def cut(self, payload: bytes) -> tuple[bytes, int]:
        """Return the payload with fewer items, and how many were taken out.

        Raises:
            MalformedFrame: the payload cannot be read.
            OverflowError: an item's time lies beyond all calendars.
        """
        columns, rest = codec.unpack_columns(payload)
        times = [EPOCH + at_ms * _MILLISECOND for at_ms in columns.read_at_ms]
        rows = [row for row, at in enumerate(times) if self._keeps("miner", columns.miner_id[row], at)]
        meters = tuple(sample for sample in rest.meters if self._keeps("meter", sample.meter_id, sample.read_at))
        kept = set(rows)
        gone = [at for row, at in enumerate(times) if row not in kept]
        chosen = {id(sample) for sample in meters}
        gone += [sample.read_at for sample in rest.meters if id(sample) not in chosen]
        if not gone:
            return payload, 0
        gaps = (_widened(rest.gaps, gone, self._every_s),)
        return codec.pack_rows(columns, rows, replace(rest, meters=meters, gaps=gaps)), len(gone)

    def _keeps(self, kind: str, name: str, at: datetime) -> bool:
        slot = (at - EPOCH) // timedelta(seconds=self._every_s)
        if self._last_slot.get((kind, name)) == slot:
            return False
        self._last_slot[kind, name] = slot
        return True


def given_up(payload: bytes) -> tuple[bytes, int]:
    """Return a payload that says only what is gone, and how many items that are.

    Raises:
        MalformedFrame: the payload cannot be read.
        OverflowError: an item's time lies beyond all calendars.
    """
    columns, rest = codec.unpack_columns(payload)
    gone = [EPOCH + at_ms * _MILLISECOND for at_ms in columns.read_at_ms] + [sample.read_at for sample in rest.meters]
    return codec.pack(BatchBody(gaps=(_widened(rest.gaps, gone, 0),))), len(gone)


def joined(payloads: Sequence[bytes]) -> bytes:
    """Return the payload of batches that follow each other, as one; their gaps stay apart by what was kept."""
    bodies = [codec.unpack(payload) for payload in payloads]
    gaps: dict[int, Gap] = {}
    for gap in (gap for body in bodies for gap in body.gaps):
        known = gaps.get(gap.kept_every_s, gap)
        items = gap.items + (known.items if gap.kept_every_s in gaps else 0)
        since, until = min(known.since, gap.since), max(known.until, gap.until)
        gaps[gap.kept_every_s] = Gap(since, until, gap.kept_every_s, items)
    return codec.pack(
        BatchBody(
            readings=tuple(reading for body in bodies for reading in body.readings),
            meters=tuple(sample for body in bodies for sample in body.meters),
            gaps=tuple(gaps.values()),
        )
    )


def has_items(payload: bytes) -> bool:
    """Return whether anything but gaps is in ``payload``."""
    columns, rest = codec.unpack_columns(payload)
    return bool(len(columns) or rest.meters)


def all_gone(items: int, at: datetime) -> bytes:
    """Return the payload of a batch of which nothing is known but its ``items`` numbers and when it was sealed."""
    return codec.pack(BatchBody(gaps=(Gap(at, at + _MILLISECOND, 0, items),)))


def _widened(gaps: tuple[Gap, ...], gone: list[datetime], kept_every_s: int) -> Gap:
    since = min([*gone, *(gap.since for gap in gaps)])
    until = max([*(at + _MILLISECOND for at in gone), *(gap.until for gap in gaps)])
    return Gap(since, until, kept_every_s, len(gone) + sum(gap.items for gap in gaps))
