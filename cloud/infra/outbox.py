"""Delivers events: at least once to each handler, whose effects happen exactly once.

Invariants:

* A handler runs in one transaction together with its row of ``handled_events``; a crash anywhere delivers again, and
  what was handled is skipped.
* Events are claimed for a while (``due_at`` moves ahead), not locked, while handlers run; a dead worker's claim ends.
* A handler that fails is tried again with growing pauses; ``Permanent`` parks the event: kept, and logged.

      claim (SKIP LOCKED, due_at += 30 s)  ->  per handler: BEGIN; handled_events; handle; COMMIT  ->  delivered_at
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from cloud.core.access import Principal, system_principal
from cloud.core.errors import CloudError, Permanent, Transient
from cloud.core.events import Event, from_json
from cloud.infra.bus import Wakeups
from cloud.infra.db import Database, UnitOfWork
from cloud.infra.outage import OutageLog
from cloud.models.infra import HANDLED_EVENTS, OUTBOX_EVENTS
from cloud.settings import Settings
from sitelink.clock import Clock
from sitelink.signing import Signer

_LOGGER: Final = logging.getLogger(__name__)
_CLAIM: Final = timedelta(seconds=30)
_FIRST_PAUSE_S: Final = 0.5
_SHORTEST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 60.0
_AT_A_TIME: Final = 20
_LOOK_EVERY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class HandlerContext:
    """What a handler may reach beside its transaction."""

    settings: Settings
    clock: Clock
    signer: Signer


@dataclass(frozen=True, slots=True)
class Subscription:
    """One row of the subscriptions table: ``handler`` runs once for each ``event``; ``name`` is stored and stable."""

    event: type[Event]
    name: str
    handler: Callable[[HandlerContext, UnitOfWork, Any], None]


class OutboxWorker:
    """Delivers the events of every tenant to ``subscriptions``."""

    def __init__(self, database: Database, subscriptions: Sequence[Subscription], context: HandlerContext) -> None:
        self._database = database
        self._subscriptions = tuple(subscriptions)
        self._context = context
        self._outage = OutageLog(_LOGGER, "outbox")
        self._failing: set[tuple[UUID, str]] = set()
        self._postponed: list[datetime] = []

    def run(self, stop: threading.Event) -> None:
        """Deliver until ``stop``; woken by NOTIFY, and looking by itself every few seconds."""
        ear = Wakeups(self._database.url, "outbox")
        try:
            while not stop.is_set():
                try:
                    delivered = sum(self.deliver(tenant_id) for tenant_id in self._database.tenant_ids())
                    self._outage.recovered()
                except Transient as error:
                    self._outage.failed(error)
                    delivered = 0
                if not delivered:
                    ear.wait(self._pause_s(), stop)
        finally:
            ear.close()

    def _pause_s(self) -> float:
        """Return how long nothing is due that is known of: until a failed event is, or a few seconds at most."""
        now = self._context.clock.now()
        self._postponed = [due_at for due_at in self._postponed if due_at > now]
        next_s = min(((due_at - now).total_seconds() for due_at in self._postponed), default=_LOOK_EVERY_S)
        return min(_LOOK_EVERY_S, max(_SHORTEST_PAUSE_S, next_s))

    def deliver(self, tenant_id: UUID) -> int:
        """Deliver what is due for one tenant now, and return how many events were claimed."""
        principal = system_principal(tenant_id, "outbox")
        claimed = self._database.run(principal, _claim)
        for event_id, name, body, attempts in claimed:
            self._deliver_one(principal, event_id, name, body, attempts)
        return len(claimed)

    def _deliver_one(
        self, principal: Principal, event_id: UUID, name: str, body: dict[str, Any], attempts: int
    ) -> None:
        try:
            event = from_json(name, body)
            for subscription in self._subscriptions:
                if isinstance(event, subscription.event):
                    self._handle(principal, event_id, event, subscription)
        except Permanent as error:
            _LOGGER.error("event %s %s is parked: %s", name, event_id, error)  # noqa: TRY400 - the message is the cause
            self._failing.discard((event_id, name))
            self._finish(principal, event_id, {"parked_at": self._context.clock.now(), "last_error": str(error)})
        except Exception as error:  # noqa: BLE001 - the supervisor of handlers: logged once, tried again
            self._postpone(principal, event_id, name, attempts, error)
        else:
            self._failing.discard((event_id, name))
            self._finish(principal, event_id, {"delivered_at": self._context.clock.now(), "last_error": None})

    def _handle(self, principal: Principal, event_id: UUID, event: Event, subscription: Subscription) -> None:
        with self._database.unit_of_work(principal) as uow:
            row = {"tenant_id": uow.tenant_id, "event_id": event_id, "handler": subscription.name}
            statement = insert(HANDLED_EVENTS).values(**row, handled_at=uow.now()).on_conflict_do_nothing()
            first = uow.session.execute(statement.returning(HANDLED_EVENTS.c.handler)).scalar_one_or_none()
            if first is not None:
                subscription.handler(self._context, uow, event)

    def _postpone(self, principal: Principal, event_id: UUID, name: str, attempts: int, error: Exception) -> None:
        if (event_id, name) not in self._failing:
            self._failing.add((event_id, name))
            detail = None if isinstance(error, CloudError) else error
            _LOGGER.warning("event %s %s: %s; tried again until it works", name, event_id, error, exc_info=detail)
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(attempts, 10))
        due_at = self._context.clock.now() + timedelta(seconds=pause_s)
        self._postponed.append(due_at)
        self._finish(principal, event_id, {"due_at": due_at, "last_error": str(error)[:500]})

    def _finish(self, principal: Principal, event_id: UUID, values: dict[str, Any]) -> None:
        rows = OUTBOX_EVENTS.c

        def write(uow: UnitOfWork) -> None:
            chosen = (rows.tenant_id == uow.tenant_id, rows.event_id == event_id)
            uow.session.execute(update(OUTBOX_EVENTS).where(*chosen).values(**values))

        self._database.run(principal, write)


def _claim(uow: UnitOfWork) -> list[tuple[UUID, str, dict[str, Any], int]]:
    rows = OUTBOX_EVENTS.c
    due = (
        select(rows.event_id)
        .where(rows.tenant_id == uow.tenant_id, rows.delivered_at.is_(None), rows.parked_at.is_(None))
        .where(rows.due_at <= uow.now())
        .order_by(rows.created_at)
        .limit(_AT_A_TIME)
        .with_for_update(skip_locked=True)
    )
    event_ids = list(uow.session.execute(due).scalars())
    if not event_ids:
        return []
    chosen = (rows.tenant_id == uow.tenant_id, rows.event_id.in_(event_ids))
    statement = (
        update(OUTBOX_EVENTS)
        .where(*chosen)
        .values(due_at=uow.now() + _CLAIM, attempts=rows.attempts + 1)
        .returning(rows.event_id, rows.name, rows.body, rows.attempts, rows.created_at)
    )
    found = sorted(uow.session.execute(statement), key=lambda row: row.created_at)
    return [(row.event_id, row.name, row.body, row.attempts) for row in found]
