"""The SQL of verification: reads meters, acks and notices that hosting keeps, writes verdicts.

Invariant: a verdict is never overwritten; a new one is the next revision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.dialects.postgresql import distinct_on

from cloud.infra.db import UnitOfWork
from cloud.models.hosting import (
    HOSTING_METERS,
    HOSTING_MINERS,
    METER_READINGS,
    SITE_ACKS,
    SITE_LINKS,
    SITE_NOTICES,
)
from cloud.models.planner import CURTAILMENT_PLAN_MINERS, CURTAILMENT_PLANS, CURTAILMENT_VERIFICATIONS
from cloud.planner.metering import Sample
from cloud.planner.verification import Fitting, Verification
from cloud.planner.verification_document import write_verification
from sitelink.types import Ack, Evidence, Interval, NoticeCode, Outcome, Verb
from sitelink.units import Watts


@dataclass(frozen=True, slots=True)
class Meters:
    """Known samples by meter; ``site`` and ``feeders`` say which meter measures what."""

    samples: Mapping[str, Sequence[Sample]]
    site: tuple[str, ...]
    feeders: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Noticed:
    """What the site reported about one curtailment."""

    liars: frozenset[str]
    accepted_at: datetime | None
    started_at: datetime | None


def fittings(uow: UnitOfWork, site_id: str) -> Mapping[str, Fitting]:
    """Return where each miner hangs and what it is rated at."""
    rows = HOSTING_MINERS.c
    query = select(rows.miner_id, rows.feeder_id, rows.nameplate_w).where(
        rows.tenant_id == uow.tenant_id, rows.site_id == site_id
    )
    return {
        row.miner_id: Fitting(row.feeder_id, None if row.nameplate_w is None else Watts(row.nameplate_w))
        for row in uow.session.execute(query)
    }


def meters(uow: UnitOfWork, site_id: str, window: Interval) -> Meters:
    """Return the known power samples of every meter in ``window``."""
    kinds = HOSTING_METERS.c
    query = select(kinds.meter_id, kinds.kind, kinds.feeder_id).where(
        kinds.tenant_id == uow.tenant_id, kinds.site_id == site_id
    )
    listed = uow.session.execute(query.order_by(kinds.meter_id)).all()
    samples = {row.meter_id: _samples(uow, site_id, row.meter_id, window) for row in listed}
    return Meters(
        samples=samples,
        site=tuple(row.meter_id for row in listed if row.kind == "site"),
        feeders={row.feeder_id: row.meter_id for row in listed if row.kind == "feeder"},
    )


def _samples(uow: UnitOfWork, site_id: str, meter_id: str, window: Interval) -> list[Sample]:
    rows = METER_READINGS.c
    readings = (
        select(rows.read_at, rows.power_w)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.meter_id == meter_id)
        .where(rows.read_at >= window.start, rows.read_at <= window.end, rows.power_w.is_not(None))
        .order_by(rows.read_at)
    )
    return [(row.read_at, row.power_w) for row in uow.session.execute(readings)]


def acks(uow: UnitOfWork, site_id: str, curtailment_id: str) -> tuple[Ack, ...]:
    """Return the acks of one curtailment, oldest first."""
    rows = SITE_ACKS.c
    query = select(SITE_ACKS).where(
        rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.order_id == curtailment_id
    )
    return tuple(_ack(row) for row in uow.session.execute(query.order_by(rows["at"], rows.ack_id)))


def noticed(uow: UnitOfWork, site_id: str, curtailment_id: str, window: Interval) -> Noticed:
    """Return the liars named in ``window``, and when the site accepted and began the curtailment."""
    rows = SITE_NOTICES.c
    of_site = (rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
    liars = select(rows.subject).where(
        *of_site, rows.code == NoticeCode.LIAR_NAMED.value, rows["at"] >= window.start, rows["at"] <= window.end
    )
    accepted = select(func.min(rows["at"])).where(
        *of_site, rows.code == NoticeCode.PLAN_ACCEPTED.value, rows.subject.in_(_plan_ids(uow, site_id, curtailment_id))
    )
    started = select(func.min(rows["at"])).where(
        *of_site, rows.code == NoticeCode.CURTAILMENT_STARTED.value, rows.subject == curtailment_id
    )
    return Noticed(
        frozenset(uow.session.execute(liars).scalars()),
        uow.session.execute(accepted).scalar_one(),
        uow.session.execute(started).scalar_one(),
    )


def _plan_ids(uow: UnitOfWork, site_id: str, curtailment_id: str) -> list[str]:
    members, plans = CURTAILMENT_PLAN_MINERS.c, CURTAILMENT_PLANS.c
    query = (
        select(plans.plan_id)
        .join(CURTAILMENT_PLAN_MINERS, (plans.tenant_id == members.tenant_id) & (plans.site_id == members.site_id))
        .where(plans.revision == members.revision, members.tenant_id == uow.tenant_id)
        .where(members.site_id == site_id, members.curtailment_id == curtailment_id, members.place == 0)
    )
    return list(uow.session.execute(query).scalars())


def backlog(uow: UnitOfWork, site_id: str) -> int | None:
    """Return the batches that the site still holds as it last said; None when it never connected."""
    rows = SITE_LINKS.c
    query = select(rows.backlog_batches).where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
    return uow.session.execute(query).scalar_one_or_none()


def latest_verdict(uow: UnitOfWork, site_id: str, curtailment_id: str) -> Row[Any] | None:
    """Return the newest verdict's row; None before the first."""
    rows = CURTAILMENT_VERIFICATIONS.c
    query = (
        select(CURTAILMENT_VERIFICATIONS)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.curtailment_id == curtailment_id)
        .order_by(rows.revision.desc())
        .limit(1)
    )
    return uow.session.execute(query).one_or_none()


