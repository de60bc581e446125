"""What a curtailment delivered, from the meter and the acks. Pure.

Invariants:

* Credit never exceeds what the site meter shows, nor the baseline power of miners whose last stop is COMPLETE and who
  were not named liars. A liar counts for nothing.
* Without a meter there is no figure: UNVERIFIED with the reason, never zero. An interval without meter data is unknown
  and counts for nothing.
* Curtailments that overlap share the meter's drop in proportion to what each claims. All of them are weighed over the
  same intervals, cut where any of them begins or ends, so that together they never exceed the drop.
* The same evidence gives the same result; later evidence gives another revision.

      power  ----baseline----.                                 .----
                             '__delivered = baseline - meter__'
             |<- baseline_s ->|start                   release|
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Final

from cloud.hosting.model import LIAR_REASONS
from cloud.planner.metering import Sample, mean_before_w, mean_power_w
from cloud.planner.model import Planned
from sitelink.types import Ack, Evidence, Interval, Outcome, Verb
from sitelink.units import MegawattHours, Watts, energy_mwh

METER_BEFORE: Final = "meter-before"


class Status(StrEnum):
    """How far the delivery is known."""

    VERIFIED = "verified"
    PARTIAL = "partial"
    UNVERIFIED = "unverified"


@dataclass(frozen=True, slots=True)
class Fitting:
    """Where a miner hangs and what it is rated at, where that is known."""

    feeder_id: str
    nameplate_w: Watts | None


@dataclass(frozen=True, slots=True)
class Claim:
    """What one curtailment may count on: each confirmed miner's baseline power."""

    planned: Planned
    power_w: Mapping[str, Watts]

    @property
    def total_w(self) -> Watts:
        """Return the sum over confirmed miners."""
        return Watts(sum(self.power_w.values()))


@dataclass(frozen=True, slots=True)
class Measured:
    """What the site's meters say, and how to read them.

    ``before`` ends where the first of the overlapping curtailments begins: the baseline is read from it, and the
    intervals are counted from its end.
    """

    site: Sequence[Sample]
    feeders: Mapping[str, Sequence[Sample]]
    has_site_meter: bool
    before: Interval
    interval: timedelta
    max_gap: timedelta


@dataclass(frozen=True, slots=True)
class Delivered:
    """One interval: what the site drew and what is credited; None is unknown."""

    interval: Interval
    meter_w: Watts | None
    delivered_w: Watts | None


@dataclass(frozen=True, slots=True)
class FeederDifference:
    """What confirmed miners of one feeder claim against what its meter shows; None without a reading."""

    feeder_id: str
    claimed_w: Watts
    drop_w: Watts | None

    @property
    def difference_w(self) -> Watts | None:
        """Return claimed minus shown; positive means that somebody on this feeder draws more than it says."""
        return None if self.drop_w is None else Watts(self.claimed_w - self.drop_w)


