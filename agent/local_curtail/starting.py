"""One attempt to bring one miner back, from first look to verdict.

    observe -> INTENT stored -> start sent -> every second: device -> verdict + ack stored

Invariants: a miner that a stop of ours may have reached is always told to start, even when it reads hashing: that stop
may still be on its way. So is one that cannot be read: the start of a miner behind an outlet gives it the power to
answer with. It is tried again until it runs. Nothing here waits for the cloud or for another miner.
"""

import asyncio
from dataclasses import replace
from typing import Final

from agent.cgminer.control.driver import LOOK_S, SEND_AGAIN_S
from agent.errors import AgentError, Permanent, Refused, Transient
from agent.local_curtail.books import Books, Entry
from agent.local_curtail.chain import Kind
from agent.local_curtail.evidence import UNREACHABLE, Verdict, judge_start
from agent.local_curtail.failures import came_of, failed
from agent.local_curtail.ports import Observed
from agent.local_curtail.reach import Reach
from agent.local_curtail.records import Phase
from agent.local_curtail.rules import SiteMiner
from agent.local_curtail.site_time import SiteTime
from sitelink.clock import Clock
from sitelink.types import Evidence, MinerState, Outcome, Reason, Verb
from sitelink.units import Watts

NOT_HASHING: Final = "not_hashing"
_DEADLINE_S: Final = 20.0
_NO_EFFECT_S: Final = 8.0
_BROKEN: Final = {Reason.FAULT, Reason.THERMAL}


class Starter:
    """Starts miners, one attempt at a time each."""

    def __init__(self, books: Books, reach: Reach, clock: Clock, site_time: SiteTime) -> None:
        self._books = books
        self._reach = reach
        self._clock = clock
        self._site_time = site_time

    async def attempt(self, miner: SiteMiner) -> bool:
        """Try to start ``miner`` once and record how that stands; return whether anything was sent.

        Raises:
            Transient: the journal cannot be written now; the attempt is to be repeated.
        """
        record = self._books.miners[miner.miner_id]
        await self._reach.make_way(miner.miner_id)
        seen = await self._look(miner.miner_id)
        if seen is not None and not record.touched and seen.state is MinerState.HASHING:
            await self._judge(miner, await self._running(miner), seen.power_w)
            return False
        if not await self._intend(miner):
            return False
        refusal = await self._send(miner)
        if seen is None and refusal is not None:
            await self._judge(miner, failed(refusal), None)  # neither read nor told: it waits for its next attempt
            return False
        verdict, power_w = await self._bring_back(miner, None if seen is None else seen.power_w, refusal)
        if verdict is not None:
            await self._judge(miner, await self._reach.vouched(miner.miner_id, verdict), power_w)
        return True

    async def _running(self, miner: SiteMiner) -> Verdict:
        """Return how a start stands whose miner hashes already, if it is that miner."""
        try:
            found = await self._reach.identity(miner.miner_id)
        except AgentError as error:
            return failed(error)
        if found != miner.miner_id:
            return Verdict(Outcome.REFUSED, Evidence.NONE, "wrong_device")
        return Verdict(Outcome.COMPLETE, Evidence.DEVICE_STATE, "already_running")

    async def _bring_back(
        self, miner: SiteMiner, before_w: Watts | None, refusal: AgentError | None
    ) -> tuple[Verdict | None, Watts | None]:
        """Look until the miner is back or the deadline has passed, and send again; None when the order ended.

        ``refusal`` is what the first sending came to.
        """
        baseline_w = self._books.miners[miner.miner_id].baseline_w or miner.load_w
        sent_s = self._clock.monotonic()
        deadline_s = sent_s + _DEADLINE_S
        now: Observed | None = None
        while self._books.miners[miner.miner_id].verb is Verb.START:
            if isinstance(refusal, Refused):
                return failed(refusal), None  # whoever answers there, it proves nothing about this miner
            now = await self._look(miner.miner_id)
            verdict = None if now is None else judge_start(now, before_w, baseline_w)
            if verdict is not None and not isinstance(refusal, Transient):
                return verdict, None if now is None else now.power_w
            now_s = self._clock.monotonic()
            if now_s >= deadline_s or isinstance(refusal, Permanent):
                return _still_off(now, refusal), None if now is None else now.power_w
            # A stop sent shortly before may be carried out after the start and undo it: a start without effect is
            # sent again, which is safe to repeat.
            if now_s - sent_s >= (_NO_EFFECT_S if refusal is None else SEND_AGAIN_S):
                refusal, sent_s = await self._send(miner), self._clock.monotonic()
            await asyncio.sleep(LOOK_S)
        return None, None

    async def _send(self, miner: SiteMiner) -> AgentError | None:
        try:
            await self._reach.start(miner.miner_id)
        except AgentError as error:
            self._note_sent(miner, error)
            return error
        self._note_sent(miner, None)
        return None

    def _note_sent(self, miner: SiteMiner, error: AgentError | None) -> None:
        order_id = self._books.miners[miner.miner_id].order_id
        self._books.note(Kind.SENT, miner.miner_id, f"start under {order_id}: {came_of(error)}")

    async def _look(self, miner_id: str) -> Observed | None:
        try:
            return await self._reach.observe(miner_id)
        except AgentError:
            return None

    async def _intend(self, miner: SiteMiner) -> bool:
        now, _ = self._site_time.now()

        def build() -> Entry | None:
            current = self._books.miners[miner.miner_id]
            if current.verb is not Verb.START:
                return None
            phase = Phase.SENT if current.outcome is None else current.phase
            sent = replace(current, phase=phase, sent_at=now, sent_no=self._books.next_number())
            what = f"{current.order_id}, {current.cause}"
            return Entry(miners=[sent], journal=[(Kind.START_INTENT, miner.miner_id, what)])

        return await self._books.apply(build)

    async def _judge(self, miner: SiteMiner, verdict: Verdict, power_w: Watts | None) -> None:
        def build() -> Entry | None:
            current = self._books.miners[miner.miner_id]
            if current.verb is not Verb.START:
                return None
            judged = current.judged(verdict, power_w)
            if verdict.outcome is Outcome.COMPLETE:
                judged = replace(judged, touched=False, off_since=None)
            return Entry(miners=[judged], acks=[(judged, verdict)])

        await self._books.apply(build)


def _still_off(seen: Observed | None, refusal: AgentError | None) -> Verdict:
    if seen is None:
        return UNREACHABLE
    if seen.state is MinerState.HASHING and refusal is not None and not isinstance(refusal, Transient):
        return Verdict(Outcome.COMPLETE, Evidence.DEVICE_STATE, "hashing")
    if refusal is not None and not isinstance(refusal, Transient):
        return failed(refusal)
    return Verdict(Outcome.UNVERIFIED, Evidence.DEVICE_STATE, "fault" if seen.reason in _BROKEN else NOT_HASHING)
