"""A day without a link, then the link again: ``python -m tests.bench.outage [--hours 24] [--miners 1000] [--quick]``.

The wait is virtual: every miner and a meter are read once a minute, notices and acks come in between, and all of it goes
through the real buffer into a real file (SQLite, fsync on), whose process is begun anew now and then. Then the clock is
the real one: the real forwarder drains over gRPC and mutual TLS, through a line of ``--kbits`` kbit/s, to a cloud that
counts, while the site goes on reading; ``live_age_max_s`` is the oldest that a reading of after the outage was when the
cloud had it. The second time the buffer holds only ``--max-bytes`` (a third of what would wait): what it left out must
be told in gaps, to the item (``gap_records_missing``), and control data must be whole.
"""

import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from agent.backoff import Backoff
from agent.buffer import Buffer, LeftOut, left_out, schema
from agent.forwarder import Forwarder, Introduction, SiteFacts
from agent.sealer import SEAL_ITEMS, Sealer
from agent.settings_section import Endpoint
from agent.storage import ThreadWriter, on_loop
from agent.uplink import Tls
from agent.uplink.grpc_link import GrpcUplink
from sitelink import codec
from sitelink.batch_signing import BatchKeys, BatchSigner
from sitelink.clock import Clock, ManualClock, SystemClock
from sitelink.types import (
    Ack,
    Batch,
    BatchBody,
    BatchKind,
    ClockTrust,
    DownFrame,
    Envelope,
    Evidence,
    MeterSample,
    MinerState,
    Notice,
    NoticeCode,
    Outcome,
    PowerSource,
    Reading,
    Receipt,
    UpFrame,
    Verb,
)
from sitelink.units import Celsius, RevolutionsPerMinute, TeraHashPerSecond, Watts
from tests.bench.narrow import NarrowLine
from tests.bench.report import arguments, finish, say
from tests.contract.pki import NAME
from tests.e2e.stub_cloud import StubCloud

SITE = "pecos-1"
_MINUTE = timedelta(minutes=1)
_SEAL_S = 5.0
_RESTARTS = 4
_GIB = 1024**3


class Readings:
    """What the site's devices say; a reading is known again by its miner and its time."""

    def __init__(self, miners: int, seed: int) -> None:
        self.names = [f"02:00:00:00:{number // 256:02x}:{number % 256:02x}" for number in range(miners)]
        self._rng = random.Random(seed)

    def read(self, number: int, at: datetime) -> Reading:
        """Return a reading of one miner."""
        rng = self._rng
        return Reading(
            miner_id=self.names[number],
            read_at=at,
            state=MinerState.HASHING,
            hashrate_ths=TeraHashPerSecond(round(rng.gauss(104, 2), 2)),
            power_w=Watts(round(rng.gauss(3068, 25), 0)),
            power_source=PowerSource.DEVICE,
            board_temp_c=Celsius(round(rng.gauss(62, 3), 1)),
            chip_temp_c=Celsius(round(rng.gauss(74, 3), 1)),
            fan_rpm=RevolutionsPerMinute(rng.randrange(4200, 6200, 30)),
            accepted=rng.randrange(10**6),
            rejected=rng.randrange(100),
            uptime_s=rng.randrange(10**6),
        )

    def minute(self, at: datetime, batch: int = SEAL_ITEMS) -> Iterator[BatchBody]:
        """Return all miners and the meter once, as they are sealed."""
        spread = 59_000 / len(self.names)
        readings = [
            self.read(number, at + timedelta(milliseconds=int(spread * number))) for number in range(len(self.names))
        ]
        for start in range(0, len(readings), batch):
            yield BatchBody(readings=tuple(readings[start : start + batch]))
        yield BatchBody(meters=(MeterSample("site", at, Watts(3.0e6), at.timestamp()),))


@dataclass
class Ledger:
    """What the site read and did, against which the cloud is counted."""

    items: int = 0
    control: set[str] = field(default_factory=set)
    append_s: list[float] = field(default_factory=list)
    live_since: datetime | None = None


