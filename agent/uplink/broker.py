"""The MQTT library, over a connection that we have made ourselves.

It would make its own on a thread that cannot be called off, and knows no HTTP proxy. So this is the one place that
reaches below its surface; its version is pinned, and the link's contract tests hold it.

Invariant: whatever happens to an attempt, ``drop`` leaves no socket, no task and no callback behind.
"""

import contextlib
import logging
import math
import ssl
from typing import Any, Final, Self

import aiomqtt

_SILENT: Final = logging.getLogger(__name__)
_SILENT.setLevel(logging.CRITICAL)  # what matters of it reaches us as errors
_MANY_CALLS: Final = 1_000_000
_HUNG_UP: Final = "the broker hung up at once; does it believe this agent's certificate?"


class Client(aiomqtt.Client):
    """A client of MQTT 3.1.1 with a clean session over ``connection``, which is secured already."""

    def __init__(self, connection: ssl.SSLSocket, identifier: str, will: aiomqtt.Will, keepalive_s: int) -> None:
        super().__init__(
            "broker",  # never looked up
            identifier=identifier,
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=True,
            will=will,
            keepalive=keepalive_s,
            timeout=math.inf,  # callers set deadlines; the library's own lose a cancellation that meets an answer
            logger=_SILENT,
        )
        self.pending_calls_threshold = _MANY_CALLS
        self._connection = connection
        self._client._create_socket_connection = lambda: connection  # type: ignore[method-assign]  # noqa: SLF001

    async def __aenter__(self) -> Self:
        """Say CONNECT and wait for the broker's answer."""
        await self._lock.acquire()
        self._client_connect()  # the connection stands: nothing blocks
        await self._wait_for(self._connected, timeout=None)
        return self

    def _on_socket_close(self, *closed: Any) -> None:
        super()._on_socket_close(*closed)
        if not self._connected.done():  # else whoever waits for the broker's answer would wait for nothing
            self._connected.set_exception(aiomqtt.MqttError(_HUNG_UP))

    def drop(self) -> None:
        """End the connection without a word. Does nothing when it has ended."""
        self._connected.cancel()
        with contextlib.suppress(OSError):
            self._client._sock_close()  # noqa: SLF001
        self._connection.close()
        if not self._disconnected.done():
            self._disconnected.set_result(None)
