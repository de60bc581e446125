"""Plays a planted bug from seed 0 on until it is found."""

import logging
from dataclasses import dataclass

from tests.simulation.edge.generate import generate
from tests.simulation.edge.mutants import MUTANTS, Mutant
from tests.simulation.edge.play import play

MOST = 300
"""So many histories a planted bug may go unseen. Yield below one in fifty asks for better aim."""


@dataclass(frozen=True)
class Caught:
    seed: int
    histories: int
    invariant: str
    words: str


def hunt(mutant: Mutant, first: int = 0) -> Caught | None:
    """Return where ``mutant`` is found first, among the histories that could meet it."""
    tried = 0
    seed = first
    while tried < MOST:
        schedule = generate(seed)
        if mutant.wants(schedule):
            tried += 1
            with mutant.planted():
                broken = play(schedule).world.violations
            for invariant, words in broken:
                if invariant in mutant.breaks:
                    return Caught(seed, tried, invariant, words)
        seed += 1
    return None


def hunt_named(name: str) -> tuple[str, Caught | None]:
    """Hunt in this process, by name."""
    logging.disable(logging.CRITICAL)
    return name, hunt(MUTANTS[name])
