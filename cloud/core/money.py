"""Money: ``Decimal`` amounts of one currency. Never float.

Invariant: an amount is rounded only by ``rounded``, half away from zero, to the currency's smallest unit.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

_PLACES: Final = {
    "USD": Decimal("0.01"),
    "EUR": Decimal("0.01"),
    "USDC": Decimal("0.000001"),
    "BTC": Decimal("0.00000001"),
}


@dataclass(frozen=True, slots=True)
class Money:
    """An exact amount of ``currency`` (ISO code, or BTC, USDC).

    Raises:
        TypeError: the amount is not a Decimal.
        ValueError: the amount is not finite, or the currency is unknown.
    """

    amount: Decimal
    currency: str = "USD"

    def __post_init__(self) -> None:
        if not isinstance(self.amount, Decimal):
            raise TypeError(f"money needs a Decimal, got {type(self.amount).__name__}")
        if not self.amount.is_finite():
            raise ValueError(f"money must be finite, got {self.amount}")
        if self.currency not in _PLACES:
            raise ValueError(f"unknown currency {self.currency!r}; known: {', '.join(sorted(_PLACES))}")

    @property
    def rounded(self) -> "Money":
        """Return the amount rounded half away from zero to the currency's smallest unit."""
        return Money(self.amount.quantize(_PLACES[self.currency], rounding=ROUND_HALF_UP), self.currency)

    @property
    def minor(self) -> int:
        """Return the rounded amount in the smallest unit (cents for USD)."""
        return int((self.rounded.amount / _PLACES[self.currency]).to_integral_value())

    @classmethod
    def from_minor(cls, minor: int, currency: str = "USD") -> "Money":
        """Return ``minor`` smallest units as money."""
        return cls(Decimal(minor) * _PLACES[currency], currency)

    def __add__(self, other: "Money") -> "Money":
        self._same(other)
        return Money(self.amount + other.amount, self.currency)

    def __sub__(self, other: "Money") -> "Money":
        self._same(other)
        return Money(self.amount - other.amount, self.currency)

    def __neg__(self) -> "Money":
        return Money(-self.amount, self.currency)

    def times(self, factor: Decimal) -> "Money":
        """Return the unrounded product."""
        return Money(self.amount * factor, self.currency)

    def __str__(self) -> str:
        return f"{self.rounded.amount:,} {self.currency}"

    def _same(self, other: "Money") -> None:
        if self.currency != other.currency:
            raise ValueError(f"cannot combine {self.currency} with {other.currency}")


def total(amounts: Iterable[Money], currency: str = "USD") -> Money:
    """Return the sum of ``amounts``; zero of ``currency`` when there are none."""
    result = Money(Decimal(0), currency)
    for amount in amounts:
        result = result + amount
    return result
