"""The planner's SQL: plans by compare-and-set, curtailments, signals; and the prices it reads.

Invariants: a revision is written only on top of the revision it was made from; exactly one revision of a site is
active; whoever loses the race writes nothing (``Conflict``) and reads again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import CursorResult, Row, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from cloud.core.errors import Conflict
from cloud.infra.db import UnitOfWork
from cloud.models.analytics import MARKET_ANALYTICS
from cloud.models.planner import CURTAILMENT_PLAN_MINERS, CURTAILMENT_PLANS, CURTAILMENT_SIGNALS, CURTAILMENTS
from cloud.planner.document import read_plan, read_planned, write_plan, write_planned
from cloud.planner.model import Plan, Planned, Price, Signal, SignalKind
from cloud.planner.overlap import Window
from sitelink.types import Interval
from sitelink.units import UsdPerMegawattHour, Watts

ACTIVE: Final = "active"
SUPERSEDED: Final = "superseded"
PLANNED: Final = "planned"
CANCELLED: Final = "cancelled"
FINISHED: Final = "finished"


@dataclass(frozen=True, slots=True)
class KnownPrice:
    """A stored price with when its value first came and when it was last confirmed."""

    price: Price
    first_seen_at: datetime
    collected_at: datetime


def active_plan(uow: UnitOfWork, site_id: str) -> Plan | None:
    """Return the plan in force; None before the first."""
    rows = CURTAILMENT_PLANS.c
    query = select(rows.body).where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.status == ACTIVE)
    body = uow.session.execute(query).scalar_one_or_none()
    return None if body is None else read_plan(body)


def put_plan(uow: UnitOfWork, plan: Plan) -> None:
    """Make ``plan`` the active one, on top of revision ``plan.revision - 1``.

    Raises:
        Conflict: another revision became active meanwhile.
    """
    rows = CURTAILMENT_PLANS.c
    if plan.revision > 1:
        retired = uow.session.execute(
            update(CURTAILMENT_PLANS)
            .where(rows.tenant_id == uow.tenant_id, rows.site_id == plan.site_id)
            .where(rows.revision == plan.revision - 1, rows.status == ACTIVE)
            .values(status=SUPERSEDED)
        )
        assert isinstance(retired, CursorResult)
        if retired.rowcount != 1:
            raise Conflict(
                f"site {plan.site_id}: revision {plan.revision - 1} is no longer the active plan; read it again"
            )
    statement = upsert(CURTAILMENT_PLANS).values(
        tenant_id=uow.tenant_id,
        site_id=plan.site_id,
        revision=plan.revision,
        plan_id=plan.plan_id,
        status=ACTIVE,
        body=write_plan(plan),
        method=plan.method.value,
        reason=plan.reason,
        objective_usd=plan.objective_usd,
        bound_usd=plan.bound_usd,
        gap=plan.gap,
        valid_until=plan.valid.end,
        created_at=plan.created_at,
    )
    written = uow.session.execute(statement.on_conflict_do_nothing().returning(rows.revision)).scalar_one_or_none()
    if written is None:
        raise Conflict(f"site {plan.site_id}: another replica wrote revision {plan.revision} first; read it again")
    _put_miners(uow, plan)


def _put_miners(uow: UnitOfWork, plan: Plan) -> None:
    rows = [
        {
            "tenant_id": uow.tenant_id,
            "site_id": plan.site_id,
            "revision": plan.revision,
            "curtailment_id": item.curtailment.curtailment_id,
            "place": place,
            "miner_id": miner_id,
        }
        for item in plan.curtailments
        for place, miner_id in enumerate(item.curtailment.miner_ids)
    ]
    if rows:
        uow.session.execute(insert(CURTAILMENT_PLAN_MINERS), rows)


def put_curtailments(uow: UnitOfWork, plan: Plan, now: datetime) -> None:
    """Keep each curtailment as ``plan`` has it, and cancel those that it dropped before they began."""
    rows = CURTAILMENTS.c
    kept = [item.curtailment.curtailment_id for item in plan.curtailments]
    uow.session.execute(
        update(CURTAILMENTS)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == plan.site_id, rows.state == PLANNED)
        .where(rows.start_at > now, rows.curtailment_id.not_in(kept))
        .values(state=CANCELLED, revision=plan.revision)
    )
    for item in plan.curtailments:
        order = item.curtailment
        values: dict[str, Any] = {
            "revision": plan.revision,
            "state": PLANNED,
            "cause": order.cause.value,
            "start_at": order.interval.start,
            "end_at": order.interval.end,
            "body": write_planned(item),
        }
        key = {"tenant_id": uow.tenant_id, "site_id": plan.site_id, "curtailment_id": order.curtailment_id}
        statement = upsert(CURTAILMENTS).values(**key, **values)
        uow.session.execute(
            statement.on_conflict_do_update(
                index_elements=["tenant_id", "site_id", "curtailment_id"], set_=values, where=rows.state != FINISHED
            )
        )


def windows(uow: UnitOfWork, site_id: str, interval: Interval) -> tuple[Window, ...]:
    """Return the windows of curtailments that were not cancelled and touch ``interval``, by start."""
    rows = CURTAILMENTS.c
    query = (
        select(rows.curtailment_id, rows.start_at, rows.end_at, rows.revision)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.state != CANCELLED)
        .where(rows.start_at < interval.end, rows.end_at > interval.start)
        .order_by(rows.start_at, rows.curtailment_id)
    )
    return tuple(
        Window(row.curtailment_id, Interval(row.start_at, row.end_at), row.revision)
        for row in uow.session.execute(query)
    )


def planned_curtailment(uow: UnitOfWork, site_id: str, curtailment_id: str) -> Planned:
    """Return one curtailment with what was expected of it."""
    rows = CURTAILMENTS.c
    query = select(rows.body).where(
        rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.curtailment_id == curtailment_id
    )
    return read_planned(uow.session.execute(query).scalar_one())


def finish_curtailment(uow: UnitOfWork, site_id: str, curtailment_id: str) -> None:
    """Note that a curtailment is over and was weighed."""
    rows = CURTAILMENTS.c
    uow.session.execute(
        update(CURTAILMENTS)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.curtailment_id == curtailment_id)
        .values(state=FINISHED)
    )


def signals(uow: UnitOfWork, site_id: str, after: datetime) -> tuple[Signal, ...]:
    """Return the signals in force whose window ends after ``after``, by start."""
    rows = CURTAILMENT_SIGNALS.c
    query = (
        select(CURTAILMENT_SIGNALS)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
        .where(rows.end_at > after, rows.withdrawn_at.is_(None))
        .order_by(rows.start_at, rows.signal_id)
    )
    return tuple(_signal(row) for row in uow.session.execute(query))


def put_signal(uow: UnitOfWork, signal: Signal) -> None:
    """Add a signal, or move the window of the one with its id; when it was received stays as it was first."""
    window = {
        "kind": signal.kind.value,
        "start_at": signal.interval.start,
        "end_at": signal.interval.end,
        "cap_w": signal.cap_w,
        "withdrawn_at": None,
    }
    key = {"tenant_id": uow.tenant_id, "site_id": signal.site_id, "signal_id": signal.signal_id}
    statement = upsert(CURTAILMENT_SIGNALS).values(**key, **window, received_at=signal.received_at)
    uow.session.execute(
        statement.on_conflict_do_update(index_elements=["tenant_id", "site_id", "signal_id"], set_=window)
    )


def withdraw_signals(uow: UnitOfWork, site_id: str, signal_ids: Iterable[str], now: datetime) -> int:
    """Take signals back and return how many were in force."""
    rows = CURTAILMENT_SIGNALS.c
    result = uow.session.execute(
        update(CURTAILMENT_SIGNALS)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.withdrawn_at.is_(None))
        .where(rows.signal_id.in_(tuple(signal_ids)))
        .values(withdrawn_at=now)
    )
    assert isinstance(result, CursorResult)
    return result.rowcount


def known_prices(uow: UnitOfWork, market: str, since: datetime, until: datetime) -> Sequence[KnownPrice]:
    """Return the prices of intervals that touch ``[since, until)``, by start."""
    rows = MARKET_ANALYTICS.c
    query = (
        select(MARKET_ANALYTICS)
        .where(rows.tenant_id == uow.tenant_id, rows.market == market)
        .where(rows.end_at > since, rows.start_at < until)
        .order_by(rows.start_at)
    )
    return [
        KnownPrice(
            Price(Interval(row.start_at, row.end_at), UsdPerMegawattHour(row.price_usd_per_mwh)),
            row.first_seen_at,
            row.collected_at,
        )
        for row in uow.session.execute(query)
    ]


def _signal(row: Row[Any]) -> Signal:
    return Signal(
        signal_id=row.signal_id,
        site_id=row.site_id,
        kind=SignalKind(row.kind),
        interval=Interval(row.start_at, row.end_at),
        cap_w=None if row.cap_w is None else Watts(row.cap_w),
        received_at=row.received_at,
    )
