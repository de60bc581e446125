"""The answer without a solver: break-even, then caps least efficient first, then every timer repaired. Pure.

Used when the solver fails or runs out of time; the reason is recorded with the plan. Timers always hold. Caps and
limits hold as far as timers allow; what is missing shows as slack, as with the solver.
"""

from collections.abc import Sequence
from datetime import datetime

from cloud.planner.merit import ranges_of
from cloud.planner.model import FleetMiner, Group, Problem, Schedule

_Unit = tuple[FleetMiner, ...]


def greedy_schedule(problem: Problem) -> Schedule:
    """Return a schedule that keeps every timer."""
    ranked = sorted(
        ((group, place) for group in problem.groups for place in range(len(group.units))),
        key=lambda item: (-_efficiency(item[0].units[item[1]]), item[0].name, item[1]),
    )
    losing: dict[tuple[float, float], list[bool]] = {}
    wanted: dict[tuple[str, int], list[bool]] = {}
    for group, place in ranked:
        unit = group.units[place]
        key = (_power(unit), _hashrate(unit))
        if key not in losing:
            losing[key] = _losing(problem, unit)
        wanted[group.name, place] = losing[key].copy()
    for slot in range(len(problem.slots)):
        _hold_limits(problem, slot, ranked, wanted)
    off: dict[str, list[tuple[tuple[int, int], ...]]] = {group.name: [] for group in problem.groups}
    for group in problem.groups:
        legal: dict[tuple[bool, ...], tuple[tuple[int, int], ...]] = {}
        for place in range(len(group.units)):
            wish = tuple(wanted[group.name, place])
            if wish not in legal:
                legal[wish] = _legal(problem, group, wish)
            off[group.name].append(legal[wish])
    return Schedule({name: tuple(patterns) for name, patterns in off.items()})


def _efficiency(unit: _Unit) -> float:
    rate = _hashrate(unit)
    return _power(unit) / rate if rate > 0 else float("inf")


def _losing(problem: Problem, unit: _Unit) -> list[bool]:
    return [sum(problem.value_usd(miner, slot) for miner in unit) < 0 for slot in problem.slots]


def _hold_limits(
    problem: Problem, slot: int, ranked: list[tuple[Group, int]], wanted: dict[tuple[str, int], list[bool]]
) -> None:
    limits = [limit for limit in (problem.slots[slot].cap_w, problem.rules.import_limit_w) if limit is not None]
    if not limits:
        return
    load = float(problem.slots[slot].constant_w)
    load += sum(_power(group.units[place]) for group, place in ranked if not wanted[group.name, place][slot])
    for group, place in ranked:
        if load <= min(limits):
            return
        if not wanted[group.name, place][slot]:
            wanted[group.name, place][slot] = True
            load -= _power(group.units[place])


def _power(unit: _Unit) -> float:
    return sum(miner.power_w for miner in unit)


def _hashrate(unit: _Unit) -> float:
    return sum(miner.hashrate_ths for miner in unit)


def _legal(problem: Problem, group: Group, wanted: Sequence[bool]) -> tuple[tuple[int, int], ...]:
    """Walk the slots once and follow ``wanted`` whenever the timers allow it."""
    rules, off, since = problem.rules, group.off_since is not None, group.off_since
    free_to_stop, free_to_start = group.earliest_stop, group.earliest_start
    flags: list[bool] = []
    for slot, want_off in zip(problem.slots, wanted, strict=True):
        start = slot.interval.start
        if off:
            overdue = rules.max_off is not None and since is not None and slot.interval.end > since + rules.max_off
            if (not want_off or overdue) and _free(start, free_to_start):
                off, free_to_stop = False, start + rules.min_up
        elif want_off and _free(start, free_to_stop) and _fits(problem, start, slot.interval.end):
            off, since, free_to_start = True, start, start + rules.min_down
        flags.append(off)
    return ranges_of(flags)


def _free(moment: datetime, earliest: datetime | None) -> bool:
    return earliest is None or moment >= earliest


def _fits(problem: Problem, start: datetime, end: datetime) -> bool:
    return problem.rules.max_off is None or end - start <= problem.rules.max_off
