"""What storing telemetry costs: ``python -m tests.bench.ingest [--sites N] [--seconds S] [--quick] [--seed S]``.

``ballast up`` runs as a person runs it (embedded PostgreSQL, fsync on, TLS, one serve process). N agents enrol and
stream batches of 500 readings over the real link. First paced at a million miners polled once a minute (16,667 samples/s):
latency from sending a batch to its receipt, cores of serve and PostgreSQL, growth of serve's memory. Then unpaced:
samples stored a second, and CPU a sample of the application and of the database. The store is counted at the end.
Load and server share the machine, so ``unpaced_samples_per_s`` is a lower bound.
"""

import asyncio
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloud.core.access import Principal, system_principal
from cloud.hosting import queries, service
from cloud.identity import enrolment
from cloud.identity.authority import CertificateAuthority
from cloud.infra.connect import database_url
from cloud.infra.db import Database
from cloud.settings import load_settings
from sitelink.codec import decode_down, encode_up, pack
from sitelink.types import Batch, BatchBody, BatchKind, Hello, MinerState, PowerSource, Reading, Receipt
from sitelink.units import Celsius, RevolutionsPerMinute, TeraHashPerSecond, Watts
from sitelink.v1 import link_pb2 as pb
from sitelink.v1 import link_pb2_grpc
from tests.bench.report import arguments, finish, say

