"""All SQL with which hosting writes: batches and what they carry, inventory, links, orders.

Invariant: every statement names tenant and site; row-level security backs the former.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import CursorResult, Text, all_, bindparam, delete, func, literal, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION, TIMESTAMP, insert

from cloud.hosting.model import InventoryMeter, InventoryMiner
from cloud.infra.db import UnitOfWork
from cloud.models.hosting import (
    HOSTING_METERS,
    HOSTING_MINERS,
    HOSTING_SITES,
    MINER_TELEMETRY,
    SITE_ACKS,
    SITE_LATEST,
    SITE_LINKS,
    SITE_NOTICES,
    TELEMETRY_CURSORS,
    TELEMETRY_QUARANTINE,
)
from sitelink.types import Ack, Batch, Heartbeat, Hello, MeterSample, Notice

_METER_ROWS: Final = text(
    "INSERT INTO meter_readings (tenant_id, site_id, meter_id, read_at, power_w, energy_wh)"
    " SELECT :tenant_id, :site_id, * FROM unnest(:meter_ids, :read_at, :power_w, :energy_wh)"
    " ON CONFLICT DO NOTHING"
).bindparams(
    bindparam("meter_ids", type_=ARRAY(Text)),
    bindparam("read_at", type_=ARRAY(TIMESTAMP(timezone=True))),
    bindparam("power_w", type_=ARRAY(DOUBLE_PRECISION)),
    bindparam("energy_wh", type_=ARRAY(DOUBLE_PRECISION)),
)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The stored batch that starts at or before the end of a new one; ``same_bytes`` compares the payloads."""

    first_seq: int
    last_seq: int
    same_bytes: bool


def lock_cursor(uow: UnitOfWork, site_id: str, epoch: str) -> int:
    """Return ``through_seq`` of the epoch (-1 when new) and hold its row: one writer an epoch."""
    key = {"tenant_id": uow.tenant_id, "site_id": site_id, "epoch": epoch}
    rows = TELEMETRY_CURSORS.c
    chosen = (rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.epoch == epoch)
    query = select(rows.through_seq).where(*chosen).with_for_update()
    known = uow.session.execute(query).scalar_one_or_none()
    if known is None:
        uow.session.execute(insert(TELEMETRY_CURSORS).values(**key, through_seq=-1).on_conflict_do_nothing())
        known = uow.session.execute(query).scalar_one()
    return int(known)


def neighbour(uow: UnitOfWork, batch: Batch) -> Neighbour | None:
    """Return the only stored batch that can overlap ``batch``: stored ones never overlap each other."""
    rows = MINER_TELEMETRY.c
    query = (
        select(rows.first_seq, rows.last_seq, (rows.payload == batch.payload).label("same"))
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == batch.site_id, rows.epoch == batch.epoch)
        .where(rows.first_seq <= batch.last_seq)
        .order_by(rows.first_seq.desc())
        .limit(1)
    )
    row = uow.session.execute(query).one_or_none()
    return None if row is None else Neighbour(row.first_seq, row.last_seq, row.same)


def add_batch(
    uow: UnitOfWork, batch: Batch, key_id: str, readings: int, span: tuple[datetime | None, datetime | None]
) -> bool:
    """Store ``batch``, which the key ``key_id`` signed; return False when its key is taken."""
    statement = (
        insert(MINER_TELEMETRY)
        .values(
            tenant_id=uow.tenant_id,
            site_id=batch.site_id,
            epoch=batch.epoch,
            first_seq=batch.first_seq,
            last_seq=batch.last_seq,
            count=batch.count,
            kind=batch.kind.value,
            readings=readings,
            read_from=span[0],
            read_to=span[1],
            sealed_at=batch.sealed_at,
            received_at=uow.now(),
            payload=batch.payload,
            signature=batch.signature,
            key_id=key_id,
        )
        .on_conflict_do_nothing()
        .returning(MINER_TELEMETRY.c.first_seq)
    )
    return uow.session.execute(statement).scalar_one_or_none() is not None


def advance_cursor(uow: UnitOfWork, site_id: str, epoch: str, through_seq: int) -> int:
    """Move the cursor over every batch that now follows without a gap, and return where it stands."""
    rows, here = MINER_TELEMETRY.c, through_seq
    while True:
        query = (
            select(rows.first_seq, rows.last_seq)
            .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.epoch == epoch)
            .where(rows.first_seq > here)
            .order_by(rows.first_seq)
            .limit(1000)
        )
        following = uow.session.execute(query).all()
        before = here
        for first_seq, last_seq in following:
            if first_seq != here + 1:
                break
            here = last_seq
        if here == before or len(following) < 1000:
            break
    if here != through_seq:
        cursor = TELEMETRY_CURSORS.c
        chosen = (cursor.tenant_id == uow.tenant_id, cursor.site_id == site_id, cursor.epoch == epoch)
        uow.session.execute(update(TELEMETRY_CURSORS).where(*chosen).values(through_seq=here))
    return here


