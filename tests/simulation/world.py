"""The world around one agent: miners with physics and faults, feeder meters, a disk that survives crashes.

A life is one process. A crash marks it dead; from then on each of its ports raises ``Killed``, so no cleanup of the dead
process has any effect. The disk and the miners belong to the world and live on.
"""

import asyncio
import math
import pickle
import random
import sqlite3
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from agent.errors import AccessDenied, TimedOut, Unreachable, WrongDevice
from agent.local_curtail.schema import schema
from agent.storage import StorageFull
from sitelink.types import Ack, BatchBody, MeterSample, MinerState, Notice, Reading, Reason
from sitelink.units import Watts

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
IDLE_SHARE_TRUE = 0.015
WARM_UP_S = 8.0
POLL_S = 20
TICK_S = 0.5
"""A device that shows averages measures so often."""
WAVERS = {"W": 0.004, "TH": 0.04}


class Killed(BaseException):
    """This process is dead."""


@dataclass
class Site:
    """Where a crash strikes: the nth time, before or after, a named thing happens."""

    name: str
    nth: int
    after: bool


@dataclass
class Life:
    crash: Site | None = None
    dead: bool = False
    seen: Counter = field(default_factory=Counter)
    died: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self) -> None:
        if self.dead:
            raise Killed

    def kill(self) -> None:
        self.dead = True
        self.died.set()

    def reach(self, name: str, *, after: bool, coverage: Counter) -> None:
        self.check()
        key = (name, after)
        self.seen[key] += 1
        crash = self.crash
        if crash is not None and (crash.name, crash.after) == key and self.seen[key] == crash.nth:
            coverage[f"crash {'after' if after else 'before'} {name}"] += 1
            self.kill()
            raise Killed


@dataclass(frozen=True)
class Observation:
    state: MinerState
    reason: Reason
    power_w: Watts | None
    hashrate_ths: float | None
    uptime_s: int | None
    shown_s: tuple[float, float] | None = None
    board_temps_c: tuple[float, ...] = ()
    chip_temps_c: tuple[float, ...] = ()


