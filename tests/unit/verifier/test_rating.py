"""Rating: rounding, cover, and the bundle that a customer checks."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import shared_folder
from verifier import __main__ as command
from verifier.rating import (
    BadBundle,
    Reading,
    check_bundle,
    cover_faults,
    evidence_digest,
    rate_line,
    rate_percent,
    round_half_away,
    sum_kwh,
    total,
)

START = datetime(2026, 3, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
KWH = st.decimals(min_value=0, max_value=10**9, places=6, allow_nan=False)
RATE = st.decimals(min_value=Decimal("0.0001"), max_value=2, places=4, allow_nan=False)


@pytest.mark.parametrize(
    ("amount", "rounded"),
    [("7897.425", "7897.43"), ("-7897.425", "-7897.43"), ("0.004999", "0.00"), ("-0.005", "-0.01"), ("2.675", "2.68")],
)
def test_rounding_is_half_away_from_zero(amount: str, rounded: str) -> None:
    assert str(round_half_away(Fraction(amount))) == rounded


@given(KWH, RATE)
def test_a_line_is_what_decimal_gives(quantity: Decimal, rate: Decimal) -> None:
    assert rate_line(quantity, rate) == (quantity * rate).quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)


@given(st.lists(KWH, max_size=40), RATE, st.randoms())
def test_a_line_does_not_depend_on_the_order_of_its_evidence(energies: list[Decimal], rate: Decimal, draw: Any) -> None:
    rows = [Reading("m", START + QUARTER * n, START + QUARTER * (n + 1), kwh, False) for n, kwh in enumerate(energies)]
    shuffled = rows.copy()
    draw.shuffle(shuffled)
    assert rate_line(sum_kwh(rows), rate) == rate_line(sum_kwh(shuffled), rate)
    assert cover_faults(rows, START, START + QUARTER * len(rows)) == cover_faults(
        shuffled, START, START + QUARTER * len(rows)
    )


@given(st.lists(KWH, min_size=1, max_size=30), st.data())
def test_splitting_a_period_splits_its_energy_exactly(energies: list[Decimal], data: st.DataObject) -> None:
    rows = [Reading("m", START + QUARTER * n, START + QUARTER * (n + 1), kwh, False) for n, kwh in enumerate(energies)]
    cut = data.draw(st.integers(0, len(rows)))
    assert sum_kwh(rows[:cut]) + sum_kwh(rows[cut:]) == sum_kwh(rows)


@given(st.lists(st.decimals(min_value=-1000, max_value=1000, places=2, allow_nan=False), max_size=20))
def test_a_total_is_the_exact_sum_of_rounded_lines(amounts: list[Decimal]) -> None:
    assert total(amounts) == sum(amounts, Decimal(0))


def test_the_metered_case_is_met() -> None:
    cases = json.loads((shared_folder("cases") / "billing_cases.json").read_text("utf-8"))["cases"]
    case = next(item for item in cases if item["id"] == "metered_demand_tax")
    given_, lines = case["inputs"], dict(case["lines"])
    energy = rate_line(Decimal(given_["metered_kwh"]), Decimal(given_["energy_rate_usd_per_kwh"]))
    demand = rate_line(Decimal(given_["peak_kw"]), Decimal(given_["demand_rate_usd_per_kw_month"]))
    management = rate_percent(energy, Decimal(given_["management_fee_pct"]))
    tax = rate_percent(total([energy, demand, management]), Decimal(given_["tax_pct"]))
    assert {"energy": str(energy), "demand": str(demand), "management": str(management), "tax": str(tax)} == lines
    assert str(total([energy, demand, management, tax])) == case["total"]


def test_every_case_line_of_plain_energy_is_met() -> None:
    cases = {
        item["id"]: item
        for item in json.loads((shared_folder("cases") / "billing_cases.json").read_text("utf-8"))["cases"]
    }
    sla = cases["sla_credit_and_dr_share"]
    energy = rate_line(Decimal(sla["inputs"]["metered_kwh"]), Decimal(sla["inputs"]["energy_rate_usd_per_kwh"]))
    assert str(energy) == dict(sla["lines"])["energy"]
    share = cases["profit_share_split"]
    energy = rate_line(Decimal(share["inputs"]["metered_kwh"]), Decimal(share["inputs"]["energy_rate_usd_per_kwh"]))
    assert str(energy) == share["derived"]["energy"]


def bundle() -> dict[str, Any]:
    rows = [
        {
            "meter_id": "site",
            "start": (START + QUARTER * n).isoformat(),
            "end": (START + QUARTER * (n + 1)).isoformat(),
            "kwh": "6.000000",
            "estimated": n == 1,
            "method": "power",
            "note": "",
        }
        for n in range(4)
    ]
    line = {
        "code": "energy",
        "description": "Energy",
        "start": START.isoformat(),
        "end": (START + QUARTER * 4).isoformat(),
        "quantity_kwh": "24.000000",
        "rate": "0.0725",
        "amount": "1.74",
        "evidence": rows,
        "evidence_sha256": evidence_digest(rows),
    }
    return {
        "form": "ballast-invoice/1",
        "invoice": {
            "number": "1",
            "currency": "USD",
            "period_start": START.isoformat(),
            "period_end": (START + QUARTER * 4).isoformat(),
            "lines": [line],
            "total": "1.74",
        },
    }


def test_a_true_bundle_holds() -> None:
    result = check_bundle(bundle())
    assert result.differences == ()
    assert (result.lines[0].intervals, result.lines[0].estimated) == (4, 1)


def _line(document: dict[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = document["invoice"]["lines"][0]
    return line


def _reseal(document: dict[str, Any]) -> None:
    _line(document)["evidence_sha256"] = evidence_digest(_line(document)["evidence"])


TAMPERINGS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "kwh": (lambda d: _line(d)["evidence"][0].update(kwh="5.000000"), "SHA-256 differs"),
    "flag": (lambda d: _line(d)["evidence"][1].update(estimated=False), "SHA-256 differs"),
    "amount": (lambda d: _line(d).update(amount="1.75"), "amount stated 1.75, recomputed 1.74"),
    "rate": (lambda d: _line(d).update(rate="0.08"), "amount stated 1.74, recomputed 1.92"),
    "total": (lambda d: d["invoice"].update(total="1.75"), "total: stated 1.75, recomputed 1.74"),
    "gap": (lambda d: (_line(d)["evidence"].pop(2), _reseal(d)), "a gap at"),
    "twice": (lambda d: (_line(d)["evidence"].append(_line(d)["evidence"][0]), _reseal(d)), "an overlap at"),
    "short": (lambda d: (_line(d)["evidence"].pop(), _reseal(d)), "evidence ends"),
    "period": (lambda d: d["invoice"].update(period_end=(START + QUARTER * 5).isoformat()), "the lines end"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_every_tampering_is_a_difference(name: str) -> None:
    tamper, sign = TAMPERINGS[name]
    document = bundle()
    tamper(document)
    assert any(sign in item for item in check_bundle(document).differences)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda d: d.update(form="ballast-invoice/9"),
        lambda d: d.pop("invoice"),
        lambda d: _line(d).update(amount=1.74),
        lambda d: _line(d).update(rate="NaN"),
        lambda d: _line(d).update(rate="much"),
        lambda d: _line(d).update(start="yesterday"),
        lambda d: _line(d).update(start="2026-03-01T00:00:00"),
        lambda d: _line(d).update(code="magic"),
        lambda d: _line(d)["evidence"].append("row"),
        lambda d: _line(d)["evidence"][0].update(estimated="no"),
    ],
)
def test_a_malformed_bundle_is_refused_by_name(tamper: Callable[[dict[str, Any]], Any], tmp_path: Path) -> None:
    document = bundle()
    tamper(document)
    with pytest.raises(BadBundle):
        check_bundle(document)
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(document))
    assert command.main([str(path)]) == 2


def test_the_command_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(bundle()))
    assert command.main([str(path)]) == 0
    assert "4 intervals, 1 of them estimated, 24.000000 kWh" in capsys.readouterr().out
    assert command.main([]) == 2
    assert command.main([str(tmp_path / "absent.json")]) == 2
    path.write_text("[]")
    assert command.main([str(path)]) == 2


def test_json_too_deep_to_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 200_000)
    assert command.main([str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
