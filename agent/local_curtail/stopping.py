"""One attempt to stop one miner, from first look to verdict.

    observe -> feeder before -> INTENT stored -> stop sent -> every second: feeder and device -> verdict + ack stored

Invariants: nothing is sent before its intent is durable; a stop already under way when the process died is judged
against the feeder's power stored with that intent; the drop of a neighbour that went off late is never credited to this
miner; a stop whose order ended meanwhile is left alone at once, its START takes over.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from agent.errors import AgentError, Refused, SessionBusy, Transient
from agent.local_curtail.books import Books, Entry
from agent.local_curtail.evidence import (
    ALREADY_IDLE,
    CLOUDED,
    UNREACHABLE,
    FeederBefore,
    Lie,
    StopFacts,
    Verdict,
    judge_stop,
    reads_idle,
)
from agent.local_curtail.ports import FeederMeter, Observed
from agent.local_curtail.reach import Reach
from agent.local_curtail.records import MinerRecord, Phase
from agent.local_curtail.rules import SiteMiner, SiteRules
from agent.local_curtail.site_time import SiteTime
from agent.reasons import reason_of
from sitelink.clock import Clock
from sitelink.types import Evidence, MinerState, NoticeCode, Outcome, Verb
from sitelink.units import Watts

LOOK_S: Final = 1.0
_SAMPLES: Final = 3
_SAMPLE_S: Final = 0.25
_SEND_AGAIN_S: Final = 3.0
_SECOND_LOOK_S: Final = 5.0
"""A miner told to stop long ago and reading idle now needs no full deadline: its feeder has fallen or it has not."""
_LATE_S: Final = 120.0
"""A stop that a device carries out later than this after the next order to it is not expected."""
_SUSPICIOUS: Final = frozenset({"still_hashing", "not_down_yet", "no_reply"})
_LIES: Final = {
    Lie.ACK_WITHOUT_EFFECT: "ack without effect: it said ok and goes on hashing",
    Lie.REPORTS_IDLE: "reports idle, but its feeder did not drop",
}


@dataclass(slots=True)
class _Attempt:
    """What one attempt knows while it lasts."""

    miner: SiteMiner
    baseline_w: Watts
    was_hashing: bool
    before: FeederBefore | None
    deadline_s: float
    suspects: frozenset[str]
    resumed: bool = False
    acked: bool = False
    sent_s: float = 0.0
    seen: Observed | None = None


class Stopper:
    """Stops miners, one attempt at a time each."""

    def __init__(
        self,
        books: Books,
        reach: Reach,
        meters: Mapping[str, FeederMeter],
        neighbours: Callable[[str], tuple[str, ...]],
        clock: Clock,
        site_time: SiteTime,
        rules: SiteRules,
    ) -> None:
        """``neighbours`` gives the miners of a feeder."""
        self._books = books
        self._reach = reach
        self._meters = meters
        self._neighbours = neighbours
        self._clock = clock
        self._site_time = site_time
        self._rules = rules

    async def attempt(self, miner: SiteMiner) -> bool:
        """Try to stop ``miner`` once and record how that stands; return whether anything was sent.

        Raises:
            Transient: the journal cannot be written now; the attempt is to be repeated.
        """
        record = self._books.miners[miner.miner_id]
        await self._reach.make_way(miner.miner_id)
        try:
            seen = await self._reach.observe(miner.miner_id)
        except AgentError as error:
            await self._judge(miner, _failed(error), None, acked=record.acked)
            return False
        attempt = await self._prepare(miner, record, seen)
        if not await self._intend(attempt):
            return False
        refusal = await self._send(attempt)
        if refusal is not None:
            await self._withdraw(attempt, record, refusal)
            return False
        verdict = await self._watch(attempt)
        if verdict is not None and verdict.lie is Lie.REPORTS_IDLE and await self._someone_rose(attempt):
            verdict = CLOUDED
        caught = attempt.resumed and record.lie is Lie.REPORTS_IDLE
        if verdict is not None and verdict.outcome is Outcome.COMPLETE and caught:
            # It claimed to be off while its feeder had not fallen: a fall that comes later has another cause.
            verdict = record.verdict
        if verdict is not None:
            power_w = None if attempt.seen is None else attempt.seen.power_w
            verdict = await self._reach.vouched(miner.miner_id, verdict)
            await self._judge(miner, verdict, power_w, acked=attempt.acked)
        return True

    async def _prepare(self, miner: SiteMiner, record: MinerRecord, seen: Observed) -> _Attempt:
        now_s = self._clock.monotonic()
        known_w = record.baseline_w
        if known_w is not None and (self._cut_short(record) or reads_idle(seen, known_w, self._rules.idle_share)):
            # An earlier attempt, of this process or a killed one, has stopped it or is doing so: measuring anew would
            # take a miner on its way down for one that draws little. Judge that attempt's feeder drop.
            patience_s = self._rules.device_deadline_s if record.phase is Phase.SENT else _SECOND_LOOK_S
            before = None
            if record.feeder_before_w is not None and record.feeder_spread_w is not None:
                before = FeederBefore(record.feeder_before_w, record.feeder_spread_w)
            return _Attempt(
                miner, known_w, True, before, now_s + patience_s, frozenset(), resumed=True, acked=record.acked
            )
        drawing = (seen.power_w or 0.0) > self._rules.idle_share * miner.load_w
        was_hashing = drawing or seen.state is MinerState.HASHING
        baseline_w = seen.power_w if drawing and seen.power_w is not None else miner.load_w
        before = await self._feeder_before(miner)
        suspects = await self._awake_suspects(miner)
        deadline_s = self._clock.monotonic() + self._rules.device_deadline_s
        return _Attempt(miner, baseline_w, was_hashing, before, deadline_s, suspects)

    def _cut_short(self, record: MinerRecord) -> bool:
        """Return whether the process died a moment ago between this stop's intent and its verdict."""
        if record.phase is not Phase.SENT or record.outcome is not None or record.sent_at is None:
            return False
        now, _ = self._site_time.now()
        return (now - record.sent_at).total_seconds() < _LATE_S

    async def _intend(self, attempt: _Attempt) -> bool:
        """Store the intent; return False when the order has ended meanwhile. A resumed one keeps its first facts."""
        now, _ = self._site_time.now()
        before = attempt.before

        def build() -> Entry | None:
            current = self._books.miners[attempt.miner.miner_id]
            if current.verb is not Verb.STOP:
                return None
            phase = Phase.SENT if current.outcome is None else current.phase
            intent = replace(current, phase=phase, touched=True, off_since=current.off_since or now)
            if not attempt.resumed:
                intent = replace(
                    intent,
                    sent_at=now,
                    sent_no=self._books.next_number(),
                    baseline_w=attempt.baseline_w if attempt.was_hashing else None,
                    feeder_before_w=None if before is None else before.power_w,
                    feeder_spread_w=None if before is None else before.spread_w,
                )
            return Entry(miners=[intent])

        return await self._books.apply(build)

    async def _send(self, attempt: _Attempt) -> Verdict | None:
        """Send the stop; return a verdict only when trying on within this attempt is pointless."""
        attempt.sent_s = self._clock.monotonic()
        try:
            await self._reach.stop(attempt.miner.miner_id)
        except Transient:
            return None  # whether it arrived is unknown: the device is looked at, and told again if it runs on
        except AgentError as error:
            return _failed(error)
        attempt.acked = True
        return None

    async def _watch(self, attempt: _Attempt) -> Verdict | None:
        """Look at feeder and device until the stop is proven or the deadline has passed; None when it has ended."""
        meter = self._meters.get(attempt.miner.feeder_id)
        while True:
            attempt.seen = await self._look(attempt.miner.miner_id)
            feeder_w = None if meter is None else (await meter.read()).power_w
            verdict = judge_stop(await self._facts(attempt, meter is not None, feeder_w))
            if self._books.miners[attempt.miner.miner_id].verb is not Verb.STOP:
                return None
            if verdict.outcome is Outcome.COMPLETE or verdict == ALREADY_IDLE:
                return verdict
            now_s = self._clock.monotonic()
            if now_s >= attempt.deadline_s:
                return verdict
            if not attempt.acked and now_s - attempt.sent_s >= _SEND_AGAIN_S:
                await self._send(attempt)
            await asyncio.sleep(LOOK_S)

    async def _facts(self, attempt: _Attempt, metered: bool, feeder_w: Watts | None) -> StopFacts:
        facts = StopFacts(
            baseline_w=attempt.baseline_w,
            idle_share=self._rules.idle_share,
            acked=attempt.acked,
            was_hashing=attempt.was_hashing,
            seen=attempt.seen,
            metered=metered,
            before=attempt.before,
            feeder_w=feeder_w,
        )
        if not metered or judge_stop(facts).outcome not in {Outcome.COMPLETE, Outcome.PARTIAL}:
            return facts
        elsewhere_w, maybe_w = await self._gone_elsewhere(attempt)
        return replace(facts, elsewhere_w=elsewhere_w, maybe_w=maybe_w)

    async def _gone_elsewhere(self, attempt: _Attempt) -> tuple[Watts, Watts]:
        """Return the load of neighbours proven to have gone off since this miner's intent, and of those that may have.

        Proven later means gone later, or gone unseen earlier: either way no proof for this miner.
        """
        since = self._books.miners[attempt.miner.miner_id].sent_no
        proven_w = maybe_w = 0.0
        for other in self._measured_neighbours(attempt.miner):
            unproven = other.verb is Verb.STOP and not other.complete
            # A liar caught before this intent claimed to be off then as it does now: nothing has changed with it.
            settled = other.sent_no < since and (not attempt.resumed or other.lie is Lie.REPORTS_IDLE)
            if other.proven_no > since and not other.woken:
                proven_w += (other.baseline_w or 0.0) if self._may_be_down(other) else 0.0
            elif other.proven_no > since:
                maybe_w += other.baseline_w or 0.0  # it may have been off before as well, and woken in between
            elif other.miner_id in attempt.suspects or (unproven and not settled):
                maybe_w += 0.0 if await self._runs(other) else (other.baseline_w or 0.0)
        return Watts(proven_w), Watts(maybe_w)

    def _may_be_down(self, record: MinerRecord) -> bool:
        """Return whether a miner once proven off still is, or is only just coming back."""
        return record.verb is Verb.STOP or not record.complete or self._recent(record)

    def _recent(self, record: MinerRecord) -> bool:
        now, _ = self._site_time.now()
        return record.sent_at is not None and abs((now - record.sent_at).total_seconds()) < _LATE_S

    async def _someone_rose(self, attempt: _Attempt) -> bool:
        """Return whether a neighbour once held off hashes again: its rise may hide this miner's fall.

        One that was ordered to start counts only beside a resumed attempt, whose feeder was measured long ago.
        """
        held = [
            record
            for record in self._known_neighbours(attempt.miner)
            if (attempt.resumed if record.verb is Verb.START else record.complete or record.woken)
        ]
        if attempt.resumed and any(record.woken and not record.complete for record in held):
            return True
        seen = await asyncio.gather(*(self._look(record.miner_id) for record in held))
        return any(one is not None and one.state is MinerState.HASHING for one in seen)

    async def _awake_suspects(self, miner: SiteMiner) -> frozenset[str]:
        """Return the neighbours that run now though a stop was sent to them: it may reach them at any moment."""
        if miner.feeder_id not in self._meters:
            return frozenset()
        suspected = [
            other
            for other in self._measured_neighbours(miner)
            if (other.verb is Verb.STOP and other.reason in _SUSPICIOUS)
            or (other.verb is Verb.START and self._recent(other))
        ]
        idle = await asyncio.gather(*(self._idles(other) for other in suspected))
        return frozenset(other.miner_id for other, idles in zip(suspected, idle, strict=True) if not idles)

    def _known_neighbours(self, miner: SiteMiner) -> list[MinerRecord]:
        names = (name for name in self._neighbours(miner.feeder_id) if name != miner.miner_id)
        return [self._books.miners[name] for name in names if name in self._books.miners]

    def _measured_neighbours(self, miner: SiteMiner) -> list[MinerRecord]:
        return [record for record in self._known_neighbours(miner) if record.baseline_w is not None]

    async def _runs(self, record: MinerRecord) -> bool:
        """Return whether the miner is seen running; one that does not answer may be off, whatever it was told."""
        seen = await self._look(record.miner_id)
        return seen is not None and not reads_idle(seen, record.baseline_w or Watts(0), self._rules.idle_share)

    async def _idles(self, record: MinerRecord) -> bool:
        seen = await self._look(record.miner_id)
        baseline_w = record.baseline_w
        return seen is not None and baseline_w is not None and reads_idle(seen, baseline_w, self._rules.idle_share)

    async def _look(self, miner_id: str) -> Observed | None:
        try:
            return await self._reach.observe(miner_id)
        except AgentError:
            return None

    async def _feeder_before(self, miner: SiteMiner) -> FeederBefore | None:
        meter = self._meters.get(miner.feeder_id)
        if meter is None:
            return None
        samples_w: list[Watts] = []
        for place in range(_SAMPLES):
            if place:
                await asyncio.sleep(_SAMPLE_S)
            sample = await meter.read()
            if sample.power_w is not None:
                samples_w.append(sample.power_w)
        return FeederBefore.of(samples_w)

    async def _judge(self, miner: SiteMiner, verdict: Verdict, power_w: Watts | None, *, acked: bool) -> None:
        def build() -> Entry | None:
            current = self._books.miners[miner.miner_id]
            if current.verb is not Verb.STOP:
                return None
            proven_no = self._books.next_number() if verdict.outcome is Outcome.COMPLETE else 0
            judged = replace(current.judged(verdict, power_w), acked=acked, proven_no=proven_no)
            entry = Entry(miners=[judged], acks=[(judged, verdict)])
            if verdict.lie and verdict.lie is not current.lie:
                entry.notices.append((NoticeCode.LIAR_NAMED, miner.miner_id, _LIES[verdict.lie]))
            return entry

        await self._books.apply(build)

    async def _withdraw(self, attempt: _Attempt, earlier: MinerRecord, verdict: Verdict) -> None:
        """Record a stop that the device or a rule refused: nothing has changed at the device."""

        def build() -> Entry | None:
            current = self._books.miners[attempt.miner.miner_id]
            if current.verb is not Verb.STOP:
                return None
            judged = replace(
                current.judged(verdict, None), touched=earlier.touched, off_since=earlier.off_since, acked=False
            )
            return Entry(miners=[judged], acks=[(judged, verdict)])

        await self._books.apply(build)


def _failed(error: AgentError) -> Verdict:
    if isinstance(error, Refused):
        return Verdict(Outcome.REFUSED, Evidence.NONE, error.code)
    if isinstance(error, Transient) and not isinstance(error, SessionBusy):
        return UNREACHABLE
    return Verdict(Outcome.UNVERIFIED, Evidence.NONE, reason_of(error).value)
