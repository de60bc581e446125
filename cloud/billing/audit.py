"""Use case: check an issued invoice against all that is stored of it, and against what the meters say by now.

Invariants: the document as issued is the yardstick: its figures follow from its evidence, its hash holds, and every
column of the invoice, its lines and its evidence says the same. What the meters say by now is advice and changes
nothing: it is read for the meters that were billed, whatever the inventory lists today.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from cloud.billing import store
from cloud.billing.bundle import UNREADABLE, decimal_text, evidence_documents, read_bundle, time_text
from cloud.billing.model import BillingPolicy, EvidenceRow, Invoice, InvoiceCheck
from cloud.billing.queries import issued
from cloud.billing.rate import covering, rate
from cloud.core.errors import NotFound, Permanent, Refused
from cloud.core.money import Money, total
from cloud.infra.db import UnitOfWork
from sitelink.types import Interval
from verifier.rating import BadBundle, Result, check_bundle, evidence_digest


def recompute(uow: UnitOfWork, invoice_id: UUID, rules: BillingPolicy | None = None) -> InvoiceCheck:
    """Return what the invoice's evidence gives; with ``rules``, also what the meters say by now.

    Raises:
        NotFound: no such invoice in scope.
        Permanent: its document cannot be read.
    """
    found, document = issued(uow, invoice_id)
    bundle = read_bundle(document)
    result = _checked(bundle)
    rows = store.evidence(uow, invoice_id)
    differences = [
        *result.differences,
        *_invoice_differences(found, document, bundle["invoice"]),
        *_line_differences(store.lines(uow, invoice_id), rows, bundle["invoice"]["lines"]),
    ]
    return InvoiceCheck(
        invoice_id=invoice_id,
        stated=found.total,
        recomputed=Money(result.computed_total, found.total.currency),
        differences=tuple(differences),
        late=() if rules is None else _late(uow, found.site_id, bundle["invoice"], result.computed_total, rules),
    )


def _checked(bundle: Mapping[str, Any]) -> Result:
    try:
        return check_bundle(bundle)
    except BadBundle as error:
        raise Permanent(f"{UNREADABLE}: {error}") from None


def _invoice_differences(found: Invoice, document: bytes, stated: Mapping[str, Any]) -> list[str]:
    columns = {
        "invoice_id": str(found.invoice_id),
        "number": str(found.number),
        "site_id": found.site_id,
        "period_start": time_text(found.period.start),
        "period_end": time_text(found.period.end),
        "issued_at": time_text(found.issued_at),
        "currency": found.total.currency,
        "total": str(found.total.amount),
    }
    differences = _compare("invoice", columns, stated)
    if hashlib.sha256(document).hexdigest() != found.sha256:
        differences.append("invoice: the stored document is not the one whose SHA-256 is stored")
    return differences


def _line_differences(
    lines: Sequence[Any], rows: Sequence[tuple[int, EvidenceRow]], stated: Sequence[Mapping[str, Any]]
) -> list[str]:
    billed = {place: {**item, "unit": "kWh"} for place, item in enumerate(stated, start=1)}
    stored = {line.place: line for line in lines}
    differences = []
    for place in sorted({*billed, *stored, *(place for place, _ in rows)}):
        evidence = evidence_digest(evidence_documents([row for at, row in rows if at == place]))
        if place not in billed or place not in stored:
            differences.append(f"line {place}: it is {'missing' if place in billed else 'stored, and was not billed'}")
            continue
        line = stored[place]
        columns = {
            "code": line.code,
            "description": line.description,
            "quantity_kwh": decimal_text(line.quantity),
            "unit": line.unit,
            "rate": decimal_text(line.rate),
            "amount": decimal_text(line.amount),
        }
        differences += _compare(f"line {place}", columns, billed[place])
        if evidence != billed[place]["evidence_sha256"]:
            differences.append(f"line {place}: the stored evidence is not what was billed")
    return differences


def _compare(where: str, stored: Mapping[str, str], stated: Mapping[str, Any]) -> list[str]:
    return [
        f"{where}: the stored {name} {value} is not the billed {stated.get(name)}"
        for name, value in stored.items()
        if value != stated.get(name)
    ]


def _late(
    uow: UnitOfWork, site_id: str, stated: Mapping[str, Any], billed: Decimal, rules: BillingPolicy
) -> tuple[str, ...]:
    """Return what the data of the billed meters gives by now, where it differs from the bill."""
    period = Interval(datetime.fromisoformat(stated["period_start"]), datetime.fromisoformat(stated["period_end"]))
    meters = sorted({row["meter_id"] for line in stated["lines"] for row in line["evidence"]})
    try:
        lines = rate(uow, site_id, covering(uow, site_id, period), rules, meters)
    except (Refused, NotFound) as error:
        return (f"not compared with what the meters say by now: {error}",)
    now = total(line.amount for line in lines)
    if now.amount == billed:
        return ()
    return (f"meter data that came later gives {now}; a note over {Money(now.amount - billed, now.currency)} is due",)
