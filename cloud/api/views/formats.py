"""Figures as text: fixed units, tabular digits, a true minus sign. Pure.

Invariants: None becomes ``NOT_KNOWN``, never zero; a device's small hash rate takes a smaller unit and never shows as
zero; a negative value that rounds to zero loses its sign; conversions of units are those of ``sitelink.units``.
"""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from cloud.core.money import Money
from sitelink.units import TeraHashPerSecond, Watts, megawatts

NOT_KNOWN: Final = "not known"
_MINUS: Final = "−"
_LEAST_SHOWN: Final = 0.05
"""What one decimal still shows as more than zero."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number as shown: ``text`` with its ``unit``; an unknown one has no unit."""

    text: str
    unit: str = ""

    @property
    def known(self) -> bool:
        """Return whether there is a number."""
        return self.text != NOT_KNOWN

    def __str__(self) -> str:
        return f"{self.text} {self.unit}".strip()


UNKNOWN: Final = Figure(NOT_KNOWN)


def number(value: float | Decimal, decimals: int = 0, *, sign: bool = False) -> str:
    """Return ``value`` with thousands separators; ``sign`` also shows a plus."""
    text = f"{abs(value):,.{decimals}f}"
    if not any(digit in "123456789" for digit in text):
        return text
    if value < 0:
        return _MINUS + text
    return f"+{text}" if sign else text


def power(power_w: Watts | None, *, sign: bool = False) -> Figure:
    """Return a site's power in MW."""
    if power_w is None:
        return UNKNOWN
    value = megawatts(power_w)
    return Figure(number(value, _power_decimals(value), sign=sign), "MW")


def power_gap(power_w: Watts | None, against_w: Watts | None, *, sign: bool = False) -> Figure:
    """Return ``power_w`` less ``against_w`` in MW, as the two figures that are shown subtract."""
    if power_w is None or against_w is None:
        return UNKNOWN
    left, right = _shown_mw(power_w), _shown_mw(against_w)
    decimals = max(-int(value.as_tuple().exponent) for value in (left, right))
    gap = left - right
    return Figure(number(gap, decimals, sign=True) if sign else number(abs(gap), decimals), "MW")


def _shown_mw(power_w: Watts) -> Decimal:
    value = megawatts(power_w)
    return Decimal(f"{value:.{_power_decimals(value)}f}")


def device_power(power_w: Watts | None) -> Figure:
    """Return one device's power in W."""
    return UNKNOWN if power_w is None else Figure(number(power_w), "W")


def hashrate(hashrate_ths: TeraHashPerSecond | None) -> Figure:
    """Return a site's hash rate in PH/s, or EH/s from 1,000 PH/s on."""
    if hashrate_ths is None:
        return UNKNOWN
    if hashrate_ths >= 1e6:
        return Figure(number(hashrate_ths / 1e6, 2), "EH/s")
    return Figure(number(hashrate_ths / 1e3, 2), "PH/s")


def device_hashrate(hashrate_ths: TeraHashPerSecond | None) -> Figure:
    """Return one device's hash rate in TH/s; what that would round to zero in the unit that shows it."""
    if hashrate_ths is None:
        return UNKNOWN
    value, unit = float(hashrate_ths), "TH/s"
    for smaller in ("GH/s", "MH/s", "kH/s", "H/s"):
        if value <= 0 or value >= _LEAST_SHOWN:
            break
        value, unit = value * 1e3, smaller
    return Figure(number(value, 1), unit)


def temperature(celsius: float | None) -> Figure:
    """Return a temperature in °C."""
    return UNKNOWN if celsius is None else Figure(number(celsius, 1), "°C")


def price(price_usd_per_mwh: float | None) -> Figure:
    """Return an energy price in USD/MWh."""
    return UNKNOWN if price_usd_per_mwh is None else Figure(number(price_usd_per_mwh, 2), "USD/MWh")


def usd(amount_usd: float | None, decimals: int = 2) -> Figure:
    """Return an amount that is an estimate, never a bill, in USD."""
    return UNKNOWN if amount_usd is None else Figure(number(amount_usd, decimals), "USD")


def money(amount: Money | None) -> Figure:
    """Return a billed amount to the cent, its currency named."""
    return UNKNOWN if amount is None else Figure(number(amount.amount, 2), amount.currency)


def energy(energy_mwh: float | None) -> Figure:
    """Return an energy in MWh; below 0.1 MWh in kWh, so that a small one keeps its figures."""
    if energy_mwh is None:
        return UNKNOWN
    if 0 < abs(energy_mwh) < 0.1:
        return Figure(number(energy_mwh * 1e3, 2), "kWh")
    return Figure(number(energy_mwh, 3), "MWh")


def percent(share: float | None, decimals: int = 1) -> Figure:
    """Return a share of one as per cent."""
    return UNKNOWN if share is None else Figure(number(share * 100, decimals), "%")


def count(value: int | None) -> Figure:
    """Return a whole number."""
    return UNKNOWN if value is None else Figure(number(value))


def duration(span: timedelta) -> str:
    """Return a length of time by its two largest parts, such as ``2 h 5 min``."""
    seconds = int(abs(span).total_seconds())
    parts = ((seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s"))
    shown = [f"{value} {unit}" for value, unit in parts if value]
    return " ".join(shown[:2]) or "0 s"


def plural(value: int, one: str, many: str) -> str:
    """Return ``value`` with the word that fits it."""
    return f"{number(value)} {one if value == 1 else many}"


def _power_decimals(power_mw: float) -> int:
    """Keep four significant figures or so."""
    if abs(power_mw) >= 100:
        return 1
    return 2 if abs(power_mw) >= 10 else 3
