"""The demo's child processes: started, kept alive, and always gone at the end.

Invariants: a child that dies unasked is started again (as a service manager would); every child is ended by its own
id when the demo ends, and the kernel ends it if the demo itself is killed.
"""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cloud.infra.process import spawn
from sitelink.clock import Clock

_CHECK_S: Final = 0.1
_STOP_S: Final = 15.0
_READY_S: Final = 60.0
_RESTART_AFTER_S: Final = 0.5


class ChildFailed(Exception):
    """A child ended before it was ready; the message names its log and quotes the last line."""


@dataclass(slots=True)
class Child:
    """One process of the demo. ``restarts`` counts how often it had to be started again."""

    name: str
    command: Sequence[str | Path]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    wanted: bool = True

    def start(self) -> None:
        """Start the process; what it prints goes to the log."""
        with self.log.open("ab") as log:
            self.process = spawn(self.command, output=log)

    @property
    def pid(self) -> int | None:
        """Return the id of the running process, None when it does not run."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def stop(self) -> None:
        """End the process: politely, then after a while by force."""
        self.wanted = False
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def last_line(self) -> str:
        """Return the last line the process logged."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        return lines[-1] if lines else "it logged nothing"


class Crew:
    """All children. A thread restarts those that die unasked, until ``close``."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._children: dict[str, Child] = {}
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._keeper.start()

    def spawn(self, name: str, command: Sequence[str | Path]) -> Child:
        """Start a child that is kept alive from now on."""
        child = Child(name, command, self._folder / f"{name}.log")
        child.start()
        self._children[name] = child
        return child

    def spawn_ready(self, name: str, command: Sequence[str | Path]) -> dict[str, Any]:
        """Start a child that logs one JSON object with ``ready`` once it serves; return that object.

        Raises:
            ChildFailed: it ended first, or was not ready in time.
        """
        child = Child(name, command, self._folder / f"{name}.log")
        child.start()
        deadline = self._clock.monotonic() + _READY_S
        while self._clock.monotonic() < deadline and child.pid is not None:
            for line in child.log.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith('{"ready"'):
                    self._children[name] = child
                    ready: dict[str, Any] = json.loads(line)
                    return ready
            self._closing.wait(_CHECK_S)
        child.stop()
        raise ChildFailed(f"{name} did not start: {child.last_line()} (log: {child.log})")

    def child(self, name: str) -> Child:
        """Return the child called ``name``."""
        return self._children[name]

    def restarts(self) -> int:
        """Return how often any child had to be started again."""
        return sum(child.restarts for child in self._children.values())

    def stop(self, name: str) -> None:
        """End one child for good."""
        self._children[name].stop()

    def close(self) -> None:
        """End every child, the latest first."""
        self._closing.set()
        self._keeper.join()
        for child in reversed(list(self._children.values())):
            child.stop()

    @staticmethod
    def _still_wanted(child: Child) -> bool:
        return child.wanted  # read again: ``stop`` may have been called from the main thread meanwhile

    def _keep(self) -> None:
        while not self._closing.wait(_CHECK_S):
            for child in list(self._children.values()):
                if child.wanted and child.process is not None and child.process.poll() is not None:
                    self._closing.wait(_RESTART_AFTER_S)
                    if child.pid is None and not self._closing.is_set() and self._still_wanted(child):
                        child.restarts += 1
                        child.start()


def run_once(command: Sequence[str], what: str, told: str = "") -> str:
    """Run a command to its end, ``told`` on its input, and return what it printed.

    Raises:
        ChildFailed: it failed; the message carries its own last line.
    """
    done = subprocess.run(  # noqa: S603 - our own
        command, input=told, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it printed nothing"]
        raise ChildFailed(f"{what} failed: {lines[-1]}")
    return done.stdout


def kill_hard(pid: int) -> None:
    """Kill one process the way a power cut would; a process that is already gone is fine."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def descendants(pid: int, commands: Callable[[str], bool]) -> list[int]:
    """Return the ids of the processes below ``pid`` whose command line fits."""
    parents: dict[int, int] = {}
    lines: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            lines[int(entry.name)] = (entry / "cmdline").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [pid]
    for parent in found:
        found.extend(child for child, above in parents.items() if above == parent)
    return [child for child in found[1:] if commands(lines.get(child, ""))]
