"""How fast a whole site is shed and proven: ``python -m tests.bench.shed [--miners N] [--dead S] [--lying S] [--quick]``.

    simulator (own process: miners, feeder meters) <-- agent (own process) <--> a stub of the cloud (this process)

Every miner that can be switched is stopped by one signed plan, ramp unlimited; the signal is the moment the plan is
pushed. Liars are of three kinds: acks without effect, reports idle once stopped, reports idle all along. A telemetry
liar counts as named when the agent names the miner or its feeder. Every kind of liar is among those ordered.
"""

import asyncio
import json
import os
import shutil
import socket
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent.cgminer.credentials import Credentials
from agent.fleet import switchable
from agent.inventory import load_inventory
from agent.settings import load_settings
from agent.vault import Vault
from simulator.kept import FACTORY_ACCOUNTS
from sitelink.clock import SystemClock
from sitelink.types import Curtailment, CurtailmentCause, Fallback, Interval, Ramp, SitePlan, Verb
from sitelink.units import Watts
from tests.bench.report import ROOT, arguments, finish, say
from tests.bench.shed_figures import Shed
from tests.e2e.stub_cloud import StubCloud

SITE = "shed-1"
_SETTINGS = """[site]
site_id = "{site}"
[link]
endpoint = "127.0.0.1:{port}"
heartbeat_s = 1
[poll]
interval_s = {poll_s}
[buffer]
seal_s = 1
[control]
whatsminer_password = "admin"
"""
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Run the bench."""
    parser = arguments("shed", __doc__ or "")
    parser.add_argument("--miners", type=int, default=None, help="default 2000, with --quick 200")
    parser.add_argument("--dead", type=float, default=0.05)
    parser.add_argument("--lying", type=float, default=0.02)
    parser.add_argument(
        "--wait", type=float, default=None, help="seconds after the signal; default 40, with --quick 32"
    )
    parser.add_argument("--keep", type=Path, default=None, help="keep the agent's files and log in this folder")
    options = parser.parse_args()
    options.miners = options.miners or (200 if options.quick else 2000)
    options.wait = options.wait or (32.0 if options.quick else 40.0)
    with tempfile.TemporaryDirectory(prefix="ballast-shed-") as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / "state", ignore_errors=True)  # of an earlier run
        try:
            figures = asyncio.run(_bench(options, folder))
        except (RuntimeError, TimeoutError, OSError) as error:
            say(f"shed: {error!r}; what the agent and the simulator said stands in {folder} (give --keep to look)")
            return 1
    finish("shed", figures, options.seed)
    return 0


async def _bench(options: Any, folder: Path) -> dict[str, float]:
    cloud = StubCloud(SITE)
    async with cloud.serving() as port, _simulator(options, folder) as (simulator, control):
        ordered = [entry.miner_id for entry in load_inventory(folder / "inventory.csv") if switchable(entry)]
        cloud.enrol(folder / "state" / "identity")
        poll_s = 8 if options.quick else 60
        settings = folder / "agent.toml"
        settings.write_text(_SETTINGS.format(site=SITE, port=port, poll_s=poll_s), encoding="utf-8")
        _keep_passwords(settings)
        async with _process(folder, "agent", "-m", "agent", "run", "--config", str(settings)) as agent:
            await _read_once(cloud, options.miners, poll_s)
            await _plant(control)
            return await _shed(options, cloud, control, ordered, agent, simulator)


def _keep_passwords(path: Path) -> None:
    """Give the agent each firmware's user and password as it leaves the factory."""
    vault = Vault.open(load_settings(path))
    for dialect, (user, password) in FACTORY_ACCOUNTS.items():
        if user or password:
            vault.put(dialect, Credentials(user, password))


async def _shed(
    options: Any,
    cloud: StubCloud,
    control: str,
    ordered: list[str],
    agent: asyncio.subprocess.Process,
    simulator: asyncio.subprocess.Process,
) -> dict[str, float]:
    truth = (await _get(f"{control}/truth"))["miners"]
    before_s = {child.pid: _cpu_s(child.pid) for child in (agent, simulator)}
    say(f"signal: {len(ordered)} miners to stop")
    signal_at = _push(cloud, ordered)
    found = await _watched(options, cloud, control, ordered, truth, signal_at)
    for line in found.unconfirmed()[:20]:
        say(f"  unconfirmed: {line}")
    figures = found.figures()
    for name, child in (("agent", agent), ("simulator", simulator)):
        figures[f"{name}_cpu_s"] = round(_cpu_s(child.pid) - before_s[child.pid], 2)
    return {"miners": options.miners, **figures}


