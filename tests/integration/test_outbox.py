"""Events reach their handlers at least once, and their effects happen exactly once."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

from cloud.core.access import Principal
from cloud.core.errors import Permanent, Refused, Transient
from cloud.core.events import InvoiceIssued, PlanActivated
from cloud.infra.db import Database, UnitOfWork
from cloud.infra.outbox import HandlerContext, OutboxWorker, Subscription
from cloud.models.infra import HANDLED_EVENTS, OUTBOX_EVENTS
from cloud.settings import Settings
from sitelink.clock import ManualClock
from sitelink.signing import PrivateKey
from tests.telemetry import START

EVENT = PlanActivated("pecos-1", 1, "p1")


class Recorder:
    """A handler whose effect is a row, so that it is undone with its transaction."""

    def __init__(self, failures: list[Exception] | None = None) -> None:
        self.failures = failures or []
        self.calls = 0

    def __call__(self, context: HandlerContext, uow: UnitOfWork, event: Any) -> None:
        self.calls += 1
        uow.session.execute(
            text(
                "INSERT INTO leases VALUES (:tenant, 'effect', 'x', 1, now())"
                " ON CONFLICT (tenant_id, name) DO UPDATE SET token = leases.token + 1"
            ),
            {"tenant": uow.tenant_id},
        )
        if self.failures:
            raise self.failures.pop(0)


@pytest.fixture(autouse=True)
def clock(database: Database) -> ManualClock:
    database.clock = ManualClock(START)
    return database.clock


def worker(database: Database, *handlers: Callable[..., None]) -> OutboxWorker:
    context = HandlerContext(Settings(), database.clock, PrivateKey.generate())
    rows = [Subscription(PlanActivated, f"handler-{place}", handler) for place, handler in enumerate(handlers)]
    return OutboxWorker(database, rows, context)


def emit(database: Database, principal: Principal) -> None:
    with database.unit_of_work(principal) as uow:
        uow.add_event(EVENT)


def effects(database: Database, principal: Principal) -> int:
    with database.unit_of_work(principal) as uow:
        return uow.session.execute(text("SELECT token FROM leases WHERE name = 'effect'")).scalar_one_or_none() or 0


def states(database: Database, principal: Principal) -> list[tuple[bool, bool]]:
    with database.unit_of_work(principal) as uow:
        rows = uow.session.execute(select(OUTBOX_EVENTS)).all()
    return [(row.delivered_at is not None, row.parked_at is not None) for row in rows]


def test_an_event_is_handled_once_by_each_handler(database: Database, principal: Principal) -> None:
    first, second = Recorder(), Recorder()
    emit(database, principal)
    deliver = worker(database, first, second)
    assert deliver.deliver(principal.tenant_id) == 1
    assert deliver.deliver(principal.tenant_id) == 0
    assert (first.calls, second.calls, effects(database, principal)) == (1, 1, 2)
    assert states(database, principal) == [(True, False)]


def test_an_event_of_a_failed_transaction_never_existed(database: Database, principal: Principal) -> None:
    with pytest.raises(ZeroDivisionError), database.unit_of_work(principal) as uow:
        _ = uow.add_event(EVENT) and 1 / 0
    assert worker(database, Recorder()).deliver(principal.tenant_id) == 0


def test_a_failing_handler_is_tried_again_and_leaves_nothing_behind(
    database: Database, principal: Principal, clock: ManualClock
) -> None:
    good, shaky = Recorder(), Recorder([Transient("busy"), ValueError("a defect")])
    emit(database, principal)
    deliver = worker(database, good, shaky)
    for _ in range(3):
        deliver.deliver(principal.tenant_id)
        clock.advance(60)
    assert (good.calls, shaky.calls, effects(database, principal)) == (1, 3, 2)
    assert states(database, principal) == [(True, False)]


def test_a_failing_event_is_looked_for_no_more_often_than_it_is_due(
    database: Database, principal: Principal, clock: ManualClock
) -> None:
    emit(database, principal)
    deliver = worker(database, Recorder([Refused("no_agent", "none") for _ in range(5)]))
    pauses = [deliver._pause_s()]
    for _ in range(6):
        assert deliver.deliver(principal.tenant_id) == 1
        pauses.append(deliver._pause_s())
        clock.advance(60)
        if len(pauses) < 7:
            assert states(database, principal) == [(False, False)]
    assert pauses == [5, 1, 2, 4, 5, 5, 5]
    assert states(database, principal) == [(True, False)]


def test_a_crash_between_handler_and_mark_does_not_repeat_the_effect(
    database: Database, principal: Principal, clock: ManualClock
) -> None:
    handler = Recorder()
    emit(database, principal)
    crashing = worker(database, handler)
    crashing._finish = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        crashing.deliver(principal.tenant_id)
    assert states(database, principal) == [(False, False)]
    again = worker(database, handler)
    assert again.deliver(principal.tenant_id) == 0, "the dead worker's claim still holds"
    clock.advance(31)
    assert again.deliver(principal.tenant_id) == 1
    assert (handler.calls, effects(database, principal)) == (1, 1)
    assert states(database, principal) == [(True, False)]


def test_a_hopeless_event_is_parked_and_kept(database: Database, principal: Principal, clock: ManualClock) -> None:
    emit(database, principal)
    deliver = worker(database, Recorder([Permanent("never")]))
    deliver.deliver(principal.tenant_id)
    clock.advance(3600)
    assert deliver.deliver(principal.tenant_id) == 0
    assert states(database, principal) == [(False, True)]
    assert effects(database, principal) == 0


def test_an_event_nobody_subscribed_to_is_delivered(database: Database, principal: Principal) -> None:
    with database.unit_of_work(principal) as uow:
        uow.add_event(InvoiceIssued("i1"))
    assert worker(database, Recorder()).deliver(principal.tenant_id) == 1
    assert states(database, principal) == [(True, False)]
    with database.unit_of_work(principal) as uow:
        assert not uow.session.execute(select(HANDLED_EVENTS)).all()


def test_two_workers_share_the_events(database: Database, principal: Principal) -> None:
    for _ in range(30):
        emit(database, principal)
    handler = Recorder()
    first, second = worker(database, handler), worker(database, handler)
    claimed = 0
    while got := first.deliver(principal.tenant_id) + second.deliver(principal.tenant_id):
        claimed += got
    assert (claimed, handler.calls) == (30, 30)


def test_a_worker_wakes_up_on_notify(database: Database, principal: Principal) -> None:
    import threading

    handled, stop = threading.Event(), threading.Event()
    database.clock = ManualClock(START + timedelta(seconds=1))
    running = worker(database, lambda *_: handled.set())
    thread = threading.Thread(target=running.run, args=(stop,))
    thread.start()
    emit(database, principal)
    assert handled.wait(20)
    stop.set()
    emit(database, principal)
    thread.join(20)
    assert not thread.is_alive()
