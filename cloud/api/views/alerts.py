"""A site's alarms, worked out from one read: each has a condition, a consequence and something to do. Pure.

Invariants: one alarm a cause: while the site's link is down its silent miners are a count inside that alarm, while its
backlog is replayed they are no alarm, and while a curtailment runs its stopped miners are no alarm at all; what needs
nobody stands in the event log instead.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from cloud.api.source import PlannedStop, SiteRead
from cloud.api.views.formats import Figure, number, percent, plural, power, power_gap
from cloud.api.views.heard import catching_up, without_unheard
from cloud.api.views.miners import HOT_C, Census, MinerClass, classes, take_census
from cloud.api.views.series import slot_at
from cloud.api.views.wording import Alert, Level
from cloud.hosting.columns import STARTING
from sitelink.types import NoticeCode
from sitelink.units import Watts

SETTLING: Final = timedelta(seconds=90)
"""How long after a window's start or end power is still on its way."""

_TOLERANCE_SHARE: Final = 0.03
_TOLERANCE_FLOOR_W: Final = 20_000.0
_LOSSES_SHARE: Final = 0.05
_SILENT_SHARE: Final = 0.10
_SUBJECTS: Final = 12


@dataclass(frozen=True, slots=True)
class Situation:
    """What the rules below look at: one read, counted, at its own moment."""

    read: SiteRead
    census: Census

    @classmethod
    def of(cls, read: SiteRead) -> "Situation":
        """Return the situation that ``read`` shows; where the site is not heard now, nothing of now is known."""
        known = without_unheard(read)
        return cls(known, take_census(known.miners))

    @property
    def now(self) -> datetime:
        """Return the moment of the read."""
        return self.read.read_at

    @property
    def link_up(self) -> bool:
        """Return whether the site's agent is heard of."""
        return self.read.summary.link.up

    @property
    def catching_up(self) -> bool:
        """Return whether the site still replays what it kept while its link was down."""
        return catching_up(self.read.summary, self.now)

    @property
    def stop(self) -> PlannedStop | None:
        """Return the curtailment that runs now."""
        stops = self.read.plan.stops if self.read.plan else ()
        return next((stop for stop in stops if stop.interval.contains(self.now)), None)

    @property
    def released(self) -> PlannedStop | None:
        """Return the curtailment that ended less than ten minutes ago."""
        stops = self.read.plan.stops if self.read.plan else ()
        ended = [stop for stop in stops if timedelta(0) <= self.now - stop.interval.end < timedelta(minutes=10)]
        return max(ended, key=lambda stop: stop.interval.end, default=None)

    @property
    def upcoming(self) -> PlannedStop | None:
        """Return the next curtailment."""
        stops = self.read.plan.stops if self.read.plan else ()
        return min((s for s in stops if s.interval.start > self.now), key=lambda s: s.interval.start, default=None)

    @property
    def settling(self) -> bool:
        """Return whether a window began or ended so recently that power is still on its way."""
        if self.stop is not None:
            return self.now - self.stop.interval.start < SETTLING
        return self.released is not None and self.now - self.released.interval.end < SETTLING

    @property
    def planned_w(self) -> Watts | None:
        """Return the load planned for now; None when no plan covers it."""
        plan = self.read.plan
        slot = slot_at(plan.slots, self.now) if plan else None
        return None if slot is None else slot.planned_w

    @property
    def covered(self) -> bool:
        """Return whether the plan in force holds now; beyond its curtailments it says to run everything."""
        plan = self.read.plan
        return plan is not None and plan.valid.contains(self.now)

    @property
    def off_target_w(self) -> Watts | None:
        """Return meter minus plan; None when either is not known."""
        metered, planned = self.read.summary.power_w, self.planned_w
        return None if metered is None or planned is None else Watts(metered - planned)

    def off_target(self, *, sign: bool = False) -> Figure:
        """Return meter minus plan, or its size alone, as the two figures shown subtract."""
        return power_gap(self.read.summary.power_w, self.planned_w, sign=sign)

    @property
    def silent_w(self) -> Watts:
        """Return what the miners that should run and are not known draw by their nameplates: a plan counts it."""
        miners = self.read.miners
        silent = (classes(miners) == MinerClass.UNKNOWN) & ~miners.stopped
        plates = np.array(miners.inventory.nameplate_w, dtype=np.float64)
        return Watts(float(np.nansum(plates[silent])))

    @property
    def beyond_tolerance(self) -> bool:
        """Return whether the meter is further from the plan than noise and the silent miners explain."""
        planned, away = self.planned_w, self.off_target_w
        if planned is None or away is None:
            return False
        low = planned - self.silent_w
        return away > tolerance_w(planned) or planned + away < low - tolerance_w(planned)

    @property
    def below_by_silent(self) -> bool:
        """Return whether the meter is below the plan by what miners that are not known explain."""
        planned, away = self.planned_w, self.off_target_w
        return planned is not None and away is not None and away < -tolerance_w(planned) and not self.beyond_tolerance

    @property
    def target_level(self) -> Level:
        """Return how far from normal the meter's distance from the plan is, for tile and alarm alike."""
        if not self.beyond_tolerance or self.settling:
            return Level.NORMAL
        return Level.HIGH if self.stop is not None and (self.off_target_w or 0.0) > 0 else Level.LOW


