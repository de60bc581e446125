"""Billing's SQL: contracts, the counter that numbers invoices, invoices with lines and evidence; meters it reads.

Invariants: numbers are taken from one locked row a tenant and series, inside the transaction that issues the invoice,
so a rolled back invoice leaves no gap; an invoice is written as draft and made final last, after which triggers refuse
every change.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert

from cloud.billing.model import Contract, EnergyMethod, EvidenceRow, Invoice, InvoiceLine, MeterReading
from cloud.core.errors import Conflict
from cloud.core.money import Money
from cloud.infra.db import UnitOfWork
from cloud.models.billing import (
    CRM_INVOICES,
    ENERGY_CONTRACTS,
    INVOICE_COUNTERS,
    INVOICE_EVIDENCE,
    INVOICE_LINES,
)
from cloud.models.hosting import HOSTING_METERS, METER_READINGS
from cloud.models.planner import CURTAILMENT_VERIFICATIONS
from sitelink.types import Interval

SERIES: Final = "invoice"
_SHOWN: Final = (
    *(CRM_INVOICES.c.invoice_id, CRM_INVOICES.c.number, CRM_INVOICES.c.site_id, CRM_INVOICES.c.period_start),
    *(CRM_INVOICES.c.period_end, CRM_INVOICES.c.currency, CRM_INVOICES.c.total, CRM_INVOICES.c.finalized_at),
    CRM_INVOICES.c.document_sha256,
)  # all but the document, which is as large as its evidence
_READINGS: Final = text(
    "SELECT read_at, power_w, energy_wh FROM meter_readings WHERE tenant_id = :tenant_id AND site_id = :site_id"
    " AND meter_id = :meter_id AND read_at >= coalesce((SELECT max(read_at) FROM meter_readings"
    "  WHERE tenant_id = :tenant_id AND site_id = :site_id AND meter_id = :meter_id AND read_at <= :start"
    "  AND power_w IS NOT NULL), :start)"
    " AND read_at <= coalesce((SELECT min(read_at) FROM meter_readings"
    "  WHERE tenant_id = :tenant_id AND site_id = :site_id AND meter_id = :meter_id AND read_at >= :end"
    "  AND power_w IS NOT NULL), :end)"
    " ORDER BY read_at"
)


def put_contract(uow: UnitOfWork, contract: Contract) -> None:
    """Add a contract version.

    Raises:
        Conflict: the site already has another version from that moment.
    """
    rows = ENERGY_CONTRACTS.c
    statement = upsert(ENERGY_CONTRACTS).values(
        tenant_id=uow.tenant_id,
        site_id=contract.site_id,
        valid_from=contract.valid_from,
        rate_usd_per_kwh=contract.rate_usd_per_kwh,
        credit_usd_per_mwh=contract.credit_usd_per_mwh,
        currency=contract.currency,
        timezone=contract.timezone,
        created_at=uow.now(),
    )
    added = uow.session.execute(statement.on_conflict_do_nothing().returning(rows.site_id)).scalar_one_or_none()
    if added is None and contract not in contracts(uow, contract.site_id):
        raise Conflict(
            f"site {contract.site_id} already has a contract from {contract.valid_from.isoformat()}; start a later one"
        )


def contracts(uow: UnitOfWork, site_id: str) -> tuple[Contract, ...]:
    """Return the versions of a site's contract, oldest first."""
    rows = ENERGY_CONTRACTS.c
    query = (
        select(ENERGY_CONTRACTS)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
        .order_by(rows.valid_from)
    )
    return tuple(
        Contract(
            site_id=row.site_id,
            valid_from=row.valid_from,
            rate_usd_per_kwh=row.rate_usd_per_kwh,
            credit_usd_per_mwh=row.credit_usd_per_mwh,
            currency=row.currency,
            timezone=row.timezone,
        )
        for row in uow.session.execute(query)
    )


def site_meters(uow: UnitOfWork, site_id: str) -> tuple[str, ...]:
    """Return the meters that measure the whole site."""
    rows = HOSTING_METERS.c
    query = select(rows.meter_id).where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.kind == "site")
    return tuple(uow.session.execute(query.order_by(rows.meter_id)).scalars())


