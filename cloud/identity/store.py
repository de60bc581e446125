"""All SQL of identity.

Invariant: secrets are stored hashed; comparing and spending a token is one statement.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from cloud.infra.db import UnitOfWork
from cloud.models.identity import ACCOUNTS, AGENTS, JOIN_TOKENS, SESSIONS, TENANTS


def add_tenant(uow: UnitOfWork, name: str) -> bool:
    """Add the unit of work's own tenant; return False when it is there."""
    statement = insert(TENANTS).values(tenant_id=uow.tenant_id, name=name, created_at=uow.now())
    return _one(uow, statement.on_conflict_do_nothing().returning(TENANTS.c.tenant_id)) is not None


def add_account(
    uow: UnitOfWork, account_id: UUID, email: str, password_hash: str, role: str, must_change: bool
) -> bool:
    """Add an account; return False when the email is taken."""
    statement = insert(ACCOUNTS).values(
        tenant_id=uow.tenant_id,
        account_id=account_id,
        email=email,
        password_hash=password_hash,
        role=role,
        must_change=must_change,
        created_at=uow.now(),
    )
    return _one(uow, statement.on_conflict_do_nothing().returning(ACCOUNTS.c.account_id)) is not None


def account_by_email(uow: UnitOfWork, email: str) -> Any:
    """Return the enabled account of ``email`` and hold its row."""
    rows = ACCOUNTS.c
    chosen = (rows.tenant_id == uow.tenant_id, rows.email == email, rows.disabled_at.is_(None))
    return uow.session.execute(select(ACCOUNTS).where(*chosen).with_for_update()).one_or_none()


def account_by_id(uow: UnitOfWork, account_id: UUID) -> Any:
    """Return the enabled account and hold its row."""
    rows = ACCOUNTS.c
    chosen = (rows.tenant_id == uow.tenant_id, rows.account_id == account_id, rows.disabled_at.is_(None))
    return uow.session.execute(select(ACCOUNTS).where(*chosen).with_for_update()).one_or_none()


def has_email(uow: UnitOfWork, email: str) -> bool:
    """Return whether the tenant has an account of ``email``."""
    rows = ACCOUNTS.c
    return _one(uow, select(rows.account_id).where(rows.tenant_id == uow.tenant_id, rows.email == email)) is not None


def has_account(uow: UnitOfWork, *, own_password: bool = False) -> bool:
    """Return whether the tenant has an account; with ``own_password``, one whose password is no one-time one."""
    rows = ACCOUNTS.c
    chosen = [rows.tenant_id == uow.tenant_id, *([rows.must_change.is_(False)] if own_password else [])]
    return _one(uow, select(rows.account_id).where(*chosen).limit(1)) is not None


def update_account(uow: UnitOfWork, account_id: UUID, values: dict[str, Any]) -> None:
    """Change columns of an account."""
    rows = ACCOUNTS.c
    chosen = (rows.tenant_id == uow.tenant_id, rows.account_id == account_id)
    uow.session.execute(update(ACCOUNTS).where(*chosen).values(**values))


def add_session(uow: UnitOfWork, session_hash: bytes, account_id: UUID, expires_at: datetime) -> None:
    """Add a session."""
    now = uow.now()
    values = {"tenant_id": uow.tenant_id, "session_hash": session_hash, "account_id": account_id}
    statement = insert(SESSIONS).values(**values, created_at=now, last_seen_at=now, expires_at=expires_at)
    uow.session.execute(statement)


def session(uow: UnitOfWork, session_hash: bytes) -> Any:
    """Return a session with its enabled account."""
    rows, accounts = SESSIONS.c, ACCOUNTS.c
    query = (
        select(
            rows.last_seen_at, rows.expires_at, accounts.account_id, accounts.email, accounts.role, accounts.must_change
        )
        .join(ACCOUNTS, (accounts.tenant_id == rows.tenant_id) & (accounts.account_id == rows.account_id))
        .where(rows.tenant_id == uow.tenant_id, rows.session_hash == session_hash, accounts.disabled_at.is_(None))
    )
    return uow.session.execute(query).one_or_none()


def touch_session(uow: UnitOfWork, session_hash: bytes) -> None:
    """Note that a session was used now."""
    rows = SESSIONS.c
    chosen = (rows.tenant_id == uow.tenant_id, rows.session_hash == session_hash)
    uow.session.execute(update(SESSIONS).where(*chosen).values(last_seen_at=uow.now()))


