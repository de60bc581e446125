"""One curtailment of a real agent whose link is cut at some moment, killed -9 at others, its clock moved at another.

    plan accepted --> [cut, kills, clock, anywhere] --> window starts --> ends, restored --> link up again --> settled

What is judged is seen from outside: what the simulated miners did, what the cloud has, what the database file holds.
"""

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from agent.local_curtail.chain import head_of
from agent.local_curtail.executor import FIRST_WORD_S
from agent.storage import connect_read_only
from simulator.link import LinkProxy, Mode
from simulator.roster import RosterOptions
from simulator.site import SimulatedSite, SiteOptions
from sitelink.clock import SystemClock
from sitelink.types import (
    ClockTrust,
    Curtailment,
    CurtailmentCause,
    Fallback,
    Interval,
    NoticeCode,
    Outcome,
    Ramp,
    SitePlan,
    Verb,
)
from sitelink.units import Watts
from tests.contract.simulator.world import free_port
from tests.e2e.outside import buffer_faults, journal_faults
from tests.e2e.stub_cloud import StubCloud

MINERS = 5
BEFORE_S, WINDOW_S = 8.0, 26.0
RESTORE_S = 15.0
"""So long past the end, its ramp included, a miner may take to come back."""
STEP_S = 3600.0
_AFTER_S = 2.0
"""So long past the end something may still happen to a run."""
RESTART_S = 1.0
"""So long systemd waits before it starts the agent again (``RestartSec`` of its unit)."""
_APART_S = 6.0
"""A second kill comes so long after the first: what is killed as soon as it is up gets nowhere, whoever it is."""
_LOOK_S = 0.1
_SITE = "cut-1"
_GRACE_S = 4.0
_WRONG_S = 3.0 * STEP_S
"""So wrong a clock may be at a cold boot: one ahead by ``max_off_s`` ends each stop by that limit, at once."""


@dataclass(frozen=True)
class Course:
    """What befalls one run, in seconds after its plan was accepted; ``steps`` move the wall clock."""

    seed: int
    cut_s: float
    half_open: bool
    kills_s: tuple[float, ...] = ()
    steps: tuple[tuple[float, float], ...] = ()
    window_s: float = WINDOW_S


def drawn(seed: int, *, killed: bool, stepped: bool, window_s: float = WINDOW_S) -> Course:
    """A course from its seed."""
    rng = random.Random(seed)
    last_s = BEFORE_S + window_s + _AFTER_S
    kills = (rng.uniform(0.0, last_s),) if killed else ()
    if killed and rng.random() < 0.4 and kills[0] + _APART_S < last_s:
        kills = (*kills, rng.uniform(kills[0] + _APART_S, last_s))
    steps = ((rng.uniform(0.0, last_s), rng.choice((-STEP_S, STEP_S))),) if stepped else ()
    return Course(seed, rng.uniform(0.0, BEFORE_S + window_s), rng.random() < 0.5, kills, steps, window_s)


@dataclass
class Outcomes:
    """How one run went; ``faults`` are in words, and empty when it held. Unknown is None."""

    start_error_s: float | None = None
    restored_s: float | None = None
    left_off: int = 0
    journal_missing: int = 0
    faults: list[str] = field(default_factory=list)