@dataclass
class SimMiner:
    miner_id: str
    feeder_id: str
    baseline_w: float
    hashing: bool = True
    started_s: float = -1000.0
    stop_delay_s: float = 2.0
    start_delay_s: float = 1.0
    liar: str = ""
    dead: list[tuple[float, float]] = field(default_factory=list)
    lost_replies: set[int] = field(default_factory=set)
    lost_requests: set[int] = field(default_factory=set)
    wakes_at: list[float] = field(default_factory=list)
    wakes: bool = False
    pretends_idle: bool = False
    says: float = 1.0
    """What it reports of the power it draws."""
    relapses: list[tuple[float, float]] = field(default_factory=list)
    """When it draws again though it was stopped and says so."""
    removed: bool = False
    """It has left the inventory."""
    stands_alone: bool = False
    """It goes off and comes back without any order."""
    stolen: bool = False
    """Another device, which hashes, answers at its address."""
    denied: bool = False
    """It takes no orders from us: code 45."""
    trails: str = ""
    """Its figures are a "snapshot" refreshed every ``trails_s``, or an "average" over so long."""
    trails_s: float = 0.0
    phase_s: float = 0.0
    """When its snapshots are refreshed."""
    rate_mean_s: float = 0.0
    """Over how long its hash rate is a mean."""
    lively: bool = False
    """Its power wavers from second to second as its hash rate does, and is not a constant of its model."""
    drifts: tuple[float, float] = (math.inf, 1.0)
    """From when on it draws which share of what it did."""
    temps: list[tuple[float, float]] = field(default_factory=list)
    """From when on its hottest board shows which temperature."""
    turns: list[tuple[float, bool]] = field(default_factory=list)
    """Since when it hashed or did not, oldest first."""
    orders: int = 0
    pending: list[tuple[float, str]] = field(default_factory=list)
    stopped_s: float | None = None

    def settle(self, now_s: float) -> None:
        for due_s in [due for due in self.wakes_at if due <= now_s]:
            self.wakes_at.remove(due_s)
            if not self.hashing:
                self.hashing, self.started_s = True, due_s
                self._turn(due_s)
        for item in sorted(item for item in self.pending if item[0] <= now_s):
            self.pending.remove(item)
            if item[1] == "stop" and self.hashing:
                self.hashing, self.stopped_s = False, item[0]
                self._turn(item[0])
            elif item[1] == "start" and not self.hashing:
                self.hashing, self.started_s = True, item[0]
                self._turn(item[0])

    def _turn(self, at_s: float) -> None:
        self.turns.append((at_s, self.hashing))

    def drew(self, at_s: float) -> tuple[float, bool]:
        """Return what it drew at ``at_s``, and whether it hashed then."""
        since_s, hashed = -1000.0, self.hashing if not self.turns else not self.turns[0][1]
        for turn_s, what in self.turns:
            if turn_s <= at_s:
                since_s, hashed = turn_s, what
        warm = min(1.0, 0.3 + 0.7 * (at_s - since_s) / WARM_UP_S)
        return self.baseline_w * (warm if hashed else IDLE_SHARE_TRUE), hashed

    def reachable(self, now_s: float) -> bool:
        return not any(start <= now_s < end for start, end in self.dead)

    def reachable_for(self, now_s: float, seconds: float) -> bool:
        return not any(start <= now_s and now_s - seconds < end for start, end in self.dead)

    def true_power_w(self, now_s: float) -> float:
        if not self.hashing and not any(since <= now_s < until for since, until in self.relapses):
            return self.baseline_w * IDLE_SHARE_TRUE
        if not self.hashing:
            return self.baseline_w
        warm = min(1.0, 0.3 + 0.7 * (now_s - self.started_s) / WARM_UP_S)
        drifts_s, share = self.drifts
        return self.baseline_w * warm * (share if now_s >= drifts_s else 1.0)

    def take(self, verb: str, now_s: float) -> None:
        if self.liar:
            self.pretends_idle = verb == "stop" and self.liar.startswith("reports_idle")
            return
        delay_s = self.stop_delay_s if verb == "stop" else self.start_delay_s
        self.pending.append((now_s + delay_s, verb))

    def _trailing(self, now_s: float) -> Observation:
        """Show power and hash rate as they were at the last refresh, or their mean over a while."""
        if self.trails == "snapshot":
            moments = [now_s - (now_s - self.phase_s) % self.trails_s]
        else:
            moments = [int(now_s / TICK_S - n) * TICK_S for n in range(max(1, round(self.trails_s / TICK_S)))]
        drawn = [(at_s, *self.drew(at_s)) for at_s in moments]
        power = Watts(self.says * sum(watts * self._wavers("W", at_s) for at_s, watts, _ in drawn) / len(drawn))
        rate = 100.0 * sum(hashed * self._wavers("TH", at_s) for at_s, _, hashed in drawn) / len(drawn)
        state, reason = (MinerState.HASHING, Reason.NONE) if rate else (MinerState.IDLE, Reason.COMMANDED)
        return Observation(state, reason, power, rate, int(now_s + 5000))

    def board_c(self, at_s: float) -> float | None:
        return next((temp_c for since_s, temp_c in reversed(self.temps) if since_s <= at_s), None)

    def look(self, now_s: float) -> Observation:
        board_c = self.board_c(now_s)
        seen = self._look(now_s)
        return seen if board_c is None else replace(seen, board_temps_c=(board_c,))

    def _look(self, now_s: float) -> Observation:
        uptime = int(now_s + 5000)
        if self.trails and not self.stolen:
            return self._trailing(now_s)
        if not self.stolen and (self.pretends_idle or not self.hashing):
            if self.stopped_s is not None and now_s - self.stopped_s < self.rate_mean_s:
                left = 1.0 - (now_s - self.stopped_s) / self.rate_mean_s
                drawn = Watts(self.says * self.baseline_w * IDLE_SHARE_TRUE)
                return Observation(MinerState.HASHING, Reason.NONE, drawn, 100.0 * left, uptime)
            power = Watts(self.says * self.baseline_w * IDLE_SHARE_TRUE)
            return Observation(MinerState.IDLE, Reason.COMMANDED, power, 0.0, uptime)
        power = Watts(self.says * self.true_power_w(now_s) * self._wavers("W", now_s))
        return Observation(MinerState.HASHING, Reason.NONE, power, 100.0 * self._wavers("TH", now_s), uptime)

    def _wavers(self, unit: str, at_s: float) -> float:
        """Return by what factor a figure is off in the second of ``at_s``."""
        if unit == "W" and not self.lively:
            return 1.0
        chance = zlib.crc32(f"{self.miner_id} {unit} {int(at_s)}".encode()) / 2**32
        return 1.0 + WAVERS[unit] * (2.0 * chance - 1.0)


