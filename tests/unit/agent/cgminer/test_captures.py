"""Real devices' replies: every value they can carry is met, none raises, each repair is named."""

from pathlib import Path

import pytest

from agent.cgminer.repair import decode
from tests.bench import parse as bench

pytestmark = pytest.mark.agent


def test_every_value_the_replies_can_carry_is_met(captures: Path) -> None:
    for case in bench.load(captures):
        observations, raised = bench.observe(case)
        expected, met = bench.judge(case, observations)
        assert (raised, met) == (0, expected), case.name


def test_what_is_no_json_names_its_repair_and_what_is_json_is_left_alone(captures: Path) -> None:
    cases = bench.load(captures)
    malformed, named = bench.repairs(cases, captures)
    assert malformed == named > 0
    files = {file for case in cases for file in case.malformed}
    strict = [path for path in captures.glob("*.json") if path.name not in files]
    assert [path.name for path in strict if decode(path.read_bytes()).repaired] == []


def test_the_bench_notices_a_value_that_is_not_met() -> None:
    case = bench.Case("x", "luxos", [{"summary": b'{"SUMMARY":[{"GHS 5s":1000}]}'}], {"hashrate_ths": 2.0, "fans": 4})
    observations, raised = bench.observe(case)
    assert (raised, bench.judge(case, observations)) == (0, (1, 0))
