"""Units convert exactly as their definitions say."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sitelink import units
from sitelink.units import (
    JoulesPerTeraHash,
    Megawatts,
    TeraHashPerSecond,
    UsdPerPetahashDay,
    Watts,
)


@pytest.mark.parametrize(
    ("value", "unit", "ths"),
    [
        (1.0, "H", 1e-12),
        (1e6, "MH/s", 1.0),
        (104_500.0, "gh", 104.5),
        (7.0, "TH", 7.0),
        (0.5, "EH/s", 5e5),
    ],
)
def test_hash_rates_in_any_unit(value: float, unit: str, ths: float) -> None:
    assert units.terahash(value, unit) == pytest.approx(ths)


def test_an_unknown_hash_rate_unit_is_named() -> None:
    with pytest.raises(ValueError, match="'XH'"):
        units.terahash(1.0, "XH")


@given(st.floats(min_value=-1e9, max_value=1e9))
def test_megawatts_and_back(power_mw: float) -> None:
    assert units.megawatts(units.watts(Megawatts(power_mw))) == pytest.approx(power_mw)


def test_energy_of_constant_power() -> None:
    assert units.energy_mwh(Watts(850_000.0), timedelta(minutes=30)) == pytest.approx(0.425)


def test_efficiency_is_unknown_without_hash_rate() -> None:
    assert units.efficiency_j_per_th(Watts(3500.0), TeraHashPerSecond(200.0)) == pytest.approx(17.5)
    assert units.efficiency_j_per_th(Watts(3500.0), TeraHashPerSecond(0.0)) is None


def test_break_even_matches_the_worked_cases() -> None:
    # 50 USD/PH/day at 15 and 30 J/TH: 0.138889 and 0.069444 USD/kWh.
    price = UsdPerPetahashDay(50.0)
    assert units.breakeven_usd_per_mwh(price, JoulesPerTeraHash(15.0)) == pytest.approx(138.8889, abs=1e-4)
    assert units.breakeven_usd_per_mwh(price, JoulesPerTeraHash(30.0)) == pytest.approx(69.4444, abs=1e-4)


@given(st.floats(min_value=1, max_value=500), st.floats(min_value=5, max_value=100))
def test_at_break_even_revenue_equals_energy_cost(ths: float, j_per_th: float) -> None:
    hashprice = UsdPerPetahashDay(47.0)
    revenue = units.hash_revenue_usd_per_h(hashprice, TeraHashPerSecond(ths))
    price = units.breakeven_usd_per_mwh(hashprice, JoulesPerTeraHash(j_per_th))
    energy = units.energy_mwh(Watts(ths * j_per_th), timedelta(hours=1))
    assert revenue == pytest.approx(price * energy)
