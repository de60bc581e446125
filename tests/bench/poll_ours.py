"""Our side of the poll bench, a process of its own: full normalised polls, CPU of this process only.

Reads ``{"firmware", "addresses", "miner_id", "concurrency"}`` from stdin; prints ``warm`` when each device has been
polled once (identity and static data, as at an agent's start), waits for a line, polls each once more, prints figures.
"""

import asyncio
import json
import sys
import time
from typing import Any

from agent.cgminer.client import Address
from agent.cgminer.device import Device
from agent.errors import AgentError
from simulator.site import allow_files
from sitelink.clock import SystemClock
from sitelink.types import MinerState


async def poll_all(devices: list[Device], clock: SystemClock, concurrency: int) -> int:
    """Poll every device once into a reading; return how many did not read as hashing."""
    waiting = iter(devices)
    missed = 0

    async def worker() -> None:
        nonlocal missed
        for device in waiting:
            try:
                reading = (await device.observe()).reading("bench", clock.now())
                missed += reading.state is not MinerState.HASHING
            except AgentError:
                missed += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(concurrency):
            tasks.create_task(worker())
    return missed


async def run(job: dict[str, Any]) -> None:
    """Do the job."""
    clock = SystemClock()
    allow_files(4096)
    devices = [Device(Address(host), job["firmware"], clock, miner_id=job["miner_id"]) for host in job["addresses"]]
    before = time.process_time()
    missed = await poll_all(devices, clock, job["concurrency"])
    first_ms = (time.process_time() - before) * 1e3 / len(devices)
    print("warm", flush=True)
    sys.stdin.readline()
    before, started = time.process_time(), time.perf_counter()
    missed += await poll_all(devices, clock, job["concurrency"])
    spent_s, passed_s = time.process_time() - before, time.perf_counter() - started
    figures = {
        "cpu_ms": spent_s * 1e3 / len(devices),
        "cpu_ms_first": first_ms,
        "polls_per_s": len(devices) / passed_s,
        "missed": missed,
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.stdin.readline())))
