"""The console over a real database: one snapshot a screen, real accounts, figures as the other packages have them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from cloud.api.accounts import DatabaseAccounts
from cloud.api.live import LiveHub
from cloud.api.reads import DatabaseReads
from cloud.api.screens import Console
from cloud.api.views.wording import text_of
from cloud.billing import service as billing
from cloud.billing.service import billing_policy
from cloud.core.access import Principal, Role, system_principal
from cloud.core.errors import Forbidden, NotFound, Refused
from cloud.flows.curtailment import replan_site, verify_site
from cloud.identity import service as identity
from cloud.infra.db import Database
from cloud.planner.service import policy
from cloud.planner.verify_service import verify_policy
from sitelink.types import Interval, NoticeCode, Outcome
from sitelink.units import UsdPerPetahashDay
from tests.integration.brain import NOON, QUARTER, SETTINGS, SITE, Field, open_field

pytestmark = pytest.mark.postgres
FULL_W = 24_200.0


@pytest.fixture
def field(database: Database, principal: Principal, tmp_path: Path) -> Field:
    return open_field(database, principal, tmp_path)


@pytest.fixture
def console(field: Field) -> Console:
    reads = DatabaseReads(field.database, SETTINGS)
    return Console(reads, DatabaseAccounts(field.database), LiveHub(), field.clock, UsdPerPetahashDay(50))


def test_a_new_site_reads_whole(field: Field, console: Console):
    shown = console.site(field.principal, SITE, None)
    assert (shown.census.total, shown.census.running) == (7, 7)
    assert shown.as_of == field.clock.now()
    assert text_of(shown.verdict.headline) == "No agent has reported yet."
    assert not shown.tiles[0].figure.known
    fleet = console.fleet(field.principal)
    assert [str(line.miners) for line in fleet.sites] == ["7 of 7"]


def test_a_planned_spike_shows_on_site_and_plan_pages(field: Field, console: Console):
    field.meter(Interval(NOON - timedelta(minutes=10), NOON + timedelta(seconds=1)), FULL_W)
    field.prices([30, 900, 30, 30])
    plan = replan_site(field.database, field.principal, SITE, policy(SETTINGS))
    assert plan is not None
    shown = console.plan(field.principal, SITE, None)
    assert (shown.plan.revision, len(shown.stops), str(shown.stops[0].miners)) == (plan.revision, 1, "6")
    assert str(shown.tiles[0].figure) == "30.00 USD/MWh"
    assert "30.00 to 900.00" in text_of(shown.tiles[0].against)
    assert {value for value in shown.chart.price_usd_per_mwh if value is not None} == {30.0, 900.0}
    site = console.site(field.principal, SITE, None)
    assert str(site.tiles[0].figure) == "0.024 MW"
    assert site.tick()["power"] == FULL_W / 1e6
    field.clock.wall = plan.curtailments[0].curtailment.interval.start + timedelta(minutes=5)
    field.all_hash(but=field.miners[:6])
    assert console.plan(field.principal, SITE, None).stops[0].phase == "running"


def test_a_verified_curtailment_names_its_liar(field: Field, console: Console):
    field.prices([30, 900, 30, 30])
    plan = replan_site(field.database, field.principal, SITE, policy(SETTINGS))
    assert plan is not None
    order = plan.curtailments[0].curtailment
    window, liar = order.interval, order.miner_ids[0]
    field.clock.wall = window.end + timedelta(seconds=30)
    field.meter(Interval(window.start - timedelta(seconds=405), window.start), FULL_W)
    field.meter(Interval(window.start, window.end + timedelta(seconds=30)), 6_700.0)
    acks = [field.ack(order.curtailment_id, name, window.start + timedelta(seconds=20)) for name in order.miner_ids[1:]]
    acks.append(
        field.ack(order.curtailment_id, liar, window.start + timedelta(seconds=20), Outcome.UNVERIFIED, "still_hashing")
    )
    field.report(acks=tuple(acks), notices=(field.notice(NoticeCode.LIAR_NAMED, liar),))
    field.clock.advance(SETTINGS.verify_grace_s)
    assert verify_site(field.database, field.principal, SITE, verify_policy(SETTINGS)) == (order.curtailment_id,)
    (line,) = console.plan(field.principal, SITE, None).checks
    assert line.check.liars == (liar,)
    assert (line.check.complete, line.check.unverified) == (5, 1)
    assert (line.stops_by, line.energy_by) == ("5 by feeder meter", "energy by site meter")
    shown = console.miner(field.principal, SITE, liar, None)
    assert (shown.acks[0].reason, shown.miner.liar) == ("it went on hashing", True)
    assert [notice.code for notice in shown.notices] == [NoticeCode.LIAR_NAMED]


def test_a_miners_history_is_its_own(field: Field, console: Console):
    for _ in range(3):
        field.clock.advance(60)
        field.all_hash()
    shown = console.miner(field.principal, SITE, field.miners[0], "15m")
    assert [value for value in shown.chart.power_w if value is not None] == [3500.0] * 4
    with pytest.raises(NotFound):
        console.miner(field.principal, SITE, "02:ff:ff:ff:ff:ff", None)


def test_an_invoice_is_recomputed_while_it_is_looked_at(field: Field, console: Console):
    hour = Interval(NOON, NOON + QUARTER * 4)
    field.clock.wall = hour.end + timedelta(hours=5)
    field.meter(Interval(hour.start - QUARTER, hour.end + QUARTER), 24_000.0)
    with field.database.unit_of_work(field.principal) as uow:
        billing.set_contract(
            uow, SITE, Decimal("0.0725"), "America/Chicago", datetime(1970, 1, 1, tzinfo=UTC), Decimal(40)
        )
        invoice_id = str(billing.issue_energy_invoice(uow, SITE, hour, billing_policy(SETTINGS)))
    (summary,) = console.invoices(field.principal).invoices
    assert (summary.invoice_id, str(summary.total.amount)) == (invoice_id, "1.74")
    read = console.invoice(field.principal, invoice_id)
    assert (read.agrees, read.recomputed, read.evidence_count) == (True, summary.total, 4)
    assert (read.lines[0].quantity, read.lines[0].unit_price) == ("24 kWh", "0.0725 USD/kWh")
    for wrong in ("not-an-id", "00000000-0000-0000-0000-000000000000"):
        with pytest.raises(NotFound):
            console.invoice(field.principal, wrong)


def test_what_is_out_of_scope_stays_out(field: Field, console: Console):
    other = Principal(field.principal.tenant_id, "account:x", Role.HOST, frozenset({"elsewhere"}))
    assert console.fleet(other).sites == ()
    with pytest.raises(Forbidden):
        console.site(other, SITE, None)
    with pytest.raises(NotFound):
        console.site(field.principal, "nowhere", None)


def test_the_first_operator_signs_in_changes_the_password_and_goes(database: Database):
    principal = system_principal(identity.open_tenant(database, "default"))
    with database.unit_of_work(principal) as uow:
        operator = identity.first_operator(uow, "Operator@Example.com")
    assert operator is not None
    accounts = DatabaseAccounts(database)
    assert accounts.sign_in(operator.email, "not the password") is None
    assert accounts.sign_in("nobody@example.com", "not the password") is None
    first = accounts.sign_in(operator.email, operator.one_time_password)
    other = accounts.sign_in(operator.email, operator.one_time_password)
    assert first is not None and other is not None
    signed = accounts.session(first)
    assert signed is not None and signed.must_change_password
    assert accounts.change_password(first, "not the password", "a new long password") is None
    with pytest.raises(Refused):
        accounts.change_password(first, operator.one_time_password, "short")
    fresh = accounts.change_password(first, operator.one_time_password, "a new long password")
    assert fresh is not None
    assert (accounts.session(first), accounts.session(other)) == (None, None)
    signed = accounts.session(fresh)
    assert signed is not None and not signed.must_change_password
    accounts.sign_out(fresh)
    accounts.sign_out(fresh)
    assert accounts.session(fresh) is None
    assert accounts.session("garbage") is None
