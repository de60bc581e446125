"""Hosting's read side: everything others may know about sites, as frozen values.

Invariants: a query sees only the principal's tenant and sites; unknown is None; what is too old to say anything about
now is unknown.
"""

from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
from sqlalchemy import Row, func, select, text

from cloud.core.access import Permission
from cloud.core.errors import NotFound
from cloud.hosting import latest, orders
from cloud.hosting.columns import (
    HASHING,
    IDLE,
    INVENTORY_FIELDS,
    UNKNOWN,
    Inventory,
    MinerColumns,
    PowerColumns,
    assemble,
)
from cloud.hosting.model import (
    LINK_SILENT_AFTER,
    METER_STALE_AFTER,
    EpochCounts,
    LinkState,
    MeterKind,
    SiteSummary,
    StoredCounts,
)
from cloud.infra.db import UnitOfWork
from cloud.models.hosting import (
    HOSTING_SITES,
    MINER_TELEMETRY,
    SITE_ACKS,
    SITE_LATEST,
    SITE_LINKS,
    SITE_NOTICES,
    TELEMETRY_CURSORS,
    TELEMETRY_QUARANTINE,
)
from sitelink.codec import unpack
from sitelink.types import (
    Ack,
    Evidence,
    Notice,
    NoticeCode,
    Outcome,
    Reading,
    Verb,
)
from sitelink.units import TeraHashPerSecond, Watts

_SERIES_STEP: Final = timedelta(seconds=5)
_SITE_POWER: Final = text(
    "SELECT m.site_id, count(*) AS meters, count(r.power_w) AS known, sum(r.power_w) AS power_w"
    " FROM hosting_meters m LEFT JOIN LATERAL ("
    "  SELECT power_w, read_at FROM meter_readings r WHERE r.tenant_id = m.tenant_id AND r.site_id = m.site_id"
    "  AND r.meter_id = m.meter_id AND r.read_at > :oldest AND r.read_at < :newest"
    "  ORDER BY r.read_at DESC LIMIT 1) r ON true"
    " WHERE m.tenant_id = :tenant_id AND m.kind = 'site' GROUP BY m.site_id"
)
_SERIES: Final = text(
    "WITH chosen AS (SELECT meter_id FROM hosting_meters"
    "  WHERE tenant_id = :tenant_id AND site_id = :site_id AND kind = :kind),"
    " binned AS (SELECT r.meter_id, date_bin(:step, r.read_at, 'epoch'::timestamptz) AS at, avg(r.power_w) AS power_w"
    "  FROM meter_readings r JOIN chosen USING (meter_id)"
    "  WHERE r.tenant_id = :tenant_id AND r.site_id = :site_id AND r.read_at >= :since AND r.read_at < :until"
    "  AND r.power_w IS NOT NULL GROUP BY 1, 2),"
    " whole AS (SELECT date_part('epoch', at) AS at_s, sum(power_w) AS power_w FROM binned GROUP BY at"
    "  HAVING count(*) = (SELECT count(*) FROM chosen) ORDER BY at)"
    " SELECT array_agg(at_s) AS at_s, array_agg(power_w) AS power_w FROM whole"
)
_INVENTORY: Final = text(
    f"SELECT {', '.join(f'array_agg({name})' for name in INVENTORY_FIELDS)}"  # noqa: S608 - names of our own dataclass
    f" FROM (SELECT {', '.join(INVENTORY_FIELDS)} FROM hosting_miners"
    "  WHERE tenant_id = :tenant_id AND site_id = :site_id ORDER BY miner_id) listed"
)
_COUNTS: Final = text(
    "WITH ordered AS (SELECT site_id, epoch, first_seq, last_seq, count,"
    "  max(last_seq) OVER (PARTITION BY site_id, epoch ORDER BY first_seq"
    "   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM miner_telemetry WHERE tenant_id = :tenant_id)"
    " SELECT site_id, epoch, count(*) AS batches, sum(count) AS items, min(first_seq) AS first_seq,"
    "  max(last_seq) AS last_seq, sum(greatest(0, least(last_seq, coalesce(before, -1)) - first_seq + 1)) AS doubled,"
    "  sum(greatest(0, first_seq - coalesce(before, -1) - 1)) AS missing"
    " FROM ordered GROUP BY site_id, epoch ORDER BY site_id, epoch"
)


def site(uow: UnitOfWork, site_id: str) -> Row[Any, Any, Any] | None:
    """Return name and timezone of a site; None when there is none in scope."""
    if not uow.principal.sees(site_id):
        return None
    rows = HOSTING_SITES.c
    query = select(rows.site_id, rows.name, rows.timezone)
    return uow.session.execute(query.where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id)).one_or_none()


