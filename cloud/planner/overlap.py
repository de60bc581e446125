"""Which curtailments overlap, directly or through one another, and so share what the meter shows. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sitelink.types import Interval


@dataclass(frozen=True, slots=True)
class Window:
    """A curtailment without its miners; ``revision`` is the plan that last changed it."""

    curtailment_id: str
    interval: Interval
    revision: int


@dataclass(frozen=True, slots=True)
class Case:
    """A curtailment to weigh. ``rivals`` overlap it; ``begin`` is when the first of the whole cluster began."""

    own: Window
    rivals: tuple[Window, ...]
    begin: datetime


def hull(windows: Sequence[Window], interval: Interval) -> Interval:
    """Return ``interval`` widened to hold all of ``windows``."""
    return Interval(
        min([interval.start, *(item.interval.start for item in windows)]),
        max([interval.end, *(item.interval.end for item in windows)]),
    )


def cases(windows: Sequence[Window], since: datetime, now: datetime) -> Iterator[Case]:
    """Yield what is to be weighed: all that has ended of every cluster in which something ended in ``[since, now)``.

    A cluster is weighed whole, so that late data on one curtailment also lowers what its neighbours were credited.
    ``windows`` stand by start.
    """
    for cluster in _clusters(windows):
        ended = [item for item in cluster if item.interval.end < now]
        if any(item.interval.end >= since for item in ended):
            for own in sorted(ended, key=lambda item: (item.interval.end, item.curtailment_id)):
                rivals = tuple(item for item in cluster if item is not own and _overlap(item.interval, own.interval))
                yield Case(own, rivals, cluster[0].interval.start)


def _clusters(windows: Sequence[Window]) -> Iterator[list[Window]]:
    cluster: list[Window] = []
    for item in windows:
        if cluster and item.interval.start >= max(member.interval.end for member in cluster):
            yield cluster
            cluster = []
        cluster.append(item)
    if cluster:
        yield cluster


def _overlap(one: Interval, other: Interval) -> bool:
    return one.start < other.end and other.start < one.end
