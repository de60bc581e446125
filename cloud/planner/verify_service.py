"""Use case: weigh finished curtailments, and weigh them again when late data arrives.

Invariants: a curtailment is first weighed when the site has nothing of it left to send, or a grace after its release;
for a week it is weighed again whenever its evidence has changed, or that of a curtailment that overlaps it; an
unchanged verdict gets no new revision, and unchanged evidence is not even read, so the job may run as often as it
likes. Services do not commit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cloud.core.access import Permission
from cloud.core.events import CurtailmentFinished, CurtailmentVerified
from cloud.infra.db import UnitOfWork
from cloud.planner import evidence_mark, evidence_store, store
from cloud.planner.metering import sum_samples
from cloud.planner.model import Planned
from cloud.planner.overlap import Case, Window, cases, hull
from cloud.planner.verification import (
    Claim,
    Compliance,
    Fitting,
    Measured,
    Verification,
    claim,
    last_stops,
    name_liars,
    verify,
)
from cloud.planner.verification_document import read_verification
from cloud.settings import Settings
from sitelink.types import Ack, Interval, Outcome

_AGAIN_FOR: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class VerifyPolicy:
    """Verification's part of the settings."""

    interval: timedelta
    grace: timedelta
    baseline: timedelta
    max_gap: timedelta

    def readings_of(self, case: Case) -> Interval:
        """Return when meters are read for a case: from before its cluster began until after its release."""
        return Interval(case.begin - self.baseline - self.max_gap, case.own.interval.end + self.max_gap)

    def notices_of(self, window: Interval) -> Interval:
        """Return when notices are about a curtailment."""
        return Interval(window.start, window.end + self.grace + self.max_gap)


def verify_policy(settings: Settings) -> VerifyPolicy:
    """Return verification's part of ``settings``."""
    return VerifyPolicy(
        interval=timedelta(seconds=settings.verify_interval_s),
        grace=timedelta(seconds=settings.verify_grace_s),
        baseline=timedelta(seconds=settings.baseline_s),
        max_gap=timedelta(seconds=settings.meter_gap_s),
    )


def verify_finished(uow: UnitOfWork, site_id: str, rules: VerifyPolicy) -> tuple[str, ...]:
    """Weigh what can be weighed and return the curtailments that got a new verdict."""
    uow.principal.require(Permission.ORDER_MINERS, site_id)
    now = uow.now()
    found = tuple(cases(_windows(uow, site_id, Interval(now - _AGAIN_FOR, now)), now - _AGAIN_FOR, now))
    if not found:
        return ()
    names = {item.curtailment_id for case in found for item in (case.own, *case.rivals)}
    common = evidence_mark.ground(uow, site_id, sorted(names))
    before = evidence_store.latest_inputs(uow, site_id, sorted(names))
    written = []
    for case in found:
        noticed_in = [rules.notices_of(item.interval) for item in (case.own, *case.rivals)]
        mark = evidence_mark.mark(uow, site_id, common, case, rules.readings_of(case), noticed_in)
        name = case.own.curtailment_id
        if before.get(name) != mark and _weigh(uow, site_id, case, rules, mark):
            written.append(name)
    return tuple(written)


def _windows(uow: UnitOfWork, site_id: str, interval: Interval) -> tuple[Window, ...]:
    """Return the curtailments that touch ``interval``, and those that overlap them, directly or through one another."""
    while True:
        touching = store.windows(uow, site_id, interval)
        wider = hull(touching, interval)
        if wider == interval:
            return touching
        interval = wider


