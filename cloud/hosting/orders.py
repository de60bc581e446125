"""Orders to sites: numbered, signed by the signer process, kept, and given to the link to push.

Invariants:

* Orders of a site are numbered by ``(signing_epoch, sequence)``, one row of ``order_sequences`` a site, held while the
  order is signed; numbers may be skipped and are never used twice.
* Whoever remembers an order that the database does not, the signer or a site, shows that the database has lost
  something (a transaction that failed, a backup put back): the next signing epoch is opened above both, what still
  stands is signed anew in it under its old id, and whatever was signed before is old to the site from then on.
* The newest plan wins; dispatching the same or an older revision again changes nothing.
* An order names the one agent that may obey it; an agent that takes a site over gets the plan
  addressed anew when it connects.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, delete, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from cloud.core.access import Permission
from cloud.core.errors import Refused, StaleSequence
from cloud.infra.db import UnitOfWork
from cloud.models.hosting import ORDER_SEQUENCES, SITE_ORDERS
from cloud.models.identity import AGENTS
from sitelink.orders import read_command, read_plan, write_command, write_plan
from sitelink.signing import Signer
from sitelink.types import NO_ORDER, Command, Domain, Envelope, OrderNumber, SitePlan, Verb


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
    _sign_plan(uow, plan, agent_id, signer, (signing_epoch, sequence))


def _sign_plan(uow: UnitOfWork, plan: SitePlan, agent_id: str, signer: Signer, numbers: tuple[int, int]) -> None:
    def sign(signing_epoch: int, sequence: int) -> Envelope:
        numbered = replace(plan, agent_id=agent_id, signing_epoch=signing_epoch, sequence=sequence)
        return signer.sign(Domain.PLAN, write_plan(numbered))

    numbers, envelope = _sign_above(sign, *numbers)
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

    _sign_command(uow, command, signer, (signing_epoch, sequence))
    return command.command_id


def _sign_command(uow: UnitOfWork, command: Command, signer: Signer, numbers: tuple[int, int]) -> None:
    def sign(signing_epoch: int, sequence: int) -> Envelope:
        numbered = replace(command, signing_epoch=signing_epoch, sequence=sequence)
        return signer.sign(Domain.COMMAND, write_command(numbered))

    numbers, envelope = _sign_above(sign, *numbers)
    _keep(uow, command.site_id, numbers, command.command_id, command.agent_id, 0, envelope, command.expires_at)


def resume(uow: UnitOfWork, site_id: str, highest: OrderNumber, order_id: str) -> int | None:
    """Compare what an agent says it took with what is kept here; return the signing epoch opened, None when they agree.

    ``highest`` is the number of the newest order that the agent ever took, ``order_id`` its plan or command id. An
    agent that is ahead, or that holds another order under that number, has heard a cloud that is not remembered here.
    """
    if highest == NO_ORDER or _is_known(uow, site_id, highest, order_id):
        return None
    signing_epoch, _ = _lock_sequence(uow, site_id)
    opened = max(signing_epoch, highest.signing_epoch) + 1
    rows = ORDER_SEQUENCES.c
    mine = (rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
    uow.session.execute(update(ORDER_SEQUENCES).where(*mine).values(signing_epoch=opened, sequence=0))
    uow.notify("order", site_id=site_id)
    return opened


def _is_known(uow: UnitOfWork, site_id: str, number: OrderNumber, order_id: str) -> bool:
    """Return whether the order of this number stands here under its id, whatever number it has got since."""
    if not order_id:
        signing_epoch, sequence = _lock_sequence(uow, site_id)
        return number < (signing_epoch, sequence)
    rows = SITE_ORDERS.c
    mine = (rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.order_id == order_id)
    reached = tuple_(rows.signing_epoch, rows.sequence) >= tuple_(*number)
    return uow.session.execute(select(rows.order_id).where(*mine, reached).limit(1)).first() is not None


def refresh(uow: UnitOfWork, site_id: str, agent_id: str, signer: Signer) -> bool:
    """Sign anew what ``agent_id`` would take for old, or for another's; return whether there was anything.

    That is the newest plan while it names an earlier agent of the site or is of an earlier signing epoch, and commands
    of an earlier one: the agent may have taken these, and knows them again by their id.
    """
    newest = _newest_plan(uow, site_id)
    commands = _standing_commands(uow, site_id, agent_id)
    signing_epoch = _signing_epoch(uow, site_id)
    stale = [row for row in commands if row.signing_epoch < signing_epoch]
    again = False
    if newest is not None and newest.expires_at > uow.now():
        again = newest.agent_id != agent_id or newest.signing_epoch < signing_epoch
    if newest is not None and again:
        _sign_plan(uow, read_plan(newest.payload), _agent(uow, site_id), signer, _lock_sequence(uow, site_id))
    for row in stale:
        _drop(uow, row)
        _sign_command(uow, read_command(row.payload), signer, _lock_sequence(uow, site_id))
    return again or bool(stale)


def pending(uow: UnitOfWork, site_id: str, agent_id: str) -> Pending:
    """Return the newest plan and the unexpired commands addressed to ``agent_id``, in signing order."""
    newest = _newest_plan(uow, site_id)
    plan = newest if newest is not None and newest.agent_id == agent_id else None
    commands = tuple(_envelope(row) for row in _standing_commands(uow, site_id, agent_id))
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
    """Sign under the given numbers, or in the next epoch when the signer has signed what is not known here."""
    try:
        return (signing_epoch, sequence), sign(signing_epoch, sequence)
    except StaleSequence as stale:
        numbers = (stale.signing_epoch + 1, 1)
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


def _signing_epoch(uow: UnitOfWork, site_id: str) -> int:
    rows = ORDER_SEQUENCES.c
    query = select(rows.signing_epoch).where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
    return int(uow.session.execute(query).scalar_one_or_none() or 0)


def _standing_commands(uow: UnitOfWork, site_id: str, agent_id: str) -> list[Row[Any]]:
    rows = SITE_ORDERS.c
    query = (
        select(SITE_ORDERS)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.agent_id == agent_id)
        .where(rows.domain == Domain.COMMAND.value, rows.expires_at > uow.now())
        .order_by(rows.signing_epoch, rows.sequence)
    )
    return list(uow.session.execute(query))


def _drop(uow: UnitOfWork, row: Row[Any]) -> None:
    rows = SITE_ORDERS.c
    key = tuple_(rows.tenant_id, rows.site_id, rows.signing_epoch, rows.sequence)
    uow.session.execute(
        delete(SITE_ORDERS).where(key == tuple_(row.tenant_id, row.site_id, row.signing_epoch, row.sequence))
    )


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
