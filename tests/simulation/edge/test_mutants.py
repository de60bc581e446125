"""Each planted bug is found: a simulation that finds none proves nothing."""

import pytest

from tests.simulation.edge.generate import generate
from tests.simulation.edge.hunt import hunt
from tests.simulation.edge.mutants import MUTANTS
from tests.simulation.edge.play import play


def test_there_are_enough_of_them():
    assert len(MUTANTS) >= 20


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_planted_bug_is_found(name):
    assert hunt(MUTANTS[name]) is not None


def test_what_was_planted_is_put_back():
    schedule = generate(0)
    before = play(schedule).world.trace_hash()
    with MUTANTS["settled_on_send"].planted():
        assert play(schedule).world.violations != []
    assert play(schedule).world.trace_hash() == before
