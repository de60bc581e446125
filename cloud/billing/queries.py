"""Billing's read side: invoices, lines, evidence and provisional credits, as frozen values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from cloud.billing import store
from cloud.billing.bundle import read_bundle
from cloud.billing.model import Contract, EvidenceRow, Invoice
from cloud.core.access import Permission
from cloud.core.errors import NotFound
from cloud.core.money import Money
from cloud.infra.db import UnitOfWork
from sitelink.types import Interval


@dataclass(frozen=True, slots=True)
class LineView:
    """One line of an invoice."""

    place: int
    code: str
    description: str
    quantity: Decimal
    unit: str
    rate: Decimal
    amount: Money


@dataclass(frozen=True, slots=True)
class CreditView:
    """A provisional curtailment credit as it stood when the invoice was issued; not part of the total."""

    curtailment_id: str
    interval: Interval
    verified_mwh: Decimal | None
    amount: Money | None
    status: str


@dataclass(frozen=True, slots=True)
class InvoiceView:
    """An invoice with its lines, a page of its evidence, and its provisional credits."""

    invoice: Invoice
    lines: tuple[LineView, ...]
    evidence: tuple[EvidenceRow, ...]
    evidence_count: int
    credits: tuple[CreditView, ...]


def invoices(uow: UnitOfWork, site_id: str | None = None) -> tuple[Invoice, ...]:
    """Return the final invoices in scope, newest first."""
    uow.principal.require(Permission.READ_BILLING)
    return tuple(item for item in store.invoices(uow, site_id) if uow.principal.sees(item.site_id))


def invoice_id(uow: UnitOfWork, number: int) -> UUID:
    """Return the id of an invoice by its number.

    Raises:
        NotFound: there is no such invoice in scope.
    """
    found = store.numbered(uow, number)
    if found is None or not uow.principal.sees(found.site_id):
        raise NotFound(f"there is no invoice {number}; ballast invoice list shows them")
    uow.principal.require(Permission.READ_BILLING, found.site_id)
    return found.invoice_id


def issued(uow: UnitOfWork, invoice_id: UUID) -> tuple[Invoice, bytes]:
    """Return an invoice with its document.

    Raises:
        NotFound: there is no such invoice in scope.
    """
    found = store.invoice(uow, invoice_id)
    if found is None or not uow.principal.sees(found[0].site_id):
        raise NotFound(f"there is no invoice {invoice_id}")
    uow.principal.require(Permission.READ_BILLING, found[0].site_id)
    return found


def invoice(uow: UnitOfWork, invoice_id: UUID, evidence_limit: int | None = None) -> InvoiceView:
    """Return one invoice.

    Raises:
        NotFound: there is no such invoice in scope.
    """
    summary, document = issued(uow, invoice_id)
    currency = summary.total.currency
    return InvoiceView(
        invoice=summary,
        lines=tuple(
            LineView(
                row.place, row.code, row.description, row.quantity, row.unit, row.rate, Money(row.amount, currency)
            )
            for row in store.lines(uow, invoice_id)
        ),
        evidence=tuple(row for _, row in store.evidence(uow, invoice_id, evidence_limit)),
        evidence_count=store.count_evidence(uow, invoice_id),
        credits=_credits(read_bundle(document), currency),
    )


def contracts(uow: UnitOfWork, site_id: str) -> Sequence[Contract]:
    """Return the versions of a site's energy contract, oldest first."""
    uow.principal.require(Permission.READ_BILLING, site_id)
    return store.contracts(uow, site_id)


def _credits(document: Mapping[str, Any], currency: str) -> tuple[CreditView, ...]:
    return tuple(
        CreditView(
            curtailment_id=item["curtailment_id"],
            interval=Interval(datetime.fromisoformat(item["start"]), datetime.fromisoformat(item["end"])),
            verified_mwh=None if item["verified_mwh"] is None else Decimal(item["verified_mwh"]),
            amount=None if item["amount"] is None else Money(Decimal(item["amount"]), currency),
            status=item["status"],
        )
        for item in document["provisional_curtailment_credit"]
    )
