"""Each dialect's table finds its figures, and tells a stopped miner from a hot, broken or silent one."""

import json
from datetime import UTC, datetime

import pytest

from agent.cgminer.observation import Observation, PoolShares
from agent.cgminer.replies import identify, parse
from sitelink.types import MinerState, PowerSource, Reason
from tests.unit.agent.cgminer import replies_of as made

pytestmark = pytest.mark.agent


def judged(observation: Observation) -> tuple[MinerState, Reason]:
    return observation.state, observation.reason


def test_antminer_figures() -> None:
    seen = parse("antminer", {"stats": made.antminer_stats(), "pools": made.POOLS})
    assert seen.hashrate_ths == pytest.approx(104.2105)
    assert seen.hashrate_average_ths == pytest.approx(103.9)
    assert seen.expected_ths == pytest.approx(104.0)
    assert seen.board_temps_c == (51, 36, 62, 57, 50, -4, 61, 56)
    assert seen.chip_temps_c == (66, 51, 77, 72, 65, 50, 76, 71)
    assert sorted(seen.fans_rpm) == [0, 5640, 5760, 5880]
    assert (seen.boards, seen.uptime_s, seen.model) == (3, 7200, "Antminer S19j Pro")
    assert seen.identities == ("81abcdef0123481c",)
    assert seen.power_w is None
    assert seen.power_source is PowerSource.NONE
    assert seen.errors == ("chain 1: 1 chips do not answer",)
    assert seen.pools == (PoolShares(90, 3, 1), PoolShares(10, 0, 0))
    assert judged(seen) == (MinerState.HASHING, Reason.NONE)


@pytest.mark.parametrize(
    ("model", "figure_ths"),
    [("Antminer L3+", 0.0005), ("Antminer D3", 0.0005), ("Antminer S9", 0.5), ("Antminer Z11", 5e-7)],
)
def test_antminers_without_a_unit_count_in_their_algorithms_unit(model: str, figure_ths: float) -> None:
    reply = made.answer(70, "STATS", {"Type": model}, {"GHS 5s": "500.0", "Elapsed": 9})
    assert parse("antminer", {"stats": reply}).hashrate_ths == pytest.approx(figure_ths)


def test_an_overheated_antminer_is_not_called_commanded() -> None:
    reply = made.antminer_stats(**{"GHS 5s": 0.0, "temp_pcb1": "75-59-92-78", "temp_chip1": "80-64-97-83"})
    assert judged(parse("antminer", {"stats": reply})) == (MinerState.IDLE, Reason.THERMAL)


def test_an_antminer_in_sleep_mode_is_commanded_and_one_without_a_sign_is_not() -> None:
    quiet = {"GHS 5s": "0.00", "temp_chip1": "30-30-30-30"}
    asleep = parse("antminer", {"stats": made.antminer_stats(**quiet, Mode=254)})
    unexplained = parse("antminer", {"stats": made.antminer_stats(**quiet)})
    assert judged(asleep) == (MinerState.IDLE, Reason.COMMANDED)
    assert judged(unexplained) == (MinerState.IDLE, Reason.NOT_REPORTED)


def test_an_antminer_that_reports_an_empty_rate_is_unknown() -> None:
    reply = made.antminer_stats(**{"GHS 5s": ""})
    assert judged(parse("antminer", {"stats": reply})) == (MinerState.UNKNOWN, Reason.NOT_REPORTED)


def test_the_newer_antminer_form_lists_its_chains() -> None:
    chain = {"asic_num": 88, "temp_pcb": [40.0, 42.0], "temp_chip": [55.0, 57.0]}
    row = {"elapsed": 60, "rate_5s": 88422.0, "rate_unit": "GH/s", "fan": [4080, 4380], "chain": [chain], "watt": 3105}
    seen = parse("antminer", {"stats": made.answer(70, "STATS", row)})
    assert seen.hashrate_ths == pytest.approx(88.422)
    assert (seen.board_temps_c, seen.chip_temps_c, seen.fans_rpm) == ((40, 42), (55, 57), (4080, 4380))
    assert (seen.boards, seen.power_w, seen.uptime_s) == (1, 3105, 60)


