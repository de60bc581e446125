"""One history: a schedule drawn from a seed as plain data, played against the real local curtailment.

0 s ------ plan delivered ------ window ------ release ---- ramp ---- end
     crashes at named sites, cold boots, a cut link, stepped clocks, hostile orders, device faults
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from agent.local_curtail.site import LocalCurtail, SiteMiner, SiteRules
from agent.precedence import Precedence
from agent.site_files import SiteFiles
from sitelink.orders import write_plan, write_time
from sitelink.signing import KeyRing, PrivateKey
from sitelink.types import (
    ClockTrust,
    Curtailment,
    CurtailmentCause,
    Domain,
    Envelope,
    Fallback,
    Interval,
    Ramp,
    SignedTime,
    SitePlan,
)
from sitelink.units import Watts
from tests.simulation import loop
from tests.simulation.keys import FORGER, ORDER_KEY, TIME_KEY
from tests.simulation.world import (
    T0,
    Killed,
    Life,
    MeterFaults,
    SimControl,
    SimMeter,
    SimMiner,
    SimOutbox,
    SimWriter,
    Site,
    World,
    WorldClock,
)
from tests.veiled import Veiled

DEADLINE_S = 20.0
GRACE_S = 30.0
LIVELY_SHARE = 0.6
"""Of how many histories the figures waver from second to second."""
TRAILING_SHARE = 0.1
"""Of how many histories some devices show figures that trail."""
LONGEST_TRAIL_S = 60.0
ALONE_SHARE = 0.2
"""Of how many histories a miner that nobody has ordered goes off, or comes back, by itself."""
RELAPSE_SHARE = 0.2
"""Of how many histories a stopped miner draws again and says nothing of it."""
CRASH_SITES = ("commit", "stop", "start")


@dataclass
class Crash:
    site: Site | None
    at_s: float
    down_s: float
    cold: bool


@dataclass
class Schedule:
    seed: int
    miners: list[SimMiner]
    metered: set[str]
    plans: list[tuple[float, SitePlan]]
    hostile: list[tuple[float, Envelope]]
    crashes: list[Crash]
    cuts: list[tuple[float, float]]
    steps: list[tuple[float, float]]
    silent_meters: list[tuple[str, float, float]]
    end_s: float
    families: set[str] = field(default_factory=set)
    max_step_w: float = 0.0
    never_touch: frozenset[str] = frozenset()
    max_off_s: float = 14400.0
    house: dict = field(default_factory=dict)
    """What else the site's rules say."""
    site_meter: bool = False
    outside: object | None = None
    """What the agent knows of prices and of the air."""
    racks: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    meters: MeterFaults = field(default_factory=MeterFaults)

    def linked(self, now_s: float) -> bool:
        return not any(start <= now_s < end for start, end in self.cuts)


def at(seconds: float):
    return T0 + timedelta(seconds=seconds)


def make_plan(sequence: int, curtailments, *, end_s: float, site_id="site-1", agent_id="agent-1") -> SitePlan:
    return SitePlan(
        f"plan-{sequence}", site_id, agent_id, 1, sequence, sequence, at(0), Interval(at(0), at(end_s)), Fallback.RUN,
        tuple(curtailments),
    )  # fmt: skip


def seal(plan: SitePlan, key: PrivateKey = ORDER_KEY) -> Envelope:
    return key.sign(Domain.PLAN, write_plan(plan))


def curtail(name: str, start_s: float, end_s: float, miners, *, down=(0.0, 0.0), up=(0.0, 0.0)) -> Curtailment:
    return Curtailment(
        name, CurtailmentCause.PRICE, Interval(at(start_s), at(end_s)), tuple(miners),
        Ramp(Watts(down[0]), down[1]), Ramp(Watts(up[0]), up[1]),
    )  # fmt: skip


