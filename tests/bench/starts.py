"""How long programs take to start, against a bare interpreter of the same environment.

Bytecode is cached, as it is where pip has installed a package, whatever the caller's environment says. The runs take
turns, so that a busy moment meets all of them; a figure is a median of user and system time, which other processes of
the machine disturb least.
"""

import os
import resource
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.report import ROOT

_BYTECODE = ROOT / ".cache" / "bench" / "bytecode"


def over_bare(python: Path, commands: Mapping[str, Sequence[str]], runs: int) -> dict[str, float]:
    """Return for each command (arguments to ``python``) its CPU time over that of ``python -c pass``."""
    wanted = {"": ("-c", "pass"), **commands}
    spent: dict[str, list[float]] = {name: [] for name in wanted}
    for run in range(runs + 1):
        for name, arguments in wanted.items():
            seconds = _cpu_s([str(python), *arguments])
            if run > 0:  # the first compiles
                spent[name].append(seconds)
    bare = statistics.median(spent.pop(""))
    return {name: statistics.median(times) / bare for name, times in spent.items()}


def _cpu_s(command: Sequence[str]) -> float:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "PYTHONPYCACHEPREFIX": str(_BYTECODE)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:  # 1: the miner that is looked at does not answer
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
