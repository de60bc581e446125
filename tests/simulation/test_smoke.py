import pytest

from agent.local_curtail.rules import RampRules
from tests.simulation.history import generate, play
from tests.simulation.invariants import violations


@pytest.mark.parametrize(
    "seed",
    [
        827,  # a neighbour woke, was measured while warming up, and its fall proved a liar's stop
        1757,  # a neighbour went off and silent, and its fall proved a liar's stop
        5733,  # a neighbour woke and was stopped again between measuring a stop and judging it anew
        3400,  # a late stop undid the start that followed it
        2153,  # a neighbour was restored between measuring a stop and judging it anew
        1850,  # a neighbour woke beside an honest stop, whose fall it hid
        50015,  # a neighbour woke and was measured while warming up, and its first, larger fall proved a liar's stop
        51235,  # a neighbour that woke was taken for running, and a late meter did not show it yet
        50453,  # neighbours were started again, and a stuck meter still showed them off
        50607,  # a neighbour woke, and a late meter still showed it off
        52794,  # a stop cut short fell just before the next round, and a late meter showed it within
        53067,  # a meter was stuck when its round began, and told again before it was over
        54715,  # a noisy meter fell by chance, twice in a row
        61532,  # a late stop undid a start, and the process died as it noticed: nobody looked again
        779,  # a neighbour woke and was stopped again, and a liar beside it went unnamed
    ],
)
def test_histories_that_once_broke_a_promise(seed):
    assert violations(play(generate(seed))) == []


def test_a_caught_liar_that_goes_off_at_last_proves_no_other_off():
    assert violations(play(generate(430253, 0.1, 1.0))) == []


def test_a_neighbour_found_woken_just_now_has_still_fallen_before():
    """Its record forgot what it drew as it was taken up again, and its fall proved the stop of a liar beside it."""
    schedule = generate(900232)
    schedule.house = {"ramps": RampRules(jitter_down=0.1, feedback_down_s=10.0)}
    assert violations(play(schedule)) == []


@pytest.mark.parametrize("block", range(10))
def test_no_history_breaks_an_invariant(block):
    for seed in range(block * 20, block * 20 + 20):
        assert violations(play(generate(seed))) == [], f"seed {seed}"
