"""A stop or a start as a site gives it: `MinerControl` tells, local curtailment's own judges decide, without a meter.

    stop    look --> told --> every second: judge_stop  until COMPLETE or the site's deadline --> who answers, again
    start   told, whatever can be seen --> every second: judge_start                         --> who answers, again

This is an attempt of `agent.local_curtail.stopping` or `starting` without books, feeders and neighbours.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.cgminer.control import MinerControl
from agent.cgminer.control.outlet import OutletControl
from agent.errors import AgentError, Permanent, Refused, Transient
from agent.local_curtail import starting, stopping
from agent.local_curtail.evidence import ALREADY_IDLE, MeterWord, StopFacts, Verdict, judge_start, judge_stop
from agent.local_curtail.failures import failed, of_trouble
from agent.local_curtail.looks import LOOK_S
from agent.local_curtail.ports import Observed
from agent.local_curtail.reach import Reach
from agent.local_curtail.rules import SiteRules
from agent.precedence import Precedence
from sitelink.clock import Clock
from sitelink.types import Evidence, Fallback, MinerState, Outcome
from sitelink.units import Watts

RULES = SiteRules("site", "agent", frozenset(), 3600.0, Watts(0), Fallback.RUN, 30.0)
Pause = Callable[[float], Awaitable[None]]


@dataclass
class Switching:
    """One miner, and what the books of a site keep of it from one attempt to the next.

    ``baseline_w`` is durable before a stop is sent; ``touched`` until the miner has been seen back.
    """

    control: MinerControl | OutletControl
    miner_id: str
    load_w: Watts
    clock: Clock
    pause: Pause
    baseline_w: Watts | None = None
    touched: bool = False

    def __post_init__(self) -> None:
        self._reach = Reach(lambda _name: self.control, 1, Precedence(self.clock))

    async def stop(self) -> Verdict:
        """One attempt to stop the miner."""
        try:
            seen = await self._reach.observe(self.miner_id)
        except AgentError as error:
            return failed(error)
        was_hashing = self.baseline_w is not None  # an attempt that was cut short has seen it hash
        if self.baseline_w is None:
            drawing = (seen.power_w or 0.0) > RULES.idle_share * self.load_w
            was_hashing = drawing or seen.state is MinerState.HASHING
            self.baseline_w = (seen.power_w if drawing else None) or self.load_w
        self.touched = True
        verdict = await self._watch_stop(self.baseline_w, was_hashing)
        return await self._reach.vouched(self.miner_id, verdict)

    async def _watch_stop(self, baseline_w: Watts, was_hashing: bool) -> Verdict:
        ends_s = self.clock.monotonic() + RULES.device_deadline_s
        refusal = await self._tell(self._stop)
        sent_s = self.clock.monotonic()
        if refusal is not None and not isinstance(refusal, Transient):
            return failed(refusal)
        while True:
            seen = await self._look()
            facts = StopFacts(baseline_w, RULES.idle_share, refusal is None, was_hashing, seen, MeterWord.NONE)
            verdict = of_trouble(judge_stop(facts), refusal)
            now_s = self.clock.monotonic()
            if verdict.outcome is Outcome.COMPLETE or verdict == ALREADY_IDLE or now_s >= ends_s:
                return verdict
            if refusal is not None and now_s - sent_s >= stopping._SEND_AGAIN_S:
                refusal, sent_s = await self._tell(self._stop), now_s
            await self.pause(LOOK_S)

    async def start(self) -> Verdict:
        """One attempt to bring the miner back."""
        seen = await self._look()
        if seen is not None and not self.touched and seen.state is MinerState.HASHING:
            running = Verdict(Outcome.COMPLETE, Evidence.DEVICE_STATE, "already_running")
            return await self._reach.vouched(self.miner_id, running)
        refusal = await self._tell(self._reach.start)
        if seen is None and refusal is not None:
            return failed(refusal)
        verdict = await self._watch_start(None if seen is None else seen.power_w, refusal)
        verdict = await self._reach.vouched(self.miner_id, verdict)
        self.touched = self.touched and verdict.outcome is not Outcome.COMPLETE
        return verdict

    async def _watch_start(self, before_w: Watts | None, refusal: AgentError | None) -> Verdict:
        sent_s = self.clock.monotonic()
        ends_s = sent_s + starting._DEADLINE_S
        while not isinstance(refusal, Refused):
            seen = await self._look()
            verdict = None if seen is None else judge_start(seen, before_w, self.baseline_w or self.load_w)
            if verdict is not None and not isinstance(refusal, Transient):
                return verdict
            now_s = self.clock.monotonic()
            if now_s >= ends_s or isinstance(refusal, Permanent):
                return starting._still_off(seen, refusal)
            if now_s - sent_s >= (starting._NO_EFFECT_S if refusal is None else starting.SEND_AGAIN_S):
                refusal, sent_s = await self._tell(self._reach.start), self.clock.monotonic()
            await self.pause(starting.LOOK_S)
        return failed(refusal)

    async def _stop(self, miner_id: str) -> None:
        await self._reach.stop(miner_id, lambda: True)

    async def _tell(self, order: Callable[[str], Awaitable[None]]) -> AgentError | None:
        try:
            await order(self.miner_id)
        except AgentError as error:
            return error
        return None

    async def _look(self) -> Observed | None:
        try:
            return await self._reach.observe(self.miner_id)
        except AgentError:
            return None
