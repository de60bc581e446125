"""What is on its way to the cloud, by lane, and how much more may follow.

Invariants:

* Each lane has room of its own: a backlog that waits for receipts never keeps control data or live telemetry back.
* Of the backlog only so much is under way as the link carries in a few seconds, since what is handed over cannot be
  overtaken any more: the room shrinks while receipts are slow, and grows while they are quick.

    control    | 64 batches                 live    | 32 batches, 2 MB          backlog   | 32 batches, 64 KB .. 2 MB
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.buffer import BatchKey
from sitelink.types import Batch, BatchKind, Receipt

MAX_BATCHES: Final = 32
_CONTROL_BATCHES: Final = 64
_MAX_BYTES: Final = 2 * 1024 * 1024
_LEAST_BYTES: Final = 64 * 1024
_FIRST_BYTES: Final = 256 * 1024
_SLOW_S: Final = 5.0
_SHRINK: Final = 0.7


class Lane(Enum):
    """Which of them a batch takes, the first to go first."""

    CONTROL = "control"
    LIVE = "live"
    BACKLOG = "backlog"


@dataclass(slots=True)
class InFlight:
    """One batch under way; ``sent_mono`` is when it was handed over."""

    last_seq: int
    size: int
    lane: Lane
    sent_mono: float


class Window:
    """The batches of one conversation that have no receipt yet."""

    def __init__(self, live_from: BatchKey, epoch: str) -> None:
        """Live is what was sealed at ``live_from`` or later: the newest when the conversation began, and all since."""
        self.live_from = live_from
        self._epoch = epoch
        self._items: dict[BatchKey, InFlight] = {}
        self._backlog_bytes = _FIRST_BYTES
        self._changed_mono = float("-inf")

    @property
    def keys(self) -> frozenset[BatchKey]:
        """Return what is under way."""
        return frozenset(self._items)

    def lane_of(self, batch: Batch) -> Lane:
        """Return the lane that ``batch`` takes."""
        if batch.kind is BatchKind.CONTROL:
            return Lane.CONTROL
        later_epoch = batch.epoch == self._epoch != self.live_from.epoch
        later = batch.epoch == self.live_from.epoch and batch.first_seq >= self.live_from.first_seq
        return Lane.LIVE if later or later_epoch else Lane.BACKLOG

    def is_full(self, lane: Lane) -> bool:
        """Return whether no more of ``lane`` may follow for now."""
        items = [item for item in self._items.values() if item.lane is lane]
        if lane is Lane.CONTROL:
            return len(items) >= _CONTROL_BATCHES
        room = _MAX_BYTES if lane is Lane.LIVE else self._backlog_bytes
        return len(items) >= MAX_BATCHES or sum(item.size for item in items) >= room

    def add(self, batch: Batch, now_mono: float) -> None:
        """Enter a batch that is about to be handed over."""
        key = BatchKey(batch.epoch, batch.first_seq)
        self._items[key] = InFlight(batch.last_seq, len(batch.payload), self.lane_of(batch), now_mono)

    def land(self, receipt: Receipt, now_mono: float) -> Iterator[InFlight]:
        """Take out and return what ``receipt`` says is stored."""
        for key, item in list(self._items.items()):
            own = key.first_seq >= receipt.first_seq and item.last_seq <= receipt.last_seq
            if key.epoch == receipt.epoch and (own or item.last_seq <= receipt.through_seq):
                del self._items[key]
                self._learn(item, now_mono)
                yield item

    def expire(self, resend_s: float, now_mono: float, passed_mono: float, *, silent: bool) -> None:
        """Let go of what was lost: old, and passed by a later batch or by a long silence. A slow link is neither."""
        for key, item in list(self._items.items()):
            passed = item.sent_mono < passed_mono
            if (silent or passed) and now_mono - item.sent_mono >= resend_s:
                del self._items[key]

    def _learn(self, item: InFlight, now_mono: float) -> None:
        """Fit the backlog's room to how long this batch took."""
        if item.lane is not Lane.BACKLOG:
            return
        if now_mono - item.sent_mono <= _SLOW_S:
            self._backlog_bytes = min(_MAX_BYTES, self._backlog_bytes + item.size)
        elif item.sent_mono > self._changed_mono:
            self._backlog_bytes = max(_LEAST_BYTES, int(self._backlog_bytes * _SHRINK))
            self._changed_mono = now_mono
