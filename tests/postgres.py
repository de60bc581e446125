"""A real PostgreSQL for tests: one cluster a session, one template database, a copy of it per test.

Import the fixtures into a ``conftest.py``: ``from tests.postgres import cluster, database, principal, template``.
"""

import itertools
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert

import cloud.models.identity as identity_tables
from cloud.core.access import Principal, system_principal
from cloud.core.errors import Refused
from cloud.infra.db import Database
from cloud.infra.migrate import migrate
from cloud.infra.postgres import EmbeddedPostgres
from cloud.models.tenancy import OWNER_ROLE

TEMPLATE = "ballast_template"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[EmbeddedPostgres]:
    """Start a cluster of our own in a temporary folder."""
    home = Path(tempfile.mkdtemp(prefix="ballast-pg-", dir="/tmp"))
    home.chmod(0o711)
    server = EmbeddedPostgres(home / "pg", durable=False)
    try:
        server.start()
    except Refused as error:
        shutil.rmtree(home, ignore_errors=True)
        if os.environ.get("CI") or error.code != "no_postgres":
            raise
        pytest.skip(str(error))
    yield server
    server.stop()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def template(cluster: EmbeddedPostgres) -> str:
    """Migrate a database once, as its owner."""
    cluster.create_database(TEMPLATE)
    migrate(cluster.url(OWNER_ROLE, TEMPLATE))
    return TEMPLATE


@pytest.fixture
def database_name(cluster: EmbeddedPostgres, template: str) -> Iterator[str]:
    """Copy the template for one test."""
    name = f"test_{next(_numbers)}"
    cluster.create_database(name, template)
    yield name
    cluster.drop_database(name)


@pytest.fixture
def database(cluster: EmbeddedPostgres, database_name: str) -> Iterator[Database]:
    """Open the test's database as the application's non-owner role."""
    made = Database(cluster.url(database=database_name))
    yield made
    made.close()


def make_tenant(database: Database, name: str = "test") -> Principal:
    """Create a tenant and return the system's principal for it."""
    principal = system_principal(uuid.uuid4(), "test")
    with database.unit_of_work(principal) as uow:
        row = {"tenant_id": principal.tenant_id, "name": name, "created_at": uow.now()}
        uow.session.execute(insert(identity_tables.TENANTS).values(**row))
    return principal


@pytest.fixture
def principal(database: Database) -> Principal:
    """Return the system's principal of a fresh tenant."""
    return make_tenant(database)
