"""Tables of ``cloud.analytics``: market prices with where they come from and how old they are."""

from typing import Final

from sqlalchemy import Column, Double, Index, Text

from cloud.models.base import moment, tenant_table

MARKET_ANALYTICS: Final = tenant_table(
    "market_analytics",
    Column("market", Text, primary_key=True),
    moment("start_at", primary_key=True),
    moment("end_at"),
    Column("price_usd_per_mwh", Double, nullable=False),
    Column("source", Text, nullable=False),
    moment("published_at"),
    moment("first_seen_at"),
    moment("collected_at"),
)
Index("ix_market_analytics_end", MARKET_ANALYTICS.c.tenant_id, MARKET_ANALYTICS.c.market, MARKET_ANALYTICS.c.end_at)
