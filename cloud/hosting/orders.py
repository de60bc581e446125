"""Orders to sites: numbered, signed by the signer process, kept, and given to the link to push.

Invariants:

* Orders of a site are numbered by ``(signing_epoch, sequence)``, one row of ``order_sequences`` a site, held while the
  order is signed; numbers may be skipped (a signature whose transaction failed) and are never used twice.
* The newest plan wins; dispatching the same or an older revision again changes nothing.
* An order names the one agent that may obey it; an agent that takes a site over gets the plan
  addressed anew when it connects.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert

from cloud.core.access import Permission
from cloud.core.errors import Refused, StaleSequence
from cloud.infra.db import UnitOfWork
from cloud.models.hosting import ORDER_SEQUENCES, SITE_ORDERS
from cloud.models.identity import AGENTS
from sitelink.orders import read_command, read_plan, write_command, write_plan
from sitelink.signing import Signer
from sitelink.types import Command, Domain, Envelope, SitePlan, Verb


@dataclass(frozen=True, slots=True)
class InForce:
    """What the newest orders ask now: miners the plan stops, and the ids of stop commands ever sent."""

    stopped: frozenset[str]
    stop_commands: frozenset[str]


@dataclass(frozen=True, slots=True)
class Pending:
    """What a connecting agent must be told. ``plan`` None when no plan is addressed to it."""

    plan: Envelope | None
    plan_revision: int
    commands: tuple[Envelope, ...]


def dispatch_plan(uow: UnitOfWork, plan: SitePlan, signer: Signer) -> None:
    """Number, address, sign and keep ``plan``, and wake the link. Its agent, epoch and sequence are filled in here.

    Delivered twice or late, it changes nothing.

    Raises:
        Refused: the site has no enrolled agent (``no_agent``), or the signer refuses.
        Transient: the signer does not answer.
    """
    uow.principal.require(Permission.ORDER_MINERS, plan.site_id)
    agent_id = _agent(uow, plan.site_id)
    signing_epoch, sequence = _lock_sequence(uow, plan.site_id)
    newest = _newest_plan(uow, plan.site_id)
    if newest is not None and newest.revision >= plan.revision and newest.agent_id == agent_id:
        return

    def sign(signing_epoch: int, sequence: int) -> Envelope:
        numbered = replace(plan, agent_id=agent_id, signing_epoch=signing_epoch, sequence=sequence)
        return signer.sign(Domain.PLAN, write_plan(numbered))

    numbers, envelope = _sign_above(sign, signing_epoch, sequence)
    _keep(uow, plan.site_id, numbers, plan.plan_id, agent_id, plan.revision, envelope, plan.valid.end)


def queue_command(
    uow: UnitOfWork,
    site_id: str,
    verb: Verb,
    miner_ids: tuple[str, ...],
    reason: str,
    signer: Signer,
    valid_for: timedelta = timedelta(minutes=10),
    parameters: Mapping[str, str] | None = None,
    approved_by: tuple[str, ...] = (),
) -> str:
    """Sign and keep one command outside the plan, wake the link, and return its id.

    ``parameters`` are what the verb needs, ``approved_by`` who stands for it (``sitelink.verbs``).

    Raises: as ``dispatch_plan``.
    """
    uow.principal.require(Permission.ORDER_MINERS, site_id)
    agent_id = _agent(uow, site_id)
    signing_epoch, sequence = _lock_sequence(uow, site_id)
    now = uow.now()
    command = Command(
        command_id=uuid.uuid4().hex,
        site_id=site_id,
        agent_id=agent_id,
        signing_epoch=signing_epoch,
        sequence=sequence,
        not_before=now,
        expires_at=now + valid_for,
        verb=verb,
        miner_ids=miner_ids,
        reason=reason,
        parameters=tuple(sorted((parameters or {}).items())),
        approved_by=approved_by,
    )

    def sign(signing_epoch: int, sequence: int) -> Envelope:
        numbered = replace(command, signing_epoch=signing_epoch, sequence=sequence)
        return signer.sign(Domain.COMMAND, write_command(numbered))

    numbers, envelope = _sign_above(sign, signing_epoch, sequence)
    _keep(uow, site_id, numbers, command.command_id, agent_id, 0, envelope, command.expires_at)
    return command.command_id


def readdress(uow: UnitOfWork, site_id: str, agent_id: str, signer: Signer) -> bool:
    """Sign the newest plan anew when it names an earlier agent of the site; return whether it did."""
    newest = _newest_plan(uow, site_id)
    if newest is None or newest.agent_id == agent_id or newest.expires_at <= uow.now():
        return False
    dispatch_plan(uow, read_plan(newest.payload), signer)
    return True


def pending(uow: UnitOfWork, site_id: str, agent_id: str) -> Pending:
    """Return the newest plan and the unexpired commands addressed to ``agent_id``, in signing order."""
    newest = _newest_plan(uow, site_id)
    plan = newest if newest is not None and newest.agent_id == agent_id else None
    rows = SITE_ORDERS.c
    query = (
        select(SITE_ORDERS)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.agent_id == agent_id)
        .where(rows.domain == Domain.COMMAND.value, rows.expires_at > uow.now())
        .order_by(rows.signing_epoch, rows.sequence)
    )
    commands = tuple(_envelope(row) for row in uow.session.execute(query))
    return Pending(None if plan is None else _envelope(plan), 0 if plan is None else plan.revision, commands)


def in_force(uow: UnitOfWork, site_id: str) -> InForce:
    """Return what the newest orders ask of the site's miners now."""
    newest, now = _newest_plan(uow, site_id), uow.now()
    curtailments = () if newest is None else read_plan(newest.payload).curtailments
    stopped = frozenset(miner_id for item in curtailments if item.interval.contains(now) for miner_id in item.miner_ids)
    rows = SITE_ORDERS.c
    query = select(rows.order_id, rows.payload).where(
        rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.domain == Domain.COMMAND.value
    )
    stops = [row.order_id for row in uow.session.execute(query) if read_command(row.payload).verb is Verb.STOP]
    return InForce(stopped, frozenset(stops))


