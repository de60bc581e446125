"""The world around one agent with its buffer and its link: disk, network, cloud, miners, clock, and what was seen.

Invariants: each part draws from a generator of its own, so that taking one fault away leaves the others as they were;
all that happens is noted in ``trace``; a violation seen at the device or the cloud is noted there and then.
"""

import asyncio
import hashlib
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sitelink.signing import KeyRing
from sitelink.types import Batch, Domain, Envelope, MinerState, Reading, Reason
from tests.simulation.edge.cloud import SimCloud
from tests.simulation.edge.devices import EdgeMiner
from tests.simulation.edge.disk import CrashableConnection, in_memory
from tests.simulation.edge.network import Network
from tests.simulation.edge.schedule import Schedule
from tests.simulation.keys import FORGER, TIME_KEY, KeyedHash
from tests.simulation.world import T0, Killed


@dataclass(frozen=True)
class DiskFailure:
    words: str
    code: int
    stored: bool


@dataclass
class Armed:
    """A kill that waits for the ``left``th time that ``site`` is reached."""

    site: str
    left: int
    after: bool
    down_s: float
    cold: bool


@dataclass(frozen=True)
class Deed:
    """What a miner did: at what time, who, what, with which value."""

    at_s: float
    miner_id: str
    verb: str
    value: str


class EdgeLife:
    """One process. Once dead, each of its ports raises ``Killed``, so that no cleanup of it has any effect."""

    def __init__(self, world: "EdgeWorld") -> None:
        self._world = world
        self.dead = False
        self.died = asyncio.Event()
        self.killed_by: Armed | None = None
        self.last_words: list[Callable[[], None]] = []

    def check(self) -> None:
        if self.dead:
            raise Killed

    def reach(self, site: str, *, after: bool) -> None:
        """Die here, if a kill waits for it."""
        self.check()
        self._world.cover(f"{'after' if after else 'before'} {site}")
        for armed in self._world.armed:
            if armed.site == site and armed.after == after:
                armed.left -= 1
                if armed.left == 0:
                    self._world.cover(f"killed {'after' if after else 'before'} {site}")
                    self.kill(armed)
                    raise Killed

    def kill(self, armed: Armed | None = None) -> None:
        if self.dead:
            return
        self.dead, self.killed_by = True, armed
        if armed in self._world.armed:
            self._world.armed.remove(armed)
        for word in self.last_words:
            word()
        self.died.set()


class EdgeWorld:
    def __init__(self, loop: asyncio.AbstractEventLoop, schedule: Schedule) -> None:
        self.loop = loop
        self.schedule = schedule
        seed = schedule.seed
        self.rng_io, self.rng_net, self.rng_disk, self.rng_agent = (
            random.Random(f"{seed} {name}") for name in ("io", "net", "disk", "agent")
        )
        self.trace: list[tuple[Any, ...]] = []
        self.coverage: Counter[str] = Counter()
        self.violations: list[tuple[str, str]] = []
        self._told: set[tuple[str, str]] = set()
        self.deeds: list[Deed] = []
        self.orders: list[tuple[float, Envelope]] = []
        """What the cloud truly ordered, when it first sent it."""
        self.promised: dict[tuple[str, int], Batch] = {}
        self.promised_s: dict[tuple[str, int], float] = {}
        self.dropped = 0
        """Batches that a full buffer did not take."""
        self.armed: list[Armed] = []
        self.ids = 0
        self.wall_offset_s = 0.0
        self.boot = 1
        self.boot_s = 0.0
        self.failing_commits: list[bool] = []
        self.miners = {f"m{n}": EdgeMiner(f"m{n}", "", 3400.0 - 100 * n) for n in range(schedule.miners)}
        self.time_key: Any = TIME_KEY if schedule.real_keys else KeyedHash("time")
        self.time_keys: Any = KeyRing((TIME_KEY.public_bytes,)) if schedule.real_keys else self.time_key
        self.forger = FORGER
        self.network = Network(self, schedule.network)
        self.cloud = SimCloud(self)
        self._memory: CrashableConnection | None = None

    @property
    def now_s(self) -> float:
        return self.loop.time()

    def true_time(self) -> datetime:
        return T0 + timedelta(seconds=self.now_s)

    def clock_mono(self) -> float:
        return self.now_s - self.boot_s

    def note(self, *what: Any) -> None:
        self.trace.append((round(self.now_s, 6), *what))

    def trace_hash(self) -> str:
        return hashlib.sha256(repr(self.trace).encode()).hexdigest()

    def cover(self, state: str) -> None:
        self.coverage[state] += 1

    def violated(self, invariant: str, words: str) -> None:
        if (invariant, words) not in self._told:  # what goes on is one violation
            self._told.add((invariant, words))
            self.violations.append((invariant, f"{words} (at {self.now_s:.1f} s)"))

    def did(self, miner_id: str, verb: str, value: str) -> None:
        self.note("did", miner_id, verb, value)
        self.deeds.append(Deed(self.now_s, miner_id, verb, value))

    def ordered(self, envelope: Envelope) -> None:
        if all(known.payload != envelope.payload for _, known in self.orders):
            self.orders.append((self.now_s, envelope))

    def next_id(self) -> str:
        self.ids += 1
        return f"id-{self.ids}"

    def forged_time(self, payload: bytes, *, known: bool) -> Envelope:
        """Return a wrong time: signed by our key for another site or moment, or by a stranger's."""
        return (self.time_key if known else self.forger).sign(Domain.TIME, payload)

    def stored_on_disk(self, batch: Batch) -> None:
        key = (batch.epoch, batch.first_seq)
        self.promised.setdefault(key, batch)
        self.promised_s.setdefault(key, self.now_s)

    def disk_failure(self) -> DiskFailure | None:
        now_s = self.now_s
        if any(e.at_s <= now_s < e.what["until_s"] for e in self.schedule.of("disk_full")):
            self.cover("disk full")
            return DiskFailure("database or disk is full", sqlite3.SQLITE_FULL, stored=False)
        if self.failing_commits:
            stored = self.failing_commits.pop()
            self.cover("commit failed, stored" if stored else "commit failed, not stored")
            return DiskFailure("disk I/O error", sqlite3.SQLITE_IOERR, stored=stored)
        return None

    def connect(self) -> CrashableConnection:
        """Return the disk as a new process finds it."""
        if self._memory is None:
            self._memory = in_memory()
        if self._memory.in_transaction:
            self._memory.writer = None
            self._memory.execute("ROLLBACK")
        return self._memory

    def unplug(self) -> None:
        """Close what is open, at the end of the history."""
        if self._memory is not None:
            self._memory.close()

    def polled(self, miner_id: str) -> Reading:
        """Return what a poller has last read of a miner."""
        miner = self.miners[miner_id]
        miner.settle(self.now_s)
        if not miner.reachable(self.now_s):
            return Reading(miner_id, self.true_time(), MinerState.UNKNOWN, Reason.UNREACHABLE)
        seen = miner.look(self.now_s)
        return Reading(miner_id, self.true_time(), seen.state, seen.reason, seen.hashrate_ths, seen.power_w)
