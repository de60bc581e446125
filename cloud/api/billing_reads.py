"""Invoices as the console shows them, over billing's queries; a page of evidence, recomputed while it is looked at."""

from decimal import Decimal
from typing import Final
from uuid import UUID

from cloud.api.source import EvidenceRow, InvoiceLine, InvoiceRead, InvoicesRead, InvoiceSummary
from cloud.api.views.formats import number
from cloud.billing import queries as billing
from cloud.billing.audit import recompute
from cloud.billing.model import Invoice
from cloud.billing.queries import CreditView
from cloud.core.errors import NotFound
from cloud.core.money import Money
from cloud.hosting import queries as hosting
from cloud.infra.db import UnitOfWork

EVIDENCE_PAGE: Final = 100


def read_invoices(uow: UnitOfWork) -> InvoicesRead:
    """Return the invoices in scope, newest first."""
    return InvoicesRead(tuple(_summary(uow, item) for item in billing.invoices(uow)), uow.now())


def read_invoice(uow: UnitOfWork, invoice_id: str) -> InvoiceRead:
    """Return one invoice, recomputed from its evidence.

    Raises:
        NotFound: there is no such invoice in scope.
    """
    key = _key(invoice_id)
    view = billing.invoice(uow, key, EVIDENCE_PAGE)
    check = recompute(uow, key)
    return InvoiceRead(
        summary=_summary(uow, view.invoice),
        lines=tuple(
            InvoiceLine(
                line.description,
                f"{_exact(line.quantity)} {line.unit}",
                f"{_exact(line.rate)} {line.amount.currency}/{line.unit}",
                line.amount,
            )
            for line in view.lines
        ),
        evidence=tuple(
            EvidenceRow(row.meter_id, row.interval, _exact(row.kwh), row.estimated) for row in view.evidence
        ),
        evidence_count=view.evidence_count,
        credit=_credit(view.credits),
        recomputed=check.recomputed,
        agrees=check.agrees,
        read_at=uow.now(),
    )


def _summary(uow: UnitOfWork, item: Invoice) -> InvoiceSummary:
    site = hosting.site(uow, item.site_id)
    named = f"{item.site_id if site is None else site.name}, no. {item.number}"
    return InvoiceSummary(
        str(item.invoice_id), named, item.site_id, item.period, item.total, "issued, final", item.issued_at
    )


def _credit(credits_given: tuple[CreditView, ...]) -> Money | None:
    """Return the sum of the provisional credits that have an amount; None when none has."""
    amounts = [credit.amount for credit in credits_given if credit.amount is not None]
    if not amounts:
        return None
    return Money(sum((amount.amount for amount in amounts), Decimal(0)), amounts[0].currency)


def _exact(value: Decimal) -> str:
    """Return every digit that is stored, with thousands separators."""
    exponent = value.normalize().as_tuple().exponent
    return number(value, max(0, -exponent) if isinstance(exponent, int) else 0)


def _key(invoice_id: str) -> UUID:
    try:
        return UUID(invoice_id)
    except ValueError:
        raise NotFound(f"there is no invoice {invoice_id}") from None