def meter_readings(uow: UnitOfWork, site_id: str, meter_id: str, period: Interval) -> tuple[MeterReading, ...]:
    """Return a meter's readings of ``period`` and the nearest known ones around it, oldest first."""
    values = {
        "tenant_id": uow.tenant_id,
        "site_id": site_id,
        "meter_id": meter_id,
        "start": period.start,
        "end": period.end,
    }
    found = uow.session.execute(_READINGS, values)
    return tuple(MeterReading(row.read_at, row.power_w, row.energy_wh) for row in found)


def has_readings(uow: UnitOfWork, site_id: str, meter_id: str, period: Interval) -> bool:
    """Return whether the meter was read at all in ``period``."""
    rows = METER_READINGS.c
    query = (
        select(rows.read_at)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.meter_id == meter_id)
        .where(rows.read_at >= period.start, rows.read_at < period.end, rows.power_w.is_not(None))
        .limit(1)
    )
    return uow.session.execute(query).one_or_none() is not None


def take_number(uow: UnitOfWork) -> int:
    """Lock the counter and return the next number; others wait until this transaction ends."""
    rows = INVOICE_COUNTERS.c
    statement = upsert(INVOICE_COUNTERS).values(tenant_id=uow.tenant_id, series=SERIES, last_number=1)
    statement = statement.on_conflict_do_update(
        index_elements=["tenant_id", "series"], set_={"last_number": rows.last_number + 1}
    )
    return int(uow.session.execute(statement.returning(rows.last_number)).scalar_one())


def overlapping_invoice(uow: UnitOfWork, site_id: str, period: Interval) -> Invoice | None:
    """Return a final invoice of the site that shares time with ``period``."""
    rows = CRM_INVOICES.c
    query = (
        select(*_SHOWN)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.finalized_at.is_not(None))
        .where(rows.period_start < period.end, rows.period_end > period.start)
        .limit(1)
    )
    row = uow.session.execute(query).one_or_none()
    return None if row is None else _invoice(row)


def put_invoice(
    uow: UnitOfWork,
    invoice_id: UUID,
    number: int,
    site_id: str,
    period: Interval,
    lines: Sequence[InvoiceLine],
    total: Money,
    document: bytes,
    now: datetime,
) -> None:
    """Write an invoice with lines and evidence, then make it final."""
    key = {"tenant_id": uow.tenant_id, "invoice_id": invoice_id}
    uow.session.execute(
        insert(CRM_INVOICES).values(
            **key,
            number=number,
            site_id=site_id,
            period_start=period.start,
            period_end=period.end,
            currency=total.currency,
            total=total.amount,
            created_at=now,
        )
    )
    for line in lines:
        uow.session.execute(
            insert(INVOICE_LINES).values(
                **key,
                place=line.place,
                code="energy",
                description=line.description,
                quantity=line.quantity_kwh,
                unit="kWh",
                rate=line.rate,
                amount=line.amount.amount,
            )
        )
        uow.session.execute(insert(INVOICE_EVIDENCE), _evidence_values(key, line))
    rows = CRM_INVOICES.c
    uow.session.execute(
        update(CRM_INVOICES)
        .where(rows.tenant_id == uow.tenant_id, rows.invoice_id == invoice_id)
        .values(document=document, document_sha256=hashlib.sha256(document).hexdigest(), finalized_at=now)
    )


def _evidence_values(key: dict[str, UUID], line: InvoiceLine) -> list[dict[str, Any]]:
    return [
        {
            **key,
            "line_place": line.place,
            "place": place,
            "meter_id": row.meter_id,
            "start_at": row.interval.start,
            "end_at": row.interval.end,
            "kwh": row.kwh,
            "estimated": row.estimated,
            "method": row.method.value,
            "note": row.note,
        }
        for place, row in enumerate(line.evidence, start=1)
    ]


def invoices(uow: UnitOfWork, site_id: str | None = None) -> tuple[Invoice, ...]:
    """Return final invoices, newest first."""
    rows = CRM_INVOICES.c
    query = select(*_SHOWN).where(rows.tenant_id == uow.tenant_id, rows.finalized_at.is_not(None))
    if site_id is not None:
        query = query.where(rows.site_id == site_id)
    return tuple(_invoice(row) for row in uow.session.execute(query.order_by(rows.number.desc())))


