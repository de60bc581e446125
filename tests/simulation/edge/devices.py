"""Miners that can be told everything, and fail at it: requests and replies lost, carried out late, said and not done."""

import asyncio
import importlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.cgminer.control.driver import ReadBack, Result, Wanted
from agent.cgminer.control.read_back import shows_limited, shows_rebooted, shows_set
from agent.errors import TimedOut, Unreachable
from sitelink.types import MinerState, Reason, Verb
from sitelink.units import Watts
from tests.simulation.world import Observation, SimMiner

if TYPE_CHECKING:
    from tests.simulation.edge.world import EdgeLife, EdgeWorld

course = importlib.import_module("agent.cgminer.control.carry_out")
"""The module: its package names the function alike."""
REBOOT_S = 6.0
ORDER_S = 25.0
"""How long one order to one miner may take."""


@dataclass
class EdgeMiner(SimMiner):
    limit_w: float = 9000.0
    lamp: bool = False
    booted_s: float = -5000.0
    deaf: tuple[float, float] = (0.0, 0.0)
    """While it says yes and does nothing."""
    late_orders: dict[int, float] = field(default_factory=dict)
    """By the number of an order: how many seconds later it is carried out, unanswered."""

    def is_deaf(self, now_s: float) -> bool:
        return self.deaf[0] <= now_s < self.deaf[1]

    def true_power_w(self, now_s: float) -> float:
        return min(super().true_power_w(now_s), self.limit_w)

    def look(self, now_s: float) -> Observation:
        if now_s < self.booted_s + REBOOT_S:
            return Observation(MinerState.IDLE, Reason.STARTING, Watts(60.0), 0.0, int(now_s - self.booted_s))
        power = Watts(self.true_power_w(now_s))
        uptime_s = int(now_s - self.booted_s)
        if not self.hashing:
            return Observation(MinerState.IDLE, Reason.COMMANDED, power, 0.0, uptime_s)
        return Observation(MinerState.HASHING, Reason.NONE, power, 100.0, uptime_s)


class EdgeControl:
    """The agent's way to one miner; the order's course is the agent's own ``carry_out``."""

    def __init__(self, world: "EdgeWorld", life: "EdgeLife", miner: EdgeMiner) -> None:
        self._world, self._life, self.miner = world, life, miner
        self._driver = EdgeDriver(self)
        self.address = f"10.0.0.{miner.miner_id}"
        self.dialect = "simulated"

    def monotonic(self) -> float:
        return self._world.clock_mono()

    async def identity(self) -> str:
        await self.travel()
        return self.miner.miner_id

    async def observe(self) -> Observation:
        await self.travel()
        self.miner.settle(self._world.now_s)
        return self.miner.look(self._world.now_s)

    async def stop(self) -> None:
        await self.order("stop", "")

    async def start(self) -> None:
        await self.order("start", "")

    async def carry_out(self, wanted: Wanted, keep: Any, *, kept: str = "", deadline_s: float | None = None) -> Result:
        return await course.carry_out(
            self._driver, self, self.miner.miner_id, wanted, keep=keep, deadline_s=deadline_s or ORDER_S, kept=kept
        )  # type: ignore[arg-type]

    async def order(self, verb: str, value: str) -> None:
        """Have the miner do ``verb``; each of its faults strikes here."""
        world, miner = self._world, self.miner
        self._life.reach(f"ctl.{verb}", after=False)
        await self.travel()
        miner.settle(world.now_s)
        miner.orders += 1
        if miner.orders in miner.lost_requests:
            world.cover("request lost")
            await asyncio.sleep(2.0)
            raise TimedOut("lost on the way")
        if miner.is_deaf(world.now_s):
            world.cover(f"{verb} said and not done")
            return
        late_s = miner.late_orders.get(miner.orders)
        if late_s is not None:
            world.cover(f"late {verb}")
            world.loop.call_later(late_s, self._do, verb, value)
            await asyncio.sleep(2.0)
            raise TimedOut("no answer")
        self._do(verb, value)
        self._life.reach(f"ctl.{verb}", after=True)
        if miner.orders in miner.lost_replies:
            world.cover(f"reply to {verb} lost")
            await asyncio.sleep(2.0)
            raise TimedOut("its answer was lost")

    def _do(self, verb: str, value: str) -> None:
        now_s, miner = self._world.now_s, self.miner
        self._world.did(miner.miner_id, verb, value)
        if verb in ("stop", "start"):
            miner.take(verb, now_s)
        elif verb == "reboot":
            miner.booted_s = now_s
        elif verb == "limit":
            miner.limit_w = float(value)
        elif verb == "blink":
            miner.lamp = value == "true"

    async def travel(self) -> None:
        self._life.check()
        now_s = self._world.now_s
        if not self.miner.reachable(now_s) or self.miner.booted_s <= now_s < self.miner.booted_s + REBOOT_S / 2:
            await asyncio.sleep(1.0)
            self._life.check()
            raise Unreachable("no connection")
        await asyncio.sleep(self._world.rng_io.uniform(0.005, 0.2))
        self._life.check()


class EdgeDriver:
    verbs = frozenset({Verb.REBOOT, Verb.LIMIT, Verb.BLINK})

    def __init__(self, control: EdgeControl) -> None:
        self._control = control

    async def former(self, device: Any, wanted: Wanted) -> str:
        await self._control.travel()
        return json.dumps({"limit_w": self._control.miner.limit_w})

    async def send(self, device: Any, wanted: Wanted, former: str) -> bytes:
        await self._control.order(wanted.verb.value, next(iter(wanted.parameters.values()), ""))
        return b""

    async def shows(self, device: Any, wanted: Wanted, before: Any) -> ReadBack:
        seen = await self._control.observe()
        miner = self._control.miner
        if wanted.verb is Verb.REBOOT:
            return shows_rebooted(seen, before)  # type: ignore[arg-type]
        if wanted.verb is Verb.LIMIT:
            return shows_limited(Watts(miner.limit_w), seen, Watts(float(wanted.parameters["power_w"])))  # type: ignore[arg-type]
        return shows_set(Verb.BLINK, miner.lamp == (wanted.parameters["on"] == "true"))
