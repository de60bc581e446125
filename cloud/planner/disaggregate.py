"""From a group's counts to each unit's off time. Pure.

The order is explained to operators as: *the least efficient miner stops first; whoever has been off longest starts
first.* Both are one queue, so minimum times that hold for the counts hold for every unit, and starts are within one of
each other.

    stops   A B C . . .      starts . . . A B C        (A is the least efficient)
"""

from collections import deque
from collections.abc import Mapping, Sequence

from cloud.planner.model import Group, Problem, Schedule
from cloud.planner.round import Counts

OffRanges = tuple[tuple[int, int], ...]


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
    stops = starts = 0
    for slot in range(n_slots):
        for _ in range(counts.starts[slot] - starts):
            unit, since = stopped.popleft()
            if slot > since:  # a block may be released at the horizon's very start
                ranges[unit].append((since, slot))
            running.append(unit)
        for _ in range(counts.stops[slot] - stops):
            stopped.append((running.popleft(), slot))
        stops, starts = counts.stops[slot], counts.starts[slot]
    for unit, since in stopped:
        ranges[unit].append((since, n_slots))
    return tuple(tuple(item) for item in ranges)
