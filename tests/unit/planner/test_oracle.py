"""Exhaustive enumeration of tiny instances is the oracle for solver, rounding, disaggregation and bound."""

import itertools
import random
from datetime import timedelta
from pathlib import Path

import pytest

from cloud.planner import solver
from cloud.planner.check import check
from cloud.planner.merit import ranges_of, relaxed_bound_usd
from cloud.planner.model import Method, Problem, Rules, Schedule
from cloud.planner.optimise import optimise
from sitelink.units import Watts
from tests.unit.planner.samples import HASHPRICE, QUARTER, START, group, miner, slots

SLOTS = 8


def tiny(seed: int, *, alike: bool) -> Problem:
    draw = random.Random(seed)
    base = 3300.0
    miners = [
        miner(f"m{place}", base if alike else base + 150 * place, 200.0 if alike else 200.0 - 20 * place)
        for place in range(3)
    ]
    prices: list[float | None] = [
        draw.choice([20.0, 60.0, 110.0, 130.0, 400.0]) * draw.uniform(0.9, 1.1) for _ in range(SLOTS)
    ]
    caps: list[float | None] = [None] * SLOTS
    first = draw.randrange(SLOTS - 2)
    for place in range(first, first + draw.choice([1, 2, 3])):
        if place < SLOTS:
            caps[place] = draw.choice([0.0, 3600.0, 7200.0]) + 1000.0
    groups = [group("all", miners)] if alike else [group(item.miner_id, [item]) for item in miners]
    rules = Rules(
        HASHPRICE,
        min_up=QUARTER * draw.choice([0, 1, 2]),
        min_down=QUARTER * draw.choice([0, 1, 2]),
        max_off=draw.choice([None, QUARTER * 4]),
        import_limit_w=draw.choice([None, Watts(9000.0)]),
        ramp_w=draw.choice([None, Watts(5000.0)]),
    )
    return Problem(slots(prices, caps, 1000.0), tuple(groups), rules)


def best_by_enumeration(problem: Problem) -> float:
    """Return the best objective over every on/off pattern of every miner that the referee accepts."""
    legal_by_group = []
    for item in problem.groups:
        single = Problem(problem.slots, (type(item)(item.name, item.units[:1]),), problem.rules)
        patterns = [ranges_of(list(flags)) for flags in itertools.product([False, True], repeat=len(problem.slots))]
        legal = [ranges for ranges in patterns if not check(single, Schedule({item.name: (ranges,)})).violations]
        legal_by_group.append((item, legal))
    best = float("-inf")
    choices = [
        itertools.combinations_with_replacement(legal, len(item.units))
        if len(item.units) > 1
        else [(ranges,) for ranges in legal]
        for item, legal in legal_by_group
    ]
    for chosen in itertools.product(*(list(choice) for choice in choices)):
        score = check(
            problem, Schedule({item.name: units for (item, _), units in zip(legal_by_group, chosen, strict=True)})
        )
        best = max(best, score.objective_usd)
    return best


@pytest.mark.parametrize("seed", range(12))
def test_answer_equals_exhaustive_enumeration_for_alike_miners(seed: int) -> None:
    problem = tiny(seed, alike=True)
    if problem.rules.min_down < QUARTER * 2:  # keeps the enumeration small
        problem = Problem(
            problem.slots,
            problem.groups,
            Rules(**{**_as_dict(problem.rules), "min_down": QUARTER * 2, "min_up": QUARTER * 2}),
        )
    answer, oracle = optimise(problem), best_by_enumeration(problem)
    assert answer.objective_usd == pytest.approx(oracle, abs=1e-3)
    assert oracle - 1e-6 <= answer.bound_usd <= relaxed_bound_usd(problem) + 1e-6
    assert not check(problem, answer.schedule).violations


def _as_dict(rules: Rules) -> dict[str, object]:
    return {
        name: getattr(rules, name)
        for name in ("hashprice", "min_up", "min_down", "max_off", "import_limit_w", "ramp_w")
    }


@pytest.mark.parametrize("seed", range(6))
def test_solvers_agree_with_each_other(seed: int) -> None:
    problem = tiny(100 + seed, alike=False)
    highs, cbc = optimise(problem, solver="HiGHS"), optimise(problem, solver="CBC")
    assert highs.objective_usd == pytest.approx(cbc.objective_usd, abs=1e-3)


@pytest.mark.parametrize("last_act", ["exit 137", "kill -9 $$"])
def test_a_solver_that_dies_leaves_the_greedy_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_act: str
) -> None:
    dying = tmp_path / "cbc"
    dying.write_text(f"#!/bin/sh\n{last_act}\n")
    dying.chmod(0o755)
    monkeypatch.setattr(solver, "_cbc_path", lambda: str(dying))
    problem = Problem(
        slots([30.0] * 4, [None, 50_000.0, None, None]),
        (group("g", [miner(f"m{n}") for n in range(30)]),),
        Rules(HASHPRICE),
    )
    answer = optimise(problem, solver="CBC")
    assert answer.method is Method.GREEDY
    assert answer.reason.startswith("greedy instead of the solver: CBC died: ")
    assert not check(problem, answer.schedule).violations


def test_solver_out_of_time_falls_back_to_greedy_with_the_reason() -> None:
    problem = next(
        item for item in (tiny(seed, alike=False) for seed in range(50)) if optimise(item).method is Method.SOLVER
    )
    answer = optimise(problem, solver="no such solver")
    assert answer.method is Method.GREEDY
    assert "no solver is installed" in answer.reason
    assert answer.objective_usd <= answer.bound_usd + 1e-9
    assert answer.gap >= 0
    assert not check(problem, answer.schedule).violations
    assert START + timedelta(0) == problem.start
