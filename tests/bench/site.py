"""One agent, one large site: ``python -m tests.bench.site [--miners N] [--dead SHARE] [--minutes M] [--quick] [--seed S]``.

Three processes: a simulated site on loopback, the agent (``python -m agent run``, polling once a minute), and this
one, a cloud that stores and settles every batch over mutual TLS. Of the dead miners a third refuses connections, a
third never answers SYN and a third accepts and then says nothing.

With ``--quick`` a cycle lasts 10 s instead of a minute.

``fresh_share_min``: a live miner is fresh in a cycle when the cloud has a reading of it, of a known state, that
was read in that cycle; the worst cycle counts. Cycles are counted from the first reading on, after one cycle to warm up.
``cores``: CPU time of the agent over the measured time; ``rss_mb``: the most it held resident at any time.
``age_p99_s``: between a live miner's readings. ``start_s``: from the agent's start to its first reading.
"""

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from bisect import bisect_left
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from agent.cgminer.credentials import Credentials
from agent.settings import load_settings
from agent.vault import Vault
from sitelink.types import MinerState, Reading
from tests.bench.report import ROOT, arguments, finish, say
from tests.e2e.stub_cloud import StubCloud

SITE = "bench-site"
CYCLE_S, QUICK_CYCLE_S = 60.0, 10.0
FACTORY = {"antminer": Credentials("root", "root"), "braiins": Credentials("root", "root")}
FREE_SHARE = 0.02  # of a cycle, before its first reading: the poller keeps it free for jitter
HARDLY_ALIVE = ("dead", "no_accept", "black_holed")
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}