def add_meter_samples(uow: UnitOfWork, site_id: str, samples: Sequence[MeterSample]) -> None:
    """Store meter samples; a sample already known changes nothing. A figure that is not finite is unknown."""
    if not samples:
        return
    columns = {
        "meter_ids": [sample.meter_id for sample in samples],
        "read_at": [sample.read_at for sample in samples],
        "power_w": [_finite(sample.power_w) for sample in samples],
        "energy_wh": [_finite(sample.energy_wh) for sample in samples],
    }
    uow.session.execute(_METER_ROWS, {"tenant_id": uow.tenant_id, "site_id": site_id, **columns})


def add_acks(uow: UnitOfWork, site_id: str, acks: Sequence[Ack]) -> None:
    """Store acks; one already known changes nothing."""
    if not acks:
        return
    rows = [
        {
            "tenant_id": uow.tenant_id,
            "site_id": site_id,
            "ack_id": ack.ack_id,
            "order_id": ack.order_id,
            "plan_revision": ack.plan_revision,
            "miner_id": ack.miner_id,
            "verb": ack.verb.value,
            "outcome": ack.outcome.value,
            "evidence": ack.evidence.value,
            "reason": ack.reason,
            "at": ack.at,
            "power_before_w": _finite(ack.power_before_w),
            "power_after_w": _finite(ack.power_after_w),
        }
        for ack in acks
    ]
    uow.session.execute(insert(SITE_ACKS).on_conflict_do_nothing(), rows)


def add_notices(uow: UnitOfWork, site_id: str, notices: Sequence[Notice]) -> None:
    """Store notices; one already known changes nothing."""
    if not notices:
        return
    rows = [
        {
            "tenant_id": uow.tenant_id,
            "site_id": site_id,
            "notice_id": notice.notice_id,
            "at": notice.at,
            "code": notice.code.value,
            "subject": notice.subject,
            "detail": notice.detail,
        }
        for notice in notices
    ]
    uow.session.execute(insert(SITE_NOTICES).on_conflict_do_nothing(), rows)


def lock_latest(uow: UnitOfWork, site_id: str) -> bytes | None:
    """Return ``site_latest.data`` and hold its row; None when the site has none yet."""
    rows = SITE_LATEST.c
    query = select(rows.data).where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id).with_for_update()
    return uow.session.execute(query).scalar_one_or_none()


def put_latest(uow: UnitOfWork, site_id: str, data: bytes, as_of: datetime | None) -> None:
    """Write ``site_latest``; an unknown ``as_of`` leaves the known one."""
    key = {"tenant_id": uow.tenant_id, "site_id": site_id}
    statement = insert(SITE_LATEST).values(**key, data=data, as_of=as_of)
    newest = func.greatest(SITE_LATEST.c.as_of, statement.excluded.as_of)
    statement = statement.on_conflict_do_update(
        index_elements=["tenant_id", "site_id"], set_={"data": statement.excluded.data, "as_of": newest}
    )
    uow.session.execute(statement)


def add_quarantined(uow: UnitOfWork, batch: Batch, digest: str, cause: str) -> bool:
    """Keep the bytes of a batch that may not be stored; return False when only their count went up."""
    statement = insert(TELEMETRY_QUARANTINE).values(
        tenant_id=uow.tenant_id,
        site_id=batch.site_id,
        epoch=batch.epoch,
        first_seq=batch.first_seq,
        digest=digest,
        count=batch.count,
        cause=cause,
        received_at=uow.now(),
        payload=batch.payload,
    )
    keys = ["tenant_id", "site_id", "epoch", "first_seq", "digest"]
    again = {"times": TELEMETRY_QUARANTINE.c.times + 1, "received_at": statement.excluded.received_at}
    kept = statement.on_conflict_do_update(index_elements=keys, set_=again).returning(TELEMETRY_QUARANTINE.c.times)
    return int(uow.session.execute(kept).scalar_one()) == 1


def add_site(uow: UnitOfWork, site_id: str, name: str, timezone: str) -> bool:
    """Add a site; return False when the id is taken."""
    values = {"tenant_id": uow.tenant_id, "site_id": site_id, "name": name, "timezone": timezone}
    statement = insert(HOSTING_SITES).values(**values, created_at=uow.now()).on_conflict_do_nothing()
    return uow.session.execute(statement.returning(HOSTING_SITES.c.site_id)).scalar_one_or_none() is not None


