"""Finished curtailments weighed in a real database: meters, acks, liars, silence and late data."""

import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from cloud.core.access import Principal
from cloud.core.events import CurtailmentFinished, CurtailmentVerified
from cloud.flows.curtailment import replan_site, verify_site
from cloud.infra.db import Database
from cloud.models.infra import OUTBOX_EVENTS
from cloud.planner import evidence_store, queries, store
from cloud.planner.model import Method, Plan, Planned, Usd
from cloud.planner.queries import VerificationView
from cloud.planner.service import policy
from cloud.planner.verification import Status
from cloud.planner.verify_service import verify_policy
from sitelink.types import Curtailment, CurtailmentCause, Interval, MeterSample, NoticeCode, Outcome, Ramp
from sitelink.units import Watts
from tests.integration.brain import NOON, QUARTER, SETTINGS, SITE, Field, open_field

pytestmark = pytest.mark.postgres
FULL_W = 24200.0
STOPPED_W = 3200.0


@pytest.fixture
def field(database: Database, principal: Principal, tmp_path: Path) -> Field:
    return open_field(database, principal, tmp_path)


def planned(field: Field) -> tuple[str, Interval, tuple[str, ...]]:
    """Plan one spike and move the clock past its release."""
    field.prices([30, 900, 30, 30])
    plan = replan_site(field.database, field.principal, SITE, policy(SETTINGS))
    assert plan is not None
    order = plan.curtailments[0].curtailment
    field.clock.advance((order.interval.end - field.clock.now()).total_seconds() + 30)
    return order.curtailment_id, order.interval, order.miner_ids


def weigh(field: Field) -> tuple[str, ...]:
    return verify_site(field.database, field.principal, SITE, verify_policy(SETTINGS))


def verdict(field: Field) -> VerificationView:
    with field.database.unit_of_work(field.principal) as uow:
        (view,) = queries.verifications(uow, SITE)
        return view


def events(field: Field, name: str) -> list[dict[str, object]]:
    with field.database.unit_of_work(field.principal) as uow:
        query = select(OUTBOX_EVENTS.c.body).where(OUTBOX_EVENTS.c.name == name).order_by(OUTBOX_EVENTS.c.created_at)
        return list(uow.session.execute(query).scalars())


def after_grace(field: Field) -> None:
    field.clock.advance(SETTINGS.verify_grace_s)


def before(window: Interval) -> Interval:
    return Interval(window.start - timedelta(seconds=405), window.start)


def beyond(window: Interval) -> Interval:
    return Interval(window.end, window.end + timedelta(seconds=30))


def test_delivery_is_baseline_minus_meter_and_told_once(field: Field) -> None:
    name, window, miners = planned(field)
    field.meter(before(window), FULL_W)
    field.meter(window, STOPPED_W)
    field.meter(beyond(window), STOPPED_W)
    field.report(
        acks=tuple(field.ack(name, miner, window.start + timedelta(seconds=20 + n)) for n, miner in enumerate(miners))
    )
    assert weigh(field) == ()  # the site has never said that nothing is left to send: wait for the grace
    after_grace(field)
    assert weigh(field) == (name,)
    view = verdict(field)
    assert view.status is Status.VERIFIED
    assert view.method == "meter-before"
    assert view.verified_mwh == pytest.approx(21000 / 1e6 / 4, rel=0.02)
    assert view.verified_mwh is not None
    assert view.verified_mwh <= 21000 / 1e6 / 4 + 1e-12
    assert (view.miners, view.complete, view.liars) == (6, 6, ())
    assert view.signal_to_confirmed_s == (window.start - NOON).total_seconds() + 25
    assert weigh(field) == ()
    assert len(events(field, CurtailmentFinished.name)) == 1
    assert [body["verified_mwh"] for body in events(field, CurtailmentVerified.name)] == [view.verified_mwh]


