"""Antminer with its web pages, Braiins by GraphQL and REST, VNish and Whatsminer v3: figures, units, states, reasons."""

import json

import pytest

from agent.cgminer.observation import Observation
from agent.cgminer.replies import PoolShares, parse
from sitelink.types import MinerState, PowerSource, Reason
from tests.unit.agent.cgminer import replies_of
from tests.unit.agent.cgminer import wire_replies_of as made

pytestmark = pytest.mark.agent

HEALTHY = {
    "antminer": made.antminer_new(),
    "braiins": made.braiins_graphql(),
    "braiins-rest": made.braiins_rest(),
    "vnish": made.vnish(),
    "whatsminer-v3": made.whatsminer_v3(),
}


def state_of(seen: Observation) -> tuple[MinerState, Reason]:
    return seen.state, seen.reason


@pytest.mark.parametrize("dialect", sorted(HEALTHY))
def test_a_healthy_miner_hashes_and_names_itself(dialect: str) -> None:
    seen = parse(dialect, HEALTHY[dialect])
    assert state_of(seen) == (MinerState.HASHING, Reason.NONE)
    assert seen.mac == made.MAC
    assert seen.hostname is not None
    assert seen.board_temps_c
    assert seen.chip_temps_c


@pytest.mark.parametrize("dialect", sorted(HEALTHY))
@pytest.mark.parametrize(
    "reply", [b"", b"{}", b"[]", b"null", b"<html>401</html>", b'{"data":null}', b"\xff\0", b'"x"']
)
def test_an_empty_or_foreign_answer_is_unknown(dialect: str, reply: bytes) -> None:
    seen = parse(dialect, dict.fromkeys(HEALTHY[dialect], reply))
    assert seen.state is MinerState.UNKNOWN
    assert seen.reason in (Reason.GARBLED, Reason.NOT_REPORTED)
    assert (seen.hashrate_ths, seen.power_w, seen.uptime_s) == (None, None, None)


def test_an_antminer_with_new_api_tells_its_power() -> None:
    seen = parse("antminer", made.antminer_new())
    assert (seen.hashrate_ths, seen.hashrate_average_ths, seen.expected_ths) == (140.0, 139.0, 141.0)
    assert (seen.power_w, seen.power_source) == (3010, PowerSource.ESTIMATE)
    assert (seen.boards, seen.fans_rpm, seen.uptime_s) == (3, (4080, 4380, 3750, 3690), 7200)
    assert (seen.model, seen.firmware) == ("Antminer S19 XP", "49.0.1.3, Fri Nov 17")
    assert seen.identities == (made.MAC, "serial0001")


@pytest.mark.parametrize(
    ("conf", "health", "reason"),
    [
        ({"bitmain-work-mode": "1"}, None, Reason.COMMANDED),
        ({"miner-mode": 1}, None, Reason.COMMANDED),
        ({"bitmain-work-mode": 0}, [{"type": "temp", "status": "e", "msg": "too hot"}], Reason.THERMAL),
        ({"bitmain-work-mode": 0}, [{"type": "fans", "status": "e", "msg": "fan lost"}], Reason.FAULT),
        ({"bitmain-work-mode": 0}, [{"type": "rate", "status": "e", "msg": ""}], Reason.NOT_REPORTED),
        ({"bitmain-work-mode": "3"}, [{"type": "temp", "status": "s"}], Reason.NOT_REPORTED),
        (None, None, Reason.NOT_REPORTED),
    ],
)
def test_an_antminer_that_stands_still_says_why_where_it_does(conf, health, reason: Reason) -> None:
    seen = parse("antminer", made.antminer_new(conf, health, rate_5s=0.0))
    assert state_of(seen) == (MinerState.IDLE, reason)


def test_a_configuration_that_says_sleep_makes_no_hashing_miner_idle() -> None:
    assert parse("antminer", made.antminer_new({"miner-mode": 1})).state is MinerState.HASHING


def test_an_antminers_names_are_told_apart() -> None:
    old = {"stats": replies_of.antminer_stats()}
    seen = parse("antminer", old)
    assert (seen.serial, seen.control_board_id, seen.mac) == ("81abcdef0123481c", "81abcdef0123481c", None)
    assert [seen.answers_to(name) for name in ("81ABCDEF0123481C", "SERIAL0001", made.MAC)] == [True, None, None]
    both = parse("antminer", old | made.antminer_new())
    assert both.identities == (made.MAC, "serial0001", "81abcdef0123481c")
    assert [both.answers_to(name) for name in ("serial0001", "SERIAL0002", made.MAC.upper())] == [True, False, True]
    assert both.answers_to("02:00:5e:40:50:61") is False


