"""What a site had no room for: batches that came thinner than they were sealed, and the gaps they tell of.

Invariants: a batch that comes whole and thin is one batch, and the first to be stored stays; a gap is stored with the
batch that tells of it, so that every number of a site is an item or lies in a gap.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert

from cloud.core.access import Permission
from cloud.hosting.model import GapCounts
from cloud.infra.db import UnitOfWork
from cloud.models.hosting import MINER_TELEMETRY, TELEMETRY_GAPS
from sitelink.codec import MalformedFrame, unpack
from sitelink.types import Batch, BatchKind, Gap

_RANGES_TOLD: Final = 256
_BEYOND: Final = text(
    "WITH later AS (SELECT first_seq, last_seq, lag(last_seq) OVER (ORDER BY first_seq) AS before"
    "  FROM miner_telemetry WHERE tenant_id = :tenant_id AND site_id = :site_id AND epoch = :epoch"
    "  AND first_seq > :through_seq),"
    " marked AS (SELECT first_seq, last_seq,"
    "  count(*) FILTER (WHERE before IS DISTINCT FROM first_seq - 1) OVER (ORDER BY first_seq) AS run FROM later)"
    " SELECT min(first_seq) AS first_seq, max(last_seq) AS last_seq FROM marked GROUP BY run ORDER BY 1"
)


def add(uow: UnitOfWork, batch: Batch, gaps: Sequence[Gap]) -> None:
    """Store the gaps of a batch that is stored in the same transaction."""
    if not gaps:
        return
    rows = [
        {
            "tenant_id": uow.tenant_id,
            "site_id": batch.site_id,
            "epoch": batch.epoch,
            "first_seq": batch.first_seq,
            "place": place,
            "since": gap.since,
            "until": gap.until,
            "kept_every_s": gap.kept_every_s,
            "items": gap.items,
        }
        for place, gap in enumerate(gaps)
    ]
    uow.session.execute(insert(TELEMETRY_GAPS).on_conflict_do_nothing(), rows)


def counted(uow: UnitOfWork, site_id: str) -> tuple[GapCounts, ...]:
    """Return what a site left out, by how much of it was kept: the most first."""
    uow.principal.require(Permission.READ_FLEET, site_id)
    rows = TELEMETRY_GAPS.c
    query = (
        select(
            rows.kept_every_s,
            func.count().label("records"),
            func.sum(rows["items"]).label("items"),
            func.min(rows.since).label("since"),
            func.max(rows.until).label("until"),
        )
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
        .group_by(rows.kept_every_s)
        .order_by((rows.kept_every_s == 0), rows.kept_every_s)
    )
    return tuple(
        GapCounts(row.kept_every_s, row.records, int(row.items), row.since, row.until)
        for row in uow.session.execute(query)
    )


def is_cut_of_stored(uow: UnitOfWork, batch: Batch) -> bool:
    """Return whether ``batch`` and the stored one of its key are the same telemetry, one of them thinner."""
    rows = MINER_TELEMETRY.c
    chosen = (rows.tenant_id == uow.tenant_id, rows.site_id == batch.site_id, rows.epoch == batch.epoch)
    query = select(rows.payload, rows.kind).where(*chosen, rows.first_seq == batch.first_seq)
    stored = uow.session.execute(query).one()
    if not batch.kind.value == stored.kind == BatchKind.TELEMETRY.value:
        return False
    try:
        bodies = [unpack(payload) for payload in (bytes(stored.payload), batch.payload)]
    except MalformedFrame:
        return False
    thin, whole = sorted(bodies, key=lambda body: len(body.readings) + len(body.meters))
    within = set(thin.readings) <= set(whole.readings) and set(thin.meters) <= set(whole.meters)
    return within and bool(thin.gaps)


def beyond(uow: UnitOfWork, site_id: str, epoch: str, through_seq: int) -> tuple[tuple[int, int], ...]:
    """Return what of an epoch is stored after ``through_seq``, as (first, last); of very many some, and the last."""
    key = {"tenant_id": uow.tenant_id, "site_id": site_id, "epoch": epoch, "through_seq": through_seq}
    ranges = tuple((int(row.first_seq), int(row.last_seq)) for row in uow.session.execute(_BEYOND, key))
    return ranges if len(ranges) <= _RANGES_TOLD else (*ranges[: _RANGES_TOLD - 1], ranges[-1])