class CountingCloud(StubCloud):
    """A cloud that stores each batch once, checks who signed it, and notes how old live readings were."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(SITE)
        self._ledger = ledger
        self._through: dict[str, int] = {}
        self.keys = BatchKeys(())
        self.live_age_max_s = 0.0
        self.refused = 0

    def through(self, epoch: str) -> int:
        """Return the cursor, moved on from where it stood."""
        seq = self._through.get(epoch, -1)
        while (epoch, seq + 1) in self.stored:
            seq = self.stored[epoch, seq + 1].last_seq
        self._through[epoch] = seq
        return seq

    def answer(self, frame: UpFrame) -> DownFrame | None:
        """Store a batch and return its receipt; anything else is as the stub has it."""
        if not isinstance(frame, Batch):
            return super().answer(frame)
        self.keys.check(frame)
        first_time = (frame.epoch, frame.first_seq) not in self.stored
        self.stored.setdefault((frame.epoch, frame.first_seq), frame)
        if first_time and frame.kind is BatchKind.TELEMETRY and self._is_live(frame):
            self._note_age(frame)
        through = self.through(frame.epoch)
        return Receipt(SITE, frame.epoch, frame.first_seq, frame.last_seq, through)

    def _is_live(self, batch: Batch) -> bool:
        return self._ledger.live_since is not None and batch.sealed_at >= self._ledger.live_since

    def _note_age(self, batch: Batch) -> None:
        since, now = self._ledger.live_since, datetime.now(UTC)
        assert since is not None
        ages = [
            (now - reading.read_at).total_seconds()
            for reading in codec.unpack(batch.payload).readings
            if reading.read_at >= since
        ]
        self.live_age_max_s = max(self.live_age_max_s, *ages, 0.0)


class NoOrders:
    """Neither orders come, nor is the time needed."""

    async def accept(self, envelope: Envelope) -> None:
        """Take nothing."""

    async def learn(self, envelope: Envelope, sent_mono: float, received_mono: float) -> bool:
        """Believe the cloud's time."""
        return True