def _weigh(uow: UnitOfWork, site_id: str, case: Case, rules: VerifyPolicy, mark: str) -> bool:
    """Weigh one curtailment, and return whether that gave a new verdict."""
    name, window = case.own.curtailment_id, case.own.interval
    planned = store.planned_curtailment(uow, site_id, name)
    found = evidence_store.meters(uow, site_id, rules.readings_of(case))
    acks = evidence_store.acks(uow, site_id, name)
    before = evidence_store.latest_verdict(uow, site_id, name)
    waits = before is None and uow.now() < window.end + rules.grace
    if waits and not _complete(uow, site_id, planned, found, acks, rules):
        return False
    noticed = evidence_store.noticed(uow, site_id, name, rules.notices_of(window))
    liars = name_liars(planned, acks, noticed.liars)
    fittings = evidence_store.fittings(uow, site_id)
    verdict = verify(
        claim(planned, acks, liars, fittings),
        [_claim_of(uow, site_id, item, fittings, rules) for item in case.rivals],
        acks,
        liars,
        _measured(found, case, rules),
        fittings,
        _compliance(planned, acks, noticed),
    )
    if before is not None and read_verification(before.body) == verdict:
        evidence_store.confirm_verdict(uow, site_id, name, before.revision, mark)
        return False
    revision = 1 if before is None else before.revision + 1
    evidence_store.put_verdict(uow, site_id, name, revision, window, verdict, mark)
    _announce(uow, site_id, name, verdict, first=before is None)
    return True


def _announce(uow: UnitOfWork, site_id: str, name: str, verdict: Verification, *, first: bool) -> None:
    if first:
        store.finish_curtailment(uow, site_id, name)
        uow.add_event(CurtailmentFinished(site_id, name))
    if verdict.verified_mwh is not None:
        uow.add_event(CurtailmentVerified(site_id, name, verdict.verified_mwh))


def _claim_of(
    uow: UnitOfWork, site_id: str, rival: Window, fittings: Mapping[str, Fitting], rules: VerifyPolicy
) -> Claim:
    """Return what ``rival`` claims, found exactly as when it is weighed itself."""
    planned = store.planned_curtailment(uow, site_id, rival.curtailment_id)
    acks = evidence_store.acks(uow, site_id, rival.curtailment_id)
    noticed = evidence_store.noticed(uow, site_id, rival.curtailment_id, rules.notices_of(rival.interval))
    return claim(planned, acks, name_liars(planned, acks, noticed.liars), fittings)


def _complete(
    uow: UnitOfWork,
    site_id: str,
    planned: Planned,
    found: evidence_store.Meters,
    acks: Sequence[Ack],
    rules: VerifyPolicy,
) -> bool:
    """Return whether nothing of the curtailment is still on its way: meters whole, acks of everybody, no backlog."""
    window = planned.curtailment.interval
    if not found.site or evidence_store.backlog(uow, site_id) != 0:
        return False
    for meter_id in found.site:
        moments = [window.start, *(at for at, _ in found.samples[meter_id] if window.contains(at))]
        later = [at for at, _ in found.samples[meter_id] if at >= window.end]
        if not later or any(
            after - before > rules.max_gap for before, after in zip(moments, [*moments[1:], later[0]], strict=True)
        ):
            return False
    return set(last_stops(acks)) >= set(planned.curtailment.miner_ids)


def _measured(found: evidence_store.Meters, case: Case, rules: VerifyPolicy) -> Measured:
    return Measured(
        site=sum_samples([found.samples[meter_id] for meter_id in found.site], rules.max_gap),
        feeders={feeder_id: found.samples[meter_id] for feeder_id, meter_id in found.feeders.items()},
        has_site_meter=bool(found.site),
        before=Interval(case.begin - rules.baseline, case.begin),
        interval=rules.interval,
        max_gap=rules.max_gap,
    )


def _compliance(planned: Planned, acks: Sequence[Ack], noticed: evidence_store.Noticed) -> Compliance:
    stops = [ack for ack in last_stops(acks).values() if ack.at < planned.curtailment.interval.end]
    confirmed = [ack.at for ack in stops if ack.outcome is Outcome.COMPLETE]
    return Compliance(
        signal_at=planned.signal_at,
        accepted_at=noticed.accepted_at,
        first_action_at=noticed.started_at or min((ack.at for ack in stops), default=None),
        confirmed_at=max(confirmed, default=None),
    )
