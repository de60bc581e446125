"""The SQL of accounts and sessions.

Invariant: secrets are stored hashed.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert

from cloud.infra.db import UnitOfWork
from cloud.models.identity import ACCOUNTS, SESSIONS, TENANTS


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


def _one(uow: UnitOfWork, statement: Any) -> Any:
    return uow.session.execute(statement).scalar_one_or_none()
