"""What pages cost: ``python -m tests.bench.console [--requests N] [--quick] [--seed S]``.

``ballast up`` runs as a person runs it. One site of 5,000 miners with six hours of meter samples every 5 s and a plan
that stops half of them is asked for over HTTP, signed in, one request after another.
``dashboard_p95_ms``: the site page, whole. ``devices_p95_ms``: a page of its miners' list. ``serve_cpu_ms``: the
server's own CPU a site page. ``transfer_kb``: the page and its two bundles, compressed as a proxy would.
"""

import csv
import gzip
import http.client
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cloud.analytics.model import Publication
from cloud.analytics.service import collect
from cloud.api.render import STATIC
from cloud.core.access import Principal, system_principal
from cloud.flows.curtailment import replan_site
from cloud.hosting import service
from cloud.identity import service as identity
from cloud.infra.connect import database_url
from cloud.infra.db import Database
from cloud.planner.service import policy
from cloud.settings import Settings, load_settings
from sitelink.codec import pack
from sitelink.inventory import METER_FIELDS, MINER_FIELDS
from sitelink.types import Batch, BatchBody, BatchKind, Interval, MeterSample, MinerState, Reading
from sitelink.units import Celsius, RevolutionsPerMinute, TeraHashPerSecond, UsdPerMegawattHour, Watts
from tests.bench.report import arguments, finish, say
from tests.bench.served import Processes, running

MINERS = 5000
SITE = "bench"
HISTORY = timedelta(hours=6)
STEP = timedelta(seconds=5)
BATCH = 500
_Item = TypeVar("_Item")


def names() -> tuple[str, ...]:
    """Return the miners' ids."""
    return tuple(f"02:00:00:00:{place >> 8:02x}:{place & 255:02x}" for place in range(MINERS))


def import_site(database: Database, principal: Principal, folder: Path) -> None:
    """Create the site with its inventory and one site meter."""
    miners, meters = folder / "inventory.csv", folder / "meters.csv"
    with miners.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(MINER_FIELDS)
        for place, name in enumerate(names()):
            rack = f"C{place // 500 + 1}-R{place // 50 % 10 + 1}"
            plate = (3400, 110) if place % 2 else (3100, 140)
            rows.writerow(
                (name, "127.0.0.1", 10_000 + place, "luxos", "S21", f"F{place // 50}", rack, place % 50, *plate)
            )
    with meters.open("w", newline="") as file:
        csv.writer(file).writerows([METER_FIELDS, ("site", "site", "", "modbus://127.0.0.1:502/1?register=0")])
    with database.unit_of_work(principal) as uow:
        service.create_site(uow, SITE, "Bench", "UTC")
        service.import_inventory(uow, SITE, miners, meters)


