"""How much room Ballast takes: ``python -m tests.bench.footprint [--quick] [--seed S]``.

``agent_site_packages_mb``: an environment of its own made from ``requirements/agent.txt``, without pip and setuptools.
``agent_pss_mb_500_grpc``: one agent polling 500 simulated miners over the real link (proportional set size).
``failsafe_ratio_bare_python``: the median time of ``agent failsafe --help`` over that of ``python -c pass``.
``cloud_pss_mb_5000``: serve, worker and PostgreSQL while ten sites report 5,000 miners (every 10 s).
The MQTT uplink comes with a later issue; its figure is left out until then.
"""

import asyncio
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from cloud.core.access import Principal, system_principal
from cloud.hosting import queries, service
from cloud.identity import enrolment
from cloud.identity.authority import CertificateAuthority
from cloud.infra.connect import database_url
from cloud.infra.db import Database
from cloud.settings import load_settings
from tests.bench.load import BATCH, enrolled
from tests.bench.report import ROOT, arguments, finish, say
from tests.bench.served import Processes, running

MINERS = 500
SITES = 10


def agent_site_packages_mb() -> float:
    """Return the size of the agent's own environment."""
    folder = ROOT / ".cache" / "bench" / "agent"
    marker = folder / ".made"
    wanted = (ROOT / "requirements" / "agent.txt").read_text()
    if not marker.is_file() or marker.read_text() != wanted:
        say("making the agent's own environment")
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, "--require-hashes", "-r", str(ROOT / "requirements" / "agent.txt")], check=True)
        marker.write_text(wanted)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    own = [ROOT / "agent", ROOT / "proto" / "sitelink"]
    counted = [entry for entry in packages.iterdir() if not entry.name.startswith(("pip", "setuptools", "_distutils"))]
    return sum(_size(path) for path in (*counted, *own)) / 1e6


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file() and not entry.is_symlink())


def failsafe_ratio(runs: int) -> float:
    """Return the start of the failsafe command over that of a bare interpreter."""

    def median_s(*command: str) -> float:
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    return median_s("-m", "agent", "failsafe", "--help") / median_s("-c", "pass")


def agent_pss_mb(config: Path, database: Database, principal: Principal, folder: Path, seconds: float) -> float:
    """Return the memory of one agent that polls 500 simulated miners, after ``seconds`` of it."""
    settings = load_settings(config)
    site = folder / "site"
    control = _free_address()
    simulator = subprocess.Popen(
        [
            *(sys.executable, "-m", "simulator", "site", "--site-id", "footprint", "--miners", str(MINERS)),
            *(
                "--seed",
                "1",
                "--net",
                "127.231",
                "--control",
                control,
                "--out",
                str(site),
                "--dead",
                "0",
                "--liars",
                "0",
            ),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    agent = None
    try:
        assert simulator.stdout is not None
        json.loads(simulator.stdout.readline())
        (site / "agent.toml").write_text(
            '[site]\nsite_id = "footprint"\ninventory = "inventory.csv"\nmeters = "meters.csv"\nstate_dir = "state"\n'
            f'[link]\nendpoint = "{settings.link_listen}"\nenrol_endpoint = "{settings.enrol_listen}"\n'
            "[poll]\ninterval_s = 30\n"
        )
        with database.unit_of_work(principal) as uow:
            service.create_site(uow, "footprint", "footprint", "UTC")
            service.import_inventory(uow, "footprint", site / "inventory.csv", site / "meters.csv")
            authority = CertificateAuthority(settings.key_dir, database.clock)
            token = enrolment.make_join_token(uow, authority, "footprint")
        command = [sys.executable, "-m", "agent"]
        toml = ["--config", str(site / "agent.toml")]
        subprocess.run([*command, "enrol", *toml, "--token", token], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        agent = subprocess.Popen([*command, "run", *toml], cwd=ROOT, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline or _stored(database, principal) < MINERS:
            if agent.poll() is not None or time.monotonic() > deadline + 120:
                raise RuntimeError("the agent did not report its miners")
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


def _stored(database: Database, principal: Principal) -> int:
    with database.unit_of_work(principal) as uow:
        return sum(epoch.items for epoch in queries.stored_counts(uow).epochs if epoch.site_id == "footprint")


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


def main() -> None:
    """Run the bench."""
    options = arguments("footprint", "How much room Ballast takes.").parse_args()
    seconds = 8.0 if options.quick else 60.0
    figures = {"agent_site_packages_mb": round(agent_site_packages_mb(), 1)}
    figures["failsafe_ratio_bare_python"] = round(failsafe_ratio(5 if options.quick else 21), 2)
    folder = Path(tempfile.mkdtemp(prefix="ballast-bench-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        with running(folder) as (config, supervisor):
            database = Database(database_url(load_settings(config)))
            (tenant_id,) = database.tenant_ids()
            principal = system_principal(tenant_id, "bench")
            say(f"5,000 miners report to the cloud for {seconds:g} s ({SITES} sites of {BATCH})")
            work = cloud_pss_mb(config, supervisor, database, principal, seconds, options.seed)
            figures["cloud_pss_mb_5000"] = round(asyncio.run(work), 1)
            say(f"one agent polls {MINERS} miners for {seconds:g} s")
            figures["agent_pss_mb_500_grpc"] = round(agent_pss_mb(config, database, principal, folder, seconds), 1)
            database.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    finish("footprint", figures, options.seed)


if __name__ == "__main__":
    main()
