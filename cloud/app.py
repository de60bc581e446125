"""Wires the cloud: the one module that knows everyone.

Invariants: dependencies are made here and handed down; every subscription to an event is a row of ``SUBSCRIPTIONS``;
any process may be killed at any moment and started again.

    ballast up ── PostgreSQL (unless configured elsewhere)
               ├─ ballast signer   alone holds the command key
               ├─ ballast serve    console over HTTP, site link and enrolment over gRPC
               └─ ballast worker   outbox and periodic jobs
"""

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloud.core.access import system_principal
from cloud.core.errors import Permanent
from cloud.core.events import PlanActivated
from cloud.flows.dispatch import dispatch_active_plan
from cloud.identity import service as identity
from cloud.identity.authority import CertificateAuthority
from cloud.identity.model import FirstOperator
from cloud.infra import folder
from cloud.infra.connect import database_url
from cloud.infra.db import Database
from cloud.infra.migrate import migrate, require_current
from cloud.infra.outbox import HandlerContext, OutboxWorker, Subscription
from cloud.infra.postgres import EmbeddedPostgres, embedded_home, wait_for
from cloud.infra.signer_client import SignerClient
from cloud.infra.supervisor import ProcessService, Service, Supervisor
from cloud.models.tenancy import OWNER_ROLE
from cloud.settings import Settings
from sitelink.clock import SystemClock

_LOGGER: Final = logging.getLogger(__name__)
_DATABASE_WITHIN_S: Final = 60.0

SUBSCRIPTIONS: Final = (Subscription(PlanActivated, "dispatch_plan", dispatch_active_plan),)


@dataclass(frozen=True, slots=True)
class Ready:
    """What ``ballast up`` tells once everything runs.

    ``operator`` is the one just made, whose password nobody has seen yet; ``taken_over`` whether somebody has signed in
    and chosen a password.
    """

    http: str
    link: str
    enrol: str
    operator: FirstOperator | None
    taken_over: bool


def up(settings: Settings, config: Path | None, on_ready: Callable[[Ready], None], *, shows_passwords: bool) -> None:
    """Run the whole control plane until SIGTERM or SIGINT.

    ``shows_passwords`` says that ``on_ready`` shows a password to a person: only then is the first operator made.

    Raises:
        Refused: another ``ballast up`` holds ``data_dir``, or a part of it cannot start.
    """
    with folder.hold(settings.data_dir):
        _LOGGER.info("settings: %s", settings.redacted())
        services = _services(settings, config)
        Supervisor(services).run(lambda: on_ready(_ready(settings, shows_passwords)))


def _services(settings: Settings, config: Path | None) -> list[Service]:
    services: list[Service] = []
    if settings.database_url is None:
        services.append(_PostgresService(EmbeddedPostgres(embedded_home(settings.data_dir))))
    return [
        *services,
        _Preparation(settings),
        ProcessService("signer", _command("signer", config), announces=True),
        ProcessService("serve", _command("serve", config), announces=True),
        ProcessService("worker", _command("worker", config)),
    ]


def _ready(settings: Settings, shows_passwords: bool) -> Ready:
    """Return what to tell, with the first operator when there is none and its password will be seen."""
    database = Database(database_url(settings), pool_size=1)
    try:
        principal = system_principal(identity.open_tenant(database, settings.tenant_name), "first start")
        with database.unit_of_work(principal) as uow:
            operator = identity.first_operator(uow, settings.operator_email) if shows_passwords else None
            taken_over = identity.is_taken_over(uow)
    finally:
        database.close()
    return Ready(settings.http_listen, settings.link_listen, settings.enrol_listen, operator, taken_over)


def serve(settings: Settings, ready: Callable[[], None]) -> None:
    """Run the console and the site link until SIGTERM or SIGINT; call ``ready`` once they listen."""
    from cloud.api.front import run  # noqa: PLC0415 - each process loads only its own part

    database = _ready_database(settings)
    try:
        asyncio.run(run(settings, database, SignerClient(settings.signer_socket), ready))
    finally:
        database.close()


def work(settings: Settings) -> None:
    """Run the outbox and the periodic jobs until SIGTERM or SIGINT.

    Raises:
        Permanent: a part of it ended by itself; the supervisor starts the process again.
    """
    from cloud.jobs import run_worker  # noqa: PLC0415 - each process loads only its own part

    database = _ready_database(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    context = HandlerContext(settings, database.clock, SignerClient(settings.signer_socket))
    outbox = OutboxWorker(database, SUBSCRIPTIONS, context)
    threads = (
        threading.Thread(target=_until_stop(lambda: outbox.run(stop), stop), name="outbox", daemon=True),
        threading.Thread(
            target=_until_stop(lambda: run_worker(database, settings, stop), stop), name="jobs", daemon=True
        ),
    )
    for thread in threads:
        thread.start()
    while not stop.wait(1.0):
        if not all(thread.is_alive() for thread in threads):
            raise Permanent("worker: a part of it ended; started again")
    for thread in threads:
        thread.join(5)
    database.close()


class _PostgresService:
    """The embedded cluster, as a supervised service."""

    name = "postgresql"

    def __init__(self, cluster: EmbeddedPostgres) -> None:
        self._cluster = cluster

    def start(self) -> None:
        self._cluster.start()

    def alive(self) -> bool:
        return self._cluster.alive()

    def stop(self) -> None:
        self._cluster.stop()


class _Preparation:
    """The step between PostgreSQL and everybody else: schema, tenant, keys. Once done it stays done."""

    name = "preparation"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def start(self) -> None:
        settings = self._settings
        if settings.database_url is None:
            migrate(EmbeddedPostgres(embedded_home(settings.data_dir)).url(OWNER_ROLE))
        elif settings.migration_url is not None:
            wait_for(settings.migration_url.get_secret_value(), _DATABASE_WITHIN_S)
            migrate(settings.migration_url.get_secret_value())
        require_current(database_url(settings))
        database = Database(database_url(settings))
        try:
            database.check()
            identity.open_tenant(database, settings.tenant_name)
        finally:
            database.close()
        CertificateAuthority(settings.key_dir, SystemClock()).time_key()

    def alive(self) -> bool:
        return True

    def stop(self) -> None:
        return None


def _ready_database(settings: Settings) -> Database:
    url = database_url(settings)
    wait_for(url, _DATABASE_WITHIN_S)
    require_current(url)
    database = Database(url)
    database.check()
    return database


def _until_stop(run: Callable[[], None], stop: threading.Event) -> Callable[[], None]:
    """Return ``run`` for a thread: an error that nobody expected is logged, and the thread ends."""

    def guarded() -> None:
        try:
            run()
        except Exception:
            if not stop.is_set():
                _LOGGER.exception("worker: a part of it failed")

    return guarded


def _command(name: str, config: Path | None) -> list[str]:
    arguments = ["--config", str(config.absolute())] if config is not None else []
    return [sys.executable, "-m", "cloud", name, *arguments]
