"""One metered feeder while miners on it are stopped: its meter read densely, and everybody's word held against it.

    first stop joins --> round opens: meter read four times a second --> three readings: the power before
    each stop: joins, waits for its turn (all of them within a second), is sent, is looked at
    each reading, each look --> ceiling: who is proven off
    each second or so       --> explanations: who is cleared, who is accused (``attribution``)
    last stop leaves --> round closes

Invariants: nothing on the feeder is sent before its power is known (or its meter has proven silent); a round beside
which a miner starts accuses nobody and clears only by the ceiling; what is settled of a miner stays so for its round.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from agent.local_curtail.attribution import NOTHING_EXPLAINED, Explained, explain, surplus, too_noisy, under_ceiling
from agent.local_curtail.claims import CATCHES_UP_S, TRAILS_S, Claim, Sample
from agent.local_curtail.evidence import FeederBefore, MeterWord
from agent.local_curtail.member import Member
from agent.local_curtail.ports import FeederMeter, Observed
from sitelink.clock import Clock
from sitelink.units import Watts

_MOST_EXPLAINED: Final = 40
"""Of more stops on one feeder one drowns in the inexactness of all: only what is left on the meter counts then."""
_JOIN_S: Final = 10.0
_STAGGER_S: Final = 0.25
_SPREAD_S: Final = 1.0
"""The stops of a feeder leave up to a quarter of a second apart, to be told apart, but all of them within so long."""
_SAMPLE_S: Final = 0.25
_BEFORE_SAMPLE_S: Final = 0.12
_BEFORE_SAMPLES: Final = 3
_RESTLESS_SAMPLES: Final = 9
_QUIET_SHARE: Final = 0.06
"""A meter whose first readings lie farther apart than this share of a miner is read more often, to know its noise."""
_BEFORE_PATIENCE_S: Final = 3.0
_SHORTEST_S: Final = 0.001
_FRESH_S: Final = 3.0
_WEIGH_S: Final = 0.5
_EXPLAIN_S: Final = (0.5, 4.0)
"""First and longest wait between two searches for explanations."""
_REST_TIMES: Final = 3.0
"""After an explanation that took so long, none is begun for this many times as long."""
_MOVING_S: Final = 6.0
"""For so long after its order a miner that is not idle is taken to be on its way down."""
_ACCUSE_AFTER_S: Final = 8.0
"""A miner that says it is off may be early, and a meter late; after this both would have shown."""
_ALIVE_VALUES: Final = 3
_CERTAIN_SHARE: Final = 0.8
"""What a miner draws at the least, of what it reports."""
_IDLE_SHARE: Final = 0.95
"""The same of one that says it is idle: it may draw more, and hardly less."""
_KEPT_SAMPLES: Final = 400
_FEW: Final = 2
_BESIDE: Final = ""
_NOTHING_W: Final = Watts(0)
_FELL_MORE_SHARE: Final = 0.5


@dataclass(slots=True)
class Thought:
    """What explaining costs a site: from ``free_s`` (monotonic seconds) on one of its feeders may do so again."""

    free_s: float = 0.0

    def spent(self, began_s: float, ended_s: float) -> None:
        """Take note of an explanation, so that looks and orders keep most of the time."""
        self.free_s = ended_s + _REST_TIMES * (ended_s - began_s)


class Feeder:
    """One feeder's meter and the stops in flight on it."""

    def __init__(
        self, feeder_id: str, meter: FeederMeter, clock: Clock, pace_s: Callable[[], float], thought: Thought
    ) -> None:
        """``pace_s`` gives the least seconds between two readings, so that all feeders together are bounded."""
        self.feeder_id = feeder_id
        self._meter = meter
        self._clock = clock
        self._pace_s = pace_s
        self._thought = thought
        self._watched = asyncio.Event()
        self._changed = asyncio.Event()
        self._samples: deque[Sample] = deque(maxlen=_KEPT_SAMPLES)
        self._members: list[Member] = []
        self._in_flight = 0
        self._opened_s = 0.0
        self._turn_s = 0.0
        self._weighed_s = 0.0
        self._explain_s = 0.0
        self._patience_s = _EXPLAIN_S[0]
        self._before: FeederBefore | None = None
        self._measured = False
        self._disturbed = False

    @property
    def open(self) -> bool:
        """Return whether a round is open."""
        return self._in_flight > 0

    @property
    def members(self) -> tuple[Member, ...]:
        """Return the stops of the open round, those that have left too."""
        return tuple(self._members)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Return the readings since the round opened."""
        return tuple(self._samples)

    def accepts(self, now_s: float) -> bool:
        """Return whether one more stop may join now."""
        if not self.open:
            return True
        return now_s - self._opened_s < _JOIN_S

    def disturb(self) -> None:
        """Say that a miner starts on the feeder: falls may hide behind its rise."""
        self._disturbed = True

    async def sample_forever(self) -> None:
        """Read the meter for as long as a round is open, again and again."""
        while True:
            await self._watched.wait()
            began_s = self._clock.monotonic()
            sample = await self._meter.read()
            now_s = self._clock.monotonic()
            if sample.power_w is not None:
                self._samples.append(Sample((began_s + now_s) / 2, sample.power_w, (now_s - began_s) / 2))
                self._measure()
                self.judge()
            self._changed.set()
            # The few readings before the first order are not spread out: every stop of the feeder waits for them.
            every_s = max(_SAMPLE_S, self._pace_s()) if self._measured else _BEFORE_SAMPLE_S
            await asyncio.sleep(max(0.0, began_s + every_s - self._clock.monotonic()))

    def join(self, member: Member) -> bool:
        """Take ``member`` into the round; return whether it opened it."""
        opens = not self.open
        if opens:
            self._opened_s = self._clock.monotonic()
            self._weighed_s = self._opened_s
            self._explain_s, self._patience_s = self._opened_s, _EXPLAIN_S[0]
            self._members, self._before, self._measured, self._disturbed = [], None, False, False
            self._samples.clear()
            self._changed.clear()
            self._watched.set()
        self._members.append(member)
        self._in_flight += 1
        return opens

    def leave(self, member: Member) -> None:
        """Take note that ``member``'s attempt has ended; its word stays in the round until that closes."""
        member.left = True
        self._in_flight -= 1
        if not self._in_flight:
            self._watched.clear()

    async def before(self) -> FeederBefore | None:
        """Return the feeder's power before the round's first order, None when its meter is silent."""
        while not self._measured:
            left_s = self._opened_s + _BEFORE_PATIENCE_S - self._clock.monotonic()
            if left_s <= 0:
                self._measure(last=True)
                break
            self._changed.clear()
            try:
                async with asyncio.timeout(max(_SHORTEST_S, left_s)):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return self._before

    async def turn(self) -> None:
        """Wait for the next place in the row of orders."""
        now_s = self._clock.monotonic()
        self._turn_s = max(now_s, self._turn_s)
        apart_s = min(_STAGGER_S, _SPREAD_S / len(self._members))
        wait_s, self._turn_s = self._turn_s - now_s, self._turn_s + apart_s
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def look(self, member: Member, seen: Observed | None, began_s: float) -> None:
        """Take note of a look at ``member`` that began at ``began_s`` and has just ended."""
        ran = member.idle_s is None
        member.look(seen, began_s, self._clock.monotonic())
        self.judge()
        if ran and member.idle_s is not None:
            for other in self._sent():
                if other.idle_s is None and not other.left and self.awaits(other):
                    other.woken.set()

    def judge(self) -> None:
        """Settle whom the ceiling proves off; give one of the rest the turn to weigh, when that is due."""
        waiting = self._waiting()
        if self._left_w() is None or not waiting:
            return
        self._settle_under(waiting, self._left_w(), self._certain_w())
        running = [until_s for member in self._members if (until_s := member.ran_until_s) is not None]
        if running:
            until_s = min(running)
            self._settle_under(waiting, self._left_w(until_s), self._certain_w(running=True))
        now_s = self._clock.monotonic()
        leader = next((member for member in waiting if member.known is None and not member.weighs), None)
        if leader is not None and now_s - self._weighed_s >= _WEIGH_S:
            self._weighed_s = now_s
            leader.weighs = True
            leader.woken.set()

    def _waiting(self) -> list[Member]:
        """Return those that read idle and are not settled."""
        return [one for one in self._members if one.known is None and one.idle_s is not None and not one.left]

    def _settle_under(self, waiting: list[Member], left_w: Watts | None, certain: dict[str, float]) -> None:
        """Settle those of ``waiting`` for whose load ``left_w`` has no room beside what others ``certain``ly draw."""
        for member in self._under(waiting, left_w, certain):
            member.settle(known=True)

    def _under(self, waiting: list[Member], left_w: Watts | None, certain: dict[str, float]) -> list[Member]:
        certain_w = sum(certain.values())
        found = []
        for member in waiting:
            before = member.before if member.resumed else member.before or self._before
            if before is None or left_w is None or member.known is not None:
                continue
            most_w = Watts(left_w + min(before.spread_w, self._noise_w()))
            others_w = Watts(certain_w - certain.get(member.miner.miner_id, 0.0))
            if under_ceiling(member.bound_w, before.power_w, most_w, others_w):
                found.append(member)
        return found

    def under_beside(self, runs_w: Watts, until_s: float = math.inf) -> list[Member]:
        """Return whom the ceiling proves off beside neighbours that say ``runs_w`` and ran until ``until_s``."""
        certain = {**self._certain_w(), _BESIDE: _CERTAIN_SHARE * self._before_share(runs_w) * runs_w}
        return self._under(self._waiting(), self._left_w(until_s), certain)

    def cleared(self, until_s: float = math.inf, beside_w: Watts = _NOTHING_W) -> frozenset[str]:
        """Return the miners without whose fall the meter cannot show what it showed until ``until_s``.

        ``beside_w`` is what it may have fallen by beside them.
        """
        before, claims = self._before, self._claims()
        if before is None or self._falls_late() or too_noisy(before.spread_w, self._loads_w()):
            return frozenset()
        samples = [sample for sample in self._samples_of_claims() if sample.at_s + sample.unsure_s <= until_s]
        return surplus(claims, Watts(before.power_w - beside_w), samples, before.spread_w)

    def explained(self) -> Explained:
        """Return what the meter leaves open of the round's claims, nothing while somebody is on its way down."""
        before, claims = self._before, self._claims()
        if before is None or self._disturbed or too_noisy(before.spread_w, self._loads_w()):
            return NOTHING_EXPLAINED
        if len(claims) > _MOST_EXPLAINED or self._falls_late():
            return NOTHING_EXPLAINED
        now_s = self._clock.monotonic()
        if now_s < max(self._explain_s, self._thought.free_s) or any(
            member.silent or self._moves(member) for member in self._sent()
        ):
            return NOTHING_EXPLAINED
        # What is not clear at once seldom is a moment later, and each time costs tens of milliseconds.
        self._explain_s, self._patience_s = now_s + self._patience_s, min(_EXPLAIN_S[1], 2 * self._patience_s)
        explained = explain(claims, before.power_w, self._samples_of_claims(), before.spread_w)
        self._thought.spent(now_s, self._clock.monotonic())
        return explained

    def _falls_late(self) -> bool:
        return any(member.falls_late for member in self._members)

    def _sent(self) -> list[Member]:
        return [member for member in self._members if member.sent_s is not None]

    def _loads_w(self) -> list[Watts]:
        return [member.load_w for member in self._sent()]

    def _claims(self) -> list[Claim]:
        return [member.claim() for member in self._sent()]

    def _samples_of_claims(self) -> list[Sample]:
        """Return the readings of which every claim speaks: none later than the last look at who is not idle."""
        until_s = min((member.looked_s for member in self._sent() if member.idle_s is None), default=float("inf"))
        return [sample for sample in self._samples if sample.at_s <= until_s]

    def _moves(self, member: Member) -> bool:
        """Return whether ``member`` may be on its way down just now."""
        if member.left or member.idle_s is not None or member.sent_s is None:
            return False
        return self._clock.monotonic() - member.sent_s < _MOVING_S

    def may_accuse(self, member: Member) -> bool:
        """Return whether the time to accuse ``member`` has come, and nothing speaks against this round's meter."""
        if self._disturbed or member.idle_s is None or member.resumed or member.early:
            return False
        due_s = member.idle_s + _ACCUSE_AFTER_S
        told = any(sample.at_s >= due_s for sample in self._samples)
        until_s = member.idle_s + _ACCUSE_AFTER_S / 2
        early = {sample.power_w for sample in self._samples if sample.at_s <= until_s}
        since = {sample.power_w for sample in self._samples if sample.at_s >= member.idle_s}
        alive = min(len(early), len(since)) >= _ALIVE_VALUES
        return told and alive

    def word(self, member: Member) -> MeterWord:
        """Return what the meter says of ``member`` as things stand."""
        if member.known is not None:
            return MeterWord.CLEARED if member.known else MeterWord.ACCUSED
        before = member.before if member.resumed else self._before
        left_w = self._left_w()
        if before is None or left_w is None:
            return MeterWord.SILENT
        if too_noisy(before.spread_w, [member.load_w]):
            return MeterWord.NOISY
        claimed_w = sum(max(knot.fallen_w for knot in other.knots) for other in self._members if other.knots)
        surplus_w = before.power_w - left_w - claimed_w
        return MeterWord.FELL_MORE if surplus_w >= _FELL_MORE_SHARE * member.load_w else MeterWord.CLOUDED

    def awaits(self, member: Member) -> bool:
        """Return whether others wait, unproven, for how long ``member`` has run on."""
        others = [other for other in self._sent() if other is not member and not other.left]
        waiting = any(other.known is None and other.idle_s is not None for other in others)
        return waiting and sum(other.idle_s is None and not other.silent for other in others) < _FEW

    def accuse_due_s(self, member: Member) -> float:
        """Return until when a member that reads idle is worth waiting for (monotonic seconds).

        Its own word, and that of those who run on beside it, may trail what they do.
        """
        if member.idle_s is None:
            return 0.0
        beside_running = any(other.idle_s is None for other in self._sent())
        return member.idle_s + (TRAILS_S if beside_running else _ACCUSE_AFTER_S) + CATCHES_UP_S

    def left_w(self) -> Watts | None:
        """Return the feeder's power now, the larger of its last two readings; None when the meter is silent."""
        return self._left_w()

    def _left_w(self, until_s: float = float("inf")) -> Watts | None:
        """Return the larger of the last two readings up to ``until_s``; None when there are none that are fresh."""
        if not self._samples or self._clock.monotonic() - self._samples[-1].at_s > _FRESH_S:
            return None
        last = list(islice((one for one in reversed(self._samples) if one.at_s + one.unsure_s <= until_s), 2))
        return Watts(max(one.power_w for one in last)) if len(last) == 2 else None

    def _noise_w(self) -> float:
        """Return how far the last readings lie apart: those before an order may have been taken as others fell."""
        last = [sample.power_w for sample in islice(reversed(self._samples), _RESTLESS_SAMPLES)]
        return max(last) - min(last) if len(last) == _RESTLESS_SAMPLES else math.inf

    def _certain_w(self, *, running: bool = False) -> dict[str, float]:
        """Return what each draws for certain; with ``running`` those that run on count as well.

        One that says it is idle draws no less than it says; one that ran on, as fully as when the round began, has done
        so all the while. One that came back meanwhile has not: a late meter hides it.
        """
        share = self._before_share()
        return {
            member.miner.miner_id: (_IDLE_SHARE if member.idle_s is not None else _CERTAIN_SHARE)
            * share
            * min(seen.power_w, member.drawn_w, member.miner.load_w)
            for member in self._members
            if (seen := member.seen) is not None and seen.power_w is not None
            if member.idle_s is not None or (running and member.ran_until_s is not None)
        }

    def _before_share(self, beside_w: Watts = _NOTHING_W) -> float:
        """Return what the meter showed before of what its miners said, where that is less: they say too much then.

        ``beside_w`` is what others on the feeder say.
        """
        drawn_w = beside_w + sum(member.drawn_w for member in self._members)
        return 1.0 if self._before is None or drawn_w <= 0.0 else min(1.0, self._before.power_w / drawn_w)

    def _measure(self, *, last: bool = False) -> None:
        """Take the readings so far as the power before, once there are enough (or at ``last``)."""
        if self._measured or not (last or len(self._samples) >= _BEFORE_SAMPLES):
            return
        before = FeederBefore.of([sample.power_w for sample in self._samples])
        least_w = min(member.load_w for member in self._members)
        restless = before is not None and before.spread_w > _QUIET_SHARE * least_w
        if restless and not last and len(self._samples) < _RESTLESS_SAMPLES:
            return
        self._measured, self._before = True, before