def numbered(uow: UnitOfWork, number: int) -> Invoice | None:
    """Return the final invoice of that number; None when there is none."""
    rows = CRM_INVOICES.c
    query = select(*_SHOWN).where(
        rows.tenant_id == uow.tenant_id, rows.number == number, rows.finalized_at.is_not(None)
    )
    row = uow.session.execute(query).one_or_none()
    return None if row is None else _invoice(row)


def billed_until(uow: UnitOfWork, site_id: str) -> datetime | None:
    """Return the end of the last period that is billed; None when none is."""
    rows = CRM_INVOICES.c
    query = select(func.max(rows.period_end)).where(
        rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.finalized_at.is_not(None)
    )
    found: datetime | None = uow.session.execute(query).scalar_one()
    return found


def invoice(uow: UnitOfWork, invoice_id: UUID) -> tuple[Invoice, bytes] | None:
    """Return a final invoice with its document; None when there is none of that id."""
    rows = CRM_INVOICES.c
    query = select(*_SHOWN, rows.document).where(
        rows.tenant_id == uow.tenant_id, rows.invoice_id == invoice_id, rows.finalized_at.is_not(None)
    )
    row = uow.session.execute(query).one_or_none()
    return None if row is None else (_invoice(row), bytes(row.document))


def lines(uow: UnitOfWork, invoice_id: UUID) -> Sequence[Row[Any]]:
    """Return an invoice's line rows by place."""
    rows = INVOICE_LINES.c
    query = select(INVOICE_LINES).where(rows.tenant_id == uow.tenant_id, rows.invoice_id == invoice_id)
    return uow.session.execute(query.order_by(rows.place)).all()


def evidence(uow: UnitOfWork, invoice_id: UUID, limit: int | None = None) -> tuple[tuple[int, EvidenceRow], ...]:
    """Return an invoice's evidence rows with the place of their line."""
    rows = INVOICE_EVIDENCE.c
    query = (
        select(INVOICE_EVIDENCE)
        .where(rows.tenant_id == uow.tenant_id, rows.invoice_id == invoice_id)
        .order_by(rows.line_place, rows.place)
        .limit(limit)
    )
    return tuple(
        (
            row.line_place,
            EvidenceRow(
                meter_id=row.meter_id,
                interval=Interval(row.start_at, row.end_at),
                kwh=row.kwh,
                estimated=row.estimated,
                method=EnergyMethod(row.method),
                note=row.note,
            ),
        )
        for row in uow.session.execute(query)
    )


def count_evidence(uow: UnitOfWork, invoice_id: UUID) -> int:
    """Return how many evidence rows an invoice has."""
    rows = INVOICE_EVIDENCE.c
    query = select(func.count()).where(rows.tenant_id == uow.tenant_id, rows.invoice_id == invoice_id)
    return int(uow.session.execute(query).scalar_one())


def verdicts(uow: UnitOfWork, site_id: str, period: Interval) -> tuple[tuple[str, Interval, Decimal | None, str], ...]:
    """Return (curtailment, window, verified MWh, status) of the newest verdicts whose release lies in ``period``."""
    rows = CURTAILMENT_VERIFICATIONS.c
    query = (
        select(rows.curtailment_id, rows.start_at, rows.end_at, rows.verified_mwh, rows.status)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
        .where(rows.end_at > period.start, rows.end_at <= period.end)
        .order_by(rows.curtailment_id, rows.revision.desc())
        .ext(distinct_on(rows.curtailment_id))
    )
    return tuple(
        (
            row.curtailment_id,
            Interval(row.start_at, row.end_at),
            None if row.verified_mwh is None else Decimal(repr(row.verified_mwh)),
            row.status,
        )
        for row in uow.session.execute(query)
    )


def _invoice(row: Any) -> Invoice:
    return Invoice(
        invoice_id=row.invoice_id,
        number=row.number,
        site_id=row.site_id,
        period=Interval(row.period_start, row.period_end),
        total=Money(row.total, row.currency),
        issued_at=row.finalized_at,
        sha256=row.document_sha256,
    )
