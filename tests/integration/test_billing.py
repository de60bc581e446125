"""Energy invoices in a real database: numbering, immutability, recomputation, the verifier as a customer runs it."""

import json
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import create_engine, delete, event, insert, text, update
from sqlalchemy.orm import Session

from cloud.billing import audit, queries, service, store
from cloud.billing.service import billing_policy
from cloud.core.access import Principal
from cloud.core.errors import BadInput, CloudError, Conflict, NotFound, Refused
from cloud.hosting import service as hosting
from cloud.infra.db import Database, UnitOfWork
from cloud.infra.postgres import EmbeddedPostgres
from cloud.models.billing import CRM_INVOICES, INVOICE_EVIDENCE, INVOICE_LINES
from cloud.models.tenancy import OWNER_ROLE
from sitelink.types import Interval, MeterSample
from sitelink.units import Watts
from tests.integration.brain import NOON, QUARTER, SETTINGS, SITE, Field, open_field

pytestmark = pytest.mark.postgres
RULES = billing_policy(SETTINGS)
HOUR = Interval(NOON, NOON + QUARTER * 4)
ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
def field(database: Database, principal: Principal, tmp_path: Path) -> Field:
    made = open_field(database, principal, tmp_path)
    with database.unit_of_work(principal) as uow:
        service.set_contract(uow, SITE, Decimal("0.0725"), "America/Chicago", ALWAYS, Decimal(40))
    made.clock.wall = HOUR.end + timedelta(hours=5)
    return made


def issue(field: Field, period: Interval = HOUR) -> UUID:
    with field.database.unit_of_work(field.principal) as uow:
        return service.issue_energy_invoice(uow, SITE, period, RULES)


def bundle(field: Field, invoice_id: UUID) -> bytes:
    with field.database.unit_of_work(field.principal) as uow:
        return service.export(uow, invoice_id)


def run_verifier(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-c", _ISOLATED, str(path)], capture_output=True, text=True, timeout=30
    )


_ISOLATED = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); from verifier.__main__ import main; sys.exit(main(sys.argv[1:]))"


def test_an_hour_at_constant_power_costs_what_it_costs_and_anybody_can_recompute_it(
    field: Field, tmp_path: Path
) -> None:
    field.meter(Interval(HOUR.start - QUARTER, HOUR.end + QUARTER), 24_000.0)
    invoice_id = issue(field)
    with field.database.unit_of_work(field.principal) as uow:
        view = queries.invoice(uow, invoice_id)
        check = audit.recompute(uow, invoice_id, RULES)
    assert view.invoice.number == 1
    assert [(str(line.quantity), str(line.amount.amount)) for line in view.lines] == [("24.000000", "1.74")]
    assert view.evidence_count == 4
    assert not any(row.estimated for row in view.evidence)
    assert (check.agrees, check.late) == (True, ())
    path = tmp_path / "bundle.json"
    path.write_bytes(bundle(field, invoice_id))
    good = run_verifier(path)
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.endswith("recomputed to the cent\n")
    document = json.loads(path.read_bytes())
    document["invoice"]["lines"][0]["evidence"][2]["kwh"] = "5.900000"
    path.write_text(json.dumps(document))
    bad = run_verifier(path)
    assert bad.returncode == 1
    assert "SHA-256 differs" in bad.stdout
    assert "quantity stated 24.000000 kWh, recomputed 23.900000 kWh" in bad.stdout
    path.write_text("{")
    assert run_verifier(path).returncode == 2


def test_the_meters_own_counter_wins_and_bridges_a_silence(field: Field) -> None:
    moments = [*range(-60, 900, 10), *range(2700, 3700, 10)]
    field.report(
        meters=tuple(
            MeterSample("site", HOUR.start + timedelta(seconds=at), Watts(24_000.0), 1e6 + (at + 60) * 24_000.0 / 3600)
            for at in moments
        )
    )
    with field.database.unit_of_work(field.principal) as uow:
        view = queries.invoice(uow, service.issue_energy_invoice(uow, SITE, HOUR, RULES))
    assert view.lines[0].quantity == Decimal("24.000000")
    assert [(row.method.value, row.estimated) for row in view.evidence] == [
        ("register", True),
        ("register", True),
        ("register", True),
        ("register", False),
    ]
    assert "3 of 4 intervals estimated" in view.lines[0].description


