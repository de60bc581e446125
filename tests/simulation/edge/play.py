"""Plays one schedule: one process of the agent's core after the other, in the world, to the end.

    0 s ---- faults, orders, attacks ---- heal_s ---- everything works ---- end_s: all must have converged

Invariant: a process ends only by a kill of the schedule, or by ``StorageLost`` after a failure of its disk; anything
else is a violation, as is an error that no part of the agent handles.
"""

import asyncio
import gc
import random
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent.app import SiteClock
from agent.backoff import Backoff
from agent.buffer import Buffer
from agent.forwarder import Forwarder, Introduction, SiteFacts
from agent.local_curtail import executor
from agent.local_curtail.backfill import Backfill
from agent.local_curtail.chain import Chain
from agent.local_curtail.site import LocalCurtail, SiteMiner, SiteRules
from agent.precedence import Precedence
from agent.sealer import Sealer
from agent.site_files import SiteFiles
from agent.storage import StorageFull, StorageLost
from agent.supervisor import supervised
from sitelink.signing import KeyRing
from sitelink.types import Batch, BatchBody, Fallback, MinerState, Notice, NoticeCode, Reading, Reason, Verb
from sitelink.units import Watts
from tests.simulation import loop
from tests.simulation.edge.cloud import hostile
from tests.simulation.edge.devices import EdgeControl
from tests.simulation.edge.disk import SimDiskWriter, make_tables
from tests.simulation.edge.network import SimUplink
from tests.simulation.edge.oracle import Oracle
from tests.simulation.edge.schedule import Event, Schedule
from tests.simulation.edge.world import Armed, EdgeLife, EdgeWorld
from tests.simulation.keys import ORDER_KEY
from tests.simulation.world import Killed, WorldClock
from tests.veiled import Veiled

HEARTBEAT_S = 4.0
READ_S = 10.0
SEAL_S = 6.0
GRACE_S = 20.0
TICK_S = 2.0
"""How often the policy decides here if nothing happens: every half second would cost as much as all the rest."""


class WatchedBuffer(Buffer):
    """The agent's buffer; its writer learns which batches a transaction seals."""

    def __init__(self, writer: SimDiskWriter, *arguments: Any) -> None:
        self._sim_writer = writer
        super().__init__(writer, *arguments)

    async def append(self, body: BatchBody) -> Batch | None:
        batch = await super().append(body)
        if batch is None:
            self._sim_writer.dropped()
        else:
            self._sim_writer.keep(batch)
        return batch

    def append_in(self, connection: Any, body: BatchBody) -> Batch:
        batch = super().append_in(connection, body)
        self._sim_writer.sealed.append(batch)
        return batch


@dataclass
class Parts:
    """What one process is made of."""

    buffer: WatchedBuffer
    sealer: Sealer
    curtail: LocalCurtail
    forwarder: Forwarder
    backfill: Backfill


