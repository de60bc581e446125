"""What a site's own rule needs from elsewhere: a file of prices, a thermometer in the air outside.

Invariants: a file that cannot be read, or is no price table, has no price until it is mended, and that is said once; so
is its return. A thermometer counts when its last two figures agree, and no longer than ``_FRESH_S``.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Final

from agent.aside import on_disk
from agent.local_curtail.prices import BadTable, PriceTable, read_prices
from sitelink.clock import Clock
from sitelink.types import MeterSample

_LOG: Final = logging.getLogger(__name__)
LOOK_S: Final = 10.0
_FRESH_S: Final = 60.0
_COLDEST_C, _HOTTEST_C = -60.0, 70.0
_AGREE_C: Final = 10.0
"""Air does not change by more within one look."""
_LARGEST_BYTES: Final = 1_000_000


class Outside:
    """Prices and the temperature outside, as far as they are configured."""

    def __init__(
        self, clock: Clock, prices: Path | None, zone: tzinfo, thermometer: Callable[[], Awaitable[MeterSample]] | None
    ) -> None:
        """``prices`` is a table whose times are of ``zone``; ``thermometer`` gives degrees Celsius for its power."""
        self._clock = clock
        self._prices = prices
        self._zone = zone
        self._thermometer = thermometer
        self._table: PriceTable | None = None
        self._trouble = ""
        self._temps: list[tuple[float, float]] = []

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Read both once."""
        if self._prices is not None:
            await self._read_prices(self._prices)
        if self._thermometer is not None:
            sample = await self._thermometer()
            if sample.power_w is not None and _COLDEST_C < sample.power_w < _HOTTEST_C:
                self._temps = [*self._temps[-1:], (self._clock.monotonic(), float(sample.power_w))]

    def price_at(self, now: datetime) -> float | None:
        """Return the price in USD/MWh, None where there is none."""
        return None if self._table is None else self._table.price_at(now)

    def temp_c(self) -> float | None:
        """Return the temperature outside, None where it is not known."""
        if len(self._temps) <= 1:
            return None
        (_, before_c), (at_s, now_c) = self._temps
        fresh = self._clock.monotonic() - at_s <= _FRESH_S
        return now_c if fresh and abs(now_c - before_c) <= _AGREE_C else None

    async def _read_prices(self, path: Path) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                self._table = read_prices(await on_disk(lambda: _text(path)), self._zone)
        except (OSError, UnicodeDecodeError, BadTable, TimeoutError) as error:
            self._table = None
            if str(error) != self._trouble:
                _LOG.error(
                    "%s: no price is known: %s; correct it, it is read again", path, str(error) or "not read in time"
                )
            self._trouble = str(error)
        else:
            if self._trouble:
                _LOG.info("%s: prices are known again", path)
            self._trouble = ""


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_LARGEST_BYTES).decode("utf-8-sig")
