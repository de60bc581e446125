"""Who was found is who they say they are; where they answer only tells how the network stands."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.cgminer.observation import Observation
from agent.discover import report
from agent.discover.shown import Look
from agent.discover.standing import Sighting, Standing, candidates, judge, missing, plain, remembered
from agent.inventory.learned import Learned, Names
from sitelink.inventory import MinerEntry, read_miners, write_miners
from sitelink.types import MinerState, Reason

pytestmark = pytest.mark.agent

MAC, OTHER, SERIAL = "02:00:00:00:00:01", "02:00:00:00:00:02", "SN-1"
A = MinerEntry(MAC, "10.0.0.1", 4028, "luxos", "S19", "F1", "R1", 1, None, None)
B = MinerEntry(OTHER, "10.0.0.2", 4028, "luxos", "S19", "F1", "R1", 2, None, None)


def look(host: str, mac: str | None = None, serial: str | None = None, **more: object) -> Look:
    seen = Observation("luxos", MinerState.HASHING, Reason.NONE, "Antminer S19", "2024.1", mac, serial)
    return Look(host, 4028, 80, replace(seen, **more))  # type: ignore[arg-type]


def stand(*looks: Look) -> list[Standing]:
    return [each.standing for each in judge(looks, [A, B], Learned())]


def test_a_miner_at_its_place_is_known_by_either_name_in_any_case() -> None:
    assert stand(look("10.0.0.1", MAC.upper())) == [Standing.KNOWN]
    by_serial = judge([look("10.0.0.5", "aa", "sn-9")], [replace(A, miner_id="SN-9", host="10.0.0.5")], Learned())
    assert by_serial[0].standing is Standing.KNOWN


def test_the_same_identity_elsewhere_has_moved_even_where_another_is_listed() -> None:
    first, second = judge([look("10.0.0.2", MAC), look("10.0.0.1", OTHER)], [A, B], Learned())
    assert (first.standing, first.entry, first.notes) == (Standing.MOVED, A, ("listed at 10.0.0.1",))
    assert (second.standing, second.entry) == (Standing.MOVED, B)


def test_another_port_of_the_same_host_is_no_other_place_unless_many_stand_behind_it() -> None:
    (found,) = judge([look("10.0.0.1", MAC)], [replace(A, port=4433)], Learned())
    assert found.standing is Standing.KNOWN
    behind = [replace(A, port=4030), replace(B, host="10.0.0.1", port=4028)]
    (stranger,) = judge([look("10.0.0.1", "02:00:00:00:00:99")], behind, Learned())
    assert (stranger.standing, stranger.entry) == (Standing.REPLACED, behind[1])


def test_a_stranger_at_a_listed_address_has_replaced_the_miner_there() -> None:
    (found,) = judge([look("10.0.0.1", "02:00:00:00:00:99")], [A, B], Learned())
    assert (found.standing, found.entry) == (Standing.REPLACED, A)
    assert candidates([found]) == ([], []), "nobody is replaced by discovery"


def test_one_that_tells_only_the_other_kind_of_name_has_replaced_nobody() -> None:
    seen = look("10.0.0.1", None, "SN-77")
    (found,) = judge([seen], [A], Learned())
    assert (found.standing, found.entry) == (Standing.UNNAMED, A)
    told = f"tells only its serial sn-77, and {MAC} is listed here by its MAC"
    assert found.notes == (f"{told}; list it by its serial",), "nothing is closed: no login shows more"
    (found,) = judge([replace(seen, opened_by="enter its password")], [A], Learned())
    assert found.notes == (f"{told}; enter its password, or list it by its serial",)
    (found,) = judge([look("10.0.0.1", OTHER)], [replace(A, miner_id="SN-1")], Learned())
    assert found.standing is Standing.UNNAMED
    known = Learned().named(MAC, Names(MAC, "SN-77"))
    (found,) = judge([look("10.0.0.1", None, "SN-77")], [A], known)
    assert found.standing is Standing.KNOWN, "its other name was heard before"


def test_a_known_serial_with_a_new_mac_is_a_new_control_board() -> None:
    learned = Learned().named(MAC, Names(MAC, SERIAL))
    (found,) = judge([look("10.0.0.7", "02:00:00:00:00:99", SERIAL)], [A, B], learned)
    assert (found.standing, found.entry) == (Standing.BOARD, A)
    assert found.notes[0].endswith(f"ballast-agent inventory swap {MAC} 02:00:00:00:00:99 --board")


def test_a_listed_serial_with_another_mac_than_before_is_a_new_control_board_too() -> None:
    entry = replace(A, miner_id=SERIAL)
    learned = Learned().named(SERIAL, Names(MAC, SERIAL))
    (found,) = judge([look("10.0.0.1", OTHER, SERIAL)], [entry], learned)
    assert (found.standing, found.notes) == (
        Standing.BOARD,
        (f"its MAC was {MAC}: a board or the whole miner was changed",),
    )


def test_a_name_that_answers_twice_moves_nobody() -> None:
    assert stand(look("10.0.0.8", MAC), look("10.0.0.9", MAC)) == [Standing.DOUBLE, Standing.DOUBLE]
    assert stand(look("10.0.0.1", MAC), look("10.0.0.9", MAC)) == [Standing.DOUBLE, Standing.DOUBLE]


def test_without_a_name_nobody_is_taken_for_whom_is_listed_there() -> None:
    assert stand(look("10.0.0.1"), look("10.0.0.8")) == [Standing.UNNAMED, Standing.UNNAMED]


def test_a_host_that_is_no_miner_and_a_new_one() -> None:
    assert stand(Look("10.0.0.1", 4028, 80, None), look("10.0.0.8", "02:00:00:00:00:99")) == [
        Standing.STRANGER,
        Standing.NEW,
    ]


def test_a_listed_host_name_is_not_taken_for_another_address() -> None:
    (found,) = judge([look("10.0.0.5", MAC)], [replace(A, host="rig-1.site")], Learned())
    assert found.standing is Standing.KNOWN


def test_those_who_should_have_answered_are_named() -> None:
    swept = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    found = judge([look("10.0.0.3", MAC), look("10.0.0.2", "02:00:00:00:00:99")], [A, B], Learned())
    assert missing(found, [A, B], swept) == [B]
    assert missing(found, [A, B], ["10.0.0.3"]) == []
    nameless = judge([look("10.0.0.2")], [A, B], Learned())
    assert missing(nameless, [A, B], swept) == [A], "who answers without a name may be it"


def test_both_names_of_whom_is_beyond_doubt_are_remembered() -> None:
    found = judge([look("10.0.0.9", MAC, SERIAL), look("10.0.0.4", "02:00:00:00:00:99", "X")], [A, B], Learned())
    assert remembered(Learned(), found).names == {MAC: Names(MAC, SERIAL)}


def test_candidates_are_the_new_without_place_or_nameplate_and_the_moved_with_theirs() -> None:
    found = judge(
        [look("10.0.0.9", MAC), look("10.0.0.4", "02:00:00:00:00:99", model='=cmd|"x"!A1\n')], [A, B], Learned()
    )
    rows, unwritten = candidates(found)
    assert rows[0] == replace(A, host="10.0.0.9")
    new = rows[1]
    assert (new.miner_id, new.host, new.dialect, new.rack, new.nameplate_w) == (
        "02:00:00:00:00:99",
        "10.0.0.4",
        "luxos",
        "",
        None,
    )
    assert new.model == 'cmd|"x"!A1', "a device's words are no formula"
    assert unwritten == []
    assert read_miners("c.csv", write_miners(rows)) == tuple(rows)


def test_a_name_that_no_inventory_can_hold_is_said() -> None:
    rows, unwritten = candidates(judge([look("10.0.0.4", None, "a b")], [A], Learned()))
    assert rows == []
    assert "10.0.0.4: row line 1: miner_id: 'a b' has characters" in unwritten[0]


@pytest.mark.parametrize(
    ("said", "shown"),
    [(None, ""), ("@SUM(1)", "SUM(1)"), ("a\x1b[2Jb\u202e", "a[2Jb"), ("  x\n y ", "x y"), ("y" * 99, "y" * 48)],
)
def test_what_a_device_says_of_itself_is_shown_as_words(said: str | None, shown: str) -> None:
    assert plain(said) == shown


def test_the_table_and_the_document_say_the_same() -> None:
    learned = Learned().moved(A, "10.0.0.1", datetime(2026, 1, 1, tzinfo=UTC))
    looks = [look("10.0.0.9", MAC), look("10.0.0.4"), Look("10.0.0.6", 4028, 80, None, ("port 80 is open",))]
    found = judge(looks, [A, B], learned)
    absent = missing(found, [A, B], ["10.0.0.1", "10.0.0.2"])
    table = report.as_table(found, absent)
    assert "2 miners: 1 moved, 1 no name" in table
    assert "10.0.0.6: port 80 is open" in table
    assert f"1 of the inventory did not answer: {OTHER} (10.0.0.2)" in table
    document = json.loads(report.as_json(found, absent, 254))
    assert [each["standing"] for each in document["found"]] == ["moved", "unnamed", "stranger"]
    assert document["found"][0]["hashing"] is True
    assert document["found"][0]["miner_id"] == MAC
    assert "dialect" not in document["found"][2]
    assert document["absent"] == [{"miner_id": OTHER, "host": "10.0.0.2"}]
    assert document["hosts"] == 254


def test_what_is_noted_of_many_is_said_once() -> None:
    looks = [Look(f"10.0.0.{n}", 4028, 80, None, ("needs a login",)) for n in range(1, 6)]
    table = report.as_table(judge(looks, [], Learned()), [])
    assert table == "10.0.0.1, 10.0.0.2, 10.0.0.3 and 2 more: needs a login\n0 miners"


def test_no_miner_at_all_is_one_line() -> None:
    assert report.as_table((), []) == "0 miners"
    assert isinstance(Sighting(Look("h", 1, 2, None), Standing.STRANGER).notes, tuple)