def test_third_party_antminer_power_is_an_estimate_and_dropped_when_no_chip_could_do_it() -> None:
    chains = {"chain_consumption1": 861, "chain_consumption2": 861}
    seen = parse("antminer", {"stats": made.antminer_stats(**chains)})
    absurd = parse("antminer", {"stats": made.antminer_stats(chain_power="34.65 (AB)")})
    assert (seen.power_w, seen.power_source) == (1722, PowerSource.ESTIMATE)
    assert (absurd.power_w, absurd.power_source) == (None, PowerSource.NONE)


def test_whatsminer_figures() -> None:
    replies = {
        "summary": made.whatsminer_summary(),
        "devs": made.WHATSMINER_DEVS,
        "get_miner_info": made.btminer(131, {"hostname": "WM", "mac": "C6:07:20:00:AB:CD", "minersn": "HTM1"}),
    }
    seen = parse("whatsminer", replies)
    assert seen.hashrate_ths == pytest.approx(111.0)
    assert seen.hashrate_average_ths == pytest.approx(110.0)
    assert (seen.power_w, seen.power_source, seen.power_limit_w) == (3350, PowerSource.DEVICE, 3600)
    assert (seen.fans_rpm, seen.psu_fans_rpm) == ((5100, 5220), (9100,))
    assert (seen.board_temps_c, seen.env_temp_c, seen.boards) == ((60, 61, 62), 21.5, 3)
    assert (seen.firmware, seen.hostname) == ("20240101.11.REL", "WM")
    assert seen.identities == ("c6:07:20:00:ab:cd", "htm1")
    assert seen.errors == ("111",)
    assert judged(seen) == (MinerState.HASHING, Reason.NONE)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        ({"mineroff": "true"}, (MinerState.IDLE, Reason.COMMANDED)),
        ({"btmineroff": "true"}, (MinerState.IDLE, Reason.COMMANDED)),
        ({"mineroff": "false"}, (MinerState.IDLE, Reason.FAULT)),
    ],
)
def test_a_whatsminer_says_itself_whether_it_is_off(status: dict[str, str], verdict: tuple[MinerState, Reason]) -> None:
    replies = {"summary": made.whatsminer_summary(HS_RT=0.0), "status": made.btminer(131, status)}
    assert judged(parse("whatsminer", replies)) == verdict


def test_a_whatsminer_known_only_to_be_off_is_idle_and_minus_one_watt_is_unknown() -> None:
    assert judged(parse("whatsminer", {"status": made.btminer(131, {"btmineroff": "true"})}))[0] is MinerState.IDLE
    assert parse("whatsminer", {"summary": made.whatsminer_summary(Power=-1)}).power_w is None


@pytest.mark.parametrize(
    ("figures", "power_w"),
    [({"Power_RT": 40}, 40), ({"Power_RT": -1}, 3350), ({"Power_RT": 0}, 0), ({}, 3350)],
)
def test_a_whatsminers_power_of_the_moment_goes_before_one_that_may_be_a_mean(
    figures: dict[str, object], power_w: int
) -> None:
    summary = made.answer(11, "SUMMARY", {**made.WHATSMINER_SUMMARY, **figures})
    assert parse("whatsminer", {"summary": summary}).power_w == power_w


def test_a_rate_over_seconds_goes_before_one_over_a_minute_wherever_it_stands() -> None:
    rates = made.answer(9, "DEVS", {"ASC": 0, "MHS 5s": 0.0, "MHS 1m": 7e6, "MHS av": 9e6})
    for dialect in ("whatsminer", "cgminer", "avalon"):
        minute = made.answer(11, "SUMMARY", {"Elapsed": 9000, "MHS 1m": 7e6, "MHS av": 9e6})
        assert parse(dialect, {"summary": minute, "devs": rates}).hashrate_ths == 0, dialect
        assert parse(dialect, {"summary": minute}).hashrate_ths == pytest.approx(7.0), dialect


