"""From a problem to a checked answer: break-even when it already keeps every rule, else the solver, else greedy.

Invariants: every answer has passed ``check`` without a violation; ``gap`` compares with a proven bound (the solver's,
on the programme that was *not* tightened for rounding, or the break-even bound), never with our own objective.
"""

from dataclasses import dataclass
from typing import Final

from cloud.planner.check import check
from cloud.planner.disaggregate import disaggregate
from cloud.planner.formulate import PER_PLACE_USD, PER_STOP_USD, formulate
from cloud.planner.greedy import greedy_schedule
from cloud.planner.merit import breakeven_schedule, relaxed_bound_usd
from cloud.planner.model import Answer, Method, Problem, Schedule, Score, Usd
from cloud.planner.round import round_counts, thresholds
from cloud.planner.solver import Solution, SolverFailed, solve

_SLACK_TOLERANCE_MWH: Final = 1e-6


@dataclass(frozen=True, slots=True)
class _Candidate:
    schedule: Schedule
    score: Score


class PlannerDefect(Exception):
    """No way of planning gave a legal schedule: a defect of the planner, so nothing is sent."""


def optimise(problem: Problem, limit_s: float = 10.0, *, solver: str = "auto") -> Answer:
    """Return the best checked schedule for ``problem`` within twice ``limit_s`` seconds of solver time.

    Raises:
        PlannerDefect: no candidate survived the check.
    """
    bound = relaxed_bound_usd(problem)
    plain = _checked(problem, breakeven_schedule(problem))
    if plain is not None and plain.score.slack_mwh <= _SLACK_TOLERANCE_MWH and plain.score.slack_mw <= 0:
        return _answer(problem, plain, Method.BREAK_EVEN, "the break-even rule keeps every limit", bound)
    try:
        return _solved(problem, limit_s, solver)
    except SolverFailed as failure:
        reason = f"greedy instead of the solver: {failure}"
    found = _checked(problem, greedy_schedule(problem))
    if found is None:
        raise PlannerDefect(f"no legal schedule for {len(problem.groups)} groups from {problem.start}; {reason}")
    return _answer(problem, found, Method.GREEDY, reason, bound)


def _solved(problem: Problem, limit_s: float, solver: str) -> Answer:
    solution = solve(formulate(problem), limit_s, solver=solver)
    best = _best_rounding(problem, solution)
    unavoidable = _programme_slack_usd(problem, solution)
    # each group may be off by one unit: tighten step by step until the rounded plan keeps what the programme kept
    step_w = max((group.unit_power_w for group in problem.groups), default=0.0)
    for steps in (1, 2, len(problem.groups)):
        if best is not None and _slack_usd(problem, best) <= unavoidable + 1.0:
            break
        try:
            tightened = solve(formulate(problem, tighten_w=step_w * steps), limit_s / 4, solver=solver)
        except SolverFailed:
            break
        best = _better(best, _best_rounding(problem, tightened))
    best = _better(best, _checked(problem, greedy_schedule(problem)))
    if best is None:
        raise SolverFailed("no rounded schedule survived the check")
    bound = Usd(min(solution.bound_usd + _tie_breaks_usd(problem), relaxed_bound_usd(problem)))
    return _answer(problem, best, Method.SOLVER, f"{solution.solver}: cap, limit, ramp or timers bind", bound)


def _best_rounding(problem: Problem, solution: Solution) -> _Candidate | None:
    best: _Candidate | None = None
    seen = set()
    for theta in thresholds(len(problem.groups)):
        counts = round_counts(problem, solution.values, theta)
        if counts in seen:
            continue
        seen.add(counts)
        best = _better(best, _checked(problem, disaggregate(problem, counts)))
    return best


def _better(first: _Candidate | None, second: _Candidate | None) -> _Candidate | None:
    if first is None or second is None:
        return first or second
    return second if second.score.objective_usd > first.score.objective_usd + 1e-9 else first


def _checked(problem: Problem, schedule: Schedule) -> _Candidate | None:
    score = check(problem, schedule)
    return None if score.violations else _Candidate(schedule, score)


def _slack_usd(problem: Problem, candidate: _Candidate) -> float:
    """Return what the candidate pays for slack: its value without penalties minus its objective."""
    free = Problem(
        tuple(type(slot)(slot.interval, slot.price_usd_per_mwh, None, slot.constant_w) for slot in problem.slots),
        problem.groups,
        type(problem.rules)(problem.rules.hashprice),
    )
    return check(free, candidate.schedule).objective_usd - candidate.score.objective_usd


def _programme_slack_usd(problem: Problem, solution: Solution) -> float:
    """Return what the programme itself had to pay for slack."""
    programme = formulate(problem)
    first = 2 * programme.n_slots * programme.n_groups
    pairs = zip(programme.variables[first:], solution.values[first:], strict=True)
    return -sum(variable.cost * value for variable, value in pairs)


def _tie_breaks_usd(problem: Problem) -> float:
    """Return the most the tie-breaking costs can have lowered the bound by: every unit stopped in every slot."""
    per_unit = PER_STOP_USD + PER_PLACE_USD * len(problem.groups)
    return per_unit * sum(len(group.units) for group in problem.groups) * len(problem.slots)


def _answer(problem: Problem, found: _Candidate, method: Method, reason: str, bound: Usd) -> Answer:
    gross = problem.gross_revenue_usd
    objective = found.score.objective_usd
    gap = max(0.0, (bound - objective) / gross) if gross > 0 else 0.0
    return Answer(found.schedule, method, reason, objective, bound, gap, found.score.slack_mwh)