class Site:
    """One site over one file: its buffer, and what was put into it."""

    def __init__(self, folder: Path, options: "Options", max_bytes: int) -> None:
        self.ledger = Ledger()
        self._batch = options.batch
        self.readings = Readings(options.miners, options.seed)
        self.cloud = CountingCloud(self.ledger)
        leaf = self.cloud.authority.leaf("agent-1")
        self.tls = Tls(self.cloud.authority.pem, leaf.certificate, leaf.key)
        self.signer = BatchSigner.from_pem(leaf.key)
        self.cloud.keys = BatchKeys([self.signer.public_der])
        self._path = folder / "agent.db"
        self._max_bytes = max_bytes
        self._numbers = count()
        self._forwarder: Forwarder | None = None

    def new_id(self) -> str:
        """Return a name that is new."""
        return f"id{next(self._numbers)}"

    @asynccontextmanager
    async def opened(self, clock: Clock) -> AsyncIterator[Buffer]:
        """Open the file as a process does when it begins."""
        writer = ThreadWriter(self._path)
        try:
            await writer.run(schema)
            yield Buffer(writer, clock, SITE, self.new_id, self._max_bytes, on_loop(self._wake), self.signer)
        finally:
            writer.close()

    def _wake(self) -> None:
        if self._forwarder is not None:
            self._forwarder.wake()

    async def wait(self, hours: float) -> None:
        """Live through the outage, in virtual time that ends now."""
        minutes = round(hours * 60)
        start = datetime.now(UTC).replace(microsecond=0) - minutes * _MINUTE
        clock = ManualClock(start)
        for life in range(_RESTARTS):
            async with self.opened(clock) as buffer:
                for minute in range(life * minutes // _RESTARTS, (life + 1) * minutes // _RESTARTS):
                    await self._one_minute(buffer, start + minute * _MINUTE, minute)
                    clock.advance(60.0)
            say(f"  {(life + 1) * hours / _RESTARTS:g} h waited, {self._path.stat().st_size / 1e6:.1f} MB")

    async def _one_minute(self, buffer: Buffer, at: datetime, minute: int) -> None:
        for body in self.readings.minute(at, self._batch):
            began = time.perf_counter()
            await buffer.append(body)
            self.ledger.append_s.append(time.perf_counter() - began)
            self.ledger.items += len(body)
        if minute % 15 == 0:
            notice = Notice(self.new_id(), at, NoticeCode.CURTAILMENT_STARTED, "plan", "a curtailment begins")
            acks = tuple(self._ack(number, at) for number in range(min(20, len(self.readings.names))))
            await buffer.append(BatchBody(acks=acks, notices=(notice,)))
            self.ledger.control |= {notice.notice_id, *(ack.ack_id for ack in acks)}

    def _ack(self, number: int, at: datetime) -> Ack:
        name = self.readings.names[number]
        return Ack(self.new_id(), "plan", 1, name, Verb.STOP, Outcome.COMPLETE, Evidence.FEEDER_METER, "", at)

    async def drain(self, kbits: float, at_most_s: float) -> float:
        """Connect again, drain and go on reading; return how long the drain took, seconds."""
        async with self.opened(SystemClock()) as buffer, self.cloud.serving() as port:
            line = NarrowLine(port, kbits * 1000)
            async with line.open() as near_port:
                self._forwarder = self._made(buffer, near_port)
                self.ledger.live_since = datetime.now(UTC)
                epoch, backlog = (status := await buffer.status()).epoch, status.next_seq
                say(f"  the link is back: {status.backlog_batches} batches, {status.backlog_bytes / 1e6:.1f} MB wait")
                sealer, began = Sealer(buffer, _SEAL_S), time.perf_counter()
                running = [
                    asyncio.create_task(work) for work in (self._forwarder.run(), sealer.run(), self._live(sealer))
                ]
                try:
                    async with asyncio.timeout(at_most_s):
                        while self.cloud.through(epoch) < backlog - 1:
                            await asyncio.sleep(0.1)
                        took_s = time.perf_counter() - began
                        running.pop().cancel()
                        await sealer.flush()
                        while (await buffer.status()).backlog_batches:
                            await asyncio.sleep(0.1)
                finally:
                    for task in running:
                        task.cancel()
                    with suppress(asyncio.CancelledError):
                        await asyncio.gather(*running)
        return took_s

    async def _live(self, sealer: Sealer) -> None:
        """Read every miner once a minute, spread over it."""
        for number in count():
            sealer.add(self.readings.read(number % len(self.readings.names), datetime.now(UTC)))
            self.ledger.items += 1
            await asyncio.sleep(60 / len(self.readings.names))

    def _made(self, buffer: Buffer, port: int) -> Forwarder:
        uplink = GrpcUplink(Endpoint("127.0.0.1", port), self.tls, NAME, deadline_s=15.0, keepalive_s=10.0)
        return Forwarder(
            uplink,
            buffer,
            SystemClock(),
            self.new_id,
            Backoff(random.Random(0), 0.5, 5.0),
            Introduction(SITE, "agent-1", "bench", "bench"),
            lambda: SiteFacts(0, ClockTrust.SYNCED),
            NoOrders(),
            NoOrders(),
            heartbeat_s=5.0,
        )

    async def left_out(self) -> LeftOut:
        """Return what the buffer says it left out."""
        writer = ThreadWriter(self._path)
        try:
            return await writer.run(left_out)
        finally:
            writer.close()


@dataclass
class Count:
    """What the cloud has in the end."""

    stored: int = 0
    gap_items: int = 0
    gap_records: int = 0
    doubled: int = 0
    control: set[str] = field(default_factory=set)


def counted(cloud: CountingCloud) -> Count:
    """Count what is stored, each reading by miner and time."""
    found, seen = Count(), set[tuple[str, datetime]]()
    for batch in cloud.stored.values():
        body = codec.unpack(batch.payload)
        keys = [(item.miner_id, item.read_at) for item in body.readings]
        keys += [(item.meter_id, item.read_at) for item in body.meters]
        found.stored += len(keys)
        found.doubled += sum(key in seen for key in keys) + (len(keys) - len(set(keys)))
        seen.update(keys)
        found.gap_items += sum(gap.items for gap in body.gaps)
        found.gap_records += len(body.gaps)
        found.control |= {ack.ack_id for ack in body.acks} | {notice.notice_id for notice in body.notices}
    return found


async def outage(folder: Path, options: "Options", max_bytes: int) -> dict[str, float]:
    """Play one outage and return its figures."""
    folder.mkdir()
    site = Site(folder, options, max_bytes)
    await site.wait(options.hours)
    took_s = await site.drain(options.kbits, options.at_most_s)
    found, told = counted(site.cloud), await site.left_out()
    missing = site.ledger.items - (found.stored - found.doubled)
    appends = sorted(site.ledger.append_s)
    return {
        "lost": max(0, missing - found.gap_items) + len(site.ledger.control - found.control),
        "doubled": found.doubled,
        "drain_min": round(took_s / 60, 2),
        "live_age_max_s": round(site.cloud.live_age_max_s, 1),
        "gap_records_missing": abs(missing - found.gap_items),
        "samples": site.ledger.items,
        "control_lost": len(site.ledger.control - found.control),
        "gap_records": found.gap_records,
        "left_out": told.thinned_items + told.given_up_items,
        "given_up": told.given_up_items,
        "append_p50_ms": round(appends[len(appends) // 2] * 1000, 2),
        "append_p99_ms": round(appends[int(len(appends) * 0.99)] * 1000, 2),
        "file_mb": round(sum(part.stat().st_size for part in folder.iterdir()) / 1e6, 1),
        "backlog_bytes": sum(len(batch.payload) + 256 for batch in site.cloud.stored.values()),
    }


def signing_us(miners: int, seed: int) -> dict[str, float]:
    """Return what a signature costs a batch of 500 readings, and checking one, in microseconds."""
    authority = CountingCloud(Ledger()).authority
    signer = BatchSigner.from_pem(authority.leaf("agent-1").key)
    body = next(Readings(miners, seed).minute(datetime.now(UTC)))
    batch = Batch(SITE, "e", 0, len(body), BatchKind.TELEMETRY, datetime.now(UTC), codec.pack(body))
    keys, rounds = BatchKeys([signer.public_der]), 2000
    began = time.perf_counter()
    for _ in range(rounds):
        signed = signer.sign(batch)
    between = time.perf_counter()
    for _ in range(rounds):
        keys.check(signed)
    return {
        "sign_us_per_batch": round((between - began) / rounds * 1e6, 1),
        "check_us_per_batch": round((time.perf_counter() - between) / rounds * 1e6, 1),
    }


@dataclass(frozen=True)
class Options:
    """How large the bench is."""

    hours: float
    miners: int
    batch: int
    kbits: float
    seed: int
    at_most_s: float


def main() -> int:
    """Run both outages and print the figures."""
    parser = arguments("outage", "A day without a link, then the link again.")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--miners", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=100, help="readings sealed at once (default: %(default)s)")
    parser.add_argument("--kbits", type=float, default=2000.0, help="what the line carries (default: %(default)s)")
    parser.add_argument("--max-bytes", type=int, default=0, help="of the second time (default: a third of the backlog)")
    given = parser.parse_args()
    hours, miners = (min(given.hours, 3.0), min(given.miners, 300)) if given.quick else (given.hours, given.miners)
    options = Options(hours, miners, given.batch, given.kbits, given.seed, 3600.0)
    folder = Path(tempfile.mkdtemp(prefix="ballast-outage-"))
    try:
        say(f"{hours:g} h without a link, {miners} miners, room for all of it")
        roomy = asyncio.run(outage(folder / "roomy", options, _GIB))
        max_bytes = given.max_bytes or int(roomy["backlog_bytes"] / 3)
        say(f"the same with room for {max_bytes / 1e6:.1f} MB")
        full = asyncio.run(outage(folder / "full", options, max_bytes))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    both = {name: roomy[name] + full[name] for name in ("lost", "doubled", "gap_records_missing")}
    worst = {name: max(roomy[name], full[name]) for name in ("drain_min", "live_age_max_s")}
    rest = {f"full_{name}": value for name, value in full.items()} | {"full_max_bytes": float(max_bytes)}
    finish("outage", roomy | both | worst | rest | signing_us(miners, given.seed), given.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
