"""From settings to a database: the configured one, else the embedded cluster of ``data_dir``."""

from collections.abc import Iterator
from contextlib import contextmanager

from cloud.core.errors import Refused, Transient
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
        Transient: the database does not answer, though ``ballast up`` runs or it is configured.
        Refused: the embedded cluster cannot be started here.
    """
    with _running_cluster(settings):
        url = database_url(settings)
        require_current(url)
        database = Database(url)
        try:
            database.check()
            yield database
        finally:
            database.close()


@contextmanager
def _running_cluster(settings: Settings) -> Iterator[None]:
    """Start the embedded cluster for as long as the block runs, unless it runs already or another is configured."""
    cluster = None if settings.database_url is not None else EmbeddedPostgres(embedded_home(settings.data_dir))
    if cluster is None or cluster.answers():
        yield
        return
    try:
        cluster.start()
    except Refused as refusal:
        if refusal.code != "already_running":
            raise
        raise Transient(f"ballast runs on {settings.data_dir}, but its database does not answer; try again") from None
    try:
        migrate(cluster.url(OWNER_ROLE))
        yield
    finally:
        cluster.stop()
