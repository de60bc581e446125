"""How old a figure may be: never taken for younger than it is, whatever passes it on."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.local_curtail.claims import TRAILS_S
from agent.local_curtail.figures_age import FiguresAge


def shown(power, hashrate=None):
    age = FiguresAge()
    rates = hashrate or [None] * len(power)
    return [round(age.shown(n * 0.5, watts, rate), 3) for n, (watts, rate) in enumerate(zip(power, rates, strict=True))]


def test_a_figure_that_never_changes_may_be_as_old_as_any():
    assert shown([3000.0] * 6) == [TRAILS_S] * 6


def test_one_that_is_new_at_each_look_is_as_old_as_two_pauses_at_most():
    assert shown([3000.0, 3001.0, 3002.0, 3003.0]) == [TRAILS_S, TRAILS_S, 1.0, 1.0]


def test_one_that_stands_still_grows_older_until_it_is_new_again():
    assert shown([3000.0, 3000.0, 3004.0, 3004.0, 3009.0, 3009.0])[3:] == [TRAILS_S, 1.5, 2.0]


def test_what_an_average_hides_of_a_fall_counts():
    seen = shown([3000.0, 3001.0, 3002.0, 2700.0])
    assert seen[-1] == round(1.0 + 0.1 * TRAILS_S, 3)


def test_the_hash_rate_tells_as_well():
    assert shown([3000.0] * 4, [100.0, 101.0, 99.0, 100.0])[-1] == 1.0


def test_a_look_that_shows_nothing_begins_anew():
    assert shown([3000.0, 3001.0, None, 3002.0, 3003.0]) == [TRAILS_S] * 5


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.2, 9.0), st.floats(0.2, 4.0), st.floats(0.25, 3.0))
def test_no_chain_of_two_snapshots_is_taken_for_younger_than_it_is(seed, reads_s, passes_s, pause_s):
    """One part of the firmware measures every ``reads_s``, another passes that on every ``passes_s``."""
    phase_s = seed % 97 / 97
    age = FiguresAge()
    for n in range(40):
        now_s = 100.0 + n * pause_s
        passed_s = math.floor((now_s + phase_s) / passes_s) * passes_s - phase_s
        measurement = math.floor((passed_s + 7 * phase_s) / reads_s)
        trails_s = age.shown(now_s, 3000.0 + measurement, None)
        assert trails_s + 1e-6 >= min(TRAILS_S, now_s - (measurement * reads_s - 7 * phase_s))


@settings(max_examples=200, deadline=None)
@given(st.floats(1.0, TRAILS_S), st.floats(0.25, 2.0), st.floats(5.0, 20.0))
def test_an_average_is_not_taken_for_younger_than_the_fall_it_hides(window_s, pause_s, falls_s):
    age = FiguresAge()
    for n in range(30):
        now_s = n * pause_s
        down = min(1.0, max(0.0, now_s - falls_s) / window_s)
        trails_s = age.shown(now_s, 3000.0 * (1.0 - down) + 0.001 * n, None)
        assert now_s - trails_s <= falls_s + 0.01 or down == 1.0