def generate(seed: int, trailing: float = TRAILING_SHARE, lively: float = LIVELY_SHARE) -> Schedule:
    """Return the random history of ``seed``; ``trailing`` and ``lively`` are the shares that have such figures."""
    rng = random.Random(f"{seed} schedule")
    on = {name: rng.random() < 0.6 for name in ("crash", "cut", "step", "device", "liar", "hostile", "replan", "meter")}
    feeders = ["F1", "F2", "F3"]
    metered = {"F1", "F2"} if rng.random() < 0.7 else set(feeders)
    miners = [
        SimMiner(f"m{n:02d}", feeders[n % 3], rng.uniform(2500, 4000), stop_delay_s=rng.uniform(1, 4))
        for n in range(rng.randint(6, 10))
    ]
    start_s, hold_s = rng.uniform(20, 40), rng.uniform(40, 150)
    ramp_up = rng.choice([(0.0, 0.0), (8000.0, 5.0), (12000.0, 10.0)])
    ramp_down = rng.choice([(0.0, 0.0), (0.0, 0.0), (8000.0, 3.0)])
    chosen = rng.sample([m.miner_id for m in miners], rng.randint(3, len(miners)))
    end_s = start_s + hold_s
    first = curtail("c1", start_s, end_s, chosen, down=ramp_down, up=ramp_up)
    plans = [(rng.uniform(2, start_s - 5), make_plan(2, [first], end_s=end_s + 400))]
    if on["replan"]:
        plans.append(_replan(rng, first, [m.miner_id for m in miners], start_s, end_s))
    last_end_s = max((item.interval.end - T0).total_seconds() for _, p in plans for item in p.curtailments or (first,))
    schedule = Schedule(seed, miners, metered, plans, [], [], [], [], [], last_end_s + 190.0)
    schedule.families = {name for name, active in on.items() if active}
    if on["liar"]:
        _plant_liars(rng, schedule, chosen)
    if on["device"]:
        _plant_device_faults(rng, schedule, chosen, start_s, last_end_s)
    if on["crash"]:
        _plant_crashes(rng, schedule, start_s, last_end_s)
    if on["cut"]:
        cut_s = rng.uniform(plans[0][0] + 1, last_end_s)
        schedule.cuts.append((cut_s, cut_s + rng.choice([30.0, 120.0, 1e9])))
    if on["step"]:
        schedule.steps = [(rng.uniform(5, last_end_s), rng.uniform(-9000, 9000)) for _ in range(rng.randint(1, 3))]
    if on["hostile"]:
        schedule.hostile = _hostile(rng, schedule, start_s, end_s)
    _plant_power_faults(seed, schedule, chosen, start_s, end_s)
    _plant_trailing(seed, schedule, chosen, trailing)
    _plant_bystanders(seed, schedule, start_s, end_s)
    _plant_relapses(seed, schedule, chosen, start_s, end_s)
    alive = random.Random(f"{seed} lively").random() < lively
    for miner in miners:
        miner.lively = alive
    if on["meter"] and rng.random() < 0.5:
        silent_s = rng.uniform(start_s, end_s)
        schedule.silent_meters.append((rng.choice(sorted(metered)), silent_s, silent_s + rng.uniform(5, 60)))
    return schedule


def _replan(rng, first: Curtailment, everyone: list[str], start_s: float, end_s: float):
    kind = rng.choice(["cancel", "shorter", "longer", "renamed", "others"])
    when_s = rng.uniform(start_s - 3, end_s - 5)
    items = {
        "cancel": (),
        "shorter": (replace(first, interval=Interval(at(start_s), at(max(start_s + 5, when_s - 3)))),),
        "longer": (replace(first, interval=Interval(at(start_s), at(end_s + 40))),),
        "renamed": (replace(first, curtailment_id="c2"),),
        "others": (replace(first, curtailment_id="c3", miner_ids=tuple(rng.sample(everyone, 3))),),
    }[kind]
    return when_s, make_plan(3, items, end_s=end_s + 500)


