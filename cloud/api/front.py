"""The process that faces outwards: console over HTTP, site link and enrolment over gRPC (and a broker), on one loop.

Invariant: SIGTERM and SIGINT end all of it in order: listen no more, end the streams, give pages a second, leave.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import uvicorn

from cloud.api.http import create_http_app
from cloud.api.site_link import LinkAddresses, LinkServers
from cloud.api.withdrawals import keep_withdrawn
from cloud.core.errors import Refused
from cloud.identity.authority import CertificateAuthority
from cloud.infra.bus import AsyncBus
from cloud.infra.db import Database
from cloud.infra.signer_client import SignerClient
from cloud.settings import Settings

if TYPE_CHECKING:
    from cloud.api.mqtt_link import MqttLink


async def run(settings: Settings, database: Database, signer: SignerClient, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; call ``ready`` once all of it listens.

    Raises:
        Refused: an address is taken.
    """
    authority = CertificateAuthority(settings.key_dir, database.clock, timedelta(days=settings.agent_certificate_days))
    bus = AsyncBus(database.url)
    addresses = LinkAddresses(settings.link_listen, settings.enrol_listen, settings.public_names)
    time_key = authority.time_key()
    link = LinkServers(database, bus, authority, time_key, signer, database.clock, addresses, settings.ingest_threads)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    application = create_http_app(database, settings)
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    http = _HttpServer(config, ready)
    with _listener(settings.http_listen) as listener:
        await link.start()
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(bus.run())
            listing = tasks.create_task(keep_withdrawn(link.withdrawn, database))
            brokered = _brokered(settings, link, authority)
            reading = None if brokered is None else tasks.create_task(brokered.run())
            serving = tasks.create_task(http.serve(sockets=[listener]))
            await _either(stop.wait(), serving)
            application.state.console.hub.close()  # else every open live page holds the server until its time is up
            http.should_exit = True
            link.parts.closing.set()
            if brokered is not None and reading is not None:
                await brokered.stop(1.0)
                reading.cancel()
                await asyncio.wait((reading,))
            await link.stop()
            await serving
            listening.cancel()
            listing.cancel()


def _brokered(settings: Settings, link: LinkServers, authority: CertificateAuthority) -> "MqttLink | None":
    """Return the link through a broker, when there is one; only then is its library loaded."""
    if settings.mqtt_broker is None:
        return None
    from cloud.api.mqtt_link import MqttLink  # noqa: PLC0415 - see above
    from cloud.infra.broker import BrokerAddress  # noqa: PLC0415 - see above

    host, _, port = settings.mqtt_broker.rpartition(":")
    address = BrokerAddress(host.strip("[]"), int(port), settings.mqtt_server_name, settings.mqtt_ca_file)
    return MqttLink(link.parts, authority, address)


class _HttpServer(uvicorn.Server):
    """Uvicorn without its own signal handlers: one place decides when the process ends. It says when it serves."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _either(wanted: Coroutine[Any, Any, object], task: asyncio.Task[None]) -> None:
    waiting = asyncio.ensure_future(wanted)
    await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


def _listener(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=512)
    except OSError as error:
        raise Refused("address_taken", f"http_listen: {address}: {error.strerror}; end what uses it") from None
