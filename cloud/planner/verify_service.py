"""Use case: weigh finished curtailments, and weigh them again when late data arrives.

Invariants: a curtailment is first weighed when the site has nothing of it left to send, or a grace after its release;
for a week it is weighed again whenever its evidence has changed; an unchanged verdict writes nothing, so the job may
run as often as it likes. Services do not commit.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cloud.core.access import Permission
from cloud.core.events import CurtailmentFinished, CurtailmentVerified
from cloud.infra.db import UnitOfWork
from cloud.planner import evidence_store, store
from cloud.planner.metering import sum_samples
from cloud.planner.model import Planned
from cloud.planner.verification import (
    Claim,
    Compliance,
    Measured,
    Verification,
    claim,
    last_stops,
    name_liars,
    verify,
)
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
    written = []
    for planned, state in store.ended_curtailments(uow, site_id, now - _AGAIN_FOR, now):
        if _weigh(uow, site_id, planned, rules, now, first=state != store.FINISHED):
            written.append(planned.curtailment.curtailment_id)
    return tuple(written)


def _weigh(uow: UnitOfWork, site_id: str, planned: Planned, rules: VerifyPolicy, now: datetime, *, first: bool) -> bool:
    name, window = planned.curtailment.curtailment_id, planned.curtailment.interval
    others = _cluster(uow, site_id, planned)
    begin = min(item.curtailment.interval.start for item in (planned, *others))
    span = Interval(begin - rules.baseline - rules.max_gap, window.end + rules.max_gap)
    found = evidence_store.meters(uow, site_id, span)
    acks = evidence_store.acks(uow, site_id, name)
    noticed = evidence_store.noticed(
        uow, site_id, name, Interval(window.start, window.end + rules.grace + rules.max_gap)
    )
    liars = name_liars(planned, acks, noticed.liars)
    inputs = _inputs(found, acks, liars)
    before = evidence_store.latest_verdict(uow, site_id, name)
    if before is not None and before.inputs == inputs:
        return False
    fittings = evidence_store.fittings(uow, site_id)
    if before is None and now < window.end + rules.grace and not _complete(uow, site_id, planned, found, acks, rules):
        return False
    verdict = verify(
        claim(planned, acks, liars, fittings),
        [_claim_of(uow, site_id, item, noticed.liars) for item in others],
        acks,
        liars,
        _measured(found, rules),
        fittings,
        _compliance(planned, acks, noticed),
    )
    revision = 1 if before is None else before.revision + 1
    evidence_store.put_verdict(uow, site_id, name, revision, window, verdict, inputs)
    _announce(uow, site_id, planned, verdict, first=first)
    return True


def _announce(uow: UnitOfWork, site_id: str, planned: Planned, verdict: Verification, *, first: bool) -> None:
    name = planned.curtailment.curtailment_id
    if first:
        store.finish_curtailment(uow, site_id, name)
        uow.add_event(CurtailmentFinished(site_id, name))
    if verdict.verified_mwh is not None:
        uow.add_event(CurtailmentVerified(site_id, name, verdict.verified_mwh))


def _cluster(uow: UnitOfWork, site_id: str, planned: Planned) -> tuple[Planned, ...]:
    """Return the other curtailments that overlap ``planned``, directly or through one another."""
    name = planned.curtailment.curtailment_id
    window = planned.curtailment.interval
    while True:
        touching = store.overlapping_curtailments(uow, site_id, window)
        wider = Interval(
            min([window.start, *(item.curtailment.interval.start for item in touching)]),
            max([window.end, *(item.curtailment.interval.end for item in touching)]),
        )
        if wider == window:
            return tuple(item for item in touching if item.curtailment.curtailment_id != name)
        window = wider


def _claim_of(uow: UnitOfWork, site_id: str, planned: Planned, noticed: frozenset[str]) -> Claim:
    acks = evidence_store.acks(uow, site_id, planned.curtailment.curtailment_id)
    return claim(planned, acks, name_liars(planned, acks, noticed), evidence_store.fittings(uow, site_id))


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


def _measured(found: evidence_store.Meters, rules: VerifyPolicy) -> Measured:
    return Measured(
        site=sum_samples([found.samples[meter_id] for meter_id in found.site], rules.max_gap),
        feeders={feeder_id: found.samples[meter_id] for feeder_id, meter_id in found.feeders.items()},
        has_site_meter=bool(found.site),
        baseline=rules.baseline,
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


def _inputs(found: evidence_store.Meters, acks: Sequence[Ack], liars: Sequence[str]) -> str:
    """Return a digest of the evidence."""
    digest = hashlib.sha256()
    for meter_id in (*found.site, *sorted(found.feeders.values())):
        samples = found.samples[meter_id]
        digest.update(f"{meter_id} {len(samples)} {samples[-1][0].isoformat() if samples else ''}\n".encode())
    for ack in acks:
        digest.update(f"{ack.ack_id} {ack.outcome}\n".encode())
    digest.update(",".join(liars).encode())
    return digest.hexdigest()