def _plant_liars(rng, schedule: Schedule, chosen: list[str]) -> None:
    metered = [m for m in schedule.miners if m.miner_id in chosen and m.feeder_id in schedule.metered]
    for miner, lie in zip(
        rng.sample(metered, min(2, len(metered))), ["ack_without_effect", "reports_idle"], strict=False
    ):
        if rng.random() < 0.8:
            miner.liar = lie


def _plant_power_faults(seed: int, schedule: Schedule, chosen: list[str], start_s: float, end_s: float) -> None:
    """Meters that are late, stuck or noisy, devices that measure wrongly, more liars; from a stream of their own."""
    rng = random.Random(f"{seed} power")
    on = {name: rng.random() < 0.2 for name in ("late", "stuck", "noisy", "scale", "says", "alike", "idle_now", "pair")}
    feeders = sorted(schedule.metered)
    if on["late"]:
        schedule.meters.late_s = {feeder: rng.uniform(1, 5) for feeder in feeders}
    if on["stuck"]:
        since_s = rng.uniform(start_s - 10, end_s)
        schedule.meters.stuck.append((rng.choice(feeders), since_s, since_s + rng.uniform(10, 200)))
    if on["noisy"]:
        schedule.meters.noise_w = {rng.choice(feeders): rng.uniform(100, 900)}
    if on["scale"]:
        schedule.meters.scale = rng.uniform(1.0, 1.07)
    if on["alike"]:
        for miner in schedule.miners:
            miner.baseline_w = 3400.0
    honest = [m for m in schedule.miners if m.miner_id in chosen and not m.liar and m.feeder_id in schedule.metered]
    if on["says"] and honest:
        rng.choice(honest).says = rng.uniform(0.85, 1.2)
    for name, lie in (("idle_now", "reports_idle_now"), ("pair", "reports_idle")):
        if on[name] and "liar" in schedule.families and honest:
            liar = honest.pop(rng.randrange(len(honest)))
            liar.liar, liar.pretends_idle = lie, name == "idle_now"
    schedule.families |= {name for name, active in on.items() if active}


def _plant_trailing(seed: int, schedule: Schedule, chosen: list[str], share: float) -> None:
    """Devices whose figures are refreshed seldom, or averaged; from a stream of its own."""
    rng = random.Random(f"{seed} trailing")
    if rng.random() >= share:
        return
    for miner in schedule.miners:
        if miner.miner_id in chosen and not miner.liar and rng.random() < 0.5:
            miner.trails = rng.choice(["snapshot", "average"])
            miner.trails_s = rng.uniform(1, LONGEST_TRAIL_S)
            miner.phase_s = rng.uniform(0, miner.trails_s)
    schedule.families.add("trailing")


def _plant_bystanders(seed: int, schedule: Schedule, start_s: float, end_s: float) -> None:
    """Miners without an order that go off, or come back, by themselves; from a stream of their own."""
    rng = random.Random(f"{seed} alone")
    if rng.random() >= ALONE_SHARE:
        return
    ordered = {name for _, plan in schedule.plans for item in plan.curtailments for name in item.miner_ids}
    for miner in schedule.miners:
        if miner.miner_id in ordered or rng.random() < 0.3:
            continue
        miner.stands_alone = True
        when_s = rng.uniform(start_s - 5, min(start_s + 60, end_s))
        miner.hashing = rng.random() < 0.8
        miner.pending.append((when_s, "stop" if miner.hashing else "start"))
        if rng.random() < 0.5:
            miner.dead.append((when_s, rng.choice([when_s + 30, 1e9])))
        schedule.families.add("alone")


