"""The demo's count of what is not stored: what an agent still buffers is not delivered, and not lost."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from cloud.cli.demo.delivery import Delivery, lacking, tally
from cloud.cli.demo.judge import delivery
from cloud.cli.demo.places import Places
from cloud.cli.demo.record import Record
from cloud.cli.demo.stage import Options, SiteStage, Stage
from cloud.cli.demo.watch import Watch
from cloud.hosting.model import EpochCounts, StoredCounts
from tests.unit.cloud.test_demo_captures import FIGURES

SITES = tuple(SiteStage(site_id, Path("/nowhere"), "", "", "", "") for site_id in ("pecos-1", "pecos-2"))
SCENE = Stage(Options(once=True, miners=30, seed=1, kills=0), Path("/nowhere"), Places(1), "", "", "", "", SITES)


def stored(site_id: str, last_seq: int, missing: int = 0, epoch: str = "e1") -> EpochCounts:
    return EpochCounts(site_id, epoch, 3, last_seq + 1 - missing, 0, last_seq, missing, 0)


def agent(next_seq: int, batches: int, epoch: str | None = "e1") -> dict[str, Any]:
    return {"numbering": {"epoch": epoch, "next_seq": next_seq}, "backlog": {"batches": batches}}


# What the store and the agents said when a story broke off with the cable cut: 7 numbers stood in a gap, buffered.
CUT = StoredCounts((stored("pecos-1", 99, missing=7), stored("pecos-2", 49)), 0)


def test_a_gap_that_the_agent_still_buffers_is_not_delivered_and_not_lost() -> None:
    assert tally(CUT, {"pecos-1": agent(120, 4), "pecos-2": agent(50, 0)}) == Delivery(lost=0, undelivered=27)


def test_what_an_empty_buffer_does_not_hold_and_the_store_lacks_is_lost() -> None:
    assert tally(CUT, {"pecos-1": agent(100, 0), "pecos-2": agent(55, 1)}) == Delivery(lost=7, undelivered=5)


def test_a_gap_of_an_earlier_epoch_counts_and_a_site_that_numbered_nothing_lacks_nothing() -> None:
    counts = StoredCounts((stored("pecos-1", 9, missing=2, epoch="e0"), stored("pecos-1", 9)), 0)
    assert tally(counts, {"pecos-1": agent(10, 0), "pecos-2": agent(0, 0, None)}) == Delivery(lost=2, undelivered=0)


@pytest.mark.parametrize(("counts", "status"), [(None, agent(5, 1)), (CUT, None)])
def test_what_nobody_tells_is_not_known(counts: StoredCounts | None, status: dict[str, Any] | None) -> None:
    assert tally(counts, {"pecos-1": status}) == Delivery(lost=0, undelivered=None)


def test_a_store_that_does_not_answer_lacks_every_number() -> None:
    assert lacking(None, "pecos-1", "e1", 5) == 5
    assert lacking(CUT, "pecos-1", "other", 5) == 5


class World:
    """Stands in for ``Watch``: the store's answers in turn, the last for ever."""

    def __init__(self, *counts: StoredCounts, batches: int) -> None:
        self.counts = list(counts)
        self.batches = batches

    def agent(self, site: SiteStage) -> dict[str, Any]:
        return agent(100 if site.site_id == "pecos-1" else 50, self.batches)

    def read(self, _work: Callable[[Any], Any]) -> StoredCounts:
        return self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]


def test_a_story_that_broke_off_while_the_cable_was_cut_lost_nothing() -> None:
    found = delivery(SCENE, Record(), cast("Watch", World(CUT, batches=2)))
    assert found == Delivery(lost=0, undelivered=7)
    figures = replace(FIGURES, samples_lost=found.lost, samples_undelivered=found.undelivered)
    assert figures.failures() == ("7 samples are not delivered, but buffered",)
    assert replace(FIGURES, samples_undelivered=None).failures() == ("how many samples are not delivered is not known",)


def test_a_gap_that_closes_at_a_second_look_was_under_way_and_one_that_stays_is_a_loss() -> None:
    whole = StoredCounts((stored("pecos-1", 99), stored("pecos-2", 49)), 0)
    assert delivery(SCENE, Record(), cast("Watch", World(CUT, whole, batches=0))) == Delivery(0, 0)
    assert delivery(SCENE, Record(), cast("Watch", World(CUT, batches=0))) == Delivery(7, 0)


def test_a_story_that_was_told_counts_every_gap_as_a_loss() -> None:
    told = Record(all_stored=True)
    assert delivery(SCENE, told, cast("Watch", World(CUT, batches=2))) == Delivery(7, 0)
