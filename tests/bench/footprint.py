"""How much room Ballast takes: ``python -m tests.bench.footprint [--quick] [--seed S]``.

``agent_site_packages_mb``: an environment of its own made from ``requirements/agent.txt`` (gRPC), without pip and
setuptools; ``agent_site_packages_mb_mqtt``: the same from ``requirements/agent-mqtt.txt``.
``agent_pss_mb_500_grpc``, ``agent_pss_mb_500_mqtt``: one agent polling 500 simulated miners over the real link, the
second through a real mosquitto (proportional set size).
``failsafe_ratio_bare_python``: starting ``agent failsafe`` (its help) over ``python -c pass``, CPU, median;
``failsafe_look_ratio_bare_python``: ``failsafe status`` of one silent miner, settings, event loop and database included.
``cloud_pss_mb_5000``: serve, worker and PostgreSQL while ten sites report 5,000 miners (every 10 s).
``footprint_peers`` describes the peers, pyasic and pyasic_rs.
"""

import asyncio
import compileall
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloud.core.access import Principal, system_principal
from cloud.hosting import queries, service
from cloud.identity import enrolment
from cloud.identity.authority import CertificateAuthority
from cloud.infra.connect import database_url
from cloud.infra.db import Database
from cloud.settings import load_settings
from tests.bench.footprint_peers import peers, ratios
from tests.bench.load import BATCH, enrolled
from tests.bench.peer import environment, site_packages_mb, size
from tests.bench.report import ROOT, arguments, finish, say
from tests.bench.served import Processes, running
from tests.bench.starts import over_bare
from tests.mosquitto import Mosquitto, free_port

MINERS = 500
SITES = 10


def agent_python(name: str) -> Path:
    """Return the interpreter of an agent's own environment: the requirements of that name and nothing else."""
    python = environment(name, ROOT / "requirements" / f"{name}.txt", "--require-hashes")
    if python is None:
        raise RuntimeError("the agent's own environment cannot be made; what pip said stands above")
    return python


def starts(python: Path, folder: Path, runs: int) -> dict[str, float]:
    """Return what starting the failsafe, looking at one silent miner with it, and importing the daemon cost."""
    header = "miner_id,host,port,dialect,model,feeder_id,rack,position,nameplate_w,nameplate_ths"
    (folder / "failsafe.toml").write_text('[site]\nsite_id = "footprint"\ninventory = "one.csv"\n')
    (folder / "one.csv").write_text(f"{header}\nm1,127.0.0.1,9,luxos,S19,f1,r1,1,3000,100\n")
    commands = {
        "failsafe_ratio_bare_python": ("-m", "agent", "failsafe", "--help"),
        "failsafe_look_ratio_bare_python": (
            *("-m", "agent", "failsafe", "status", "--config"),
            str(folder / "failsafe.toml"),
        ),
        "agent_start_ratio_bare_python": ("-c", "import agent.app"),
    }
    return {name: round(ratio, 2) for name, ratio in over_bare(python, commands, runs).items()}


@dataclass(frozen=True)
class Cloud:
    """A running cloud: its configuration, its database, and for whom the bench acts."""

    config: Path
    database: Database
    principal: Principal

    def stored(self, site_id: str) -> int:
        """Return how many items of a site are stored."""
        with self.database.unit_of_work(self.principal) as uow:
            return sum(epoch.items for epoch in queries.stored_counts(uow).epochs if epoch.site_id == site_id)