def test_a_whatsminer_lists_its_errors_apart_from_the_summary_too() -> None:
    listed = made.btminer(131, {"error_code": [{"218": "2024-06-15 10:30:00"}, "110", {"0x": None}]})
    replies = {"summary": made.whatsminer_summary(Error_Code_0=0), "get_error_code": listed}
    assert parse("whatsminer", replies).errors == ("218", "110", "0x")


def test_an_avalon_states_wall_power_where_it_can() -> None:
    walled = made.AVALON_UNIT + " WALLPOWER[3561]"
    small = made.AVALON_UNIT.replace("PS[0 1214 1316 250 3200 1320 3504]", "PS[0 0 27526 4 0 3661 133]")
    assert parse("avalon", made.avalon(walled)).power_w == 3561
    assert parse("avalon", made.avalon(small)).power_w == 133


def test_a_miner_just_started_is_starting() -> None:
    reply = made.antminer_stats(**{"GHS 5s": "0.0", "temp_chip1": "30-30-30-30", "Elapsed": 60})
    assert judged(parse("antminer", {"stats": reply})) == (MinerState.IDLE, Reason.STARTING)


def test_a_whatsminer_that_shut_itself_down_for_heat_is_thermal() -> None:
    reply = made.whatsminer_summary(HS_RT=0.0, Error_Code_0=351)
    assert judged(parse("whatsminer", {"summary": reply})) == (MinerState.IDLE, Reason.THERMAL)


def test_a_whatsminer_without_its_process_is_unknown_for_a_fault() -> None:
    reply = made.btminer(132, "btminer process is down err", "E")
    for others in ({}, {"pools": made.POOLS}):
        assert judged(parse("whatsminer", {"summary": reply, **others})) == (MinerState.UNKNOWN, Reason.FAULT)


def test_luxos_figures() -> None:
    seen = parse("luxos", made.luxos())
    assert seen.hashrate_ths == pytest.approx(139.0)
    assert (seen.power_w, seen.power_source, seen.power_limit_w) == (3010, PowerSource.DEVICE, 3050)
    assert seen.board_temps_c == (60, 45.5, 61)
    assert (seen.fans_rpm, seen.fans_percent) == ((4800, 0), (70, 70))
    assert seen.identities == ("62:f7:5e:00:00:01", "lux0000001")
    assert (seen.hostname, seen.expected_ths, seen.boards) == ("rack-1", 140, 2)
    assert judged(seen) == (MinerState.HASHING, Reason.NONE)


def test_luxos_without_a_measuring_supply_estimates() -> None:
    replies = made.luxos() | {"power": made.answer(311, "POWER", {"PSU": False, "Watts": 3010})}
    assert parse("luxos", replies).power_source is PowerSource.ESTIMATE


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"CurtailMode": "Sleep"}, Reason.COMMANDED),
        ({"SystemStatus": "Overheat"}, Reason.THERMAL),
        ({}, Reason.NOT_REPORTED),
    ],
)
def test_luxos_says_why_it_does_not_hash(config: dict[str, str], reason: Reason) -> None:
    quiet = {"summary": made.answer(11, "SUMMARY", {"Elapsed": 9000, "GHS 5s": 0.0, "GHS av": 9.0})}
    assert judged(parse("luxos", made.luxos(**config) | quiet)) == (MinerState.IDLE, reason)


