"""Plays many histories and says what broke: ``python -m tests.simulation --histories 10000``.

    --histories N   so many fresh histories (default 500), from --seed S on (default: the clock's microseconds)
    --schedule FILE play a saved schedule instead, and print its trace
    --mutant NAME   hunt one planted bug instead of playing histories
    --no-mutants    play histories alone
    --shrink        save a short form of the first history that fails of each invariant under regressions/

Progress goes to stderr, one JSON line comes last: ``histories``, ``violations``, ``seconds``, ``mutants``,
``mutants_caught``. The exit status is 1 when anything broke.
"""

import argparse
import json
import logging
import multiprocessing
import os
import sys
import time
from pathlib import Path

from tests.simulation.edge.generate import generate
from tests.simulation.edge.hunt import hunt_named
from tests.simulation.edge.mutants import MUTANTS
from tests.simulation.edge.play import play
from tests.simulation.edge.schedule import load, to_json
from tests.simulation.edge.shrink import shrink
from tests.simulation.families import Finding
from tests.simulation.runner import play_many, say

REGRESSIONS = Path(__file__).parent / "regressions"
SHOWN = 20


def play_saved(path: Path) -> int:
    """Play one saved schedule and print its trace."""
    played = play(load(path))
    for line in played.world.trace:
        print(*line)
    for invariant, words in played.world.violations:
        say(f"{invariant}: {words}")
    say(f"trace {played.world.trace_hash()}")
    return bool(played.world.violations)


def save_short(findings: list[Finding]) -> None:
    """Save a short form of the first history that fails of each invariant."""
    for invariant in sorted({finding.invariant for finding in findings if finding.family == "edge"}):
        seed = min(finding.seed for finding in findings if finding.invariant == invariant)
        short = shrink(generate(seed), invariant)
        path = REGRESSIONS / f"{invariant.replace(' ', '-')}-{seed}.json"
        path.write_text(to_json(short))
        say(f"{path}: {short.words()}")


def hunt_all(names: list[str], workers: int) -> int:
    """Hunt the planted bugs of these names; return how many were found."""
    found = 0
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for name, caught in pool.imap_unordered(hunt_named, names):
            found += caught is not None
            where = (
                "not found"
                if caught is None
                else f"{caught.invariant}, by seed {caught.seed}, {caught.histories} played"
            )
            say(f"{name}: {where}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--histories", type=int, default=500)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--schedule", type=Path)
    parser.add_argument("--mutant", choices=sorted(MUTANTS))
    parser.add_argument("--no-mutants", action="store_true")
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if given.schedule is not None:
        return play_saved(given.schedule)
    if given.mutant is not None:
        return hunt_all([given.mutant], 1) != 1
    first = given.seed if given.seed is not None else time.time_ns() // 1000 % 10**9 * 100
    say(f"{given.histories} histories from seed {first} on")
    began = time.perf_counter()
    findings, coverage = play_many(first, given.histories, given.workers)
    seconds = round(time.perf_counter() - began, 1)
    say("rarest: " + ", ".join(f"{state} {times}" for state, times in coverage.most_common()[: -SHOWN - 1 : -1]))
    if given.shrink:
        save_short(findings)
    names = [] if given.no_mutants else sorted(MUTANTS)
    caught = hunt_all(names, given.workers)
    line = {
        "histories": given.histories,
        "violations": len(findings),
        "seconds": seconds,
        "mutants": len(names),
        "mutants_caught": caught,
    }
    print(json.dumps(line))
    return bool(findings) or caught < len(names)


if __name__ == "__main__":
    sys.exit(main())
