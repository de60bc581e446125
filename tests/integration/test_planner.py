"""Planning in a real database: revisions, races, continuity, staleness."""

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import select

from cloud.core.access import Principal
from cloud.core.errors import BadInput, Conflict, NotFound, Refused
from cloud.core.events import PlanActivated
from cloud.flows.curtailment import replan_site
from cloud.flows.dispatch import compile_plan, dispatch_active_plan
from cloud.hosting import queries as hosting
from cloud.hosting import service as hosting_service
from cloud.infra.db import Database
from cloud.infra.outbox import HandlerContext
from cloud.models.infra import OUTBOX_EVENTS
from cloud.planner import queries, service
from cloud.planner.evidence_store import fittings
from cloud.planner.model import Plan, SignalKind
from cloud.planner.service import policy
from sitelink.orders import read_plan, write_plan
from sitelink.signing import PrivateKey
from sitelink.types import CurtailmentCause, Interval, MinerState, NoticeCode, Reading
from sitelink.units import Watts
from tests.integration.brain import NOON, QUARTER, SETTINGS, SITE, Field, open_field, settings

pytestmark = pytest.mark.postgres


@pytest.fixture
def field(database: Database, principal: Principal, tmp_path: Path) -> Field:
    return open_field(database, principal, tmp_path)


def replan(field: Field, **changes: object) -> Plan | None:
    return replan_site(field.database, field.principal, SITE, policy(settings(**changes)))


def activated(field: Field) -> list[int]:
    with field.database.unit_of_work(field.principal) as uow:
        bodies = uow.session.execute(select(OUTBOX_EVENTS.c.body).where(OUTBOX_EVENTS.c.name == PlanActivated.name))
        return sorted(body["revision"] for body in bodies.scalars())


def test_the_first_plan_is_a_plan_though_it_is_empty_and_says_why(field: Field) -> None:
    plan = replan(field)
    assert plan is not None
    assert (plan.revision, plan.curtailments) == (1, ())
    assert "no price of TEST_HUB" in plan.reason
    assert plan.skipped == {"uncontrollable": 1}
    assert activated(field) == [1]
    assert replan(field) is None
    assert activated(field) == [1]


def test_a_miner_whose_nameplate_is_not_known_is_stored_as_unknown_and_never_ordered(
    field: Field, tmp_path: Path
) -> None:
    names = ("02:00:00:00:00:01", "02:00:00:00:01:00")
    inventory = tmp_path / "inventory.csv"
    text = inventory.read_text()
    inventory.write_text(text.replace(",1,3500,200", ",1,,").replace(",3200,100", ",,100"))
    with field.database.unit_of_work(field.principal) as uow:
        hosting_service.import_inventory(uow, SITE, inventory, None)
    with field.database.unit_of_work(field.principal) as uow:
        rows = {row.miner_id: row for row in hosting.site_miners(uow, SITE)}
        assert fittings(uow, SITE)[names[0]].nameplate_w is None
    assert (rows[names[0]].nameplate_w, rows[names[0]].nameplate_ths) == (None, None)
    assert (rows[names[1]].nameplate_w, rows[names[1]].nameplate_ths) == (None, 100)
    field.prices([30, 30, 900, 900, 30, 30])
    plan = replan(field)
    assert plan is not None
    stopped = {name for item in plan.curtailments for name in item.curtailment.miner_ids}
    assert len(stopped) == 5
    assert not stopped & set(names)
    assert plan.skipped == {"no_nameplate": 1, "uncontrollable": 1}
    assert all(slot.constant_w == 0 for slot in plan.slots)
    assert "without the load of 2 miners whose nameplate is not known" in plan.reason


def test_a_spike_stops_every_miner_that_loses_money_and_nothing_changes_until_something_does(field: Field) -> None:
    field.prices([30, 30, 900, 900, 30, 30])
    plan = replan(field)
    assert plan is not None
    (item,) = plan.curtailments
    assert item.curtailment.interval == Interval(NOON + QUARTER * 2, NOON + QUARTER * 4)
    assert item.curtailment.cause is CurtailmentCause.PRICE
    assert set(item.curtailment.miner_ids) == set(field.miners[:6])
    assert item.expected_w == 6 * 3500
    assert item.curtailment.target_power_w == 3200
    assert plan.gap == pytest.approx(0, abs=1e-12)
    assert plan.valid.end >= item.curtailment.interval.end + timedelta(seconds=SETTINGS.plan_margin_s)
    field.clock.advance(120)
    field.all_hash()
    assert replan(field) is None
    site_plan = compile_plan(plan)
    assert read_plan(write_plan(site_plan)) == site_plan
    with field.database.unit_of_work(field.principal) as uow:
        view = queries.current_plan(uow, SITE)
        (signal,) = queries.signals(uow, SITE)
    assert view is not None
    assert view.curtailments[0].signal_at == NOON
    assert signal.kind is SignalKind.PRICE_SPIKE
    assert signal.interval == item.curtailment.interval
    assert [slot.planned_w for slot in view.slots] == [24200, 24200, 3200, 3200, 24200, 24200]


