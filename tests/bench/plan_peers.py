"""The plan bench's peers: the same linear programme in linopy, and as PyPSA's linearised unit commitment.

All three build their model and hand it to HiGHS in process (interior point, one thread, one seed); a figure is the CPU
of the fastest of a few runs, formulation, building and solving together. Not compared: rounding, disaggregation and the
referee, which the peers do not have. PyPSA knows no longest off time, so ours is solved without it for that comparison;
what remains of the difference in objectives are our tie-breaks.
"""

import json
import time
from dataclasses import replace
from typing import Any

from cloud.planner.formulate import (
    IMPORT_PENALTY_USD_PER_MWH,
    PER_PLACE_USD,
    PER_STOP_USD,
    RAMP_PENALTY_USD_PER_MW,
    SHED_PENALTY_USD_PER_MWH,
    formulate,
)
from cloud.planner.model import Problem
from cloud.planner.solver import solve
from sitelink.units import hash_revenue_usd_per_h
from tests.bench.peer import PEERS, Child, peer_python
from tests.bench.report import say

_LIMIT_S = 60.0


def compare(problem: Problem, runs: int) -> tuple[dict[str, float], dict[str, float]] | None:
    """Return our figures (ratios and objective differences) and the peers', or None when these cannot be had."""
    python = peer_python("planners")
    if python is None:
        return None
    rules = replace(problem.rules, max_off=None)
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    with Child(str(python), str(PEERS / "planners.py")) as child:
        for name, asked in (("linopy", problem), ("pypsa", replace(problem, rules=rules))):
            seconds, objective = _ours(asked, runs)
            child.tell(json.dumps({"peer": name, "runs": runs, **_plain(problem)}))
            found = json.loads(_answer(child))
            say(f"{name}: ours {seconds:.3f} s, {objective:.4f} USD; {found}")
            theirs |= {f"{name}_{key}": value for key, value in found.items() if key != "status"}
            theirs[f"{name}_ours_s"] = seconds
            ours[f"ratio_{name}"] = found["seconds"] / seconds
            ours[f"objective_difference_{name}"] = abs(found["objective_usd"] - objective) / abs(objective)
    return ours, theirs


def _ours(problem: Problem, runs: int) -> tuple[float, float]:
    best, objective = float("inf"), 0.0
    for _ in range(runs):
        began = time.process_time()
        objective = solve(formulate(problem), _LIMIT_S).objective_usd
        best = min(best, time.process_time() - began)
    return best, objective


def _answer(child: Child) -> str:
    """Return the next answer; a solver may talk in between."""
    while not (line := child.hear()).startswith("="):
        pass
    return line[1:]


def _plain(problem: Problem) -> dict[str, Any]:
    rules, slot = problem.rules, problem.slots[0].interval
    step = slot.end - slot.start
    assert rules.max_off is not None
    assert rules.import_limit_w is not None
    assert rules.ramp_w is not None
    return {
        "hours": problem.slots[0].hours,
        "units": [len(group.units) for group in problem.groups],
        "power_mw": [group.unit_power_w / 1e6 for group in problem.groups],
        "revenue_usd_per_h": [
            hash_revenue_usd_per_h(rules.hashprice, item.unit_hashrate_ths) for item in problem.groups
        ],
        "prices": [item.price_usd_per_mwh for item in problem.slots],
        "caps_mw": [None if item.cap_w is None else item.cap_w / 1e6 for item in problem.slots],
        "constant_mw": [item.constant_w / 1e6 for item in problem.slots],
        "import_mw": rules.import_limit_w / 1e6,
        "ramp_mw": rules.ramp_w / 1e6,
        "min_up": max(1, rules.min_up // step),
        "min_down": max(1, rules.min_down // step),
        "max_off": rules.max_off // step,
        "shed_usd_per_mwh": SHED_PENALTY_USD_PER_MWH,
        "import_usd_per_mwh": IMPORT_PENALTY_USD_PER_MWH,
        "ramp_usd_per_mw": RAMP_PENALTY_USD_PER_MW,
        "per_stop_usd": PER_STOP_USD,
        "per_place_usd": PER_PLACE_USD,
    }
