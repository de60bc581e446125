"""Use cases of identity for people: first start, login, sessions, passwords.

Invariants:

* A session's id is 256 random bits, stored as a hash; it names its tenant, so that it can be found behind row-level
  security. It ends when idle, when old, at logout and when the password changes.
* A wrong password and an unknown email look and take the same; repeated failures shut the account for a while.
* The first operator's password is made here, returned once to be shown, and must be changed at the first login. There
  is no operator before there is somebody to show it to.
"""

import base64
import binascii
import hashlib
import secrets
import uuid
from datetime import timedelta
from typing import Final
from uuid import UUID

from cloud.core.access import PERMISSIONS, Permission, Principal, Role, system_principal
from cloud.core.errors import BadInput, Conflict, NotFound, Refused
from cloud.identity import passwords, store
from cloud.identity.model import (
    LONGEST_EMAIL,
    LONGEST_PASSWORD,
    SESSION_IDLE,
    SESSION_LENGTH,
    SHORTEST_PASSWORD,
    Account,
    FirstOperator,
    SessionView,
    lock_time,
)
from cloud.infra.db import Database, UnitOfWork

_TOUCH_EVERY: Final = timedelta(minutes=1)


def open_tenant(database: Database, name: str) -> UUID:
    """Return the default tenant, made when there is none yet. It has no operator: nobody can sign in."""
    tenants = database.tenant_ids()
    if tenants:
        return tenants[0]
    tenant_id = uuid.uuid4()
    with database.unit_of_work(system_principal(tenant_id, "first start")) as uow:
        store.add_tenant(uow, name)
    return tenant_id


def first_operator(uow: UnitOfWork, email: str) -> FirstOperator | None:
    """Make the tenant's operator; None when it has one. Call it where the password can be shown at once."""
    if store.has_account(uow):
        return None
    password = passwords.one_time_password()
    hashed = passwords.hash_password(password)
    store.add_account(uow, uuid.uuid4(), _normal(email), hashed, Role.OWNER.value, must_change=True)
    return FirstOperator(_normal(email), password)


def is_taken_over(uow: UnitOfWork) -> bool:
    """Return whether somebody signed in and chose a password of their own."""
    return store.has_account(uow, own_password=True)


def reset_password(uow: UnitOfWork, email: str) -> str:
    """Give the account a new one-time password, end its sessions, and return the password to be shown once.

    A tenant without any operator gets its first.

    Raises:
        NotFound: there is no such account.
    """
    made = first_operator(uow, email)
    if made is not None:
        return made.one_time_password
    row = store.account_by_email(uow, _normal(email))
    if row is None:
        raise NotFound(f"there is no account {email}")
    password = passwords.one_time_password()
    hashed = passwords.hash_password(password)
    values = {"password_hash": hashed, "must_change": True, "failed_attempts": 0, "locked_until": None}
    store.update_account(uow, row.account_id, values)
    store.drop_sessions(uow, row.account_id)
    return password


def add_operator(uow: UnitOfWork, email: str) -> str:
    """Make one more operator and return the one-time password to be shown once.

    Raises:
        BadInput: the email cannot be one.
        Conflict: somebody has it.
    """
    name = _normal(email)
    if not 3 <= len(name) <= LONGEST_EMAIL or name.count("@") != 1 or not name.isprintable() or " " in name:
        raise BadInput(f"{email!r} is not an email address; write such as ann@example.com")
    password = passwords.one_time_password()
    hashed = passwords.hash_password(password)
    if not store.add_account(uow, uuid.uuid4(), name, hashed, Role.ADMIN.value, must_change=True):
        raise Conflict(f"there is an account {name} already; give it a new password: ballast operator reset {name}")
    return password


def vouch(uow: UnitOfWork, email: str, password: str) -> str | None:
    """Return the account's email when whoever gave the password may order miners and chose that password; else None.

    A wrong password is counted in this transaction, so commit it either way.
    """
    found = authenticate(uow, email, password)
    if found is None or found.must_change or Permission.ORDER_MINERS not in PERMISSIONS[found.role]:
        return None
    return found.email


