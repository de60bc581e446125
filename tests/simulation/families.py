"""The two families of histories, behind one word each: what a seed is played as, and what it broke.

    edge      the agent's core whole: buffer, forwarder, journal, orders, policy, over a hostile link and disk
    physics   local curtailment alone, with feeders, meters, liars and trailing figures; twice as costly

Invariant: which family a seed belongs to depends on the seed alone.
"""

from dataclasses import dataclass

from tests.simulation import history, invariants
from tests.simulation.edge.generate import generate
from tests.simulation.edge.play import play

PHYSICS_EVERY = 20
"""One history in so many is of the costly family."""


@dataclass(frozen=True)
class Finding:
    seed: int
    family: str
    invariant: str
    words: str


@dataclass(frozen=True)
class Played:
    findings: tuple[Finding, ...]
    coverage: frozenset[str]


def family_of(seed: int) -> str:
    return "physics" if seed % PHYSICS_EVERY == PHYSICS_EVERY - 1 else "edge"


def play_seed(seed: int) -> Played:
    """Play the history of ``seed`` and return what it broke and which rare states it reached."""
    if family_of(seed) == "physics":
        physics = history.play(history.generate(seed))
        broken = invariants.violations(physics)
        return Played(
            tuple(Finding(seed, "physics", "physics", words) for words in broken),
            frozenset(f"physics {state}" for state in invariants.rare_states(physics)),
        )
    world = play(generate(seed)).world
    return Played(
        tuple(Finding(seed, "edge", invariant, words) for invariant, words in world.violations),
        frozenset(world.coverage),
    )
