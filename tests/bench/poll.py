"""What one poll of a miner costs us and two peers: ``python -m tests.bench.poll [--miners N] [--quick] [--seed S]``.

A server process plays N miners on loopback; each client is a process of its own, measured by its own CPU time. A poll
is complete: replies fetched, every field normalised into a reading. Identification and our hourly static data are read
before the measured round, as they are in operation; ``cpu_ms_first_F`` says what the first poll costs. The peers poll
fewer miners (their cost a poll does not depend on how many), each from its own environment under ``.cache/bench/``.
Ours and pyasic run on asyncio's own event loop; pyasic on uvloop is measured too and stands under ``peers`` and as
``ratio_pyasic_uvloop_F``. asic-rs brings its own runtime.
"""

import json
import sys
from typing import Any

from tests.bench.peer import Child, peer_python
from tests.bench.report import ROOT, arguments, finish, say

FIRMWARES = ("whatsminer", "luxos", "antminer")
VARIANTS = ("pyasic", "pyasic_uvloop", "pyasic_rs")
CONCURRENCY = 250


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
