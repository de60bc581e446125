"""Sets the demo up the way an operator would: sites, inventories, contracts, join tokens, agents; and prices it."""

import threading
from datetime import timedelta
from typing import Final, Protocol

from cloud.billing import service as billing
from cloud.cli.demo import stage
from cloud.cli.demo.processes import ChildFailed, Crew, run_once
from cloud.cli.demo.stage import Stage
from cloud.core.access import Principal, system_principal
from cloud.core.errors import Transient
from cloud.hosting import service as hosting
from cloud.identity import enrolment
from cloud.identity import service as identity
from cloud.identity.authority import CertificateAuthority
from cloud.infra.db import Database
from cloud.infra.postgres import EmbeddedPostgres, embedded_home
from cloud.settings import Settings, load_settings
from sitelink.clock import Clock

_READY_S: Final = 90.0
_PAUSE_S: Final = 0.2
_TIMEZONE: Final = "America/Chicago"


class Serving(Protocol):
    """Tells whether the console answers at an address."""

    def __call__(self, address: str) -> bool:
        """Return whether it does."""
        ...


def open_database(scene: Stage) -> tuple[Settings, Database]:
    """Return the control plane's settings and a login to its embedded database."""
    settings = load_settings(scene.cloud_config)
    return settings, Database(EmbeddedPostgres(embedded_home(settings.data_dir)).url())


def await_cloud(scene: Stage, crew: Crew, database: Database, serving: Serving, clock: Clock) -> Principal:
    """Wait until the control plane has migrated its database and serves; return the operator's principal.

    Raises:
        ChildFailed: it does not come up.
    """
    deadline = clock.monotonic() + _READY_S
    pause = threading.Event()
    while clock.monotonic() < deadline:
        if serving(scene.http):
            try:
                (tenant_id,) = database.tenant_ids()
            except (Transient, ValueError):
                pass
            else:
                return system_principal(tenant_id, "demo")
        pause.wait(_PAUSE_S)
    raise ChildFailed(f"the cloud did not start: {crew.child('cloud').last_line()} (log: {crew.child('cloud').log})")


def open_sites(scene: Stage, crew: Crew, settings: Settings, database: Database, principal: Principal) -> str:
    """Create the sites, import their inventories, enrol and start their agents; return the operator's password.

    Recorded devices have no contract: they are read, not curtailed.
    """
    authority = CertificateAuthority(settings.key_dir, database.clock)
    contract_from = database.clock.now() - timedelta(days=1)
    for site in scene.all_sites:
        with database.unit_of_work(principal) as uow:
            hosting.create_site(uow, site.site_id, site.site_id.replace("-", " ").title(), _TIMEZONE)
            if site is not scene.captures:
                billing.set_contract(
                    uow, site.site_id, stage.RATE_USD_PER_KWH, _TIMEZONE, contract_from, stage.CREDIT_USD_PER_MWH
                )
            hosting.import_inventory(uow, site.site_id, site.inventory, site.meters)
            token = enrolment.make_join_token(uow, authority, site.site_id)
        run_once([str(part) for part in stage.enrol_command(site, token)], f"enrolling {site.site_id}")
        for group, (user, password) in stage.PASSWORDS.items():
            command = [str(part) for part in stage.password_command(site, group, user)]
            run_once(command, f"keeping {site.site_id}'s passwords", f"{password}\n")
        stage.start_agent(site, crew)
    with database.unit_of_work(principal) as uow:
        return identity.reset_password(uow, settings.operator_email)
