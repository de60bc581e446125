"""The planning grid: price intervals and shed windows cut into consecutive slots. Pure.

Invariants: slots start at ``start`` and touch; a price or a cap holds over a whole slot; where two windows overlap the
lower cap holds; a stretch that no price covers has price ``None``.

    prices   |--20--|--20--|-900-|--20--|
    window              |====cap====|
    slots    |--20--|-20|20|-900-|20|-20-|        cut at every edge that changes something
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from cloud.planner.model import Price, Signal, Slot
from sitelink.types import Interval
from sitelink.units import Watts


def build_slots(
    start: datetime,
    longest: timedelta,
    prices: Sequence[Price],
    signals: Iterable[Signal],
    constant_w: Watts,
) -> tuple[Slot, ...]:
    """Return the slots from ``start`` to the last price or window; none when nothing is known.

    An interval that ends more than ``longest`` after ``start`` is left out whole, so that the horizon's end moves with
    the market's intervals and not with the clock.
    """
    limit = start + longest
    prices = [price for price in prices if price.interval.end <= limit]
    caps = [(signal.interval, signal.cap_w) for signal in signals if signal.cap_w is not None]
    edges = _edges(start, limit, [price.interval for price in prices] + [interval for interval, _ in caps])
    ordered = sorted(prices, key=lambda price: price.interval.start)
    slots: list[Slot] = []
    place = 0
    for first, last in pairwise(edges):
        while place < len(ordered) and ordered[place].interval.end <= first:
            place += 1
        known = place < len(ordered) and ordered[place].interval.contains(first)
        holding = [cap for interval, cap in caps if interval.contains(first)]
        slots.append(
            Slot(
                interval=Interval(first, last),
                price_usd_per_mwh=ordered[place].price_usd_per_mwh if known else None,
                cap_w=min(holding) if holding else None,
                constant_w=constant_w,
            )
        )
    return tuple(slots)


def _edges(start: datetime, limit: datetime, intervals: Iterable[Interval]) -> list[datetime]:
    points = {start}
    for interval in intervals:
        if interval.end > start:
            points.update(min(max(edge, start), limit) for edge in (interval.start, interval.end))
    return sorted(points)
