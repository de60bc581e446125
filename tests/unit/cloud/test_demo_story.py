"""The demo's story against a world that is played: what a step waits for, how long, and what it says when it fails."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from cloud.cli.demo import wording
from cloud.cli.demo.narrator import Narrator
from cloud.cli.demo.places import Places
from cloud.cli.demo.processes import Crew
from cloud.cli.demo.record import Event
from cloud.cli.demo.stage import INTERVAL_S, Options, SiteStage, Stage
from cloud.cli.demo.story import StepFailed, Story
from cloud.cli.demo.watch import TrueMiner, Watch
from sitelink.clock import ManualClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOOK_S = 9.0
SITE = SiteStage("pecos-1", Path("/nowhere"), "127.20", "", "", "")
OPTIONS = Options(once=True, miners=30, seed=1, kills=0)


def miner(number: int, *, hashing: bool, liar: str | None = None, feeder: str = "pecos-1-F03") -> TrueMiner:
    return TrueMiner(f"m{number}", dead=False, liar=liar, hashing=hashing, feeder_id=feeder)


class World:
    """Stands in for ``Watch``: a look at the truth takes ``LOOK_S``."""

    def __init__(self, clock: ManualClock, truth: Callable[[datetime], list[TrueMiner]]) -> None:
        self.clock = clock
        self.of = truth

    def truth(self, _site: SiteStage) -> Mapping[str, TrueMiner]:
        found = self.of(self.clock.now())
        self.clock.advance(LOOK_S)
        return {each.miner_id: each for each in found}

    def read(self, _work: Callable[[Any], Any]) -> None:
        return None


def told(truth: Callable[[datetime], list[TrueMiner]], release_s: float = 48.0) -> Story:
    clock = ManualClock(START)
    scene = Stage(OPTIONS, Path("/nowhere"), Places(1), "", "", "", "", (SITE,))
    world = cast("Watch", World(clock, truth))
    story = Story(scene, cast("Crew", None), world, Narrator(clock, terminal=False), clock)
    ids = frozenset(each.miner_id for each in truth(START))
    story.record.events["pecos-1"] = Event(1, ("c",), ids, START, START, START + timedelta(seconds=release_s))
    return story


def hold(story: Story) -> str:
    step = dict(story._steps())["Hold without the cloud"]
    return step(lambda _line: None)


def test_the_spike_leaves_a_slow_feeder_its_time_and_the_story_its_two_minutes() -> None:
    assert OPTIONS.spike_intervals * INTERVAL_S == 48


def test_the_hold_ends_at_the_release_and_names_who_still_ran_and_their_feeder() -> None:
    release = START + timedelta(seconds=48)

    def truth(now: datetime) -> list[TrueMiner]:
        late = now >= release  # past it all start again, as they should: no reason to name them
        return [miner(1, hashing=late), miner(2, hashing=True), miner(3, hashing=True, liar="reports_idle")]

    story = told(truth)
    with pytest.raises(StepFailed) as failed:
        hold(story)
    assert str(failed.value) == (
        "not every live miner stopped, 1 still running: m2 on pecos-1-F03; by the release at 12:00:48 UTC"
    )
    assert story._clock.now() < release + timedelta(seconds=LOOK_S + 1)


def test_the_hold_is_held_by_the_last_look_before_the_release() -> None:
    done = START + timedelta(seconds=4 * LOOK_S)
    assert hold(told(lambda now: [miner(1, hashing=now < done)])) == "1 miners idle, 0 liars still running"


def test_a_hold_that_begins_past_the_release_still_names_whom_it_saw() -> None:
    with pytest.raises(StepFailed, match=r"1 still running: m1 on pecos-1-F03; by the release at 11:59:59 UTC"):
        hold(told(lambda _now: [miner(1, hashing=True)], release_s=-1))


def test_a_start_that_is_not_ahead_is_now() -> None:
    assert [wording.ahead(seconds) for seconds in (15.2, 0.6, 0.4, 0.0, -1.0)] == ["in 15 s", "in 1 s", *["now"] * 3]


def test_of_many_missing_miners_the_first_are_named_and_the_rest_counted() -> None:
    many = [miner(number, hashing=True, feeder=f"F{number % 2}") for number in range(9)]
    assert wording.missing(many) == (
        "9 still running: m0 on F0, m2 on F0, m4 on F0, m6 on F0, m8 on F0, m1 on F1, 3 more"
    )
