r"""What one feeder's meter says of the miners on it that were stopped at once. Pure.

    before ──\        the whole run's orders leave together; then, until the meter has told or its time is over:
              \__     two readings in a row --> a look at each miner --> who cannot be drawing any more?
                 left

    ceiling   left, less what the others certainly draw, is under half of a miner's load
    surplus   the fall is more than all others can have fallen by: the rest is this miner's
    figures   as surplus, where each tells its own power: what the meter showed of them before bounds their common error

Invariants: a miner is cleared only where the meter leaves no room for it still to draw, and stays so; the load of one
that tells no power is its nameplate's, never nothing; a meter that is silent or restless clears nobody. The first two
rules are local curtailment's own.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.local_curtail.attribution import LEAST_SCALE, MOST_SCALE, surplus, too_noisy, under_ceiling
from agent.local_curtail.claims import Claim, Knot, Sample
from agent.local_curtail.evidence import DROP_SHARE, FeederBefore, MeterWord
from agent.local_curtail.member import Member
from sitelink.types import MinerState
from sitelink.units import Watts

SEES_AT_ONCE: Final = 8
"""Of so many equal miners stopped at once a meter can tell one, whatever else draws on its feeder."""
_CERTAIN_SHARE: Final = 0.8
"""What a miner that is seen hashing draws at the least, of what it reports."""
_TOLERATED_SHARE: Final = 0.03
"""By how much of their sum the figures of devices and meter may lie apart before it is told that somebody draws."""
_LEAST_TOLERATED_W: Final = 1.0
_SUSPECTS: Final = 3
_FULL_SHARE: Final = 0.9
"""A miner beside that draws less than this share of what it drew is on its way down, or back."""


@dataclass(frozen=True, slots=True)
class Balance:
    """What one feeder's meter has told of this run's stops: how much nobody owns up to, zero where that is noise.

    ``tolerated_w`` is how much would be noise; ``claimed`` are the miners whose fall was looked for.
    """

    feeder_id: str
    excess_w: Watts
    tolerated_w: Watts
    claimed: frozenset[str]


@dataclass(slots=True)
class Weighing:
    """One metered feeder: everybody of the run on it, and its meter's readings since they were ordered.

    ``tell_power`` names those whose load is their own figure, not their nameplate's. ``beside`` are miners of the
    feeder that nothing was sent to, seen running before: one that is not seen so after may have fallen by itself.
    """

    feeder_id: str
    before: FeederBefore | None
    members: Sequence[Member]
    tell_power: Collection[str]
    beside: Sequence[Member] = ()
    samples: list[Sample] = field(default_factory=list)

    @property
    def open(self) -> tuple[Member, ...]:
        """Return the miners that read off and of which the meter has not told yet."""
        return tuple(member for member in self.members if _reads_off(member) and member.known is None)

    def judge(self) -> None:
        """Settle whom the last readings clear."""
        before, left_w = self.before, self.left_w
        if before is None or left_w is None:
            return
        self._settle_under(before, left_w, running=False)
        ran_until_s = [until_s for member in self.members if (until_s := member.ran_until_s) is not None]
        if ran_until_s:
            self._settle_under(before, self._left_w(min(ran_until_s)), running=True)
        cleared = self._cleared(before)
        for member in self.open:
            if member.miner.miner_id in cleared and not too_noisy(before.spread_w, [member.load_w]):
                member.settle(known=True)

    def _settle_under(self, before: FeederBefore, left_w: Watts | None, *, running: bool) -> None:
        """Settle those for whose load ``left_w`` has no room; ``running`` is whether those told count that run on."""
        for member in self.open:
            first = member.before or before
            if left_w is None or too_noisy(first.spread_w, [member.load_w]):
                continue
            certain_w = self._certain_w(member, running=running)
            if under_ceiling(member.bound_w, first.power_w, Watts(left_w + first.spread_w), certain_w):
                member.settle(known=True)

    def word(self, member: Member) -> MeterWord:
        """Return what the meter says of ``member`` as things stand; nothing of one that does not read off."""
        if not _reads_off(member):
            return MeterWord.NONE
        if member.known:
            return MeterWord.CLEARED
        before = member.before or self.before
        left_w = self.left_w
        if before is None or left_w is None:
            return MeterWord.SILENT
        if too_noisy(before.spread_w, [member.load_w]):
            return MeterWord.NOISY
        fell_w = before.power_w - left_w
        nobody_fell = fell_w + before.spread_w < DROP_SHARE * LEAST_SCALE * member.bound_w
        return MeterWord.ACCUSED if nobody_fell and not member.resumed else MeterWord.CLOUDED

    @property
    def left_w(self) -> Watts | None:
        """Return what the feeder draws now, the larger of its last two readings; None where there are none."""
        return self._left_w(math.inf)

    def _left_w(self, until_s: float) -> Watts | None:
        last = [sample for sample in self.samples if sample.at_s + sample.unsure_s <= until_s][-2:]
        return Watts(max(sample.power_w for sample in last)) if len(last) > 1 else None

    def line(self) -> str:
        """Return what a technician is to know of this feeder, empty where nothing."""
        before, left_w = self.before, self.left_w
        if not any(_reads_off(member) for member in self.members):
            return ""
        if before is None or left_w is None:
            return (
                f"feeder {self.feeder_id}: its meter did not answer, so its stops stay open; look at that meter, "
                "or measure them at the rack"
            )
        claims = self._off_claims()
        if not claims or not self.open:
            return ""
        fell_w, claimed_w, excess_w = self._fall(claims, before, left_w)
        tolerated_w = _tolerated_w(claims)
        told = f"feeder {self.feeder_id} fell by {fell_w:.0f} W, its miners claim {claimed_w:.0f} W: "
        if excess_w > tolerated_w:
            return (
                f"{told}it still draws about {excess_w:.0f} W that no miner owns up to"
                f"{_whose(claims, excess_w, tolerated_w)}; measure those marked open at the rack"
            )
        if before.spread_w > excess_w and any(self.word(member) is MeterWord.NOISY for member in self.open):
            return f"{told}but it moved by {before.spread_w:.0f} W before the order, too much to tell one miner"
        names = [member.miner.miner_id for member in self.open]
        whom = " and ".join(names) if len(names) <= _SUSPECTS else f"{len(names)} of them"
        fewer = f", or stop the whole feeder, or at most {SEES_AT_ONCE} at a time" if len(claims) > SEES_AT_ONCE else ""
        return f"{told}its meter cannot tell {whom} from the others; measure those marked open at the rack{fewer}"

    def balance(self) -> Balance | None:
        """Return how much of this feeder's load nobody owns up to, as ``line`` tells it; None where no meter has."""
        before, left_w, claims = self.before, self.left_w, self._off_claims()
        if before is None or left_w is None or not claims:
            return None
        _, _, excess_w = self._fall(claims, before, left_w)
        tolerated_w = _tolerated_w(claims)
        told_w = Watts(excess_w if self.open and excess_w > tolerated_w else 0.0)
        return Balance(self.feeder_id, told_w, tolerated_w, frozenset(claim.miner_id for claim in claims))

    def _off_claims(self) -> list[Claim]:
        return [member.claim() for member in self.members if member.sent_s is not None and _reads_off(member)]

    @staticmethod
    def _fall(claims: Sequence[Claim], before: FeederBefore, left_w: Watts) -> tuple[float, float, float]:
        """Return by how much the feeder fell, what ``claims`` say, and what that leaves, all in watts."""
        fell_w, claimed_w = before.power_w - left_w, sum(claim.claimed_w for claim in claims)
        return fell_w, claimed_w, claimed_w - fell_w

    def _cleared(self, before: FeederBefore) -> frozenset[str]:
        claims, samples = self._claims(), self.samples[-2:]
        found = surplus(claims, before.power_w, samples, before.spread_w)
        if not all(claim.miner_id in self.tell_power for claim in claims):
            return found
        # Firmwares measure unlike each other: what all on the feeder show together tells of none.
        certain = {
            claim.miner_id
            for claim in claims
            if claim.suspect and all(_falls_short(claim, claims, before, sample) for sample in samples)
        }
        return found | certain

    def _claims(self) -> list[Claim]:
        last_s = self.samples[-1].at_s
        claims = [member.claim() for member in self.members if member.sent_s is not None]
        return claims + [_may_have_fallen(member) for member in self.beside if not _runs_on(member, last_s)]

    def _certain_w(self, member: Member, *, running: bool) -> Watts:
        """Return what others certainly drew: each was looked at after the last reading, and said at least so.

        One that was told to stop may have done so by then though it still shows that it runs; with ``running`` the
        reading is of a moment until which it ran.
        """
        last_s = self.samples[-1].at_s
        certain_w = 0.0
        for other in (*self.members, *self.beside):
            look = other.seen
            if other is member or look is None or look.power_w is None or other.looked_s < last_s:
                continue
            drawn_w = min(look.power_w, other.drawn_w, other.miner.load_w)
            if look.state is MinerState.HASHING:
                told = other.sent_s is not None
                counts = other.ran_until_s is not None and running if told else True
                certain_w += _CERTAIN_SHARE * drawn_w if counts else 0.0
            elif other.idle_s is not None:
                certain_w += LEAST_SCALE * drawn_w
        return Watts(certain_w * self._before_share())

    def _before_share(self) -> float:
        """Return what the meter showed before of what its miners said, where that is less: they say too much then."""
        said_w = sum(member.drawn_w for member in (*self.members, *self.beside) if not member.resumed)
        return 1.0 if self.before is None or said_w <= 0.0 else min(1.0, self.before.power_w / said_w)


