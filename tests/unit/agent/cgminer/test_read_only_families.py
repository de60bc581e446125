"""The families that are only read: their figures, units and states, from invented replies of their shape."""

import json

import pytest

from agent.cgminer.dialects import TABLES
from agent.cgminer.replies import PoolShares, parse
from sitelink.inventory import DIALECTS
from sitelink.types import MinerState, PowerSource, Reason
from tests.unit.agent.cgminer import web_replies_of as made

pytestmark = pytest.mark.agent

MAC = made.MAC.lower()


def test_every_dialect_of_the_inventory_has_a_table_and_no_table_is_without_a_name() -> None:
    assert set(TABLES) == set(DIALECTS) - {"auto", "exotic"}


@pytest.mark.parametrize("dialect", sorted(made.FAMILIES))
def test_a_healthy_miner_hashes_and_names_itself(dialect: str) -> None:
    seen = parse(dialect, made.FAMILIES[dialect])
    assert (seen.state, seen.reason) == (MinerState.HASHING, Reason.NONE)
    assert seen.identities
    assert seen.uptime_s or dialect == "obelisk"
    assert seen.board_temps_c or seen.chip_temps_c


@pytest.mark.parametrize("dialect", sorted(made.FAMILIES))
def test_every_command_of_its_table_is_known_to_the_fake(dialect: str) -> None:
    commands = TABLES[dialect].commands
    asked = {*commands.poll, *commands.static, *commands.identity}
    assert asked - set(made.FAMILIES[dialect]) <= {"devs", "/cgi-bin/get_miner_conf.cgi"}


@pytest.mark.parametrize("dialect", sorted(made.FAMILIES))
@pytest.mark.parametrize(
    "reply", [b"", b"{}", b"[]", b"null", b"<html>401</html>", b'{"STATUS":[]}', b"\xff\0", b'"x"']
)
def test_an_empty_or_foreign_answer_is_unknown(dialect: str, reply: bytes) -> None:
    seen = parse(dialect, dict.fromkeys(made.FAMILIES[dialect], reply))
    assert seen.state is MinerState.UNKNOWN
    assert seen.reason in (Reason.GARBLED, Reason.NOT_REPORTED)
    assert (seen.hashrate_ths, seen.power_w, seen.pools) == (None, None, ())


def test_bitaxe_figures() -> None:
    seen = parse("bitaxe", made.bitaxe())
    assert (seen.hashrate_ths, seen.expected_ths) == (pytest.approx(0.5005), pytest.approx(0.52))
    assert (seen.power_w, seen.power_source) == (14.5, PowerSource.DEVICE)
    assert (seen.board_temps_c, seen.chip_temps_c) == ((61,), (57.5,))
    assert (seen.fans_rpm, seen.fans_percent, seen.pools) == ((3000,), (40,), (PoolShares(21, 2, None),))
    assert (seen.mac, seen.firmware, seen.model) == (MAC, "v9.9.9", "BM9999")


def test_a_bitaxe_says_why_it_does_not_hash_and_a_missing_sensor_is_none() -> None:
    paused = parse("bitaxe", made.bitaxe(hashRate=0, miningPaused=True))
    assert (paused.state, paused.reason) == (MinerState.IDLE, Reason.COMMANDED)
    hot = parse("bitaxe", made.bitaxe(hashRate=0, overheat_mode=1, temp=-1))
    assert (hot.state, hot.reason, hot.chip_temps_c) == (MinerState.IDLE, Reason.THERMAL, ())


def test_obelisk_reads_both_generations() -> None:
    first = parse("obelisk", made.obelisk())
    assert (first.hashrate_ths, first.boards) == (pytest.approx(0.505), 2)
    assert (first.board_temps_c, first.chip_temps_c, first.fans_rpm) == ((61, 62), (71, 72), (5100,))
    board = {"intakeTemp": 31, "exhaustTemp": 51, "hashrate5min": 1000.0, "hashrate1min": 500.0}
    second = parse("obelisk", made.obelisk(board, board))
    assert (second.hashrate_ths, second.hashrate_average_ths) == (pytest.approx(0.001), pytest.approx(0.002))
    assert (second.board_temps_c, second.pools) == ((31, 51, 31, 51), (PoolShares(44, 5, None),))