async def _watched(
    options: Any, cloud: StubCloud, control: str, ordered: list[str], truth: list[dict[str, Any]], signal_at: Any
) -> Shed:
    """Return the shed once the time is up, telling its progress meanwhile."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while True:
        await asyncio.sleep(min(5.0, max(0.1, options.wait - (loop.time() - began_s))))
        waited_s = loop.time() - began_s
        _, acks, notices = cloud.items()
        if waited_s >= options.wait:
            orders = await _get(f"{control}/orders")
            return Shed(signal_at, waited_s, ordered, truth, orders, acks, notices)
        stops = {ack.miner_id: ack.outcome.value for ack in acks if ack.verb is Verb.STOP}
        counts = {outcome: list(stops.values()).count(outcome) for outcome in sorted(set(stops.values()))}
        say(f"  {waited_s:.0f} s: {counts}")


def _push(cloud: StubCloud, ordered: list[str]) -> Any:
    now = SystemClock().now()
    no_ramp = Ramp(Watts(0), 0.0)
    window = Interval(now - timedelta(seconds=1), now + timedelta(minutes=10))
    cut = Curtailment("shed", CurtailmentCause.PRICE, window, tuple(ordered), no_ramp, no_ramp)
    valid = Interval(now - timedelta(minutes=1), now + timedelta(hours=1))
    cloud.push_plan(SitePlan("shed", SITE, "agent-1", 1, 1, 1, now, valid, Fallback.RUN, (cut,)))
    return now


async def _read_once(cloud: StubCloud, miners: int, poll_s: float) -> None:
    """Wait until the agent has read every miner once, as it has in operation."""
    say(f"waiting for a first reading of {miners} miners, polled every {poll_s:g} s")

    def read() -> bool:
        return len({reading.miner_id for reading in cloud.items()[0]}) >= miners

    await _until(read, 3 * poll_s + 30)


async def _plant(control: str) -> None:
    """Let every second of those that will report idle do so from now on, before any order."""
    liars = [row["miner_id"] for row in (await _get(f"{control}/truth"))["miners"] if row["liar"] == "reports_idle"]
    for miner_id in liars[1::2]:
        await _post(f"{control}/fault", {"miner_id": miner_id, "fault": "reports_idle_now"})
    await asyncio.sleep(5)


@asynccontextmanager
async def _simulator(options: Any, folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    net = f"127.{100 + options.seed % 100}"
    shares = ["--dead", str(options.dead), "--liars", str(options.lying), "--feeder-size", "10"]
    place = ["--net", net, "--port", str(_free_port()), "--meters", f"127.0.0.1:{_free_port()}", "--out", str(folder)]
    command = ["-m", "simulator", "site", "--site-id", SITE, "--miners", str(options.miners), *shares, *place]
    async with _process(folder, "simulator", *command, "--seed", str(options.seed), piped=True) as child:
        assert child.stdout is not None
        async with asyncio.timeout(120):
            ready = await child.stdout.readline()
        if not ready:
            raise RuntimeError("the simulator did not start")
        yield child, json.loads(ready)["control"]


@asynccontextmanager
async def _process(
    folder: Path, name: str, *command: str, piped: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    with (folder / f"{name}.log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=ROOT, env=environment, stderr=log,
            stdout=asyncio.subprocess.PIPE if piped else log,
        )  # fmt: skip
        try:
            yield child
        finally:
            if child.returncode is None:
                child.terminate()
            try:
                async with asyncio.timeout(15):
                    await child.wait()
            except TimeoutError:
                child.kill()
                await child.wait()


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.5)


async def _get(url: str) -> Any:
    return await asyncio.to_thread(lambda: json.load(urllib.request.urlopen(url, timeout=30)))


async def _post(url: str, document: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(document).encode(), method="POST")
    return await asyncio.to_thread(lambda: json.load(urllib.request.urlopen(request, timeout=30)))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cpu_s(pid: int) -> float:
    """Return the user and system time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    sys.exit(main())