def drop_session(uow: UnitOfWork, session_hash: bytes) -> None:
    """End a session."""
    rows = SESSIONS.c
    uow.session.execute(delete(SESSIONS).where(rows.tenant_id == uow.tenant_id, rows.session_hash == session_hash))


def drop_sessions(uow: UnitOfWork, account_id: UUID) -> None:
    """End every session of an account, and sweep out what has expired."""
    rows = SESSIONS.c
    mine = (rows.account_id == account_id) | (rows.expires_at < uow.now())
    uow.session.execute(delete(SESSIONS).where(rows.tenant_id == uow.tenant_id, mine))


def add_join_token(uow: UnitOfWork, token_hash: bytes, site_id: str, expires_at: datetime) -> None:
    """Add a join token."""
    values = {"tenant_id": uow.tenant_id, "token_hash": token_hash, "site_id": site_id}
    uow.session.execute(insert(JOIN_TOKENS).values(**values, created_at=uow.now(), expires_at=expires_at))


def spend_join_token(uow: UnitOfWork, token_hash: bytes, make_agent_id: Any) -> tuple[str, str] | None:
    """Spend a token and return ``(site_id, agent_id)``; None when it is unknown, used or expired."""
    rows = JOIN_TOKENS.c
    chosen = (rows.tenant_id == uow.tenant_id, rows.token_hash == token_hash)
    query = select(rows.site_id).where(*chosen, rows.used_at.is_(None), rows.expires_at > uow.now()).with_for_update()
    site_id = uow.session.execute(query).scalar_one_or_none()
    if site_id is None:
        return None
    agent_id = make_agent_id(site_id)
    uow.session.execute(update(JOIN_TOKENS).where(*chosen).values(used_at=uow.now(), agent_id=agent_id))
    return site_id, agent_id


def add_agent(uow: UnitOfWork, agent_id: str, site_id: str, certificate_sha256: str, expires_at: datetime) -> None:
    """Add an agent, issued after every other of its site, even if the clock was set back."""
    rows = AGENTS.c
    mine = (rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
    latest = uow.session.execute(select(func.max(rows.issued_at)).where(*mine)).scalar_one()
    issued_at = uow.now() if latest is None else max(uow.now(), latest + timedelta(microseconds=1))
    values = {"tenant_id": uow.tenant_id, "agent_id": agent_id, "site_id": site_id}
    statement = insert(AGENTS).values(
        **values, certificate_sha256=certificate_sha256, issued_at=issued_at, expires_at=expires_at
    )
    uow.session.execute(statement)


def revoke_earlier_agents(uow: UnitOfWork, successor: Any) -> bool:
    """Revoke the agents of the site that were issued before ``successor``; return whether there was one."""
    rows = AGENTS.c
    mine = (rows.tenant_id == uow.tenant_id, rows.site_id == successor.site_id, rows.revoked_at.is_(None))
    statement = update(AGENTS).where(*mine, rows.issued_at < successor.issued_at)
    values = {"revoked_at": uow.now(), "revoked_reason": f"replaced by {successor.agent_id}"}
    revoked = uow.session.execute(statement.values(**values).returning(rows.agent_id)).all()
    return bool(revoked)


def agent(uow: UnitOfWork, agent_id: str) -> Any:
    """Return an agent, revoked or not."""
    rows = AGENTS.c
    query = select(AGENTS).where(rows.tenant_id == uow.tenant_id, rows.agent_id == agent_id)
    return uow.session.execute(query).one_or_none()


def open_agents(uow: UnitOfWork) -> list[Any]:
    """Return (site_id, agent_id, issued_at) of every agent not revoked, the earliest first."""
    rows = AGENTS.c
    return list(
        uow.session.execute(
            select(rows.site_id, rows.agent_id, rows.issued_at)
            .where(rows.tenant_id == uow.tenant_id, rows.revoked_at.is_(None))
            .order_by(rows.site_id, rows.issued_at)
        )
    )


def revoke_agent(uow: UnitOfWork, agent_id: str, reason: str) -> bool:
    """Revoke an agent; return False when there is no such unrevoked one."""
    rows = AGENTS.c
    chosen = (rows.tenant_id == uow.tenant_id, rows.agent_id == agent_id, rows.revoked_at.is_(None))
    statement = update(AGENTS).where(*chosen).values(revoked_at=uow.now(), revoked_reason=reason)
    return _one(uow, statement.returning(AGENTS.c.agent_id)) is not None


def _one(uow: UnitOfWork, statement: Any) -> Any:
    return uow.session.execute(statement).scalar_one_or_none()