def test_a_silence_without_a_counter_is_estimated_and_flagged_never_zero(field: Field) -> None:
    field.meter(Interval(HOUR.start - QUARTER, HOUR.start + QUARTER), 20_000.0)
    field.meter(Interval(HOUR.end - QUARTER, HOUR.end + QUARTER), 28_000.0)
    with field.database.unit_of_work(field.principal) as uow:
        view = queries.invoice(uow, service.issue_energy_invoice(uow, SITE, HOUR, RULES))
    assert [row.estimated for row in view.evidence] == [True, True, True, False]
    assert view.lines[0].quantity == pytest.approx(Decimal(24), abs=Decimal("0.1"))
    field.meter(Interval(HOUR.start + QUARTER, HOUR.end - QUARTER), 20_000.0)  # the backlog arrives after the bill
    with field.database.unit_of_work(field.principal) as uow:
        check = audit.recompute(uow, view.invoice.invoice_id, RULES)
    assert check.agrees
    assert check.stated == check.recomputed
    assert "a note over -0.1" in check.late[0]


def test_a_final_invoice_refuses_every_change(field: Field) -> None:
    field.meter(Interval(HOUR.start - QUARTER, HOUR.end + QUARTER), 24_000.0)
    invoice_id = issue(field)
    line = {
        "tenant_id": field.principal.tenant_id, "invoice_id": invoice_id, "place": 2, "code": "x", "description": "x",
        "quantity": 1, "unit": "x", "rate": 1, "amount": 1,
    }  # fmt: skip
    attempts = (
        update(CRM_INVOICES).values(total=0),
        update(CRM_INVOICES).values(finalized_at=None),
        delete(CRM_INVOICES),
        insert(INVOICE_LINES).values(**line),
        update(INVOICE_LINES).values(amount=0),
        delete(INVOICE_LINES),
        update(INVOICE_EVIDENCE).values(kwh=0),
        delete(INVOICE_EVIDENCE),
    )
    before = bundle(field, invoice_id)
    for statement in attempts:
        with pytest.raises(Conflict, match="invoice 1 is final"), field.database.unit_of_work(field.principal) as uow:
            uow.session.execute(statement)
    assert bundle(field, invoice_id) == before


def test_a_period_is_billed_once_and_numbers_have_no_gaps_under_concurrency(field: Field) -> None:
    field.meter(Interval(HOUR.start - QUARTER, HOUR.end + QUARTER), 24_000.0)
    periods = [Interval(HOUR.start + QUARTER * place, HOUR.start + QUARTER * (place + 1)) for place in range(4)] * 2
    refused: list[str] = []

    def bill(period: Interval) -> None:
        try:
            issue(field, period)
        except Refused as error:
            refused.append(error.code)
        except CloudError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=bill, args=(period,)) for period in periods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with field.database.unit_of_work(field.principal) as uow:
        numbers = sorted(item.number for item in queries.invoices(uow))
        total = sum(item.total.amount for item in queries.invoices(uow))
    assert refused == ["already_billed"] * 4
    assert numbers == [1, 2, 3, 4]
    assert total == Decimal("1.76")  # 4 x 0.435, each rounded once: 0.44


def test_each_kilowatt_hour_is_rated_by_one_contract_version(field: Field) -> None:
    field.meter(Interval(HOUR.start - QUARTER, HOUR.end + QUARTER), 24_000.0)
    with field.database.unit_of_work(field.principal) as uow:
        service.set_contract(uow, SITE, Decimal("0.10"), "America/Chicago", HOUR.start + QUARTER)
        view = queries.invoice(uow, service.issue_energy_invoice(uow, SITE, HOUR, RULES))
    assert [(str(line.quantity), str(line.rate), str(line.amount.amount)) for line in view.lines] == [
        ("6.000000", "0.0725", "0.44"),
        ("18.000000", "0.10", "1.80"),
    ]
    assert view.invoice.total.amount == Decimal("2.24")
    with field.database.unit_of_work(field.principal) as uow:
        assert audit.recompute(uow, view.invoice.invoice_id, RULES).agrees
    with pytest.raises(Refused, match="is billed until"), field.database.unit_of_work(field.principal) as uow:
        service.set_contract(uow, SITE, Decimal("0.01"), "America/Chicago", HOUR.start + QUARTER * 2)


