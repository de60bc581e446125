"""What the console reads and whom it lets in: frozen values and the two ports beside their consumer. Pure.

Invariant: every value of one ``...Read`` comes from one transaction, whose moment is ``read_at``; a screen is built
from one read, so that its sentence, tiles, chart end and map cannot disagree.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from cloud.core.access import Principal
from cloud.core.money import Money
from cloud.hosting.columns import MinerColumns, PowerColumns
from cloud.hosting.model import MinerRow, SiteSummary
from sitelink.types import Ack, CurtailmentCause, Evidence, Interval, Notice, Reading
from sitelink.units import Watts


@dataclass(frozen=True, slots=True)
class PlannedStop:
    """One curtailment of the plan in force. ``expected_w`` is the shed the planner counts on."""

    curtailment_id: str
    cause: CurtailmentCause
    interval: Interval
    miner_ids: tuple[str, ...]
    target_power_w: Watts | None
    expected_w: Watts | None


@dataclass(frozen=True, slots=True)
class MarketSlot:
    """One market interval with its price."""

    interval: Interval
    price_usd_per_mwh: float


@dataclass(frozen=True, slots=True)
class PlanSlot:
    """One interval of the plan and the load planned in it."""

    interval: Interval
    planned_w: Watts


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """The plan in force at a site. ``gap`` is the distance to the proven bound as a share of gross revenue."""

    revision: int
    plan_id: str
    created_at: datetime
    valid: Interval
    method: str
    reason: str
    objective_usd: float | None
    bound_usd: float | None
    gap: float | None
    stops: tuple[PlannedStop, ...]
    slots: tuple[PlanSlot, ...]


@dataclass(frozen=True, slots=True)
class StopCheck:
    """How one curtailment ended, measured. ``result`` is a stable word such as ``verified`` or ``unverified``.

    ``evidence`` counts the credited stops by what confirmed each, best first; None where that was not kept.
    ``verified_mwh`` rests on the site meter, or is None.
    """

    curtailment_id: str
    interval: Interval
    result: str
    reason: str
    evidence: Mapping[Evidence, int] | None
    miners: int
    complete: int
    partial: int
    unverified: int
    verified_mwh: float | None
    expected_mwh: float | None
    liars: tuple[str, ...]
    checked_at: datetime | None


@dataclass(frozen=True, slots=True)
class SiteRead:
    """One site: miners, meter series (oldest first), events (newest first), plan and checks (newest first).

    ``journal_faults`` are what does not fit in its journal, in words, oldest first.
    """

    summary: SiteSummary
    miners: MinerColumns
    power: PowerColumns
    notices: tuple[Notice, ...]
    plan: PlanFacts | None
    prices: tuple[MarketSlot, ...]
    checks: tuple[StopCheck, ...]
    read_at: datetime
    journal_faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FleetRead:
    """Every site in the caller's scope, without meter series, prices and checks."""

    sites: tuple[SiteRead, ...]
    read_at: datetime


@dataclass(frozen=True, slots=True)
class MinerRead:
    """One miner with its readings and orders' outcomes (newest ack first) since ``since``."""

    summary: SiteSummary
    miner: MinerRow
    history: tuple[Reading, ...]
    acks: tuple[Ack, ...]
    notices: tuple[Notice, ...]
    plan: PlanFacts | None
    since: datetime
    read_at: datetime


@dataclass(frozen=True, slots=True)
class InvoiceSummary:
    """One invoice in a list."""

    invoice_id: str
    number: str
    site_id: str
    period: Interval
    total: Money
    status: str
    issued_at: datetime


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One line: quantity times unit price, rounded once."""

    description: str
    quantity: str
    unit_price: str
    amount: Money


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """What a line rests on: the energy of one meter in one interval; ``estimated`` where the meter was silent."""

    meter_id: str
    interval: Interval
    energy_kwh: str
    estimated: bool


@dataclass(frozen=True, slots=True)
class InvoiceRead:
    """One invoice, its evidence (at most a page of it) and what recomputing it from the evidence gave.

    ``credit`` is what curtailment is worth so far: provisional, not part of the total.
    """

    summary: InvoiceSummary
    lines: tuple[InvoiceLine, ...]
    evidence: tuple[EvidenceRow, ...]
    evidence_count: int
    credit: Money | None
    recomputed: Money | None
    agrees: bool | None
    read_at: datetime


@dataclass(frozen=True, slots=True)
class InvoicesRead:
    """Every invoice in scope, newest first."""

    invoices: tuple[InvoiceSummary, ...]
    read_at: datetime


class ConsoleReads(Protocol):
    """Everything a page shows. Each call is one read; blocking, so called from a thread.

    Raises:
        NotFound: nothing of that name is in the caller's scope.
        Transient: the database cannot be reached.
    """

    def ready(self) -> None:
        """Return when the store answers."""
        ...

    def fleet(self, principal: Principal) -> FleetRead:
        """Return every site in scope."""
        ...

    def site(self, principal: Principal, site_id: str, back: timedelta) -> SiteRead:
        """Return one site with its meter series of the last ``back``."""
        ...

    def miner(self, principal: Principal, site_id: str, miner_id: str, back: timedelta) -> MinerRead:
        """Return one miner with its history of the last ``back``."""
        ...

    def invoices(self, principal: Principal) -> InvoicesRead:
        """Return the invoices in scope."""
        ...

    def invoice(self, principal: Principal, invoice_id: str) -> InvoiceRead:
        """Return one invoice, recomputed from its evidence."""
        ...


@dataclass(frozen=True, slots=True)
class SignedIn:
    """An account with a live session."""

    principal: Principal
    email: str
    must_change_password: bool


class Accounts(Protocol):
    """Who may come in. Blocking, so called from a thread; a token is opaque and only its hash is stored.

    Raises:
        Transient: the database cannot be reached.
    """

    def sign_in(self, email: str, password: str) -> str | None:
        """Return a new session's token, or None: unknown account and wrong password look and cost the same."""
        ...

    def session(self, token: str) -> SignedIn | None:
        """Return who holds ``token``, or None when it has ended."""
        ...

    def change_password(self, token: str, old: str, new: str) -> str | None:
        """Set the password, end every other session, and return a new token; None when ``old`` is wrong.

        Raises:
            Refused: the new password breaks a rule; the message names it.
        """
        ...

    def sign_out(self, token: str) -> None:
        """End the session; one that has ended already is no error."""
        ...