def tolerance_w(planned_w: Watts) -> Watts:
    """Return how far the meter may be from the plan before it counts as off target."""
    return Watts(max(_TOLERANCE_FLOOR_W, _TOLERANCE_SHARE * planned_w))


def find_alerts(situation: Situation) -> tuple[Alert, ...]:
    """Return the open alarms, the most urgent first."""
    found = [alert for rule in _RULES for alert in [rule(situation)] if alert is not None]
    return tuple(sorted(found, key=lambda alert: alert.level.rank))


def _link_lost(situation: Situation) -> Alert | None:
    link = situation.read.summary.link
    if situation.link_up or link.last_heard is None:
        return None
    plan = situation.read.plan
    silent = situation.census.unknown
    until = (", valid until ", plan.valid.end) if plan and plan.revision == link.plan_revision else ()
    counted = f"; {plural(silent, 'miner is', 'miners are')} not known" if silent else ""
    return Alert(
        Level.UNKNOWN,
        ("Site link lost, last heard at ", link.last_heard),
        (f"The agent holds plan revision {link.plan_revision}", *until, f" and keeps acting on it{counted}."),
        "Check the gateway's power and uplink. Nothing needs to be repeated: it reports the backlog when it is back.",
        since=link.last_heard,
    )


def _off_target(situation: Situation) -> Alert | None:
    away, planned, level = situation.off_target_w, situation.planned_w, situation.target_level
    if level is Level.NORMAL or away is None or planned is None:
        return None
    over = away > 0
    short = "short of the planned shed" if situation.stop else "above the plan"
    unconfirmed = situation.census.mismatch
    cause = f" {plural(unconfirmed, 'stop is', 'stops are')} not confirmed." if unconfirmed else ""
    return Alert(
        level,
        (f"{situation.off_target()} {short if over else 'below the plan'}",),
        (f"Meter {power(situation.read.summary.power_w)}, plan {power(planned)}.{cause}",),
        "See the miners that should be off." if over else "See which miners are off although they should run.",
        since=situation.stop.interval.start if situation.stop else None,
    )


def _liars(situation: Situation) -> Alert | None:
    names = situation.census.liars
    if not names:
        return None
    return Alert(
        Level.HIGH,
        (f"{plural(len(names), 'miner says it stopped and did not', 'miners say they stopped and did not')}",),
        (
            "The feeder's meter or the hash rate contradicts the answer; none counts as shed.",
            _cleared(situation),
        ),
        "Inspect or power-cycle them at the rack; exclude them from plans until then.",
        subjects=names[:_SUBJECTS],
    )


def _cleared(situation: Situation) -> str:
    """Return how many of those that the event log names have proven a stop since; empty for none."""
    named = {notice.subject for notice in situation.read.notices if notice.code is NoticeCode.LIAR_NAMED}
    cleared = len(named.intersection(situation.read.miners.inventory.miner_id) - set(situation.census.liars))
    if not cleared:
        return ""
    return f" {number(cleared + len(situation.census.liars))} named, {number(cleared)} cleared since by a proven stop."


