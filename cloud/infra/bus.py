"""Wake-ups over PostgreSQL's NOTIFY. Only hints: whoever listens must also look by itself now and then.

Invariants: a subscriber hears its own tenant alone; a slow subscriber loses the oldest hints, never blocks others;
after a lost connection every subscriber gets one ``reconnected`` message, since hints may have been missed.

    UnitOfWork.notify -> COMMIT -> NOTIFY ballast {"topic", "tenant_id", ...} -> AsyncBus (serve) | Wakeups (worker)
"""

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql

from cloud.infra.db import CHANNEL
from cloud.infra.outage import OutageLog

_LOGGER: Final = logging.getLogger(__name__)
_QUEUE_LENGTH: Final = 256
_RETRY_S: Final = 0.5
_LISTEN: Final = sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL))

Message = dict[str, Any]


def _conninfo(url: str) -> str:
    return url.replace("+psycopg", "", 1)


class AsyncBus:
    """One listening connection for all subscribers of an event loop; ``run`` keeps it alive."""

    def __init__(self, url: str) -> None:
        self._conninfo = _conninfo(url)
        self._subscribers: dict[asyncio.Queue[Message], tuple[str, frozenset[str]]] = {}
        self._outage = OutageLog(_LOGGER, "listening for wake-ups")
        self.listening = asyncio.Event()
        """Set while the connection listens."""

    async def run(self) -> None:
        """Listen until cancelled, connecting again after each loss."""
        while True:
            try:
                await self._listen()
            except (psycopg.Error, OSError) as error:
                self._outage.failed(str(error).strip().splitlines()[0] if str(error).strip() else repr(error))
                await asyncio.sleep(_RETRY_S)

    @asynccontextmanager
    async def subscribe(self, tenant_id: UUID, topics: Iterable[str]) -> AsyncIterator[asyncio.Queue[Message]]:
        """Yield a queue of the tenant's messages of ``topics``, and of ``reconnected``."""
        queue: asyncio.Queue[Message] = asyncio.Queue(_QUEUE_LENGTH)
        self._subscribers[queue] = (str(tenant_id), frozenset(topics))
        try:
            yield queue
        finally:
            del self._subscribers[queue]

    async def _listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True, connect_timeout=5)
        async with connection:
            await connection.execute(_LISTEN)
            self._outage.recovered()
            self.listening.set()
            for queue in self._subscribers:
                _offer(queue, {"topic": "reconnected"})
            try:
                async for notification in connection.notifies():
                    self._pass_on(notification.payload)
            finally:
                self.listening.clear()

    def _pass_on(self, payload: str) -> None:
        message = _message(payload)
        for queue, (tenant_id, topics) in self._subscribers.items():
            if message.get("tenant_id") == tenant_id and message.get("topic") in topics:
                _offer(queue, message)


class Wakeups:
    """A thread's ear: ``wait`` returns when a message of ``topic`` came, or the time is up."""

    def __init__(self, url: str, topic: str) -> None:
        self._conninfo = _conninfo(url)
        self._topic = topic
        self._connection: psycopg.Connection[Any] | None = None

    def wait(self, timeout_s: float, stop: threading.Event) -> None:
        """Wait for a message of the topic, for ``timeout_s`` at most; a lost connection only costs the hint."""
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self._conninfo, autocommit=True, connect_timeout=5)
                self._connection.execute(_LISTEN)
                return  # What was sent before LISTEN is found by looking.
            for notification in self._connection.notifies(timeout=timeout_s):
                if stop.is_set() or _message(notification.payload).get("topic") == self._topic:
                    return
        except (psycopg.Error, OSError):
            self.close()
            stop.wait(min(timeout_s, _RETRY_S))

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
            self._connection = None


def _offer(queue: asyncio.Queue[Message], message: Message) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(message)


def _message(payload: str) -> Message:
    try:
        document = json.loads(payload)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
