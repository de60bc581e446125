"""When only prices matter the plan is the break-even rule, miner by miner, whoever computes it."""

import random

import numpy as np
import pytest

from cloud.planner.check import check, loads_w
from cloud.planner.formulate import formulate
from cloud.planner.merit import breakeven_schedule, ranges_of, stopped_by_price
from cloud.planner.model import Method, Problem, Rules
from cloud.planner.optimise import _best_rounding, optimise
from cloud.planner.solver import solve
from sitelink.units import UsdPerMegawattHour, breakeven_usd_per_mwh
from tests.unit.planner.samples import HASHPRICE, QUARTER, group, miner, problem


def fleet(draw: random.Random, count: int = 30) -> list[tuple[str, float, float]]:
    return [(f"m{place:02d}", draw.uniform(2500, 5000), draw.uniform(90, 300)) for place in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_each_miner_is_off_exactly_where_its_breakeven_lies_below_the_price(seed: int) -> None:
    draw = random.Random(seed)
    miners = [miner(*item) for item in fleet(draw)]
    prices: list[float | None] = [draw.uniform(-20, 200) for _ in range(24)]
    case = problem(prices, [group("g", miners)])
    answer = optimise(case)
    assert answer.method is Method.BREAK_EVEN
    assert answer.gap == 0
    for place, item in enumerate(miners):
        edge = breakeven_usd_per_mwh(HASHPRICE, item.efficiency_j_per_th)
        assert answer.schedule.off["g"][place] == ranges_of([price is not None and price > edge for price in prices])


@pytest.mark.parametrize("seed", range(4))
def test_the_programme_finds_the_same_plan_as_the_rule(seed: int) -> None:
    draw = random.Random(seed)
    groups = [
        group(f"g{kind}", [miner(f"m{kind}-{place}", 3000 + 100 * kind, 150.0) for place in range(25)])
        for kind in range(5)
    ]
    case = problem([draw.uniform(0, 200) for _ in range(16)], groups)
    found, _ = _best_rounding(case, solve(formulate(case), 10.0))
    assert found is not None
    assert found.schedule == breakeven_schedule(case)
    assert loads_w(case, found.schedule) == loads_w(case, breakeven_schedule(case))


def test_a_price_equal_to_the_breakeven_stops_nobody() -> None:
    item = miner("m", 3500, 200)
    edge = breakeven_usd_per_mwh(HASHPRICE, item.efficiency_j_per_th)
    assert list(stopped_by_price(np.array([edge]), np.array([edge, edge + 1e-9]))) == [0, 1]


def test_sorted_search_equals_the_schedule() -> None:
    draw = random.Random(3)
    miners = sorted((miner(*item) for item in fleet(draw)), key=lambda item: item.breakeven(HASHPRICE))
    prices = [draw.uniform(0, 200) for _ in range(24)]
    counts = stopped_by_price(np.array([item.breakeven(HASHPRICE) for item in miners]), np.array(prices))
    schedule = breakeven_schedule(problem(list(prices), [group("g", miners)]))
    for slot in range(24):
        off = sum(any(first <= slot < past for first, past in ranges) for ranges in schedule.off["g"])
        assert off == counts[slot]


def test_an_unknown_price_stops_nobody() -> None:
    answer = optimise(problem([None, 500.0, None], [group("g", [miner("m")])]))
    assert answer.schedule.off["g"] == (((1, 2),),)


def test_a_negative_price_never_stops_and_a_hopeless_miner_always_does() -> None:
    hopeless = miner("dud", 100.0, 0.0)
    answer = optimise(problem([-5.0, 10.0], [group("g", [miner("m")]), group("d", [hopeless])]))
    assert answer.schedule.off == {"g": ((),), "d": (((1, 2),),)}


def test_a_spike_shorter_than_the_minimum_time_goes_to_the_solver() -> None:
    rules = Rules(HASHPRICE, min_down=QUARTER * 3)
    case = problem([20.0, 120.0, 20.0, 20.0, 20.0], [group("g", [miner(f"m{n}") for n in range(25)])], rules)
    answer = optimise(case)
    assert answer.method is Method.SOLVER
    assert answer.schedule.off["g"] == ((),) * 25  # half an hour of lost revenue costs more than the short spike
    assert not check(case, answer.schedule).violations
    dear = problem([10.0, 4000.0, 20.0, 20.0, 20.0], [group("g", [miner(f"m{n}") for n in range(25)])], rules)
    assert optimise(dear).schedule.off["g"] == (((1, 4),),) * 25
    assert isinstance(case, Problem)
    assert UsdPerMegawattHour(1.0)
