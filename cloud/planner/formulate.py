"""The class-aggregated linear programme, as plain numbers. Pure: knows neither PuLP nor a database.

For each group of ``N`` units and slot ``t`` there are two cumulative counts, stops ``D[t]`` and starts ``U[t]``; the
running units are ``N - D + U`` (or ``U - D`` for a group that is off when the horizon begins). Every timer is then a
difference constraint with a whole right-hand side, which threshold rounding preserves exactly:

    D, U nondecreasing
    minimum up     D[t] <= N + U[last earlier slot begun a minimum up time before t]
    minimum down   U[t] <= D[last earlier slot begun a minimum down time before t]
    longest off    U[last slot begun within the longest off time after t] >= D[t]

Coupling rows hold the site's load ``P[t] = constant + sum power * running`` under cap, import limit and ramp. Each has
a priced slack, so that the programme is always feasible and says what it could not keep.

Loads are in MW and money in USD, so that coefficients stay within a few powers of ten.
Source: the cumulative form of unit commitment (Rajan and Takriti 2005, "Minimum up/down polytopes").
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cloud.planner.model import Group, Problem
from sitelink.units import hash_revenue_usd_per_h, megawatts

SHED_PENALTY_USD_PER_MWH: Final = 100_000.0
IMPORT_PENALTY_USD_PER_MWH: Final = 50_000.0
RAMP_PENALTY_USD_PER_MW: Final = 20_000.0
SMALL_GROUP: Final = 20  # below this many units rounding costs too much, so the counts are whole in the programme
PER_STOP_USD: Final = 1e-6  # breaks ties: nobody is stopped, or swapped, for nothing
PER_PLACE_USD: Final = 1e-7  # breaks ties between groups of equal efficiency, in their order


@dataclass(frozen=True, slots=True)
class Row:
    """``lower <= sum(coefficient * variable) <= upper``; None is no limit."""

    terms: tuple[tuple[int, float], ...]
    lower: float | None
    upper: float | None


@dataclass(frozen=True, slots=True)
class Variable:
    """One column: ``cost`` is its share of the objective, which is maximised."""

    cost: float
    lower: float
    upper: float | None
    whole: bool


@dataclass(frozen=True, slots=True)
class Programme:
    """Maximise ``constant + sum cost * variable`` under ``rows``.

    Stops of group ``k`` in slot ``t`` are variable ``2 * (k * n_slots + t)``, starts the one after it. ``tightened``
    are (row, MW) of upper bounds that stand that much below the problem's own, to leave room for rounding.
    """

    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    constant: float
    n_slots: int
    n_groups: int
    tightened: tuple[tuple[int, float], ...] = ()

    @property
    def whole(self) -> bool:
        """Return whether any variable is a whole number."""
        return any(variable.whole for variable in self.variables)


@dataclass(frozen=True, slots=True)
class Means:
    """A group as the programme sees it: ``values_usd`` is what one running unit earns in each slot (n_intervals)."""

    units: int
    power_mw: float
    values_usd: tuple[float, ...]
    off: bool

    @property
    def whole(self) -> bool:
        """Return whether rounding would cost too much, so that counts are whole in the programme."""
        return self.units < SMALL_GROUP


def means(problem: Problem) -> tuple[Means, ...]:
    """Return each group's means; prices that are not known cost nothing."""
    found = []
    for group in problem.groups:
        per_h = hash_revenue_usd_per_h(problem.rules.hashprice, group.unit_hashrate_ths)
        power_mw = float(megawatts(group.unit_power_w))
        values = tuple((per_h - (slot.price_usd_per_mwh or 0.0) * power_mw) * slot.hours for slot in problem.slots)
        found.append(Means(len(group.units), power_mw, values, group.off_since is not None))
    return tuple(found)


def stops_at(programme_slots: int, group: int, slot: int) -> int:
    """Return the column of the cumulative stops; the cumulative starts stand right after it."""
    return 2 * (group * programme_slots + slot)


def formulate(problem: Problem, tighten_w: float = 0.0) -> Programme:
    """Return the programme of ``problem``; ``tighten_w`` lowers caps, limits and ramp to leave room for rounding."""
    variables: list[Variable] = []
    rows: list[Row] = []
    tightened: list[tuple[int, float]] = []
    groups = means(problem)
    for place, (group, mean) in enumerate(zip(problem.groups, groups, strict=True)):
        variables += _columns(problem, group, mean, place)
        rows += _timer_rows(problem, group, place)
    if _couples(problem):
        coupling = _Coupling(problem, groups, tighten_w / 1e6, variables, len(rows))
        rows += coupling.rows
        tightened = coupling.tightened
    constant = sum(0.0 if mean.off else sum(mean.values_usd) * mean.units for mean in groups)
    return Programme(tuple(variables), tuple(rows), constant, len(problem.slots), len(groups), tuple(tightened))


def _columns(problem: Problem, group: Group, mean: Means, place: int) -> list[Variable]:
    starts = [slot.interval.start for slot in problem.slots]
    columns: list[Variable] = []
    last = len(starts) - 1
    for slot, value in enumerate(mean.values_usd):
        # the cumulative count enters every later slot; a tie-break is paid once, on the last count
        tie = PER_STOP_USD + place * PER_PLACE_USD if slot == last else 0.0
        most = float(mean.units * (slot + 1))  # a unit moves at most once a slot; else branching never ends
        no_stop = group.earliest_stop is not None and starts[slot] < group.earliest_stop
        columns.append(Variable(-value - tie, 0.0, 0.0 if no_stop else most, mean.whole))
        no_start = group.earliest_start is not None and starts[slot] < group.earliest_start
        least = float(mean.units) if _must_start(problem, group, starts, slot) else 0.0
        columns.append(Variable(value, least, 0.0 if no_start else most, mean.whole))
    return columns


