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
from cloud.models.tenancy import APP_ROLE

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
        raise Transient(f"database: {_first_line(error)}") from error
    except exc.ProgrammingError as error:
        raise Permanent(
            f"database: the schema cannot be migrated: {_first_line(error)}; the login of migration_url must own the"
            f" database, and a role {APP_ROLE} must exist"
        ) from error
    finally:
        engine.dispose()


def require_current(url: str) -> None:
    """Check, as the application, that the schema is the one this code was written for.

    Raises:
        Transient: the database does not answer.
        Permanent: it is an earlier or a later schema, or none.
    """
    engine = create_engine(url, poolclass=pool.NullPool)
    wanted = set(ScriptDirectory.from_config(_config()).get_heads())
    try:
        with engine.connect() as connection:
            found = set(MigrationContext.configure(connection).get_current_heads())
    except exc.OperationalError as error:
        raise Transient(f"database: {_first_line(error)}") from error
    except exc.ProgrammingError:
        found = set()
    finally:
        engine.dispose()
    if found != wanted:
        raise Permanent(
            f"the database has schema {', '.join(sorted(found)) or 'none'}, this ballast needs {', '.join(wanted)};"
            " set migration_url to the owner's login and run ballast up"
        )


def _first_line(error: exc.DBAPIError) -> str:
    return (str(error.orig).strip().splitlines() or ["no message"])[0]


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
