"""The peers of the benches: processes that speak JSON lines, each in an environment of its own made from exact pins.

An environment lies under ``.cache/bench/NAME``, made once from ``tests/bench/peers/NAME.txt`` (every package, exactly
pinned) and made anew when that file changes.
"""

import os
import shutil
import subprocess
import venv
from pathlib import Path
from typing import Self

from tests.bench.report import ROOT, say

ENVIRONMENTS = ROOT / ".cache" / "bench"
PEERS = ROOT / "tests" / "bench" / "peers"
_NOT_COUNTED = ("pip", "setuptools", "pkg_resources", "_distutils", "distutils-precedence", "__pycache__")


class Child:
    """A process that speaks one JSON line at a time."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def tell(self, line: str) -> None:
        """Send one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """Return the next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a process of the bench ended early with code {self._process.wait()}")
        return line.strip()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}


def peer_python(name: str) -> Path | None:
    """Return the interpreter of a peer's environment, made when missing; None, and why on stderr, when it cannot be."""
    return environment(name, PEERS / f"{name}.txt")


def environment(name: str, requirements: Path, *options: str) -> Path | None:
    """Return the interpreter of the environment ``name`` that holds exactly ``requirements``."""
    folder = ENVIRONMENTS / name
    python, made, wanted = folder / "bin" / "python", folder / ".made", requirements.read_text(encoding="utf-8")
    if python.exists() and made.is_file() and made.read_text(encoding="utf-8") == wanted:
        return python
    say(f"  making {folder.relative_to(ROOT)} from {requirements.relative_to(ROOT)}")
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *options]
    done = subprocess.run([*pip, "-r", str(requirements)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        say(f"  {name} cannot be installed: {' '.join(done.stderr.strip().splitlines()[-1:])}")
        return None
    made.write_text(wanted, encoding="utf-8")
    return python


def site_packages_mb(python: Path) -> float:
    """Return the size of what is installed beside ``python``, without pip, setuptools and compiled caches at the top."""
    (packages,) = (python.parents[1] / "lib").glob("python*/site-packages")
    return sum(size(entry) for entry in packages.iterdir() if not entry.name.startswith(_NOT_COUNTED)) / 1e6


def size(path: Path) -> int:
    """Return the bytes of a file or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file() and not entry.is_symlink())
