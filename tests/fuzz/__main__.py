"""Run both fuzzers, each in a process of its own: ``python -m tests.fuzz --seconds N [--seed S] [--engine NAME]``.

Each runs for N seconds. The last line on stdout is one JSON object in the form of the benches. What raised is kept
under ``tests/unit/agent/cgminer/regressions/``, where a test tries it again from then on, and the exit code is 1.
"""

import argparse
import hashlib
import json
import re
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.bench.report import ROOT, finish, say

KEPT: Final = ROOT / "tests" / "unit" / "agent" / "cgminer" / "regressions"
_ENGINES: Final = ("hypothesis", "atheris")
_GRACE_S: Final = 120
TARGET_NAMES: Final = ("parse", "replies", "decode", "text", "identify", "challenge", "web", "framed")
"""As in ``targets``, which is not imported here: atheris has to instrument what it imports."""


def keep(name: str, content: bytes, folder: Path) -> Path:
    """Keep a failing input under its target's name; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}.bin"
    path.write_bytes(content)
    say(f"fuzz: kept {path}")
    return path


def run_hypothesis(seconds: float, seed: int, kept: Path) -> dict[str, int]:
    """Run the structure-aware fuzzer; return inputs tried and how many targets raised."""
    with tempfile.TemporaryDirectory(prefix="ballast-fuzz-") as name:
        done = _run("tests.fuzz.by_structure", seconds, seed, Path(name))
        told = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None
        if told is None:
            raise SystemExit(f"fuzz: hypothesis ended without a result:\n{done.stderr[-2000:]}")
        for target in told["raised"]:
            keep(target, (Path(name) / target).read_bytes(), kept)
        if told["raised"]:
            say(done.stderr)
    return {"hypothesis_inputs": told["inputs"], "hypothesis_raised": len(told["raised"])}


def run_atheris(seconds: float, seed: int, kept: Path) -> dict[str, int]:
    """Run the coverage-guided fuzzer; return inputs tried, branches seen and how many inputs raised."""
    with tempfile.TemporaryDirectory(prefix="ballast-fuzz-") as name:
        done = _run("tests.fuzz.coverage_guided", max(1, int(seconds)), seed % 2**31, Path(name))
        said = done.stdout + done.stderr
        found = sorted(Path(name).glob("found-*"))
        for path in found:
            content = path.read_bytes()
            keep(TARGET_NAMES[content[0] % len(TARGET_NAMES)] if content else "decode", content[1:], kept)
        if found or done.returncode:
            say(said[-6000:])
        tried = re.search(r"number_of_executed_units:\s*(\d+)", said)
        if tried is None and not found:
            raise SystemExit(f"fuzz: atheris ended without a result:\n{said[-2000:]}")
    branches = re.findall(r"\bcov: (\d+)", said)
    return {
        "atheris_inputs": int(tried.group(1)) if tried else 0,
        "atheris_branches": int(branches[-1]) if branches else 0,
        "atheris_raised": len(found),
    }


def _run(module: str, seconds: float, seed: int, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, str(seconds), str(seed), str(folder)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False, timeout=seconds + _GRACE_S
    )


def main() -> int:
    """Run the fuzzers asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each fuzzer runs")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="fresh by default")
    parser.add_argument("--engine", choices=_ENGINES, help="one of them alone; both by default")
    parser.add_argument("--keep", type=Path, default=KEPT, help="where failing inputs are kept")
    options = parser.parse_args()
    figures: dict[str, float] = {"seconds": options.seconds}
    if options.engine != "atheris":
        figures.update(run_hypothesis(options.seconds, options.seed, options.keep))
    if options.engine != "hypothesis":
        figures.update(run_atheris(options.seconds, options.seed, options.keep))
    figures["raised"] = figures.get("hypothesis_raised", 0) + figures.get("atheris_raised", 0)
    finish("fuzz", figures, options.seed)
    return 1 if figures["raised"] else 0


if __name__ == "__main__":
    sys.exit(main())