def report(database: Database, principal: Principal, seed: int) -> None:
    """Ingest a reading of each miner and six hours of meter samples that end now."""
    rng = random.Random(seed)
    now = datetime.now(UTC)
    bodies = [
        BatchBody(readings=tuple(_reading(name, now, rng) for name in chunk)) for chunk in _chunks(names(), BATCH)
    ]
    moments = [now - STEP * place for place in range(HISTORY // STEP)]
    bodies += [
        BatchBody(meters=tuple(MeterSample("site", at, Watts(rng.gauss(16.4e6, 3e4)), None) for at in chunk))
        for chunk in _chunks(moments, BATCH)
    ]
    seq = 0
    for body in bodies:
        batch = Batch(SITE, "e1", seq, len(body), BatchKind.TELEMETRY, now, pack(body))
        seq += len(body)
        with database.unit_of_work(principal) as uow:
            service.ingest(uow, batch)


def _chunks(items: Sequence[_Item], size: int) -> list[Sequence[_Item]]:
    return [items[first : first + size] for first in range(0, len(items), size)]


def _reading(name: str, now: datetime, rng: random.Random) -> Reading:
    return Reading(
        miner_id=name,
        read_at=now - timedelta(milliseconds=rng.randrange(30_000)),
        state=MinerState.HASHING,
        hashrate_ths=TeraHashPerSecond(round(rng.gauss(110, 2), 2)),
        power_w=Watts(round(rng.gauss(3250, 25))),
        board_temp_c=Celsius(round(rng.gauss(62, 3), 1)),
        chip_temp_c=Celsius(round(rng.gauss(74, 3), 1)),
        fan_rpm=RevolutionsPerMinute(5600),
        uptime_s=86_400,
    )


def plan(database: Database, principal: Principal, settings: Settings) -> None:
    """Publish a day of prices with a dear hour in it and plan for them."""
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    quarter = timedelta(minutes=15)
    values = [80.0 if 8 <= place < 12 else 30.0 for place in range(96)]
    intervals = tuple(
        (Interval(start + quarter * place, start + quarter * (place + 1)), UsdPerMegawattHour(value))
        for place, value in enumerate(values)
    )
    with database.unit_of_work(principal) as uow:
        collect(uow, Publication(settings.market, "bench", datetime.now(UTC), intervals))
    made = replan_site(database, principal, SITE, policy(settings))
    stops = sum(len(item.curtailment.miner_ids) for item in made.curtailments) if made else 0
    say(f"the plan stops {stops} miners")


def signed_in(database: Database, principal: Principal, settings: Settings) -> str:
    """Return the cookie of a session whose password has been changed."""
    with database.unit_of_work(principal) as uow:
        once = identity.reset_password(uow, settings.operator_email)
    with database.unit_of_work(principal) as uow:
        account = identity.authenticate(uow, settings.operator_email, once)
        assert account is not None
        identity.change_password(uow, account.account_id, once, "long enough for a bench")
        return f"ballast={identity.open_session(uow, account)}"


def ask(address: str, cookie: str, path: str, count: int) -> tuple[list[float], bytes]:
    """Return how long each of ``count`` whole requests took, in ms, and the last answer."""
    connection = http.client.HTTPConnection(address, timeout=30)
    taken, body = [], b""
    for _ in range(count):
        begun = time.perf_counter()
        connection.request("GET", path, headers={"Cookie": cookie})
        answer = connection.getresponse()
        body = answer.read()
        taken.append((time.perf_counter() - begun) * 1000)
        if answer.status != 200:
            raise RuntimeError(f"{path}: HTTP {answer.status}")
    connection.close()
    return taken, body


def p95(values: Sequence[float]) -> float:
    """Return the 95th percentile."""
    return sorted(values)[max(0, -(-len(values) * 95 // 100) - 1)]


def main() -> None:
    """Run the bench."""
    parser = arguments("console", "What pages cost.")
    parser.add_argument("--requests", type=int, default=400)
    options = parser.parse_args()
    count = 60 if options.quick else options.requests
    folder = Path(tempfile.mkdtemp(prefix="ballast-bench-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        with running(folder) as (config, supervisor):
            settings = load_settings(config)
            database = Database(database_url(settings))
            (tenant_id,) = database.tenant_ids()
            principal = system_principal(tenant_id, "bench")
            import_site(database, principal, folder)
            report(database, principal, options.seed)
            plan(database, principal, settings)
            cookie = signed_in(database, principal, settings)
            database.close()
            processes = Processes(supervisor)
            ask(settings.http_listen, cookie, f"/sites/{SITE}", 3)
            before = processes.cpu_s("\0serve\0")
            pages, page = ask(settings.http_listen, cookie, f"/sites/{SITE}", count)
            cpu_ms = (processes.cpu_s("\0serve\0") - before) * 1000 / count
            devices, _ = ask(settings.http_listen, cookie, f"/sites/{SITE}/miners?page=25", count)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    bundles = sum(len(gzip.compress(path.read_bytes())) for path in STATIC.glob("console-*"))
    figures = {
        "dashboard_p95_ms": round(p95(pages), 1),
        "dashboard_median_ms": round(sorted(pages)[count // 2], 1),
        "serve_cpu_ms": round(cpu_ms, 1),
        "devices_p95_ms": round(p95(devices), 1),
        "transfer_kb": round((len(gzip.compress(page)) + bundles) / 1e3, 1),
    }
    finish("console", figures, options.seed)


if __name__ == "__main__":
    main()