def _still_on(situation: Situation) -> Alert | None:
    if situation.settling:
        return None
    miners = situation.read.miners
    honest = miners.ids((classes(miners) == MinerClass.MISMATCH) & ~miners.liar)
    if not honest:
        return None
    return Alert(
        Level.HIGH,
        (f"{plural(len(honest), 'miner runs that should be off', 'miners run that should be off')}",),
        ("Their stop is not confirmed; the agent keeps trying.",),
        "If they stay on, check that control is allowed on the device.",
        subjects=honest[:_SUBJECTS],
    )


def _still_off(situation: Situation) -> Alert | None:
    miners = situation.read.miners
    names = miners.ids((classes(miners) == MinerClass.OFF) & (miners.reason != STARTING))
    if not names or situation.settling:
        return None
    return Alert(
        Level.HIGH if situation.released else Level.LOW,
        (f"{plural(len(names), 'miner is off that should run', 'miners are off that should run')}",),
        ("They earn nothing meanwhile.",),
        "Open one to see its reason; a fault or heat needs a person at the rack.",
        subjects=names[:_SUBJECTS],
    )


def _hot(situation: Situation) -> Alert | None:
    miners = situation.read.miners
    if not situation.census.hot:
        return None
    return Alert(
        Level.CRITICAL,
        (f"{plural(situation.census.hot, 'miner is', 'miners are')} at 85 °C or above",),
        ("Boards at this temperature shut down or fail.",),
        "Check fans and inlet air of the marked racks.",
        subjects=miners.ids((classes(miners) != MinerClass.UNKNOWN) & (miners.hottest_c >= HOT_C))[:_SUBJECTS],
    )


def _silent(situation: Situation) -> Alert | None:
    census = situation.census
    if (
        not situation.link_up
        or situation.catching_up
        or not census.total
        or census.unknown / census.total <= _SILENT_SHARE
    ):
        return None
    miners = situation.read.miners
    return Alert(
        Level.LOW,
        (f"{number(census.unknown)} of {number(census.total)} miners do not answer",),
        ("Their state is not known; sums leave them out.",),
        "Check the network of their racks; a dead power supply looks the same.",
        subjects=miners.ids(classes(miners) == MinerClass.UNKNOWN)[:_SUBJECTS],
    )


def _meter_gap(situation: Situation) -> Alert | None:
    apart = meter_gap_share(situation)
    if apart is None or situation.settling or abs(apart) <= _LOSSES_SHARE:
        return None
    return Alert(
        Level.LOW,
        (f"Meter and devices are {percent(abs(apart))} apart",),
        ("Fans and losses explain 2 to 4 %. Credit follows the meter.",),
        "Look for load that is not in the inventory, or miners that report too little.",
    )


def meter_gap_share(situation: Situation) -> float | None:
    """Return (meter - device sum) / meter; None unless the meter and every device report."""
    census = situation.census
    metered, devices = situation.read.summary.power_w, census.power_w
    if metered is None or devices is None or metered <= 0 or census.power_reporting < census.total:
        return None
    return (metered - devices) / metered


def _plan_refused(situation: Situation) -> Alert | None:
    held = situation.read.summary.link.plan_revision
    plan = situation.read.plan
    if plan is None or held >= plan.revision or not situation.link_up:
        return None
    refusal = next((n for n in situation.read.notices if n.code is NoticeCode.PLAN_REFUSED), None)
    if refusal is None or refusal.at < plan.created_at:
        return None
    return Alert(
        Level.HIGH,
        (f"The site refused plan revision {plan.revision}",),
        (f"It keeps revision {held}. Reason: {refusal.detail}",),
        "Mend the cause; the next planning run sends a new revision.",
        since=refusal.at,
    )


def _journal(situation: Situation) -> Alert | None:
    found = situation.read.journal_faults
    if not found:
        return None
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return Alert(
        Level.HIGH,
        ("The site's journal does not fit together",),
        (f"{found[0].capitalize()}{more}. What the site did there cannot be shown for certain.",),
        "Keep the gateway's agent.db, and compare: ballast journal SITE --verify, ballast-agent journal --verify.",
    )


_RULES: Final[tuple[Callable[[Situation], Alert | None], ...]] = (
    _hot,
    _link_lost,
    _off_target,
    _liars,
    _still_on,
    _plan_refused,
    _journal,
    _still_off,
    _silent,
    _meter_gap,
)