class Cut:
    """A site of its own under one course, on addresses of its own (``net``)."""

    def __init__(self, folder: Path, net: str, course: Course, fallback: str = "run") -> None:
        self.folder, self.course = folder, course
        roster = RosterOptions(
            _SITE,
            MINERS,
            course.seed,
            net=net,
            port=free_port(),
            feeder_size=MINERS,
            dialects=("luxos", "whatsminer", "avalon"),
        )
        self.options = SiteOptions(roster, out=folder, meters_port=0, time_scale=4.0)
        self.fallback = fallback
        self.cloud = StubCloud(_SITE)
        self.process: asyncio.subprocess.Process | None = None
        self.log: list[str] = []
        self.clock = SystemClock()
        self.outcomes = Outcomes()
        self.off_at: dict[str, datetime] = {}
        self.on_at: dict[str, datetime] = {}

    @property
    def database(self) -> Path:
        return self.folder / "state" / "agent.db"

    async def played(self) -> Outcomes:
        """Play the course and judge it."""
        async with self.cloud.serving() as port:
            proxy = LinkProxy(("127.0.0.1", 0), ("127.0.0.1", port))
            async with proxy as self.link, SimulatedSite(self.options, self.clock) as self.site:
                self.write_files()
                try:
                    await self.start()
                    await self.play()
                except TimeoutError:
                    self.outcomes.faults.append(f"waited in vain: {self.waited_for}")
                finally:
                    await self.kill()
        if "Traceback" in (said := (self.folder / "agent.log").read_text()):
            self.outcomes.faults.append(f"a defect of ours: {said.strip().splitlines()[-1]}")
        return self.outcomes

    def write_files(self) -> None:
        (self.folder / "agent.toml").write_text(
            f'[site]\nsite_id = "{_SITE}"\n'
            f'[link]\nendpoint = "127.0.0.1:{self.link.port}"\nheartbeat_s = 1\n'
            "[poll]\ninterval_s = 10\nmeter_interval_s = 2\n[buffer]\nseal_s = 1\n"
            '[control]\ndevice_deadline_s = 10\nwhatsminer_password = "admin"\n'
            f'[fallback]\nmode = "{self.fallback}"\ngrace_s = {_GRACE_S}\n'
        )
        self.move_clock()
        self.cloud.enrol(self.folder / "state" / "identity")

    def move_clock(self, offset_s: float = 0.0, boot: str = "") -> None:
        place = self.folder / "clock"
        place.with_suffix(".new").write_text(f"{offset_s} {boot}")
        place.with_suffix(".new").replace(place)

    async def start(self) -> None:
        with (self.folder / "agent.log").open("ab") as output:
            command = ["-m", "tests.e2e.moved_clock", str(self.folder / "clock"), "run"]
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                *("--config", str(self.folder / "agent.toml")),
                stdout=output,
                stderr=output,
            )

    async def kill(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
            self.process = None

    async def until(self, what: str, condition: Callable[[], object], seconds: float = 60.0) -> None:
        self.waited_for = what
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(_LOOK_S)

    def told(self, code: NoticeCode) -> bool:
        return any(notice.code is code for notice in self.cloud.items()[2])

    def hashing(self, miner_id: str) -> bool:
        """What is true, whatever the device says."""
        return self.site.miners[miner_id].true_hashing(self.site.time.seconds())

    async def begin(self) -> tuple[Interval, tuple[str, ...]]:
        """Push a plan to a site that runs and is heard, and return its window and miners once it is accepted."""
        miners = tuple(self.site.miners)
        await self.until("readings", lambda: {one.miner_id for one in self.cloud.items()[0]} >= set(miners))
        now = self.clock.now()
        window = Interval(now + timedelta(seconds=BEFORE_S), now + timedelta(seconds=BEFORE_S + self.course.window_s))
        ramp = Ramp(Watts(0), 0.0)
        cut = Curtailment("c-1", CurtailmentCause.PRICE, window, miners, ramp, ramp)
        valid = Interval(now - timedelta(minutes=1), now + timedelta(hours=1))
        self.cloud.push_plan(SitePlan("p-1", _SITE, "agent-1", 1, 1, 1, now, valid, Fallback.RUN, (cut,)))
        await self.until("acceptance", lambda: self.told(NoticeCode.PLAN_ACCEPTED), BEFORE_S - 2)
        return window, miners

    async def play(self) -> None:
        window, miners = await self.begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.befall())
            group.create_task(self.watch(window, miners))
        self.link.set_mode(Mode.UP)
        await self.settle()
        self.judge(window, miners)

    async def befall(self) -> None:
        """Cut, kill and move the clock, each at its moment; who supervises the agent starts it again."""
        course, loop = self.course, asyncio.get_running_loop()
        happens: list[tuple[float, str, float]] = [(course.cut_s, "cut", 0.0)]
        happens += [(at_s, "kill", 0.0) for at_s in course.kills_s]
        happens += [(at_s, "step", offset_s) for at_s, offset_s in course.steps]
        began_s = loop.time()
        for at_s, what, offset_s in sorted(happens):
            await asyncio.sleep(max(0.0, began_s + at_s - loop.time()))
            if what == "cut":
                self.link.set_mode(Mode.HALF_OPEN if course.half_open else Mode.CUT)
            elif what == "step":
                self.move_clock(offset_s)
            else:
                await self.kill()
                await asyncio.sleep(RESTART_S)
                await self.start()

    async def watch(self, window: Interval, miners: tuple[str, ...]) -> None:
        """Note when each miner went off and when it was back, until the last may be."""
        last = window.end + timedelta(seconds=RESTORE_S)
        while (now := self.clock.now()) < last:
            for miner_id in miners:
                if self.hashing(miner_id):
                    if miner_id in self.off_at:
                        self.on_at.setdefault(miner_id, now)
                else:
                    self.off_at.setdefault(miner_id, now)
                    self.on_at.pop(miner_id, None)
            if now >= window.end + timedelta(seconds=_AFTER_S) and len(self.on_at) == len(miners):
                return
            await asyncio.sleep(_LOOK_S)

    async def settle(self) -> None:
        """Wait until the cloud has the order's end and the whole journal, and its agent has nothing left to send."""
        await self.until("the end of the order", lambda: self.told(NoticeCode.CURTAILMENT_RESTORED))
        await self.until("the journal", self.is_backfilled)
        await self.kill()

    def is_backfilled(self) -> bool:
        with closing(connect_read_only(self.database)) as connection:
            head = head_of(connection)
        return head is not None and bool(arrived := self.cloud.journal()) and arrived[-1].seq == head.seq

    def judge(self, window: Interval, miners: tuple[str, ...]) -> None:
        found, outcomes = self.outcomes.faults, self.outcomes
        rows = [
            (row["verb"], row["miner_id"], datetime.fromisoformat(row["received_at"])) for row in self.site.order_rows()
        ]
        stops = [at for verb, _, at in rows if verb == Verb.STOP]
        if stops:
            outcomes.start_error_s = abs((min(stops) - window.start).total_seconds())
        found += [f"a stop {at - window.start} after the start" for at in stops if not window.start <= at < window.end]
        found += [f"{name} was never off" for name in miners if name not in self.off_at]
        found += [f"{name} ran again before the end" for name, at in self.on_at.items() if at < window.end]
        left = [name for name in miners if not self.hashing(name)]
        outcomes.left_off = len(left)
        found += [f"{name} is left off" for name in left]
        if self.on_at:
            outcomes.restored_s = max((at - window.end).total_seconds() for at in self.on_at.values())
        _, acks, _ = self.cloud.items()
        last = {(ack.miner_id, ack.verb): ack for ack in acks if ack.order_id == "c-1"}
        for name in miners:
            for verb in (Verb.STOP, Verb.START):
                ack = last.get((name, verb))
                if ack is None or ack.outcome is not Outcome.COMPLETE:
                    said = "nothing" if ack is None else f"{ack.outcome.value}, {ack.reason}"
                    found.append(f"{verb.value} of {name} is not verified: {said}")
        given = Counter((ack.miner_id, ack.verb, ack.outcome, ack.reason, ack.at) for ack in acks)
        found += [f"ack given twice: {key}" for key, times in given.items() if times > 1]
        self.judge_journal()

    def judge_journal(self) -> None:
        arrived = self.cloud.journal()
        found, outcomes = self.outcomes.faults, self.outcomes
        found += journal_faults(self.database, arrived) + buffer_faults(self.database, self.cloud.stored)
        with closing(connect_read_only(self.database)) as connection:
            written = {row[0] for row in connection.execute("SELECT hash FROM curtail_chain")}
        outcomes.journal_missing = len(written - {entry.hash for entry in arrived})


