"""One attempt to stop one miner, from first look to verdict.

    observe -> joins its feeder's round: power before -> INTENT stored -> its turn -> stop sent
            -> looked at until it reads idle; the round says what the meter makes of that -> verdict + ack stored

Invariants: nothing is sent before its intent is durable; a stop already under way when the process died is judged
against the feeder's power stored with that intent, and its miner is never accused; a stop whose order ended meanwhile
is left alone at once, its START takes over.
"""

import asyncio
from dataclasses import replace
from typing import Final

from agent.errors import AgentError, Transient
from agent.local_curtail.attempt import Attempt
from agent.local_curtail.attribution import NOTHING_EXPLAINED
from agent.local_curtail.beginning import SECOND_LOOK_S, Beginning, before_of, told_long_ago
from agent.local_curtail.books import Books, Entry
from agent.local_curtail.chain import Kind
from agent.local_curtail.claims import CATCHES_UP_S, SUSPECT_SHARE, TRAILS_S
from agent.local_curtail.evidence import (
    ALREADY_IDLE,
    DID_NOT_DROP,
    LIES,
    Lie,
    MeterWord,
    StopFacts,
    Verdict,
    judge_stop,
)
from agent.local_curtail.failures import came_of, failed, of_trouble
from agent.local_curtail.feeder import Feeder
from agent.local_curtail.feeders import Feeders
from agent.local_curtail.looks import LOOKS_PER_S, first_pause_s, pause_s
from agent.local_curtail.member import Member
from agent.local_curtail.neighbourhood import Neighbourhood
from agent.local_curtail.policy import TOO_HOT
from agent.local_curtail.ports import Observed
from agent.local_curtail.reach import Reach
from agent.local_curtail.records import MinerRecord, Phase
from agent.local_curtail.resting import Doing
from agent.local_curtail.rules import SiteMiner, SiteRules
from agent.local_curtail.site_time import SiteTime
from sitelink.clock import Clock
from sitelink.types import NoticeCode, Outcome, Verb
from sitelink.units import Watts

_SHORTEST_S: Final = 0.001
"""Two clocks differ by rounding; a wait below this would spin."""
_DRIFTS_SHARE: Final = 0.25
"""By how much of a miner's load its neighbours together may have come to draw more or less beside it."""
_SEND_AGAIN_S: Final = 3.0


