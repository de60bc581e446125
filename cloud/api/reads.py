"""The console's reads over the database: one transaction each, several packages' queries side by side.

Invariants: a read sees one snapshot (repeatable read), so its parts agree; its moment is the database clock's ``now``
of that transaction; the power on the tiles is the last point of the chart's series, or not known when that is stale.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from cloud.analytics import queries as market
from cloud.api import billing_reads
from cloud.api.source import (
    FleetRead,
    InvoiceRead,
    InvoicesRead,
    MarketSlot,
    MinerRead,
    PlanFacts,
    PlannedStop,
    PlanSlot,
    SiteRead,
    StopCheck,
)
from cloud.core.access import Principal
from cloud.core.errors import NotFound
from cloud.hosting import journal
from cloud.hosting import queries as hosting
from cloud.hosting.columns import NO_POWER, PowerColumns
from cloud.hosting.model import METER_STALE_AFTER
from cloud.infra.db import Database, UnitOfWork
from cloud.planner import queries as planner
from cloud.settings import Settings
from sitelink.types import Interval
from sitelink.units import Watts

_AHEAD: Final = timedelta(hours=36)
_EVENTS: Final = 50
_ACKS: Final = 50


class DatabaseReads:
    """Implements ``ConsoleReads`` over PostgreSQL."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._market = settings.market

    def ready(self) -> None:
        """Return when the store answers."""
        self._database.tenant_ids()

    def fleet(self, principal: Principal) -> FleetRead:
        """Return every site in scope."""
        with self._database.snapshot(principal) as uow:
            return FleetRead(
                sites=tuple(
                    SiteRead(
                        summary=summary,
                        miners=miners,
                        power=NO_POWER,
                        notices=hosting.notices(uow, summary.site_id, _EVENTS),
                        plan=_plan(uow, summary.site_id),
                        prices=(),
                        checks=(),
                        read_at=uow.now(),
                    )
                    for summary, miners in hosting.fleet_miners(uow)
                ),
                read_at=uow.now(),
            )

    def site(self, principal: Principal, site_id: str, back: timedelta) -> SiteRead:
        """Return one site with its meter series of the last ``back``."""
        with self._database.snapshot(principal) as uow:
            now = uow.now()
            miners = hosting.site_miners(uow, site_id)
            power = hosting.power_series(uow, site_id, now - back, now + METER_STALE_AFTER)
            prices = market.prices(uow, self._market, now - back, now + _AHEAD)
            return SiteRead(
                summary=hosting.summarise(uow, site_id, miners, _metered(power, now)),
                miners=miners,
                power=power,
                notices=hosting.notices(uow, site_id, _EVENTS),
                plan=_plan(uow, site_id),
                prices=tuple(MarketSlot(price.interval, price.price_usd_per_mwh) for price in prices),
                checks=_checks(uow, site_id),
                read_at=now,
                journal_faults=tuple(told.detail for told in journal.open_faults(uow, site_id)),
            )

    def miner(self, principal: Principal, site_id: str, miner_id: str, back: timedelta) -> MinerRead:
        """Return one miner with its history of the last ``back``."""
        with self._database.snapshot(principal) as uow:
            now = uow.now()
            miners = hosting.site_miners(uow, site_id)
            row = miners.find(miner_id)
            if row is None:
                raise NotFound(f"site {site_id} has no miner {miner_id}")
            acks = [ack for ack in hosting.acks(uow, site_id) if ack.miner_id == miner_id]
            notices = hosting.notices(uow, site_id, 500)
            return MinerRead(
                summary=hosting.summarise(uow, site_id, miners, None),
                miner=row,
                history=hosting.miner_history(uow, site_id, miner_id, now - back, now + METER_STALE_AFTER),
                acks=tuple(reversed(acks))[:_ACKS],
                notices=tuple(notice for notice in notices if notice.subject == miner_id),
                plan=_plan(uow, site_id),
                since=now - back,
                read_at=now,
            )

    def invoices(self, principal: Principal) -> InvoicesRead:
        """Return the invoices in scope."""
        with self._database.snapshot(principal) as uow:
            return billing_reads.read_invoices(uow)

    def invoice(self, principal: Principal, invoice_id: str) -> InvoiceRead:
        """Return one invoice, recomputed from its evidence."""
        with self._database.snapshot(principal) as uow:
            return billing_reads.read_invoice(uow, invoice_id)