def test_a_begun_curtailment_keeps_id_start_and_miners_while_its_release_moves(field: Field) -> None:
    field.prices([30, 900, 900, 30, 30, 30])
    first = replan(field)
    assert first is not None
    before = first.curtailments[0].curtailment
    field.clock.advance(900 + 300)  # five minutes into it
    field.all_hash(but=field.miners[:6])
    assert replan(field) is None
    field.prices([900, 900, 900, 30], start=NOON + QUARTER * 2)  # the spike lasts longer than was known
    later = replan(field)
    assert later is not None
    (after,) = later.curtailments
    assert (after.curtailment.curtailment_id, after.curtailment.miner_ids) == (before.curtailment_id, before.miner_ids)
    assert after.curtailment.interval == Interval(before.interval.start, NOON + QUARTER * 5)
    assert after.signal_at == first.curtailments[0].signal_at
    field.prices([30, 30, 30], start=NOON + QUARTER * 2)  # and now it is over early
    field.clock.advance(60 * 15)
    field.all_hash(but=field.miners[:6])
    sooner = replan(field)
    assert sooner is not None
    release = sooner.curtailments[0].curtailment.interval.end
    assert release == field.clock.now() + timedelta(seconds=SETTINGS.lead_s)


def test_the_longest_off_time_ends_a_curtailment_though_the_price_stays_high(field: Field) -> None:
    field.prices([900] * 12)
    plan = replan(field, max_off_s=3600, min_run_s=900)
    assert plan is not None
    for item in plan.curtailments:
        assert item.curtailment.interval.duration <= timedelta(hours=1)
    for name in field.miners[:6]:
        windows = [i.curtailment.interval for i in plan.curtailments if name in i.curtailment.miner_ids]
        for one, other in pairwise(windows):
            assert other.start - one.end >= timedelta(seconds=900)


def test_a_must_shed_window_takes_the_least_efficient_first_and_only_as_many_as_needed(field: Field) -> None:
    field.prices([30] * 8)
    with field.database.unit_of_work(field.principal) as uow:
        service.add_signal(
            uow, SITE, SignalKind.MUST_SHED, Interval(NOON + QUARTER * 2, NOON + QUARTER * 3), Watts(17500.0)
        )
    plan = replan(field)
    assert plan is not None
    (item,) = plan.curtailments
    assert item.curtailment.cause is CurtailmentCause.MUST_SHED
    assert item.curtailment.interval == Interval(NOON + QUARTER * 2, NOON + QUARTER * 3)
    assert len(item.curtailment.miner_ids) == 2  # 24,200 W - 2 x 3,500 W = 17,200 W
    assert plan.slack_mwh == 0
    assert replan(field) is None


def test_a_cap_that_cannot_be_kept_is_planned_as_far_as_it_can_and_says_so(field: Field) -> None:
    field.prices([30] * 4)
    with field.database.unit_of_work(field.principal) as uow:
        service.add_signal(uow, SITE, SignalKind.MANUAL, Interval(NOON + QUARTER, NOON + QUARTER * 2), Watts(0.0))
    plan = replan(field)
    assert plan is not None
    assert set(plan.curtailments[0].curtailment.miner_ids) == set(field.miners[:6])
    assert plan.slack_mwh == pytest.approx(3200 / 1e6 / 4)


def test_liars_and_silent_miners_are_not_planned_for(field: Field) -> None:
    field.prices([30, 900, 30])
    field.report(notices=(field.notice(NoticeCode.LIAR_NAMED, field.miners[0]),))
    plan = replan(field)
    assert plan is not None
    assert field.miners[0] not in plan.curtailments[0].curtailment.miner_ids
    assert plan.skipped == {"liar": 1, "uncontrollable": 1}
    field.clock.advance(660)
    assert replan(field) is None  # nothing was heard of the site for eleven minutes: it keeps its plan
    field.report(readings=(Reading(field.miners[1], field.clock.now(), MinerState.HASHING),))
    heard = replan(field)
    assert heard is not None
    assert heard.skipped == {"liar": 1, "not_seen": 5}
    assert heard.curtailments[0].curtailment.miner_ids == (field.miners[1],)


