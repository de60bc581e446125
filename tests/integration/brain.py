"""A site of a few miners in a real database, with what the planner and billing read."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cloud.analytics.model import Publication
from cloud.analytics.service import collect
from cloud.core.access import Principal
from cloud.hosting import service as hosting
from cloud.infra.db import Database
from cloud.settings import Settings
from sitelink.clock import ManualClock
from sitelink.codec import pack
from sitelink.types import (
    Ack,
    Batch,
    BatchBody,
    BatchKind,
    Evidence,
    Interval,
    MeterSample,
    MinerState,
    Notice,
    NoticeCode,
    Outcome,
    Reading,
    Verb,
)
from sitelink.units import TeraHashPerSecond, UsdPerMegawattHour, Watts

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
SITE = "pecos-1"
MARKET = "TEST_HUB"
SETTINGS = Settings(
    market=MARKET,
    lead_s=60,
    min_block_s=900,
    verify_interval_s=60,
    baseline_s=300,
    meter_gap_s=60,
    verify_grace_s=600,
    billing_interval_s=900,
)


@dataclass(slots=True)
class Field:
    """One site, its clock, and a tap for whatever it reports."""

    database: Database
    principal: Principal
    clock: ManualClock
    miners: tuple[str, ...] = ()
    seq: int = 0
    epoch: str = field(default_factory=lambda: uuid.uuid4().hex)

    def report(self, **body: object) -> None:
        """Ingest one batch."""
        content = BatchBody(**body)  # type: ignore[arg-type]
        kind = BatchKind.CONTROL if content.acks or content.notices else BatchKind.TELEMETRY
        batch = Batch(SITE, self.epoch, self.seq, len(content), kind, self.clock.now(), pack(content))
        self.seq += len(content)
        with self.database.unit_of_work(self.principal) as uow:
            hosting.ingest(uow, batch)

    def all_hash(self, *, but: Sequence[str] = ()) -> None:
        """Report every miner as hashing now, but some as idle."""
        self.report(
            readings=tuple(
                Reading(
                    miner_id=name,
                    read_at=self.clock.now(),
                    state=MinerState.IDLE if name in but else MinerState.HASHING,
                    hashrate_ths=TeraHashPerSecond(0.0 if name in but else 200.0),
                    power_w=Watts(30.0 if name in but else 3500.0),
                )
                for name in self.miners
            )
        )

    def meter(self, window: Interval, power_w: float, step_s: float = 10.0, meter_id: str = "site") -> None:
        """Report a constant power over ``[start, end)``."""
        samples = []
        moment = window.start
        while moment < window.end:
            samples.append(MeterSample(meter_id, moment, Watts(power_w), None))
            moment += timedelta(seconds=step_s)
        self.report(meters=tuple(samples))

    def ack(
        self,
        order: str,
        name: str,
        at: datetime,
        outcome: Outcome = Outcome.COMPLETE,
        reason: str = "power_below_idle",
        verb: Verb = Verb.STOP,
    ) -> Ack:
        """Return one ack."""
        return Ack(
            uuid.uuid4().hex,
            order,
            1,
            name,
            verb,
            outcome,
            Evidence.FEEDER_METER,
            reason,
            at,
            Watts(3500.0),
            Watts(30.0),
        )

    def notice(self, code: NoticeCode, subject: str) -> Notice:
        """Return one notice of now."""
        return Notice(uuid.uuid4().hex, self.clock.now(), code, subject, "test")

    def prices(self, values: Sequence[float], start: datetime = NOON, step: timedelta = QUARTER) -> None:
        """Publish prices of consecutive intervals."""
        intervals = tuple(
            (Interval(start + step * place, start + step * (place + 1)), UsdPerMegawattHour(value))
            for place, value in enumerate(values)
        )
        with self.database.unit_of_work(self.principal) as uow:
            collect(uow, Publication(MARKET, "test", self.clock.now(), intervals))


def open_field(database: Database, principal: Principal, folder: Path, count: int = 6) -> Field:
    """Create the site with ``count`` LuxOS miners on two feeders (3500 W, 200 TH/s) and one that nobody can stop."""
    clock = ManualClock(NOON)
    database.clock = clock
    names = tuple(f"02:00:00:00:00:{place:02x}" for place in range(count))
    rows = [
        f"{name},127.0.0.{place + 1},4028,luxos,S21,F{place % 2},C1-R1,{place},3500,200"
        for place, name in enumerate(names)
    ]
    rows.append(f"02:00:00:00:01:00,127.0.1.1,4028,goldshell,S19,F0,C1-R2,{count},3200,100")
    header = "miner_id,host,port,dialect,model,feeder_id,rack,position,nameplate_w,nameplate_ths"
    inventory, meters = folder / "inventory.csv", folder / "meters.csv"
    inventory.write_text("\n".join([header, *rows]) + "\n")
    lines = ["meter_id,kind,feeder_id,url", "site,site,,modbus://127.0.0.1:502/1?register=0"]
    lines += [f"f{place},feeder,F{place},modbus://127.0.0.1:502/{place + 2}?register=0" for place in range(2)]
    meters.write_text("\n".join(lines) + "\n")
    with database.unit_of_work(principal) as uow:
        hosting.create_site(uow, SITE, "Pecos", "America/Chicago")
        hosting.import_inventory(uow, SITE, inventory, meters)
    made = Field(database, principal, clock, (*names, "02:00:00:00:01:00"))
    made.all_hash()
    return made


def settings(**changes: object) -> Settings:
    """Return the tests' settings with changes."""
    return Settings(**{**SETTINGS.model_dump(exclude_unset=True), **changes})  # type: ignore[arg-type]


__all__ = ["MARKET", "NOON", "QUARTER", "SETTINGS", "SITE", "Field", "open_field", "replace", "settings"]
