"""Use cases of billing: contracts; issue, recompute and export energy invoices.

Invariants:

* One period of a site is billed once; numbers have no gaps; an issued invoice is final.
* Missing meter data is estimated and flagged, never zero; a period without any reading is refused.
* Recomputing reads the stored evidence, and beside it what the meters say now: late data shows, and changes nothing.
* Curtailment credit is provisional and enters no total. Services do not commit.
"""

import json
import uuid
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from cloud.billing import store
from cloud.billing.bundle import decimal_text, evidence_documents, write_bundle
from cloud.billing.metering import evidence
from cloud.billing.model import (
    Contract,
    EvidenceRow,
    Invoice,
    InvoiceCheck,
    InvoiceLine,
    ProvisionalCredit,
    Segment,
    segments,
)
from cloud.core.access import Permission
from cloud.core.errors import BadInput, NotFound, Refused
from cloud.core.events import InvoiceIssued
from cloud.core.money import Money, total
from cloud.core.times import kept_moment
from cloud.infra.db import UnitOfWork
from cloud.infra.sites import require_site
from cloud.settings import Settings
from sitelink.types import Interval
from verifier.rating import Reading, check_bundle, evidence_digest, rate_line, sum_kwh


@dataclass(frozen=True, slots=True)
class BillingPolicy:
    """Billing's part of the settings: the evidence interval, and the longest silence that is not one."""

    interval: timedelta
    max_gap: timedelta


def billing_policy(settings: Settings) -> BillingPolicy:
    """Return billing's part of ``settings``."""
    return BillingPolicy(timedelta(seconds=settings.billing_interval_s), timedelta(seconds=settings.meter_gap_s))


def set_contract(
    uow: UnitOfWork,
    site_id: str,
    rate_usd_per_kwh: Decimal,
    timezone: str,
    valid_from: datetime,
    credit_usd_per_mwh: Decimal | None = None,
) -> Contract:
    """Add a version of a site's energy contract, in force from ``valid_from``; the same one again changes nothing.

    Raises:
        BadInput: the rate is not positive, the time zone is unknown, or the moment is out of range.
        NotFound: there is no such site.
        Refused: the version would change what is already billed (``already_billed``).
        Conflict: another version starts at that moment.
    """
    uow.principal.require(Permission.MANAGE_BILLING, site_id)
    if not rate_usd_per_kwh.is_finite() or rate_usd_per_kwh <= 0:
        raise BadInput(f"contract: rate {rate_usd_per_kwh} is not a positive price in USD/kWh, such as 0.0725")
    if credit_usd_per_mwh is not None and (not credit_usd_per_mwh.is_finite() or credit_usd_per_mwh < 0):
        raise BadInput(f"contract: credit {credit_usd_per_mwh} is not a price in USD/MWh")
    try:
        zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise BadInput(f"contract: time zone {timezone!r} is unknown; write one such as America/Chicago") from None
    valid_from = kept_moment(valid_from, "contract")
    require_site(uow, site_id)
    contract = Contract(site_id, valid_from, rate_usd_per_kwh, credit_usd_per_mwh, "USD", timezone)
    billed = [item for item in store.invoices(uow, site_id) if item.period.end > valid_from]
    if billed and contract not in store.contracts(uow, site_id):
        raise Refused(
            "already_billed",
            f"site {site_id} is billed until {max(item.period.end for item in billed).isoformat()};"
            " start the contract at or after that",
        )
    store.put_contract(uow, contract)
    return contract


def issue_energy_invoice(uow: UnitOfWork, site_id: str, period: Interval, rules: BillingPolicy) -> UUID:
    """Issue the energy invoice of a site for ``period`` and return its id.

    Raises:
        BadInput: the period is not over.
        NotFound: no contract covers the period.
        Refused: the period is billed already (``already_billed``), or no meter was read (``no_meter_data``).
    """
    uow.principal.require(Permission.MANAGE_BILLING, site_id)
    now = uow.now()
    if period.end > now:
        raise BadInput(f"invoice: the period ends {period.end.isoformat()}, after now; bill a period that is over")
    number = store.take_number(uow)  # first: it is the lock that lets one invoice be issued at a time
    billed = store.overlapping_invoice(uow, site_id, period)
    if billed is not None:
        raise Refused(
            "already_billed",
            f"invoice {billed.number} already bills site {site_id} from {billed.period.start.isoformat()}"
            f" to {billed.period.end.isoformat()}; choose a period beside it",
        )
    parts = _covering(uow, site_id, period)
    lines = tuple(_line(uow, site_id, place, part, rules) for place, part in enumerate(parts, start=1))
    amount = total(line.amount for line in lines)
    invoice_id = uuid.uuid4()
    document = write_bundle(
        invoice_id, number, site_id, period, lines, amount, now, _credits(uow, site_id, period, parts)
    )
    store.put_invoice(uow, invoice_id, number, site_id, period, lines, amount, document, now)
    uow.add_event(InvoiceIssued(str(invoice_id)))
    return invoice_id