def _plant_relapses(seed: int, schedule: Schedule, chosen: list[str], start_s: float, end_s: float) -> None:
    """Miners that draw again while they say that they are off; from a stream of its own."""
    rng = random.Random(f"{seed} relapse")
    honest = [m for m in schedule.miners if m.miner_id in chosen and not m.liar and not m.wakes]
    honest = [m for m in honest if m.feeder_id in schedule.metered]
    if rng.random() >= RELAPSE_SHARE or not honest:
        return
    since_s = rng.uniform(start_s + 10, max(start_s + 11, end_s - 30))
    rng.choice(honest).relapses.append((since_s, since_s + rng.choice([15.0, 60.0, 1e9])))
    schedule.families.add("relapse")


def _plant_device_faults(rng, schedule: Schedule, chosen: list[str], start_s: float, end_s: float) -> None:
    for miner in schedule.miners:
        if miner.miner_id not in chosen or miner.liar or rng.random() < 0.5:
            continue
        kind = rng.choice(["dead", "dies", "revives", "lost_reply", "lost_request", "slow", "wakes"])
        schedule.families.add(kind)
        if kind == "dead":
            miner.dead.append((0, 1e9))
        elif kind == "dies":
            died_s = rng.uniform(start_s, end_s)
            miner.dead.append((died_s, died_s + rng.choice([20.0, 90.0, 1e9])))
        elif kind == "revives":
            miner.dead.append((0, rng.uniform(start_s, end_s + 30)))
        elif kind == "lost_reply":
            miner.lost_replies = set(rng.sample(range(1, 5), 2))
        elif kind == "lost_request":
            miner.lost_requests = set(rng.sample(range(1, 5), 2))
        elif kind == "slow":
            miner.stop_delay_s = rng.uniform(10, 30)
        else:
            miner.wakes = True
            miner.wakes_at = [rng.uniform(start_s + 10, end_s)]


def _plant_crashes(rng, schedule: Schedule, start_s: float, end_s: float) -> None:
    for _ in range(rng.randint(1, 3)):
        site = None
        if rng.random() < 0.8:
            site = Site(rng.choice(CRASH_SITES), rng.randint(1, 6), rng.random() < 0.5)
        at_s = rng.choice(
            [rng.uniform(5, start_s), rng.uniform(start_s - 1, start_s + 30), rng.uniform(start_s, end_s + 20)]
        )
        schedule.crashes.append(Crash(site, at_s, rng.uniform(0.5, 15), rng.random() < 0.15))
    schedule.crashes.sort(key=lambda crash: crash.at_s)


def _hostile(rng, schedule: Schedule, start_s: float, end_s: float) -> list[tuple[float, Envelope]]:
    everyone = [m.miner_id for m in schedule.miners]
    theft = curtail("evil", start_s - 15, end_s + 150, everyone)
    good = schedule.plans[0][1]
    sealed = seal(make_plan(9, [theft], end_s=end_s + 900))
    plans = [
        seal(make_plan(9, [theft], end_s=end_s + 900), FORGER),
        seal(make_plan(9, [theft], end_s=end_s + 900, site_id="site-2")),
        seal(make_plan(9, [theft], end_s=end_s + 900, agent_id="clone")),
        seal(make_plan(9, [theft], end_s=end_s + 100)),  # ends before its release
        seal(make_plan(9, [replace(theft, miner_ids=("stranger",))], end_s=end_s + 900)),
        seal(make_plan(9, [theft, replace(theft, curtailment_id="twin")], end_s=end_s + 900)),
        seal(make_plan(1, [theft], end_s=end_s + 900)),  # older than the first
        replace(sealed, payload=sealed.payload.replace(b"evil", b"evi1")),
        replace(sealed, domain=Domain.COMMAND),
        Envelope(Domain.PLAN, ORDER_KEY.key_id, b"{", b""),
        seal(good),  # a repeated delivery, long after
    ]
    # The older plan would be the first one on an agent that has none: it comes after the real one.
    return [(rng.uniform(schedule.plans[0][0] + 1, end_s), envelope) for envelope in plans]


