"""From settings to a database: the configured one, else the embedded cluster of ``data_dir``."""

from collections.abc import Iterator
from contextlib import contextmanager

from cloud.infra.db import Database
from cloud.infra.migrate import migrate, require_current
from cloud.infra.postgres import EmbeddedPostgres, embedded_home
from cloud.models.tenancy import OWNER_ROLE
from cloud.settings import Settings


def database_url(settings: Settings) -> str:
    """Return the application's own login: the configured one, else the embedded cluster's."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return EmbeddedPostgres(embedded_home(settings.data_dir)).url()


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """Yield the database for one command, starting the embedded cluster when ``ballast up`` does not run.

    Raises:
        Transient: a configured database does not answer.
    """
    cluster = None
    if settings.database_url is None:
        cluster = EmbeddedPostgres(embedded_home(settings.data_dir))
        if cluster.answers():
            cluster = None
        else:
            cluster.start()
            migrate(cluster.url(OWNER_ROLE))
    url = database_url(settings)
    require_current(url)
    database = Database(url)
    try:
        database.check()
        yield database
    finally:
        database.close()
        if cluster is not None:
            cluster.stop()