def latest_inputs(uow: UnitOfWork, site_id: str, curtailment_ids: Sequence[str]) -> Mapping[str, str]:
    """Return what names the evidence of each curtailment's newest verdict."""
    rows = CURTAILMENT_VERIFICATIONS.c
    newest = (
        select(rows.curtailment_id, rows.inputs)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.curtailment_id.in_(curtailment_ids))
        .order_by(rows.curtailment_id, rows.revision.desc())
        .ext(distinct_on(rows.curtailment_id))
    )
    return {row.curtailment_id: row.inputs for row in uow.session.execute(newest)}


def confirm_verdict(uow: UnitOfWork, site_id: str, curtailment_id: str, revision: int, inputs: str) -> None:
    """Note that a verdict also stands on the evidence that ``inputs`` names."""
    rows = CURTAILMENT_VERIFICATIONS.c
    uow.session.execute(
        update(CURTAILMENT_VERIFICATIONS)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.curtailment_id == curtailment_id)
        .where(rows.revision == revision)
        .values(inputs=inputs)
    )


def latest_verdicts(uow: UnitOfWork, site_id: str) -> Sequence[Row[Any]]:
    """Return the newest verdict of each curtailment, newest release first."""
    rows = CURTAILMENT_VERIFICATIONS.c
    newest = (
        select(CURTAILMENT_VERIFICATIONS)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
        .order_by(rows.curtailment_id, rows.revision.desc())
        .ext(distinct_on(rows.curtailment_id))
        .subquery()
    )
    return uow.session.execute(select(newest).order_by(newest.c.end_at.desc(), newest.c.curtailment_id)).all()


def put_verdict(
    uow: UnitOfWork,
    site_id: str,
    curtailment_id: str,
    revision: int,
    window: Interval,
    verdict: Verification,
    inputs: str,
) -> None:
    """Write the next revision of a verdict; ``inputs`` names the evidence it rests on."""
    uow.session.execute(
        insert(CURTAILMENT_VERIFICATIONS).values(
            tenant_id=uow.tenant_id,
            site_id=site_id,
            curtailment_id=curtailment_id,
            revision=revision,
            status=verdict.status.value,
            reason=verdict.reason,
            verified_mwh=verdict.verified_mwh,
            start_at=window.start,
            end_at=window.end,
            inputs=inputs,
            body=write_verification(verdict),
            verified_at=uow.now(),
        )
    )


def _ack(row: Row[Any]) -> Ack:
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
