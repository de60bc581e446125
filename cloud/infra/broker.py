"""The cloud's connection to an MQTT 3.1.1 broker, over mutual TLS.

Invariants: a clean session, so the broker keeps nothing for us; callers set deadlines; ``drop`` leaves no socket.
The client's id is its certificate's name for every replica alike: a broker lets only the newest of them stay.
"""

import contextlib
import logging
import math
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiomqtt

from cloud.core.errors import BadInput

_SILENT: Final = logging.getLogger(f"{__name__}.library")
_SILENT.setLevel(logging.CRITICAL)  # what matters of it reaches us as errors
_CONNECT_S: Final = 5.0
_KEEPALIVE_S: Final = 10
_MANY_CALLS: Final = 1_000_000
_WAITING_MESSAGES: Final = 10_000


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker is, the name its certificate must hold, and further CAs (PEM) that may vouch for it."""

    host: str
    port: int
    server_name: str
    ca_file: Path | None = None


def broker_context(address: BrokerAddress, ca_pem: bytes, key_pem: bytes, chain_pem: bytes) -> ssl.SSLContext:
    """Return what a connection to the broker needs.

    Raises:
        BadInput: ``ca_file`` cannot be read or holds no certificates.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca_pem.decode("ascii"))
    if address.ca_file is not None:
        try:
            context.load_verify_locations(cafile=address.ca_file)
        except OSError as error:
            raise BadInput(f"mqtt_ca_file: {address.ca_file}: {error.strerror or error}; give it a PEM file") from None
    # The library reads certificates from files alone: this one is in memory, and nobody else's.
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(chain_pem + b"\n" + key_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


class BrokerClient(aiomqtt.Client):
    """One connection; used once, as an asynchronous context, and dropped."""

    def __init__(self, address: BrokerAddress, context: ssl.SSLContext, identifier: str) -> None:
        super().__init__(
            address.server_name,
            address.port,
            identifier=identifier,
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=True,
            tls_context=context,
            keepalive=_KEEPALIVE_S,
            timeout=math.inf,  # callers set deadlines; the library's own lose a cancellation that meets an answer
            max_queued_incoming_messages=_WAITING_MESSAGES,
            logger=_SILENT,
        )
        self.pending_calls_threshold = _MANY_CALLS
        self._client.connect_timeout = _CONNECT_S
        # The library would look for the host by the name that stands in the certificate.
        self._client._create_socket_connection = lambda: socket.create_connection(  # type: ignore[method-assign]  # noqa: SLF001
            (address.host, address.port), timeout=_CONNECT_S
        )

    def _on_socket_close(self, *closed: Any) -> None:
        super()._on_socket_close(*closed)
        if not self._connected.done():  # else whoever waits for the broker's answer would wait for nothing
            self._connected.set_exception(aiomqtt.MqttError("it hung up; does it believe the cloud's certificate?"))

    def drop(self) -> None:
        """End the connection without a word. Does nothing when it has ended."""
        self._connected.cancel()
        with contextlib.suppress(OSError):
            self._client._sock_close()  # noqa: SLF001
        if not self._disconnected.done():
            self._disconnected.set_result(None)
