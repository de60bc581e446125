"""How fast and how near the optimum we plan: ``python -m tests.bench.plan [--quick]``.

Wall-clock seconds, end to end: formulate, build, solve, round, disaggregate and referee, with minimum times, a longest
off time, a cap window, an import limit and a ramp over 96 quarter hours. ``gap_*`` is (bound - objective) / gross hash
revenue, the bound proven by the solver. ``slack_used`` and ``slack_used_lp`` are MWh over caps and limits in the rounded
plan and in the programme. ``objective_difference`` is the larger of HiGHS against CBC and of ours against linopy on one
programme, relative. ``ratio_PEER`` is the peer's CPU over ours for formulating, building and solving (``plan_peers``).
"""

import random
import sys
import time
from dataclasses import replace

import numpy as np

from cloud.planner.check import check
from cloud.planner.formulate import RAMP_PENALTY_USD_PER_MW, Programme, formulate
from cloud.planner.merit import stopped_by_price
from cloud.planner.model import Answer, Problem
from cloud.planner.optimise import optimise
from cloud.planner.solver import Solution, build, solve
from sitelink.units import UsdPerMegawattHour
from tests.bench.plan_cases import case, day_prices
from tests.bench.plan_peers import compare
from tests.bench.report import arguments, finish, say

LIMIT_S = 60.0


def timed(problem: Problem) -> tuple[Answer, float]:
    """Return the answer and the seconds it took."""
    began = time.perf_counter()
    answer = optimise(problem, LIMIT_S)
    return answer, time.perf_counter() - began


def price_only_s(miners: int, slots: int, seed: int) -> float:
    """Return the seconds of the break-even rule: sort once, search every price."""
    draw = np.random.default_rng(seed)
    edges, prices = draw.uniform(40, 140, miners), draw.uniform(-20, 300, slots)
    began = time.perf_counter()
    stopped_by_price(np.sort(edges), prices)
    return time.perf_counter() - began


def jittered(problem: Problem, seed: int) -> Problem:
    """Return the problem with prices off by up to 5 %."""
    draw = random.Random(seed)
    slots = (
        replace(slot, price_usd_per_mwh=UsdPerMegawattHour((slot.price_usd_per_mwh or 0.0) * draw.uniform(0.95, 1.05)))
        for slot in problem.slots
    )
    return replace(problem, slots=tuple(slots))


def slack_mwh(programme: Programme, solution: Solution) -> float:
    """Return what the programme itself falls short of caps and import limits by (every slot is a quarter hour)."""
    first = 2 * programme.n_slots * programme.n_groups
    pairs = zip(programme.variables[first:], solution.values[first:], strict=True)
    return sum(value * 0.25 for variable, value in pairs if variable.cost not in {0.0, -RAMP_PENALTY_USD_PER_MW})


def main() -> int:
    """Measure and print; return 1 when the peers could not be measured."""
    options = arguments("plan", __doc__ or "").parse_args()
    largest = 10_000 if options.quick else 100_000
    prices, source = day_prices(options.seed)
    say(f"prices: {source}; largest fleet {largest}")
    figures: dict[str, float] = {}
    violations, slack = 0, 0.0
    for name, miners in (("1k", 1_000), ("10k", 10_000), ("100k", largest)):
        problem = case(28, miners, prices, options.seed)
        answer, seconds = timed(problem)
        say(f"28 classes, {miners} miners: {seconds:.2f} s, gap {answer.gap:.1e}, {answer.method.value}")
        figures[f"gap_{name}"] = answer.gap
        violations += len(check(problem, answer.schedule).violations)
        slack = max(slack, answer.slack_mwh)
        figures["seconds_28"] = seconds
    _, figures["replan_s"] = timed(jittered(problem, options.seed))
    began = time.perf_counter()
    programme = formulate(case(28, 1_000, prices, options.seed))
    build(programme)
    built = time.perf_counter() - began
    highs = solve(programme, LIMIT_S)
    figures["build_share"] = built / (time.perf_counter() - began)
    cbc = solve(programme, LIMIT_S * 2, solver="CBC")
    figures["objective_difference"] = abs(highs.objective_usd - cbc.objective_usd) / abs(highs.objective_usd)
    _, figures["seconds_56"] = timed(case(56, largest, prices, options.seed))
    figures |= {"violations": violations, "slack_used": slack, "slack_used_lp": slack_mwh(programme, highs)}
    figures["price_only_1m_s"] = price_only_s(1_000_000, 288, options.seed)
    ours, theirs = compare(case(28, 1_000, prices, options.seed), 2 if options.quick else 4) or ({}, None)
    figures |= ours
    figures["objective_difference"] = max(figures["objective_difference"], ours.get("objective_difference_linopy", 0.0))
    finish("plan", figures, options.seed, theirs)
    return 0 if theirs else 1


if __name__ == "__main__":
    sys.exit(main())
