"""What is asked for, checked before anything starts: each problem is one line, None is none.

Files are read by the simulators' own parsers, with ``ballast-sim ... --check``, so what passes here plays there.
"""

import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

FEWEST_MINERS: Final = 30
MOST_MINERS: Final = 60_000
"""What one simulated site takes."""

_LAST_PORT: Final = 65_535
_CHECK_S: Final = 60


def miners(count: int) -> str | None:
    """Return why a site of ``count`` miners cannot be played."""
    if count < FEWEST_MINERS:
        return f"--miners {count}: too few for a story; give {FEWEST_MINERS} or more"
    if count > MOST_MINERS:
        return f"--miners {count}: more than a simulated site takes; give {MOST_MINERS} or fewer"
    return None


def http_port(port: int) -> str | None:
    """Return why the console cannot be served at ``port``."""
    if not 1 <= port <= _LAST_PORT:
        return f"--http-port {port}: is no port; give 1 to {_LAST_PORT}"
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        return (
            f"--http-port {port}: cannot be listened at: {os.strerror(error.errno or 0)}; give another, or leave it out"
        )
    return None


def prices(path: Path, program: Path) -> str | None:
    """Return why the market cannot play the price file at ``path``."""
    if not path.is_file():
        return f"--prices {path}: no such file; give a CSV of hourly prices"
    wrong = refusal(program, ["market", "--prices", str(path.absolute()), "--check"])
    return None if wrong is None else f"--prices: {wrong.removeprefix('--prices: ')}"


def refusal(program: Path, arguments: Sequence[str]) -> str | None:
    """Return what ``ballast-sim`` at ``program`` says against these arguments, in one line."""
    try:
        done = subprocess.run(  # noqa: S603 - our own
            [str(program), *arguments], capture_output=True, text=True, check=False, timeout=_CHECK_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"cannot be checked with {program}: {error}; run make setup"
    if done.returncode == 0:
        return None
    said: str = done.stderr.strip()
    return said.rpartition("\n")[2].removeprefix("ballast-sim: ") or "it cannot be played"