def _sign_above(sign: Any, signing_epoch: int, sequence: int) -> tuple[tuple[int, int], Envelope]:
    """Sign under the given numbers, or just above what the signer says it has signed."""
    try:
        return (signing_epoch, sequence), sign(signing_epoch, sequence)
    except StaleSequence as stale:
        # An earlier transaction was signed and then failed: its number is spent.
        numbers = (stale.signing_epoch, stale.sequence + 1)
        return numbers, sign(*numbers)


def _keep(
    uow: UnitOfWork,
    site_id: str,
    numbers: tuple[int, int],
    order_id: str,
    agent_id: str,
    revision: int,
    envelope: Envelope,
    expires_at: datetime,
) -> None:
    key = {"tenant_id": uow.tenant_id, "site_id": site_id}
    row = {
        **key,
        "signing_epoch": numbers[0],
        "sequence": numbers[1],
        "order_id": order_id,
        "agent_id": agent_id,
        "domain": envelope.domain.value,
        "revision": revision,
        "key_id": envelope.key_id,
        "payload": envelope.payload,
        "signature": envelope.signature,
        "expires_at": expires_at,
        "created_at": uow.now(),
    }
    uow.session.execute(insert(SITE_ORDERS).values(**row))
    statement = insert(ORDER_SEQUENCES).values(**key, signing_epoch=numbers[0], sequence=numbers[1])
    spent = {"signing_epoch": numbers[0], "sequence": numbers[1]}
    uow.session.execute(statement.on_conflict_do_update(index_elements=["tenant_id", "site_id"], set_=spent))
    uow.notify("order", site_id=site_id)


def _lock_sequence(uow: UnitOfWork, site_id: str) -> tuple[int, int]:
    """Return the next free numbers of the site and hold its row."""
    rows = ORDER_SEQUENCES.c
    start = insert(ORDER_SEQUENCES).values(tenant_id=uow.tenant_id, site_id=site_id, signing_epoch=1, sequence=0)
    uow.session.execute(start.on_conflict_do_nothing())
    query = select(rows.signing_epoch, rows.sequence).where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
    row = uow.session.execute(query.with_for_update()).one()
    return row.signing_epoch, row.sequence + 1


def _newest_plan(uow: UnitOfWork, site_id: str) -> Row[Any] | None:
    rows = SITE_ORDERS.c
    query = (
        select(SITE_ORDERS)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.domain == Domain.PLAN.value)
        .order_by(rows.signing_epoch.desc(), rows.sequence.desc())
        .limit(1)
    )
    return uow.session.execute(query).one_or_none()


def _agent(uow: UnitOfWork, site_id: str) -> str:
    """Return the earliest unrevoked agent: a later one is enrolled but has not connected, which would revoke this."""
    rows = AGENTS.c
    query = (
        select(rows.agent_id)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.revoked_at.is_(None))
        .order_by(rows.issued_at)
        .limit(1)
    )
    agent_id = uow.session.execute(query).scalar_one_or_none()
    if agent_id is None:
        raise Refused(
            "no_agent",
            f"site {site_id} has no enrolled agent; make a token: ballast site token {site_id}, and enrol one",
        )
    return str(agent_id)


def _envelope(row: Any) -> Envelope:
    return Envelope(Domain(row.domain), row.key_id, row.payload, row.signature)
