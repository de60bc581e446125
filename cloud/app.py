"""Wires the cloud: the one module that knows everyone.

Invariants: dependencies are made here and handed down; every subscription to an event is a row of ``SUBSCRIPTIONS``;
any process may be killed at any moment and started again.

    ballast up ── PostgreSQL (unless configured elsewhere)
               ├─ ballast signer   alone holds the command key
               ├─ ballast serve    console over HTTP, site link and enrolment over gRPC
               └─ ballast worker   outbox and periodic jobs
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloud.core.errors import Permanent
from cloud.core.events import PlanActivated
from cloud.flows.dispatch import dispatch_active_plan
from cloud.identity import service as identity
from cloud.identity.authority import CertificateAuthority
from cloud.identity.model import FirstOperator
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
    """What ``ballast up`` tells the terminal once everything runs. ``operator`` only at the very first start."""

    http: str
    link: str
    enrol: str
    operator: FirstOperator | None


def up(settings: Settings, config: Path | None, on_ready: Callable[[Ready], None]) -> None:
    """Run the whole control plane until SIGTERM or SIGINT."""
    _LOGGER.info("settings: %s", settings.redacted())
    settings.data_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    prepared = _Prepared(settings)
    services: list[Service] = []
    if settings.database_url is None:
        services.append(_PostgresService(EmbeddedPostgres(embedded_home(settings.data_dir))))
    services.append(prepared)
    services += [
        ProcessService("signer", _command("signer", config), ready=lambda: _accepts_unix(settings.signer_socket)),
        ProcessService(
            "serve",
            _command("serve", config),
            ready=lambda: all(
                _accepts(address) for address in (settings.http_listen, settings.link_listen, settings.enrol_listen)
            ),
        ),
        ProcessService("worker", _command("worker", config)),
    ]

    def ready() -> None:
        on_ready(Ready(settings.http_listen, settings.link_listen, settings.enrol_listen, prepared.operator))

    Supervisor(services).run(ready)


def serve(settings: Settings) -> None:
    """Run the console and the site link until SIGTERM or SIGINT."""
    from cloud.api.front import run  # noqa: PLC0415 - each process loads only its own part

    database = _ready_database(settings)
    try:
        asyncio.run(run(settings, database, SignerClient(settings.signer_socket)))
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


class _Prepared:
    """The step between PostgreSQL and everybody else: schema, first operator, keys. Once done it stays done."""

    name = "preparation"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.operator: FirstOperator | None = None

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
            self.operator = identity.first_start(database, settings.tenant_name, settings.operator_email)
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


def _accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))  # noqa: S104 - asked, not bound
    try:
        socket.create_connection((target, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def _accepts_unix(path: Path) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
    return True
