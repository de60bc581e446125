from decimal import Decimal

import pytest

from cloud.core.money import Money, total


@pytest.mark.parametrize(
    ("amount", "cents"), [("0.005", 1), ("-0.005", -1), ("0.004", 0), ("2.675", 268), ("-1.115", -112), ("10", 1000)]
)
def test_rounds_half_away_from_zero(amount: str, cents: int) -> None:
    assert Money(Decimal(amount)).minor == cents
    assert Money.from_minor(cents) == Money(Decimal(amount)).rounded


def test_sums_and_refuses_what_is_not_the_same_money() -> None:
    assert total([Money(Decimal("1.10")), Money(Decimal("2.20"))]) == Money(Decimal("3.30"))
    assert total([], "BTC") == Money(Decimal(0), "BTC")
    assert Money(Decimal(3)) - Money(Decimal(5)) == -Money(Decimal(2))
    assert str(Money(Decimal("1234.5")).times(Decimal(2))) == "2,469.00 USD"
    with pytest.raises(ValueError, match="cannot combine"):
        Money(Decimal(1)) + Money(Decimal(1), "BTC")


@pytest.mark.parametrize("amount", [1.0, 1, "1"])
def test_refuses_floats(amount: object) -> None:
    with pytest.raises(TypeError):
        Money(amount)  # type: ignore[arg-type]


def test_refuses_what_is_not_finite_or_not_a_currency() -> None:
    with pytest.raises(ValueError, match="finite"):
        Money(Decimal("NaN"))
    with pytest.raises(ValueError, match="unknown currency"):
        Money(Decimal(1), "GOLD")