@dataclass
class MeterFaults:
    """By feeder: seconds late, spans stuck, watts of noise (standard deviation), of one step; and what meters show of true power."""

    late_s: dict[str, float] = field(default_factory=dict)
    stuck: list[tuple[str, float, float]] = field(default_factory=list)
    noise_w: dict[str, float] = field(default_factory=dict)
    step_w: dict[str, float] = field(default_factory=dict)
    scale: float = 1.0


class World:
    def __init__(self, loop: asyncio.AbstractEventLoop, seed: int, miners: list[SimMiner], metered: set[str]) -> None:
        self.loop = loop
        self.miners = {miner.miner_id: miner for miner in miners}
        self.metered = metered
        self.silent_meters: list[tuple[str, float, float]] = []
        self.meters = MeterFaults()
        self.drawn: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        self.disk_full = False
        self.disk_broken = False
        self.rng_io = random.Random(f"{seed} io")
        self.rng_meter = random.Random(f"{seed} meter")
        self.rng_disk = random.Random(f"{seed} disk")
        self.new_disk()
        self.device_log: list[tuple[float, str, str]] = []
        self.coverage: Counter = Counter()
        self.ids = 0
        self.wall_offset_s = 0.0
        self.boot = 1
        self.boot_s = 0.0

    def polled(self, miner_id: str) -> Reading:
        """Return what a poller that asks each miner every ``POLL_S`` has last read of it."""
        miner = self.miners[miner_id]
        phase_s = zlib.crc32(miner_id.encode()) % POLL_S
        at_s = self.now_s - (self.now_s - phase_s) % POLL_S
        if miner.stolen or not miner.reachable(at_s):
            return Reading(miner_id, self.true_time(), MinerState.UNKNOWN, Reason.UNREACHABLE)
        power_w, hashes = miner.drew(at_s)
        read_at, board_c = T0 + timedelta(seconds=at_s), miner.board_c(at_s)
        off = miner.pretends_idle or not hashes
        state, reason, rate = (
            (MinerState.IDLE, Reason.COMMANDED, 0.0) if off else (MinerState.HASHING, Reason.NONE, 100.0)
        )
        return Reading(miner_id, read_at, state, reason, rate, Watts(power_w), board_temp_c=board_c)

    def new_disk(self) -> None:
        self.disk = sqlite3.connect(":memory:", isolation_level=None)
        schema(self.disk)
        self.disk.execute("CREATE TABLE outbox (body BLOB NOT NULL)")

    @property
    def now_s(self) -> float:
        return self.loop.time()

    def true_time(self) -> datetime:
        return T0 + timedelta(seconds=self.now_s)

    def settle(self) -> None:
        for miner in self.miners.values():
            miner.settle(self.now_s)

    def feeder_w(self, feeder_id: str) -> float:
        self.settle()
        return sum(m.true_power_w(self.now_s) for m in self.miners.values() if m.feeder_id == feeder_id)

    def site_w(self) -> Watts | None:
        """What the site's own meter shows, of miners and of nothing else; None while it is silent."""
        if any(name == "site" and start <= self.now_s < end for name, start, end in self.silent_meters):
            return None
        self.settle()
        return Watts(sum(miner.true_power_w(self.now_s) for miner in self.miners.values()))

    def shown_w(self, feeder_id: str) -> float:
        """What the feeder's meter shows: late, stuck, noisy or all of these."""
        faults = self.meters
        past_s = self.now_s - faults.late_s.get(feeder_id, 0.0)
        stuck = [since for name, since, until in faults.stuck if name == feeder_id and since <= self.now_s < until]
        past_s = min([past_s, *stuck])
        if past_s >= self.now_s:
            total = self.feeder_w(feeder_id)
        else:
            total = next((w for at_s, w in reversed(self.drawn[feeder_id]) if at_s <= past_s), self.feeder_w(feeder_id))
        noise = 0.0 if stuck else self.rng_meter.gauss(0, faults.noise_w.get(feeder_id, 25.0))
        shown_w, step_w = faults.scale * total + noise, faults.step_w.get(feeder_id, 0.0)
        return round(shown_w / step_w) * step_w if step_w else shown_w

    async def remember_power(self) -> None:
        """Keep what late and stuck meters will show."""
        while True:
            for feeder_id in sorted(self.meters.late_s.keys() | {name for name, _, _ in self.meters.stuck}):
                self.drawn[feeder_id].append((self.now_s, self.feeder_w(feeder_id)))
            await asyncio.sleep(0.25)

    def outbox(self) -> tuple[list[Ack], list[Notice]]:
        acks: list[Ack] = []
        notices: list[Notice] = []
        for (blob,) in self.disk.execute("SELECT body FROM outbox ORDER BY rowid"):
            body: BatchBody = pickle.loads(blob)
            acks += body.acks
            notices += body.notices
        return acks, notices

    def next_id(self) -> str:
        self.ids += 1
        return f"id-{self.ids}"


