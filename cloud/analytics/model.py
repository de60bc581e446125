"""Market prices as values. Pure.

Invariant: an interval of a market has one price at a time; a later publication replaces it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sitelink.types import Interval
from sitelink.units import UsdPerMegawattHour

MOST_USD_PER_MWH: Final = 100_000
"""No market clears beyond it, either way: what is larger is a slip of the pen, and planning on it stops a site."""


@dataclass(frozen=True, slots=True)
class MarketPrice:
    """One interval's price with its provenance. ``collected_at`` is when it was last confirmed."""

    market: str
    interval: Interval
    price_usd_per_mwh: UsdPerMegawattHour
    source: str
    published_at: datetime
    first_seen_at: datetime
    collected_at: datetime


@dataclass(frozen=True, slots=True)
class Publication:
    """What a source says at once: prices by interval, who says so and since when."""

    market: str
    source: str
    published_at: datetime
    prices: tuple[tuple[Interval, UsdPerMegawattHour], ...]


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What a publication changed: ``changed`` intervals are new or have another price than before."""

    market: str
    intervals: int
    changed: int