def replace_miners(uow: UnitOfWork, site_id: str, miners: Sequence[InventoryMiner]) -> int:
    """Make ``miners`` the site's inventory and return how many others were removed."""
    rows = HOSTING_MINERS.c
    keep = [miner.miner_id for miner in miners]
    gone = delete(HOSTING_MINERS).where(
        rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.miner_id != all_(literal(keep, ARRAY(Text)))
    )
    removed = _rows_changed(uow.session.execute(gone))
    statement = insert(HOSTING_MINERS)
    fields = ("dialect", "model", "feeder_id", "rack", "position", "nameplate_w", "nameplate_ths", "controllable")
    statement = statement.on_conflict_do_update(
        index_elements=["tenant_id", "site_id", "miner_id"],
        set_={name: getattr(statement.excluded, name) for name in fields},
    )
    key = {"tenant_id": uow.tenant_id, "site_id": site_id}
    values = [
        {**key, "miner_id": miner.miner_id, **{name: getattr(miner, name) for name in fields}} for miner in miners
    ]
    uow.session.execute(statement, values)
    return removed


def replace_meters(uow: UnitOfWork, site_id: str, meters: Sequence[InventoryMeter]) -> int:
    """Make ``meters`` the site's meters and return how many others were removed."""
    rows = HOSTING_METERS.c
    keep = [meter.meter_id for meter in meters]
    gone = delete(HOSTING_METERS).where(
        rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.meter_id != all_(literal(keep, ARRAY(Text)))
    )
    removed = _rows_changed(uow.session.execute(gone))
    if meters:
        statement = insert(HOSTING_METERS)
        statement = statement.on_conflict_do_update(
            index_elements=["tenant_id", "site_id", "meter_id"],
            set_={"kind": statement.excluded.kind, "feeder_id": statement.excluded.feeder_id},
        )
        key = {"tenant_id": uow.tenant_id, "site_id": site_id}
        values = [
            {**key, "meter_id": meter.meter_id, "kind": meter.kind.value, "feeder_id": meter.feeder_id}
            for meter in meters
        ]
        uow.session.execute(statement, values)
    return removed


def link_up(uow: UnitOfWork, hello: Hello, connection_id: str) -> bool:
    """Record that ``connection_id`` now carries the site's link; return whether the link was down before."""
    before = link_row(uow, hello.site_id)
    statement = insert(SITE_LINKS).values(
        tenant_id=uow.tenant_id,
        site_id=hello.site_id,
        agent_id=hello.agent_id,
        up=True,
        connection_id=connection_id,
        last_heard=uow.now(),
        plan_revision=hello.plan_revision,
        clock_trust="untrusted",
        backlog_batches=0,
        backlog_bytes=0,
        agent_version=hello.agent_version[:64],
        instance_id=hello.instance_id[:64],
    )
    fields = ("instance_id", "agent_id", "up", "connection_id", "last_heard", "plan_revision", "agent_version")
    renewed = {name: getattr(statement.excluded, name) for name in fields}
    uow.session.execute(statement.on_conflict_do_update(index_elements=["tenant_id", "site_id"], set_=renewed))
    return before is None or not before.up


def link_row(uow: UnitOfWork, site_id: str) -> Any:
    """Return the row of the site's link, None when it never had one, and hold it."""
    rows = SITE_LINKS.c
    chosen = (rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
    return uow.session.execute(select(SITE_LINKS).where(*chosen).with_for_update()).one_or_none()


def link_heard(uow: UnitOfWork, site_id: str, connection_id: str, beat: Heartbeat) -> bool:
    """Record a heartbeat; return False when another connection has taken the site over."""
    rows = SITE_LINKS.c
    chosen = (rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.connection_id == connection_id)
    values = {
        "up": True,
        "last_heard": uow.now(),
        "plan_revision": beat.plan_revision,
        "clock_trust": beat.clock_trust.value,
        "backlog_batches": beat.backlog_batches,
        "backlog_bytes": beat.backlog_bytes,
    }
    return _rows_changed(uow.session.execute(update(SITE_LINKS).where(*chosen).values(**values))) == 1


def link_down(uow: UnitOfWork, site_id: str, connection_id: str) -> bool:
    """Record that ``connection_id`` ended; return whether it was the site's current one and up."""
    rows = SITE_LINKS.c
    key = tuple_(rows.tenant_id, rows.site_id, rows.connection_id)
    chosen = (key == tuple_(uow.tenant_id, site_id, connection_id), rows.up)
    return _rows_changed(uow.session.execute(update(SITE_LINKS).where(*chosen).values(up=False))) == 1


def silent_links(uow: UnitOfWork, before: datetime) -> tuple[tuple[str, str], ...]:
    """Return (site, connection) of links that are up and were last heard before ``before``, by site."""
    rows = SITE_LINKS.c
    query = (
        select(rows.site_id, rows.connection_id)
        .where(rows.tenant_id == uow.tenant_id, rows.up, rows.last_heard < before)
        .order_by(rows.site_id)
    )
    return tuple((row.site_id, row.connection_id) for row in uow.session.execute(query))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _rows_changed(result: object) -> int:
    assert isinstance(result, CursorResult)
    return int(result.rowcount)
