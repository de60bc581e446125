"""A power market on loopback: published prices from a curve, and spikes on demand.

Invariants: what is published covers at least 24 intervals ahead without a gap; a price once published changes only
through a spike; intervals are aligned to the market's start.

      past (<= 1 h) | now | published horizon ...
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from simulator.bounds import check_range
from simulator.httpd import ControlServer, RequestError
from simulator.prices import MAX_SPIKE_USD_PER_MWH, Curve
from simulator.service import Service
from sitelink.clock import Clock

MIN_HORIZON = 24
MOST_INTERVALS = 10_000
_LONGEST_INTERVAL_S = 86_400
_YEARS = (2000, 2100)
_PAST = timedelta(hours=1)
_PAST_BEFORE_START = 12


@dataclass(frozen=True, slots=True)
class _Spike:
    start: datetime
    end: datetime
    price_usd_per_mwh: float


@dataclass(frozen=True, slots=True)
class MarketOptions:
    """One market. ``start`` None means now, aligned to whole intervals; ``horizon`` counts intervals ahead."""

    market: str
    interval_s: int
    start: datetime | None = None
    horizon: int = 48
    control: tuple[str, int] = ("127.0.0.1", 0)


class MarketFeed(Service):
    """The market's feed, as an async context manager.

    Raises (on construction):
        BadInput: an option makes no sense.
    Raises (on entering):
        SimulatorError: the address cannot be bound.
    """

    def __init__(self, options: MarketOptions, curve: Curve, clock: Clock) -> None:
        check_range("--interval-s", options.interval_s, 1, _LONGEST_INTERVAL_S, "seconds")
        check_range("--horizon", options.horizon, MIN_HORIZON, MOST_INTERVALS, "intervals")
        start = options.start or _aligned(clock.now(), options.interval_s)
        check_range("--start: the year", start.year, *_YEARS)
        self._options = options
        self._curve = curve
        self._clock = clock
        self._spikes: list[_Spike] = []
        self._changed_at: datetime | None = None
        self.start = start.astimezone(UTC)
        routes = {
            ("GET", "/prices"): self._on_prices,
            ("POST", "/spike"): self._on_spike,
            ("GET", "/health"): self._on_health,
        }
        self.control = ControlServer(*options.control, routes)

    async def open(self) -> None:
        """Start to listen."""
        await self.control.start()

    async def close(self) -> None:
        """Stop to listen."""
        await self.control.close()

    @property
    def url(self) -> str:
        """Return the address of the price document."""
        return f"{self.control.url}/prices"

    def document(self) -> dict[str, Any]:
        """Return what is published now."""
        now = self._clock.now()
        step_s = self._options.interval_s
        current = math.floor((now - self.start).total_seconds() / step_s)
        past = min(math.ceil(_PAST.total_seconds() / step_s), max(current, 0) + _PAST_BEFORE_START)
        published = self._instant(current)
        if self._changed_at is not None:
            published = max(published, self._changed_at)
        return {
            "market": self._options.market,
            "interval_s": step_s,
            "intervals": [self._interval(step) for step in range(current - past, current + self._options.horizon + 1)],
            "published_at": published.isoformat(),
            "source": self._curve.source,
        }

    def spike(self, start: datetime, end: datetime, price_usd_per_mwh: float) -> None:
        """Publish ``price_usd_per_mwh`` for every interval that touches ``[start, end)``."""
        self._spikes.append(_Spike(start, end, price_usd_per_mwh))
        self._changed_at = self._clock.now()

    def _instant(self, step: int) -> datetime:
        return self.start + timedelta(seconds=step * self._options.interval_s)

    def _interval(self, step: int) -> dict[str, Any]:
        start, end = self._instant(step), self._instant(step + 1)
        price: float = self._curve.price(step)
        for spike in self._spikes:
            if spike.start < end and start < spike.end:
                price = spike.price_usd_per_mwh
        return {
            "start": start.isoformat(),
            "end": end.isoformat(),
            "price_usd_per_mwh": price,
            "day_ahead_usd_per_mwh": self._curve.day_ahead(step),
        }

    async def _on_prices(self, _fields: Mapping[str, Any]) -> dict[str, Any]:
        return self.document()

    async def _on_health(self, _fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"ok": True, "market": self._options.market, "start": self.start.isoformat()}

    async def _on_spike(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        start, end = (_moment(name, fields.get(name)) for name in ("start", "end"))
        price = fields.get("price_usd_per_mwh")
        if not isinstance(price, int | float) or not abs(price) <= MAX_SPIKE_USD_PER_MWH:
            raise RequestError(
                f"price_usd_per_mwh: {price!r} is not a price; send USD/MWh, {MAX_SPIKE_USD_PER_MWH:g} at most"
            )
        if end <= start:
            raise RequestError(f"end: {end.isoformat()} is not after the start; send a later one")
        self.spike(start, end, float(price))
        return {"start": start.isoformat(), "end": end.isoformat(), "price_usd_per_mwh": float(price)}


def _aligned(moment: datetime, interval_s: int) -> datetime:
    seconds = int(moment.timestamp()) // interval_s * interval_s
    return datetime.fromtimestamp(seconds, UTC)


def _moment(name: str, value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise RequestError(f"{name}: {value!r} is not a time; send it as 2026-05-08T20:00:00+00:00") from None
    if moment.tzinfo is None:
        raise RequestError(f"{name}: {value!r} names no zone; send it as 2026-05-08T20:00:00+00:00")
    if not _YEARS[0] <= moment.year <= _YEARS[1]:
        raise RequestError(f"{name}: {value!r} is out of range; send a time from {_YEARS[0]} to {_YEARS[1]}")
    return moment.astimezone(UTC)
