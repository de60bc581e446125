"""The firmwares that are asked over more than RPC: figures, units and states, from invented replies of their shape."""

import pytest

from agent.cgminer.replies import PoolShares, parse
from sitelink.types import MinerState, PowerSource, Reason
from tests.unit.agent.cgminer import native_replies_of as made
from tests.unit.agent.cgminer.replies_of import POOLS

pytestmark = pytest.mark.agent

MAC = made.MAC.lower()


def judged(dialect: str, replies: dict[str, bytes]) -> tuple[MinerState, Reason]:
    seen = parse(dialect, replies)
    return seen.state, seen.reason


@pytest.mark.parametrize("dialect", sorted(made.NATIVE))
def test_a_healthy_miner_hashes_names_itself_and_is_known_by_its_answers(dialect: str) -> None:
    seen = parse(dialect, made.NATIVE[dialect])
    assert (seen.state, seen.reason, seen.mac) == (MinerState.HASHING, Reason.NONE, MAC)
    assert (seen.power_w or 0) > 0
    assert seen.pools
    assert parse("auto", made.NATIVE[dialect]).dialect == dialect


@pytest.mark.parametrize("dialect", sorted(made.NATIVE))
@pytest.mark.parametrize("reply", [b"", b"{}", b"[]", b"null", b"<html>401</html>", b'{"data":null}', b'{"code":-1}'])
def test_an_empty_or_foreign_answer_is_unknown(dialect: str, reply: bytes) -> None:
    seen = parse(dialect, dict.fromkeys(made.NATIVE[dialect], reply))
    assert (seen.state, seen.hashrate_ths, seen.power_w, seen.pools) == (MinerState.UNKNOWN, None, None, ())
    assert seen.reason in (Reason.GARBLED, Reason.NOT_REPORTED)


def test_vnish_figures() -> None:
    seen = parse("vnish", made.vnish())
    assert (seen.hashrate_ths, seen.expected_ths) == (pytest.approx(200.0005), 210)
    assert (seen.power_w, seen.power_source, seen.power_limit_w) == (3000, PowerSource.DEVICE, 3100)
    assert (seen.board_temps_c, seen.chip_temps_c, seen.boards) == ((41, 51, 41, 51), (56, 66, 56, 66), 2)
    assert (seen.pools, seen.fans_rpm, seen.serial) == ((PoolShares(15, 2, 1),), (5800,), None)
    estimated = parse("vnish", made.vnish(psu={"psu_power_metering": False}))
    assert estimated.power_source is PowerSource.ESTIMATE


def test_vnish_falls_back_to_the_rate_in_th() -> None:
    assert parse("vnish", made.vnish(hr_realtime=None, instant_hashrate=200.5)).hashrate_ths == 200.5


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("stopped", Reason.COMMANDED),
        ("shutting-down", Reason.COMMANDED),
        ("starting", Reason.STARTING),
        ("auto-tuning", Reason.STARTING),
        ("failure", Reason.FAULT),
        ("mining", Reason.NOT_REPORTED),
    ],
)
def test_a_vnish_says_why_it_does_not_hash(state: str, reason: Reason) -> None:
    assert judged("vnish", made.vnish(state, 0.0)) == (MinerState.IDLE, reason)


def test_braiins_rest_figures_and_states() -> None:
    seen = parse("braiins-rest", made.braiins_rest())
    assert (seen.hashrate_ths, seen.expected_ths) == (140, 142)
    assert (seen.power_w, seen.power_source, seen.power_limit_w) == (3100, PowerSource.ESTIMATE, 3000)
    assert (seen.boards, seen.board_temps_c, seen.chip_temps_c) == (3, (55.5,) * 3, (70.5,) * 3)
    assert (seen.fans_rpm, seen.fans_percent, seen.pools) == ((5900,), (90,), (PoolShares(100, 1, 0),))
    assert judged("braiins-rest", made.braiins_rest(3, 0.0)) == (MinerState.IDLE, Reason.COMMANDED)
    assert judged("braiins-rest", made.braiins_rest(2, 0.0)) == (MinerState.IDLE, Reason.NOT_REPORTED)


def test_braiins_without_rpc_is_read_over_graphql() -> None:
    seen = parse("braiins", made.braiins_graphql())
    assert (seen.hashrate_ths, seen.expected_ths) == (pytest.approx(7.1), pytest.approx(7.2))
    assert (seen.power_w, seen.power_limit_w, seen.fans_rpm) == (730, 900, (4000,))
    assert (seen.boards, seen.board_temps_c, seen.pools) == (2, (70, 70), (PoolShares(30, 1, None),))
    assert judged("braiins", made.braiins_graphql(0.0)) == (MinerState.IDLE, Reason.COMMANDED)


def test_whatsminer_v3_figures_and_states() -> None:
    seen = parse("whatsminer-v3", made.whatsminer_v3())
    assert (seen.hashrate_ths, seen.expected_ths, seen.uptime_s) == (170.5, 180, 5000)
    assert (seen.power_w, seen.power_source, seen.power_limit_w) == (3150, PowerSource.DEVICE, 3600)
    assert (seen.board_temps_c, seen.env_temp_c, seen.fans_rpm) == ((41.5, 42.5), 28.5, (5400, 5280))
    assert (seen.errors, seen.serial, seen.psu_fans_rpm) == (("264",), "WMTEST1", (6300,))
    assert judged("whatsminer-v3", made.whatsminer_v3("false", 0.0)) == (MinerState.IDLE, Reason.COMMANDED)
    assert judged("whatsminer-v3", made.whatsminer_v3("true", 0.0)) == (MinerState.IDLE, Reason.FAULT)


def test_an_antminer_with_new_api_tells_its_power_and_its_complaints() -> None:
    seen = parse("antminer", made.antminer_new_api())
    assert (seen.hashrate_ths, seen.expected_ths, seen.power_w) == (pytest.approx(100.0005), 104, 3100)
    assert (seen.boards, seen.board_temps_c[:4], seen.chip_temps_c[:4]) == (2, (40, 42, 45, 47), (55, 57, 65, 67))
    assert (seen.hostname, len(seen.pools)) == ("rack-7", 2)
    assert judged("antminer", made.antminer_new_api(1, 0.0)) == (MinerState.IDLE, Reason.COMMANDED)
    state, reason = judged("antminer", made.antminer_new_api(0, 0.0))
    assert (state, reason in (Reason.THERMAL, Reason.FAULT)) == (MinerState.IDLE, True)


def test_an_antminer_without_new_api_answers_stats() -> None:
    replies = {**made.antminer_new_api(), "pools": POOLS}
    del replies["new:stats"]
    assert parse("antminer", replies).state is MinerState.UNKNOWN
