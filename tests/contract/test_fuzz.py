"""Both fuzzers run for half a minute in CI, each in a process of its own; five minutes each in ``make soak``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import TARGET_NAMES, keep
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.agent

SECONDS = 30


@pytest.mark.timeout(240)
@pytest.mark.parametrize("engine", ["hypothesis", "atheris"])
def test_half_a_minute_finds_nothing(engine: str, repository: Path, tmp_path: Path) -> None:
    paths = {**os.environ, "PYTHONPATH": f"{repository}:{repository / 'proto'}"}
    command = [
        sys.executable,
        "-m",
        "tests.fuzz",
        "--seconds",
        str(SECONDS),
        "--engine",
        engine,
        "--keep",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=paths, cwd=repository, check=False)
    told = f"{done.stderr[-6000:]}\nkept: {[(path.name, path.read_bytes()[:2000]) for path in tmp_path.iterdir()]}"
    assert done.returncode == 0, told
    figures = json.loads(done.stdout.splitlines()[-1])["figures"]
    assert (figures["raised"], figures[f"{engine}_inputs"] > 500) == (0, True), told


def test_the_runner_knows_the_targets_by_their_places() -> None:
    assert tuple(TARGETS) == TARGET_NAMES


def test_a_failing_input_is_kept_under_its_target_and_content(tmp_path: Path) -> None:
    first, again, other = keep("web", b"x", tmp_path), keep("web", b"x", tmp_path), keep("web", b"y", tmp_path)
    assert first == again != other
    assert first.read_bytes() == b"x"
