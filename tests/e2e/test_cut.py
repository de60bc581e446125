"""Real agents, killed -9 and cut off, judged from outside: the bench ``linkcut`` plays many more of these."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.cut import BEFORE_S, RESTART_S, STEP_S, ColdBoot, Course, Cut, net_of

WINDOW_S = 14.0
COURSES = (
    # killed right before the start, cut from the first moment
    Course(1, 0.0, half_open=True, kills_s=(BEFORE_S - 0.5,), window_s=WINDOW_S),
    # cut and killed while the miners go off
    Course(2, BEFORE_S + 0.5, half_open=False, kills_s=(BEFORE_S + 1.0,), window_s=WINDOW_S),
    # killed at the end, after the clock was stepped back and forth
    Course(
        3,
        BEFORE_S + 2.0,
        half_open=False,
        kills_s=(BEFORE_S + WINDOW_S - 0.2,),
        steps=((2.0, -STEP_S), (BEFORE_S + 6.0, STEP_S)),
        window_s=WINDOW_S,
    ),
)


@pytest.mark.slow
async def test_cut_off_killed_misled_by_the_clock_a_plan_is_finished_and_told(tmp_path: Path) -> None:
    runs: list[Cut] = [Cut(tmp_path / str(course.seed), net_of(course.seed), course) for course in COURSES]
    for seed, fallback in ((4, "run"), (5, "stop")):
        course = replace(COURSES[0], seed=seed, window_s=WINDOW_S + 6.0)
        runs.append(ColdBoot(tmp_path / str(seed), net_of(seed), course, fallback))
    for run in runs:
        run.folder.mkdir()
    for run, outcomes in zip(runs, await asyncio.gather(*(run.played() for run in runs)), strict=True):
        assert outcomes.faults == [], run.course
        assert (outcomes.left_off, outcomes.journal_missing) == (0, 0)
        assert isinstance(run, ColdBoot) or (outcomes.start_error_s or 99.0) <= 5.0


def test_the_agent_is_started_again_as_its_unit_says() -> None:
    unit = (Path(__file__).parents[2] / "deploy" / "edge" / "ballast-agent.service").read_text()
    assert f"RestartSec={RESTART_S:g}\n" in unit
    assert "Restart=always\n" in unit
