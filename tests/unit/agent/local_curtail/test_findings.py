"""A stop is weighed against its feeder: bias is no lie, a lie is never proven off, and what is drawn is named in W."""

from dataclasses import replace

import pytest

from agent.findings import Finding, Proof, table, verdict, weigh
from sitelink.inventory import MinerEntry
from sitelink.units import Watts

pytestmark = pytest.mark.agent


def stopped(name: str, before_w: float | None = 3300.0, after_w: float | None = 50.0, feeder: str = "F1") -> Finding:
    entry = MinerEntry(name, "127.0.0.1", 4028, "luxos", "S19", feeder, "R1", 1, None, None)
    before = None if before_w is None else Watts(before_w)
    after = None if after_w is None else Watts(after_w)
    return Finding(entry, Proof.YES, "idle, read back", before, after, was_hashing=True)


def fleet(count: int, bias: float = 1.0) -> list[Finding]:
    return [stopped(f"m{place}", 3300.0 * bias) for place in range(count)]


@pytest.mark.parametrize(("count", "bias"), [(10, 1.01), (100, 1.003), (150, 1.01), (150, 0.99)])
def test_devices_that_report_a_little_beside_the_meter_are_proven(count: int, bias: float) -> None:
    weighed, lines = weigh(fleet(count, bias), {"F1": Watts(3300.0 * count)}, {"F1": Watts(50.0 * count)})
    assert {finding.proof for finding in weighed} == {Proof.YES}
    assert all("feeder meter agrees" in finding.what for finding in weighed)
    assert lines == []


def test_a_feeder_too_large_to_see_one_miner_says_so() -> None:
    weighed, _ = weigh(fleet(100), {"F1": Watts(330_000)}, {"F1": Watts(5000)})
    assert weighed[0].what == "idle, read back; feeder meter agrees within 9750 W"


def test_where_somebody_still_draws_nobody_who_may_be_the_one_is_proven() -> None:
    weighed, lines = weigh(fleet(10), {"F1": Watts(33_000)}, {"F1": Watts(9 * 50 + 3300)})
    assert {finding.proof for finding in weighed} == {Proof.OPEN}
    assert weighed[0].what == "idle, read back; but its feeder still draws"
    (line,) = lines
    assert "feeder F1 fell by 29250 W, its miners claim 32500 W" in line
    assert "it still draws about 3250 W that no miner owns up to, as much as one of its miners drew" in line
    assert verdict(weighed, "proven off")[0] == "0 of 10 miners proven off"
    assert "open" in table(weighed)[1]


def test_the_excess_names_whose_load_it_is_and_clears_whom_it_cannot_be() -> None:
    findings = [stopped("small", 1200.0), stopped("large", 9000.0)]
    weighed, (line,) = weigh(findings, {"F1": Watts(10_200)}, {"F1": Watts(1250)})
    assert "about 1150 W that no miner owns up to, as much as small drew" in line
    assert [finding.proof for finding in weighed] == [Proof.OPEN, Proof.YES]


def test_an_excess_that_fits_nobody_is_told_as_it_is() -> None:
    _, (line,) = weigh(fleet(10), {"F1": Watts(33_000)}, {"F1": Watts(500 + 5000)})
    assert "about 5000 W that no miner owns up to; measure" in line


def test_a_feeder_of_a_miner_of_unknown_load_vouches_for_nobody_but_still_contradicts() -> None:
    findings = [stopped("known"), stopped("silent", None, None)]
    weighed, lines = weigh(findings, {"F1": Watts(6600)}, {"F1": Watts(100)})
    assert ([finding.what for finding in weighed], lines) == (["idle, read back"] * 2, [])
    weighed, lines = weigh(findings, {"F1": Watts(6600)}, {"F1": Watts(6600)})
    assert {finding.proof for finding in weighed} == {Proof.OPEN}
    assert len(lines) == 1
    weighed, lines = weigh(findings[1:], {"F1": Watts(6600)}, {"F1": Watts(6700)})
    assert ([finding.what for finding in weighed], lines) == (["idle, read back"], []), "nothing was claimed"


def test_a_silent_meter_is_told_and_other_feeders_and_findings_stay_as_they_are() -> None:
    idle = replace(stopped("m2", feeder="F2"), was_hashing=False)
    findings = [stopped("m1"), idle, stopped("m3", feeder="unmetered")]
    weighed, lines = weigh(findings, {"F1": Watts(3300), "F2": Watts(9)}, {"F1": None, "F2": Watts(9)})
    assert weighed == findings
    assert lines == ["feeder F1: its meter did not answer; its stops rest on the devices' word alone"]
