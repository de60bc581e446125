"""How old a figure may be: never taken for younger than it is, whatever passes it on."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.local_curtail.claims import OLDEST_S
from agent.local_curtail.figure_age import FigureAge


def shown(*power):
    age = FigureAge()
    return [round(age.shown(n * 0.5, watts, None), 2) for n, watts in enumerate(power)]


def test_a_figure_that_never_changes_may_be_as_old_as_any():
    assert shown(*[3000.0] * 6) == [OLDEST_S] * 6


def test_one_that_is_new_at_each_look_is_hardly_older_than_two_pauses():
    assert shown(3000.0, 3001.0, 3002.0, 3003.0) == [OLDEST_S, OLDEST_S, 1.6, 1.6]


def test_one_that_stands_still_grows_older_until_it_is_new_again():
    assert shown(3000.0, 3000.0, 3004.0, 3004.0, 3009.0, 3009.0)[3:] == [OLDEST_S, 2.1, 2.6]


def test_what_a_mean_over_minutes_hides_of_a_fall_counts():
    assert shown(3000.0, 3001.0, 3002.0, 2990.0)[-1] == 2.6
    assert shown(3000.0, 3001.0, 3002.0, 2900.0)[-1] == 11.6


def test_a_hash_rate_that_wavers_tells_the_age_of_a_power_that_does_not():
    age = FigureAge()
    rates = (100.0, 102.0, 99.0, 101.0)
    assert [round(age.shown(n * 0.5, 3000.0, rate), 2) for n, rate in enumerate(rates)] == [
        OLDEST_S,
        OLDEST_S,
        10.0,
        7.0,
    ]


def test_a_hash_rate_over_minutes_tells_nothing():
    age = FigureAge()
    assert {age.shown(n * 0.5, 3000.0, 100.0 - 0.1 * (n > 10) * (n - 10)) for n in range(30)} == {OLDEST_S}


def test_a_look_that_shows_nothing_begins_anew():
    assert shown(3000.0, 3001.0, None, 3002.0, 3003.0) == [OLDEST_S] * 5


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.2, 9.0), st.floats(0.2, 4.0), st.floats(0.25, 3.0))
def test_no_chain_of_two_snapshots_is_taken_for_younger_than_it_is(seed, reads_s, passes_s, pause_s):
    """One part of the firmware measures every ``reads_s``, another passes that on every ``passes_s``."""
    phase_s = seed % 97 / 97
    age = FigureAge()
    for n in range(40):
        now_s = 100.0 + n * pause_s
        passed_s = math.floor((now_s + phase_s) / passes_s) * passes_s - phase_s
        measurement = math.floor((passed_s + 7 * phase_s) / reads_s)
        trails_s = age.shown(now_s, 3000.0 + measurement, None)
        assert trails_s + 1e-6 >= now_s - (measurement * reads_s - 7 * phase_s)


@settings(max_examples=200, deadline=None)
@given(st.floats(1.0, 300.0), st.floats(0.25, 2.0), st.floats(5.0, 20.0))
def test_an_average_is_not_taken_for_younger_than_the_fall_it_hides(window_s, pause_s, falls_s):
    age = FigureAge()
    for n in range(30):
        now_s = n * pause_s
        down = min(1.0, max(0.0, now_s - falls_s) / window_s)
        trails_s = age.shown(now_s, 3000.0 * (1.0 - down) + 0.001 * n, None)
        assert now_s - trails_s <= falls_s + 0.01 or down == 1.0
