"""Real agents that finish a curtailment alone: the link cut at a random moment, the process killed -9 in half the runs.

    python -m tests.bench.linkcut [--runs 200] [--quick]

Each run is a site of its own in one simulator: an agent process, a cloud, a link, five miners behind one feeder's meter.
It holds when its miners stop at the plan's start, each proven by the meter, stay off until its end, are restored, and
the cloud, once the link is back, has every number of the buffer once and the whole journal. A quarter as many runs
again have their wall clock stepped by an hour while they run; a tenth boot cold, with a wrong clock and without a link,
and must follow the site's fallback and journal it.
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulator.site import allow_files
from tests.bench.report import arguments, finish, say
from tests.e2e.cut import WINDOW_S, ColdBoot, Course, Cut, Outcomes, drawn, net_of

_FILES_A_RUN = 60
_STAGGER_S = 0.4
"""Starts are spread: two cores are not to start thirty interpreters at once."""
_QUICK_WINDOW_S = 14.0


@dataclass(frozen=True)
class Plan:
    """One run to be: ``kind`` is plain, stepped or cold."""

    kind: str
    course: Course
    fallback: str = "run"


@dataclass
class Tally:
    """How the runs of one kind went."""

    runs: int = 0
    held: int = 0
    outcomes: list[Outcomes] = field(default_factory=list)


def planned(runs: int, seed: int, window_s: float) -> list[Plan]:
    """Return ``runs`` plain runs, and the variants beside them, each with a seed of its own."""
    plans = [Plan("plain", drawn(seed + n, killed=n % 2 == 0, stepped=False, window_s=window_s)) for n in range(runs)]
    first = seed + runs
    stepped = [
        Plan("stepped", drawn(first + n, killed=n % 2 == 0, stepped=True, window_s=window_s))
        for n in range(-(-runs // 4))
    ]
    first += len(stepped)
    cold = [
        Plan("cold", drawn(first + n, killed=False, stepped=False, window_s=window_s), ("run", "stop")[n % 2])
        for n in range(max(2, runs // 10))
    ]
    return plans + stepped + cold


async def _play(plan: Plan, folder: Path, slot: int) -> Outcomes:
    kind = ColdBoot if plan.kind == "cold" else Cut
    run = kind(folder, net_of(slot), plan.course, plan.fallback)
    try:
        return await run.played()
    except BaseExceptionGroup as group:
        outcomes = run.outcomes
        outcomes.faults.append(f"broken off: {group.exceptions[0]!r}")
        return outcomes


async def _play_all(plans: Sequence[Plan], parallel: int, folder: Path) -> dict[str, Tally]:
    tallies = {kind: Tally() for kind in ("plain", "stepped", "cold")}
    waiting = list(reversed(list(enumerate(plans))))

    async def work(slot: int) -> None:
        await asyncio.sleep(slot * _STAGGER_S)
        while waiting:
            number, plan = waiting.pop()
            place = folder / f"run-{number}"
            place.mkdir()
            outcomes = await _play(plan, place, slot)
            tally = tallies[plan.kind]
            tally.runs, tally.held = tally.runs + 1, tally.held + (not outcomes.faults)
            tally.outcomes.append(outcomes)
            if outcomes.faults:
                say(f"{plan}: {'; '.join(outcomes.faults)} ({place})")
            else:
                shutil.rmtree(place)

    async with asyncio.TaskGroup() as group:
        for slot in range(min(parallel, len(plans))):
            group.create_task(work(slot))
    return tallies


def figures(tallies: dict[str, Tally], seconds: float) -> dict[str, float]:
    """Return the figures, over all kinds where it is a maximum or a count of what went wrong."""
    every = [outcomes for tally in tallies.values() for outcomes in tally.outcomes]
    cut = [outcomes for kind in ("plain", "stepped") for outcomes in tallies[kind].outcomes]
    unknown = sum(outcomes.start_error_s is None for outcomes in cut)
    return {
        "runs": tallies["plain"].runs,
        "held": tallies["plain"].held,
        "start_error_max_s": round(max((o.start_error_s or 0.0 for o in cut), default=0.0), 2),
        "never_started": unknown,
        "restored_max_s": round(max((o.restored_s or 0.0 for o in cut), default=0.0), 2),
        "left_off": sum(outcomes.left_off for outcomes in every),
        "journal_missing": sum(outcomes.journal_missing for outcomes in every),
        "stepped_runs": tallies["stepped"].runs,
        "stepped_held": tallies["stepped"].held,
        "cold_boots": tallies["cold"].runs,
        "cold_boots_held": tallies["cold"].held,
        "seconds": round(seconds),
    }


def _options() -> argparse.Namespace:
    parser = arguments("linkcut", __doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200, help="plain runs; the variants come beside them (200)")
    parser.add_argument("--parallel", type=int, default=28, help="runs at a time, at most 80 (28)")
    return parser.parse_args()


def main() -> None:
    """Play the runs and print the figures."""
    options = _options()
    runs, window_s = (6, _QUICK_WINDOW_S) if options.quick else (options.runs, WINDOW_S)
    parallel = max(1, min(options.parallel, 80))
    allow_files(parallel * _FILES_A_RUN)
    folder = Path(tempfile.mkdtemp(prefix="linkcut-"))
    began_s = time.monotonic()
    tallies = asyncio.run(_play_all(planned(runs, options.seed, window_s), parallel, folder))
    if not any(folder.iterdir()):
        folder.rmdir()
    finish("linkcut", figures(tallies, time.monotonic() - began_s), options.seed)


if __name__ == "__main__":
    main()