def site_ids(uow: UnitOfWork) -> tuple[str, ...]:
    """Return the ids of the sites in scope, sorted."""
    rows = HOSTING_SITES.c
    found = uow.session.execute(select(rows.site_id).where(rows.tenant_id == uow.tenant_id).order_by(rows.site_id))
    return tuple(site_id for site_id in found.scalars() if uow.principal.sees(site_id))


def cursor(uow: UnitOfWork, site_id: str, epoch: str) -> int:
    """Return how far the epoch is stored without a gap; -1 for none."""
    rows = TELEMETRY_CURSORS.c
    chosen = (rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.epoch == epoch)
    through = uow.session.execute(select(rows.through_seq).where(*chosen)).scalar_one_or_none()
    return -1 if through is None else int(through)


def fleet_overview(uow: UnitOfWork) -> tuple[SiteSummary, ...]:
    """Return every site in scope at a glance, by id."""
    return tuple(summary for summary, _ in fleet_miners(uow))


def fleet_miners(uow: UnitOfWork) -> tuple[tuple[SiteSummary, MinerColumns], ...]:
    """Return every site in scope at a glance with its miners, by id."""
    uow.principal.require(Permission.READ_FLEET)
    rows = HOSTING_SITES.c
    query = select(rows.site_id, rows.name, rows.timezone).where(rows.tenant_id == uow.tenant_id).order_by(rows.site_id)
    sites = [row for row in uow.session.execute(query) if uow.principal.sees(row.site_id)]
    power = _site_power(uow)
    links = _links(uow)
    summaries = []
    for found in sites:
        miners = site_miners(uow, found.site_id)
        link = links.get(found.site_id, _NO_LINK)
        summaries.append((_summary(found, miners, power.get(found.site_id), link), miners))
    return tuple(summaries)


def summarise(uow: UnitOfWork, site_id: str, miners: MinerColumns, power_w: Watts | None) -> SiteSummary:
    """Return a site whose miners and metered power are at hand, at a glance.

    Raises:
        NotFound: there is no such site in scope.
    """
    found = site(uow, site_id)
    if found is None:
        raise NotFound(f"there is no site {site_id}")
    return _summary(found, miners, power_w, link(uow, site_id))


def _summary(found: Any, miners: MinerColumns, power_w: Watts | None, link: LinkState) -> SiteSummary:
    power, hashrate = miners.total("power_w"), miners.total("hashrate_ths")
    return SiteSummary(
        site_id=found.site_id,
        name=found.name,
        timezone=found.timezone,
        miners_total=len(miners),
        hashing=int((miners.state == HASHING).sum()),
        idle=int((miners.state == IDLE).sum()),
        unknown=int((miners.state == UNKNOWN).sum()),
        stopped_by_plan=int(miners.stopped.sum()),
        power_w=power_w,
        device_power_w=None if power is None else Watts(power),
        hashrate_ths=None if hashrate is None else TeraHashPerSecond(hashrate),
        link=link,
        as_of=miners.newest,
    )


def site_miners(uow: UnitOfWork, site_id: str) -> MinerColumns:
    """Return the miners of a site, by id.

    Raises:
        NotFound: there is no such site in scope.
    """
    uow.principal.require(Permission.READ_FLEET)
    if site(uow, site_id) is None:
        raise NotFound(f"there is no site {site_id}")
    columns = uow.session.execute(_INVENTORY, {"tenant_id": uow.tenant_id, "site_id": site_id}).one()
    inventory = Inventory(*(tuple(column or ()) for column in columns))
    asked = orders.in_force(uow, site_id)
    records = latest.load(_latest_data(uow, site_id))
    return assemble(inventory, records, asked.stopped, asked.stop_commands, uow.now())


def power_series(
    uow: UnitOfWork, site_id: str, since: datetime, until: datetime, meter_kind: str = "site"
) -> PowerColumns:
    """Return metered power in ``[since, until)`` every 5 s, summed over the meters of ``meter_kind``.

    A moment at which any of the meters is silent is left out: the sum is then unknown.
    """
    _require_site(uow, site_id)
    values = {
        "tenant_id": uow.tenant_id,
        "site_id": site_id,
        "kind": MeterKind(meter_kind).value,
        "step": _SERIES_STEP,
        "since": since,
        "until": until,
    }
    row = uow.session.execute(_SERIES, values).one()
    return PowerColumns(np.array(row.at_s or (), dtype=np.float64), np.array(row.power_w or (), dtype=np.float64))