def find_tenant(database: Database, email: str) -> UUID | None:
    """Return the tenant of ``email``, or the first one for an unknown email, so that the answer tells nothing."""
    tenants = database.tenant_ids()
    for tenant_id in tenants:
        with database.unit_of_work(system_principal(tenant_id, "login")) as uow:
            if store.has_email(uow, _normal(email)):
                return tenant_id
    return tenants[0] if tenants else None


def authenticate(uow: UnitOfWork, email: str, password: str) -> Account | None:
    """Return the account when the password is right; None otherwise (the failure is counted in this transaction)."""
    row = store.account_by_email(uow, _normal(email))
    locked = row is not None and row.locked_until is not None and row.locked_until > uow.now()
    right = passwords.matches(None if row is None else row.password_hash, password[:LONGEST_PASSWORD])
    if row is None or locked:
        return None
    if not right:
        failed = row.failed_attempts + 1
        until = uow.now() + lock_time(failed)
        store.update_account(uow, row.account_id, {"failed_attempts": failed, "locked_until": until})
        return None
    values: dict[str, object] = {"failed_attempts": 0, "locked_until": None}
    if passwords.is_outdated(row.password_hash):
        values["password_hash"] = passwords.hash_password(password)
    store.update_account(uow, row.account_id, values)
    return Account(uow.tenant_id, row.account_id, row.email, Role(row.role), row.must_change)


def open_session(uow: UnitOfWork, account: Account) -> str:
    """Start a session and return its secret id, which goes into the cookie and nowhere else."""
    token = _encode(uow.tenant_id.bytes + secrets.token_bytes(32))
    store.add_session(uow, _digest(token), account.account_id, uow.now() + SESSION_LENGTH)
    return token


def session_principal(database: Database, token: str) -> SessionView | None:
    """Return the live session of ``token``; None when it is unknown, idle for too long or expired."""
    tenant_id = _tenant_in(token)
    if tenant_id is None:
        return None
    with database.unit_of_work(system_principal(tenant_id, "session")) as uow:
        row = store.session(uow, _digest(token))
        if row is None:
            return None
        now = uow.now()
        if row.expires_at <= now or now - row.last_seen_at > SESSION_IDLE:
            store.drop_session(uow, _digest(token))
            return None
        if now - row.last_seen_at > _TOUCH_EVERY:
            store.touch_session(uow, _digest(token))
        role = Role(row.role)
        principal = Principal(tenant_id, f"account:{row.account_id}", role)
        return SessionView(principal, row.account_id, row.email, role, row.must_change)


def change_password(uow: UnitOfWork, account_id: UUID, old: str, new: str) -> None:
    """Replace the password and end every session of the account; the caller opens a new one.

    Raises:
        Refused: ``wrong_password``, ``same_password`` or ``weak_password``; the message says what is asked for.
    """
    row = store.account_by_id(uow, account_id)
    if row is None or not passwords.matches(row.password_hash, old[:LONGEST_PASSWORD]):
        raise Refused("wrong_password", "the present password is not right")
    if new == old:
        raise Refused("same_password", "choose a password other than the present one")
    if not SHORTEST_PASSWORD <= len(new) <= LONGEST_PASSWORD or new.lower() == row.email:
        raise Refused("weak_password", f"choose at least {SHORTEST_PASSWORD} letters, and not your email address")
    hashed = passwords.hash_password(new)
    values = {"password_hash": hashed, "must_change": False, "failed_attempts": 0, "locked_until": None}
    store.update_account(uow, account_id, values)
    store.drop_sessions(uow, account_id)


def account(uow: UnitOfWork, account_id: UUID) -> Account | None:
    """Return an enabled account."""
    row = store.account_by_id(uow, account_id)
    return None if row is None else Account(uow.tenant_id, account_id, row.email, Role(row.role), row.must_change)


def close_session(uow: UnitOfWork, token: str) -> None:
    """End the session of ``token``; one that is gone already is no error."""
    store.drop_session(uow, _digest(token))


def _normal(email: str) -> str:
    return email.strip().lower()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _tenant_in(token: str) -> UUID | None:
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    return UUID(bytes=raw[:16]) if len(raw) == 48 else None
