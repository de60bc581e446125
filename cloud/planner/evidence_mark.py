"""The SQL that names a curtailment's evidence by counts, so that nothing is read while nothing is new.

Invariants: readings, acks and notices are only ever added, so equal counts are equal evidence. A mark covers all that a
verdict rests on: meters and inventory, the readings around the curtailment, and the acks and named liars of it and of
every curtailment that overlaps it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Text, cast, func, select

from cloud.infra.db import UnitOfWork
from cloud.models.hosting import HOSTING_METERS, HOSTING_MINERS, METER_READINGS, SITE_ACKS, SITE_NOTICES
from cloud.planner.overlap import Case
from sitelink.types import Interval, NoticeCode

_TELLING: Final = (NoticeCode.LIAR_NAMED.value, NoticeCode.CURTAILMENT_STARTED.value)


@dataclass(frozen=True, slots=True)
class Ground:
    """What the marks of one site share: a digest of meters and inventory, and acks by curtailment."""

    digest: str
    acks: Mapping[str, int]


def ground(uow: UnitOfWork, site_id: str, curtailment_ids: Sequence[str]) -> Ground:
    """Return what the marks of ``curtailment_ids`` share."""
    meters, miners, acks = HOSTING_METERS.c, HOSTING_MINERS.c, SITE_ACKS.c
    listed = uow.session.execute(
        select(meters.meter_id, meters.kind, meters.feeder_id)
        .where(meters.tenant_id == uow.tenant_id, meters.site_id == site_id)
        .order_by(meters.meter_id)
    ).all()
    fitting = func.concat_ws(" ", miners.miner_id, miners.feeder_id, func.coalesce(cast(miners.nameplate_w, Text), ""))
    inventory = select(func.md5(func.string_agg(fitting, "\n").aggregate_order_by(miners.miner_id))).where(
        miners.tenant_id == uow.tenant_id, miners.site_id == site_id
    )
    counted = (
        select(acks.order_id, func.count().label("acks"))
        .where(acks.tenant_id == uow.tenant_id, acks.site_id == site_id, acks.order_id.in_(curtailment_ids))
        .group_by(acks.order_id)
    )
    return Ground(
        digest=f"{uow.session.execute(inventory).scalar_one()} {[tuple(row) for row in listed]}",
        acks={row.order_id: row.acks for row in uow.session.execute(counted)},
    )


def mark(
    uow: UnitOfWork, site_id: str, common: Ground, case: Case, span: Interval, notice_windows: Sequence[Interval]
) -> str:
    """Return the name of a case's evidence: readings in ``span``, notices about it and each rival in their windows."""
    lines = [common.digest, case.begin.isoformat(), *_count_readings(uow, site_id, span)]
    for item, window in zip((case.own, *case.rivals), notice_windows, strict=True):
        name, held = item.curtailment_id, item.interval
        counts = f"{common.acks.get(name, 0)} {_count_notices(uow, site_id, window)}"
        lines.append(f"{name} {item.revision} {held.start.isoformat()} {held.end.isoformat()} {counts}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _count_readings(uow: UnitOfWork, site_id: str, span: Interval) -> list[str]:
    """Return how many readings of each meter lie in ``span``: a range of the key a meter, however long the history."""
    meters, rows = HOSTING_METERS.c, METER_READINGS.c
    readings = (
        select(func.count())
        .where(rows.tenant_id == meters.tenant_id, rows.site_id == meters.site_id, rows.meter_id == meters.meter_id)
        .where(rows.read_at >= span.start, rows.read_at <= span.end)
        .scalar_subquery()
    )
    query = select(meters.meter_id, readings.label("readings")).where(
        meters.tenant_id == uow.tenant_id, meters.site_id == site_id
    )
    return [f"{row.meter_id} {row.readings}" for row in uow.session.execute(query.order_by(meters.meter_id))]


def _count_notices(uow: UnitOfWork, site_id: str, window: Interval) -> int:
    rows = SITE_NOTICES.c
    query = (
        select(func.count())
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.code.in_(_TELLING))
        .where(rows["at"] >= window.start, rows["at"] <= window.end)
    )
    return int(uow.session.execute(query).scalar_one())
