"""The one module that runs PuLP: HiGHS when it is installed, else the CBC that comes with PuLP.

Invariants: one thread and a fixed seed, so equal programmes give equal answers; a solver stopped by its limit is a
failure here unless it holds an incumbent *and* a bound of its own, because PuLP 3.3 reports "Optimal" for both; the
bound is read from the solver, never assumed.
"""

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pulp
from pulp.apis import coin_api

from cloud.core.errors import Transient
from cloud.planner.formulate import Programme

_ITERATIONS: Final = 2_000_000


class SolverFailed(Transient):
    """No usable answer within the limits; the greedy path takes over and records this message."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Column values with the solver's objective and its proven upper bound, both in USD.

    For a tightened programme the bound is that of the programme before tightening: dual prices stay feasible when a
    limit moves, so what the limits were lowered by, times their price, is all that loosening them again can bring. With
    whole variables there are no such prices, and a tightened programme proves nothing (infinity).
    """

    values: tuple[float, ...]
    objective_usd: float
    bound_usd: float
    solver: str


def solve(programme: Programme, limit_s: float, *, solver: str = "auto") -> Solution:
    """Return the best columns for ``programme``.

    Raises:
        SolverFailed: the time ran out without an incumbent and bound, the solver died, or none is installed.
    """
    model, columns = build(programme)
    name = _available(solver)
    bound: float | None = None  # None: the optimum is its own bound
    try:
        if name == "HiGHS":
            bound = _run_highs(model, limit_s)
        else:
            _run_cbc(model, limit_s)
    except (pulp.PulpSolverError, OSError) as error:
        raise SolverFailed(f"{name} died: {' '.join(str(error).split())[:200]}") from error
    values = tuple(column.varValue if column.varValue is not None else (column.lowBound or 0.0) for column in columns)
    objective = sum(value * variable.cost for value, variable in zip(values, programme.variables, strict=True))
    exact = programme.constant + objective
    proven = programme.constant + (objective if bound is None else bound) + _worth_of_room(programme, model)
    return Solution(values, exact, max(exact, proven), name)


def build(programme: Programme) -> tuple[Any, list[Any]]:
    """Return the PuLP problem and its columns in the programme's order."""
    model = pulp.LpProblem("plan", pulp.LpMaximize)
    columns = [
        model.add_variable(f"v{place:07d}", item.lower, item.upper, pulp.LpInteger if item.whole else pulp.LpContinuous)
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


def _worth_of_room(programme: Programme, model: Any) -> float:
    """Return the most that the untightened programme can earn beyond the tightened one, by its dual prices."""
    if not programme.tightened:
        return 0.0
    if programme.whole:
        return math.inf
    rows = model.constraints()
    # solvers differ in the sign they give a price; every row here is an upper limit, so its worth is the absolute value
    return sum(abs(float(rows[place].pi or 0.0)) * room for place, room in programme.tightened)


def _available(wanted: str) -> str:
    installed = {"HiGHS": find_spec("highspy") is not None, "CBC": Path(_cbc_path()).is_file()}
    for name in ("HiGHS", "CBC") if wanted == "auto" else (wanted,):
        if installed.get(name):
            return name
    raise SolverFailed("no solver is installed; install highspy, or PuLP with its CBC")


def _cbc_path() -> str:
    return str(getattr(coin_api, "pulp_cbc_path", ""))


def _run_highs(model: Any, limit_s: float) -> float:
    """Solve in process and return the bound on the objective without its constant."""
    import highspy  # noqa: PLC0415 - 8 MB that only a planning process needs, and CBC stands in when it is missing

    whole = any(variable.cat == pulp.LpInteger for variable in model.variables())
    # measured on 28 classes x 96: interior point with crossover 1.0 s, dual simplex 4.0 s
    method = {} if whole else {"solver": "ipm"}
    model.solve(
        pulp.HiGHS(
            msg=False,
            threads=1,
            timeLimit=limit_s,
            gapRel=1e-6,
            random_seed=7,
            simplex_iteration_limit=_ITERATIONS,
            **method,
        )
    )
    status = model.solverModel.getModelStatus()
    information = model.solverModel.getInfo()
    if status == highspy.HighsModelStatus.kOptimal:
        # HiGHS minimises, so the sign turns; for a plain linear programme the optimum is its own bound
        return -float(information.mip_dual_bound if whole else information.objective_function_value)
    stopped = status in {highspy.HighsModelStatus.kTimeLimit, highspy.HighsModelStatus.kIterationLimit}
    feasible = information.primal_solution_status == int(highspy.SolutionStatus.kSolutionStatusFeasible)
    if stopped and whole and feasible and abs(information.mip_dual_bound) < 1e300:
        return -float(information.mip_dual_bound)
    raise SolverFailed(f"HiGHS stopped with {model.solverModel.modelStatusToString(status)} after {limit_s:g} s")


def _run_cbc(model: Any, limit_s: float) -> None:
    """Solve in a child process. CBC closes its gap when it ends by itself; stopped by the clock it counts as failed."""
    with TemporaryDirectory(prefix="ballast-cbc-") as folder:
        log = Path(folder) / "cbc.log"
        model.solve(
            pulp.COIN_CMD(
                path=_cbc_path(), msg=False, threads=1, timeLimit=limit_s, logPath=str(log), options=["randomSeed 7"]
            )
        )
        stopped = "Stopped on" in log.read_text(encoding="utf-8", errors="replace")
    if stopped or model.sol_status != pulp.LpSolutionOptimal:
        raise SolverFailed(f"CBC stopped without a proven answer after {limit_s:g} s")