def test_curtailment_credit_stands_apart(field: Field) -> None:
    field.meter(Interval(HOUR.start - QUARTER, HOUR.end + QUARTER), 24_000.0)
    with field.database.unit_of_work(field.principal) as uow:
        uow.session.execute(
            text(
                "INSERT INTO curtailment_verifications VALUES (:tenant, :site, 'c1', 1, 'verified', '', 0.0125,"
                " :start, :end, '', '{}', :end)"
            ),
            {"tenant": uow.tenant_id, "site": SITE, "start": NOON, "end": NOON + QUARTER},
        )
        view = queries.invoice(uow, service.issue_energy_invoice(uow, SITE, HOUR, RULES))
    (credit,) = view.credits
    assert credit.amount is not None
    assert str(credit.amount.amount) == "0.50"
    assert view.invoice.total.amount == Decimal("1.74")


def test_what_cannot_be_billed_is_refused_with_the_reason(field: Field) -> None:
    with pytest.raises(Refused, match="has no reading from"):
        issue(field)
    with pytest.raises(BadInput, match="after now"):
        issue(field, Interval(NOON, NOON + timedelta(days=30)))
    with field.database.unit_of_work(field.principal) as uow:
        with pytest.raises(BadInput, match="not a positive price"):
            service.set_contract(uow, SITE, Decimal(-1), "UTC", NOON)
        with pytest.raises(BadInput, match="time zone 'Mars' is unknown"):
            service.set_contract(uow, SITE, Decimal(1), "Mars", NOON)
        with pytest.raises(BadInput, match="out of range"):
            service.set_contract(uow, SITE, Decimal(1), "UTC", datetime.fromisoformat("0001-01-01T00:00:00+14:00"))
        with pytest.raises(NotFound, match="no site nowhere"):
            service.set_contract(uow, "nowhere", Decimal(1), "UTC", NOON)
        with pytest.raises(NotFound, match="no energy contract"):
            service.issue_energy_invoice(uow, "nowhere", HOUR, RULES)
    with pytest.raises(Conflict, match="already has a contract"), field.database.unit_of_work(field.principal) as uow:
        service.set_contract(uow, SITE, Decimal("0.08"), "UTC", ALWAYS)


def test_whatever_is_tampered_with_is_named(field: Field, cluster: EmbeddedPostgres, database_name: str) -> None:
    """With the triggers off, nothing but the check stands between a changed row and the customer."""
    field.meter(Interval(HOUR.start - QUARTER, HOUR.end + QUARTER), 24_000.0)
    invoice_id = issue(field)
    changes = {
        "number": "UPDATE crm_invoices SET number = 77",
        "total": "UPDATE crm_invoices SET total = 999",
        "site_id": "UPDATE crm_invoices SET site_id = 'elsewhere'",
        "currency": "UPDATE crm_invoices SET currency = 'EUR'",
        "period_start": "UPDATE crm_invoices SET period_start = period_start - interval '1 hour'",
        "period_end": "UPDATE crm_invoices SET period_end = period_end + interval '1 hour'",
        "issued_at": "UPDATE crm_invoices SET finalized_at = finalized_at + interval '1 second'",
        "SHA-256": "UPDATE crm_invoices SET document_sha256 = 'x'",
        "document is not": "UPDATE crm_invoices SET document = document || ' '::bytea",
        "code": "UPDATE invoice_lines SET code = 'x'",
        "description": "UPDATE invoice_lines SET description = 'x'",
        "quantity_kwh": "UPDATE invoice_lines SET quantity = 1",
        "unit": "UPDATE invoice_lines SET unit = 'MWh'",
        "rate": "UPDATE invoice_lines SET rate = 5",
        "amount": "UPDATE invoice_lines SET amount = 0",
        "line 2: it is stored": "UPDATE invoice_lines SET place = 2",
        "line 1: it is missing": "DELETE FROM invoice_lines",
        "evidence is not": "UPDATE invoice_evidence SET kwh = 0 WHERE place = 2",
        "stored evidence": "DELETE FROM invoice_evidence WHERE place = 3",
    }
    owner = create_engine(cluster.url(OWNER_ROLE, database_name))
    for named, statement in changes.items():
        with owner.connect() as connection, connection.begin() as undone:
            for table in ("crm_invoices", "invoice_lines", "invoice_evidence"):
                connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
            connection.execute(
                text("SELECT set_config('app.tenant_id', :t, true)"), {"t": str(field.principal.tenant_id)}
            )
            assert connection.execute(text(statement)).rowcount == 1
            check = audit.recompute(UnitOfWork(Session(connection), field.principal, field.clock), invoice_id)
            assert any(named in difference for difference in check.differences), (named, check.differences)
            undone.rollback()
    owner.dispose()
    with field.database.unit_of_work(field.principal) as uow:
        assert audit.recompute(uow, invoice_id).agrees


