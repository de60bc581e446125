"""A plan as the JSON kept in ``curtailment_plans.body`` and back. Pure.

Invariant: ``read_plan(write_plan(plan)) == plan``; times are ISO 8601 with their zone.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cloud.planner.model import Method, Plan, Planned, Slot, Usd
from sitelink.types import Curtailment, CurtailmentCause, Interval, Ramp
from sitelink.units import UsdPerMegawattHour, Watts


def write_plan(plan: Plan) -> dict[str, Any]:
    """Return the document of ``plan``."""
    return {
        "site_id": plan.site_id,
        "revision": plan.revision,
        "plan_id": plan.plan_id,
        "created_at": plan.created_at.isoformat(),
        "valid": _write_interval(plan.valid),
        "curtailments": [write_planned(item) for item in plan.curtailments],
        "objective_usd": plan.objective_usd,
        "bound_usd": plan.bound_usd,
        "gap": plan.gap,
        "method": plan.method.value,
        "reason": plan.reason,
        "slack_mwh": plan.slack_mwh,
        "skipped": dict(plan.skipped),
        "slots": [_write_slot(slot) for slot in plan.slots],
        "planned_w": list(plan.planned_w),
    }


def read_plan(document: Mapping[str, Any]) -> Plan:
    """Return the plan in ``document``."""
    return Plan(
        site_id=document["site_id"],
        revision=document["revision"],
        plan_id=document["plan_id"],
        created_at=datetime.fromisoformat(document["created_at"]),
        valid=_read_interval(document["valid"]),
        curtailments=tuple(read_planned(item) for item in document["curtailments"]),
        objective_usd=Usd(document["objective_usd"]),
        bound_usd=Usd(document["bound_usd"]),
        gap=document["gap"],
        method=Method(document["method"]),
        reason=document["reason"],
        slack_mwh=document["slack_mwh"],
        skipped=document["skipped"],
        slots=tuple(_read_slot(slot) for slot in document["slots"]),
        planned_w=tuple(Watts(load) for load in document["planned_w"]),
    )


def write_planned(item: Planned) -> dict[str, Any]:
    """Return the document of one curtailment with its expectations."""
    order = item.curtailment
    return {
        "curtailment_id": order.curtailment_id,
        "cause": order.cause.value,
        "interval": _write_interval(order.interval),
        "miner_ids": list(order.miner_ids),
        "ramp_down": [order.ramp_down.step_w, order.ramp_down.step_s],
        "ramp_up": [order.ramp_up.step_w, order.ramp_up.step_s],
        "target_power_w": order.target_power_w,
        "expected_w": item.expected_w,
        "signal_at": item.signal_at.isoformat(),
        "signal_id": item.signal_id,
    }


def read_planned(document: Mapping[str, Any]) -> Planned:
    """Return one curtailment with its expectations."""
    target = document["target_power_w"]
    return Planned(
        curtailment=Curtailment(
            curtailment_id=document["curtailment_id"],
            cause=CurtailmentCause(document["cause"]),
            interval=_read_interval(document["interval"]),
            miner_ids=tuple(document["miner_ids"]),
            ramp_down=_read_ramp(document["ramp_down"]),
            ramp_up=_read_ramp(document["ramp_up"]),
            target_power_w=None if target is None else Watts(target),
        ),
        expected_w=Watts(document["expected_w"]),
        signal_at=datetime.fromisoformat(document["signal_at"]),
        signal_id=document["signal_id"],
    )


def _read_ramp(document: list[float]) -> Ramp:
    return Ramp(Watts(document[0]), document[1])


def _write_interval(interval: Interval) -> list[str]:
    return [interval.start.isoformat(), interval.end.isoformat()]


def _read_interval(document: list[str]) -> Interval:
    return Interval(datetime.fromisoformat(document[0]), datetime.fromisoformat(document[1]))


def _write_slot(slot: Slot) -> list[Any]:
    return [*_write_interval(slot.interval), slot.price_usd_per_mwh, slot.cap_w, slot.constant_w]


def _read_slot(document: list[Any]) -> Slot:
    start, end, price, cap, constant = document
    return Slot(
        interval=_read_interval([start, end]),
        price_usd_per_mwh=None if price is None else UsdPerMegawattHour(price),
        cap_w=None if cap is None else Watts(cap),
        constant_w=Watts(constant),
    )
