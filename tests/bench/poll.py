"""What one poll of a miner costs us and two peers: ``python -m tests.bench.poll [--miners N] [--quick] [--seed S]``.

A server process plays N miners on loopback; each client is a process of its own, measured by its own CPU time. A poll
is complete: replies fetched, every field normalised into a reading. Identification and our hourly static data are read
before the measured round, as they are in operation; ``cpu_ms_first_F`` says what the first poll costs. The peers poll
fewer miners (their cost a poll does not depend on how many), each from its own environment under ``.cache/bench/``.
Ours and pyasic run on asyncio's own event loop; pyasic on uvloop is measured too and stands under ``peers`` and as
``ratio_pyasic_uvloop_F``. asic-rs brings its own runtime.
"""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, Self

from tests.bench.report import ROOT, arguments, finish, say

FIRMWARES = ("whatsminer", "luxos", "antminer")
PEERS = {"pyasic": ("pyasic==0.79.0", "uvloop"), "pyasic_rs": ("pyasic_rs==0.8.6",)}
VARIANTS = ("pyasic", "pyasic_uvloop", "pyasic_rs")
CONCURRENCY = 250
WAIT_S = 900


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
    """Return the interpreter of a peer's cached environment, made when missing; None when it cannot be had."""
    folder = ROOT / ".cache" / "bench" / name
    python = folder / "bin" / "python"
    probe = [str(python), "-c", f"import {name}"]
    if python.exists() and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return python
    say(f"  installing {' '.join(PEERS[name])} into {folder.relative_to(ROOT)}")
    venv.create(folder, with_pip=True, clear=True)
    done = subprocess.run([str(python), "-m", "pip", "install", "-q", *PEERS[name]], capture_output=True, check=False)
    if done.returncode != 0:
        say(f"  {name} cannot be installed: {done.stderr.decode(errors='replace').strip().splitlines()[-1:]}")
        return None
    return python


def measure(server: Child, client: Child, job: dict[str, Any]) -> dict[str, Any]:
    """Run one client against the server and return its figures, connections a poll included."""
    client.tell(json.dumps(job))
    assert client.hear() == "warm"
    before = _connections(server)
    client.tell("go")
    figures: dict[str, Any] = json.loads(client.hear())
    polled = figures.get("identified", len(job["addresses"])) or 1
    figures["connections"] = (_connections(server) - before) / polled
    return figures


def _connections(server: Child) -> int:
    server.tell("count")
    return int(json.loads(server.hear())["connections"])


def bench(
    firmware: str, miners: int, peer_miners: int, seed: int, figures: dict[str, float], peers: dict[str, float]
) -> bool:
    """Measure one firmware; return whether all peers could be measured."""
    net = f"127.{100 + (seed + FIRMWARES.index(firmware)) % 100}"
    options = ["--web"] if firmware == "antminer" else []
    command = (sys.executable, "-m", "tests.bench.poll_server", firmware, str(miners), net, str(seed), *options)
    complete = True
    with Child(*command) as server:
        ready = json.loads(server.hear())
        job = {"firmware": firmware, "miner_id": ready["miner_id"], "concurrency": CONCURRENCY}
        with Child(sys.executable, "-m", "tests.bench.poll_ours") as client:
            ours = measure(server, client, {**job, "addresses": ready["addresses"]})
        say(f"  {firmware}: ours {ours}")
        figures[f"cpu_ms_{firmware}"] = round(ours["cpu_ms"], 4)
        figures[f"cpu_ms_first_{firmware}"] = round(ours["cpu_ms_first"], 4)
        figures[f"polls_per_s_{firmware}"] = round(ours["polls_per_s"], 1)
        figures[f"connections_{firmware}"] = round(ours["connections"], 3)
        figures[f"missed_{firmware}"] = ours["missed"]
        for name in VARIANTS:
            theirs = _peer(name, server, {**job, "addresses": ready["addresses"][:peer_miners]}, ready, firmware)
            if theirs is None:
                complete = False
                continue
            for key in ("cpu_ms", "polls_per_s", "connections", "missed"):
                peers[f"{name}_{key}_{firmware}"] = round(theirs[key], 4)
            figures[f"ratio_{name}_{firmware}"] = round(theirs["cpu_ms"] / ours["cpu_ms"], 2)
    return complete


def _peer(name: str, server: Child, job: dict[str, Any], ready: dict[str, Any], firmware: str) -> dict[str, Any] | None:
    package = name.removesuffix("_uvloop")
    python = peer_python(package)
    if python is None:
        return None
    if firmware == "antminer" and not ready["web"]:
        say(f"  {name} needs a stock Antminer's web page on port 80, where this account may not listen; run as root")
        return None
    with Child(str(python), str(ROOT / "tests" / "bench" / "peers" / f"{package}_poll.py")) as client:
        theirs = measure(server, client, {**job, "uvloop": name.endswith("_uvloop")})
    say(f"  {firmware}: {name} {theirs}")
    if not theirs["identified"]:
        say(f"  {name} identified none of the {firmware} miners; no ratio")
        return None
    return theirs


def main() -> int:
    """Run the bench."""
    parser = arguments("poll", __doc__ or "")
    parser.add_argument("--miners", type=int, default=None, help="default 5000, with --quick 500")
    options = parser.parse_args()
    miners = options.miners or (500 if options.quick else 5000)
    peer_miners = min(miners, 150 if options.quick else 500)
    figures: dict[str, float] = {"miners": miners, "peer_miners": peer_miners}
    peers: dict[str, float] = {}
    complete = True
    for firmware in FIRMWARES:
        say(f"{firmware}: {miners} miners, peers {peer_miners}")
        try:
            complete &= bench(firmware, miners, peer_miners, options.seed, figures, peers)
        except RuntimeError as error:
            say(f"poll: {error}; what it said stands above")
            return 1
    finish("poll", figures, options.seed, peers)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
