"""From the programme's fractional counts to whole ones, by thresholds. Pure.

Invariant: with one threshold ``theta`` in [0, 1) for a group, ``floor(x + theta)`` is monotone and commutes with whole
numbers, so every difference constraint that held for ``x`` (timers, bounds, monotony) holds for the result. Only
coupling rows move, by less than one unit a group; candidates are scored by their counts and the best are kept.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cloud.planner.formulate import (
    IMPORT_PENALTY_USD_PER_MWH,
    RAMP_PENALTY_USD_PER_MW,
    SHED_PENALTY_USD_PER_MWH,
    SMALL_GROUP,
    means,
)
from cloud.planner.model import Problem

CANDIDATES: Final = 32
_GOLDEN: Final = 0.6180339887498949
_SHIFT: Final = math.sqrt(2.0) - 1.0
_CLOSE: Final = 1e-6  # a count this close below a whole number is that number: solvers are exact to 1e-7
_Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Counts:
    """Whole cumulative counts of one group: ``stops`` and ``starts`` have n_intervals entries."""

    stops: tuple[int, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rounding:
    """One candidate: every group's counts, its value by group means, and the most it exceeds a limit by, in MW."""

    counts: tuple[Counts, ...]
    objective_usd: float
    over_mw: float


def thresholds(n_groups: int) -> Iterator[tuple[float, ...]]:
    """Yield threshold vectors: the plain ones first, then a low-discrepancy sequence (no randomness, so it replays)."""
    yield (0.0,) * n_groups
    yield (0.5,) * n_groups
    yield (0.999,) * n_groups
    for draw in range(1, CANDIDATES - 2):
        yield tuple((draw * _GOLDEN + place * _SHIFT) % 1.0 for place in range(n_groups))


def round_counts(problem: Problem, values: Sequence[float], theta: Sequence[float]) -> tuple[Counts, ...]:
    """Return each group's whole counts; ``values`` are the programme's columns, ``theta`` has n_groups entries."""
    floors = _floors(problem, values, theta)
    return tuple(
        Counts(tuple(floors[place, :, 0].tolist()), tuple(floors[place, :, 1].tolist()))
        for place in range(len(problem.groups))
    )


def best_roundings(problem: Problem, values: Sequence[float]) -> tuple[Rounding, ...]:
    """Return the distinct candidates, the most valuable first."""
    found: dict[bytes, Rounding] = {}
    scorer = _Scorer(problem)
    for theta in thresholds(len(problem.groups)):
        floors = _floors(problem, values, theta)
        key = floors.tobytes()
        if key not in found:
            objective, over_mw = scorer.score(floors)
            found[key] = Rounding(round_counts(problem, values, theta), objective, over_mw)
    return tuple(sorted(found.values(), key=lambda item: -item.objective_usd))


def _floors(problem: Problem, values: Sequence[float], theta: Sequence[float]) -> NDArray[np.int64]:
    """Return stops and starts as an array n_groups x n_intervals x 2."""
    n_groups, n_slots = len(problem.groups), len(problem.slots)
    counts = np.array(values[: 2 * n_groups * n_slots]).reshape(n_groups, n_slots, 2)
    # small groups are whole already: only noise is removed
    small = [len(group.units) < SMALL_GROUP for group in problem.groups]
    shift = np.array([0.5 if small[place] else theta[place] + _CLOSE for place in range(n_groups)])
    floors: NDArray[np.int64] = np.floor(counts + shift[:, None, None]).astype(np.int64)
    return floors


class _Scorer:
    """What a candidate is worth, from counts alone; the referee has the last word on the schedule made of them."""

    def __init__(self, problem: Problem) -> None:
        groups = means(problem)
        self._values: _Array = np.array([mean.values_usd for mean in groups])
        self._power_mw: _Array = np.array([mean.power_mw for mean in groups])
        self._first: _Array = np.array([0.0 if mean.off else float(mean.units) for mean in groups])
        self._constant_mw: _Array = np.array([slot.constant_w / 1e6 for slot in problem.slots])
        self._hours: _Array = np.array([slot.hours for slot in problem.slots])
        inf = math.inf
        self._cap_mw: _Array = np.array([inf if slot.cap_w is None else slot.cap_w / 1e6 for slot in problem.slots])
        self._import_mw = inf if problem.rules.import_limit_w is None else problem.rules.import_limit_w / 1e6
        self._ramp_mw = inf if problem.rules.ramp_w is None else problem.rules.ramp_w / 1e6

    def score(self, floors: NDArray[np.int64]) -> tuple[float, float]:
        """Return (objective in USD, the most a limit is exceeded by in MW)."""
        running = self._first[:, None] - floors[:, :, 0] + floors[:, :, 1]
        load = self._constant_mw + self._power_mw @ running
        over_cap = np.maximum(0.0, load - self._cap_mw)
        over_import = np.maximum(0.0, load - self._import_mw)
        over_ramp = np.maximum(0.0, np.abs(np.diff(load)) - self._ramp_mw)
        penalty = (over_cap @ self._hours) * SHED_PENALTY_USD_PER_MWH
        penalty += (over_import @ self._hours) * IMPORT_PENALTY_USD_PER_MWH
        penalty += over_ramp.sum() * RAMP_PENALTY_USD_PER_MW
        worst = max(over_cap.max(), over_import.max(), over_ramp.max(initial=0.0))
        return float((self._values * running).sum() - penalty), float(worst)
