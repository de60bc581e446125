from datetime import timedelta

import pytest

from cloud.api.views import formats
from sitelink.units import TeraHashPerSecond, Watts


@pytest.mark.parametrize(
    ("value", "decimals", "sign", "text"),
    [
        (-0.004, 2, True, "0.00"),
        (-0.0, 2, False, "0.00"),
        (-1234.5, 1, False, "−1,234.5"),
        (0.06, 2, True, "+0.06"),
        (0.0, 1, True, "0.0"),
    ],
)
def test_number_has_a_true_minus_and_no_negative_zero(value, decimals, sign, text):
    assert formats.number(value, decimals, sign=sign) == text


def test_unknown_is_said_and_never_zero():
    figures = (
        formats.power(None), formats.hashrate(None), formats.device_power(None), formats.device_hashrate(None),
        formats.temperature(None), formats.price(None), formats.money(None), formats.energy(None), formats.percent(None),
        formats.count(None), formats.usd(None),
    )  # fmt: skip
    assert {str(figure) for figure in figures} == {"not known"}
    assert not any(figure.known for figure in figures)


def test_power_keeps_about_four_digits_in_one_unit():
    assert [str(formats.power(Watts(w))) for w in (823_400, 13_520_000, 134_000_000)] == [
        "0.823 MW",
        "13.52 MW",
        "134.0 MW",
    ]


def test_a_device_that_hashes_never_shows_zero():
    figures = [str(formats.device_hashrate(TeraHashPerSecond(rate))) for rate in (0.0, 95.0, 0.05, 0.0163, 1.97e-4)]
    assert figures == ["0.0 TH/s", "95.0 TH/s", "0.1 TH/s", "16.3 GH/s", "0.2 GH/s"]
    assert str(formats.device_hashrate(TeraHashPerSecond(1.4154e-07))) == "0.1 MH/s"


def test_hashrate_scales_within_a_tile():
    assert str(formats.hashrate(TeraHashPerSecond(27_410))) == "27.41 PH/s"
    assert str(formats.hashrate(TeraHashPerSecond(1_234_000))) == "1.23 EH/s"


def test_duration_says_its_two_largest_parts():
    assert [formats.duration(timedelta(seconds=s)) for s in (0, 59, 7500, 90_061)] == [
        "0 s",
        "59 s",
        "2 h 5 min",
        "1 d 1 h",
    ]


def test_plural_agrees():
    assert formats.plural(1, "miner", "miners") == "1 miner"
    assert formats.plural(2000, "miner", "miners") == "2,000 miners"


def test_a_small_energy_keeps_its_figures():
    assert [str(formats.energy(value)) for value in (0.0, 0.00474, 12.3456)] == [
        "0.000 MWh",
        "4.74 kWh",
        "12.346 MWh",
    ]
