"""The footprint bench's peers: the two libraries that do part of what the agent does, reading miners.

Neither stores, forwards, signs or curtails; the agent that they are compared with does all of it, over a real link.
``NAME_site_packages_mb``: the peer's environment, without pip and setuptools. ``NAME_pss_mb_500``: a process that has
identified 500 simulated Whatsminers and read each twice. ``NAME_start_ratio_bare_python``: importing it, where ours is
importing the whole daemon. Ratios are peer over ours.
"""

import json
import sys
from typing import Any

from tests.bench.peer import PEERS, Child, peer_python, site_packages_mb
from tests.bench.poll import CONCURRENCY, measure
from tests.bench.report import say
from tests.bench.starts import over_bare

NAMES = ("pyasic", "pyasic_rs")


def peers(miners: int, runs: int, seed: int) -> dict[str, float] | None:
    """Return the peers' figures, or None when one of them cannot be had."""
    found: dict[str, float] = {}
    for name in NAMES:
        python = peer_python(name)
        if python is None:
            return None
        say(f"{name} reads {miners} miners")
        found[f"{name}_site_packages_mb"] = round(site_packages_mb(python), 1)
        started = over_bare(python, {name: ("-c", f"import {name}")}, runs)
        found[f"{name}_start_ratio_bare_python"] = round(started[name], 2)
        ran = _polled(str(python), name, miners, seed)
        found[f"{name}_pss_mb_500"] = round(ran["pss_mb"], 1)
        found[f"{name}_missed"] = ran["missed"] + miners - ran["identified"]
    return found


def ratios(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
    """Return peer over ours for packages, memory and start."""
    pairs = (
        ("packages", "agent_site_packages_mb", "site_packages_mb"),
        ("pss", "agent_pss_mb_500_grpc", "pss_mb_500"),
        ("start", "agent_start_ratio_bare_python", "start_ratio_bare_python"),
    )
    return {
        f"ratio_{name}_{what}": round(theirs[f"{name}_{key}"] / ours[own], 2)
        for name in NAMES
        for what, own, key in pairs
    }


def _polled(python: str, name: str, miners: int, seed: int) -> dict[str, Any]:
    net = f"127.{100 + seed % 100}"
    server_command = (sys.executable, "-m", "tests.bench.poll_server", "whatsminer", str(miners), net, str(seed))
    with Child(*server_command) as server, Child(python, str(PEERS / f"{name}_poll.py")) as client:
        ready = json.loads(server.hear())
        job = {"addresses": ready["addresses"], "concurrency": CONCURRENCY, "uvloop": False}
        return measure(server, client, job)
