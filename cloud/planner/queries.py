"""The planner's read side: the plan in force and the verdicts, as frozen values.

Invariant: a query sees only the principal's tenant and sites; unknown is None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cloud.core.access import Permission
from cloud.infra.db import UnitOfWork
from cloud.planner import evidence_store, store
from cloud.planner.model import Plan, Planned, Signal, Usd
from cloud.planner.verification import Compliance, Delivered, FeederDifference, Status
from cloud.planner.verification_document import read_verification
from sitelink.types import Curtailment, CurtailmentCause, Evidence, Interval
from sitelink.units import MegawattHours, UsdPerMegawattHour, Watts


@dataclass(frozen=True, slots=True)
class CurtailmentView:
    """One curtailment of the plan in force; ``expected_w`` is the load the planner expects it to take off."""

    curtailment_id: str
    cause: CurtailmentCause
    interval: Interval
    miner_ids: tuple[str, ...]
    target_power_w: Watts | None
    expected_w: Watts
    signal_at: datetime
    signal_id: str
    order: Curtailment


@dataclass(frozen=True, slots=True)
class SlotView:
    """One interval of the plan: its price and cap as planned with, and the planned load; None is not known."""

    interval: Interval
    price_usd_per_mwh: UsdPerMegawattHour | None
    cap_w: Watts | None
    planned_w: Watts


@dataclass(frozen=True, slots=True)
class PlanView:
    """The plan in force. ``gap`` is (bound - objective) / gross hash revenue."""

    site_id: str
    revision: int
    plan_id: str
    created_at: datetime
    valid: Interval
    method: str
    reason: str
    objective_usd: Usd
    bound_usd: Usd
    gap: float
    slack_mwh: float
    curtailments: tuple[CurtailmentView, ...]
    slots: tuple[SlotView, ...]
    skipped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class VerificationView:
    """The newest verdict on one curtailment."""

    curtailment_id: str
    revision: int
    interval: Interval
    status: Status
    reason: str
    method: str
    verified_mwh: MegawattHours | None
    expected_mwh: MegawattHours
    baseline_w: Watts | None
    claimed_w: Watts
    miners: int
    complete: int
    partial: int
    unverified: int
    refused: int
    silent: int
    evidence: Mapping[Evidence, int]
    liars: tuple[str, ...]
    intervals: tuple[Delivered, ...]
    feeders: tuple[FeederDifference, ...]
    compliance: Compliance
    signal_to_confirmed_s: float | None
    verified_at: datetime


def current_plan(uow: UnitOfWork, site_id: str) -> PlanView | None:
    """Return the plan in force at a site; None before its first."""
    uow.principal.require(Permission.READ_FLEET, site_id)
    plan = store.active_plan(uow, site_id)
    return None if plan is None else _plan_view(plan)


def active_plan(uow: UnitOfWork, site_id: str) -> Plan | None:
    """Return the plan in force with everything that went into it; None before the first."""
    uow.principal.require(Permission.READ_FLEET, site_id)
    return store.active_plan(uow, site_id)


def signals(uow: UnitOfWork, site_id: str) -> Sequence[Signal]:
    """Return the signals whose window is not over, by start."""
    uow.principal.require(Permission.READ_FLEET, site_id)
    return store.signals(uow, site_id, uow.now())


def verifications(uow: UnitOfWork, site_id: str) -> tuple[VerificationView, ...]:
    """Return the newest verdict of each curtailment, newest release first."""
    uow.principal.require(Permission.READ_FLEET, site_id)
    views = []
    for row in evidence_store.latest_verdicts(uow, site_id):
        verdict = read_verification(row.body)
        counts = verdict.outcomes
        views.append(
            VerificationView(
                curtailment_id=row.curtailment_id,
                revision=row.revision,
                interval=Interval(row.start_at, row.end_at),
                status=verdict.status,
                reason=verdict.reason,
                method=verdict.method,
                verified_mwh=verdict.verified_mwh,
                expected_mwh=verdict.expected_mwh,
                baseline_w=verdict.baseline_w,
                claimed_w=verdict.claimed_w,
                miners=sum(counts.values()),
                complete=counts["complete"],
                partial=counts["partial"],
                unverified=counts["unverified"],
                refused=counts["refused"] + counts["expired"],
                silent=counts["silent"],
                evidence=verdict.evidence,
                liars=verdict.liars,
                intervals=verdict.intervals,
                feeders=verdict.feeders,
                compliance=verdict.compliance,
                signal_to_confirmed_s=verdict.compliance.signal_to_confirmed_s,
                verified_at=row.verified_at,
            )
        )
    return tuple(views)


def _plan_view(plan: Plan) -> PlanView:
    return PlanView(
        site_id=plan.site_id,
        revision=plan.revision,
        plan_id=plan.plan_id,
        created_at=plan.created_at,
        valid=plan.valid,
        method=plan.method.value,
        reason=plan.reason,
        objective_usd=plan.objective_usd,
        bound_usd=plan.bound_usd,
        gap=plan.gap,
        slack_mwh=plan.slack_mwh,
        curtailments=tuple(_curtailment_view(item) for item in plan.curtailments),
        slots=tuple(
            SlotView(slot.interval, slot.price_usd_per_mwh, slot.cap_w, load)
            for slot, load in zip(plan.slots, plan.planned_w, strict=True)
        ),
        skipped=plan.skipped,
    )


def _curtailment_view(item: Planned) -> CurtailmentView:
    order = item.curtailment
    return CurtailmentView(
        curtailment_id=order.curtailment_id,
        cause=order.cause,
        interval=order.interval,
        miner_ids=order.miner_ids,
        target_power_w=order.target_power_w,
        expected_w=item.expected_w,
        signal_at=item.signal_at,
        signal_id=item.signal_id,
        order=order,
    )