class EdgePlay:
    def __init__(self, schedule: Schedule, virtual: asyncio.AbstractEventLoop) -> None:
        self.schedule = schedule
        self.loop = virtual
        self.world = EdgeWorld(virtual, schedule)
        self.oracle = Oracle(self)
        self.life: EdgeLife | None = None
        self.parts: Parts | None = None
        self.up_since_s: float | None = None
        self.lives = 0
        self.cold_boots: list[float] = []
        self.crashes: list[float] = []
        self.overrides: list[tuple[float, Event]] = []
        self.unkept: set[str] = set()
        """Miners that a technician stopped though told that a full disk keeps nothing of it: they are the technician's."""

    async def run(self) -> None:
        self._prepare_miners()
        for event in self.schedule.events:
            act = getattr(self, f"_on_{event.kind}", None)
            if act is not None:
                self.loop.call_at(event.at_s, act, event)
        self.loop.call_at(self.schedule.heal_s, self._heal)
        watch = self.loop.create_task(self.oracle.watch())
        while self.world.now_s < self.schedule.end_s - 0.5:
            down_s, cold = await self._live()
            if self.world.now_s >= self.schedule.end_s - 0.5:
                break
            await asyncio.sleep(down_s)
            if cold:
                self._boot_cold()
        watch.cancel()
        self.oracle.judge()
        self.world.unplug()

    def _boot_cold(self) -> None:
        world = self.world
        world.boot += 1
        world.boot_s = world.now_s
        self.cold_boots.append(world.now_s)
        world.cover("cold boot")

    async def _live(self) -> tuple[float, bool]:
        """Run one process to its end; return how long the site stays without one, and whether it boots anew."""
        life = self.life = EdgeLife(self.world)
        self.lives += 1
        self.world.note("boot")
        task = self.loop.create_task(self._agent(life))
        died = self.loop.create_task(life.died.wait())
        left_s = self.schedule.end_s - self.world.now_s
        await asyncio.wait({task, died}, timeout=max(0.1, left_s), return_when=asyncio.FIRST_COMPLETED)
        at_end = self.world.now_s >= self.schedule.end_s - 0.001
        if at_end:
            self.oracle.look_at_end()
        self.up_since_s = None
        by_itself = not life.dead
        life.kill()
        self.world.note("dead")
        died.cancel()
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if not at_end:
            self.crashes.append(self.world.now_s)
        lost = self._note(outcome)
        if by_itself and not at_end and not lost:
            self.world.violated("process ended", f"by itself: {outcome!r}")
        armed = life.killed_by
        return (3.0, False) if armed is None else (armed.down_s, armed.cold)

    def _note(self, outcome: object) -> bool:
        """Note each error that is no fault of the schedule; return whether storage was lost."""
        pending, lost = [outcome], False
        while pending:
            error = pending.pop()
            if isinstance(error, BaseExceptionGroup):
                pending += error.exceptions
            elif isinstance(error, StorageLost):
                lost = True
                self.world.cover("storage lost")
            elif isinstance(error, BaseException) and not isinstance(error, Killed | asyncio.CancelledError):
                self.world.violated("error", repr(error))
        return lost

    def _make(self, life: EdgeLife) -> Parts:
        world = self.world
        writer = SimDiskWriter(world, life, world.connect())
        clock = WorldClock(world)  # type: ignore[arg-type]
        site_clock = SiteClock(clock)
        buffer = WatchedBuffer(writer, site_clock, "site-1", world.next_id, self.schedule.buffer_bytes, self._wake)
        rules = SiteRules("site-1", "agent-1", frozenset(), 14400.0, Watts(0.0), Fallback.RUN, GRACE_S)
        curtail = LocalCurtail(
            rules=rules,
            miners=tuple(SiteMiner(name, "", Watts(3500.0), True) for name in world.miners),
            writer=writer,
            outbox=buffer,
            clock=clock,
            ids=world.next_id,
            order_keys=KeyRing((ORDER_KEY.public_bytes,)),
            time_keys=world.time_keys,
            controls=lambda miner_id: EdgeControl(world, life, world.miners[miner_id]),
            feeder_meters={},
            latest=world.polled,
            precedence=Precedence(clock),
            files=SiteFiles(Path("/nowhere")),
            secrets=Veiled(),
        )
        site_clock.site_time = curtail.site_time
        sealer = Sealer(buffer, SEAL_S)
        forwarder = Forwarder(
            SimUplink(world, life), buffer, site_clock, world.next_id, Backoff(world.rng_agent, 0.5, 5.0),
            Introduction("site-1", "agent-1", "simulated", f"life-{self.lives}"), lambda: self._facts(curtail),
            curtail.journal, curtail.site_time, HEARTBEAT_S, resend_s=10.0,
        )  # fmt: skip
        self._writer = writer
        backfill = Backfill(writer, buffer, Chain(world.next_id), curtail.site_time)
        return Parts(buffer, sealer, curtail, forwarder, backfill)

    def _facts(self, curtail: LocalCurtail) -> SiteFacts:
        trust, taken = curtail.site_time.now()[1], curtail.journal.taken
        key_ids = (ORDER_KEY.key_id,)
        return SiteFacts(curtail.journal.plan_revision, trust, key_ids, taken.highest, taken.order_id)

    def _wake(self) -> None:
        if self.parts is not None:
            self.parts.forwarder.wake()

    async def _agent(self, life: EdgeLife) -> None:
        parts = self.parts = self._make(life)
        while True:  # a supervisor would start the process again and again while its disk is full
            try:
                await self._writer.run(make_tables)
                await parts.curtail.load()
                break
            except StorageFull:
                await asyncio.sleep(2.0)
        notice = Notice(self.world.next_id(), self.world.true_time(), NoticeCode.AGENT_STARTED, "site-1", "started")
        try:
            await parts.buffer.append(BatchBody(notices=(notice,)))
        except StorageFull:
            self.world.cover("started on a full disk")
        self.up_since_s = self.world.now_s
        works = {
            "curtailment": parts.curtail.run,
            "orders": parts.curtail.run_orders,
            "sealer": parts.sealer.run,
            "forwarder": parts.forwarder.run,
            "journal": parts.backfill.run,
        }
        async with asyncio.TaskGroup() as group:
            for name, work in works.items():
                group.create_task(supervised(name, self._watched(name, work), Backoff(self.world.rng_agent, 0.2, 5.0)))
            group.create_task(self._read(parts.sealer))

    def _watched(self, name: str, work: Any) -> Any:
        """Return ``work``, whose every failure but a full disk is a violation: the supervisor would hide it."""

        async def run() -> None:
            try:
                await work()
            except Exception as error:
                causes = [error]
                while causes:
                    cause = causes.pop()
                    if isinstance(cause, ExceptionGroup):
                        causes += cause.exceptions
                    elif not isinstance(cause, StorageFull):
                        self.world.violated("error", f"{name}: {cause!r}")
                raise

        return run

    async def _read(self, sealer: Sealer) -> None:
        """Take readings, as a poller does."""
        while True:
            for name in self.world.miners:
                reading = self.world.polled(name)
                sealer.add(
                    Reading(name, self.world.true_time(), reading.state, reading.reason, power_w=reading.power_w)
                    if reading.state is not MinerState.UNKNOWN
                    else Reading(name, self.world.true_time(), MinerState.UNKNOWN, Reason.UNREACHABLE)
                )
            await asyncio.sleep(READ_S)

    def _prepare_miners(self) -> None:
        for event in self.schedule.of("device"):
            miner, what = self.world.miners[event.what["miner"]], event.what
            match what["fault"]:
                case "dead":
                    miner.dead.append((event.at_s, what["until_s"]))
                case "deaf":
                    miner.deaf = (event.at_s, what["until_s"])
                case "lost_request":
                    miner.lost_requests |= set(what["nth"])
                case "lost_reply":
                    miner.lost_replies |= set(what["nth"])
                case "late":
                    miner.late_orders |= dict.fromkeys(what["nth"], what["late_s"])
                case "wakes":
                    miner.wakes = True
                    miner.wakes_at.append(event.at_s)

    def _heal(self) -> None:
        self.world.armed.clear()
        for miner in self.world.miners.values():
            miner.lost_requests = miner.lost_replies = set()
            miner.late_orders = {}

    def _on_crash(self, event: Event) -> None:
        what = event.what
        armed = Armed(what["site"], what["nth"], what["after"], what["down_s"], what["cold"])
        if armed.site:
            self.world.armed.append(armed)
        elif self.life is not None and not self.life.dead:
            self.world.cover("killed at a time")
            self.life.kill(armed)

    def _on_step(self, event: Event) -> None:
        self.world.wall_offset_s += event.what["by_s"]
        self.world.cover("clock stepped")

    def _on_restore(self, event: Event) -> None:
        self.world.cloud.restore(event.what["back_s"])

    def _on_io_error(self, event: Event) -> None:
        self.world.failing_commits.append(event.what["stored"])

    def _on_hostile(self, event: Event) -> None:
        session = self.world.network.current
        envelope = hostile(self.world, event)
        now_s = self.world.now_s
        if session is None or session.closed or not session.greeted or envelope is None:
            if now_s < self.schedule.heal_s:
                self.loop.call_later(3.0, self._on_hostile, event)
            return
        self.world.note("hostile", event.what["how"])
        self.world.cover(f"hostile {event.what['how']}")
        session.down.put_nowait(envelope)

    def _on_override(self, event: Event) -> None:
        if self.life is None or self.life.dead or self.up_since_s is None:
            self.world.cover("override while down")
            return
        self.loop.create_task(self._override(event))

    async def _override(self, event: Event) -> None:
        what = event.what
        try:
            refused = await self.parts.curtail.override(
                what["id"], Verb(what["verb"]), what["miners"], timedelta(seconds=what["for_s"])
            )
        except Killed:
            return
        if refused:
            self.world.cover("override not kept")
            self.unkept |= set(what["miners"])
        else:
            self.overrides.append((self.world.now_s, event))
            self.world.cover("override kept")


def play(schedule: Schedule) -> EdgePlay:
    """Play ``schedule`` from start to end in virtual time."""
    played: list[EdgePlay] = []

    async def main(virtual: asyncio.AbstractEventLoop) -> None:
        played.append(EdgePlay(schedule, virtual))
        await played[0].run()

    usual_s, executor.TICK_S = executor.TICK_S, TICK_S  # type: ignore[misc]
    gc.disable()  # it would run the cleanup of dead processes at arbitrary moments
    try:
        loop.run(main, random.Random(f"{schedule.seed} loop"))
    finally:
        gc.enable()
        executor.TICK_S = usual_s  # type: ignore[misc]
    return played[0]
