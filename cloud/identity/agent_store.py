"""The SQL of agents: join tokens, keys that await approval, agents and every certificate they were given.

Invariant: secrets are stored hashed; a token is looked up and spent under its row's lock.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from cloud.identity.model import AgentIdentity, CertificateFacts
from cloud.infra.db import UnitOfWork
from cloud.models.identity import AGENT_CERTIFICATES, AGENTS, ENROLMENT_REQUESTS, JOIN_TOKENS


def add_join_token(
    uow: UnitOfWork, token_hash: bytes, site_id: str, expires_at: datetime, *, needs_approval: bool
) -> None:
    """Add a join token."""
    values = {"tenant_id": uow.tenant_id, "token_hash": token_hash, "site_id": site_id}
    statement = insert(JOIN_TOKENS).values(
        **values, created_at=uow.now(), expires_at=expires_at, needs_approval=needs_approval
    )
    uow.session.execute(statement)


def join_token(uow: UnitOfWork, token_hash: bytes) -> Any:
    """Return a token, used or not, and hold its row."""
    rows = JOIN_TOKENS.c
    query = select(JOIN_TOKENS).where(rows.tenant_id == uow.tenant_id, rows.token_hash == token_hash)
    return uow.session.execute(query.with_for_update()).one_or_none()


def spend_join_token(uow: UnitOfWork, token_hash: bytes, agent_id: str) -> None:
    """Mark a token as used, for ``agent_id``."""
    rows = JOIN_TOKENS.c
    chosen = (rows.tenant_id == uow.tenant_id, rows.token_hash == token_hash)
    uow.session.execute(update(JOIN_TOKENS).where(*chosen).values(used_at=uow.now(), agent_id=agent_id))


def add_request(
    uow: UnitOfWork, token_hash: bytes, site_id: str, agent_id: str, fingerprint: str, life: timedelta
) -> None:
    """Note that a key awaits an operator's word."""
    statement = insert(ENROLMENT_REQUESTS).values(
        tenant_id=uow.tenant_id,
        token_hash=token_hash,
        site_id=site_id,
        agent_id=agent_id,
        fingerprint=fingerprint,
        asked_at=uow.now(),
        expires_at=uow.now() + life,
    )
    uow.session.execute(statement)


def request(uow: UnitOfWork, token_hash: bytes) -> Any:
    """Return what a token asked for, None when it needed no approval or was not used."""
    rows = ENROLMENT_REQUESTS.c
    query = select(ENROLMENT_REQUESTS).where(rows.tenant_id == uow.tenant_id, rows.token_hash == token_hash)
    return uow.session.execute(query).one_or_none()


def open_requests(uow: UnitOfWork) -> list[Any]:
    """Return the keys that await an operator's word, the earliest first."""
    rows = ENROLMENT_REQUESTS.c
    open_ones = (rows.tenant_id == uow.tenant_id, rows.decided_at.is_(None), rows.expires_at > uow.now())
    return list(uow.session.execute(select(ENROLMENT_REQUESTS).where(*open_ones).order_by(rows.asked_at)))


def decide_request(uow: UnitOfWork, token_hash: bytes, *, approved: bool, by: str) -> None:
    """Keep an operator's word on a key."""
    rows = ENROLMENT_REQUESTS.c
    chosen = (rows.tenant_id == uow.tenant_id, rows.token_hash == token_hash, rows.decided_at.is_(None))
    values = {"decided_at": uow.now(), "decided_by": by, "approved": approved}
    uow.session.execute(update(ENROLMENT_REQUESTS).where(*chosen).values(**values))


def add_agent(
    uow: UnitOfWork, identity: AgentIdentity, facts: CertificateFacts, issued_at: datetime | None = None
) -> None:
    """Add an agent, issued at ``issued_at``; None: now, and after all others of its site whatever the clock did."""
    rows = AGENTS.c
    if issued_at is None:
        mine = (rows.tenant_id == uow.tenant_id, rows.site_id == identity.site_id)
        latest = uow.session.execute(select(func.max(rows.issued_at)).where(*mine)).scalar_one()
        issued_at = uow.now() if latest is None else max(uow.now(), latest + timedelta(microseconds=1))
    statement = insert(AGENTS).values(
        tenant_id=uow.tenant_id,
        agent_id=identity.agent_id,
        site_id=identity.site_id,
        certificate_sha256=facts.sha256,
        issued_at=issued_at,
        expires_at=facts.expires_at,
        generation=facts.generation,
    )
    uow.session.execute(statement)


def put_certificate(
    uow: UnitOfWork, agent_id: str, facts: CertificateFacts, *, confirmed: bool = False, reissued: bool = False
) -> None:
    """Keep a certificate of an agent, over an earlier one of the same generation."""
    values = {
        "certificate_sha256": facts.sha256,
        "key_sha256": facts.key_sha256,
        "certificate_pem": facts.pem,
        "issued_at": uow.now(),
        "expires_at": facts.expires_at,
        "confirmed_at": uow.now() if confirmed else None,
        "reissued": reissued,
    }
    key = {"tenant_id": uow.tenant_id, "agent_id": agent_id, "generation": facts.generation}
    statement = insert(AGENT_CERTIFICATES).values(**key, **values)
    uow.session.execute(statement.on_conflict_do_update(index_elements=list(key), set_=values))


