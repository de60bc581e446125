"""What an import comes to, row by row: nobody is lost, nobody is put where somebody stands, no figure changes owner."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.inventory.changes import Outcome, What, merge
from sitelink.inventory import MinerEntry, read_miners, write_miners
from sitelink.units import TeraHashPerSecond, Watts

pytestmark = pytest.mark.agent


def entry(number: int, **more: object) -> MinerEntry:
    made = MinerEntry(
        f"02:00:00:00:00:{number:02x}", f"10.0.0.{number}", 4028, "luxos", "S19", "F1", "R1", number,
        Watts(3000.0), TeraHashPerSecond(100.0), credentials="hall", outlet=f"http://10.9.0.1/{number}?pdu=netio",
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


A, B, C = entry(1), entry(2), entry(3)
BARE = MinerEntry(A.miner_id, "10.0.0.9", 4028, "auto", "", "", "", 0, None, None)


def kinds(outcome: Outcome) -> list[tuple[What, str]]:
    return [(each.what, each.entry.miner_id) for each in outcome.changes]


def test_the_same_list_changes_nothing() -> None:
    outcome = merge([A, B], [B, A], remove=True)
    assert (outcome.changes, outcome.result, outcome.complaints) == ((), (A, B), ())


def test_a_new_miner_is_added_and_those_not_named_stay() -> None:
    outcome = merge([A, B], [C], remove=False)
    assert kinds(outcome) == [(What.ADDED, C.miner_id)]
    assert outcome.result == (A, B, C)


def test_miners_not_named_leave_only_when_asked_for() -> None:
    outcome = merge([A, B], [B], remove=True)
    assert kinds(outcome) == [(What.REMOVED, A.miner_id)]
    assert outcome.result == (B,)


def test_a_moved_miner_keeps_its_place_and_all_that_the_row_leaves_empty() -> None:
    outcome = merge([A, B], [replace(BARE, miner_id=A.miner_id.upper())], remove=False)
    assert outcome.result == (replace(A, host="10.0.0.9"), B), "the id stays as the inventory writes it"
    assert kinds(outcome) == [(What.MOVED, A.miner_id)]
    assert outcome.changes[0].detail == "host 10.0.0.1 -> 10.0.0.9"


def test_the_switch_of_a_miner_that_is_not_told_of_is_taken_by_nobody_else() -> None:
    outcome = merge([A, B], [entry(3, outlet="http://10.9.0.1:80/1?pdu=tasmota")], remove=False)
    (complaint,) = outcome.complaints
    assert complaint.startswith(f"{C.miner_id}: outlet: outlet 1 of the PDU at 10.9.0.1:80 is {A.miner_id}'s;")


def test_another_rack_brings_its_own_position_and_no_rack_keeps_both() -> None:
    there = merge([A], [replace(A, rack="R9", position=0)], remove=False).result[0]
    assert (there.rack, there.position) == ("R9", 0)
    kept = merge([A], [replace(A, rack="", position=0, model="S21")], remove=False)
    assert (kept.result[0].rack, kept.result[0].position, kept.result[0].model) == ("R1", 1, "S21")
    assert kept.changes[0].what is What.CHANGED


def test_a_position_alone_is_one_in_the_same_rack() -> None:
    (moved,) = merge([A], [replace(A, rack="", position=7)], remove=False).result
    assert (moved.rack, moved.position) == ("R1", 7)
    taken = merge([A, B], [replace(A, rack="", position=2)], remove=False)
    assert "place: R1 2 is 02:00:00:00:00:02's" in taken.complaints[0]


def test_a_web_port_is_set_back_to_the_usual_one_only_by_a_row_that_writes_it() -> None:
    elsewhere = replace(A, web_port=8080)
    assert merge([elsewhere], [A], remove=False).result == (elsewhere,)
    back = merge([elsewhere], [A], remove=False, web_ports={A.miner_id})
    assert back.result == (A,)
    assert back.changes[0].detail == "web_port 8080 -> 80"


@pytest.mark.parametrize("shared", [{"host": "10.0.0.1"}, {"rack": "R1", "position": 1}])
def test_a_new_id_at_the_place_of_a_miner_not_named_is_another_name_for_it_without_its_figures(
    shared: dict[str, object],
) -> None:
    new = replace(BARE, miner_id="SERIAL9", **{"host": "10.0.0.77", **shared})  # type: ignore[arg-type]
    outcome = merge([A, B], [new], remove=False)
    (change,) = outcome.changes
    assert (change.what, change.was, change.entry.miner_id) == (What.RENAMED, A, "SERIAL9")
    heir = outcome.result[0]
    assert (heir.feeder_id, heir.rack, heir.position, heir.outlet) == ("F1", "R1", 1, A.outlet)
    assert (heir.nameplate_w, heir.nameplate_ths, heir.model) == (None, None, "")


def test_one_new_miner_cannot_stand_for_two() -> None:
    new = replace(A, miner_id="NEW", rack=B.rack, position=B.position)
    outcome = merge([A, B], [new], remove=False)
    assert kinds(outcome) == [(What.RENAMED, "NEW")]
    (complaint,) = outcome.complaints
    assert complaint.startswith("NEW: place: R1 2 is 02:00:00:00:00:02's; move or remove that one too, or put one")


def test_two_that_traded_addresses_are_both_moved() -> None:
    outcome = merge([A, B], [replace(A, host=B.host), replace(B, host=A.host)], remove=False)
    assert kinds(outcome) == [(What.MOVED, A.miner_id), (What.MOVED, B.miner_id)]
    assert outcome.complaints == ()


def test_all_that_is_taken_already_is_said_at_once() -> None:
    outcome = merge([A, B, C], [replace(A, host=B.host), replace(C, position=2)], remove=False)
    assert [complaint.split(": ")[0] for complaint in outcome.complaints] == [A.miner_id, C.miner_id]
    assert "address: 10.0.0.2:4028 is 02:00:00:00:00:02's" in outcome.complaints[0]
    assert "place: R1 2 is 02:00:00:00:00:02's" in outcome.complaints[1]


ROWS = st.lists(
    st.builds(
        entry,
        st.integers(1, 9),
        host=st.integers(1, 6).map(lambda n: f"10.0.0.{n}"),
        rack=st.sampled_from(["", "R1", "R2"]),
        position=st.integers(0, 3),
    ),
    max_size=6,
    unique_by=(lambda each: each.miner_id, lambda each: each.host, lambda each: (each.rack, each.position)),
)


@given(ROWS, ROWS, st.booleans())
def test_without_complaint_the_result_is_an_inventory_and_nobody_vanishes(
    present: list[MinerEntry], told: list[MinerEntry], remove: bool
) -> None:
    outcome = merge(present, told, remove=remove)
    ids = {each.miner_id for each in outcome.result}
    assert {each.miner_id for each in told} <= ids
    gone = {each.miner_id for each in present} - ids
    assert gone == {
        each.was.miner_id
        for each in outcome.changes
        if each.was is not None and each.what in {What.REMOVED, What.RENAMED}
    }
    if not remove:
        assert len(outcome.result) >= len(present)
    if not outcome.complaints:
        assert read_miners("i.csv", write_miners(outcome.result)) == outcome.result
        again = merge(outcome.result, told, remove=False)
        assert (again.changes, again.result) == ((), outcome.result), "importing twice changes nothing more"
