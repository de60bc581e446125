"""The referee: replays every miner through every slot and recomputes what a schedule is worth. Pure.

It shares no arithmetic with the programme: it reads off ranges only, keeps clocks instead of lagged counts, and adds up
loads miner by miner. A schedule with a violation is never sent.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cloud.planner.formulate import IMPORT_PENALTY_USD_PER_MWH, RAMP_PENALTY_USD_PER_MW, SHED_PENALTY_USD_PER_MWH
from cloud.planner.model import Group, Problem, Schedule, Score, Usd
from sitelink.units import Megawatts, Watts, megawatts

_TOLERANCE_W = 1.0


def check(problem: Problem, schedule: Schedule) -> Score:
    """Return the score of ``schedule``; its ``violations`` name miner, time and rule."""
    if set(schedule.off) != {group.name for group in problem.groups}:
        return Score(Usd(0.0), 0.0, Megawatts(0.0), ("the schedule's groups are not the problem's",))
    hash_ths = [0.0] * len(problem.slots)
    running_w = [0.0] * len(problem.slots)
    violations: list[str] = []
    for group in problem.groups:
        if len(schedule.off[group.name]) != len(group.units):
            return Score(Usd(0.0), 0.0, Megawatts(0.0), (f"group {group.name}: not every unit has its times",))
        for history in _histories(group, schedule.off[group.name]):
            violations += _replay(problem, group, history.names, history.ranges)
            for slot in _running_slots(history.ranges, len(problem.slots)):
                running_w[slot] += history.power_w
                hash_ths[slot] += history.hashrate_ths
    load_w = [slot.constant_w + extra for slot, extra in zip(problem.slots, running_w, strict=True)]
    value = sum(_slot_value(problem, slot, running_w[slot], hash_ths[slot]) for slot in range(len(problem.slots)))
    slack_mwh, slack_mw, penalty = _slack(problem, load_w)
    return Score(Usd(value - penalty), slack_mwh, Megawatts(slack_mw), tuple(violations))


def loads_w(problem: Problem, schedule: Schedule) -> tuple[Watts, ...]:
    """Return the site's planned load of each slot (n_intervals)."""
    loads = [float(slot.constant_w) for slot in problem.slots]
    for group in problem.groups:
        for history in _histories(group, schedule.off[group.name]):
            for slot in _running_slots(history.ranges, len(problem.slots)):
                loads[slot] += history.power_w
    return tuple(Watts(load) for load in loads)


@dataclass(slots=True)
class _History:
    """The miners of one group that are off at exactly the same times: replayed once, counted one by one."""

    ranges: tuple[tuple[int, int], ...]
    names: str
    power_w: float = 0.0
    hashrate_ths: float = 0.0


def _histories(group: Group, off: Sequence[tuple[tuple[int, int], ...]]) -> Iterable[_History]:
    found: dict[tuple[tuple[int, int], ...], _History] = {}
    for unit, ranges in zip(group.units, off, strict=True):
        history = found.get(ranges)
        if history is None:
            history = found[ranges] = _History(ranges, f"{unit[0].miner_id} and those like it")
        for miner in unit:
            history.power_w += miner.power_w
            history.hashrate_ths += miner.hashrate_ths
    return found.values()


def _running_slots(ranges: Sequence[tuple[int, int]], n_slots: int) -> list[int]:
    slots: list[int] = []
    place = 0
    for first, past in ranges:
        slots += range(place, first)
        place = past
    slots += range(place, n_slots)
    return slots


def _slot_value(problem: Problem, place: int, running_w: float, running_ths: float) -> float:
    slot = problem.slots[place]
    revenue = problem.rules.hashprice * running_ths / 1e3 / 24 * slot.hours
    return revenue - (slot.price_usd_per_mwh or 0.0) * running_w / 1e6 * slot.hours


def _replay(problem: Problem, group: Group, name: str, ranges: Sequence[tuple[int, int]]) -> list[str]:
    """Return what one unit breaks: order of ranges, minimum times, longest off, locked times."""
    rules = problem.rules
    started: datetime | None = None  # when the unit last began to run, if that is known to bind
    found: list[str] = []
    past = -1
    begins_off = bool(ranges) and ranges[0][0] == 0
    if group.off_since is not None and not begins_off and (group.earliest_start or problem.start) > problem.start:
        found.append(f"{name}: started at {problem.start} before {group.earliest_start}")
    if group.off_since is not None and not begins_off:
        started = problem.start
    for first, end in ranges:
        if not (0 <= first < end <= len(problem.slots)) or first < past or (first == past and past > 0):
            return [*found, f"{name}: off ranges overlap or leave the horizon: {ranges}"]
        past = end
        stop = problem.slots[first].interval.start
        continued = group.off_since is not None and first == 0
        since = group.off_since if continued and group.off_since else stop
        release = problem.slots[end - 1].interval.end
        if not continued:
            found += _stop_faults(name, group, stop, started, rules.min_up)
        found += _start_faults(
            problem, group, name, since, release, at_end=end == len(problem.slots), continued=continued
        )
        started = release
    return found


def _stop_faults(name: str, group: Group, stop: datetime, started: datetime | None, min_up: timedelta) -> list[str]:
    found = []
    if group.earliest_stop is not None and stop < group.earliest_stop:
        found.append(f"{name}: stopped at {stop} before {group.earliest_stop}")
    if started is not None and stop - started < min_up:
        found.append(f"{name}: ran only {stop - started} until {stop}, the minimum is {min_up}")
    return found


def _start_faults(
    problem: Problem, group: Group, name: str, since: datetime, release: datetime, *, at_end: bool, continued: bool
) -> list[str]:
    rules, found = problem.rules, []
    if continued and group.earliest_start is not None and release < group.earliest_start and not at_end:
        found.append(f"{name}: started at {release} before {group.earliest_start}")
    # a stop that reaches the horizon is released later than it, when its minimum asks for that
    if not continued and not at_end and release - since < rules.min_down:
        found.append(f"{name}: off only {release - since} from {since}, the minimum is {rules.min_down}")
    if (
        rules.max_off is not None
        and release - since > rules.max_off
        and not _forced(problem, group, release, continued=continued)
    ):
        found.append(f"{name}: off {release - since} from {since}, the longest is {rules.max_off}")
    return found


def _forced(problem: Problem, group: Group, release: datetime, *, continued: bool) -> bool:
    """Return whether a unit off beyond its limit was released at the first instant that was still possible."""
    return continued and release <= max(group.earliest_start or problem.start, problem.slots[0].interval.end)


def _slack(problem: Problem, load_w: Sequence[float]) -> tuple[float, float, float]:
    """Return (MWh over cap or import limit, MW over the ramp, priced in USD)."""
    slack_mwh = slack_mw = penalty = 0.0
    before: float | None = None
    for slot, load in zip(problem.slots, load_w, strict=True):
        for limit, price in (
            (slot.cap_w, SHED_PENALTY_USD_PER_MWH),
            (problem.rules.import_limit_w, IMPORT_PENALTY_USD_PER_MWH),
        ):
            if limit is not None and load > limit + _TOLERANCE_W:
                over = (load - limit) / 1e6 * slot.hours
                slack_mwh, penalty = slack_mwh + over, penalty + over * price
        ramp = problem.rules.ramp_w
        if ramp is not None and before is not None and abs(load - before) > ramp + _TOLERANCE_W:
            over = float(megawatts(Watts(abs(load - before) - ramp)))
            slack_mw, penalty = slack_mw + over, penalty + over * RAMP_PENALTY_USD_PER_MW
        before = load
    return slack_mwh, slack_mw, penalty
