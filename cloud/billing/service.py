"""Use cases of billing: contracts, months; issue and export energy invoices. ``audit`` checks them.

Invariants:

* One period of a site is billed once; numbers have no gaps; an issued invoice is final.
* The number is taken last, since whoever has it keeps every other invoice of the tenant waiting.
* Curtailment credit is provisional and enters no total. Services do not commit.
"""

import uuid
import zoneinfo
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from cloud.billing import queries, store
from cloud.billing.bundle import write_bundle
from cloud.billing.model import BillingPolicy, Contract, ProvisionalCredit, Segment
from cloud.billing.months import month
from cloud.billing.rate import covering, rate
from cloud.core.access import Permission
from cloud.core.errors import BadInput, NotFound, Refused
from cloud.core.events import InvoiceIssued
from cloud.core.money import Money, total
from cloud.core.times import kept_moment
from cloud.infra.db import UnitOfWork
from cloud.infra.sites import require_site
from cloud.settings import Settings
from sitelink.types import Interval


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
    billed_until = store.billed_until(uow, site_id)
    if billed_until is not None and billed_until > valid_from and contract not in store.contracts(uow, site_id):
        raise Refused(
            "already_billed",
            f"site {site_id} is billed until {billed_until.isoformat()}; start the contract at or after that",
        )
    store.put_contract(uow, contract)
    return contract


def contract_month(uow: UnitOfWork, site_id: str, text: str) -> Interval:
    """Return the calendar month ``YYYY-MM`` in the zone of the contract that is in force when it begins.

    Raises:
        BadInput: the text is no month.
        NotFound: the site has no contract.
    """
    uow.principal.require(Permission.READ_BILLING, site_id)
    versions = store.contracts(uow, site_id)
    if not versions:
        raise NotFound(f"site {site_id} has no energy contract; ballast invoice contract sets one")
    for contract in reversed(versions):
        period = month(text, contract.timezone)
        if contract.valid_from <= period.start:
            return period
    return month(text, versions[0].timezone)


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
    _require_unbilled(uow, site_id, period)
    parts = covering(uow, site_id, period)
    lines = rate(uow, site_id, parts, rules, store.site_meters(uow, site_id))
    amount = total(line.amount for line in lines)
    credited = _credits(uow, site_id, period, parts)
    invoice_id = uuid.uuid4()
    number = store.take_number(uow)  # last: it lets one invoice of the tenant be issued at a time, until the commit
    _require_unbilled(uow, site_id, period)
    document = write_bundle(invoice_id, number, site_id, period, lines, amount, now, credited)
    store.put_invoice(uow, invoice_id, number, site_id, period, lines, amount, document, now)
    uow.add_event(InvoiceIssued(str(invoice_id)))
    return invoice_id


def export(uow: UnitOfWork, invoice_id: UUID) -> bytes:
    """Return the invoice's bytes as they were issued, for ``python -m verifier``.

    Raises:
        NotFound: no such invoice in scope.
    """
    return queries.issued(uow, invoice_id)[1]


def _require_unbilled(uow: UnitOfWork, site_id: str, period: Interval) -> None:
    billed = store.overlapping_invoice(uow, site_id, period)
    if billed is not None:
        raise Refused(
            "already_billed",
            f"invoice {billed.number} already bills site {site_id} from {billed.period.start.isoformat()}"
            f" to {billed.period.end.isoformat()}; choose a period beside it",
        )


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
