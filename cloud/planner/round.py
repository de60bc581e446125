"""From the programme's fractional counts to whole ones, by thresholds. Pure.

Invariant: with one threshold ``theta`` in [0, 1) for a group, ``floor(x + theta)`` is monotone and commutes with whole
numbers, so every difference constraint that held for ``x`` (timers, bounds, monotony) holds for the result. Only
coupling rows move, by less than one unit a group; the caller scores candidates and keeps the best.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cloud.planner.formulate import SMALL_GROUP, stops_at
from cloud.planner.model import Problem

CANDIDATES: Final = 32
_GOLDEN: Final = 0.6180339887498949
_SHIFT: Final = math.sqrt(2.0) - 1.0
_CLOSE: Final = 1e-6  # a count this close below a whole number is that number: solvers are exact to 1e-7


@dataclass(frozen=True, slots=True)
class Counts:
    """Whole cumulative counts of one group: ``stops`` and ``starts`` have n_intervals entries."""

    stops: tuple[int, ...]
    starts: tuple[int, ...]


def thresholds(n_groups: int) -> Iterator[tuple[float, ...]]:
    """Yield threshold vectors: the plain ones first, then a low-discrepancy sequence (no randomness, so it replays)."""
    yield (0.0,) * n_groups
    yield (0.5,) * n_groups
    yield (0.999,) * n_groups
    for draw in range(1, CANDIDATES - 2):
        yield tuple((draw * _GOLDEN + place * _SHIFT) % 1.0 for place in range(n_groups))


def round_counts(problem: Problem, values: Sequence[float], theta: Sequence[float]) -> tuple[Counts, ...]:
    """Return each group's whole counts; ``values`` are the programme's columns, ``theta`` has n_groups entries."""
    n = len(problem.slots)
    rounded: list[Counts] = []
    for place, group in enumerate(problem.groups):
        # small groups are whole already: only noise is removed
        shift = 0.5 if len(group.units) < SMALL_GROUP else theta[place] + _CLOSE
        stops = tuple(math.floor(values[stops_at(n, place, slot)] + shift) for slot in range(n))
        starts = tuple(math.floor(values[stops_at(n, place, slot) + 1] + shift) for slot in range(n))
        rounded.append(Counts(stops, starts))
    return tuple(rounded)
