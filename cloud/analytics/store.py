"""The SQL of market prices.

Invariants: storing a publication twice changes nothing but ``collected_at``; a publication older than what is stored
never replaces it; ``first_seen_at`` is when the current price first came.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import case, func, select
from sqlalchemy.dialects.postgresql import insert

from cloud.analytics.model import MarketPrice, Publication
from cloud.infra.db import UnitOfWork
from cloud.models.analytics import MARKET_ANALYTICS
from sitelink.types import Interval
from sitelink.units import UsdPerMegawattHour

_AT_A_TIME = 2000


def put_prices(uow: UnitOfWork, publication: Publication, now: datetime) -> int:
    """Store a publication and return how many intervals are new or have a new price."""
    rows = MARKET_ANALYTICS.c
    known = _known(uow, publication)
    values = [
        {
            "tenant_id": uow.tenant_id,
            "market": publication.market,
            "start_at": interval.start,
            "end_at": interval.end,
            "price_usd_per_mwh": price,
            "source": publication.source,
            "published_at": publication.published_at,
            "first_seen_at": now,
            "collected_at": now,
        }
        for interval, price in publication.prices
    ]
    statement = insert(MARKET_ANALYTICS)
    new = statement.excluded
    changed = rows.price_usd_per_mwh.is_distinct_from(new.price_usd_per_mwh)
    statement = statement.on_conflict_do_update(
        index_elements=["tenant_id", "market", "start_at"],
        set_={
            "end_at": new.end_at,
            "price_usd_per_mwh": new.price_usd_per_mwh,
            "source": new.source,
            "published_at": new.published_at,
            "first_seen_at": case((changed, new.first_seen_at), else_=rows.first_seen_at),
            "collected_at": func.greatest(rows.collected_at, new.collected_at),
        },
        where=rows.published_at <= new.published_at,
    )
    for first in range(0, len(values), _AT_A_TIME):
        uow.session.execute(statement, values[first : first + _AT_A_TIME])
    return sum(known.get(interval.start) != price for interval, price in publication.prices)


def _known(uow: UnitOfWork, publication: Publication) -> dict[datetime, float]:
    if not publication.prices:
        return {}
    rows = MARKET_ANALYTICS.c
    query = select(rows.start_at, rows.price_usd_per_mwh).where(
        rows.tenant_id == uow.tenant_id,
        rows.market == publication.market,
        rows.start_at >= min(interval.start for interval, _ in publication.prices),
        rows.start_at <= max(interval.start for interval, _ in publication.prices),
    )
    return {row.start_at: row.price_usd_per_mwh for row in uow.session.execute(query)}


def prices(uow: UnitOfWork, market: str, since: datetime, until: datetime) -> Sequence[MarketPrice]:
    """Return the prices of intervals that touch ``[since, until)``, by start."""
    rows = MARKET_ANALYTICS.c
    query = (
        select(MARKET_ANALYTICS)
        .where(rows.tenant_id == uow.tenant_id, rows.market == market)
        .where(rows.end_at > since, rows.start_at < until)
        .order_by(rows.start_at)
    )
    return [
        MarketPrice(
            market=row.market,
            interval=Interval(row.start_at, row.end_at),
            price_usd_per_mwh=UsdPerMegawattHour(row.price_usd_per_mwh),
            source=row.source,
            published_at=row.published_at,
            first_seen_at=row.first_seen_at,
            collected_at=row.collected_at,
        )
        for row in uow.session.execute(query)
    ]
