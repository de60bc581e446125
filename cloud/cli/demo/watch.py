"""What the demo looks at: the simulators' truth, the agents' own status, and the cloud's records.

Invariant: a source that does not answer gives None, never an old or invented value.
"""

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx
from sqlalchemy import ColumnElement, select

from cloud.cli.demo import stage
from cloud.cli.demo.captures import Kept, Recorded, devices_of
from cloud.cli.demo.stage import SiteStage
from cloud.core.access import Principal
from cloud.core.errors import Transient
from cloud.infra.db import Database, UnitOfWork
from cloud.models.hosting import MINER_TELEMETRY
from sitelink import codec
from sitelink.types import MinerState

_TIMEOUT_S: Final = 5.0
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class TrueMiner:
    """One simulated miner as it really is; ``liar`` names how it lies, None when it is honest."""

    miner_id: str
    dead: bool
    liar: str | None
    hashing: bool
    feeder_id: str


@dataclass(frozen=True, slots=True)
class StoredReadings:
    """The readings in the store, counted one by one: ``doubled`` have the miner and time of another."""

    readings: int
    doubled: int


class Watch:
    """Reads the world. Transient failures give None: during the demo any process may be down for a moment."""

    def __init__(self, database: Database) -> None:
        self.principal: Principal | None = None
        self._database = database
        self._http = httpx.Client(timeout=_TIMEOUT_S)

    def truth(self, site: SiteStage) -> dict[str, TrueMiner]:
        """Return every miner of a site as the simulator knows it, by id."""
        document = self._http.get(f"http://{site.simulator}/truth").raise_for_status().json()
        return {
            row["miner_id"]: TrueMiner(row["miner_id"], row["dead"], row["liar"], row["hashing"], row["feeder_id"])
            for row in document["miners"]
        }

    def recorded(self, site: SiteStage) -> tuple[Recorded, ...]:
        """Return every recorded device of a site as its replay knows it."""
        return devices_of(self._http.get(f"http://{site.simulator}/devices").raise_for_status().json())

    def set_cable(self, site: SiteStage, mode: str) -> None:
        """Cut or mend a site's link to the cloud: ``cut`` or ``up``."""
        self._http.post(f"http://{site.link_control}/link", json={"mode": mode}).raise_for_status()

    def agent(self, site: SiteStage) -> dict[str, Any] | None:
        """Return what a site's agent says of itself, None while it says nothing."""
        command = [str(part) for part in stage.status_command(site)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)  # noqa: S603 - ours
            status: dict[str, Any] = json.loads(done.stdout)
        except (ValueError, subprocess.TimeoutExpired):
            return None
        return status

    def read(self, work: Callable[[UnitOfWork], _Result]) -> _Result | None:
        """Return ``work(uow)`` of a fresh transaction; None while the database does not answer."""
        if self.principal is None:
            return None
        try:
            with self._database.unit_of_work(self.principal) as uow:
                return work(uow)
        except Transient:
            return None

    def write(self, work: Callable[[UnitOfWork], _Result]) -> _Result:
        """Return ``work(uow)`` of a committed transaction, tried again while the database is away.

        Raises:
            Transient: it stayed away.
        """
        if self.principal is None:
            raise Transient("the control plane is not up yet")
        return self._database.run(self.principal, work, attempts=8)

    def count_readings(self) -> StoredReadings | None:
        """Count the stored readings by decoding every batch: the store's own counters are not believed here."""
        return self.read(_count_readings)

    def kept(self, site: SiteStage) -> dict[str, Kept] | None:
        """Return what the store holds of each device of a site, by miner id, by decoding every batch."""
        return self.read(lambda uow: _kept(uow, site.site_id))

    def serves(self, address: str) -> bool:
        """Return whether the console answers."""
        try:
            return self._http.get(f"http://{address}/healthz").is_success
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._database.close()


def _payloads(uow: UnitOfWork, *chosen: ColumnElement[bool]) -> Iterable[bytes]:
    rows = MINER_TELEMETRY.c
    query = select(rows.payload).where(rows.tenant_id == uow.tenant_id, rows.readings > 0, *chosen)
    return uow.session.execute(query).scalars()


def _kept(uow: UnitOfWork, site_id: str) -> dict[str, Kept]:
    readings: Counter[str] = Counter()
    known: Counter[str] = Counter()
    for payload in _payloads(uow, MINER_TELEMETRY.c.site_id == site_id):
        columns, _ = codec.unpack_columns(payload)
        readings.update(columns.miner_id)
        states = zip(columns.miner_id, columns.state, strict=True)
        known.update(miner_id for miner_id, state in states if codec.STATES[state] is not MinerState.UNKNOWN)
    return {miner_id: Kept(count, known[miner_id]) for miner_id, count in readings.items()}


def _count_readings(uow: UnitOfWork) -> StoredReadings:
    seen: set[tuple[str, int]] = set()
    readings = 0
    for payload in _payloads(uow):
        columns, _ = codec.unpack_columns(payload)
        readings += len(columns)
        seen.update(zip(columns.miner_id, columns.read_at_ms, strict=True))
    return StoredReadings(readings, readings - len(seen))
