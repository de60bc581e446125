"""Makes a failing schedule short: while the same invariant breaks, events are taken out and the network is quietened.

Invariant: what is returned fails the same way as what was given; it is plain data, and outlives the generator.
Source: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, IEEE TSE 28(2), 2002 (ddmin).
"""

from collections.abc import Callable
from dataclasses import replace

from tests.simulation.edge.play import play
from tests.simulation.edge.schedule import QUIET, Event, Schedule


def broken(schedule: Schedule) -> set[str]:
    """Return the invariants that the history of ``schedule`` breaks."""
    return {invariant for invariant, _ in play(schedule).world.violations}


def shrink(schedule: Schedule, invariant: str, breaks: Callable[[Schedule], set[str]] = broken) -> Schedule:
    """Return a short schedule that breaks ``invariant`` as ``schedule`` does."""

    def fails(candidate: Schedule) -> bool:
        return invariant in breaks(candidate)

    for calm in ({"network": dict(QUIET)}, {"real_keys": False}, {"tier": "memory"}):
        calmer = replace(schedule, **calm)  # type: ignore[arg-type]
        if calmer != schedule and fails(calmer):
            schedule = calmer
    return replace(schedule, events=_fewest(schedule, fails))


def _fewest(schedule: Schedule, fails: Callable[[Schedule], bool]) -> tuple[Event, ...]:
    events, pieces = schedule.events, 2
    while len(events) >= 2:
        size = max(1, len(events) // pieces)
        for start in range(0, len(events), size):
            fewer = events[:start] + events[start + size :]
            if fails(schedule.with_events(fewer)):
                events, pieces = fewer, max(pieces - 1, 2)
                break
        else:
            if size == 1:
                break
            pieces = min(len(events), pieces * 2)
    return events