def test_goldshell_counts_shares_under_the_active_pool_and_fans_once() -> None:
    seen = parse("goldshell", made.goldshell())
    assert (seen.hashrate_ths, seen.boards, seen.uptime_s) == (pytest.approx(3.0000015), 3, 700)
    assert seen.pools == (PoolShares(None, None, None), PoolShares(303, 3, None))
    assert (seen.fans_rpm, seen.board_temps_c[:2]) == ((2400, 2460), (70.5, 61.2))
    assert (seen.mac, seen.model, seen.power_w) == (MAC, "Goldshell-TEST", None)


def test_a_goldshell_that_hashes_nothing_is_idle_for_no_reason_it_tells() -> None:
    seen = parse("goldshell", made.goldshell(hashrate=0.0))
    assert (seen.state, seen.reason) == (MinerState.IDLE, Reason.NOT_REPORTED)
    broken = parse("goldshell", made.goldshell(hashrate=0.0, minerstatus=3))
    assert (broken.reason, broken.errors[0]) == (Reason.FAULT, "board 0: status 3")


def test_epic_figures() -> None:
    seen = parse("epic", made.epic())
    assert (seen.hashrate_ths, seen.expected_ths) == (pytest.approx(90.0), 95)
    assert (seen.power_w, seen.power_source, seen.boards) == (2500.5, PowerSource.ESTIMATE, 3)
    assert (seen.fans_rpm, seen.uptime_s, seen.pools) == ((4800, 0), 4000, (PoolShares(33, 1, None),))
    measured = made.epic(**{"Power Supply Stats": {"Input Power": 2500.5, "Input Voltage": 230.0}})
    assert parse("epic", measured).power_source is PowerSource.DEVICE


@pytest.mark.parametrize(
    ("order", "reason"),
    [("Stop", Reason.COMMANDED), (None, Reason.NOT_REPORTED), ("Autostart", Reason.NOT_REPORTED)],
)
def test_an_idling_epic_was_stopped_only_if_an_order_says_so(order: str | None, reason: Reason) -> None:
    """It idles by itself when its pool is lost."""
    for boards in ([], [{"Hashrate": [0.0, 0.0, 0.0], "Temperature": 30.0}]):
        seen = parse("epic", made.epic("Idling", order, HBs=boards))
        assert (seen.state, seen.reason) == (MinerState.IDLE, reason)


def test_auradine_figures_and_sleep_as_text_or_boolean() -> None:
    seen = parse("auradine", made.auradine())
    assert (seen.hashrate_ths, seen.power_w, seen.power_source) == (150, 2950.5, PowerSource.DEVICE)
    assert (seen.power_limit_w, seen.expected_ths, seen.env_temp_c) == (3000, 155, 25.5)
    assert (seen.board_temps_c, seen.chip_temps_c) == ((44.5, 44.5), (61.5, 61.5))
    assert (len(seen.fans_rpm), seen.psu_fans_rpm, seen.mac) == (4, (4000,), MAC)
    for asleep in ("on", True, "true"):
        stopped = parse("auradine", made.auradine(asleep, mhs=0.0))
        assert (stopped.state, stopped.reason) == (MinerState.IDLE, Reason.COMMANDED)
    for awake in ("off", False, "false", None):
        broken = parse("auradine", made.auradine(awake, mhs=0.0))
        assert (broken.state, broken.reason) == (MinerState.IDLE, Reason.NOT_REPORTED)


