"""What storing telemetry costs: ``python -m tests.bench.ingest [--sites N] [--seconds S] [--quick] [--seed S]``.

``ballast up`` runs as a person runs it (embedded PostgreSQL, fsync on, TLS, one serve process). N agents enrol and
stream batches of 500 readings over the real link. First paced at a million miners polled once a minute (16,667 samples/s):
latency from sending a batch to its receipt, cores of serve and PostgreSQL, growth of serve's memory. Then unpaced:
samples stored a second, CPU a sample of the application and of the database, bytes of write-ahead log; bytes at rest
are those of the batches as received, with indexes. The store is counted at the end. Load and server share the machine,
so ``unpaced_samples_per_s`` is a lower bound. Then the peers store the same samples on the same PostgreSQL (see
``ingest_rows``); ``ratio_PEER_cpu`` and ``ratio_PEER_bytes`` are peer over ours. Reading back is another bench's matter.
"""

import asyncio
import shutil
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from cloud.core.access import Principal, system_principal
from cloud.hosting import queries
from cloud.infra.connect import database_url
from cloud.infra.db import Database
from cloud.infra.postgres import EmbeddedPostgres, embedded_home
from cloud.models.tenancy import OWNER_ROLE
from cloud.settings import load_settings
from tests.bench.ingest_rows import MODES, Peers, stored_bytes, wal_position
from tests.bench.load import BATCH, Agent, enrolled
from tests.bench.report import arguments, finish, say
from tests.bench.served import Processes, running

PACED_SAMPLES_PER_S = 1_000_000 / 60


@dataclass(frozen=True)
class Ours:
    """What is measured: the agents, the processes that serve them, and their database."""

    agents: Sequence[Agent]
    processes: Processes
    watch: psycopg.Connection[Any]

    async def measure(self, seconds: float) -> dict[str, float]:
        """Run both phases and return the figures."""
        for agent in self.agents:
            await agent.connect()
        listening = [asyncio.create_task(agent.listen()) for agent in self.agents]
        figures = await self._paced(seconds) | await self._unpaced(seconds / 2)
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        return figures

    async def _paced(self, seconds: float) -> dict[str, float]:
        rate = PACED_SAMPLES_PER_S / BATCH / len(self.agents)
        say(f"warm-up, then {seconds:g} s paced at {PACED_SAMPLES_PER_S:.0f} samples/s from {len(self.agents)} sites")
        await _pace(self.agents, rate, 3)
        for agent in self.agents:
            agent.latencies_s.clear()
        before_mb, before_s = self.processes.pss_mb("\0serve\0"), _cpu(self.processes)
        await _pace(self.agents, rate, seconds)
        used_s = sum(_cpu(self.processes)) - sum(before_s)
        latencies = sorted(latency for agent in self.agents for latency in agent.latencies_s)
        return {
            "cores": round(used_s / seconds, 3),
            "ack_p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 1),
            "ack_p50_ms": round(latencies[len(latencies) // 2] * 1000, 1),
            "rss_growth_mb": round(self.processes.pss_mb("\0serve\0") - before_mb, 1),
        }

    async def _unpaced(self, seconds: float) -> dict[str, float]:
        say(f"unpaced for {seconds:g} s")
        before, wal, before_s = self.sent(), wal_position(self.watch), _cpu(self.processes)
        start = time.perf_counter()
        await asyncio.gather(*(agent.flood(start + seconds) for agent in self.agents))
        await asyncio.gather(*(agent.settled() for agent in self.agents))
        elapsed_s, stored = time.perf_counter() - start, self.sent() - before
        app_s, db_s = (after - first for after, first in zip(_cpu(self.processes), before_s, strict=True))
        return {
            "unpaced_samples_per_s": round(stored / elapsed_s),
            "app_us_per_sample": round(app_s / stored * 1e6, 2),
            "db_us_per_sample": round(db_s / stored * 1e6, 2),
            "wal_bytes_per_sample": round((wal_position(self.watch) - wal) / stored, 1),
            "bytes_per_sample_received": round(stored_bytes(self.watch, "miner_telemetry") / self.sent(), 1),
        }

    def sent(self) -> int:
        """Return how many samples the agents have sent."""
        return sum(agent.next_seq for agent in self.agents)


async def _pace(agents: Sequence[Agent], rate: float, seconds: float) -> None:
    until = time.perf_counter() + seconds
    await asyncio.gather(*(agent.pace(rate, until, place / rate / len(agents)) for place, agent in enumerate(agents)))
    await asyncio.gather(*(agent.settled() for agent in agents))


def _cpu(processes: Processes) -> tuple[float, float]:
    return processes.cpu_s("\0serve\0"), processes.cpu_s("/postgres\0")


async def run_ours(
    config: Path, processes: Processes, watch: psycopg.Connection[Any], principal: Principal, options: Namespace
) -> dict[str, float]:
    """Enrol the agents, measure, count the store, and return the figures."""
    database = Database(database_url(load_settings(config)))
    agents = await enrolled(config, database, principal, options.sites, options.seed)
    ours = Ours(agents, processes, watch)
    figures = await ours.measure(options.seconds)
    with database.unit_of_work(principal) as uow:
        counts = queries.stored_counts(uow)
    database.close()
    lost = ours.sent() - (counts.items - counts.doubled)
    return figures | {"lost": lost, "doubled": counts.doubled, "sites": options.sites, "samples": ours.sent()}


def ratios(ours: Mapping[str, float], peers: Mapping[str, float]) -> dict[str, float]:
    """Return what each peer costs over what we cost."""
    ours_us = ours["app_us_per_sample"] + ours["db_us_per_sample"]
    found = {}
    for mode in MODES:
        theirs_us = peers[f"app_us_per_sample_{mode}"] + peers[f"db_us_per_sample_{mode}"]
        found[f"ratio_{mode}_cpu"] = round(theirs_us / ours_us, 2)
        bytes_a_sample = peers[f"bytes_per_sample_{mode}"]
        found[f"ratio_{mode}_bytes"] = round(bytes_a_sample / ours["bytes_per_sample_received"], 2)
    return found


def main() -> int:
    """Run the bench; return 1 when the peers could not be measured."""
    parser = arguments("ingest", "What storing telemetry costs.")
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    options.seconds = min(options.seconds, 6.0) if options.quick else options.seconds
    folder = Path(tempfile.mkdtemp(prefix="ballast-bench-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        with running(folder) as (config, supervisor):
            settings, processes = load_settings(config), Processes(supervisor)
            cluster = EmbeddedPostgres(embedded_home(settings.data_dir))
            database = Database(database_url(settings))
            (tenant_id,) = database.tenant_ids()
            database.close()
            with psycopg.connect(cluster.url(OWNER_ROLE).replace("+psycopg", ""), autocommit=True) as watch:
                work = run_ours(config, processes, watch, system_principal(tenant_id, "bench"), options)
                figures = asyncio.run(work)
            seconds = min(2.0, options.seconds) if options.quick else min(15.0, options.seconds)
            peers = Peers(
                cluster, lambda: processes.cpu_s("/postgres\0"), folder, options.sites, seconds, options.seed
            ).figures()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    finish("ingest", figures | (ratios(figures, peers) if peers else {}), options.seed, peers)
    return 0 if peers else 1


if __name__ == "__main__":
    sys.exit(main())