def _metered(power: PowerColumns, now: datetime) -> Watts | None:
    if power.last is None or now - power.last[0] > METER_STALE_AFTER:
        return None
    return power.last[1]


def _plan(uow: UnitOfWork, site_id: str) -> PlanFacts | None:
    plan = planner.current_plan(uow, site_id)
    if plan is None:
        return None
    stops = tuple(
        PlannedStop(
            item.curtailment_id, item.cause, item.interval, item.miner_ids, item.target_power_w, item.expected_w
        )
        for item in plan.curtailments
    )
    slots = tuple(PlanSlot(slot.interval, slot.planned_w) for slot in plan.slots)
    return PlanFacts(
        revision=plan.revision,
        plan_id=plan.plan_id,
        created_at=plan.created_at,
        valid=plan.valid,
        method=plan.method,
        reason=plan.reason,
        objective_usd=plan.objective_usd,
        bound_usd=plan.bound_usd,
        gap=plan.gap,
        stops=stops,
        slots=fill_after(plan.valid.end, stops, fill_before(plan.created_at, stops, slots)),
    )


def fill_before(
    created_at: datetime, stops: Sequence[PlannedStop], slots: tuple[PlanSlot, ...]
) -> tuple[PlanSlot, ...]:
    """Return ``slots`` with the time since the plan was made put before them.

    A plan's grid begins at the first instant that can still be changed; what was decided before then is the same load
    less the curtailments that already run.
    """
    if not slots:
        return ()
    first = min(slots, key=lambda slot: slot.interval.start)
    base = first.planned_w + _shed_at(stops, first.interval.start)
    begins = min([created_at, *(stop.interval.start for stop in stops)])
    bounds = [edge for stop in stops for edge in (stop.interval.start, stop.interval.end)]
    edges = sorted({begins, first.interval.start, *(edge for edge in bounds if begins < edge < first.interval.start)})
    filled = [
        PlanSlot(Interval(start, end), Watts(base - _shed_at(stops, start)))
        for start, end in pairwise(edges)
        if end <= first.interval.start
    ]
    return (*filled, *slots)


def fill_after(until: datetime, stops: Sequence[PlannedStop], slots: tuple[PlanSlot, ...]) -> tuple[PlanSlot, ...]:
    """Return ``slots`` with the time until the plan expires put after them.

    Prices are known for so long only; beyond them a plan runs everything but its curtailments.
    """
    if not slots:
        return ()
    last = max(slots, key=lambda slot: slot.interval.end)
    base, begins = last.planned_w + _shed_at(stops, last.interval.start), last.interval.end
    bounds = [edge for stop in stops for edge in (stop.interval.start, stop.interval.end)]
    edges = sorted({begins, until, *(edge for edge in bounds if begins < edge < until)})
    filled = [
        PlanSlot(Interval(start, end), Watts(base - _shed_at(stops, start)))
        for start, end in pairwise(edges)
        if start >= begins
    ]
    return (*slots, *filled)


def _shed_at(stops: Sequence[PlannedStop], moment: datetime) -> float:
    return sum(stop.expected_w or 0.0 for stop in stops if stop.interval.contains(moment))


def _checks(uow: UnitOfWork, site_id: str) -> tuple[StopCheck, ...]:
    return tuple(
        StopCheck(
            curtailment_id=view.curtailment_id,
            interval=view.interval,
            result=view.status.value,
            reason=view.reason,
            evidence=view.evidence if view.evidence or not view.complete else None,
            miners=view.miners,
            complete=view.complete,
            partial=view.partial,
            unverified=view.unverified + view.refused + view.silent,
            verified_mwh=view.verified_mwh,
            expected_mwh=view.expected_mwh,
            liars=view.liars,
            checked_at=view.verified_at,
        )
        for view in planner.verifications(uow, site_id)
    )
