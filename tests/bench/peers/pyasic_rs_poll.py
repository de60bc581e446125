"""asic-rs' side of the poll bench (its Python wheel): same protocol on stdin and stdout as ``poll_ours``."""

import asyncio
import json
import resource
import sys
import time
from pathlib import Path

from pyasic_rs import MinerFactory


async def identify(addresses, concurrency):
    factory = MinerFactory()
    gate = asyncio.Semaphore(concurrency)

    async def one(address):
        async with gate:
            try:
                return await factory.get_miner(address)
            except Exception:  # noqa: BLE001 - whatever a peer raises is a miss
                return None

    return [miner for miner in await asyncio.gather(*(one(a) for a in addresses)) if miner is not None]


async def poll_all(miners, concurrency):
    gate = asyncio.Semaphore(concurrency)
    missed = 0

    async def one(miner):
        nonlocal missed
        async with gate:
            try:
                data = await miner.get_data()
                missed += data.hashrate is None
            except Exception:  # noqa: BLE001 - whatever a peer raises is a miss
                missed += 1

    await asyncio.gather(*(one(miner) for miner in miners))
    return missed


def pss_mb():
    with Path("/proc/self/smaps_rollup").open() as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


async def run(job):
    miners = await identify(job["addresses"], min(job["concurrency"], 50))
    print("warm", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    before, started = time.process_time(), time.perf_counter()
    missed = await poll_all(miners, job["concurrency"])
    spent_s, passed_s = time.process_time() - before, time.perf_counter() - started
    polled = max(len(miners), 1)
    figures = {"cpu_ms": spent_s * 1e3 / polled, "polls_per_s": polled / passed_s, "missed": missed}
    figures["pss_mb"] = pss_mb()
    print(json.dumps({**figures, "identified": len(miners), "kind": str(miners[0])[:60] if miners else ""}))


resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
asyncio.run(run(json.loads(sys.stdin.readline())))
