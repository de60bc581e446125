"""``ballast up`` as a person runs it, for the benches, and what its processes use."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


class Processes:
    """CPU and memory of ``ballast up``'s children."""

    def __init__(self, supervisor: int) -> None:
        self._supervisor = supervisor

    def _pids(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    found[int(entry.name)] = f"{parent} {(entry / 'cmdline').read_text()}"
                except OSError:
                    continue
        return found

    def _of(self, word: str) -> list[int]:
        table = self._pids()
        heads = [pid for pid, line in table.items() if line.startswith(f"{self._supervisor} ") and word in line]
        return heads + [pid for pid, line in table.items() if int(line.split(" ", 1)[0]) in heads]

    def cpu_s(self, word: str) -> float:
        """Return the CPU seconds used by the child named ``word`` and its own children."""
        total = 0
        for pid in self._of(word):
            try:
                parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            total += sum(int(part) for part in parts[11:15])
        return total / TICKS

    def pss_mb(self, word: str) -> float:
        """Return the proportional memory of the child named ``word`` and its own children."""
        total = 0
        for pid in self._of(word):
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total / 1024


@contextmanager
def running(folder: Path, more: str = "") -> Iterator[tuple[Path, int]]:
    """Run ``ballast up`` in ``folder``, with ``more`` lines of settings; yield its configuration and process id."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    http, link, enrol = (f"127.0.0.1:{listener.getsockname()[1]}" for listener in held)
    for listener in held:
        listener.close()
    config = folder / "cloud.toml"
    listens = f'http_listen = "{http}"\nlink_listen = "{link}"\nenrol_listen = "{enrol}"\n'
    config.write_text(f'data_dir = "data"\n{listens}{more}')
    log = (folder / "up.log").open("wb")
    command = [sys.executable, "-m", "cloud", "up", "--json", "--config", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        json.loads(process.stdout.readline())
        yield config, process.pid
    finally:
        process.terminate()
        process.wait(60)
        if process.stdout is not None:
            process.stdout.close()
        log.close()
