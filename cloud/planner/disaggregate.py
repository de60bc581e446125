"""From a group's counts to each unit's off time. Pure.

The order is explained to operators as: *the least efficient miner stops first; whoever has been off longest starts
first.* Both are one queue, so minimum times that hold for the counts hold for every unit, and starts are within one of
each other.

    stops   A B C . . .      starts . . . A B C        (A is the least efficient)
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cloud.planner.model import Group, Problem, Schedule
from cloud.planner.round import Counts

OffRanges = tuple[tuple[int, int], ...]


class Step(NamedTuple):
    """How many units stop and start in one slot."""

    stops: int
    starts: int


def disaggregate(problem: Problem, counts: Sequence[Counts]) -> Schedule:
    """Return when each unit of each group is off, in slots."""
    off: Mapping[str, tuple[OffRanges, ...]] = {
        group.name: _rotate(group, counts[place], len(problem.slots)) for place, group in enumerate(problem.groups)
    }
    return Schedule(off)


def _rotate(group: Group, counts: Counts, n_slots: int) -> tuple[OffRanges, ...]:
    units = range(len(group.units))
    running: deque[int] = deque(() if group.off_since else units)
    stopped: deque[tuple[int, int]] = deque((unit, 0) for unit in units) if group.off_since else deque()
    ranges: list[list[tuple[int, int]]] = [[] for _ in units]
    done = Step(0, 0)
    for slot in range(n_slots):
        step = Step(counts.stops[slot] - done.stops, counts.starts[slot] - done.starts)
        done = Step(counts.stops[slot], counts.starts[slot])
        swapped = max(0, step.starts - len(stopped))  # a stop and a start of the same unit and slot cancel
        for _ in range(step.starts - swapped):
            unit, since = stopped.popleft()
            ranges[unit].append((since, slot))
            running.append(unit)
        for _ in range(step.stops - swapped):
            unit = running.popleft()
            if ranges[unit] and ranges[unit][-1][1] == slot:  # started in this very slot: it was never on
                stopped.append((unit, ranges[unit].pop()[0]))
            else:
                stopped.append((unit, slot))
    for unit, since in stopped:
        ranges[unit].append((since, n_slots))
    return tuple(tuple(item) for item in ranges)
