"""Every table keeps tenants apart, whatever table is added later."""

import importlib
import pkgutil
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Boolean, Delete, Table, Update, create_engine, delete, func, insert, select, text, update
from sqlalchemy.engine import Connection

import cloud.models
from cloud.core.access import Principal
from cloud.core.errors import Conflict, Permanent
from cloud.infra.db import Database
from cloud.infra.postgres import EmbeddedPostgres
from cloud.models.base import METADATA
from cloud.models.tenancy import OWNER_ROLE
from tests.postgres import make_tenant

for _module in pkgutil.iter_modules(cloud.models.__path__):
    importlib.import_module(f"cloud.models.{_module.name}")
TABLES = METADATA.sorted_tables


def _value(column: Any) -> Any:
    if isinstance(column.type, Boolean):
        return True
    samples: dict[type, Any] = {
        str: "x",
        int: 1,
        float: 1.0,
        Decimal: Decimal(1),
        bytes: b"x",
        uuid.UUID: uuid.uuid4(),
        datetime: datetime(2026, 1, 1, tzinfo=UTC),
        dict: {},
        list: [],
    }
    try:
        kind = column.type.python_type
    except NotImplementedError:
        return {}
    return samples.get(kind, {})


def _row(table: Table, tenant: uuid.UUID) -> dict[str, Any]:
    row = {
        column.name: _value(column) for column in table.columns if not column.nullable and column.server_default is None
    }
    return {**row, "tenant_id": tenant}


def _fill(database: Database, principal: Principal) -> None:
    """Put a row into every table; parents first, foreign keys taken from their parent's row."""
    rows: dict[str, dict[str, Any]] = {}
    with database.unit_of_work(principal) as uow:
        for table in TABLES:
            row = _row(table, principal.tenant_id)
            for key in table.foreign_keys:
                row[key.parent.name] = rows[key.column.table.name][key.column.name]
            rows[table.name] = row
            if table.name != "tenants":
                uow.session.execute(insert(table).values(**row))
            else:
                rows[table.name] = {"tenant_id": principal.tenant_id}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_table_starts_with_tenant_and_forces_row_security(
    table: Table, database: Database, principal: Principal
) -> None:
    assert next(iter(table.primary_key.columns)).name == "tenant_id"
    query = text(
        "SELECT relrowsecurity, relforcerowsecurity, relowner::regrole::text FROM pg_class WHERE relname = :name"
    )
    with database.unit_of_work(principal) as uow:
        enabled, forced, owner = uow.session.execute(query, {"name": table.name}).one()
    assert (enabled, forced, owner) == (True, True, OWNER_ROLE)


def test_two_tenants_see_and_touch_only_their_own(database: Database) -> None:
    first, second = make_tenant(database, "first"), make_tenant(database, "second")
    _fill(database, first)
    for table in TABLES:
        with database.unit_of_work(first) as uow:
            assert uow.session.execute(select(table)).all(), table.name
        with database.unit_of_work(second) as uow:
            rows = list(uow.session.execute(select(table)).mappings())
            assert all(row["tenant_id"] == second.tenant_id for row in rows), table.name
            foreign = table.c.tenant_id == first.tenant_id
            for change in (
                update(table).where(foreign).values(tenant_id=second.tenant_id),
                delete(table).where(foreign),
            ):
                if _is_withheld(uow.session.connection(), table, change):
                    continue  # an append-only table: the application may change nobody's rows
                assert uow.session.execute(change).rowcount == 0
    for table in TABLES:
        with database.unit_of_work(first) as uow:
            assert uow.session.execute(select(table)).all(), table.name


def _is_withheld(connection: Connection, table: Table, change: Update | Delete) -> bool:
    """Return whether the application was not even granted to update or delete in ``table``."""
    right = "UPDATE" if isinstance(change, Update) else "DELETE"
    return not connection.execute(select(func.has_table_privilege(table.name, right))).scalar_one()


def test_only_the_journals_tables_are_withheld_from_the_application(database: Database) -> None:
    with database.unit_of_work(make_tenant(database)) as uow:
        connection = uow.session.connection()
        withheld = {
            (table.name, change.__visit_name__)
            for table in TABLES
            for change in (update(table), delete(table))
            if _is_withheld(connection, table, change)
        }
    journal = {("site_journal", "update"), ("site_journal", "delete"), ("site_journal_faults", "delete")}
    assert {entry for entry in withheld if entry[0].startswith("site_journal")} == journal


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_row_of_another_tenant_cannot_be_written(table: Table, database: Database) -> None:
    first, second = make_tenant(database, "first"), make_tenant(database, "second")
    from sqlalchemy.exc import ProgrammingError

    with pytest.raises((ProgrammingError, Conflict), match="row-level security"), database.unit_of_work(second) as uow:
        uow.session.execute(insert(table).values(**_row(table, first.tenant_id)))


def test_without_a_tenant_every_table_is_empty(
    database: Database, cluster: EmbeddedPostgres, database_name: str
) -> None:
    _fill(database, make_tenant(database))
    for role in ("ballast_app", OWNER_ROLE):
        engine = create_engine(cluster.url(role, database_name))
        with engine.connect() as connection:
            for table in TABLES:
                if role == OWNER_ROLE and table.name == "tenants":
                    continue
                assert not connection.execute(select(table)).all(), (role, table.name)
        engine.dispose()


def test_the_models_are_what_the_migrations_make(cluster: EmbeddedPostgres, database_name: str) -> None:
    engine = create_engine(cluster.url(OWNER_ROLE, database_name))
    with engine.connect() as connection:
        assert _differences(connection) == []
    engine.dispose()


def _differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_server_default": False})
    return list(compare_metadata(context, METADATA))


def test_application_role_is_accepted_and_powerful_ones_are_not(
    database: Database, cluster: EmbeddedPostgres, database_name: str
) -> None:
    database.check()
    for role in (OWNER_ROLE, "postgres"):
        powerful = Database(cluster.url(role, database_name))
        with pytest.raises(Permanent, match="can see every tenant"):
            powerful.check()
        powerful.close()


def test_tenants_are_listed_by_id_only(database: Database) -> None:
    first, second = make_tenant(database), make_tenant(database)
    assert set(database.tenant_ids()) == {first.tenant_id, second.tenant_id}