def certificate(uow: UnitOfWork, agent_id: str, generation: int) -> Any:
    """Return the certificate of one generation."""
    rows = AGENT_CERTIFICATES.c
    chosen = (rows.tenant_id == uow.tenant_id, rows.agent_id == agent_id, rows.generation == generation)
    return uow.session.execute(select(AGENT_CERTIFICATES).where(*chosen)).one_or_none()


def certificates(uow: UnitOfWork, agent_id: str) -> list[Any]:
    """Return every certificate that is kept of an agent, the earliest first."""
    rows = AGENT_CERTIFICATES.c
    chosen = (rows.tenant_id == uow.tenant_id, rows.agent_id == agent_id)
    return list(uow.session.execute(select(AGENT_CERTIFICATES).where(*chosen).order_by(rows.generation)))


def withdrawn_certificates(uow: UnitOfWork) -> list[Any]:
    """Return (certificate_pem, withdrawn_at) of certificates that hold by their dates and must not be believed.

    These are those of revoked agents, and those that a later generation has followed.
    """
    held, agents = AGENT_CERTIFICATES.c, AGENTS.c
    query = (
        select(held.certificate_pem, func.coalesce(agents.revoked_at, uow.now()).label("withdrawn_at"))
        .join(AGENTS, (agents.tenant_id == held.tenant_id) & (agents.agent_id == held.agent_id))
        .where(held.tenant_id == uow.tenant_id, held.expires_at > uow.now())
        .where(agents.revoked_at.is_not(None) | (held.generation < agents.generation))
    )
    return list(uow.session.execute(query))


def confirm_certificate(uow: UnitOfWork, agent_id: str, facts: CertificateFacts) -> None:
    """Make a certificate the one the agent goes by: it has been shown."""
    held, rows = AGENT_CERTIFICATES.c, AGENTS.c
    mine = (held.tenant_id == uow.tenant_id, held.agent_id == agent_id, held.generation == facts.generation)
    unseen = update(AGENT_CERTIFICATES).where(*mine, held.confirmed_at.is_(None))
    uow.session.execute(unseen.values(confirmed_at=uow.now()))
    chosen = (rows.tenant_id == uow.tenant_id, rows.agent_id == agent_id)
    values = {
        "generation": facts.generation,
        "certificate_sha256": facts.sha256,
        "expires_at": facts.expires_at,
    }
    uow.session.execute(update(AGENTS).where(*chosen).values(**values))


def successor(uow: UnitOfWork, site_id: str, issued_at: datetime) -> str | None:
    """Return an agent of the site that was enrolled after ``issued_at``, not revoked and has connected."""
    rows, held = AGENTS.c, AGENT_CERTIFICATES.c
    query = (
        select(rows.agent_id)
        .join(AGENT_CERTIFICATES, (held.tenant_id == rows.tenant_id) & (held.agent_id == rows.agent_id))
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.issued_at > issued_at)
        .where(rows.revoked_at.is_(None), held.confirmed_at.is_not(None))
        .limit(1)
    )
    return uow.session.execute(query).scalar_one_or_none()


def revoke_earlier_agents(uow: UnitOfWork, successor: Any) -> bool:
    """Revoke the agents of the site that were issued before ``successor``; return whether there was one."""
    rows = AGENTS.c
    mine = (rows.tenant_id == uow.tenant_id, rows.site_id == successor.site_id, rows.revoked_at.is_(None))
    statement = update(AGENTS).where(*mine, rows.issued_at < successor.issued_at)
    values = {"revoked_at": uow.now(), "revoked_reason": f"replaced by {successor.agent_id}"}
    revoked = uow.session.execute(statement.values(**values).returning(rows.agent_id)).all()
    return bool(revoked)


def agent(uow: UnitOfWork, agent_id: str) -> Any:
    """Return an agent, revoked or not, and hold its row."""
    rows = AGENTS.c
    query = select(AGENTS).where(rows.tenant_id == uow.tenant_id, rows.agent_id == agent_id).with_for_update()
    return uow.session.execute(query).one_or_none()


def open_agents(uow: UnitOfWork) -> list[Any]:
    """Return every agent not revoked, the earliest of each site first."""
    rows = AGENTS.c
    return list(
        uow.session.execute(
            select(AGENTS)
            .where(rows.tenant_id == uow.tenant_id, rows.revoked_at.is_(None))
            .order_by(rows.site_id, rows.issued_at)
        )
    )


def revoke_agent(uow: UnitOfWork, agent_id: str, reason: str) -> bool:
    """Revoke an agent; return False when there is no such unrevoked one."""
    rows = AGENTS.c
    chosen = (rows.tenant_id == uow.tenant_id, rows.agent_id == agent_id, rows.revoked_at.is_(None))
    statement = update(AGENTS).where(*chosen).values(revoked_at=uow.now(), revoked_reason=reason)
    return uow.session.execute(statement.returning(rows.agent_id)).one_or_none() is not None
