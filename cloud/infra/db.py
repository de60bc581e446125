"""The database: one transaction is one ``UnitOfWork``, and every one of them belongs to one tenant.

Invariants:

* The tenant is set inside the transaction, so a pooled connection never carries it over.
* Leaving the block commits; an exception rolls back. Events and wake-ups added inside leave with the commit.
* Driver errors are translated here, once: lost connections, deadlocks and serialisation failures become
  ``Transient``, values the database cannot hold ``Permanent``, broken keys ``Conflict``.

      with database.unit_of_work(principal) as uow:  BEGIN; set app.tenant_id
          ... uow.session.execute(...)                 row-level security sees the tenant
          uow.add_event(PlanActivated(...))            outbox row, NOTIFY at commit
                                                     COMMIT
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import Engine, create_engine, exc, insert, text
from sqlalchemy.orm import Session

from cloud.core.access import Principal
from cloud.core.errors import Conflict, Permanent, Transient
from cloud.core.events import Event
from cloud.models.infra import OUTBOX_EVENTS
from sitelink.clock import Clock, SystemClock

CHANNEL: Final = "ballast"
"""The one NOTIFY channel; the payload's ``topic`` tells messages apart."""

_RETRYABLE_STATES: Final = ("40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53300", "25006")
_Result = TypeVar("_Result")


class UnitOfWork:
    """One transaction for one principal; ``session`` is SQLAlchemy's, inside it."""

    def __init__(self, session: Session, principal: Principal, clock: Clock) -> None:
        self.session = session
        self.principal = principal
        self.clock = clock

    @property
    def tenant_id(self) -> UUID:
        """Return the tenant all rows of this transaction belong to."""
        return self.principal.tenant_id

    def now(self) -> datetime:
        """Return the injected wall clock's time, aware UTC."""
        return self.clock.now()

    def add_event(self, event: Event) -> UUID:
        """Put ``event`` into the outbox of this transaction and return its id; workers wake at commit."""
        event_id = uuid.uuid4()
        now = self.now()
        values = {"tenant_id": self.tenant_id, "event_id": event_id, "name": event.name, "body": event.to_json()}
        self.session.execute(insert(OUTBOX_EVENTS).values(**values, created_at=now, due_at=now))
        self.notify("outbox")
        return event_id

    def notify(self, topic: str, **fields: str | int) -> None:
        """Tell listeners of ``topic``, at commit. Only a hint: a listener that misses it must find out by reading."""
        document: dict[str, Any] = {"topic": topic, "tenant_id": str(self.tenant_id), **fields}
        self.session.execute(
            text("SELECT pg_notify(:channel, :payload)"), {"channel": CHANNEL, "payload": json.dumps(document)}
        )


class Database:
    """A pool of connections as the application's non-owner role."""

    def __init__(self, url: str, clock: Clock | None = None, pool_size: int = 10) -> None:
        self.url = url
        self.clock = clock or SystemClock()
        self._engine = create_engine(
            url,
            pool_pre_ping=True,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=10,
            connect_args={"connect_timeout": 5},
        )
        self._snapshots = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @contextmanager
    def unit_of_work(self, principal: Principal) -> Iterator[UnitOfWork]:
        """Yield a transaction for ``principal``; commit on success, roll back on error.

        Raises: Transient, Permanent or Conflict as the module says; whatever the block raises.
        """
        with self._transaction(self._engine, principal) as uow:
            yield uow

    @contextmanager
    def snapshot(self, principal: Principal) -> Iterator[UnitOfWork]:
        """Yield a read-only transaction that sees one moment throughout (repeatable read).

        Raises: as ``unit_of_work``.
        """
        with self._transaction(self._snapshots, principal) as uow:
            yield uow

    @contextmanager
    def _transaction(self, engine: Engine, principal: Principal) -> Iterator[UnitOfWork]:
        with _translated(), Session(engine) as session, session.begin():
            session.execute(
                text("SELECT set_config('app.tenant_id', :tenant, true)"), {"tenant": str(principal.tenant_id)}
            )
            yield UnitOfWork(session, principal, self.clock)

    def run(self, principal: Principal, work: Callable[[UnitOfWork], _Result], attempts: int = 5) -> _Result:
        """Return ``work(uow)`` of a committed transaction, trying again on ``Transient`` with growing pauses.

        ``work`` may run several times and must have no effect outside the transaction.
        """
        for attempt in range(attempts):
            try:
                with self.unit_of_work(principal) as uow:
                    return work(uow)
            except Transient:
                if attempt == attempts - 1:
                    raise
                time.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def tenant_ids(self) -> tuple[UUID, ...]:
        """Return every tenant, oldest first. The one read across tenants: ids only."""
        with _translated(), Session(self._engine) as session, session.begin():
            rows = session.execute(text("SELECT tenant_id FROM ballast_tenant_ids()"))
            return tuple(row.tenant_id for row in rows)

    def check(self) -> None:
        """Verify that the login may be trusted with tenants' data.

        Raises:
            Permanent: the role is a superuser, bypasses row security, or owns the tables.
        """
        query = text(
            "SELECT r.rolname, r.rolsuper, r.rolbypassrls, EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n"
            " ON n.oid = c.relnamespace WHERE c.relowner = r.oid AND c.relkind = 'r' AND n.nspname = 'public') AS owns"
            " FROM pg_roles r WHERE r.rolname = current_user"
        )
        with _translated(), Session(self._engine) as session, session.begin():
            role = session.execute(query).one()
        if role.rolsuper or role.rolbypassrls or role.owns:
            raise Permanent(
                f"database role {role.rolname} can see every tenant; give database_url a login that is neither"
                " superuser nor owner and has been granted ballast_app"
            )

    def close(self) -> None:
        """Close the pooled connections."""
        self._engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except exc.TimeoutError:
        raise Transient("database: every connection of the pool is busy; retried later") from None
    except exc.IntegrityError as error:
        raise Conflict(f"database: {_first_line(error)}") from error
    except exc.DataError as error:
        raise Permanent(f"database: {_first_line(error)}") from error
    except exc.DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        lost = error.connection_invalidated or isinstance(error, exc.OperationalError | exc.InterfaceError)
        if state in _RETRYABLE_STATES or (lost and state is None) or (state or "").startswith("08"):
            raise Transient(f"database: {_first_line(error)}") from error
        raise


def _first_line(error: exc.DBAPIError) -> str:
    lines = str(error.orig).strip().splitlines()
    return lines[0] if lines else type(error.orig).__name__
