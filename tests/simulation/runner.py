"""Plays blocks of seeds in processes of their own; the garbage of dead processes is collected between blocks only."""

import gc
import logging
import multiprocessing
import sys
from collections import Counter

from tests.simulation.families import Finding, play_seed

BLOCK = 50


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def play_block(seeds: range) -> tuple[list[Finding], Counter[str]]:
    """Play a block of seeds in this process."""
    logging.disable(logging.CRITICAL)
    findings: list[Finding] = []
    coverage: Counter[str] = Counter()
    for seed in seeds:
        played = play_seed(seed)
        findings += played.findings
        coverage.update(played.coverage)
    gc.collect()
    return findings, coverage


def play_many(first: int, count: int, workers: int) -> tuple[list[Finding], Counter[str]]:
    """Play ``count`` histories from seed ``first`` on, in ``workers`` processes."""
    blocks = [range(at, min(at + BLOCK, first + count)) for at in range(first, first + count, BLOCK)]
    findings: list[Finding] = []
    coverage: Counter[str] = Counter()
    done = 0
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for broken, reached in pool.imap_unordered(play_block, blocks):
            done += BLOCK
            findings += broken
            coverage.update(reached)
            for finding in broken:
                say(f"seed {finding.seed} ({finding.family}): {finding.invariant}: {finding.words}")
            if done % (10 * BLOCK) == 0:
                say(f"{min(done, count)} of {count} histories, {len(findings)} violations")
    return findings, coverage
