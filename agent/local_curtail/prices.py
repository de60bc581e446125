"""A site's own price schedule: a table of hours. Pure.

    hour,price_usd_per_mwh              start,price_usd_per_mwh
    0,31.5                              2026-07-01T00:00,31.5          or, with its offset, 2026-07-01T00:00-05:00
    ...                                 ...
    23,40                               (each until the next, an hour at the most)

Invariants: a table is read whole or not at all; an hour without a row has no price, which is not a price of zero.
"""

import csv
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

_HOURS: Final = 24
_AN_HOUR: Final = timedelta(hours=1)
_PRICE: Final = "price_usd_per_mwh"
_LOWEST, _HIGHEST = -10_000.0, 100_000.0


class BadTable(ValueError):
    """The text is no price table; the message names the line and what to write."""


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices by hour of the day in ``zone``, or by their own start in UTC; one of the two."""

    zone: tzinfo = UTC
    daily: tuple[tuple[int, float], ...] = ()
    dated: tuple[tuple[datetime, float], ...] = ()

    def price_at(self, now: datetime) -> float | None:
        """Return the price in USD/MWh at ``now``, None where the table has none."""
        if self.daily:
            return dict(self.daily).get(now.astimezone(self.zone).hour)
        place = bisect_right(self.dated, now, key=lambda row: row[0]) - 1
        if place < 0 or now - self.dated[place][0] >= _AN_HOUR:
            return None
        return self.dated[place][1]


def read_prices(text: str, zone: tzinfo) -> PriceTable:
    """Return the table in ``text``; times without an offset are of ``zone``. Raises BadTable."""
    rows = list(csv.reader(text.splitlines()))
    header = [name.strip() for name in rows[0]] if rows else []
    if header not in (["hour", _PRICE], ["start", _PRICE]):
        raise BadTable(f"line 1: write hour,{_PRICE} or start,{_PRICE}")
    found: dict[int | datetime, float] = {}
    for number, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise BadTable(f"line {number}: write two values")
        key: int | datetime = _hour(row[0], number) if header[0] == "hour" else _start(row[0], number, zone)
        if key in found:
            raise BadTable(f"line {number}: {row[0].strip()} stands twice")
        found[key] = _price(row[1], number)
    if not found:
        raise BadTable("line 2: write a row for each hour")
    if header[0] == "hour":
        return PriceTable(zone, daily=tuple((hour, price) for hour, price in found.items() if isinstance(hour, int)))
    dated = sorted((start, price) for start, price in found.items() if isinstance(start, datetime))
    return PriceTable(zone, dated=tuple(dated))


def _hour(text: str, number: int) -> int:
    if not text.strip().isdecimal() or not int(text) < _HOURS:
        raise BadTable(f"line {number}: {text.strip()[:20]!r} is no hour; write 0 to 23")
    return int(text)


def _start(text: str, number: int, zone: tzinfo) -> datetime:
    try:
        start = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadTable(f"line {number}: {text.strip()[:40]!r} is no time; write 2026-07-01T13:00") from None
    return (start if start.tzinfo is not None else start.replace(tzinfo=zone)).astimezone(UTC)


def _price(text: str, number: int) -> float:
    try:
        price = float(text)
    except ValueError:
        price = float("nan")
    if not _LOWEST <= price <= _HIGHEST:
        raise BadTable(f"line {number}: {text.strip()[:20]!r} is no price in USD/MWh")
    return price
