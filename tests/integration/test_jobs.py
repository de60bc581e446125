"""Jobs: one replica at a time, fenced, failures said once, a clean end; and plans on their way to the site."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlalchemy import select, text

from cloud import jobs
from cloud.analytics import queries as analytics
from cloud.app import SUBSCRIPTIONS
from cloud.core.access import Principal
from cloud.core.errors import Conflict, LeaseLost, Transient
from cloud.core.events import SiteLinkChanged
from cloud.flows import curtailment
from cloud.flows.sweep import Sweep
from cloud.infra.db import Database
from cloud.infra.leases import Fence
from cloud.infra.outbox import HandlerContext, OutboxWorker
from cloud.jobs import Job, Runner, curtailment_job, run_worker, sweep_job
from cloud.models.hosting import SITE_ORDERS
from cloud.models.infra import OUTBOX_EVENTS
from cloud.planner import queries as planner
from sitelink.orders import read_plan
from sitelink.signing import PrivateKey
from sitelink.types import Domain, Hello, SitePlan
from tests.integration.brain import MARKET, NOON, QUARTER, SETTINGS, SITE, Field, open_field, settings

pytestmark = pytest.mark.postgres
STOP = threading.Event()


@pytest.fixture
def field(database: Database, principal: Principal, tmp_path: Path) -> Field:
    return open_field(database, principal, tmp_path)


def until(true: Callable[[], bool], within_s: float = 20.0) -> None:
    pause = threading.Event()
    for _ in range(int(within_s / 0.05)):
        if true():
            return
        pause.wait(0.05)
    raise AssertionError("the condition never held")


def test_only_the_holder_of_the_lease_works_and_a_lost_lease_writes_nothing(field: Field) -> None:
    ran: list[str] = []

    def work_as(name: str) -> Callable[[Principal, Fence], None]:
        def work(principal: Principal, fence: Fence) -> None:
            with field.database.unit_of_work(principal) as uow:
                fence(uow)
                ran.append(name)

        return work

    first = Runner(field.database, Job("test", 60, work_as("first")), "first")
    second = Runner(field.database, Job("test", 60, work_as("second")), "second")
    first.once(STOP)
    second.once(STOP)
    first.once(STOP)
    assert ran == ["first", "first"]
    with field.database.unit_of_work(field.principal) as uow:  # the first replica hangs beyond its lease
        uow.session.execute(text("UPDATE leases SET expires_at = clock_timestamp() WHERE name = 'test'"))
    second.once(STOP)
    first.once(STOP)
    assert ran == ["first", "first", "second"]


def lost(uow: object) -> None:
    raise LeaseLost("lease curtailment (token 1) has gone to another holder; nothing was written")


def test_losing_the_lease_ends_the_round_before_anything_is_solved_or_written(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    field.prices([30, 900, 30])
    solved: list[object] = []
    monkeypatch.setattr(curtailment.planner, "propose", solved.append)
    with pytest.raises(LeaseLost, match="has gone to another holder"):
        curtailment_job(field.database, SETTINGS).work(field.principal, lost)
    with field.database.unit_of_work(field.principal) as uow:
        assert planner.current_plan(uow, SITE) is None
        assert planner.signals(uow, SITE) == ()
    assert solved == []


def test_losing_the_lease_while_the_solver_runs_is_not_tried_again(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    field.prices([30, 900, 30])
    solved: list[object] = []
    propose = curtailment.planner.propose
    monkeypatch.setattr(curtailment.planner, "propose", lambda situation: solved.append(1) or propose(situation))
    with pytest.raises(LeaseLost):
        curtailment_job(field.database, SETTINGS).work(field.principal, lambda uow: lost(uow) if solved else None)
    with field.database.unit_of_work(field.principal) as uow:
        assert planner.current_plan(uow, SITE) is None
    assert solved == [1]


def test_a_conflict_that_speaks_of_a_lease_is_one_site_s_failure(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    field.prices([30, 900, 30])

    def taken(*_: object) -> None:
        raise Conflict("lease of the fan heater: others kept writing")

    monkeypatch.setattr(curtailment.planner, "activate", taken)
    curtailment_job(field.database, SETTINGS).work(field.principal, lambda uow: None)


def test_a_sweep_without_its_lease_writes_nothing(field: Field) -> None:
    from cloud.hosting import service as hosting

    with field.database.unit_of_work(field.principal) as uow:
        hosting.link_up(uow, Hello(SITE, "agent-1", "1", field.epoch, 0, 0), "connection-1")
    field.clock.advance(1000)
    with pytest.raises(LeaseLost):
        sweep_job(field.database, SETTINGS).work(field.principal, lost)
    with field.database.unit_of_work(field.principal) as uow:
        query = select(OUTBOX_EVENTS.c.body).where(OUTBOX_EVENTS.c.name == SiteLinkChanged.name)
        assert [body["up"] for body in uow.session.execute(query).scalars()] == [True]


def test_a_round_longer_than_the_lease_reaches_every_site_in_every_replica(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_SHORTEST_LEASE_S", 0.6)
    done = [0] * 12
    stop, pause = threading.Event(), threading.Event()

    def work(principal: Principal, fence: Fence) -> None:
        for site in range(12):  # 1.2 s a round: twice the lease
            pause.wait(0.1)
            with field.database.unit_of_work(principal) as uow:
                fence(uow)
            done[site] += 1

    runners = [Runner(field.database, Job("long", 0.05, work), f"replica-{number}") for number in range(2)]
    threads = [threading.Thread(target=runner.run, args=(stop,)) for runner in runners]
    for thread in threads:
        thread.start()
    until(lambda: done[-1] >= 3, within_s=60)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert max(done) - min(done) <= 1


def test_a_failing_job_says_so_once_and_when_it_works_again(field: Field, caplog: pytest.LogCaptureFixture) -> None:
    broken = True

    def work(principal: Principal, fence: Fence) -> None:
        if broken:
            raise Transient("the feed is away")

    runner = Runner(field.database, Job("market", 60, work), "one")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            runner.once(STOP)
        broken = False
        runner.once(STOP)
        runner.once(STOP)
    said = [record.message for record in caplog.records]
    assert len([line for line in said if "fails: the feed is away" in line]) == 1
    assert len([line for line in said if "works again" in line]) == 1


class _Feed(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        intervals = [
            {
                "start": (NOON + QUARTER * n).isoformat(),
                "end": (NOON + QUARTER * (n + 1)).isoformat(),
                "price_usd_per_mwh": 900.0 if n == 2 else 30.0,
            }
            for n in range(6)
        ]
        body = json.dumps(
            {"market": MARKET, "source": "feed", "published_at": NOON.isoformat(), "intervals": intervals}
        )
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def feed_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Feed)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/prices"
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_two_workers_read_the_market_plan_once_and_end_cleanly(field: Field, feed_url: str) -> None:
    changed = settings(
        market_url=feed_url, market_interval_s=0.1, curtailment_interval_s=0.1, sweep_interval_s=0.1, price_stale_s=600
    )
    stop = threading.Event()
    other = Database(field.database.url, field.clock)
    workers = [threading.Thread(target=run_worker, args=(base, changed, stop)) for base in (field.database, other)]
    for worker in workers:
        worker.start()

    def is_planned() -> bool:
        with field.database.unit_of_work(field.principal) as uow:
            view = planner.current_plan(uow, SITE)
            return view is not None and len(view.curtailments) == 1

    until(is_planned)
    stop.set()
    for worker in workers:
        worker.join(20)
        assert not worker.is_alive()
    other.close()
    with field.database.unit_of_work(field.principal) as uow:
        prices = analytics.prices(uow, MARKET, NOON, NOON + QUARTER * 6)
        view = planner.current_plan(uow, SITE)
        free = uow.session.execute(
            text("SELECT count(*) FROM leases WHERE expires_at > clock_timestamp()")
        ).scalar_one()
    assert [item.price_usd_per_mwh for item in prices] == [30, 30, 900, 30, 30, 30]
    assert {item.source for item in prices} == {"feed"}
    assert view is not None
    assert view.revision <= 2  # an empty plan may have come before the first prices
    assert free == 0


def test_prices_keep_when_they_first_came_and_a_later_publication_wins(field: Field) -> None:
    field.prices([30, 40])
    field.clock.advance(60)
    field.prices([30, 50])
    with field.database.unit_of_work(field.principal) as uow:
        prices = analytics.prices(uow, MARKET, NOON, NOON + QUARTER * 2)
    assert [item.price_usd_per_mwh for item in prices] == [30, 50]
    assert [item.first_seen_at for item in prices] == [NOON, NOON + timedelta(seconds=60)]
    assert {item.collected_at for item in prices} == {NOON + timedelta(seconds=60)}
    field.clock.step(-3600)
    field.prices([10, 10])  # published earlier, delivered later
    with field.database.unit_of_work(field.principal) as uow:
        assert [item.price_usd_per_mwh for item in analytics.prices(uow, MARKET, NOON, NOON + QUARTER * 2)] == [30, 50]


def test_an_activated_plan_becomes_one_signed_order_however_often_it_is_delivered(field: Field) -> None:
    field.prices([30, 30, 900, 30])
    with field.database.unit_of_work(field.principal) as uow:
        uow.session.execute(
            text("INSERT INTO agents VALUES (:tenant, 'agent-1', :site, 'x', :now, :later)"),
            {"tenant": uow.tenant_id, "site": SITE, "now": NOON, "later": NOON + timedelta(days=30)},
        )
    Runner(field.database, curtailment_job(field.database, SETTINGS), "one").once(STOP)
    key = PrivateKey.generate()
    worker = OutboxWorker(field.database, SUBSCRIPTIONS, HandlerContext(SETTINGS, field.clock, key))
    worker.deliver(field.principal.tenant_id)
    with field.database.unit_of_work(field.principal) as uow:
        uow.session.execute(text("UPDATE outbox_events SET delivered_at = NULL, due_at = created_at"))
        uow.session.execute(text("DELETE FROM handled_events"))
    worker.deliver(field.principal.tenant_id)
    assert [order.revision for order in orders(field)] == [1]
    (order,) = orders(field)
    assert order.curtailments[0].interval.start == NOON + QUARTER * 2
    assert (order.agent_id, order.site_id) == ("agent-1", SITE)
    assert order.valid.end > order.curtailments[0].interval.end


def orders(field: Field) -> list[SitePlan]:
    with field.database.unit_of_work(field.principal) as uow:
        query = select(SITE_ORDERS.c.payload).where(SITE_ORDERS.c.domain == Domain.PLAN.value)
        return [read_plan(payload) for payload in uow.session.execute(query).scalars()]


def test_the_sweep_finds_dead_links_and_silent_miners_once(field: Field, caplog: pytest.LogCaptureFixture) -> None:
    from cloud.hosting import service as hosting

    with field.database.unit_of_work(field.principal) as uow:
        hosting.link_up(uow, Hello(SITE, "agent-1", "1", field.epoch, 0, 0), "connection-1")
    sweep = Sweep()
    with caplog.at_level(logging.WARNING):
        sweep.run(field.database, field.principal)
        field.clock.advance(1000)
        sweep.run(field.database, field.principal)
        sweep.run(field.database, field.principal)
        field.all_hash()
        sweep.run(field.database, field.principal)
    said = [record.message for record in caplog.records]
    assert [line for line in said if "link is silent" in line] == [
        f"site {SITE}: the link is silent and counts as down; the site goes on by its plan"
    ]
    assert [line for line in said if "silent, " in line] == [f"site {SITE}: 7 more miners went silent, 7 in all"]
    assert [line for line in said if "heard again" in line] == [f"site {SITE}: 7 miners are heard again"]
    with field.database.unit_of_work(field.principal) as uow:
        query = select(OUTBOX_EVENTS.c.body).where(OUTBOX_EVENTS.c.name == SiteLinkChanged.name)
        assert [body["up"] for body in uow.session.execute(query.order_by(OUTBOX_EVENTS.c.created_at)).scalars()] == [
            True,
            False,
        ]