BATCH = 500
PACED_SAMPLES_PER_S = 1_000_000 / 60
PAYLOADS = 12
WINDOW = 16
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Agent:
    """One site's agent: what it sent and when, and how long receipts took."""

    site_id: str
    agent_id: str
    stub: Any
    payloads: Sequence[bytes]
    sent: dict[int, float] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)
    next_seq: int = 0
    call: Any = None

    async def connect(self) -> None:
        """Open the stream and say Hello."""
        self.call = self.stub.Connect()
        await self.call.write(encode_up(Hello(self.site_id, self.agent_id, "bench", "e1", 0, 0)))
        await self.call.read()

    async def send(self) -> None:
        """Send the next batch."""
        payload = self.payloads[self.next_seq // BATCH % len(self.payloads)]
        frame = Batch(self.site_id, "e1", self.next_seq, BATCH, BatchKind.TELEMETRY, datetime.now(UTC), payload)
        self.sent[self.next_seq] = time.perf_counter()
        self.next_seq += BATCH
        await self.call.write(encode_up(frame))

    async def listen(self) -> None:
        """Take receipts."""
        while (message := await self.call.read()) is not grpc.aio.EOF:
            frame = decode_down(message)
            if isinstance(frame, Receipt):
                self.latencies_s.append(time.perf_counter() - self.sent.pop(frame.first_seq))

    async def pace(self, batches_per_s: float, until: float, offset_s: float) -> None:
        """Send at a steady rate, whatever the receipts do."""
        at = time.perf_counter() + offset_s
        while at < until:
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            await self.send()
            at += 1 / batches_per_s

    async def flood(self, until: float) -> None:
        """Send as fast as receipts come."""
        while time.perf_counter() < until:
            if len(self.sent) < WINDOW:
                await self.send()
            else:
                await asyncio.sleep(0.001)

    async def settled(self) -> None:
        """Wait until every batch has its receipt."""
        async with asyncio.timeout(120):
            while self.sent:
                await asyncio.sleep(0.01)


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
def running(folder: Path) -> Iterator[tuple[Path, int]]:
    """Run ``ballast up`` in ``folder``; yield its configuration and process id."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    http, link, enrol = (f"127.0.0.1:{listener.getsockname()[1]}" for listener in held)
    for listener in held:
        listener.close()
    config = folder / "cloud.toml"
    config.write_text(f'data_dir = "data"\nhttp_listen = "{http}"\nlink_listen = "{link}"\nenrol_listen = "{enrol}"\n')
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
        log.close()


def make_payloads(site: int, seed: int) -> list[bytes]:
    """Return packed batches of 500 miners, each a minute after the one before."""
    rng = random.Random(f"{seed}-{site}")
    start = datetime.now(UTC) - timedelta(minutes=PAYLOADS)
    return [pack(BatchBody(readings=_readings(site, start + timedelta(minutes=step), rng))) for step in range(PAYLOADS)]


def _readings(site: int, at: datetime, rng: random.Random) -> tuple[Reading, ...]:
    return tuple(
        Reading(
            miner_id=f"02:00:{site:02x}:00:{number // 256:02x}:{number % 256:02x}",
            read_at=at + timedelta(milliseconds=rng.randrange(60_000)),
            state=MinerState.HASHING,
            hashrate_ths=TeraHashPerSecond(round(rng.gauss(104, 2), 2)),
            power_w=Watts(round(rng.gauss(3068, 25), 0)),
            power_source=PowerSource.DEVICE,
            board_temp_c=Celsius(round(rng.gauss(62, 3), 1)),
            chip_temp_c=Celsius(round(rng.gauss(74, 3), 1)),
            fan_rpm=RevolutionsPerMinute(rng.randrange(4200, 6200, 30)),
            accepted=rng.randrange(10**6),
            rejected=rng.randrange(100),
            uptime_s=rng.randrange(10**6),
        )
        for number in range(BATCH)
    )


async def enrolled(config: Path, database: Database, principal: Principal, sites: int, seed: int) -> list[Agent]:
    """Create the sites and enrol an agent for each."""
    settings = load_settings(config)
    authority = CertificateAuthority(settings.key_dir, database.clock)
    agents = []
    for number in range(sites):
        site_id = f"site-{number}"
        with database.unit_of_work(principal) as uow:
            service.create_site(uow, site_id, site_id, "UTC")
            token = enrolment.make_join_token(uow, authority, site_id)
        key = ec.generate_private_key(ec.SECP256R1())
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        async with grpc.aio.secure_channel(
            settings.enrol_listen, grpc.ssl_channel_credentials(authority.pem)
        ) as channel:
            request = pb.EnrolRequest(join_token=token, csr_pem=csr.public_bytes(serialization.Encoding.PEM))
            reply = await link_pb2_grpc.EnrolmentStub(channel).Enrol(request, timeout=20)
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        credentials = grpc.ssl_channel_credentials(authority.pem, key_pem, reply.certificate_pem)
        channel = grpc.aio.secure_channel(
            settings.link_listen, credentials, options=(("grpc.use_local_subchannel_pool", 1),)
        )
        stub = link_pb2_grpc.SiteLinkStub(channel)
        agents.append(Agent(site_id, reply.agent_id, stub, make_payloads(number, seed)))
    return agents


async def measure(
    config: Path, supervisor: int, database: Database, principal: Principal, sites: int, seconds: float, seed: int
) -> dict[str, float]:
    """Run both phases and return the figures."""
    agents = await enrolled(config, database, principal, sites, seed)
    for agent in agents:
        await agent.connect()
    listening = [asyncio.create_task(agent.listen()) for agent in agents]
    processes = Processes(supervisor)
    rate = PACED_SAMPLES_PER_S / BATCH / sites
    say(f"warm-up, then {seconds:g} s paced at {PACED_SAMPLES_PER_S:.0f} samples/s from {sites} sites")
    await _paced(agents, rate, 3)
    for agent in agents:
        agent.latencies_s.clear()
    before_mb, before_s = processes.pss_mb("\0serve\0"), _cpu(processes)
    await _paced(agents, rate, seconds)
    used_s = sum(_cpu(processes)) - sum(before_s)
    grown_mb = processes.pss_mb("\0serve\0") - before_mb
    latencies = sorted(latency for agent in agents for latency in agent.latencies_s)
    say(f"unpaced for {seconds / 2:g} s")
    before, before_s, start = sum(agent.next_seq for agent in agents), _cpu(processes), time.perf_counter()
    await asyncio.gather(*(agent.flood(start + seconds / 2) for agent in agents))
    await asyncio.gather(*(agent.settled() for agent in agents))
    elapsed_s, stored = time.perf_counter() - start, sum(agent.next_seq for agent in agents) - before
    app_s, db_s = (after - first for after, first in zip(_cpu(processes), before_s, strict=True))
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    with database.unit_of_work(principal) as uow:
        counts = queries.stored_counts(uow)
    sent = sum(agent.next_seq for agent in agents)
    return {
        "cores": round(used_s / seconds, 3),
        "ack_p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 1),
        "ack_p50_ms": round(latencies[len(latencies) // 2] * 1000, 1),
        "rss_growth_mb": round(grown_mb, 1),
        "lost": sent - (counts.items - counts.doubled),
        "doubled": counts.doubled,
        "unpaced_samples_per_s": round(stored / elapsed_s),
        "app_us_per_sample": round(app_s / stored * 1e6, 2),
        "db_us_per_sample": round(db_s / stored * 1e6, 2),
        "sites": sites,
        "samples": sent,
    }


async def _paced(agents: Sequence[Agent], rate: float, seconds: float) -> None:
    until = time.perf_counter() + seconds
    await asyncio.gather(*(agent.pace(rate, until, place / rate / len(agents)) for place, agent in enumerate(agents)))
    await asyncio.gather(*(agent.settled() for agent in agents))


def _cpu(processes: Processes) -> tuple[float, float]:
    return processes.cpu_s("\0serve\0"), processes.cpu_s("/postgres\0")


def main() -> None:
    """Run the bench."""
    parser = arguments("ingest", "What storing telemetry costs.")
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    seconds = min(options.seconds, 12.0) if options.quick else options.seconds
    folder = Path(tempfile.mkdtemp(prefix="ballast-bench-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        with running(folder) as (config, supervisor):
            database = Database(database_url(load_settings(config)))
            (tenant_id,) = database.tenant_ids()
            principal = system_principal(tenant_id, "bench")
            figures = asyncio.run(
                measure(config, supervisor, database, principal, options.sites, seconds, options.seed)
            )
            database.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    finish("ingest", figures, options.seed)


if __name__ == "__main__":
    main()
