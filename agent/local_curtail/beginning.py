"""With what an attempt to stop a miner begins: what the first look and its record say of earlier stops. Pure.

    never told, or long ago       --> measured anew: what it draws now is its load
    idle, or on its way down      --> resumed: judged by the power its feeder drew before the earlier order
    told lately, and draws fully  --> measured anew; it may be off already by a stop that its figures do not show yet;
                                      its feeder as before that stop, where others fall by the same round just now

Invariant: a miner on its way down is not taken for one that draws little.
"""

from datetime import datetime
from typing import Final

from agent.local_curtail.attempt import Attempt
from agent.local_curtail.attribution import too_noisy
from agent.local_curtail.claims import OLDEST_S
from agent.local_curtail.evidence import FeederBefore, reads_idle
from agent.local_curtail.feeder import Feeder
from agent.local_curtail.member import Member
from agent.local_curtail.ports import Observed
from agent.local_curtail.records import MinerRecord, Phase
from agent.local_curtail.rules import SiteMiner, SiteRules
from sitelink.types import MinerState, Outcome, Verb
from sitelink.units import Watts

SECOND_LOOK_S: Final = 5.0
"""A miner told to stop long ago and reading idle now needs no full deadline: its feeder has fallen or it has not."""
_LATE_S: Final = 120.0
_UNMOVED_SHARE: Final = 0.95
"""A miner that still draws this share of its baseline has not begun to go down."""


class Beginning:
    """What is known as one attempt begins."""

    def __init__(
        self, miner: SiteMiner, record: MinerRecord, seen: Observed, rules: SiteRules, now: datetime, *, rests: bool
    ) -> None:
        """``seen`` is the first look, ``now`` the site's time, ``rests`` whether the miner has been off for long."""
        self._miner = miner
        self._record = record
        self._seen = seen
        self._rules = rules
        self._now = now
        self._rested = rests

    def attempt(self, feeder: Feeder | None, now_s: float) -> Attempt:
        """Return the attempt on a miner of ``feeder`` that begins at ``now_s`` (monotonic seconds)."""
        known_w, share = self._record.baseline_w, self._rules.idle_share
        if known_w is None:
            return self._anew(feeder)
        # Its hash rate may be a mean over a minute; what it draws tells that an earlier stop has taken effect.
        idles = reads_idle(self._seen, known_w, share) or _draws_idle(self._seen, share * known_w)
        told = self._cut_short() or told_lately(self._record, self._now)
        if idles or (told and not _unmoved(self._seen, known_w) and not self._rests()):
            return self._resumed(feeder, known_w, now_s)
        return self._anew(feeder)

    def _resumed(self, feeder: Feeder | None, known_w: Watts, now_s: float) -> Attempt:
        record, seen = self._record, self._seen
        patience_s = self._rules.device_deadline_s if record.phase is Phase.SENT else SECOND_LOOK_S
        before = None
        if record.feeder_before_w is not None and record.feeder_spread_w is not None:
            before = FeederBefore(record.feeder_before_w, record.feeder_spread_w)
        member = Member(
            self._miner,
            known_w,
            known_w if seen.power_w is None else seen.power_w,
            self._rules.idle_share,
            resumed=True,
            falls_late=not self._rested,
            before=before,
            seen=seen,
        )
        return Attempt(member, True, now_s + patience_s, feeder, acked=record.acked)

    def _anew(self, feeder: Feeder | None) -> Attempt:
        miner, record, seen, share = self._miner, self._record, self._seen, self._rules.idle_share
        drawing = (seen.power_w or 0.0) > share * miner.load_w
        was_hashing = drawing or seen.state is MinerState.HASHING
        load_w = seen.power_w if drawing and seen.power_w is not None else miner.load_w
        early = told_lately(record, self._now) or _draws_idle(seen, share * miner.load_w)
        member = Member(miner, load_w, load_w, share, early=early, untouched=not record.touched, seen=seen)
        return Attempt(member, was_hashing, 0.0, feeder if was_hashing else None)

    def _rests(self) -> bool:
        """Return whether it draws what it drew when it was judged to be partly off."""
        left_w = self._record.power_w
        return self._record.outcome is Outcome.PARTIAL and left_w is not None and _unmoved(self._seen, left_w)

    def _cut_short(self) -> bool:
        """Return whether the process died a moment ago between this stop's intent and its verdict."""
        return _is_cut_short(self._record, self._now)


def before_of(record: MinerRecord, now: datetime, load_w: Watts, measured: FeederBefore | None) -> FeederBefore | None:
    """Return what the feeder of a miner of ``load_w`` drew before its stop: as ``measured`` now, or as its record says.

    Amid the falls of a round that a kill cut short nothing can be measured; what was measured before that round, while
    the miner ran as it does now, still shows that the meter had its load.
    """
    noisy = measured is not None and too_noisy(measured.spread_w, [load_w])
    if not noisy or record.feeder_before_w is None or record.feeder_spread_w is None or not _is_cut_short(record, now):
        return measured
    earlier = FeederBefore(record.feeder_before_w, record.feeder_spread_w)
    return measured if too_noisy(earlier.spread_w, [load_w]) else earlier


def _is_cut_short(record: MinerRecord, now: datetime) -> bool:
    if record.phase is not Phase.SENT or record.outcome is not None or record.sent_at is None:
        return False
    return (now - record.sent_at).total_seconds() < _LATE_S


def told_lately(record: MinerRecord, now: datetime) -> bool:
    """Return whether an earlier stop may have worked without the miner's figures showing it yet."""
    if record.verb is not Verb.STOP or not record.touched or record.woken or record.sent_at is None:
        return False
    return (now - record.sent_at).total_seconds() < OLDEST_S


def told_long_ago(record: MinerRecord, now: datetime) -> bool:
    """Return whether the miner's first stop is longer ago than any figures are old."""
    return record.off_since is not None and (now - record.off_since).total_seconds() >= OLDEST_S


def _draws_idle(seen: Observed, idle_w: float) -> bool:
    return seen.power_w is not None and seen.power_w <= idle_w


def _unmoved(seen: Observed, baseline_w: Watts) -> bool:
    """Return whether a miner still draws what it drew: a stop sent to it has done nothing yet."""
    return seen.state is MinerState.HASHING and (seen.power_w is None or seen.power_w >= _UNMOVED_SHARE * baseline_w)
