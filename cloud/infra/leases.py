"""Leases with fencing tokens: who runs a periodic job now.

Invariants:

* Time is the database's, so replicas with different clocks agree.
* Every change of holder raises the token; work done under an older token is fenced off by ``require`` in the
  transaction that does it. A lease only saves work: safety never rests on it alone.
* Work renews its lease: whoever gets on with it keeps it, however long the whole takes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import CursorResult, TextClause, text

from cloud.core.access import Principal
from cloud.core.errors import LeaseLost
from cloud.infra.db import Database, UnitOfWork

_ACQUIRE: Final = text(
    "INSERT INTO leases AS l (tenant_id, name, holder, token, expires_at)"
    " VALUES (:tenant_id, :name, :holder, 1, clock_timestamp() + :ttl)"
    " ON CONFLICT (tenant_id, name) DO UPDATE SET holder = excluded.holder, token = l.token + 1,"
    " expires_at = excluded.expires_at WHERE l.expires_at <= clock_timestamp()"
    " RETURNING token"
)
_RENEW: Final = text(
    "UPDATE leases SET expires_at = clock_timestamp() + :ttl WHERE tenant_id = :tenant_id AND name = :name"
    " AND token = :token AND expires_at > clock_timestamp()"
)
_RELEASE: Final = text(
    "UPDATE leases SET expires_at = clock_timestamp() WHERE tenant_id = :tenant_id AND name = :name AND token = :token"
)
_HOLD: Final = text(
    "UPDATE leases SET expires_at = clock_timestamp() + :ttl WHERE tenant_id = :tenant_id AND name = :name"
    " AND token = :token"
)

Fence = Callable[[UnitOfWork], None]
"""Goes into a transaction that may commit only while its caller holds a lease; raises ``LeaseLost`` otherwise."""


def no_fence(uow: UnitOfWork) -> None:
    """Let every transaction pass: for callers without a lease."""
    del uow


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run ``name`` for ``ttl_s`` seconds since it was acquired, renewed or required."""

    name: str
    token: int
    ttl_s: float


class Leases:
    """The leases of one tenant, for one holder (a process)."""

    def __init__(self, database: Database, principal: Principal, holder: str) -> None:
        self._database = database
        self._principal = principal
        self._holder = holder

    def acquire(self, name: str, ttl_s: float) -> Lease | None:
        """Return the lease, or None while somebody (this holder included) has it."""
        key = {"tenant_id": self._principal.tenant_id, "name": name, "holder": self._holder}
        with self._database.unit_of_work(self._principal) as uow:
            token = uow.session.execute(_ACQUIRE, {**key, "ttl": timedelta(seconds=ttl_s)}).scalar_one_or_none()
        return None if token is None else Lease(name, int(token), ttl_s)

    def renew(self, lease: Lease) -> bool:
        """Extend ``lease`` by its length from now; return False when it has run out or gone to another."""
        with self._database.unit_of_work(self._principal) as uow:
            return _changed(uow, _RENEW, self._extension(lease))

    def release(self, lease: Lease) -> None:
        """Give ``lease`` back; one that went to another is left alone."""
        with self._database.unit_of_work(self._principal) as uow:
            uow.session.execute(_RELEASE, self._key(lease))

    def require(self, uow: UnitOfWork, lease: Lease) -> None:
        """Fence this transaction: nobody else can take the lease before it commits, nor for its length after now.

        Raises:
            LeaseLost: the lease has gone to another holder.
        """
        if not _changed(uow, _HOLD, self._extension(lease)):
            raise LeaseLost(f"lease {lease.name} (token {lease.token}) has gone to another holder; nothing was written")

    def _extension(self, lease: Lease) -> dict[str, object]:
        return {**self._key(lease), "ttl": timedelta(seconds=lease.ttl_s)}

    def _key(self, lease: Lease) -> dict[str, object]:
        return {"tenant_id": self._principal.tenant_id, "name": lease.name, "token": lease.token}


def _changed(uow: UnitOfWork, statement: TextClause, values: dict[str, object]) -> bool:
    result = uow.session.execute(statement, values)
    assert isinstance(result, CursorResult)
    return result.rowcount == 1