def test_a_liar_counts_for_nothing_even_where_the_meter_would_allow_it(field: Field) -> None:
    name, window, miners = planned(field)
    field.meter(before(window), FULL_W)
    field.meter(
        Interval(window.start, beyond(window).end), 0.0
    )  # somebody else stopped too: the meter shows more than was ordered
    at = window.start + timedelta(seconds=20)
    acks = [field.ack(name, miner, at) for miner in miners[:4]]
    acks.append(field.ack(name, miners[4], at, Outcome.UNVERIFIED, "feeder_did_not_drop"))
    acks.append(field.ack(name, miners[5], at))  # it acked COMPLETE and was found out later
    field.clock.wall = window.end + timedelta(seconds=5)
    field.report(acks=tuple(acks), notices=(field.notice(NoticeCode.LIAR_NAMED, miners[5]),))
    after_grace(field)
    weigh(field)
    view = verdict(field)
    assert view.liars == tuple(sorted(miners[4:6]))
    assert view.claimed_w == 4 * 3500
    assert view.verified_mwh == pytest.approx(4 * 3500 / 1e6 / 4)


def test_credit_never_exceeds_the_meter_and_the_feeder_that_disagrees_is_named(field: Field) -> None:
    name, window, miners = planned(field)
    field.meter(before(window), FULL_W)
    field.meter(Interval(window.start, beyond(window).end), FULL_W - 7000.0)
    for place, drop in ((0, 0.0), (1, 7000.0)):
        field.meter(before(window), 12100.0, meter_id=f"f{place}")
        field.meter(Interval(window.start, beyond(window).end), 12100.0 - drop, meter_id=f"f{place}")
    field.report(acks=tuple(field.ack(name, miner, window.start + timedelta(seconds=20)) for miner in miners))
    after_grace(field)
    weigh(field)
    view = verdict(field)
    assert view.verified_mwh == pytest.approx(7000 / 1e6 / 4, rel=0.02)
    assert view.claimed_w == 6 * 3500
    assert [(item.feeder_id, item.claimed_w, round(item.difference_w or 0.0, 3)) for item in view.feeders] == [
        ("F0", 10500, 10500),
        ("F1", 10500, 3500),
    ]


def test_without_meter_data_there_is_no_figure(field: Field) -> None:
    name, window, miners = planned(field)
    field.report(acks=tuple(field.ack(name, miner, window.start + timedelta(seconds=20)) for miner in miners))
    after_grace(field)
    assert weigh(field) == (name,)
    view = verdict(field)
    assert (view.status, view.verified_mwh) == (Status.UNVERIFIED, None)
    assert "no baseline" in view.reason
    assert events(field, CurtailmentVerified.name) == []
    assert len(events(field, CurtailmentFinished.name)) == 1


def test_late_data_gives_another_revision(field: Field) -> None:
    name, window, miners = planned(field)
    field.meter(before(window), FULL_W)
    half = Interval(window.start, window.start + QUARTER / 3)
    field.meter(half, STOPPED_W)
    field.report(acks=tuple(field.ack(name, miner, window.start + timedelta(seconds=20)) for miner in miners))
    after_grace(field)
    weigh(field)
    first = verdict(field)
    assert first.status is Status.PARTIAL
    assert "10 of 15 intervals" in first.reason
    assert first.verified_mwh == pytest.approx(21000 / 1e6 / 12, rel=0.05)
    field.meter(Interval(half.end, beyond(window).end), STOPPED_W)  # the cable is back
    assert weigh(field) == (name,)
    second = verdict(field)
    assert (second.revision, second.status) == (2, Status.VERIFIED)
    assert second.verified_mwh == pytest.approx(21000 / 1e6 / 4, rel=0.02)
    assert len(events(field, CurtailmentFinished.name)) == 1
    assert len(events(field, CurtailmentVerified.name)) == 2


