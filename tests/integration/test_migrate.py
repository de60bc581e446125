"""A database of somebody else's: migrated by its owner, used by a login that owns nothing, refused in one line."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from cloud.core.errors import Permanent, Transient
from cloud.infra.connect import open_database
from cloud.infra.migrate import migrate, require_current
from cloud.infra.postgres import EmbeddedPostgres
from cloud.models.tenancy import OWNER_ROLE
from cloud.settings import Settings


@pytest.fixture
def empty(cluster: EmbeddedPostgres) -> Iterator[str]:
    cluster.create_database("external")
    yield "external"
    cluster.drop_database("external")


def execute(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_a_configured_database_is_migrated_once_and_used(cluster: EmbeddedPostgres, empty: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url=cluster.url(database=empty))
    with pytest.raises(Permanent, match=r"has schema none, this ballast needs .*; set migration_url") as caught:
        open_database(settings).__enter__()
    assert "\n" not in str(caught.value)
    for _ in range(2):
        migrate(cluster.url(OWNER_ROLE, empty))
    with open_database(settings) as database:
        assert database.tenant_ids() == ()


def test_a_newer_schema_is_refused(cluster: EmbeddedPostgres, empty: str) -> None:
    migrate(cluster.url(OWNER_ROLE, empty))
    execute(cluster.url(OWNER_ROLE, empty), "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Permanent, match="newer than this ballast"):
        migrate(cluster.url(OWNER_ROLE, empty))
    with pytest.raises(Permanent, match="has schema 9999"):
        require_current(cluster.url(database=empty))


def test_a_login_that_does_not_own_the_database_is_told_so(cluster: EmbeddedPostgres, empty: str) -> None:
    with pytest.raises(Permanent, match="must own the database"):
        migrate(cluster.url(database=empty))


def test_a_database_that_does_not_answer_is_transient(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://x@/x?host={tmp_path}"
    for ask in (migrate, require_current):
        with pytest.raises(Transient, match="database: ") as caught:
            ask(url)
        assert "\n" not in str(caught.value)
