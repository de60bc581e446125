"""Reads prices from a feed over HTTP: bounded in time and size, tried again, and left alone while it is broken.

Invariants: a reply of another form is refused whole, naming the field; after ``_TRIP_AFTER`` failed reads the circuit
is open and the feed is asked again only after a pause that doubles, so a broken feed costs nothing.

      GET url -> {"market", "source", "published_at", "intervals": [{"start", "end", "price_usd_per_mwh"}]}
"""

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import httpx

from cloud.analytics.model import MOST_USD_PER_MWH, Publication
from cloud.core.errors import Permanent, Transient
from sitelink.clock import Clock
from sitelink.types import Interval
from sitelink.units import UsdPerMegawattHour

_TIMEOUT: Final = httpx.Timeout(10.0, connect=3.0)
_ATTEMPTS: Final = 3
_FIRST_PAUSE_S: Final = 0.5
_TRIP_AFTER: Final = 3
_LONGEST_OPEN_S: Final = 600.0
_LARGEST_BYTES: Final = 8 * 1024 * 1024
_LONGEST_SOURCE: Final = 200


class HttpFeed:
    """A feed at ``url``. ``wait(seconds)`` returns True when the process is to stop."""

    def __init__(
        self, url: str, market: str, clock: Clock, wait: Callable[[float], bool], client: httpx.Client
    ) -> None:
        parsed = httpx.URL(url)
        self._url = parsed.copy_with(path="/prices") if parsed.path in {"", "/"} else parsed
        self._market = market
        self._clock = clock
        self._wait = wait
        self._client = client
        self._failures = 0
        self._open_until = 0.0

    def fetch(self) -> Publication:
        """Return what the feed publishes now.

        Raises:
            Transient: the feed does not answer, or its circuit is open.
            Permanent: the reply is not of the form above.
        """
        left_s = self._open_until - self._clock.monotonic()
        if left_s > 0:
            raise Transient(f"market feed {self._url}: left alone for {left_s:.0f} s more after repeated failures")
        try:
            publication = self._attempts()
        except (Transient, Permanent):
            self._failures += 1
            if self._failures >= _TRIP_AFTER:
                pause_s = min(_LONGEST_OPEN_S, 2.0 ** (self._failures - _TRIP_AFTER + 1))
                self._open_until = self._clock.monotonic() + pause_s
            raise
        self._failures = 0
        return publication

    def _attempts(self) -> Publication:
        for attempt in range(_ATTEMPTS):
            try:
                return read_publication(self._get(), self._market)
            except Transient:
                last = attempt == _ATTEMPTS - 1
                if last or self._wait(_FIRST_PAUSE_S * 2**attempt):
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _get(self) -> Mapping[str, Any]:
        try:
            with self._client.stream("GET", self._url, timeout=_TIMEOUT) as reply:
                body = bytearray()
                for chunk in reply.iter_bytes():
                    body += chunk
                    if len(body) > _LARGEST_BYTES:
                        raise Permanent(
                            f"market feed {self._url}: more than {_LARGEST_BYTES} bytes; is it a price feed?"
                        )
            if reply.status_code >= 500 or reply.status_code == 429:
                raise Transient(f"market feed {self._url}: HTTP {reply.status_code}")
            if reply.status_code != 200:
                raise Permanent(f"market feed {self._url}: HTTP {reply.status_code}; mend market_url")
            document = httpx.Response(200, content=bytes(body)).json()
        except httpx.HTTPError as error:
            raise Transient(f"market feed {self._url}: {type(error).__name__}: {error}") from None
        except ValueError as error:
            raise Permanent(f"market feed {self._url}: the reply is not JSON: {error}") from None
        if not isinstance(document, Mapping):
            raise Permanent(f"market feed {self._url}: the reply is not a JSON object")
        return document


def read_publication(document: Mapping[str, Any], market: str) -> Publication:
    """Return the publication in ``document``, which must be of ``market``.

    Raises:
        Permanent: a field is missing or of another form; the message names it.
    """
    if document.get("market") != market:
        raise Permanent(f"market feed: market is {document.get('market')!r}, not {market!r}; mend market or market_url")
    intervals = document.get("intervals")
    if not isinstance(intervals, list):
        raise Permanent("market feed: intervals is not a list")
    return Publication(
        market=market,
        source=str(document.get("source", "feed"))[:_LONGEST_SOURCE],
        published_at=_time(document, "published_at", "market feed"),
        prices=tuple(_price(item, f"market feed: intervals[{place}]") for place, item in enumerate(intervals)),
    )


def _price(item: Any, where: str) -> tuple[Interval, UsdPerMegawattHour]:
    if not isinstance(item, Mapping):
        raise Permanent(f"{where} is not an object")
    value = item.get("price_usd_per_mwh")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Permanent(f"{where}: price_usd_per_mwh is {value!r}, not a number")
    if abs(value) > MOST_USD_PER_MWH:
        raise Permanent(f"{where}: price_usd_per_mwh is {value!r}, beyond {MOST_USD_PER_MWH} either way; mend the feed")
    try:
        return Interval(_time(item, "start", where), _time(item, "end", where)), UsdPerMegawattHour(float(value))
    except ValueError as error:
        raise Permanent(f"{where}: {error}") from None


def _time(item: Mapping[str, Any], name: str, where: str) -> datetime:
    try:
        moment = datetime.fromisoformat(str(item.get(name)))
    except ValueError:
        raise Permanent(f"{where}: {name} is {item.get(name)!r}, not an ISO time") from None
    if moment.tzinfo is None:
        raise Permanent(f"{where}: {name} {item.get(name)!r} has no time zone")
    return moment