def miner_history(
    uow: UnitOfWork, site_id: str, miner_id: str, since: datetime, until: datetime
) -> tuple[Reading, ...]:
    """Return the stored readings of one miner in ``[since, until)``, oldest first."""
    _require_site(uow, site_id)
    rows = MINER_TELEMETRY.c
    query = (
        select(rows.payload)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.readings > 0)
        .where(rows.read_from < until, rows.read_to >= since)
    )
    found: list[Reading] = []
    for payload in uow.session.execute(query.execution_options(yield_per=500)).scalars():
        found += [reading for reading in unpack(payload).readings if reading.miner_id == miner_id]
    return tuple(sorted((reading for reading in found if since <= reading.read_at < until), key=lambda r: r.read_at))


def notices(uow: UnitOfWork, site_id: str, limit: int = 100) -> tuple[Notice, ...]:
    """Return the newest notices of a site, newest first."""
    _require_site(uow, site_id)
    rows = SITE_NOTICES.c
    query = (
        select(SITE_NOTICES)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
        .order_by(rows["at"].desc(), rows.notice_id)
        .limit(limit)
    )
    return tuple(
        Notice(row.notice_id, row.at, NoticeCode(row.code), row.subject, row.detail)
        for row in uow.session.execute(query)
    )


def acks(uow: UnitOfWork, site_id: str, order_id: str | None = None) -> tuple[Ack, ...]:
    """Return the acks of an order (of every order for None) of a site, oldest first."""
    _require_site(uow, site_id)
    rows = SITE_ACKS.c
    query = select(SITE_ACKS).where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
    if order_id is not None:
        query = query.where(rows.order_id == order_id)
    return tuple(_ack(row) for row in uow.session.execute(query.order_by(rows["at"], rows.ack_id)))


def stored_counts(uow: UnitOfWork) -> StoredCounts:
    """Return what is stored of every epoch in scope, with gaps and overlaps counted."""
    uow.principal.require(Permission.READ_FLEET)
    found = uow.session.execute(_COUNTS, {"tenant_id": uow.tenant_id})
    epochs = tuple(
        EpochCounts(
            site_id=row.site_id,
            epoch=row.epoch,
            batches=row.batches,
            items=int(row.items),
            first_seq=row.first_seq,
            last_seq=row.last_seq,
            missing=int(row.missing),
            doubled=int(row.doubled),
        )
        for row in found
        if uow.principal.sees(row.site_id)
    )
    rows = TELEMETRY_QUARANTINE.c
    held = uow.session.execute(select(func.count()).where(rows.tenant_id == uow.tenant_id)).scalar_one()
    return StoredCounts(epochs, int(held))


_NO_LINK: Final = LinkState(
    up=False, last_heard=None, agent_id=None, plan_revision=0, clock_trust=None, backlog_batches=0, backlog_bytes=0
)


def link(uow: UnitOfWork, site_id: str) -> LinkState:
    """Return a site's link; one that never connected is down and was never heard."""
    _require_site(uow, site_id)
    return _links(uow).get(site_id, _NO_LINK)


def _links(uow: UnitOfWork) -> dict[str, LinkState]:
    rows = SITE_LINKS.c
    found = uow.session.execute(select(SITE_LINKS).where(rows.tenant_id == uow.tenant_id))
    return {
        row.site_id: LinkState(
            up=row.up and uow.now() - row.last_heard <= LINK_SILENT_AFTER,
            last_heard=row.last_heard,
            agent_id=row.agent_id,
            plan_revision=row.plan_revision,
            clock_trust=row.clock_trust,
            backlog_batches=row.backlog_batches,
            backlog_bytes=row.backlog_bytes,
        )
        for row in found
    }


def _site_power(uow: UnitOfWork) -> dict[str, Watts | None]:
    now = uow.now()
    bounds = {"oldest": now - METER_STALE_AFTER, "newest": now + METER_STALE_AFTER}
    found = uow.session.execute(_SITE_POWER, {"tenant_id": uow.tenant_id, **bounds})
    return {row.site_id: Watts(row.power_w) if row.known == row.meters else None for row in found}


def _latest_data(uow: UnitOfWork, site_id: str) -> bytes | None:
    rows = SITE_LATEST.c
    query = select(rows.data).where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
    return uow.session.execute(query).scalar_one_or_none()


def _require_site(uow: UnitOfWork, site_id: str) -> None:
    uow.principal.require(Permission.READ_FLEET, site_id)


def _ack(row: Any) -> Ack:
    return Ack(
        ack_id=row.ack_id,
        order_id=row.order_id,
        plan_revision=row.plan_revision,
        miner_id=row.miner_id,
        verb=Verb(row.verb),
        outcome=Outcome(row.outcome),
        evidence=Evidence(row.evidence),
        reason=row.reason,
        at=row.at,
        power_before_w=None if row.power_before_w is None else Watts(row.power_before_w),
        power_after_w=None if row.power_after_w is None else Watts(row.power_after_w),
    )
