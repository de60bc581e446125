"""The load of the benches: agents of simulated sites that enrol and stream batches of 500 readings over the real link."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloud.core.access import Principal
from cloud.hosting import service
from cloud.identity import enrolment
from cloud.identity.authority import CertificateAuthority
from cloud.infra.db import Database
from cloud.settings import load_settings
from sitelink.batch_signing import BatchSigner
from sitelink.codec import decode_down, encode_up, pack
from sitelink.types import Batch, BatchBody, BatchKind, Hello, MinerState, PowerSource, Reading, Receipt
from sitelink.units import Celsius, RevolutionsPerMinute, TeraHashPerSecond, Watts
from sitelink.v1 import link_pb2 as pb
from sitelink.v1 import link_pb2_grpc

BATCH = 500
PAYLOADS = 12


@dataclass
class Agent:
    """One site's agent: what it sent and when, and how long receipts took."""

    site_id: str
    agent_id: str
    stub: Any
    payloads: Sequence[bytes]
    signer: BatchSigner | None = None
    sent: dict[int, float] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)
    next_seq: int = 0
    call: Any = None
    window: ClassVar[int] = 16

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
        await self.call.write(encode_up(frame if self.signer is None else self.signer.sign(frame)))

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
            if len(self.sent) < self.window:
                await self.send()
            else:
                await asyncio.sleep(0.001)

    async def settled(self) -> None:
        """Wait until every batch has its receipt."""
        async with asyncio.timeout(120):
            while self.sent:
                await asyncio.sleep(0.01)


@cache
def make_payloads(site: int, seed: int) -> tuple[bytes, ...]:
    """Return packed batches of 500 miners, each a minute after the one before."""
    rng = random.Random(f"{seed}-{site}")
    start = datetime.now(UTC) - timedelta(minutes=PAYLOADS)
    times = (start + timedelta(minutes=step) for step in range(PAYLOADS))
    return tuple(pack(BatchBody(readings=_readings(site, at, rng))) for at in times)


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
        agents.append(Agent(site_id, reply.agent_id, stub, make_payloads(number, seed), BatchSigner(key)))
    return agents
