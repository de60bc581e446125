"""A cloud and a link to it that loses, doubles, delays, reorders and breaks, from a seed."""

import asyncio
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from agent.errors import Unreachable
from sitelink import codec
from sitelink.orders import write_time
from sitelink.types import (
    Batch,
    BatchKind,
    Cursor,
    Domain,
    DownFrame,
    Envelope,
    Heartbeat,
    Hello,
    Receipt,
    SignedTime,
    UpFrame,
    Welcome,
)


def same_items(one: Batch, other: Batch) -> bool:
    """Return whether two batches of one key say the same: one perhaps with fewer items, and a gap in their place."""
    if replace(one, signature=b"") == replace(other, signature=b""):
        return True
    return one.kind is BatchKind.TELEMETRY and one.last_seq == other.last_seq and is_cut(one.payload, other.payload)


def is_cut(one: bytes, other: bytes) -> bool:
    """Return whether one of two payloads is the other with fewer items, and a gap in their place."""
    bodies = [codec.unpack(payload) for payload in (one, other)]
    fewer, more = sorted(bodies, key=lambda body: len(body.readings) + len(body.meters))
    within = set(fewer.readings) <= set(more.readings) and set(fewer.meters) <= set(more.meters)
    return within and bool(fewer.gaps) and len(fewer) == len(more)


@dataclass
class FakeCloud:
    """Stores batches as the real one does: once per key, and a receipt only after that."""

    site_id: str
    stored: dict[tuple[str, int], Batch] = field(default_factory=dict)
    arrivals: list[Batch] = field(default_factory=list)
    hellos: list[Hello] = field(default_factory=list)
    beats: list[Heartbeat] = field(default_factory=list)
    answers_batches: bool = True
    answers_beats: bool = True

    def through(self, epoch: str) -> int:
        seq = -1
        while (epoch, seq + 1) in self.stored:
            seq = self.stored[epoch, seq + 1].last_seq
        return seq

    def beyond(self, epoch: str, through: int) -> tuple[tuple[int, int], ...]:
        later = (batch for (name, first), batch in sorted(self.stored.items()) if name == epoch and first > through)
        return tuple((batch.first_seq, batch.last_seq) for batch in later)

    def answer(self, frame: UpFrame) -> DownFrame | None:
        match frame:
            case Hello():
                self.hellos.append(frame)
                through = self.through(frame.epoch)
                return Welcome(Cursor(self.site_id, frame.epoch, through, self.beyond(frame.epoch, through)))
            case Heartbeat():
                self.beats.append(frame)
                signed = SignedTime(self.site_id, frame.nonce, datetime(2026, 11, 24, tzinfo=UTC))
                return Envelope(Domain.TIME, "key", write_time(signed), b"") if self.answers_beats else None
            case Batch():
                self.arrivals.append(frame)
                if not self.answers_batches:
                    return None
                kept = self.stored.setdefault((frame.epoch, frame.first_seq), frame)
                assert same_items(kept, frame), "the same key must always carry the same items, or fewer and a gap"
                through = self.through(frame.epoch)
                return Receipt(self.site_id, frame.epoch, frame.first_seq, frame.last_seq, through)


@dataclass
class Weather:
    """How likely each mishap is, for every frame."""

    lose: float = 0.0
    double: float = 0.0
    reorder: float = 0.0
    break_off: float = 0.0
    refuse_connect: float = 0.0


class FakeUplink:
    """Implements ``Uplink`` over ``FakeCloud`` in whatever ``weather`` there is."""

    def __init__(self, cloud: FakeCloud, weather: Weather | None = None, seed: int = 0) -> None:
        self.cloud = cloud
        self.weather = weather or Weather()
        self.rng = random.Random(seed)
        self.down: asyncio.Queue[DownFrame | Exception] = asyncio.Queue()
        self.open = False
        self.half_open = False
        self.connects = 0
        self.closes = 0

    async def connect(self) -> None:
        self.connects += 1
        await asyncio.sleep(0)
        if self.rng.random() < self.weather.refuse_connect:
            raise Unreachable("the fake is down")
        self.down = asyncio.Queue()
        self.open = True

    async def send(self, frame: UpFrame) -> None:
        await asyncio.sleep(0)
        if not self.open:
            raise Unreachable("the fake is closed")
        if self.half_open:
            return
        if self.rng.random() < self.weather.break_off:
            self.break_off()
            raise Unreachable("the fake broke")
        if isinstance(frame, Hello):
            self.push(self.cloud.answer(frame))
            return
        for _ in range(self.times()):
            answer = self.cloud.answer(frame)
            for _ in range(self.times()):
                self.push(answer)

    async def receive(self) -> DownFrame:
        item = await self.down.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def close(self) -> None:
        self.closes += 1
        self.open = False

    def break_off(self) -> None:
        self.open = False
        self.down.put_nowait(Unreachable("the fake broke"))

    def push(self, frame: DownFrame | None) -> None:
        if frame is None:
            return
        if self.rng.random() < self.weather.reorder and not self.down.empty():
            first = self.down.get_nowait()
            self.down.put_nowait(frame)
            self.down.put_nowait(first)
            return
        self.down.put_nowait(frame)

    def times(self) -> int:
        if self.rng.random() < self.weather.lose:
            return 0
        return 2 if self.rng.random() < self.weather.double else 1