def test_an_order_nobody_heard_delivers_nothing(field: Field) -> None:
    name, window, _ = planned(field)
    field.meter(Interval(before(window).start, beyond(window).end), FULL_W)
    after_grace(field)
    weigh(field)
    view = verdict(field)
    assert (view.curtailment_id, view.verified_mwh, view.silent) == (name, 0.0, 6)
    assert view.signal_to_confirmed_s is None


def put_plan(field: Field, revision: int, *orders: tuple[str, tuple[str, ...], Interval]) -> None:
    """Activate a plan of these curtailments as if the planner had made it."""
    ramp = Ramp(Watts(0.0), 1.0)
    items = tuple(
        Planned(
            Curtailment(name, CurtailmentCause.PRICE, window, miners, ramp, ramp), Watts(3500.0 * len(miners)), NOON
        )
        for name, miners, window in orders
    )
    valid = Interval(NOON, NOON + timedelta(days=2))
    plan = Plan(
        SITE, revision, uuid.uuid4().hex, NOON, valid, items, Usd(0.0), Usd(0.0), 0.0, Method.BREAK_EVEN, "test"
    )
    with field.database.unit_of_work(field.principal) as uow:
        store.put_plan(uow, plan)
        store.put_curtailments(uow, plan, NOON)


def minutes(start: float, end: float) -> Interval:
    return Interval(NOON + timedelta(minutes=start), NOON + timedelta(minutes=end))


def test_a_late_stop_in_one_curtailment_lowers_what_its_neighbour_was_credited(field: Field) -> None:
    """B's miners stop only at 12:26, after A was weighed; the 10.5 kW that A alone had shed must not count twice."""
    first, second = field.miners[:3], field.miners[3:6]
    put_plan(field, 1, ("A", first, minutes(10, 20)), ("B", second, minutes(15.5, 40)))
    field.clock.advance(41 * 60)
    field.meter(minutes(0, 10), FULL_W)
    field.meter(minutes(10, 25), FULL_W - 10500.0)
    field.report(acks=tuple(field.ack("A", miner, NOON + timedelta(minutes=11)) for miner in first))
    no_effect = [
        field.ack("B", miner, NOON + timedelta(minutes=16), Outcome.UNVERIFIED, "no_effect") for miner in second
    ]
    field.report(acks=tuple(no_effect))
    assert weigh(field) == ("A",)
    field.meter(minutes(25, 41), FULL_W - 21000.0)
    field.report(acks=tuple(field.ack("B", miner, NOON + timedelta(minutes=26)) for miner in second))
    after_grace(field)
    assert weigh(field) == ("A", "B")
    assert weigh(field) == ()
    with field.database.unit_of_work(field.principal) as uow:
        views = queries.verifications(uow, SITE)
    credited: dict[Interval, float] = {}
    for item in (item for view in views for item in view.intervals):
        assert item.meter_w is not None
        credited[item.interval] = credited.get(item.interval, 0.0) + (item.delivered_w or 0.0)
        assert credited[item.interval] <= FULL_W - item.meter_w + 1e-6
    assert sum(power for held, power in credited.items() if minutes(16, 20).contains(held.start)) > 0


def test_while_nothing_is_new_no_reading_is_read(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    name, window, miners = planned(field)
    field.meter(before(window), FULL_W)
    field.meter(Interval(window.start, beyond(window).end), STOPPED_W)
    field.report(acks=tuple(field.ack(name, miner, window.start + timedelta(seconds=20)) for miner in miners))
    after_grace(field)
    assert weigh(field) == (name,)
    later = MeterSample("site", beyond(window).end + timedelta(seconds=15), Watts(STOPPED_W), None)
    field.report(meters=(later,))  # new, and changes nothing: no new revision
    assert weigh(field) == ()
    assert verdict(field).revision == 1
    with monkeypatch.context() as forbidding:
        forbidding.setattr(evidence_store, "meters", None)
        assert weigh(field) == ()