def _must_start(problem: Problem, group: Group, starts: list[datetime], slot: int) -> bool:
    """Return whether a group that is off has been off for the longest time allowed by the end of this slot."""
    if group.off_since is None or problem.rules.max_off is None:
        return False
    latest = max(group.off_since + problem.rules.max_off, group.earliest_start or starts[0])
    return problem.slots[slot].interval.end > latest and starts[slot] >= (group.earliest_start or starts[0])


def _timer_rows(problem: Problem, group: Group, place: int) -> list[Row]:
    starts = [slot.interval.start for slot in problem.slots]
    n, units = len(starts), float(len(group.units))
    off = group.off_since is not None
    rows: list[Row] = []
    for slot in range(n):
        stops = stops_at(n, place, slot)
        if slot:
            rows.append(Row(((stops, 1.0), (stops - 2, -1.0)), 0.0, None))
            rows.append(Row(((stops + 1, 1.0), (stops - 1, -1.0)), 0.0, None))
        up_ago = _begun_before(starts, slot, problem.rules.min_up)
        rows.append(_lag_row(n, place, stops, up_ago, 0.0 if off else units, partner_is_start=True))
        down_ago = _begun_before(starts, slot, problem.rules.min_down)
        rows.append(_lag_row(n, place, stops + 1, down_ago, units if off else 0.0, partner_is_start=False))
    if problem.rules.max_off is not None:
        rows += _longest_off(problem, place, starts, problem.rules.max_off, units if off else 0.0)
    return rows


def _begun_before(starts: list[datetime], slot: int, ago: timedelta) -> int:
    """Return the last earlier slot that began at least ``ago`` before ``slot``; -1 when none did.

    Earlier even where ``ago`` is zero: a unit neither stops and starts nor starts and stops in one slot, else a rest of
    no length would reset the longest off time.
    """
    return min(slot, bisect_right(starts, starts[slot] - ago)) - 1


def _lag_row(n: int, place: int, column: int, ago: int, allowance: float, *, partner_is_start: bool) -> Row:
    """Return ``column <= allowance + partner[ago]``."""
    if ago < 0:
        return Row(((column, 1.0),), None, allowance)
    partner = stops_at(n, place, ago) + (1 if partner_is_start else 0)
    return Row(((column, 1.0), (partner, -1.0)), None, allowance)


def _longest_off(problem: Problem, place: int, starts: list[datetime], longest: timedelta, owed: float) -> list[Row]:
    n = len(starts)
    rows: list[Row] = []
    for slot in range(n):
        if starts[slot] + longest >= problem.end:
            break
        due = bisect_right(starts, starts[slot] + longest) - 1
        rows.append(Row(((stops_at(n, place, due) + 1, 1.0), (stops_at(n, place, slot), -1.0)), owed, None))
    return rows


def _couples(problem: Problem) -> bool:
    rules = problem.rules
    return (
        rules.import_limit_w is not None
        or rules.ramp_w is not None
        or any(slot.cap_w is not None for slot in problem.slots)
    )


class _Coupling:
    """The rows that bind the site's load, and the load and slack columns they need (appended to ``variables``)."""

    def __init__(
        self, problem: Problem, groups: Sequence[Means], tighten_mw: float, variables: list[Variable], first_row: int
    ) -> None:
        self.rows: list[Row] = []
        self.tightened: list[tuple[int, float]] = []
        self._problem, self._groups = problem, groups
        self._tighten_mw, self._variables, self._first_row = tighten_mw, variables, first_row
        self._running_mw = sum(0.0 if mean.off else mean.power_mw * mean.units for mean in groups)
        before: int | None = None
        for place, slot in enumerate(problem.slots):
            load = self._add(0.0)
            self.rows.append(self._load_row(place, load))
            for limit, price in (
                (slot.cap_w, SHED_PENALTY_USD_PER_MWH),
                (problem.rules.import_limit_w, IMPORT_PENALTY_USD_PER_MWH),
            ):
                if limit is not None:
                    slack = self._add(-price * slot.hours)
                    self._bind(((load, 1.0), (slack, -1.0)), limit / 1e6)
            if problem.rules.ramp_w is not None and before is not None:
                slack, step = self._add(-RAMP_PENALTY_USD_PER_MW), problem.rules.ramp_w / 1e6
                self._bind(((load, 1.0), (before, -1.0), (slack, -1.0)), step)
                self._bind(((before, 1.0), (load, -1.0), (slack, -1.0)), step)
            before = load

    def _bind(self, terms: tuple[tuple[int, float], ...], limit_mw: float) -> None:
        self.rows.append(Row(terms, None, limit_mw - self._tighten_mw))
        if self._tighten_mw:
            self.tightened.append((self._first_row + len(self.rows) - 1, self._tighten_mw))

    def _load_row(self, place: int, load: int) -> Row:
        """Return ``load - sum power * (starts - stops) = constant + what runs at first``, in MW."""
        terms: list[tuple[int, float]] = [(load, 1.0)]
        for position, mean in enumerate(self._groups):
            stops = stops_at(len(self._problem.slots), position, place)
            terms += [(stops, mean.power_mw), (stops + 1, -mean.power_mw)]
        base_mw = self._problem.slots[place].constant_w / 1e6 + self._running_mw
        return Row(tuple(terms), base_mw, base_mw)

    def _add(self, cost: float) -> int:
        self._variables.append(Variable(cost, 0.0, None, whole=False))
        return len(self._variables) - 1