@asynccontextmanager
async def process(*command: str, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of ours, ended when the block ends."""
    with log.open("wb") as errors:
        child = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE, stderr=errors
        )
        try:
            yield child
        finally:
            if child.returncode is None:
                child.terminate()
                await child.wait()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_rss_mb(pid: int) -> float:
    """The most memory a process has held resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def ask(url: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """Ask the simulator's control port."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(url + path, data, timeout=60) as answer:
        return json.load(answer)


def kill_some(url: str, share: float) -> set[str]:
    """Take life out of ``share`` of the miners, in three ways, and return the others."""
    names = [row["miner_id"] for row in ask(url, "/truth")["miners"]]
    dead = names[:: max(1, round(1 / share))] if share > 0 else []
    for place, name in enumerate(dead):
        ask(url, "/fault", {"miner_id": name, "fault": HARDLY_ALIVE[place % len(HARDLY_ALIVE)]})
    return set(names) - set(dead)


async def listen(stack: AsyncExitStack, miners: int, seed: int, folder: Path) -> str:
    """Start the simulator, which writes the site's lists into ``folder``; return its control port."""
    command = [sys.executable, "-m", "simulator", "site", "--site-id", SITE, "--miners", str(miners)]
    command += ["--seed", str(seed), "--net", f"127.{130 + seed % 60}", "--dead", "0", "--liars", "0"]
    log = folder / "simulator.log"
    devices = await stack.enter_async_context(process(*command, "--out", str(folder), log=log))
    assert devices.stdout is not None
    ready = await devices.stdout.readline()
    if not ready:
        raise RuntimeError(f"the simulator ended: {log.read_text()[-500:]}")
    return str(json.loads(ready)["control"])


def judged(readings: list[Reading], live: set[str], cycles: int, cycle_s: float) -> dict[str, float]:
    """The shares and ages that the readings give over ``cycles`` whole cycles after the first."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    for reading in readings:
        if reading.miner_id in live and reading.state is not MinerState.UNKNOWN:
            times[reading.miner_id].append(reading.read_at.timestamp())
    start = min(reading.read_at.timestamp() for reading in readings) - FREE_SHARE * cycle_s
    gaps = []
    fresh = [0] * cycles
    for moments in times.values():
        moments.sort()
        gaps += [after - before for before, after in pairwise(moments)]
        for cycle in range(cycles):
            begin = start + (cycle + 1) * cycle_s
            at = bisect_left(moments, begin)
            fresh[cycle] += at < len(moments) and moments[at] < begin + cycle_s
    gaps.sort()
    return {
        "fresh_share_min": round(min(fresh) / len(live), 5),
        "fresh_share_mean": round(sum(fresh) / cycles / len(live), 5),
        "age_p99_s": round(gaps[int(len(gaps) * 0.99)], 2) if gaps else 0.0,
        "readings": len(readings),
    }


async def measure(miners: int, dead: float, cycles: int, cycle_s: float, seed: int, folder: Path) -> dict[str, float]:
    """Run the site and return its figures."""
    cloud = StubCloud(SITE)
    async with AsyncExitStack() as stack:
        url = await listen(stack, miners, seed, folder)
        port = await stack.enter_async_context(cloud.serving())
        say(f"  {miners} miners listen; taking life out of {dead:.0%}")
        live = await asyncio.to_thread(kill_some, url, dead)
        config = folder / "agent.toml"
        config.write_text(
            f'[site]\nsite_id = "{SITE}"\n[link]\nendpoint = "127.0.0.1:{port}"\nserver_name = "ballast-cloud"\n'
            f"[poll]\ninterval_s = {cycle_s}\n"
        )
        for group, credentials in FACTORY.items():  # some firmwares tell who they are only to who logs in
            Vault.open(load_settings(config)).put(group, credentials)
        cloud.enrol(folder / "state" / "identity")
        started = time.monotonic()
        command = (sys.executable, "-m", "agent", "run", "--config", str(config))
        agent = await stack.enter_async_context(process(*command, log=folder / "agent.log"))
        while not cloud.stored:
            if agent.returncode is not None:
                raise RuntimeError(f"the agent ended: {(folder / 'agent.log').read_text()[-2000:]}")
            await asyncio.sleep(0.1)
        start_s = time.monotonic() - started
        await asyncio.sleep(cycle_s)
        used = await watch(agent.pid, cycles, cycle_s)
        await asyncio.sleep(5)  # the last cycle's readings are sealed and arrive
        figures = judged(cloud.items()[0], live, cycles, cycle_s)
    return {**figures, **used, "start_s": round(start_s, 1), "miners": miners, "live": len(live)}


async def watch(pid: int, cycles: int, cycle_s: float) -> dict[str, float]:
    """Return what the process ``pid`` uses over ``cycles`` cycles from now."""
    before_s, since_s, cores = cpu_s(pid), time.monotonic(), 0.0
    for cycle in range(cycles):
        await asyncio.sleep(cycle_s)
        cores = (cpu_s(pid) - before_s) / (time.monotonic() - since_s)
        say(f"  cycle {cycle + 1} of {cycles}: {cores:.3f} cores, {peak_rss_mb(pid):.0f} MB")
    return {"cores": round(cores, 3), "rss_mb": round(peak_rss_mb(pid), 1)}


def main() -> int:
    """Run the bench."""
    parser = arguments("site", __doc__ or "")
    parser.add_argument("--miners", type=int, default=None, help="default 10000, with --quick 1000")
    parser.add_argument("--dead", type=float, default=0.1, help="share of miners that do not answer")
    parser.add_argument("--minutes", type=int, default=None, help="cycles to measure; default 5, with --quick 2")
    options = parser.parse_args()
    miners = options.miners or (1000 if options.quick else 10_000)
    folder = Path(tempfile.mkdtemp(prefix="ballast-bench-site-"))
    try:
        cycles = options.minutes or (2 if options.quick else 5)
        cycle_s = QUICK_CYCLE_S if options.quick else CYCLE_S
        figures = asyncio.run(measure(miners, options.dead, cycles, cycle_s, options.seed, folder))
    except RuntimeError as error:
        say(f"site: {error}")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    finish("site", figures, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