class Play:
    """Plays a schedule and keeps what the invariants need."""

    def __init__(self, schedule: Schedule, loop) -> None:
        self.schedule = schedule
        self.loop = loop
        self.world = World(loop, schedule.seed, schedule.miners, schedule.metered)
        self.world.silent_meters = schedule.silent_meters
        self.world.meters = schedule.meters
        self.delivered: list[tuple[float, SitePlan]] = []
        self.left_off: list[tuple[float, str]] = []
        self.up_since_s: float | None = None
        self.errors: list[BaseException] = []
        self.lives = 0
        self.cold_boots: list[float] = []
        self.agent: LocalCurtail | None = None

    async def run(self) -> None:
        crashes = list(self.schedule.crashes)
        watch = self.loop.create_task(self._watch())
        power = self.loop.create_task(self.world.remember_power())
        while self.world.now_s < self.schedule.end_s:
            crash = crashes.pop(0) if crashes else None
            await self._live(crash)
            if crash is None:
                break
            await asyncio.sleep(crash.down_s)
            if crash.cold:
                self.world.boot += 1
                self.world.boot_s = self.world.now_s
                self.cold_boots.append(self.world.now_s)
        watch.cancel()
        power.cancel()

    async def _live(self, crash: Crash | None) -> None:
        life = Life()
        self.lives += 1
        agent = self.agent = self._make(life)
        task = self.loop.create_task(self._agent(agent, life))
        arm = self.loop.create_task(self._arm(life, crash))
        left_s = self.schedule.end_s - self.world.now_s
        try:
            async with asyncio.timeout(max(0.1, left_s)):
                await life.died.wait()
        except TimeoutError:
            life.kill()
        self.up_since_s = None
        arm.cancel()
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        self._note(outcome)

    async def _arm(self, life: Life, crash: Crash | None) -> None:
        if crash is None:
            return
        await asyncio.sleep(max(0.0, crash.at_s - self.world.now_s))
        if crash.site is None:
            self.world.coverage["crash at a time"] += 1
            life.kill()
            return
        life.seen.clear()
        life.crash = crash.site
        await asyncio.sleep(60)
        life.kill()

    def _note(self, outcome: object) -> None:
        pending = [outcome]
        while pending:
            error = pending.pop()
            if isinstance(error, BaseExceptionGroup):
                pending += error.exceptions
            elif isinstance(error, BaseException) and not isinstance(error, Killed | asyncio.CancelledError):
                self.errors.append(error)

    def _make(self, life: Life) -> LocalCurtail:
        world = self.world
        rules = SiteRules(
            "site-1", "agent-1", self.schedule.never_touch, self.schedule.max_off_s, Watts(self.schedule.max_step_w), Fallback.RUN, GRACE_S,
            device_deadline_s=DEADLINE_S, **self.schedule.house,
        )  # fmt: skip
        return LocalCurtail(
            rules=rules,
            miners=tuple(
                SiteMiner(
                    m.miner_id,
                    m.feeder_id,
                    Watts(3500.0),
                    True,
                    self.schedule.racks.get(m.miner_id, ""),
                    self.schedule.models.get(m.miner_id, ""),
                )
                for m in world.miners.values()
                if not m.removed
            ),
            writer=SimWriter(world, life),
            outbox=SimOutbox(),
            clock=WorldClock(world),
            ids=world.next_id,
            order_keys=KeyRing((ORDER_KEY.public_bytes,)),
            time_keys=KeyRing((TIME_KEY.public_bytes,)),
            controls=lambda miner_id: SimControl(world, life, world.miners[miner_id]),
            feeder_meters={feeder: SimMeter(world, life, feeder) for feeder in sorted(world.metered)},
            latest=world.polled,
            precedence=Precedence(WorldClock(world)),
            files=SiteFiles(Path("/nowhere")),
            secrets=Veiled(),
            site_w=world.site_w if self.schedule.site_meter else lambda: None,
            outside=self.schedule.outside,
        )

    async def _agent(self, agent: LocalCurtail, life: Life) -> None:
        if self.world.disk_broken:
            self.world.disk_broken = False
            await agent.recover(Path("/nowhere/agent.db.broken"))
        await agent.load()
        self.up_since_s = self.world.now_s
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(agent.run())
                group.create_task(self._link(agent))
        finally:
            life.kill()

    async def _link(self, agent: LocalCurtail) -> None:
        """The cloud's side: answers heartbeats, pushes the current plan on connect, hostile frames when due."""
        given: set[int] = set()
        while True:
            now_s = self.world.now_s
            if self.schedule.linked(now_s):
                sent = now_s - self.world.boot_s
                await asyncio.sleep(0.2)
                signed = SignedTime("site-1", "n", self.world.true_time() - timedelta(seconds=0.1))
                await agent.site_time.learn(
                    TIME_KEY.sign(Domain.TIME, write_time(signed)), sent, self.world.now_s - self.world.boot_s
                )
                due = [index for index, (due_s, _) in enumerate(self.schedule.plans) if due_s <= self.world.now_s]
                if due and due[-1] not in given:
                    given.add(due[-1])
                    plan = self.schedule.plans[due[-1]][1]
                    self.delivered.append((self.world.now_s, plan))
                    await agent.journal.accept(seal(plan))
                    await agent.journal.accept(seal(plan))
                for index, (due_s, envelope) in enumerate(self.schedule.hostile):
                    if due_s <= self.world.now_s and -1 - index not in given and self.delivered:
                        given.add(-1 - index)
                        await agent.journal.accept(envelope)
            await asyncio.sleep(2.0)

    async def _watch(self) -> None:
        steps = sorted(self.schedule.steps)
        while True:
            await asyncio.sleep(5.0)
            while steps and steps[0][0] <= self.world.now_s:
                self.world.wall_offset_s += steps.pop(0)[1]
            self._check_left_off()

    def _check_left_off(self) -> None:
        now_s = self.world.now_s
        if self.up_since_s is None or now_s - self.up_since_s < 20 + 15:
            return
        # Nobody knows the time after a cold boot without the link: the site holds for its grace, then falls back.
        if any(cold_s <= now_s < cold_s + GRACE_S + 40 for cold_s in self.cold_boots):
            return
        self.world.settle()
        for miner in self.world.miners.values():
            if miner.stands_alone:
                continue
            ends = [
                (item.interval.end - T0).total_seconds() + _ramp_s(item)
                for _, plan in self.delivered
                for item in plan.curtailments
                if miner.miner_id in item.miner_ids
            ]
            # Who goes off by itself once more, by a stop that comes late, is noticed once its figures show it.
            late_s = max(0.0, miner.stop_delay_s - 4) + miner.trails_s
            overdue = now_s > max(ends, default=0.0) + 20 + late_s
            starting = any(verb == "start" for _, verb in miner.pending)
            if overdue and not miner.hashing and not starting and miner.reachable_for(now_s, 20 + 15):
                self.left_off.append((now_s, miner.miner_id))


def play(schedule: Schedule, meddle: Callable[[Play], Awaitable[None]] | None = None) -> Play:
    """Play ``schedule`` from start to end in virtual time, while ``meddle`` changes the world beside it."""
    played = {}

    async def main(virtual):
        played["it"] = Play(schedule, virtual)
        beside = None if meddle is None else virtual.create_task(meddle(played["it"]))
        await played["it"].run()
        if beside is not None:
            beside.cancel()

    loop.run(main, random.Random(f"{schedule.seed} loop"))
    return played["it"]


def _ramp_s(item: Curtailment) -> float:
    if not item.ramp_up.step_w:
        return 0.0
    a_step = max(1, int(item.ramp_up.step_w // 3500))
    return -(-len(item.miner_ids) // a_step) * item.ramp_up.step_s


__all__ = ["ClockTrust", "Play", "Schedule", "generate", "play"]