def test_avalon_figures_and_its_own_clock() -> None:
    seen = parse("avalon", made.avalon())
    assert seen.hashrate_ths == pytest.approx(129.0001)
    assert seen.hashrate_average_ths == pytest.approx(127.5)
    assert (seen.expected_ths, seen.power_w, seen.power_limit_w) == (131, 3200, 3300)
    assert (seen.fans_rpm, seen.fans_percent, seen.boards) == ((4800, 4860), (55,), 3)
    assert (seen.board_temps_c, seen.uptime_s) == ((24,), 5400)
    assert seen.identities == ("b4:a2:eb:00:00:01", "0201000012345678")
    unset = parse("avalon", {"stats": made.avalon(when=986)["stats"]})
    assert unset.device_time == datetime(1970, 1, 1, 0, 16, 26, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ((("In Work", "In Idle"), ("SoftOFF[0]", "SoftOFF[4]")), Reason.COMMANDED),
        ((("In Work", "In Init"),), Reason.STARTING),
        ((("In Work", "In Idle"),), Reason.NOT_REPORTED),
    ],
)
def test_avalon_says_why_it_does_not_hash(changes: tuple[tuple[str, str], ...], reason: Reason) -> None:
    unit = made.AVALON_UNIT.replace("GHSspd[129000.10]", "GHSspd[0.00]")
    for old, new in changes:
        unit = unit.replace(old, new)
    assert judged(parse("avalon", made.avalon(unit))) == (MinerState.IDLE, reason)


def test_an_avalon_whose_supply_does_not_talk_has_no_power() -> None:
    unit = made.AVALON_UNIT.replace("PS[0 1214 1316 250 3200 1320 3504]", "PS[0 0 0 0 0 0]")
    assert parse("avalon", made.avalon(unit)).power_w is None


def test_braiins_figures() -> None:
    replies = {
        "summary": made.answer(11, "SUMMARY", {"Elapsed": 60, "MHS 5s": 15.7e6, "MHS av": 14e6}),
        "temps": made.answer(201, "TEMPS", {"Board": 75.0, "Chip": 0.0}, {"Board": 63.0, "Chip": 81.0}),
        "fans": made.answer(202, "FANS", {"RPM": 2820, "Speed": 40}, {"RPM": 0, "Speed": 40}),
        "tunerstatus": made.answer(
            203, "TUNERSTATUS", {"ApproximateMinerPowerConsumption": 1419, "PowerLimit": 1420, "x": [{}]}
        ),
        "version": made.answer(22, "VERSION", {"API": "3.7", "BOSminer+": "0.2.0"}),
    }
    seen = parse("auto", replies)
    assert seen.dialect == "braiins"
    assert seen.hashrate_ths == pytest.approx(15.7)
    assert (seen.power_w, seen.power_source, seen.power_limit_w) == (1419, PowerSource.ESTIMATE, 1420)
    assert (seen.board_temps_c, seen.chip_temps_c, seen.fans_rpm) == ((75, 63), (81,), (2820,))
    assert (seen.boards, seen.firmware) == (2, "0.2.0")


def test_generic_cgminer_sums_its_devices() -> None:
    rows = ({"ASC": i, "Name": "X", "Temperature": 47.0, "MHS 5s": 3379.2, "MHS av": 3100.0} for i in range(3))
    seen = parse("cgminer", {"devs": made.answer(9, "DEVS", *rows), "pools": made.POOLS})
    assert seen.hashrate_ths == pytest.approx(0.0101376)
    assert (seen.board_temps_c, seen.boards) == ((47, 47, 47), 3)


def test_numbered_sections_and_summary_fans_are_found() -> None:
    document = {
        "STATUS": made.status(70),
        "STATS0": [{"STATS": 0, "Num chips": 12, "Fan duty": 90, "Temp": 47.0}],
        "STATS1": [{"STATS": 1, "Num chips": 12, "Fan duty": 90, "Temp": 48.0}],
        "POOL0": [{"POOL": 0, "Accepted": 5, "Rejected": 1, "Stale": 0}],
    }
    summary = made.answer(11, "SUMMARY", {"Elapsed": 5, "MHS 5s": 1.0, "Fan1": 7800, "Fan Num": 1})
    seen = parse("cgminer", {"stats": json.dumps(document).encode(), "summary": summary})
    assert (seen.boards, seen.board_temps_c, seen.fans_percent) == (2, (47, 48), (90, 90))
    assert (seen.fans_rpm, seen.pools) == ((7800,), (PoolShares(5, 1, 0),))


