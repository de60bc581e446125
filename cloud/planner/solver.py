"""The one module that runs PuLP: HiGHS when it is installed, else the CBC that comes with PuLP.

Invariants: one thread and a fixed seed, so equal programmes give equal answers; a solver stopped by its limit is a
failure here unless it holds an incumbent *and* a bound of its own, because PuLP 3.3 reports "Optimal" for both; the bound
is read from the solver, never assumed.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pulp

from cloud.core.errors import Transient
from cloud.planner.formulate import Programme

_ITERATIONS: Final = 2_000_000
_CBC_BOUND: Final = re.compile(r"^(?:Lower|Upper) bound:\s*(\S+)", re.MULTILINE)


class SolverFailed(Transient):
    """No usable answer within the limits; the greedy path takes over and records this message."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Column values with the solver's objective and its proven upper bound, both in USD."""

    values: tuple[float, ...]
    objective_usd: float
    bound_usd: float
    solver: str


def solve(programme: Programme, limit_s: float, *, solver: str = "auto") -> Solution:
    """Return the best columns for ``programme``.

    Raises:
        SolverFailed: the time ran out without an incumbent and bound, or no solver is installed.
    """
    model, columns = build(programme)
    name = _available(solver)
    bound = _run_highs(model, limit_s) if name == "HiGHS" else _run_cbc(model, limit_s)
    values = tuple(column.varValue if column.varValue is not None else (column.lowBound or 0.0) for column in columns)
    objective = sum(value * variable.cost for value, variable in zip(values, programme.variables, strict=True))
    exact = programme.constant + objective
    return Solution(values, exact, max(exact, programme.constant + (objective if bound is None else bound)), name)


def build(programme: Programme) -> tuple[Any, list[Any]]:
    """Return the PuLP problem and its columns in the programme's order."""
    model = pulp.LpProblem("plan", pulp.LpMaximize)
    columns = [
        pulp.LpVariable(f"v{place:07d}", item.lower, item.upper, pulp.LpInteger if item.whole else pulp.LpContinuous)
        for place, item in enumerate(programme.variables)
    ]
    model += pulp.LpAffineExpression(
        [(column, item.cost) for column, item in zip(columns, programme.variables, strict=True)]
    )
    for row in programme.rows:
        terms = pulp.LpAffineExpression([(columns[place], factor) for place, factor in row.terms])
        if row.lower is not None and row.lower == row.upper:
            model += terms == row.lower
            continue
        if row.lower is not None:
            model += terms >= row.lower
        if row.upper is not None:
            model += terms <= row.upper
    return model, columns


def _available(wanted: str) -> str:
    installed = pulp.listSolvers(onlyAvailable=True)
    for name in ("HiGHS", "PULP_CBC_CMD") if wanted == "auto" else (wanted,):
        if name in installed:
            return str(name)
    raise SolverFailed("no solver is installed; install highspy, or PuLP with its CBC")


def _run_highs(model: Any, limit_s: float) -> float | None:
    """Solve in process and return the bound on the objective without its constant."""
    import highspy  # noqa: PLC0415 - 8 MB that only a planning process needs, and CBC stands in when it is missing

    model.solve(
        pulp.HiGHS(
            msg=False,
            threads=1,
            timeLimit=limit_s,
            gapRel=1e-6,
            random_seed=7,
            simplex_iteration_limit=_ITERATIONS,
        )
    )
    status = model.solverModel.getModelStatus()
    information = model.solverModel.getInfo()
    whole = any(variable.cat == pulp.LpInteger for variable in model.variables())
    if status == highspy.HighsModelStatus.kOptimal:
        # HiGHS minimises, so the sign turns; for a plain linear programme the optimum is its own bound
        return -float(information.mip_dual_bound if whole else information.objective_function_value)
    stopped = status in {highspy.HighsModelStatus.kTimeLimit, highspy.HighsModelStatus.kIterationLimit}
    feasible = information.primal_solution_status == int(highspy.SolutionStatus.kSolutionStatusFeasible)
    if stopped and whole and feasible and abs(information.mip_dual_bound) < 1e300:
        return -float(information.mip_dual_bound)
    raise SolverFailed(f"HiGHS stopped with {model.solverModel.modelStatusToString(status)} after {limit_s:g} s")


def _run_cbc(model: Any, limit_s: float) -> float | None:
    """Solve in a child process and return the bound from its log; None says the optimum itself is the bound."""
    with TemporaryDirectory(prefix="ballast-cbc-") as folder:
        log = Path(folder) / "cbc.log"
        model.solve(pulp.PULP_CBC_CMD(msg=False, threads=1, timeLimit=limit_s, logPath=str(log), options=["randomSeed 7"]))
        text = log.read_text(encoding="utf-8", errors="replace")
    if "Stopped on time" not in text and model.sol_status == pulp.LpSolutionOptimal:
        return None
    found = _CBC_BOUND.search(text)
    if found is None or model.sol_status not in {pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible}:
        raise SolverFailed(f"CBC stopped without an answer and a bound after {limit_s:g} s")
    return abs(float(found.group(1))) * (1.0 if float(found.group(1)) >= 0 else -1.0)
