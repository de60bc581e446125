"""How old a figure may be: never taken for younger than it is, whatever passes it on."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.local_curtail.claims import OLDEST_S
from agent.local_curtail.figure_age import FigureAge


def shown(*power):
    age = FigureAge()
    return [round(age.shown(n * 0.5, watts), 2) for n, watts in enumerate(power)]


def test_a_figure_that_never_changes_may_be_as_old_as_any():
    assert shown(*[3000.0] * 6) == [OLDEST_S] * 6


def test_one_that_is_new_at_each_look_is_hardly_older_than_two_pauses():
    assert shown(3000.0, 3001.0, 3002.0, 3003.0) == [OLDEST_S, OLDEST_S, 1.0, 1.0]


def test_one_that_stands_still_grows_older_until_it_is_new_again():
    assert shown(3000.0, 3000.0, 3001.0, 3001.0, 3002.0, 3002.0)[3:] == [OLDEST_S, 1.5, 2.0]


def test_what_a_mean_over_minutes_hides_of_a_fall_counts():
    assert shown(3000.0, 2999.0, 2998.0, 2990.0)[-1] == 2.6
    assert shown(3000.0, 2999.0, 2998.0, 2900.0)[-1] == 11.6


def test_who_rises_ran_when_that_was_measured():
    assert shown(3000.0, 2900.0, 2910.0)[-1] == 1.0
    assert shown(3000.0, 2900.0, 2900.5)[-1] > 2.0  # a figure's last digit is nothing


def test_a_look_that_shows_nothing_begins_anew():
    assert shown(3000.0, 3001.0, None, 3002.0, 3003.0) == [OLDEST_S] * 5


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.2, 9.0), st.floats(0.2, 4.0), st.floats(0.25, 3.0))
def test_no_chain_of_two_snapshots_is_taken_for_younger_than_it_is(seed, reads_s, passes_s, pause_s):
    """One part of the firmware measures every ``reads_s``, another passes that on every ``passes_s``."""
    phase_s = seed % 97 / 97
    age, rng = FigureAge(), random.Random(seed)
    power_w = [rng.gauss(3000.0, 10.0) for _ in range(2000)]
    for n in range(40):
        now_s = 100.0 + n * pause_s
        passed_s = math.floor((now_s + phase_s) / passes_s) * passes_s - phase_s
        measurement = math.floor((passed_s + 7 * phase_s) / reads_s)
        trails_s = age.shown(now_s, power_w[measurement])
        assert trails_s + 1e-6 >= now_s - (measurement * reads_s - 7 * phase_s)


@settings(max_examples=200, deadline=None)
@given(st.floats(1.0, 300.0), st.floats(0.25, 2.0), st.floats(5.0, 20.0))
def test_a_mean_is_not_taken_for_younger_than_the_fall_it_hides(window_s, pause_s, falls_s):
    age = FigureAge()
    for n in range(30):
        now_s = n * pause_s
        down = min(1.0, max(0.0, now_s - falls_s) / window_s)
        trails_s = age.shown(now_s, 3000.0 * (1.0 - down) + 0.001 * n)
        assert now_s - trails_s <= falls_s + 0.01 or down == 1.0


@pytest.mark.parametrize("seed", range(40))
def test_a_mean_of_power_that_wavers_hides_no_fall(seed):
    """Means of any length up to two minutes, of a power that wavers by two percent from moment to moment."""
    rng = random.Random(seed)
    window_s, falls_s, pause_s = rng.randint(1, 120), rng.uniform(40, 80), rng.choice([0.25, 0.5, 1.0])
    step_s = 0.25
    drawn_w = [3000.0 * rng.gauss(1.0, 0.02) * (n * step_s - 120 < falls_s) for n in range(1200)]
    age, length = FigureAge(), max(1, round(window_s / step_s))
    for n in range(480, 1100, round(pause_s / step_s)):
        power_w = sum(drawn_w[n - length + 1 : n + 1]) / length
        now_s = n * step_s - 120
        trails_s = age.shown(now_s, power_w)
        if power_w > 0.3 * 3000.0 and now_s >= falls_s + 1.0:
            assert now_s - trails_s <= falls_s + 0.5, (window_s, falls_s, now_s, trails_s)
