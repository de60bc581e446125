"""The break-even rule: a miner runs while a megawatt-hour earns at least what it costs. Pure.

Exact when only prices matter, and the upper bound of every other schedule: no rule can make more than the sum of every
unit's best slots. Sorted once, each price is one binary search.

    break-even   41   52   60   77   95  USD/MWh     (stop order: the left end first)
    price 58     off  off  run  run  run
"""

from typing import TYPE_CHECKING

import numpy as np

from cloud.planner.model import FleetMiner, Group, Problem, Schedule, Usd

if TYPE_CHECKING:
    from numpy.typing import NDArray


def stopped_by_price(
    breakeven_usd_per_mwh: "NDArray[np.float64]", price_usd_per_mwh: "NDArray[np.float64]"
) -> "NDArray[np.int64]":
    """Return how many miners each price stops (n_intervals); ``breakeven_usd_per_mwh`` (n_miners) is ascending."""
    return np.searchsorted(breakeven_usd_per_mwh, price_usd_per_mwh, side="left").astype(np.int64)


def breakeven_schedule(problem: Problem) -> Schedule:
    """Return the schedule in which every unit is off exactly where it would lose money."""
    known: dict[tuple[float, float], tuple[tuple[int, int], ...]] = {}
    off = {}
    for group in problem.groups:
        patterns = []
        for unit in group.units:
            power, rate = sum(miner.power_w for miner in unit), sum(miner.hashrate_ths for miner in unit)
            if (power, rate) not in known:
                known[power, rate] = losing_ranges(problem, unit)
            patterns.append(known[power, rate])
        off[group.name] = tuple(patterns)
    return Schedule(off)


def losing_ranges(problem: Problem, unit: tuple[FleetMiner, ...]) -> tuple[tuple[int, int], ...]:
    """Return the slot ranges in which ``unit`` loses money."""
    losing = [sum(problem.value_usd(miner, slot) for miner in unit) < 0 for slot in problem.slots]
    return ranges_of(losing)


def ranges_of(flags: list[bool]) -> tuple[tuple[int, int], ...]:
    """Return the runs of true flags as half-open ranges."""
    ranges: list[tuple[int, int]] = []
    first: int | None = None
    for place, flag in enumerate([*flags, False]):
        if flag and first is None:
            first = place
        elif not flag and first is not None:
            ranges.append((first, place))
            first = None
    return tuple(ranges)


def relaxed_bound_usd(problem: Problem) -> Usd:
    """Return the most that any schedule can make: every unit in its best slots, no other rule."""
    return Usd(sum(_best_usd(problem, group) for group in problem.groups))


def _best_usd(problem: Problem, group: Group) -> float:
    known: dict[tuple[float, float], float] = {}
    total = 0.0
    for unit in group.units:
        key = (sum(miner.power_w for miner in unit), sum(miner.hashrate_ths for miner in unit))
        if key not in known:
            known[key] = sum(max(0.0, sum(problem.value_usd(miner, slot) for miner in unit)) for slot in problem.slots)
        total += known[key]
    return total
