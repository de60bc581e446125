"""Real devices' replies: every expected value is met, over every wire; none raises, each repair is named."""

from pathlib import Path

import pytest

from agent.cgminer.repair import decode
from tests.bench import parse as bench
from tests.bench.capture_names import FRAMED, RPC, WEB, command_of, dialect_of

pytestmark = pytest.mark.agent


def test_every_expected_value_is_met(captures: Path) -> None:
    for case in bench.load(captures):
        expected = bench.counted(case)
        observations, raised = bench.observe(case, case.devices)
        assert (raised, bench.unmet(case, expected, observations)) == (0, []), case.name


def test_what_an_agent_asks_for_tells_it_too(captures: Path) -> None:
    for case in bench.load(captures):
        observations, raised = bench.observe(case, case.polled())
        assert (raised, bench.unmet(case, bench.counted(case), observations)) == (0, []), case.name


def test_nothing_but_verdicts_is_left_out(captures: Path) -> None:
    for case in bench.load(captures):
        left = {name for name, value in case.expected.items() if bench.left_out(case, name, value)}
        assert left <= set(bench.VERDICTS), case.name


def test_what_is_no_json_names_its_repair_and_what_is_json_is_left_alone(captures: Path) -> None:
    cases = bench.load(captures)
    malformed, named = bench.repairs(cases, captures)
    assert malformed == named > 0
    files = {file for case in cases for file in case.malformed}
    strict = [path for path in captures.glob("*.json") if path.name not in files]
    assert [path.name for path in strict if decode(path.read_bytes()).repaired] == []


def test_the_bench_notices_a_value_that_is_not_met() -> None:
    replies = {"summary": b'{"SUMMARY":[{"GHS 5s":1000}]}'}
    case = bench.Case("x", "luxos", "luxos", [replies], {"hashrate_ths": 2.0, "fans": 4})
    observations, raised = bench.observe(case, case.devices)
    assert bench.counted(case) == {"hashrate_ths": 2.0}
    assert (raised, bench.unmet(case, {"hashrate_ths": 2.0}, observations)) == (0, ["hashrate_ths"])
    assert bench.unmet(case, {"hashrate_ths": 1.0}, observations) == []


def test_a_pool_nobody_counts_is_zero_to_the_source_and_unknown_to_us() -> None:
    replies = {"pools": b'{"POOLS":[{"Accepted":5,"Rejected":1},{"Accepted":0}]}'}
    case = bench.Case("x", "luxos", "luxos", [replies])
    observations, _ = bench.observe(case, case.devices)
    for wanted, missed in (([[5, 1, 0], [0, 0, 0]], []), ([[5, 1, 2]], ["pools"]), ([[4, 1, 0]], ["pools"])):
        found = bench.unmet(case, {"pools_acc_rej_stale": wanted}, observations)
        assert bool(found) == bool(missed), wanted


@pytest.mark.parametrize(
    ("dialect", "transport", "captured", "command"),
    [
        ("elphapex", WEB, "web_stats", "/cgi-bin/stats.cgi"),
        ("elphapex", WEB, "web_get_miner_conf", "/cgi-bin/get_miner_conf.cgi"),
        ("antminer-web", WEB, "get_miner_status", "/cgi-bin/get_miner_status.cgi"),
        ("goldshell", WEB, "/mcb/cgminer", "/mcb/cgminer?cgminercmd=devs"),
        ("bitaxe", WEB, "system_info", "/api/system/info"),
        ("epic", WEB, "chip_temps", "/chip_temps"),
        ("hammer", RPC, "rpc_stats", "stats"),
        ("avalon", RPC, "avalon_a_stats", "stats"),
        ("whatsminer", RPC, "get_error_code_with_errors", "get_error_code"),
    ],
)
def test_a_captured_name_finds_the_command_it_answers(
    dialect: str, transport: str, captured: str, command: str
) -> None:
    assert command_of(dialect, transport, captured) == command


@pytest.mark.parametrize(
    ("firmware", "commands", "transport", "dialect"),
    [
        ("braiins", {"version", "gql_boards"}, WEB, "braiins"),
        ("braiins", {"version", "miner_stats"}, WEB, "braiins-rest"),
        ("blackminer", {"stats"}, RPC, "blackminer"),
        ("antminer-stock", {"get_miner_status"}, WEB, "antminer-web"),
        ("whatsminer-btminer", {"get_device_info"}, FRAMED, "whatsminer-v3"),
        ("never heard of", {"summary"}, RPC, "auto"),
    ],
)
def test_a_case_is_read_by_the_dialect_an_operator_would_write(
    firmware: str, commands: set[str], transport: str, dialect: str
) -> None:
    assert dialect_of(firmware, commands, {transport}) == dialect
