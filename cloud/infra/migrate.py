"""Brings the schema up to date, as the owner.

Invariants: one migrator at a time (advisory lock); each revision is one transaction; a database that is newer than
this code is refused.
"""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, exc, pool, text

from cloud.core.errors import Permanent, Transient

_LOCK: Final = 7_255_431
_SCRIPTS: Final = Path(__file__).resolve().parent.parent / "migrations"


def migrate(owner_url: str) -> None:
    """Run every revision that the database at ``owner_url`` lacks.

    Raises:
        Transient: the database does not answer.
        Permanent: the schema belongs to a later version.
    """
    engine = create_engine(owner_url, poolclass=pool.NullPool)
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            connection.commit()
            _refuse_newer(connection)
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "heads")
            connection.commit()
    except exc.OperationalError as error:
        raise Transient(f"database: {str(error.orig).strip().splitlines()[0]}") from error
    finally:
        engine.dispose()


def is_current(connection: Connection) -> bool:
    """Return whether the schema is the one this code was written for."""
    heads = MigrationContext.configure(connection).get_current_heads()
    return set(heads) == set(ScriptDirectory.from_config(_config()).get_heads())


def _refuse_newer(connection: Connection) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    unknown = set(MigrationContext.configure(connection).get_current_heads()) - known
    connection.commit()
    if unknown:
        raise Permanent(
            f"the database has schema {', '.join(unknown)}, newer than this ballast; install the newer version"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