def test_a_joined_reply_reads_like_its_parts() -> None:
    parts = made.luxos()
    joined = json.dumps({name: [json.loads(parts[name])] for name in ("summary", "power", "temps")}).encode()
    rest = {name: parts[name] for name in ("fans", "pools", "config", "version", "profiles")}
    assert parse("luxos", {"summary+power+temps": joined, **rest}) == parse("luxos", parts)


def test_nothing_readable_is_garbled_and_a_refusal_is_access_denied() -> None:
    assert judged(parse("luxos", {"summary": b"<html>"})) == (MinerState.UNKNOWN, Reason.GARBLED)
    assert judged(parse("luxos", {})) == (MinerState.UNKNOWN, Reason.GARBLED)
    denied = json.dumps({"STATUS": made.status(45, "Access denied", "E"), "id": 1}).encode()
    assert judged(parse("antminer", {"stats": denied})) == (MinerState.UNKNOWN, Reason.ACCESS_DENIED)


@pytest.mark.parametrize(
    ("reply", "dialect"),
    [
        (made.answer(22, "VERSION", {"LUXminer": "2025", "API": "3.7"}), "luxos"),
        (made.answer(22, "VERSION", {"BOSer": "boser 0.1"}), "braiins"),
        (made.answer(22, "VERSION", {"BMMiner": "1.0", "Type": "Antminer S19"}), "antminer"),
        (made.answer(22, "VERSION", {"CGMiner": "4.11.1", "PROD": "AvalonMiner 1246"}), "avalon"),
        (made.answer(69, "DEVDETAILS", {"Driver": "bitmicro", "Model": "M30S"}), "whatsminer"),
        (made.answer(22, "VERSION", {"CGMiner": "4.10", "API": "3.7"}), "cgminer"),
        (b"HTTP/1.1 404", "cgminer"),
    ],
)
def test_the_version_reply_tells_the_dialect(reply: bytes, dialect: str) -> None:
    assert identify({"version": reply}) == dialect


def test_a_reading_keeps_the_hottest_and_fastest_and_sums_the_shares() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    reading = parse("antminer", {"stats": made.antminer_stats(), "pools": made.POOLS}).reading("m1", at)
    assert (reading.board_temp_c, reading.chip_temp_c, reading.fan_rpm) == (62, 77, 5880)
    assert (reading.accepted, reading.rejected, reading.uptime_s, reading.read_at) == (100, 3, 7200, at)
    nothing = parse("antminer", {}).reading("m1", at)
    assert (nothing.accepted, nothing.fan_rpm, nothing.power_w) == (None, None, None)


@pytest.mark.parametrize("code", [14, 99])
def test_what_stands_beside_an_error_is_no_figure(code: int) -> None:
    said = [{"STATUS": "E", "Code": code, "Msg": "not now", "When": 1}]
    reply = {"STATUS": said, "SUMMARY": [{"HS RT": 0, "Power": 0, "Elapsed": 9000}], "id": 1}
    seen = parse("whatsminer", {"summary": json.dumps(reply).encode()})
    assert (seen.state, seen.hashrate_ths, seen.power_w) == (MinerState.UNKNOWN, None, None)
    framed = {"code": -1, "msg": {"summary": {"hash-realtime": 0, "power-realtime": 0}}}
    seen = parse("whatsminer-v3", {"v3:get.miner.status:summary": json.dumps(framed).encode()})
    assert (seen.state, seen.hashrate_ths, seen.power_w) == (MinerState.UNKNOWN, None, None)


def test_a_word_beside_an_error_commands_nothing() -> None:
    off = {"STATUS": "E", "Code": 99, "When": 1, "Msg": {"mineroff": "true"}}
    fine = {"STATUS": [{"STATUS": "S", "Code": 11, "When": 1}], "SUMMARY": [{"HS RT": 0, "Power": 3400}], "id": 1}
    seen = parse("whatsminer", {"summary": json.dumps(fine).encode(), "status": json.dumps(off).encode()})
    assert seen.reason is not Reason.COMMANDED