@dataclass(frozen=True, slots=True)
class Compliance:
    """When what happened; None where it is not known to have happened."""

    signal_at: datetime
    accepted_at: datetime | None
    first_action_at: datetime | None
    confirmed_at: datetime | None

    @property
    def signal_to_confirmed_s(self) -> float | None:
        """Return the time from the signal to the last confirmed stop."""
        return None if self.confirmed_at is None else (self.confirmed_at - self.signal_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Verification:
    """The verdict on one curtailment.

    ``evidence`` counts the stops that are credited by what confirmed each; a verdict written before it was kept has
    none. The energy itself rests on the site meter, or there is none.
    """

    status: Status
    reason: str
    method: str
    verified_mwh: MegawattHours | None
    expected_mwh: MegawattHours
    baseline_w: Watts | None
    claimed_w: Watts
    outcomes: Mapping[str, int]
    evidence: Mapping[Evidence, int]
    liars: tuple[str, ...]
    intervals: tuple[Delivered, ...]
    feeders: tuple[FeederDifference, ...]
    compliance: Compliance


def last_stops(acks: Sequence[Ack]) -> dict[str, Ack]:
    """Return each miner's last STOP ack."""
    ordered = sorted(
        (ack for ack in acks if ack.verb is Verb.STOP and ack.miner_id), key=lambda ack: (ack.at, ack.ack_id)
    )
    return {ack.miner_id: ack for ack in ordered}


def name_liars(planned: Planned, acks: Sequence[Ack], noticed: frozenset[str]) -> tuple[str, ...]:
    """Return the curtailment's miners that were named liars, by notice or by the reason of any stop ack."""
    by_ack = {ack.miner_id for ack in acks if ack.outcome is Outcome.UNVERIFIED and ack.reason in LIAR_REASONS}
    return tuple(sorted(set(planned.curtailment.miner_ids) & (noticed | by_ack)))


def claim(planned: Planned, acks: Sequence[Ack], liars: Sequence[str], fittings: Mapping[str, Fitting]) -> Claim:
    """Return what ``planned`` may count on; a miner without a known baseline counts with its nameplate at most.

    One of which neither is known is credited with nothing.
    """
    found: dict[str, Watts] = {}
    for miner_id, ack in last_stops(acks).items():
        if ack.outcome is Outcome.COMPLETE and miner_id in planned.curtailment.miner_ids and miner_id not in liars:
            fitting = fittings.get(miner_id)
            power = ack.power_before_w if ack.power_before_w is not None else (fitting.nameplate_w if fitting else None)
            if power is not None:
                found[miner_id] = power
    return Claim(planned, found)


def verify(
    own: Claim,
    others: Sequence[Claim],
    acks: Sequence[Ack],
    liars: tuple[str, ...],
    measured: Measured,
    fittings: Mapping[str, Fitting],
    compliance: Compliance,
) -> Verification:
    """Return the verdict on ``own``; ``others`` are the curtailments that overlap it."""
    baseline = mean_before_w(measured.site, measured.before, measured.max_gap)
    intervals = _intervals(own, others, baseline, measured)
    known = [item for item in intervals if item.delivered_w is not None]
    status, reason = _status(measured, baseline, len(known), len(intervals))
    mwh = sum(energy_mwh(item.delivered_w or Watts(0.0), item.interval.duration) for item in known)
    return Verification(
        status=status,
        reason=reason,
        method=METER_BEFORE,
        verified_mwh=None if status is Status.UNVERIFIED else MegawattHours(mwh),
        expected_mwh=energy_mwh(own.planned.expected_w, own.planned.curtailment.interval.duration),
        baseline_w=baseline,
        claimed_w=own.total_w,
        outcomes=_outcomes(own.planned, acks),
        evidence=_evidence(own, acks),
        liars=liars,
        intervals=intervals,
        feeders=_feeders(own, liars, measured, fittings, compliance),
        compliance=compliance,
    )


def _status(measured: Measured, baseline: Watts | None, known: int, total: int) -> tuple[Status, str]:
    before = measured.before
    if not measured.has_site_meter:
        return Status.UNVERIFIED, "the site has no site meter; add one to meters.csv"
    if baseline is None:
        return (
            Status.UNVERIFIED,
            f"no baseline: the site meter is silent in {before.duration} before {before.end.isoformat()}",
        )
    if not known:
        return Status.UNVERIFIED, "the site meter is silent throughout the curtailment"
    if known < total:
        return (
            Status.PARTIAL,
            f"the site meter is silent in {total - known} of {total} intervals; they count for nothing",
        )
    return Status.VERIFIED, f"{total} intervals metered"


def _intervals(
    own: Claim, others: Sequence[Claim], baseline: Watts | None, measured: Measured
) -> tuple[Delivered, ...]:
    found = []
    for interval in _cut(
        own.planned.curtailment.interval, [item.planned.curtailment.interval for item in others], measured
    ):
        meter = mean_power_w(measured.site, interval, measured.max_gap)
        delivered = None
        if meter is not None and baseline is not None:
            active = [item for item in others if item.planned.curtailment.interval.contains(interval.start)]
            drop = max(0.0, baseline - meter)
            claimed = own.total_w + sum(item.total_w for item in active)
            share = own.total_w / claimed if claimed > 0 else 0.0
            delivered = Watts(min(own.total_w, drop * share))
        found.append(Delivered(interval, meter, delivered))
    return tuple(found)


def _cut(window: Interval, others: Sequence[Interval], measured: Measured) -> list[Interval]:
    """Cut ``window`` into intervals counted from the cluster's begin, and where one of ``others`` begins or ends."""
    begin, step = measured.before.end, measured.interval
    edges = {window.start, window.end, *(edge for other in others for edge in (other.start, other.end))}
    edges |= {begin + step * place for place in range((window.start - begin) // step, (window.end - begin) // step + 1)}
    ordered = sorted(edge for edge in edges if window.start <= edge <= window.end)
    return [Interval(start, end) for start, end in pairwise(ordered)]


def _outcomes(planned: Planned, acks: Sequence[Ack]) -> dict[str, int]:
    last = last_stops(acks)
    counts = {outcome.value: 0 for outcome in Outcome} | {"silent": 0}
    for miner_id in planned.curtailment.miner_ids:
        ack = last.get(miner_id)
        counts[ack.outcome.value if ack else "silent"] += 1
    return counts


def _evidence(own: Claim, acks: Sequence[Ack]) -> dict[Evidence, int]:
    """Return how many credited stops rest on each grade, best first."""
    found = [ack.evidence for name, ack in last_stops(acks).items() if name in own.power_w]
    return {grade: found.count(grade) for grade in Evidence if grade in found}


def _feeders(
    own: Claim,
    liars: Sequence[str],
    measured: Measured,
    fittings: Mapping[str, Fitting],
    compliance: Compliance,
) -> tuple[FeederDifference, ...]:
    """Return each touched feeder's claim against its meter's drop while everything was confirmed."""
    window = own.planned.curtailment.interval
    held_from = max(window.start, compliance.confirmed_at or window.start)
    touched = sorted({fittings[name].feeder_id for name in (*own.power_w, *liars) if name in fittings})
    found = []
    for feeder_id in touched:
        samples = measured.feeders.get(feeder_id)
        if samples is None:
            continue
        claimed = sum(
            power for name, power in own.power_w.items() if name in fittings and fittings[name].feeder_id == feeder_id
        )
        at_first = mean_before_w(samples, measured.before, measured.max_gap)
        held = (
            mean_power_w(samples, Interval(held_from, window.end), measured.max_gap) if held_from < window.end else None
        )
        drop = None if at_first is None or held is None else Watts(at_first - held)
        found.append(FeederDifference(feeder_id, Watts(claimed), drop))
    return tuple(found)
