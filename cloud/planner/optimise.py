"""From a problem to a checked answer: break-even when it already keeps every rule, else the solver, else greedy.

Invariants: every answer has passed ``check`` without a violation; ``gap`` compares with a proven bound (the solver's,
on the programme that was *not* tightened for rounding, or the break-even bound), never with our own objective.
"""

from dataclasses import dataclass
from typing import Final

from cloud.planner.check import check
from cloud.planner.disaggregate import disaggregate
from cloud.planner.formulate import PER_PLACE_USD, PER_STOP_USD, Programme, formulate
from cloud.planner.greedy import greedy_schedule
from cloud.planner.merit import breakeven_schedule, relaxed_bound_usd
from cloud.planner.model import Answer, Method, Problem, Schedule, Score, Usd
from cloud.planner.round import best_roundings
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
    programme = formulate(problem)
    # rounding moves a load by about one unit: leave that room at once where the bound can still be proven
    room_w = 0.0 if programme.whole else max(group.unit_power_w for group in problem.groups)
    solution = solve(formulate(problem, tighten_w=room_w) if room_w else programme, limit_s, solver=solver)
    best, over_w = _best_rounding(problem, solution)
    avoidable = over_w - _programme_over_mw(programme, solution) * 1e6
    if avoidable > 1.0:
        try:
            tighter = solve(formulate(problem, tighten_w=room_w + avoidable), limit_s / 2, solver=solver)
            best = _better(best, _best_rounding(problem, tighter)[0])
        except SolverFailed:
            pass  # what was found first stands; its slack is reported
        best = _better(best, _checked(problem, greedy_schedule(problem)))
    if best is None:
        raise SolverFailed("no rounded schedule survived the check")
    bound = Usd(min(solution.bound_usd + _tie_breaks_usd(problem), relaxed_bound_usd(problem)))
    return _answer(problem, best, Method.SOLVER, f"{solution.solver}: cap, limit, ramp or timers bind", bound)


def _best_rounding(problem: Problem, solution: Solution) -> tuple[_Candidate | None, float]:
    """Return the best legal candidate, and the most that it exceeds a limit by, in W."""
    for rounding in best_roundings(problem, solution.values):
        candidate = _checked(problem, disaggregate(problem, rounding.counts))
        if candidate is not None:
            return candidate, rounding.over_mw * 1e6
    return None, 0.0


def _better(first: _Candidate | None, second: _Candidate | None) -> _Candidate | None:
    if first is None or second is None:
        return first or second
    return second if second.score.objective_usd > first.score.objective_usd + 1e-9 else first


def _checked(problem: Problem, schedule: Schedule) -> _Candidate | None:
    score = check(problem, schedule)
    return None if score.violations else _Candidate(schedule, score)


def _programme_over_mw(programme: Programme, solution: Solution) -> float:
    """Return the largest slack that the programme itself could not avoid; loads are no slack and cost nothing."""
    first = 2 * programme.n_slots * programme.n_groups
    pairs = zip(programme.variables[first:], solution.values[first:], strict=True)
    return max((value for variable, value in pairs if variable.cost < 0), default=0.0)


def _tie_breaks_usd(problem: Problem) -> float:
    """Return the most the tie-breaking costs can have lowered the bound by: every unit stopped in every slot."""
    per_unit = PER_STOP_USD + PER_PLACE_USD * len(problem.groups)
    return per_unit * sum(len(group.units) for group in problem.groups) * len(problem.slots)


def _answer(problem: Problem, found: _Candidate, method: Method, reason: str, bound: Usd) -> Answer:
    gross = problem.gross_revenue_usd
    objective = found.score.objective_usd
    gap = max(0.0, (bound - objective) / gross) if gross > 0 else 0.0
    return Answer(found.schedule, method, reason, objective, bound, gap, found.score.slack_mwh)