def test_an_auradine_whose_web_page_is_closed_is_read_as_far_as_rpc_goes() -> None:
    rpc = {command: reply for command, reply in made.auradine().items() if not command.startswith("/")}
    seen = parse("auradine", rpc)
    assert (seen.state, seen.power_w, seen.power_source) == (MinerState.HASHING, None, PowerSource.NONE)
    assert seen.board_temps_c == (44, 44)


def test_elphapex_figures_complaints_and_sleep() -> None:
    seen = parse("elphapex", made.elphapex())
    assert (seen.hashrate_ths, seen.expected_ths) == (pytest.approx(0.0140005), pytest.approx(0.0142))
    assert (seen.board_temps_c[:4], seen.chip_temps_c[:2]) == ((45, 46, 60, 61), (50.5, 60.25))
    assert (seen.fans_rpm, seen.boards, seen.errors) == ((5000, 5100, 5300), 4, ("fans: lost",))
    assert (seen.pools, seen.serial, seen.hostname) == ((PoolShares(60, 4, 1),), "DGTEST1", "rack-7")
    asleep = parse("elphapex", made.elphapex(work_mode=1, rate=0.0))
    assert (asleep.state, asleep.reason) == (MinerState.IDLE, Reason.COMMANDED)
    assert parse("elphapex", made.elphapex(rate=0.0)).reason is Reason.FAULT


def test_the_old_web_page_is_read_like_stats() -> None:
    seen = parse("antminer-web", made.old_web())
    assert (seen.hashrate_ths, seen.expected_ths, seen.uptime_s) == (pytest.approx(13.5005), 14, 900)
    assert (seen.board_temps_c, seen.chip_temps_c) == ((30, 50, 31, 51), (55, 75, 56, 76))
    assert (seen.fans_rpm, seen.boards, seen.firmware) == ((4100, 4200), 2, "9.9.1")
    assert seen.pools == (PoolShares(7, 1, 0), PoolShares(0, 0, 0))
    empty = parse("antminer-web", made.old_web(ghs5s="", ghsav=""))
    assert (empty.state, empty.hashrate_ths) == (MinerState.UNKNOWN, None)


def test_the_old_web_pages_unit_is_that_of_the_model() -> None:
    litecoin = {**made.SYSTEM, "minertype": "Antminer L3+"}
    replies = {**made.old_web(ghs5s="500.0"), "/cgi-bin/get_system_info.cgi": made.document(litecoin)}
    assert parse("antminer-web", replies).hashrate_ths == pytest.approx(0.0005)


def test_kin_of_antminer_keep_their_name_and_take_the_mac_from_the_web_page() -> None:
    for dialect in ("hiveon", "blackminer", "hammer"):
        seen = parse(dialect, made.FAMILIES[dialect])
        assert (seen.dialect, seen.mac, seen.hostname) == (dialect, MAC, "rack-7")
    assert parse("hammer", made.hammer()).hashrate_ths == pytest.approx(0.00500025)
    assert parse("mskminer", made.FAMILIES["mskminer"]).power_w == 980.5


@pytest.mark.parametrize("dialect", sorted(made.FAMILIES))
def test_auto_knows_each_family_by_its_answers(dialect: str) -> None:
    assert parse("auto", made.FAMILIES[dialect]).dialect == dialect


@pytest.mark.parametrize("dialect", sorted(made.FAMILIES))
def test_a_value_of_another_form_costs_that_value_alone(dialect: str) -> None:
    """Each value of each reply in turn becomes a list: nothing raises, and no more than a few fields are lost."""
    whole = parse(dialect, made.FAMILIES[dialect])
    for command, reply in made.FAMILIES[dialect].items():
        found = json.loads(reply)
        if isinstance(found, dict):
            for key in found:
                damaged = {**found, key: [[]]}
                seen = parse(dialect, {**made.FAMILIES[dialect], command: json.dumps(damaged).encode()})
                assert seen.dialect == whole.dialect