def test_braiins_reads_from_graphql_what_rpc_no_longer_knows() -> None:
    seen = parse("braiins", made.braiins_graphql())
    assert (seen.hashrate_ths, seen.expected_ths) == (100.0, 102.0)
    assert (seen.power_w, seen.power_limit_w, seen.power_source) == (3100, 3200, PowerSource.ESTIMATE)
    assert (seen.board_temps_c, seen.chip_temps_c, seen.boards) == ((60.0,) * 3, (75.5,) * 3, 3)
    assert (seen.fans_rpm, seen.fans_percent) == ((6418,), (80, 80))
    assert (seen.pools, seen.uptime_s) == ((PoolShares(31, 2, None),), 900)
    assert seen.firmware == "2025-04-07-0-25.05-plus"


@pytest.mark.parametrize(
    ("tuner", "reason"), [("PAUSED", Reason.COMMANDED), ("DISABLED", Reason.NOT_REPORTED), ("", Reason.NOT_REPORTED)]
)
def test_braiins_is_commanded_only_where_it_says_paused(tuner: str, reason: Reason) -> None:
    assert state_of(parse("braiins", made.braiins_graphql(tuner, mhs5S=0.0))) == (MinerState.IDLE, reason)


def test_braiins_rest_figures() -> None:
    seen = parse("braiins-rest", made.braiins_rest())
    assert (seen.hashrate_ths, seen.hashrate_average_ths, seen.expected_ths) == (140.5, 139.0, 142.0)
    assert (seen.power_w, seen.power_limit_w, seen.power_source) == (3137, 3031, PowerSource.ESTIMATE)
    assert (seen.board_temps_c, seen.chip_temps_c, seen.boards) == ((55.5,) * 3, (70.5,) * 3, 2)
    assert (seen.fans_rpm, seen.fans_percent) == ((5904,), (75.0, 75.0))
    assert (seen.pools, seen.uptime_s) == ((PoolShares(10_460, 18, 1),), 7039)
    assert (seen.model, seen.firmware, seen.serial) == ("Antminer S21", "25.07-plus", "SERIAL0002")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (1, Reason.NOT_REPORTED),
        (3, Reason.COMMANDED),
        (2, Reason.NOT_REPORTED),
        (4, Reason.FAULT),
        (5, Reason.FAULT),
    ],
)
def test_braiins_rest_is_commanded_only_where_it_is_paused(status: int, reason: Reason) -> None:
    assert state_of(parse("braiins-rest", made.braiins_rest(status, last_5s=0.0))) == (MinerState.IDLE, reason)


def test_vnish_figures() -> None:
    seen = parse("vnish", made.vnish())
    assert (seen.hashrate_ths, seen.hashrate_average_ths) == (pytest.approx(173.87094), pytest.approx(174.37475))
    assert seen.expected_ths == pytest.approx(196.51717)
    assert (seen.power_w, seen.power_limit_w, seen.power_source) == (2583, 2800, PowerSource.DEVICE)
    assert (seen.board_temps_c, seen.chip_temps_c, seen.boards) == ((40, 50) * 3, (55, 65) * 3, 3)
    assert (seen.fans_rpm, seen.fans_percent) == ((5880, 0), (90,))
    assert (seen.pools, seen.uptime_s) == ((PoolShares(1599, 9, 0),), 4422)
    assert (seen.model, seen.firmware, seen.serial) == ("Antminer S21 Pro", "1.2.7", None)
    assert seen.errors == ("fan 1: lost",)


HOT = [{"id": 1, "status": {"state": "failure", "description": "Chip temp is over the limit"}}]
BROKEN = [{"id": 2, "status": {"state": "failure"}}]


@pytest.mark.parametrize(
    ("state", "chains", "reason"),
    [
        ("stopped", [], Reason.COMMANDED),
        ("shutting-down", [], Reason.COMMANDED),
        ("starting", [], Reason.STARTING),
        ("initializing", [], Reason.STARTING),
        ("restarting", [], Reason.STARTING),
        ("auto-tuning", [], Reason.STARTING),
        ("failure", HOT, Reason.THERMAL),
        ("failure", BROKEN, Reason.FAULT),
        ("failure", [], Reason.FAULT),
        ("mining", [], Reason.NOT_REPORTED),
    ],
)
def test_vnish_says_why_it_does_not_hash(state: str, chains: list[object], reason: Reason) -> None:
    cooling = {"fans": [{"id": 0, "rpm": 5880, "status": "ok"}]}
    seen = parse("vnish", made.vnish(state, hr_realtime=0.0, chains=chains, cooling=cooling))
    assert state_of(seen) == (MinerState.IDLE, reason)


