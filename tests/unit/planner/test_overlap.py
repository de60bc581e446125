"""Curtailments that overlap are weighed together, however late the last of them ends."""

from datetime import timedelta

from cloud.planner.overlap import Window, cases, hull
from sitelink.types import Interval
from tests.unit.planner.samples import START

MINUTE = timedelta(minutes=1)


def window(name: str, start: int, end: int) -> Window:
    return Window(name, Interval(START + start * MINUTE, START + end * MINUTE), 1)


def found(windows: list[Window], since: int, now: int) -> list[tuple[str, list[str], int]]:
    return [
        (case.own.curtailment_id, [rival.curtailment_id for rival in case.rivals], (case.begin - START) // MINUTE)
        for case in cases(windows, START + since * MINUTE, START + now * MINUTE)
    ]


def test_a_cluster_is_weighed_whole_as_soon_as_and_as_long_as_one_of_it_counts() -> None:
    chain = [window("a", 0, 10), window("b", 8, 30), window("c", 20, 40), window("d", 40, 50)]
    assert found(chain, 0, 35) == [("a", ["b"], 0), ("b", ["a", "c"], 0)]
    assert found(chain, 35, 45) == [("a", ["b"], 0), ("b", ["a", "c"], 0), ("c", ["b"], 0)]
    assert found(chain, 45, 60) == [("d", [], 40)]
    assert found([], 0, 60) == []


def test_the_hull_holds_all() -> None:
    assert hull([window("a", -5, 2), window("b", 1, 90)], window("", 0, 60).interval) == window("", -5, 90).interval
