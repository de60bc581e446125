"""No reply, however it is made, keeps the agent from its other miners."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.agent


def test_no_reply_costs_more_than_its_length(repository: Path) -> None:
    """256 KiB of ``a`` as an Avalon's ``MM ID0`` once took 30 s, for which no other miner was polled or stopped."""
    paths = {**os.environ, "PYTHONPATH": f"{repository}:{repository / 'proto'}"}
    command = [sys.executable, "-m", "tests.unit.agent.cgminer.adversary"]
    done = subprocess.run(command, capture_output=True, text=True, env=paths, cwd=repository, check=False)
    assert (done.returncode, done.stderr) == (0, ""), "killed: some reading costs the square of the reply's length"