class WorldClock:
    def __init__(self, world: World) -> None:
        self._world = world
        self._boot = world.boot
        self._boot_s = world.boot_s

    def now(self) -> datetime:
        return self._world.true_time() + timedelta(seconds=self._world.wall_offset_s)

    def monotonic(self) -> float:
        return self._world.now_s - self._boot_s

    def boot_id(self) -> str:
        return f"boot-{self._boot}"


class SimWriter:
    """One transaction after the other, each a crash boundary."""

    def __init__(self, world: World, life: Life) -> None:
        self._world, self._life = world, life
        self._turn = asyncio.Lock()

    async def run(self, work):
        async with self._turn:
            self._life.check()
            await asyncio.sleep(self._world.rng_disk.uniform(0.001, 0.01))
            self._life.check()
            disk = self._world.disk
            disk.execute("BEGIN")
            try:
                before = disk.total_changes
                result = work(disk)
                if self._world.disk_full and disk.total_changes != before:
                    raise StorageFull("agent.db: database or disk is full; free some disk space")
                if disk.total_changes != getattr(self, "_changes", -1):
                    self._life.reach("commit", after=False, coverage=self._world.coverage)
            except BaseException:
                disk.execute("ROLLBACK")
                raise
            disk.execute("COMMIT")
            if disk.total_changes != getattr(self, "_changes", -1):
                self._changes = disk.total_changes
                self._life.reach("commit", after=True, coverage=self._world.coverage)
            return result


class SimOutbox:
    def append_in(self, connection: sqlite3.Connection, body: BatchBody) -> None:
        assert len(body)
        connection.execute("INSERT INTO outbox (body) VALUES (?)", (pickle.dumps(body),))


class SimControl:
    def __init__(self, world: World, life: Life, miner: SimMiner) -> None:
        self._world, self._life, self._miner = world, life, miner

    async def identity(self) -> str:
        await self._travel()
        return "other" if self._miner.stolen else self._miner.miner_id

    async def observe(self) -> Observation:
        await self._travel()
        self._miner.settle(self._world.now_s)
        return self._miner.look(self._world.now_s)

    async def stop(self) -> None:
        await self._order("stop")

    async def start(self) -> None:
        await self._order("start")

    async def _order(self, verb: str) -> None:
        self._life.reach(verb, after=False, coverage=self._world.coverage)
        await self._travel()
        miner = self._miner
        if miner.stolen:
            raise WrongDevice(f"other answers where the inventory has {miner.miner_id}")
        miner.settle(self._world.now_s)
        miner.orders += 1
        if miner.denied:
            raise AccessDenied("code 45; enable its API")
        if miner.orders in miner.lost_requests:
            await asyncio.sleep(2.0)
            raise TimedOut("lost on the way")
        miner.take(verb, self._world.now_s)
        self._world.device_log.append((self._world.now_s, miner.miner_id, verb))
        self._life.reach(verb, after=True, coverage=self._world.coverage)
        if miner.orders in miner.lost_replies:
            await asyncio.sleep(2.0)
            raise TimedOut("its answer was lost")

    async def _travel(self) -> None:
        self._life.check()
        if not self._miner.reachable(self._world.now_s):
            await asyncio.sleep(1.0)
            self._life.check()
            raise Unreachable("no connection")
        await asyncio.sleep(self._world.rng_io.uniform(0.005, 0.2))
        self._life.check()


class SimMeter:
    def __init__(self, world: World, life: Life, feeder_id: str) -> None:
        self._world, self._life, self._feeder_id = world, life, feeder_id

    async def read(self) -> MeterSample:
        self._life.check()
        await asyncio.sleep(0.02)
        self._life.check()
        world = self._world
        sample = MeterSample(f"meter-{self._feeder_id}", world.true_time(), None)
        if any(name == self._feeder_id and start <= world.now_s < end for name, start, end in world.silent_meters):
            return sample
        return replace(sample, power_w=Watts(world.shown_w(self._feeder_id)))