class Stopper:
    """Stops miners, one attempt at a time each."""

    def __init__(
        self,
        books: Books,
        reach: Reach,
        feeders: Feeders,
        neighbourhood: Neighbourhood,
        clock: Clock,
        site_time: SiteTime,
        rules: SiteRules,
    ) -> None:
        self._books = books
        self._reach = reach
        self._feeders = feeders
        self._neighbourhood = neighbourhood
        self._clock = clock
        self._site_time = site_time
        self._rules = rules
        self._attempts: dict[str, Attempt] = {}

    async def watch_neighbours(self) -> None:
        """Follow what all miners of metered feeders do, until cancelled."""
        await self._neighbourhood.watch_forever(tuple(self._feeders))

    def recall(self) -> None:
        """Wake each attempt whose order has ended."""
        for miner_id, attempt in self._attempts.items():
            if self._books.miners[miner_id].verb is not Verb.STOP:
                attempt.member.woken.set()

    async def attempt(self, miner: SiteMiner) -> bool:
        """Try to stop ``miner`` once and record how that stands; return whether anything was sent.

        Raises:
            Transient: the journal cannot be written now; the attempt is to be repeated.
        """
        record = self._books.miners[miner.miner_id]
        await self._reach.make_way(miner.miner_id)
        began_s = self._clock.monotonic()
        try:
            seen = await self._reach.look(
                miner.miner_id, Watts(self._rules.idle_share * (record.baseline_w or miner.load_w))
            )
        except AgentError as error:
            await self._judge(miner, failed(error), None, acked=record.acked)
            return False
        now, _ = self._site_time.now()
        rests = self._neighbourhood.rests_off(miner.miner_id)
        beginning = Beginning(miner, record, seen, self._rules, now, rests=rests)
        # One too hot waits for no round of its feeder: its own word must do.
        feeder = None if record.cause == TOO_HOT else self._feeders.get(miner.feeder_id)
        attempt = beginning.attempt(feeder, self._clock.monotonic())
        self._attempts[miner.miner_id] = attempt
        try:
            if attempt.feeder is None:
                return await self._carry_out(attempt, record)
            return await self._in_round(attempt, attempt.feeder, record, seen, began_s)
        finally:
            del self._attempts[miner.miner_id]

    async def _in_round(
        self, attempt: Attempt, feeder: Feeder, record: MinerRecord, seen: Observed, began_s: float
    ) -> bool:
        member = attempt.member
        opens = feeder.join(member)
        try:
            if opens:
                await asyncio.gather(self._neighbourhood.remember(feeder), feeder.before())
            before = await feeder.before()
            if not member.resumed:
                now, _ = self._site_time.now()
                member.before = before_of(record, now, member.load_w, before)
            self._neighbourhood.joined(member)
            feeder.look(member, seen, began_s)
            await self._cover(member, feeder)  # now, while what fell with it has not been joined by the next
            return await self._carry_out(attempt, record)
        finally:
            feeder.leave(member)

    async def _carry_out(self, attempt: Attempt, record: MinerRecord) -> bool:
        """Store the intent, send, watch and judge; return whether anything was sent."""
        member = attempt.member
        if not await self._intend(attempt):
            return False
        if attempt.feeder is not None:
            await attempt.feeder.turn()
            if self._ended(attempt):
                return False
        refusal = await self._send(attempt)
        if refusal is not None:
            member.withdraw()
            await self._withdraw(attempt, record, refusal)
            return False
        # Whose figures may trail what it does is no liar before they have caught up.
        patience_s = max(self._rules.device_deadline_s, TRAILS_S + CATCHES_UP_S)
        attempt.deadline_s = max(attempt.deadline_s, attempt.tried_s + patience_s)
        if member.resumed and record.phase is not Phase.SENT:
            attempt.deadline_s = attempt.tried_s + SECOND_LOOK_S
        verdict = await self._watch(attempt)
        caught = member.resumed and record.lie is Lie.REPORTS_IDLE
        if verdict is not None and verdict.outcome is Outcome.COMPLETE and caught:
            # It claimed to be off while its feeder had not fallen: a fall that comes later has another cause.
            verdict = record.verdict or DID_NOT_DROP
        if verdict is not None:
            power_w = None if member.seen is None else member.seen.power_w
            if not attempt.is_known(self._clock.monotonic()):
                verdict = await self._reach.vouched(attempt.miner_id, verdict)
            await self._judge(member.miner, verdict, power_w, acked=attempt.acked)
        return True

    def _ended(self, attempt: Attempt) -> bool:
        return self._books.miners[attempt.miner_id].verb is not Verb.STOP

    async def _intend(self, attempt: Attempt) -> bool:
        """Store the intent; return False when the order has ended meanwhile. A resumed one keeps its first facts."""
        now, _ = self._site_time.now()
        member = attempt.member
        before = member.before

        def build() -> Entry | None:
            current = self._books.miners[attempt.miner_id]
            if current.verb is not Verb.STOP:
                return None
            phase = Phase.SENT if current.outcome is None else current.phase
            intent = replace(current, phase=phase, touched=True, off_since=current.off_since or now)
            if not member.resumed:
                intent = replace(
                    intent,
                    sent_at=now,
                    sent_no=self._books.next_number(),
                    baseline_w=member.load_w if attempt.was_hashing else None,
                    feeder_before_w=None if before is None else before.power_w,
                    feeder_spread_w=None if before is None else before.spread_w,
                )
            what = f"{current.order_id}, {current.cause}{', looked at again' if member.resumed else ''}"
            return Entry(miners=[intent], journal=[(Kind.STOP_INTENT, attempt.miner_id, what)])

        return await self._books.apply(build)

    async def _send(self, attempt: Attempt) -> Verdict | None:
        """Send the stop; return a verdict only when trying on within this attempt is pointless."""
        attempt.tried_s = self._clock.monotonic()
        attempt.member.sent(attempt.tried_s)
        try:
            if not await self._reach.stop(attempt.miner_id, lambda: not self._ended(attempt)):
                return None  # its order has ended, and its start takes over
        except Transient as error:
            self._note_sent(attempt, error)
            attempt.trouble = error
            return None  # whether it arrived is unknown: the device is looked at, and told again if it runs on
        except AgentError as error:
            self._note_sent(attempt, error)
            return failed(error)
        self._note_sent(attempt, None)
        attempt.acked, attempt.acked_s, attempt.trouble = True, self._clock.monotonic(), None
        attempt.member.acknowledged(attempt.acked_s)
        return None

    def _note_sent(self, attempt: Attempt, error: AgentError | None) -> None:
        order_id = self._books.miners[attempt.miner_id].order_id
        self._books.note(Kind.SENT, attempt.miner_id, f"stop under {order_id}: {came_of(error)}")

    async def _watch(self, attempt: Attempt) -> Verdict | None:
        """Look at the device until its stop is proven or the deadline has passed; None when the order has ended."""
        member = attempt.member
        look_s = self._clock.monotonic() + first_pause_s(self._least_s())
        while not self._ended(attempt):
            member.woken.clear()
            if member.weighs and attempt.feeder is not None:
                await self._weigh(attempt.feeder)
                member.weighs = False
            if self._clock.monotonic() >= look_s:
                await self._look(attempt)
                look_s = self._clock.monotonic() + self._pause_s(attempt)
            elif attempt.is_awaited:  # the others of its feeder have gone off since its last look
                look_s = min(look_s, self._clock.monotonic() + self._pause_s(attempt))
            verdict = self._verdict(attempt)
            if verdict.outcome is Outcome.COMPLETE or verdict == ALREADY_IDLE or member.known is False:
                return verdict
            now_s = self._clock.monotonic()
            deadline_s = self._deadline_s(attempt)
            if now_s >= deadline_s:
                return await self._last_word(attempt)
            if not attempt.acked and now_s - attempt.tried_s >= _SEND_AGAIN_S:
                await self._send(attempt)
                now_s = self._clock.monotonic()
            again_s = deadline_s if attempt.acked else attempt.tried_s + _SEND_AGAIN_S
            await _until(member.woken, min(look_s, deadline_s, max(again_s, now_s)) - now_s)
        return None

    def _pause_s(self, attempt: Attempt) -> float:
        return pause_s(attempt.member, self._least_s(), attempt.is_awaited)

    def _least_s(self) -> float:
        """Return how long a miner is left alone at the least, so that all together are not looked at too often."""
        return len(self._attempts) / LOOKS_PER_S

    async def _look(self, attempt: Attempt) -> None:
        member, began_s = attempt.member, self._clock.monotonic()
        try:
            seen: Observed | None = await self._reach.look(attempt.miner_id, member.idle_w)
        except AgentError:
            seen = attempt.acked_s = None  # another may answer next
        feeder = attempt.feeder
        if feeder is None:
            member.look(seen, began_s, self._clock.monotonic())
            return
        feeder.look(member, seen, began_s)
        if seen is not None:
            self._neighbourhood.noted(attempt.miner_id, Doing.RUNS if member.idle_s is None else Doing.IDLES)
        await self._cover(member, feeder)

    async def _cover(self, member: Member, feeder: Feeder) -> None:
        """Settle a resumed stop that the fall since its own order proves."""
        if not member.resumed or member.known is not None or member.idle_s is None:
            return
        if await self._neighbourhood.covered(member, feeder):
            member.settle(known=True)

    async def _weigh(self, feeder: Feeder, part: Member | None = None) -> None:
        """Settle whom the meter clears or accuses; ``part`` is judged though it does not read idle."""
        judged = [
            member
            for member in feeder.members
            if member.known is None and not member.resumed and (member.idle_s is not None or member is part)
        ]
        surely = feeder.cleared()
        explained = (
            NOTHING_EXPLAINED if all(member.miner.miner_id in surely for member in judged) else feeder.explained()
        )
        cleared = [one for one in judged if one.miner.miner_id in surely or explained.cleared(one.miner.miner_id)]
        accused = [one for one in judged if explained.accused(one.miner.miner_id) and feeder.may_accuse(one)]
        if not cleared and not accused and not feeder.under_beside(self._neighbourhood.runs_w(feeder)):
            return
        moved = await self._neighbourhood.moved(feeder)
        drift = moved.drift
        # What the meter showed while neighbours are known to have run counts, less what they have drifted by since.
        until_s = self._clock.monotonic() - drift.trails_s
        for member in feeder.under_beside(Watts(drift.runs_w), until_s):
            member.settle(known=True)
        if moved.fell:
            return
        if drift.trails_s:
            surely = feeder.cleared(until_s, Watts(drift.fell_w))
        for member in cleared:
            steady = drift.fell_w < _DRIFTS_SHARE * member.load_w
            if member.miner.miner_id in surely or (steady and explained.cleared(member.miner.miner_id)):
                member.settle(known=True)
        for member in () if moved.rose else accused:
            if member.known is None and drift.rose_w < _DRIFTS_SHARE * member.load_w:
                member.settle(known=False)

    async def _last_word(self, attempt: Attempt) -> Verdict:
        """Return the verdict at the deadline: what reads less power, but not idle, is weighed too."""
        member = attempt.member
        claims_part = bool(member.knots) and member.knots[-1].fallen_w >= SUSPECT_SHARE * member.drawn_w
        if attempt.feeder is not None and member.known is None and claims_part:
            await self._weigh(attempt.feeder, member)
        return self._verdict(attempt)

    def _verdict(self, attempt: Attempt) -> Verdict:
        member = attempt.member
        now, _ = self._site_time.now()
        facts = StopFacts(
            baseline_w=member.load_w,
            idle_share=self._rules.idle_share,
            acked=attempt.acked,
            was_hashing=attempt.was_hashing,
            seen=member.seen,
            meter=MeterWord.NONE if attempt.feeder is None else attempt.feeder.word(member),
            fresh=member.renewed or told_long_ago(self._books.miners[attempt.miner_id], now),
        )
        return of_trouble(judge_stop(facts), attempt.trouble)

    def _deadline_s(self, attempt: Attempt) -> float:
        """Return until when it is watched: a miner that reads idle until its feeder has had time to show it."""
        feeder, member = attempt.feeder, attempt.member
        if feeder is None or member.resumed:
            return attempt.deadline_s
        return max(attempt.deadline_s, feeder.accuse_due_s(member))

    async def _judge(self, miner: SiteMiner, verdict: Verdict, power_w: Watts | None, *, acked: bool) -> None:
        def build() -> Entry | None:
            current = self._books.miners[miner.miner_id]
            if current.verb is not Verb.STOP:
                return None
            proven_no = self._books.next_number() if verdict.outcome is Outcome.COMPLETE else 0
            judged = replace(current.judged(verdict, power_w), acked=acked, proven_no=proven_no)
            entry = Entry(miners=[judged], acks=[(judged, verdict)])
            if verdict.lie and verdict.lie is not current.lie:
                entry.notices.append((NoticeCode.LIAR_NAMED, miner.miner_id, LIES[verdict.lie]))
            return entry

        await self._books.apply(build)

    async def _withdraw(self, attempt: Attempt, earlier: MinerRecord, verdict: Verdict) -> None:
        """Record a stop that the device or a rule refused: nothing has changed at the device."""

        def build() -> Entry | None:
            current = self._books.miners[attempt.miner_id]
            if current.verb is not Verb.STOP:
                return None
            judged = replace(
                current.judged(verdict, None), touched=earlier.touched, off_since=earlier.off_since, acked=False
            )
            return Entry(miners=[judged], acks=[(judged, verdict)])

        await self._books.apply(build)


async def _until(woken: asyncio.Event, seconds: float) -> None:
    """Wait until ``woken``, at most ``seconds``."""
    try:
        async with asyncio.timeout(max(_SHORTEST_S, seconds)):
            await woken.wait()
    except TimeoutError:
        return
