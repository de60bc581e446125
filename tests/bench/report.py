"""What every bench prints last, and where it finds the captures."""

import argparse
import json
import os
import platform
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def arguments(name: str, purpose: str) -> argparse.ArgumentParser:
    """Return a parser with the options every bench takes."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.bench.{name}", description=purpose)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="fresh by default")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, done within 45 s")
    return parser


def shared_folder() -> Path:
    """Return the folder of shared material: ``BALLAST_SHARED``, else beside the repository."""
    return Path(os.environ.get("BALLAST_SHARED", ROOT.parent / "shared"))


def say(line: str) -> None:
    """Print progress."""
    print(line, file=sys.stderr, flush=True)


def finish(name: str, figures: Mapping[str, float], seed: int, peers: Mapping[str, float] | None = None) -> None:
    """Print the result line."""
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    line = {"bench": name, "figures": dict(figures), "peers": dict(peers or {}), "machine": machine, "seed": seed}
    print(json.dumps(line), flush=True)
