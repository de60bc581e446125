"""The document of an invoice: the bytes that are stored, exported, and checked by ``python -m verifier``. Pure.

Invariants: canonical JSON, numbers as decimal text, times in UTC; equal invoices give equal bytes; provisional credits
stand apart and enter no total.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from cloud.billing.model import EvidenceRow, InvoiceLine, ProvisionalCredit
from cloud.core.errors import Permanent
from cloud.core.money import Money
from sitelink.types import Interval
from verifier.rating import ENERGY, FORM, canonical, evidence_digest

UNREADABLE: Final = "the stored document of an invoice cannot be read; restore it from a backup"


def write_bundle(
    invoice_id: UUID,
    number: int,
    site_id: str,
    period: Interval,
    lines: Sequence[InvoiceLine],
    total: Money,
    issued_at: datetime,
    provisional: Sequence[ProvisionalCredit],
) -> bytes:
    """Return the invoice's bytes."""
    return canonical(
        {
            "form": FORM,
            "invoice": {
                "invoice_id": str(invoice_id),
                "number": str(number),
                "site_id": site_id,
                "period_start": time_text(period.start),
                "period_end": time_text(period.end),
                "issued_at": time_text(issued_at),
                "currency": total.currency,
                "lines": [_line(line) for line in lines],
                "total": str(total.amount),
            },
            "provisional_curtailment_credit": [_credit(item) for item in provisional],
        }
    )


def read_bundle(document: bytes) -> Mapping[str, Any]:
    """Return what ``write_bundle`` wrote.

    Raises:
        Permanent: the bytes are none that it writes.
    """
    try:
        bundle = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise Permanent(f"{UNREADABLE}: {error}") from None
    if not isinstance(bundle, dict) or not isinstance(bundle.get("provisional_curtailment_credit"), list):
        raise Permanent(f"{UNREADABLE}: it is no invoice")
    return bundle


def evidence_documents(rows: Sequence[EvidenceRow]) -> list[dict[str, Any]]:
    """Return evidence rows as they stand in the bundle."""
    return [
        {
            "meter_id": row.meter_id,
            "start": time_text(row.interval.start),
            "end": time_text(row.interval.end),
            "kwh": decimal_text(row.kwh),
            "estimated": row.estimated,
            "method": row.method.value,
            "note": row.note,
        }
        for row in rows
    ]


def time_text(moment: datetime) -> str:
    """Return the UTC text of a time."""
    return moment.astimezone(UTC).isoformat()


def decimal_text(value: Decimal) -> str:
    """Return plain digits, never an exponent."""
    return f"{value:f}"


def _line(line: InvoiceLine) -> dict[str, Any]:
    rows = evidence_documents(line.evidence)
    return {
        "code": ENERGY,
        "description": line.description,
        "start": time_text(line.interval.start),
        "end": time_text(line.interval.end),
        "quantity_kwh": decimal_text(line.quantity_kwh),
        "rate": decimal_text(line.rate),
        "amount": decimal_text(line.amount.amount),
        "evidence": rows,
        "evidence_sha256": evidence_digest(rows),
    }


def _credit(item: ProvisionalCredit) -> dict[str, Any]:
    return {
        "curtailment_id": item.curtailment_id,
        "start": time_text(item.interval.start),
        "end": time_text(item.interval.end),
        "verified_mwh": None if item.verified_mwh is None else decimal_text(item.verified_mwh),
        "amount": None if item.amount is None else decimal_text(item.amount.amount),
        "status": item.status,
        "note": "provisional: paid only against the programme's settlement; not part of the total",
    }
