"""The referee names every breach; rounding and greedy never give it one to name."""

import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.planner.check import check, loads_w
from cloud.planner.disaggregate import disaggregate
from cloud.planner.formulate import formulate
from cloud.planner.greedy import greedy_schedule
from cloud.planner.model import Group, Problem, Rules, Schedule
from cloud.planner.optimise import optimise
from cloud.planner.round import round_counts, thresholds
from cloud.planner.solver import solve
from sitelink.units import Watts
from tests.unit.planner.samples import HASHPRICE, QUARTER, START, group, miner, problem, slots

PRICES: list[float | None] = [20.0] * 8
RULES = Rules(HASHPRICE, min_up=QUARTER * 2, min_down=QUARTER * 2, max_off=QUARTER * 4)


def one(ranges: tuple[tuple[int, int], ...], rules: Rules = RULES, **times: object) -> tuple[str, ...]:
    case = problem(PRICES, [group("g", [miner("m")], **times)], rules)  # type: ignore[arg-type]
    return check(case, Schedule({"g": (ranges,)})).violations


@pytest.mark.parametrize(
    ("ranges", "sign"),
    [
        (((2, 3),), "off only 0:15:00"),
        (((1, 3), (4, 6)), "ran only 0:15:00"),
        (((1, 6),), "the longest is 1:00:00"),
        (((3, 2),), "overlap or leave"),
        (((1, 3), (2, 5)), "overlap or leave"),
        (((1, 9),), "overlap or leave"),
    ],
)
def test_every_broken_timer_is_named(ranges: tuple[tuple[int, int], ...], sign: str) -> None:
    assert any(sign in item for item in one(ranges))


def test_what_keeps_the_rules_is_not_named() -> None:
    assert one(((0, 4),)) == ()
    assert one(((1, 3), (5, 8))) == ()
    assert one(((7, 8),)) == ()  # reaches the horizon: its release lies beyond


def test_initial_timers_bind() -> None:
    assert any("before" in item for item in one(((1, 3),), earliest_stop=START + QUARTER * 2))
    assert one(((2, 4),), earliest_stop=START + QUARTER * 2) == ()
    stopped = {"off_since": START - QUARTER, "earliest_start": START + QUARTER}
    assert any("before" in item for item in one((), **stopped))
    assert one(((0, 1),), **stopped) == ()
    assert any("the longest" in item for item in one(((0, 4),), **stopped))


def test_a_schedule_of_another_fleet_is_refused() -> None:
    case = problem(PRICES, [group("g", [miner("m")])])
    assert check(case, Schedule({"h": ((),)})).violations
    assert check(case, Schedule({"g": ((), ())})).violations


def test_slack_is_what_load_exceeds_the_limits_by() -> None:
    case = Problem(
        slots([20.0] * 4, [None, 3000.0, None, None], 1000.0),
        (group("g", [miner("a"), miner("b")]),),
        Rules(HASHPRICE, import_limit_w=Watts(7500.0), ramp_w=Watts(4000.0)),
    )
    score = check(case, Schedule({"g": (((1, 2),), ((1, 3),))}))
    assert loads_w(case, Schedule({"g": (((1, 2),), ((1, 3),))})) == (8000, 1000, 4500, 8000)
    assert score.slack_mwh == pytest.approx(2 * 500 / 1e6 / 4)
    assert score.slack_mw == pytest.approx(3000 / 1e6)
    assert score.violations == ()


def scene(seed: int) -> Problem:
    draw = random.Random(seed)
    groups: list[Group] = []
    for kind in range(draw.randint(1, 4)):
        members = [miner(f"k{kind}-{n:03d}", 2500 + 500 * kind, 150.0) for n in range(draw.choice([5, 25, 60]))]
        groups.append(group(f"g{kind}", members))
    if draw.random() < 0.5:
        held = tuple(miner(f"b-{n}", 3000, 150.0) for n in range(7))
        since = START - QUARTER * draw.randint(1, 3)
        groups.append(Group("block", (held,), off_since=since, earliest_start=max(START, since + QUARTER * 2)))
    n = 16
    prices: list[float | None] = [draw.choice([10.0, 60.0, 110.0, 900.0, None]) for _ in range(n)]
    full = sum(item.unit_power_w * len(item.units) for item in groups)
    caps: list[float | None] = [full * draw.uniform(0, 1) if draw.random() < 0.3 else None for _ in range(n)]
    rules = Rules(
        HASHPRICE,
        min_up=QUARTER * draw.randint(0, 3),
        min_down=QUARTER * draw.randint(0, 3),
        max_off=draw.choice([None, QUARTER * 4, QUARTER * 6]),
        import_limit_w=draw.choice([None, Watts(full * 0.9)]),
        ramp_w=draw.choice([None, Watts(full * 0.3)]),
    )
    return Problem(slots(prices, caps, 1000.0), tuple(groups), rules)


@pytest.mark.parametrize("seed", range(25))
def test_every_rounding_of_the_programme_is_legal(seed: int) -> None:
    case = scene(seed)
    solution = solve(formulate(case), 3.0)
    for theta in thresholds(len(case.groups)):
        schedule = disaggregate(case, round_counts(case, solution.values, theta))
        assert check(case, schedule).violations == ()


@given(st.integers(0, 10**6))
def test_greedy_is_always_legal(seed: int) -> None:
    case = scene(seed)
    assert check(case, greedy_schedule(case)).violations == ()


@pytest.mark.parametrize("seed", range(25))
def test_the_answer_is_near_its_bound_and_never_below_greedy(seed: int) -> None:
    case = scene(seed)
    answer = optimise(case, 3.0)
    assert answer.objective_usd >= check(case, greedy_schedule(case)).objective_usd - 1e-6
    assert answer.objective_usd <= answer.bound_usd + 1e-6
    assert answer.gap >= 0


def test_equal_inputs_give_an_equal_answer() -> None:
    case = scene(11)
    assert optimise(case, 3.0) == optimise(case, 3.0)
    assert timedelta(0) <= QUARTER


def test_the_gap_of_a_large_fleet_is_small() -> None:
    groups = [group(f"g{k}", [miner(f"{k}-{n:04d}", 2500 + 250 * k, 150.0) for n in range(250)]) for k in range(4)]
    caps: list[float | None] = [None] * 6 + [1_500_000.0] * 4 + [None] * 6
    case = Problem(slots([40.0] * 16, caps), tuple(groups), Rules(HASHPRICE, min_up=QUARTER * 2, min_down=QUARTER * 2))
    answer = optimise(case, 3.0)
    assert answer.slack_mwh == 0
    assert answer.gap <= 1e-3
