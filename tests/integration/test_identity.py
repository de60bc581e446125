"""People log in; sessions end when they should."""

from datetime import timedelta

import pytest

from cloud.core.access import Principal, Role, system_principal
from cloud.core.errors import NotFound, Refused
from cloud.identity import service
from cloud.identity.model import Account, FirstOperator
from cloud.infra.db import Database
from sitelink.clock import ManualClock
from tests.telemetry import START

NEW = "correct horse battery"


@pytest.fixture
def clock(database: Database) -> ManualClock:
    database.clock = ManualClock(START)
    return database.clock


@pytest.fixture
def tenant(database: Database, clock: ManualClock) -> Principal:
    return system_principal(service.open_tenant(database, "default"))


@pytest.fixture
def operator(database: Database, tenant: Principal) -> FirstOperator:
    with database.unit_of_work(tenant) as uow:
        made = service.first_operator(uow, "Op@Example.org ")
    assert made is not None
    return made


def login(database: Database, tenant: Principal, password: str) -> Account | None:
    with database.unit_of_work(tenant) as uow:
        return service.authenticate(uow, "op@example.org", password)


def open_session(database: Database, tenant: Principal, account: Account) -> str:
    with database.unit_of_work(tenant) as uow:
        return service.open_session(uow, account)


def test_the_first_start_makes_one_operator_once(
    database: Database, operator: FirstOperator, tenant: Principal
) -> None:
    assert operator.email == "op@example.org"
    assert service.open_tenant(database, "another") == tenant.tenant_id
    with database.unit_of_work(tenant) as uow:
        assert service.first_operator(uow, "other@example.org") is None
        assert not service.is_taken_over(uow)
    account = login(database, tenant, operator.one_time_password)
    assert account is not None and account.must_change and account.role is Role.OWNER
    assert (
        service.find_tenant(database, "OP@example.org") == service.find_tenant(database, "nobody@x") == tenant.tenant_id
    )


def test_a_session_speaks_for_its_account(database: Database, operator: FirstOperator, tenant: Principal) -> None:
    account = login(database, tenant, operator.one_time_password)
    assert account is not None
    token = open_session(database, tenant, account)
    view = service.session_principal(database, token)
    assert view is not None and view.principal.tenant_id == tenant.tenant_id
    assert view.must_change and view.email == operator.email
    for wrong in ("", "x", token[:-2] + "AA", token + "A"):
        assert service.session_principal(database, wrong) is None
    with database.unit_of_work(tenant) as uow:
        service.close_session(uow, token)
    assert service.session_principal(database, token) is None


def test_sessions_end_when_idle_and_when_old(
    database: Database, operator: FirstOperator, tenant: Principal, clock: ManualClock
) -> None:
    account = login(database, tenant, operator.one_time_password)
    assert account is not None
    idle, used = open_session(database, tenant, account), open_session(database, tenant, account)
    for _ in range(15):
        clock.advance(timedelta(hours=11).total_seconds())
        view = service.session_principal(database, used)
    assert view is not None
    assert service.session_principal(database, idle) is None
    clock.advance(timedelta(hours=11).total_seconds())
    assert service.session_principal(database, used) is None


def test_a_changed_password_ends_every_session(database: Database, operator: FirstOperator, tenant: Principal) -> None:
    account = login(database, tenant, operator.one_time_password)
    assert account is not None
    token = open_session(database, tenant, account)
    old = operator.one_time_password
    for wrong, new, code in (
        ("no", NEW, "wrong_password"),
        (old, old, "same_password"),
        (old, "short", "weak_password"),
    ):
        with pytest.raises(Refused) as caught, database.unit_of_work(tenant) as uow:
            service.change_password(uow, account.account_id, wrong, new)
        assert caught.value.code == code
    with database.unit_of_work(tenant) as uow:
        service.change_password(uow, account.account_id, old, NEW)
    assert service.session_principal(database, token) is None
    assert login(database, tenant, old) is None
    changed = login(database, tenant, NEW)
    assert changed is not None and not changed.must_change
    with database.unit_of_work(tenant) as uow:
        assert service.is_taken_over(uow)


def test_guessing_shuts_the_account_for_a_while(
    database: Database, operator: FirstOperator, tenant: Principal, clock: ManualClock
) -> None:
    for _ in range(7):
        assert login(database, tenant, "guess") is None
        clock.advance(0.1)
    assert login(database, tenant, operator.one_time_password) is None
    clock.advance(10)
    assert login(database, tenant, operator.one_time_password) is not None
    with database.unit_of_work(tenant) as uow:
        assert service.authenticate(uow, "nobody@example.org", "guess") is None


def test_a_reset_gives_a_new_one_time_password(database: Database, operator: FirstOperator, tenant: Principal) -> None:
    with database.unit_of_work(tenant) as uow:
        password = service.reset_password(uow, operator.email)
    assert login(database, tenant, operator.one_time_password) is None
    account = login(database, tenant, password)
    assert account is not None and account.must_change
    with pytest.raises(NotFound), database.unit_of_work(tenant) as uow:
        service.reset_password(uow, "nobody@example.org")


def test_a_reset_makes_the_operator_whose_password_was_never_shown(database: Database, tenant: Principal) -> None:
    with database.unit_of_work(tenant) as uow:
        password = service.reset_password(uow, "op@example.org")
    account = login(database, tenant, password)
    assert account is not None and account.must_change and account.role is Role.OWNER