def agent_pss_mb(cloud: Cloud, site_id: str, link: str, folder: Path, seconds: float) -> float:
    """Return the memory of one agent that polls 500 simulated miners, after ``seconds`` of it; ``link`` is settings."""
    site = folder / site_id
    simulator = subprocess.Popen(
        [
            *(sys.executable, "-m", "simulator", "site", "--site-id", site_id, "--miners", str(MINERS), "--seed", "1"),
            *("--net", "127.231", "--control", _free_address(), "--out", str(site), "--dead", "0", "--liars", "0"),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    agent = None
    try:
        assert simulator.stdout is not None
        json.loads(simulator.stdout.readline())
        toml = ["--config", str(_enrolled(cloud, site_id, link, site))]
        agent = subprocess.Popen([sys.executable, "-m", "agent", "run", *toml], cwd=ROOT, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline or cloud.stored(site_id) < MINERS:
            if agent.poll() is not None or time.monotonic() > deadline + 120:
                raise RuntimeError(f"the agent of {site_id} did not report its miners")
            time.sleep(0.5)
        lines = Path(f"/proc/{agent.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    finally:
        for process in (agent, simulator):
            if process is not None:
                process.terminate()
                process.wait(30)
        if simulator.stdout is not None:
            simulator.stdout.close()


def _enrolled(cloud: Cloud, site_id: str, link: str, site: Path) -> Path:
    """Make the site known to the cloud and enrol its agent; return the agent's settings."""
    settings = load_settings(cloud.config)
    (site / "agent.toml").write_text(
        f'[site]\nsite_id = "{site_id}"\ninventory = "inventory.csv"\nmeters = "meters.csv"\nstate_dir = "state"\n'
        f'[link]\nendpoint = "{settings.link_listen}"\nenrol_endpoint = "{settings.enrol_listen}"\n{link}'
        "[poll]\ninterval_s = 30\n"
    )
    with cloud.database.unit_of_work(cloud.principal) as uow:
        service.create_site(uow, site_id, site_id, "UTC")
        service.import_inventory(uow, site_id, site / "inventory.csv", site / "meters.csv")
        authority = CertificateAuthority(settings.key_dir, cloud.database.clock)
        token = enrolment.make_join_token(uow, authority, site_id)
    command = [sys.executable, "-m", "agent", "enrol", "--config", str(site / "agent.toml"), "--token", token]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return site / "agent.toml"


@contextmanager
def broker(cloud: Cloud, port: int, folder: Path) -> Iterator[str]:
    """Run mosquitto before the cloud, as deploy/ shows it; yield the agent's settings of the link through it."""
    files = folder / "broker"
    command = [sys.executable, "-m", "cloud", "broker", str(files), "--config", str(cloud.config)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    made = Mosquitto(files, port=port)
    made.start()
    try:
        yield f'transports = ["mqtt"]\nmqtt_endpoint = "127.0.0.1:{port}"\n'
    finally:
        made.stop()


async def cloud_pss_mb(
    config: Path, supervisor: int, database: Database, principal: Principal, seconds: float, seed: int
) -> float:
    """Return the memory of serve, worker and PostgreSQL while ten sites of 500 miners report."""
    agents = await enrolled(config, database, principal, SITES, seed)
    for agent in agents:
        await agent.connect()
    listening = [asyncio.create_task(agent.listen()) for agent in agents]
    rate = 1 / 6  # each site sends all its miners every 10 s, six times what polling once a minute asks for
    until = time.perf_counter() + seconds
    await asyncio.gather(*(agent.pace(rate, until, place / SITES) for place, agent in enumerate(agents)))
    await asyncio.gather(*(agent.settled() for agent in agents))
    processes = Processes(supervisor)
    total = sum(processes.pss_mb(name) for name in ("\0serve\0", "\0worker\0", "/postgres\0"))
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    return total


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def installed_size(package: Path) -> int:
    """Return the bytes of a package of ours as pip installs it: its files, each compiled once."""
    with tempfile.TemporaryDirectory(prefix="ballast-bench-") as folder:
        copy = Path(folder) / package.name
        shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(copy, quiet=2)
        return size(copy)


def main() -> int:
    """Run the bench; return 1 when the peers could not be measured."""
    options = arguments("footprint", "How much room Ballast takes.").parse_args()
    seconds = 5.0 if options.quick else 60.0
    runs = 5 if options.quick else 21
    python, broker_port = agent_python("agent"), free_port()
    own_mb = (installed_size(ROOT / "agent") + installed_size(ROOT / "proto" / "sitelink")) / 1e6
    figures = {
        "agent_site_packages_mb": round(site_packages_mb(python) + own_mb, 1),
        "agent_site_packages_mb_mqtt": round(site_packages_mb(agent_python("agent-mqtt")) + own_mb, 1),
    }
    folder = Path(tempfile.mkdtemp(prefix="ballast-bench-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        figures |= starts(python, folder, runs)
        with running(folder, f'mqtt_broker = "127.0.0.1:{broker_port}"\n') as (config, supervisor):
            database = Database(database_url(load_settings(config)))
            (tenant_id,) = database.tenant_ids()
            cloud = Cloud(config, database, system_principal(tenant_id, "bench"))
            say(f"5,000 miners report to the cloud for {seconds:g} s ({SITES} sites of {BATCH})")
            work = cloud_pss_mb(config, supervisor, database, cloud.principal, seconds, options.seed)
            figures["cloud_pss_mb_5000"] = round(asyncio.run(work), 1)
            say(f"one agent polls {MINERS} miners for {seconds:g} s, over gRPC, then through a broker")
            figures["agent_pss_mb_500_grpc"] = round(agent_pss_mb(cloud, "footprint-grpc", "", folder, seconds), 1)
            with broker(cloud, broker_port, folder) as link:
                used_mb = agent_pss_mb(cloud, "footprint-mqtt", link, folder, seconds)
            figures["agent_pss_mb_500_mqtt"] = round(used_mb, 1)
            database.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    theirs = peers(MINERS, runs, options.seed)
    finish("footprint", figures | (ratios(figures, theirs) if theirs else {}), options.seed, theirs)
    return 0 if theirs else 1


if __name__ == "__main__":
    sys.exit(main())
