"""What billing bills: contracts, evidence, invoices. Pure.

Invariants: money and energy are ``Decimal``; every kWh of a period is rated by exactly one contract version; an invoice
that is final never changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from cloud.core.money import Money
from sitelink.types import Interval


@dataclass(frozen=True, slots=True)
class BillingPolicy:
    """Billing's part of the settings: the evidence interval, and the longest silence that is not one."""

    interval: timedelta
    max_gap: timedelta


@dataclass(frozen=True, slots=True)
class Contract:
    """One version of a site's energy contract, in force from ``valid_from`` until the next one."""

    site_id: str
    valid_from: datetime
    rate_usd_per_kwh: Decimal
    credit_usd_per_mwh: Decimal | None
    currency: str
    timezone: str


@dataclass(frozen=True, slots=True)
class Segment:
    """The part of a period that one contract version rates."""

    interval: Interval
    contract: Contract


@dataclass(frozen=True, slots=True)
class MeterReading:
    """One reading of one meter; None is unknown. ``energy_wh`` is the meter's own counter."""

    read_at: datetime
    power_w: float | None
    energy_wh: float | None


class EnergyMethod(StrEnum):
    """How an interval's energy was found, best first."""

    REGISTER = "register"
    POWER = "power"


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """The energy of one meter in one interval; ``estimated`` where the meter was silent for part of it."""

    meter_id: str
    interval: Interval
    kwh: Decimal
    estimated: bool
    method: EnergyMethod
    note: str = ""


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One line, rounded once, and the evidence it is the sum of."""

    place: int
    description: str
    interval: Interval
    quantity_kwh: Decimal
    rate: Decimal
    amount: Money
    evidence: tuple[EvidenceRow, ...]


@dataclass(frozen=True, slots=True)
class ProvisionalCredit:
    """What a verified curtailment may be worth; not part of any total until the programme settles it."""

    curtailment_id: str
    interval: Interval
    verified_mwh: Decimal | None
    amount: Money | None
    status: str


@dataclass(frozen=True, slots=True)
class Invoice:
    """A final invoice. ``sha256`` is over the exported bytes."""

    invoice_id: UUID
    number: int
    site_id: str
    period: Interval
    total: Money
    issued_at: datetime
    sha256: str


@dataclass(frozen=True, slots=True)
class InvoiceCheck:
    """What recomputing an invoice gave.

    ``differences`` are between the invoice, all that is stored of it, and its own evidence; ``late`` is what meter data
    now says otherwise, which a credit or debit note settles.
    """

    invoice_id: UUID
    stated: Money
    recomputed: Money
    differences: tuple[str, ...]
    late: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Return whether the invoice is what its evidence gives."""
        return not self.differences


def segments(contracts: Sequence[Contract], period: Interval) -> tuple[Segment, ...]:
    """Return the period cut where contract versions change; parts before the first version are missing."""
    ordered = sorted(contracts, key=lambda item: item.valid_from)
    found = []
    for place, contract in enumerate(ordered):
        start = max(period.start, contract.valid_from)
        end = min(period.end, ordered[place + 1].valid_from) if place + 1 < len(ordered) else period.end
        if start < end:
            found.append(Segment(Interval(start, end), contract))
    return tuple(found)
