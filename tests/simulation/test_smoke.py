import random

import pytest

from tests.simulation import loop
from tests.simulation.history import Play, generate
from tests.simulation.invariants import violations


def play(seed: int) -> Play:
    played = {}

    async def main(virtual):
        played["it"] = Play(generate(seed), virtual)
        await played["it"].run()

    loop.run(main, random.Random(f"{seed} loop"))
    return played["it"]


@pytest.mark.parametrize("block", range(10))
def test_no_history_breaks_an_invariant(block):
    for seed in range(block * 20, block * 20 + 20):
        assert violations(play(seed)) == [], f"seed {seed}"