class ColdBoot(Cut):
    """The machine boots anew, with a wrong clock and without a link: the site's fallback holds until the link is back.

    ``run`` amid a curtailment starts its miners, ``stop`` before any plan stops them; both are journalled.
    """

    async def play(self) -> None:
        if self.fallback == "run":
            _, miners = await self.begin()
            await self.until("the window", lambda: not any(self.hashing(name) for name in miners))
        else:
            miners = tuple(self.site.miners)
            await self.until("readings", lambda: {one.miner_id for one in self.cloud.items()[0]} >= set(miners))
        self.link.set_mode(Mode.CUT)
        await self.kill()
        rng = random.Random(self.course.seed)
        self.move_clock(rng.choice((-1.0, 1.0)) * rng.uniform(60.0, _WRONG_S), "boot-2")
        runs = self.fallback == "run"
        began = self.clock.now()
        await self.start()
        await self.until("the fallback", lambda: all(self.hashing(name) is runs for name in miners))
        took_s = (self.clock.now() - began).total_seconds()
        if (
            not _GRACE_S <= took_s <= max(_GRACE_S, FIRST_WORD_S) + RESTORE_S
        ):  # a start waits for the cloud's first word
            self.outcomes.faults.append(f"the fallback took {took_s:.0f} s")
        self.link.set_mode(Mode.UP)
        await self.until("the fallback's end", lambda: self.told(NoticeCode.FALLBACK_ENDED))
        if runs:
            await self.until("the order's end", lambda: self.told(NoticeCode.CURTAILMENT_RESTORED), 90)
        await self.until("restored", lambda: all(self.hashing(name) for name in miners), 90)
        await self.until("the journal", self.is_backfilled)
        await self.kill()
        self.judge_journal()
        self.outcomes.left_off = sum(not self.hashing(name) for name in miners)
        kinds = [entry.kind for entry in self.cloud.journal()]
        for wanted in (NoticeCode.CLOCK_TRUST_CHANGED, NoticeCode.FALLBACK_STARTED, NoticeCode.FALLBACK_ENDED):
            if wanted.value not in kinds:
                self.outcomes.faults.append(f"the journal lacks {wanted.value}")
        started = next((entry for entry in self.cloud.journal() if entry.kind == NoticeCode.FALLBACK_STARTED), None)
        if started is not None and started.trust != ClockTrust.UNTRUSTED:
            self.outcomes.faults.append(f"the fallback began on a clock that is {started.trust}")


def net_of(slot: int) -> str:
    """Loopback addresses of one slot: the devices' web pages stand on fixed ports."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return f"127.{100 + worker * 20 + slot}"
