"""Leases with fencing tokens: who runs a periodic job now.

Invariants:

* Time is the database's, so replicas with different clocks agree.
* Every change of holder raises the token; work done under an older token is fenced off by ``require`` in the
  transaction that does it. A lease only saves work: safety never rests on it alone.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import CursorResult, text

from cloud.core.access import Principal
from cloud.core.errors import Conflict
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
_HELD: Final = text("SELECT 1 FROM leases WHERE tenant_id = :tenant_id AND name = :name AND token = :token FOR SHARE")


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run ``name`` for ``ttl_s`` seconds since it was acquired or renewed."""

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
            result = uow.session.execute(_RENEW, {**self._key(lease), "ttl": timedelta(seconds=lease.ttl_s)})
            assert isinstance(result, CursorResult)
            return result.rowcount == 1

    def release(self, lease: Lease) -> None:
        """Give ``lease`` back; one that went to another is left alone."""
        with self._database.unit_of_work(self._principal) as uow:
            uow.session.execute(_RELEASE, self._key(lease))

    def require(self, uow: UnitOfWork, lease: Lease) -> None:
        """Fence this transaction: nobody else can take the lease before it commits.

        Raises:
            Conflict: the lease has gone to another holder.
        """
        if uow.session.execute(_HELD, self._key(lease)).one_or_none() is None:
            raise Conflict(f"lease {lease.name} (token {lease.token}) has gone to another holder; nothing was written")

    def _key(self, lease: Lease) -> dict[str, object]:
        return {"tenant_id": self._principal.tenant_id, "name": lease.name, "token": lease.token}
