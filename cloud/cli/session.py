"""What a command needs to work on the data: settings, a database, and for whom it acts."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from cloud.cli.options import add_action, add_config, read_settings
from cloud.core.access import Principal, system_principal
from cloud.core.errors import NotFound
from cloud.infra.connect import open_database as open_for_settings
from cloud.infra.db import Database
from cloud.settings import Settings

__all__ = ["add_action", "add_config", "open_database"]


@contextmanager
def open_database(arguments: argparse.Namespace) -> Iterator[tuple[Database, Settings, Principal]]:
    """Yield database, settings and the principal of the default tenant; works whether or not ``ballast up`` runs.

    Raises:
        BadInput: the settings cannot be used.
        NotFound: nothing has been set up here yet.
    """
    settings = read_settings(arguments)
    with open_for_settings(settings) as database:
        tenants = database.tenant_ids()
        if not tenants:
            raise NotFound(f"nothing is set up in {settings.data_dir} yet; run ballast up there first")
        yield database, settings, system_principal(tenants[0], "command line")