def test_whatsminer_v3_figures() -> None:
    seen = parse("whatsminer-v3", made.whatsminer_v3())
    assert (seen.hashrate_ths, seen.hashrate_average_ths, seen.expected_ths) == (171.259, 170.8, 181.051)
    assert (seen.power_w, seen.power_limit_w, seen.power_source) == (3156, 3600, PowerSource.DEVICE)
    assert (seen.board_temps_c, seen.boards) == ((41.1, 40.1, 41.5), 3)
    assert seen.chip_temps_c == (74.0, 80.0, 74.0, 81.0, 74.0, 82.0)
    assert (seen.fans_rpm, seen.psu_fans_rpm, seen.env_temp_c) == ((5400, 5280), (6344,), 28.5)
    assert (seen.pools, seen.uptime_s) == ((PoolShares(None, None, None),) * 2, 50_000)
    assert (seen.model, seen.firmware, seen.serial) == ("M60S_VK40", "20251209.16.Rel2", "SERIAL0003")
    assert seen.device_time is not None


@pytest.mark.parametrize(
    ("working", "codes", "tuned", "reason"),
    [
        ("false", (), 1, Reason.COMMANDED),
        ("true", ("352",), 1, Reason.THERMAL),
        ("true", ("264", "265"), 1, Reason.FAULT),
        ("true", (), 0, Reason.STARTING),
        ("true", (), 1, Reason.NOT_REPORTED),
    ],
)
def test_whatsminer_v3_says_why_it_does_not_hash(working: str, codes, tuned: int, reason: Reason) -> None:
    replies = made.whatsminer_v3(working, codes, **{"hash-realtime": 0.0, "up-freq-finish": tuned})
    seen = parse("whatsminer-v3", replies)
    assert (state_of(seen), seen.errors) == ((MinerState.IDLE, reason), codes)


def test_one_reply_to_three_commands_is_filed_under_each() -> None:
    apart = made.whatsminer_v3()
    parts = [f"v3:get.miner.status:{name}" for name in ("summary", "edevs", "pools")]
    whole: dict[str, object] = {}
    for part in parts:
        whole |= json.loads(apart[part])["msg"]
    joined = apart | dict.fromkeys(parts, made.framed(**whole))
    assert parse("whatsminer-v3", joined) == parse("whatsminer-v3", apart)


@pytest.mark.parametrize(
    ("code", "reason"), [(-4, Reason.ACCESS_DENIED), (-2, Reason.NOT_REPORTED), (-1, Reason.NOT_REPORTED)]
)
def test_whatsminer_v3_that_refuses_is_unknown(code: int, reason: Reason) -> None:
    refusal = made.document({"code": code, "when": 1, "msg": "no", "desc": "x"})
    seen = parse("whatsminer-v3", dict.fromkeys(made.whatsminer_v3(), refusal))
    assert state_of(seen) == (MinerState.UNKNOWN, reason)


AVALON_TEXT = (
    b"STATUS=S,When=1760000000,Code=70,Msg=CGMiner stats,Description=cgminer 4.11.1|STATS=0,ID=AVA10,Elapsed=900,"
    b"MM ID0=Ver[1246-83] DNA[0011] SYSTEMSTATU[Work: %s, Hash Board: 3 ] Elapsed[900] Temp[30] TMax[80] Fan1[5344] "
    b"FanR[66%%] GHSspd[%s] GHSmm[90000.0] WALLPOWER[%s] SoftOFF[%s],MM Count=1|"
)


@pytest.mark.parametrize(
    ("work", "rate", "watts", "off", "state", "reason"),
    [
        (b"In Work", b"87350.77", b"3320", b"0", MinerState.HASHING, Reason.NONE),
        (b"In Idle", b"0.00", b"60", b"1", MinerState.IDLE, Reason.COMMANDED),
        (b"In Idle", b"0.00", b"60", b"0", MinerState.IDLE, Reason.NOT_REPORTED),
        (b"In Init", b"0.00", b"60", b"0", MinerState.IDLE, Reason.STARTING),
    ],
)
def test_avalon_in_plain_text(
    work: bytes, rate: bytes, watts: bytes, off: bytes, state: MinerState, reason: Reason
) -> None:
    version = b"STATUS=S,When=1,Code=22,Msg=x,Description=cgminer 4.11.1|VERSION,CGMiner=4.11.1,PROD=AvalonMiner 1246,MAC=b4a2eb000001|"
    seen = parse("auto", {"version": version, "stats": AVALON_TEXT % (work, rate, watts, off)})
    assert (seen.dialect, seen.model, seen.mac) == ("avalon", "AvalonMiner 1246", "b4:a2:eb:00:00:01")
    assert (seen.state, seen.reason, seen.power_w) == (state, reason, float(watts))
    assert (seen.boards, seen.fans_rpm, seen.fans_percent, seen.chip_temps_c) == (3, (5344,), (66,), (80,))
