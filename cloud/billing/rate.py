"""What a period costs: the site's contract versions, each over the energy of the site's meters.

Invariants: every kWh is rated by exactly one contract version; missing meter data is estimated and flagged, never zero;
a period without any reading is refused.
"""

from collections.abc import Sequence

from cloud.billing import store
from cloud.billing.metering import evidence
from cloud.billing.model import BillingPolicy, EvidenceRow, InvoiceLine, Segment, segments
from cloud.core.errors import NotFound, Refused
from cloud.core.money import Money
from cloud.infra.db import UnitOfWork
from sitelink.types import Interval
from verifier.rating import Reading, rate_line, sum_kwh


def covering(uow: UnitOfWork, site_id: str, period: Interval) -> tuple[Segment, ...]:
    """Return ``period`` cut where contract versions change.

    Raises:
        NotFound: no contract covers its start.
    """
    parts = segments(store.contracts(uow, site_id), period)
    if not parts or parts[0].interval.start > period.start:
        raise NotFound(
            f"site {site_id} has no energy contract at {period.start.isoformat()};"
            f" add one: ballast invoice contract {site_id} --rate 0.07 --from ..."
        )
    return parts


def rate(
    uow: UnitOfWork, site_id: str, parts: Sequence[Segment], rules: BillingPolicy, meters: Sequence[str]
) -> tuple[InvoiceLine, ...]:
    """Return a line for each part, over the energy of ``meters``.

    Raises:
        Refused: there is no meter, or one was never read in a part (``no_meter_data``).
    """
    if not meters:
        raise Refused("no_meter_data", f"site {site_id} has no site meter; add one to meters.csv and import it")
    return tuple(_line(uow, site_id, place, part, rules, meters) for place, part in enumerate(parts, start=1))


def _line(
    uow: UnitOfWork, site_id: str, place: int, part: Segment, rules: BillingPolicy, meters: Sequence[str]
) -> InvoiceLine:
    rows = _evidence(uow, site_id, part.interval, rules, meters)
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


def _evidence(
    uow: UnitOfWork, site_id: str, period: Interval, rules: BillingPolicy, meters: Sequence[str]
) -> tuple[EvidenceRow, ...]:
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