def _tolerated_w(claims: Sequence[Claim]) -> Watts:
    """Return by how much the figures of devices and meter may lie apart and tell of nobody."""
    smallest_w, claimed_w = min(claim.claimed_w for claim in claims), sum(claim.claimed_w for claim in claims)
    return Watts(max(DROP_SHARE * smallest_w, _TOLERATED_SHARE * claimed_w, _LEAST_TOLERATED_W))


def _reads_off(member: Member) -> bool:
    """Return whether ``member`` reads off after an order that found it drawing."""
    return member.idle_s is not None and (member.sent_s is not None or member.resumed)


def _runs_on(member: Member, last_s: float) -> bool:
    """Return whether ``member`` was seen after ``last_s`` to draw as it did."""
    seen = member.seen
    if seen is None or seen.state is not MinerState.HASHING or member.looked_s < last_s:
        return False
    return seen.power_w is None or seen.power_w >= _FULL_SHARE * member.drawn_w


def _may_have_fallen(member: Member) -> Claim:
    return Claim(member.miner.miner_id, member.drawn_w, (Knot(0.0, 0.0),))


def _falls_short(claim: Claim, claims: Sequence[Claim], before: FeederBefore, sample: Sample) -> bool:
    """Return whether the feeder fell by more than all others of ``claims`` can have, by half of this one's load."""
    others_w = sum(other.at_most_w(sample.at_s + sample.unsure_s) for other in claims if other is not claim)
    fell_w = before.power_w - before.spread_w - sample.power_w
    return fell_w - MOST_SCALE * others_w >= DROP_SHARE * claim.claimed_w


def _whose(claims: Sequence[Claim], excess_w: float, tolerated_w: float) -> str:
    """Return whose own load the excess is, as far as that narrows it down."""
    fitting = [claim.miner_id for claim in claims if abs(claim.claimed_w - excess_w) <= tolerated_w]
    if not fitting:
        return ""
    return f", as much as {' or '.join(fitting) if len(fitting) <= _SUSPECTS else 'one of its miners'} drew"
