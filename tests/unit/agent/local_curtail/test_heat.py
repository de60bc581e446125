"""Heat: two looks that agree, and no figure that no sensor shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.local_curtail.heat import BLIND_S, Heat, HeatLimit, Look, look_of, plausible, racks_too_hot

LIMIT = HeatLimit(board_c=75.0, chip_c=95.0, cooled_by_c=10.0)


def shown(*boards, limit=LIMIT, held=False, power=3000.0):
    heat = Heat(limit, held)
    for number, board_c in enumerate(boards):
        heat.shown(Look(float(number), board_c, None, power))
    return heat


@pytest.mark.parametrize(
    ("boards", "held"),
    [
        ((80.0,), False), ((80.0, 81.0), True), ((80.0, 60.0, 80.0), False), ((60.0, 75.0, 75.0), True),
        ((74.9, 74.9), False), ((255.0, 255.0, 255.0), False), ((0.0, 0.0), False), ((-1.0, -1.0), False),
        ((80.0, 255.0, 80.0), False), ((80.0, None, 80.0), False), ((80.0, 81.0, 66.0), True),
        ((80.0, 81.0, 65.0, 66.0, 65.0), True), ((80.0, 81.0, 65.0, 64.0), False), ((80.0, 81.0, 0.0, 0.0), True),
        ((80.0, 81.0, 65.0, 64.0, 80.0), False), ((150.0, 150.0), False), ((149.0, 149.9), True),
    ],
)  # fmt: skip
def test_two_looks_must_agree(boards, held):
    assert shown(*boards).held is held


def test_either_kind_trips_and_both_must_have_cooled():
    heat = Heat(LIMIT)
    for at_s, board_c, chip_c, held in (
        (0, 60, 96, False), (1, 60, 97, True), (2, 60, 90, True), (3, 60, 80, True), (4, 70, 80, True),
        (5, 60, 80, True), (6, 60, 80, False),
    ):  # fmt: skip
        heat.shown(Look(at_s, board_c, chip_c))
        assert heat.held is held, at_s


def test_the_same_look_told_again_agrees_with_nothing():
    heat = Heat(LIMIT)
    for _ in range(5):
        heat.shown(Look(3.0, 90.0))
    assert not heat.held
    assert heat.suspect


def test_a_sensor_that_stands_while_the_miner_moves_is_stuck():
    heat = Heat(LIMIT)
    for number, (power_w, chip_c) in enumerate([(3400, 60), (3400, 66), (3000, 70), (3400, 62)]):
        heat.shown(Look(number, 70.0, chip_c, power_w))
    heat = Heat(LIMIT)
    powers = [3400.0, 3400.0, 100.0, 50.0, 50.0, 50.0]
    for number, power_w in enumerate(powers):
        heat.shown(Look(number, 90.0, None, power_w))
    assert heat.held, "it was hot by two looks before anything could be known of its sensor"
    heat.expire(len(powers) + BLIND_S - 5.0)
    assert heat.held
    heat.expire(len(powers) + BLIND_S)
    assert not heat.held
    heat.shown(Look(2000.0, 90.0, None, 3400.0))
    heat.shown(Look(2001.0, 90.0, None, 3400.0))
    assert not heat.held, "stuck it stays"
    heat.shown(Look(2002.0, 91.0, None, 3400.0))
    heat.shown(Look(2003.0, 92.0, None, 3400.0))
    assert heat.held, "it moves again"


def test_a_sensor_is_stuck_beside_another_kind_that_moves():
    heat = Heat(HeatLimit(board_c=75.0))
    for number, chip_c in enumerate([60.0, 61.0, 66.0, 62.0]):
        heat.shown(Look(number, 74.0, chip_c))
    assert heat.boards_c() is None
    steady = Heat(HeatLimit(board_c=75.0))
    for number, chip_c in enumerate([60.0, 61.0, 62.0, 61.0]):
        steady.shown(Look(number, 74.0, chip_c))
    assert steady.boards_c() == (74.0, 74.0)


def test_who_tells_nothing_once_it_is_off_is_released_after_a_while():
    heat = shown(80.0, 81.0, None, None)
    heat.expire(1.0 + BLIND_S - 0.1)
    assert heat.held
    heat.expire(1.0 + BLIND_S)
    assert not heat.held
    earlier = Heat(LIMIT)
    earlier.hold(500.0)
    earlier.expire(500.0 + BLIND_S - 1)
    assert earlier.held
    assert earlier.last is None
    assert not earlier.suspect


def test_what_it_showed_is_told_beside_its_limit():
    assert shown(80.0, 81.0).words() == "board 81 C, limit 75 C"
    assert shown(255.0).words() == Heat(LIMIT).words() == "no temperature is told"
    both = Heat(LIMIT)
    both.shown(Look(1.0, 80.0, 97.0))
    assert both.words() == "board 80 C, limit 75 C; chip 97 C, limit 95 C"
    assert not HeatLimit().is_set
    assert HeatLimit(chip_c=90.0).is_set


def test_a_look_at_all_sensors_takes_the_hottest_that_one_may_show():
    assert look_of(1.0, (60.0, 255.0, 71.0), (0.0, -1.0), 5.0) == Look(1.0, 71.0, None, 5.0)


def test_a_rack_is_judged_by_its_median_of_two_looks():
    hot, mild, cool = (lambda: shown(80.0, 81.0)), (lambda: shown(70.0, 70.0)), (lambda: shown(50.0, 50.0))
    one_look = shown(90.0)
    racks = {
        "A": [hot(), hot(), cool()], "B": [hot(), cool(), cool()], "C": [hot(), hot()], "D": [shown(50.0, 90.0)] * 3,
        "E": [mild(), mild(), mild()], "F": [hot(), one_look, hot()], "G": [cool(), cool(), cool()],
    }  # fmt: skip
    assert racks_too_hot(racks, (), 75.0, 10.0) == {"A"}
    assert racks_too_hot(racks, ("C", "E", "G"), 75.0, 10.0) == {"A", "C", "E"}
    assert racks_too_hot(racks, ("C",), None, 10.0) == frozenset()


temps = st.none() | st.sampled_from([0.0, -1.0, 255.0, 65.0, 75.0]) | st.floats(-40.0, 300.0)


@given(st.lists(st.tuples(temps, temps, st.none() | st.floats(0.0, 5000.0)), max_size=30))
def test_no_look_alone_changes_anything(looks):
    heat, before = Heat(LIMIT), []
    for number, (board_c, chip_c, power_w) in enumerate(looks):
        was = heat.held
        heat.shown(Look(number, board_c, chip_c, power_w))
        before.append((board_c, chip_c))
        if heat.held and not was:
            (one, two) = before[-2:]
            assert any(plausible(a) and a >= 75.0 for a in (one[0],)) or (plausible(one[1]) and one[1] >= 95.0)
            assert any(plausible(a) and a >= 75.0 for a in (two[0],)) or (plausible(two[1]) and two[1] >= 95.0)
        if was and not heat.held:
            for board, chip in before[-2:]:
                assert (plausible(board) and board <= 65.0) or (plausible(chip) and chip <= 85.0)