def recompute(uow: UnitOfWork, invoice_id: UUID, rules: BillingPolicy | None = None) -> InvoiceCheck:
    """Return what the invoice's evidence gives; with ``rules``, also what the meters say by now.

    Raises:
        NotFound: no such invoice in scope.
    """
    found, document = _found(uow, invoice_id)
    result = check_bundle(json.loads(document))
    differences = [*result.differences, *_stored_differences(uow, invoice_id, document)]
    return InvoiceCheck(
        invoice_id=invoice_id,
        stated=found.total,
        recomputed=Money(result.computed_total, found.total.currency),
        differences=tuple(differences),
        late=() if rules is None else _late(uow, found.site_id, found.period, result.computed_total, rules),
    )


def export(uow: UnitOfWork, invoice_id: UUID) -> bytes:
    """Return the invoice's bytes as they were issued, for ``python -m verifier``.

    Raises:
        NotFound: no such invoice in scope.
    """
    return _found(uow, invoice_id)[1]


def _found(uow: UnitOfWork, invoice_id: UUID) -> tuple[Invoice, bytes]:
    found = store.invoice(uow, invoice_id)
    if found is None or not uow.principal.sees(found[0].site_id):
        raise NotFound(f"there is no invoice {invoice_id}")
    uow.principal.require(Permission.READ_BILLING, found[0].site_id)
    return found


def _covering(uow: UnitOfWork, site_id: str, period: Interval) -> tuple[Segment, ...]:
    parts = segments(store.contracts(uow, site_id), period)
    if not parts or parts[0].interval.start > period.start:
        raise NotFound(
            f"site {site_id} has no energy contract at {period.start.isoformat()};"
            f" add one: ballast invoice contract {site_id} --rate 0.07 --from ..."
        )
    return parts


def _line(uow: UnitOfWork, site_id: str, place: int, part: Segment, rules: BillingPolicy) -> InvoiceLine:
    rows = _evidence(uow, site_id, part.interval, rules)
    quantity = sum_kwh(_reading(row) for row in rows)
    rate = part.contract.rate_usd_per_kwh
    estimated = sum(row.estimated for row in rows)
    flagged = f", {estimated} of {len(rows)} intervals estimated" if estimated else ""
    span = f"{part.interval.start.isoformat()} to {part.interval.end.isoformat()}"
    return InvoiceLine(
        place=place,
        description=f"Energy, site meter, {span}{flagged}",
        interval=part.interval,
        quantity_kwh=quantity,
        rate=rate,
        amount=Money(rate_line(quantity, rate), part.contract.currency),
        evidence=rows,
    )


def _evidence(uow: UnitOfWork, site_id: str, period: Interval, rules: BillingPolicy) -> tuple[EvidenceRow, ...]:
    meters = store.site_meters(uow, site_id)
    if not meters:
        raise Refused("no_meter_data", f"site {site_id} has no site meter; add one to meters.csv and import it")
    rows: list[EvidenceRow] = []
    for meter_id in meters:
        if not store.has_readings(uow, site_id, meter_id, period):
            raise Refused(
                "no_meter_data",
                f"meter {meter_id} of site {site_id} has no reading from {period.start.isoformat()} to"
                f" {period.end.isoformat()}; wait for the site's backlog, or choose another period",
            )
        readings = store.meter_readings(uow, site_id, meter_id, period)
        rows += evidence(meter_id, readings, period, rules.interval, rules.max_gap)
    return tuple(rows)


def _reading(row: EvidenceRow) -> Reading:
    return Reading(row.meter_id, row.interval.start, row.interval.end, row.kwh, row.estimated)


def _credits(
    uow: UnitOfWork, site_id: str, period: Interval, parts: Sequence[Segment]
) -> tuple[ProvisionalCredit, ...]:
    found = []
    for name, window, mwh, status in store.verdicts(uow, site_id, period):
        contract = next((part.contract for part in parts if part.interval.contains(window.start)), parts[0].contract)
        price = contract.credit_usd_per_mwh
        amount = None if price is None or mwh is None else Money(mwh, contract.currency).times(price).rounded
        found.append(ProvisionalCredit(name, window, mwh, amount, status))
    return tuple(found)


def _stored_differences(uow: UnitOfWork, invoice_id: UUID, document: bytes) -> list[str]:
    """Return where the evidence and line tables are not what the document says."""
    rows = store.evidence(uow, invoice_id)
    stated = json.loads(document)["invoice"]["lines"]
    found = []
    for line, item in zip(store.lines(uow, invoice_id), stated, strict=True):
        digest = evidence_digest(evidence_documents([row for place, row in rows if place == line.place]))
        if digest != item["evidence_sha256"]:
            found.append(f"line {line.place}: the stored evidence is not what was billed")
        if decimal_text(line.amount) != item["amount"]:
            found.append(f"line {line.place}: the stored amount {line.amount} is not the billed {item['amount']}")
    return found


def _late(uow: UnitOfWork, site_id: str, period: Interval, billed: Decimal, rules: BillingPolicy) -> tuple[str, ...]:
    """Return what the meters' data now gives, where it differs from the bill."""
    lines = [_line(uow, site_id, place, part, rules) for place, part in enumerate(_covering(uow, site_id, period), 1)]
    now = total(line.amount for line in lines)
    if now.amount == billed:
        return ()
    return (f"meter data that came later gives {now}; a note over {Money(now.amount - billed, now.currency)} is due",)