def test_stale_prices_invent_nothing_and_drop_nothing(field: Field) -> None:
    feed = {"market_url": "http://127.0.0.1:1/prices", "market_interval_s": 60}
    field.prices([30, 30, 900, 30, 30, 30, 30, 900])
    plan = replan(field, **feed)
    assert plan is not None
    assert len(plan.curtailments) == 2
    field.clock.advance(600)
    field.all_hash()
    assert replan(field, **feed) is None  # prices are now ten minutes old, twice as old as trusted
    with field.database.unit_of_work(field.principal) as uow:
        service.add_signal(
            uow, SITE, SignalKind.MUST_SHED, Interval(NOON + QUARTER * 5, NOON + QUARTER * 6), Watts(20000.0)
        )
    added = replan(field, **feed)
    assert added is not None
    assert "600 s old" in added.reason
    assert {item.curtailment.curtailment_id for item in added.curtailments} > {
        item.curtailment.curtailment_id for item in plan.curtailments
    }
    causes = sorted(item.curtailment.cause.value for item in added.curtailments)
    assert causes == ["must_shed", "price", "price"]


def test_a_curtailment_that_never_began_is_dropped_when_the_price_falls(field: Field) -> None:
    field.prices([30, 30, 900, 30])
    assert replan(field) is not None
    field.prices([30, 30, 30, 30])
    plan = replan(field)
    assert plan is not None
    assert plan.curtailments == ()
    with field.database.unit_of_work(field.principal) as uow:
        assert queries.signals(uow, SITE) == ()


def test_of_two_replicas_that_plan_at_once_one_wins_and_the_other_reads_again(field: Field) -> None:
    field.prices([30, 30, 900, 30])
    rules = policy(SETTINGS)
    other = Database(field.database.url, field.clock)
    with field.database.unit_of_work(field.principal) as uow:
        seen = service.gather(uow, SITE, hosting.site_miners(uow, SITE), rules)
    with other.unit_of_work(field.principal) as uow:
        seen_too = service.gather(uow, SITE, hosting.site_miners(uow, SITE), rules)
    plan, plan_too = service.propose(seen), service.propose(seen_too)
    outcomes: list[str] = []

    def write_second() -> None:
        try:
            with other.unit_of_work(field.principal) as uow:
                service.activate(uow, seen_too, plan_too)
            outcomes.append("won")
        except Conflict:
            outcomes.append("lost")

    with field.database.unit_of_work(field.principal) as uow:
        assert service.activate(uow, seen, plan) is not None
        thread = threading.Thread(target=write_second)
        thread.start()  # blocks on our uncommitted row
    thread.join(10)
    assert outcomes == ["lost"]
    assert activated(field) == [1]
    assert replan_site(other, field.principal, SITE, rules) is None  # having read again, it agrees
    other.close()


def test_a_replica_behind_by_a_revision_writes_nothing(field: Field) -> None:
    field.prices([30, 30, 900, 30])
    rules = policy(SETTINGS)
    assert replan(field) is not None
    with field.database.unit_of_work(field.principal) as uow:
        seen = service.gather(uow, SITE, hosting.site_miners(uow, SITE), rules)
    field.prices([30, 30, 900, 900])
    assert replan(field) is not None
    with (
        pytest.raises(Conflict, match="no longer the active plan"),
        field.database.unit_of_work(field.principal) as uow,
    ):
        service.activate(uow, seen, replace(service.propose(seen), curtailments=()))
    assert activated(field) == [1, 2]


def test_signals_refuse_what_cannot_be_meant(field: Field) -> None:
    with field.database.unit_of_work(field.principal) as uow:
        with pytest.raises(BadInput, match="ended"):
            service.add_signal(uow, SITE, SignalKind.MUST_SHED, Interval(NOON - QUARTER, NOON), Watts(0.0))
        for cap in (-1.0, float("nan"), float("inf"), 1e308):
            with pytest.raises(BadInput, match="is not a power"):
                service.add_signal(uow, SITE, SignalKind.MUST_SHED, Interval(NOON, NOON + QUARTER), Watts(cap))
        ancient = datetime.fromisoformat("0001-01-01T00:00:00+14:00")
        with pytest.raises(BadInput, match="out of range"):
            service.add_signal(uow, SITE, SignalKind.MUST_SHED, Interval(ancient, NOON + QUARTER), Watts(0.0))
        with pytest.raises(NotFound, match="no site nowhere"):
            service.add_signal(uow, "nowhere", SignalKind.MANUAL, Interval(NOON, NOON + QUARTER), Watts(0.0))
        with pytest.raises(NotFound):
            service.withdraw_signal(uow, SITE, "nobody")


def test_an_event_about_an_earlier_plan_has_nothing_left_to_do(field: Field) -> None:
    """A site without an agent piles them up: only the plan in force is worth trying again for."""
    replan(field)
    field.prices([30, 30, 900, 900, 30, 30])
    plan = replan(field)
    assert plan is not None
    assert plan.revision == 2
    context = HandlerContext(SETTINGS, field.clock, PrivateKey.generate())
    with field.database.unit_of_work(field.principal) as uow:
        dispatch_active_plan(context, uow, PlanActivated(SITE, 1, "earlier"))
        with pytest.raises(Refused, match="agent"):
            dispatch_active_plan(context, uow, PlanActivated(SITE, 2, plan.plan_id))
