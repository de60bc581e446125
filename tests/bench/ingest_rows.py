"""The ingest bench's peer: a row a sample, unique by miner and time, and an upsert of each miner's newest row.

That is how fleet managers on PostgreSQL commonly keep telemetry. It stores the same samples as ours, in batches of 500
a commit, in a database of its own on the same server, each miner's newest row being there already, three ways:

    execute_values   psycopg2's fast path, rows already in memory: no link, no decoding
    sqlalchemy       SQLAlchemy Core on psycopg2, rows already in memory: no link, no decoding
    messages         a protobuf message a row over gRPC without TLS, then execute_values; four connections

What is compared: CPU a sample of application and database together, bytes stored a sample with all indexes, bytes of
write-ahead log a sample. Ours carries more in the same figure: mutual TLS, the check against the site's cursor, the
receipt. The first two peers carry less than any real service would, so their ratios are lower bounds.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import grpc.aio
import psycopg

from cloud.infra.postgres import EmbeddedPostgres
from cloud.models.tenancy import OWNER_ROLE
from sitelink.codec import unpack
from tests.bench.load import BATCH, PAYLOADS, Agent, make_payloads
from tests.bench.peer import PEERS, Child, peer_python
from tests.bench.report import say

MODES = ("execute_values", "sqlalchemy", "messages")
_MINUTE_US = 60_000_000


@dataclass(frozen=True)
class Peers:
    """What the peers are run with: the server, the CPU it has used, the samples, and how long to store."""

    cluster: EmbeddedPostgres
    db_cpu_s: Callable[[], float]
    folder: Path
    sites: int
    seconds: float
    seed: int

    def figures(self) -> dict[str, float] | None:
        """Run each peer; return its figures, or None when they cannot be had."""
        python = peer_python("rows")
        if python is None:
            return None
        samples = self.folder / "samples.json"
        samples.write_text(json.dumps([_plain(site, self.seed) for site in range(self.sites)]))
        found: dict[str, float] = {}
        for mode in MODES:
            say(f"peer {mode}: {self.seconds:g} s")
            self.cluster.create_database(f"peer_{mode}")
            address = self.cluster.url(OWNER_ROLE, f"peer_{mode}").replace("+psycopg", "")
            job = {"mode": mode, "dsn": address, "samples": str(samples), "seconds": self.seconds}
            with psycopg.connect(address, autocommit=True) as watch:
                with Child(str(python), str(PEERS / "rows.py")) as child:
                    child.tell(json.dumps(job))
                    ran = self._messages(child, watch) if mode == "messages" else self._from_memory(child, watch)
                found |= {f"{key}_{mode}": value for key, value in (ran | _sizes(watch)).items()}
            self.cluster.drop_database(f"peer_{mode}")
        return found

    def _from_memory(self, child: Child, watch: psycopg.Connection[Any]) -> dict[str, float]:
        assert child.hear() == "warm"
        db_s, wal = self.db_cpu_s(), wal_position(watch)
        child.tell("go")
        ran = json.loads(child.hear())
        return self._figures(ran, ran["app_s"], self.db_cpu_s() - db_s, wal_position(watch) - wal)

    def _messages(self, child: Child, watch: psycopg.Connection[Any]) -> dict[str, float]:
        port = json.loads(child.hear())["port"]
        child.tell("count")
        before = json.loads(child.hear())
        db_s, wal, started = self.db_cpu_s(), wal_position(watch), time.perf_counter()
        asyncio.run(_flood(f"127.0.0.1:{port}", self.folder, self.sites, self.seconds))
        passed_s = time.perf_counter() - started
        child.tell("count")
        after = json.loads(child.hear())
        ran = {"samples": after["samples"], "passed_s": passed_s}
        app_s = after["app_s"] - before["app_s"]
        return self._figures(ran, app_s, self.db_cpu_s() - db_s, wal_position(watch) - wal)

    @staticmethod
    def _figures(ran: dict[str, float], app_s: float, db_s: float, wal_bytes: int) -> dict[str, float]:
        return {
            "samples": ran["samples"],
            "samples_per_s": round(ran["samples"] / ran["passed_s"]),
            "app_us_per_sample": round(app_s / ran["samples"] * 1e6, 2),
            "db_us_per_sample": round(db_s / ran["samples"] * 1e6, 2),
            "wal_bytes_per_sample": round(wal_bytes / ran["samples"], 1),
        }


class RowStream(Agent):
    """One site's stream of row messages."""

    window: ClassVar[int] = 2

    async def connect(self) -> None:
        """Open the stream."""
        self.call = self.stub()

    async def send(self) -> None:
        """Send the next batch: its body, then sequence and time shift."""
        lap, place = divmod(self.next_seq // BATCH + 1, len(self.payloads))  # the first is stored already
        tail = b"\x18" + _varint(self.next_seq) + b"\x20" + _varint(lap * PAYLOADS * _MINUTE_US)
        self.sent[self.next_seq] = time.perf_counter()
        self.next_seq += BATCH
        await self.call.write(self.payloads[place] + tail)

    async def listen(self) -> None:
        """Take receipts."""
        while (message := await self.call.read()) is not grpc.aio.EOF:
            self.latencies_s.append(time.perf_counter() - self.sent.pop(int.from_bytes(message, "big")))


async def _flood(address: str, folder: Path, sites: int, seconds: float) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = channel.stream_stream("/rows.Ingest/Connect")
        bodies = [[(folder / f"{site}-{place}.bin").read_bytes() for place in range(PAYLOADS)] for site in range(sites)]
        streams = [RowStream(f"site-{site}", "", stub, bodies[site]) for site in range(sites)]
        for stream in streams:
            await stream.connect()
        listening = [asyncio.create_task(stream.listen()) for stream in streams]
        until = time.perf_counter() + seconds
        await asyncio.gather(*(stream.flood(until) for stream in streams))
        await asyncio.gather(*(stream.settled() for stream in streams))
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)


def wal_position(connection: psycopg.Connection[Any]) -> int:
    """Return how many bytes of write-ahead log the server has written."""
    row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return int(row[0])


def stored_bytes(connection: psycopg.Connection[Any], table: str) -> int:
    """Return the size of a table with its indexes and what it keeps aside."""
    row = connection.execute("SELECT pg_total_relation_size(%s::regclass)", (table,)).fetchone()
    assert row is not None
    return int(row[0])


def _sizes(watch: psycopg.Connection[Any]) -> dict[str, float]:
    row = watch.execute("SELECT count(*) FROM telemetry").fetchone()
    assert row is not None
    return {"bytes_per_sample": round(stored_bytes(watch, "telemetry") / row[0], 1)}


def _plain(site: int, seed: int) -> list[list[tuple[object, ...]]]:
    return [
        [
            (
                *(f"site-{site}", item.miner_id, item.read_at.isoformat(), item.state.value, item.hashrate_ths),
                *(item.power_w, item.power_source.value, item.board_temp_c, item.chip_temp_c, item.fan_rpm),
                *(item.accepted, item.rejected, item.uptime_s),
            )
            for item in unpack(payload).readings
        ]
        for payload in make_payloads(site, seed)
    ]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