def test_a_meter_that_was_replaced_leaves_an_invoice_as_good_as_it_was(field: Field, tmp_path: Path) -> None:
    field.meter(Interval(HOUR.start - QUARTER, HOUR.end + QUARTER), 24_000.0)
    invoice_id = issue(field)
    meters = tmp_path / "meters.csv"
    meters.write_text("meter_id,kind,feeder_id,url\nnew,site,,modbus://127.0.0.1:1/1?register=0\n")
    with field.database.unit_of_work(field.principal) as uow:
        hosting.import_inventory(uow, SITE, tmp_path / "inventory.csv", meters)
        check = audit.recompute(uow, invoice_id, RULES)
        assert (check.agrees, check.late) == (True, ())
        uow.session.execute(text("DELETE FROM meter_readings"))
        check = audit.recompute(uow, invoice_id, RULES)
    assert check.agrees
    assert "not compared with what the meters say by now" in check.late[0]


def test_the_number_is_taken_when_all_else_is_done(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds the number keeps every other invoice of the tenant waiting."""
    field.meter(Interval(HOUR.start - QUARTER, HOUR.end + QUARTER), 24_000.0)
    done: list[str] = []
    for name in ("meter_readings", "take_number", "put_invoice"):
        real = getattr(store, name)
        monkeypatch.setattr(store, name, lambda *given, real=real, name=name: (done.append(name), real(*given))[1])
    issue(field)
    assert done == ["meter_readings", "take_number", "put_invoice"]


def test_lists_and_look_ups_leave_the_documents_where_they_are(field: Field) -> None:
    field.meter(Interval(HOUR.start - QUARTER, HOUR.end + QUARTER), 24_000.0)
    invoice_id = issue(field)
    seen: list[str] = []
    with field.database.unit_of_work(field.principal) as uow:
        event.listen(uow.session.connection(), "before_cursor_execute", lambda *given: seen.append(given[2]))
        assert len(queries.invoices(uow, SITE)) == 1
        assert queries.invoice_id(uow, 1) == invoice_id
        service.set_contract(uow, SITE, Decimal("0.08"), "UTC", HOUR.end)
        with pytest.raises(Refused, match="already bills"):
            service.issue_energy_invoice(uow, SITE, HOUR, RULES)
        with pytest.raises(NotFound, match="no invoice 2;"):
            queries.invoice_id(uow, 2)
    assert seen
    assert not [statement for statement in seen if re.search(r"crm_invoices\.document\b", statement)]


def test_a_month_begins_where_the_contract_of_that_time_says(field: Field) -> None:
    with field.database.unit_of_work(field.principal) as uow:
        service.set_contract(uow, SITE, Decimal("0.08"), "UTC", datetime(2026, 5, 1, tzinfo=UTC))
        assert service.contract_month(uow, SITE, "2026-04").start == datetime(2026, 4, 1, 5, tzinfo=UTC)
        assert service.contract_month(uow, SITE, "2026-05").start == datetime(2026, 5, 1, tzinfo=UTC)
        with pytest.raises(NotFound, match="no energy contract"):
            service.contract_month(uow, "nowhere", "2026-05")
