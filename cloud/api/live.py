"""Live pages: one stream a page, one producer a topic, each message encoded once for all its viewers.

Invariants: a new or reconnecting viewer gets a full snapshot first; a viewer too slow to follow is sent a fresh
snapshot in place of what it missed; a heartbeat is a named event, since comments are invisible to code in the browser;
a topic without viewers does no work; a topic that cannot read says so, keeps its viewers, and logs that once.

      read --> Frame(snapshot, change) --> Topic --> viewer queue --> event stream
              one thread call               |-----> viewer queue --> event stream
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from cloud.core.errors import CloudError, Forbidden, NotFound, Transient

_LOG: Final = logging.getLogger(__name__)
_QUEUE: Final = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """One state of a page as bytes of the event stream: whole, and as the change since the frame before."""

    snapshot: bytes
    change: bytes


Produce = Callable[[], Awaitable[Frame]]
"""Makes the next frame of a topic."""


def event(data: str, name: str = "") -> bytes:
    """Return one message of an event stream; ``data`` may have several lines."""
    head = f"event: {name}\n" if name else ""
    body = "".join(f"data: {line}\n" for line in data.split("\n"))
    return f"{head}{body}\n".encode()


def heartbeat() -> bytes:
    """Return the message that says the stream is alive."""
    return event("{}", "heartbeat")


@dataclass(eq=False, slots=True)
class _Viewer:
    queue: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(_QUEUE))
    behind: bool = True


class _Topic:
    """The viewers of one page and the task that feeds them."""

    def __init__(self, key: Hashable, produce: Produce, interval_s: float, first: Frame | None) -> None:
        self.key = key
        self.viewers: set[_Viewer] = set()
        self._produce = produce
        self._interval_s = interval_s
        self._frame = first
        self._outage = False

    async def feed(self) -> None:
        """Make and send frames while somebody watches."""
        if self._frame is not None:
            await asyncio.sleep(self._interval_s)
        while self.viewers:
            await self._next_frame()
            await asyncio.sleep(self._interval_s)

    def greet(self, viewer: _Viewer) -> None:
        """Send the present state to a viewer that has none."""
        if self._frame is not None and viewer.behind:
            viewer.behind = not _offer(viewer, self._frame.snapshot)

    async def _next_frame(self) -> None:
        try:
            frame = await self._produce()
        except CloudError as error:
            self._trouble(error)
            return
        except Exception as error:  # noqa: BLE001 - the supervisor of one topic: the others live on
            self._trouble(error)
            return
        if self._outage:
            self._outage = False
            _LOG.info("live page %s reads again", self.key)
        self._frame = frame
        for viewer in self.viewers:
            if viewer.behind:
                self.greet(viewer)
            elif not _offer(viewer, frame.change):
                viewer.behind = True

    def _trouble(self, error: Exception) -> None:
        if not self._outage:
            self._outage = True
            _LOG.error("live page %s cannot read: %s", self.key, error, exc_info=not isinstance(error, CloudError))
        message = event(json.dumps({"fact": "The server cannot read its database; figures are last known."}), "trouble")
        for viewer in self.viewers:
            _offer(viewer, message)


def _offer(viewer: _Viewer, message: bytes) -> bool:
    """Queue ``message``; False when the viewer is too far behind, whose queue is then emptied."""
    if not message:
        return True
    try:
        viewer.queue.put_nowait(message)
    except asyncio.QueueFull:
        while not viewer.queue.empty():
            viewer.queue.get_nowait()
        return False
    return True


class LiveHub:
    """Every topic of this process. ``interval_s`` is the pause between two reads of a topic."""

    def __init__(self, interval_s: float = 2.0, heartbeat_s: float = 5.0) -> None:
        self._interval_s = interval_s
        self._heartbeat_s = heartbeat_s
        self._topics: dict[Hashable, _Topic] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._feeds: set[asyncio.Task[None]] = set()
        self._closed = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Feed topics inside this block; leaving it ends every stream."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self.close()
                self._tasks = None
                for feed in self._feeds:
                    feed.cancel()

    def close(self) -> None:
        """End every stream, so that the server can stop."""
        self._closed = True
        for topic in self._topics.values():
            for viewer in topic.viewers:
                while not viewer.queue.empty():
                    viewer.queue.get_nowait()
                viewer.queue.put_nowait(None)
            topic.viewers.clear()

    def watching(self, key: Hashable) -> int:
        """Return how many viewers a topic has."""
        topic = self._topics.get(key)
        return len(topic.viewers) if topic else 0

    async def first_frame(self, key: Hashable, produce: Produce) -> Frame | None:
        """Return what a stream of ``key`` begins with; None where others watch it already, or it cannot be read yet.

        Raises:
            NotFound, Forbidden: there is nothing to stream to this viewer.
        """
        if self.watching(key):
            return None
        try:
            return await produce()
        except (NotFound, Forbidden):
            raise
        except CloudError:
            return None  # the topic tries again and says so

    async def stream(
        self,
        key: Hashable,
        produce: Produce,
        still_welcome: Callable[[], Awaitable[bool]],
        first: Frame | None = None,
    ) -> AsyncIterator[bytes]:
        """Yield the messages for one viewer of ``key`` until it leaves; ``first`` is what ``produce`` made last.

        ``still_welcome`` is asked at every heartbeat; when it says no, the stream says ``signed-out`` and ends.
        """
        topic = self._topic(key, produce, first)
        viewer = _Viewer()
        topic.viewers.add(viewer)
        topic.greet(viewer)
        now = asyncio.get_running_loop().time
        try:
            yield heartbeat()
            due = now() + self._heartbeat_s
            while True:
                try:
                    message = await asyncio.wait_for(viewer.queue.get(), max(0.0, due - now()))
                except TimeoutError:
                    due = now() + self._heartbeat_s
                    if not await still_welcome():
                        yield event("{}", "signed-out")
                        return
                    message = heartbeat()
                if message is None:
                    return
                yield message
        finally:
            topic.viewers.discard(viewer)

    def _topic(self, key: Hashable, produce: Produce, first: Frame | None) -> _Topic:
        topic = self._topics.get(key)
        if topic is None or not topic.viewers:
            if self._tasks is None or self._closed:
                raise Transient("live pages are shutting down")
            topic = self._topics[key] = _Topic(key, produce, self._interval_s, first)
            feed = self._tasks.create_task(self._feed(topic))
            self._feeds.add(feed)
            feed.add_done_callback(self._feeds.discard)
        return topic

    async def _feed(self, topic: _Topic) -> None:
        await topic.feed()
        if self._topics.get(topic.key) is topic:
            del self._topics[topic.key]
