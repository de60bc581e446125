"""Carries the buffer to the cloud and the cloud's orders to the site.

Invariants:

* Only a receipt settles a batch; a batch in flight when the link fails, or unanswered for long, is simply sent again.
* Control data go before telemetry, live telemetry before backlog, each in a lane of its own (see ``window``): live is
  the newest batch when a conversation begins, and all that is sealed while it lasts.
* The link is UP only while a receipt or a believed signed time is at most three heartbeats old. An open socket proves
  nothing: a half-open link is down, and is closed.
* A failure of the link is logged once, and so is its recovery; both are told to the cloud as notices.

      buffer --take--> window --send--> cloud
         ^                |               |
         +---- settle <---+--- receipts --+--- PLAN, COMMAND --> OrderInbox
                                          +--- TIME ----------> TimeSink
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from agent.backoff import Backoff
from agent.buffer import BatchKey, Buffer
from agent.errors import AgentError, Garbled, Permanent, Refused, TimedOut, Transient
from agent.supervisor import apart
from agent.uplink import Uplink
from agent.window import MAX_BATCHES, Lane, Window
from sitelink.clock import Clock
from sitelink.orders import MalformedOrder, read_time
from sitelink.types import (
    NO_ORDER,
    Batch,
    BatchBody,
    ClockTrust,
    Domain,
    Envelope,
    Heartbeat,
    Hello,
    Notice,
    NoticeCode,
    OrderNumber,
    Receipt,
    Welcome,
)

_LOG: Final = logging.getLogger(__name__)
_SLICE_BYTES: Final = 128 * 1024
_HEARTBEATS: Final = 3
_DENIED_WAIT_S: Final = 15.0


class OrderInbox(Protocol):
    """Takes signed orders; it verifies, journals and answers by itself."""

    async def accept(self, envelope: Envelope) -> None:
        """Take a PLAN or COMMAND envelope. The same one may come many times."""
        ...


class TimeSink(Protocol):
    """Learns the time from the cloud."""

    async def learn(self, envelope: Envelope, sent_mono: float, received_mono: float) -> bool:
        """Take a TIME envelope that answers the heartbeat sent at ``sent_mono`` (``Clock.monotonic`` seconds).

        Returns:
            Whether the signature, site and form were right, so that the cloud has truly spoken.
        """
        ...


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What a heartbeat, or a hello, tells about the site. ``key_ids`` are the order keys it trusts now."""

    plan_revision: int
    clock_trust: ClockTrust
    key_ids: tuple[str, ...] = ()
    highest: OrderNumber = NO_ORDER
    highest_order_id: str = ""
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Introduction:
    """What ``Hello`` tells about this agent, the same in all its life."""

    site_id: str
    agent_id: str
    agent_version: str
    instance_id: str = ""


class _Changed(Transient):
    """The link is to go over another uplink; no failure."""


class Forwarder:
    """Keeps one conversation with the cloud going."""

    def __init__(
        self,
        uplink: Uplink,
        buffer: Buffer,
        clock: Clock,
        ids: Callable[[], str],
        backoff: Backoff,
        introduction: Introduction,
        facts: Callable[[], SiteFacts],
        inbox: OrderInbox,
        time_sink: TimeSink,
        heartbeat_s: float,
        resend_s: float = 30.0,
    ) -> None:
        """``resend_s`` is how long a batch may go unanswered before it counts as lost on the way."""
        self._uplink = uplink
        self._buffer = buffer
        self._clock = clock
        self._ids = ids
        self._backoff = backoff
        self._introduction = introduction
        self._facts = facts
        self._inbox = inbox
        self._time_sink = time_sink
        self._heartbeat_s = heartbeat_s
        self._resend_s = resend_s
        self._heard_mono: float | None = None
        self._session_mono = 0.0
        self._wake = asyncio.Event()
        self._receipts: asyncio.Queue[Receipt] = asyncio.Queue()
        self._window = Window(BatchKey("", 0), "")
        self._is_sealed = False
        self._nonces: dict[str, float] = {}
        self._landed_mono = 0.0
        self._landed_sent_mono = 0.0
        self._failing = False
        self._garbled = False
        self._trouble = ""
        self._changed = asyncio.Event()
        self._next = uplink

    @property
    def link_trouble(self) -> str:
        """Return why the cloud was not reached last, "" once it was heard again."""
        return self._trouble

    @property
    def link_up(self) -> bool:
        """Return whether the cloud was truly heard within three heartbeats."""
        return self._heard_mono is not None and self._silence_s(self._heard_mono) <= _HEARTBEATS * self._heartbeat_s

    @property
    def link_age_s(self) -> float | None:
        """Return the seconds since the cloud was last truly heard; None when it never was in this life."""
        return None if self._heard_mono is None else self._silence_s(self._heard_mono)

    def wake(self) -> None:
        """Say that something was sealed; must be called on the event loop's thread."""
        self._is_sealed = True
        self._wake.set()

    def change(self, uplink: Uplink) -> None:
        """Go over to ``uplink`` now; what is in flight is sent again over it."""
        self._next = uplink
        self._changed.set()

    async def run(self) -> None:
        """Talk to the cloud until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_link())
            tasks.create_task(self._converse())

    async def _converse(self) -> None:
        while True:
            try:
                await apart(self._session())
            except _Changed:
                continue
            except AgentError as error:
                await asyncio.sleep(self._after_failure(error))

    def _after_failure(self, error: AgentError) -> float:
        self._trouble = str(error)
        if not self._failing:
            self._failing = True
            _LOG.warning("link: %s; trying again until it works", error)
        wait_s = self._backoff.failed()
        # Being refused does not heal in seconds; asking often would only fill the cloud's log.
        return wait_s + _DENIED_WAIT_S if isinstance(error, Permanent) else wait_s

    async def _session(self) -> None:
        self._nonces.clear()
        self._receipts = asyncio.Queue()
        self._uplink = self._next
        self._changed.clear()
        try:
            await self._uplink.connect()
            self._session_mono = self._landed_mono = self._landed_sent_mono = self._clock.monotonic()
            await self._greet()
            status = await self._buffer.status()
            self._window = Window(status.newest, status.epoch)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._beat())
                tasks.create_task(self._pump())
                tasks.create_task(self._listen())
                tasks.create_task(self._settle())
                tasks.create_task(self._until_changed())
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            await self._uplink.close()

    async def _until_changed(self) -> None:
        await self._changed.wait()
        raise _Changed("the link goes over to another uplink")

    async def _greet(self) -> None:
        """Say Hello and wait for Welcome; orders that come first are taken too."""
        status = await self._buffer.status()
        me = self._introduction
        facts = self._facts()
        hello = Hello(
            me.site_id,
            me.agent_id,
            me.agent_version,
            status.epoch,
            status.next_seq,
            facts.plan_revision,
            facts.key_ids,
            facts.highest,
            facts.highest_order_id,
            me.instance_id,
            facts.generation,
        )
        await self._uplink.send(hello)
        try:
            async with asyncio.timeout(_HEARTBEATS * self._heartbeat_s):
                while not isinstance(frame := await self._uplink.receive(), Welcome):
                    await self._take(frame)
        except TimeoutError:
            raise TimedOut("the cloud did not answer Hello") from None
        await self._buffer.settle_through(frame.cursor)

    async def _beat(self) -> None:
        while True:
            facts = self._facts()
            status = await self._buffer.status()
            nonce = self._ids()
            self._nonces[nonce] = self._clock.monotonic()
            while len(self._nonces) > 2 * _HEARTBEATS:
                del self._nonces[next(iter(self._nonces))]
            beat = Heartbeat(
                nonce,
                facts.plan_revision,
                facts.clock_trust,
                status.backlog_batches,
                status.backlog_bytes,
                status.next_seq,
            )
            await self._uplink.send(beat)
            await asyncio.sleep(self._heartbeat_s)
            heard_mono = max(self._session_mono, self._heard_mono or self._session_mono)
            if self._silence_s(heard_mono) > _HEARTBEATS * self._heartbeat_s:
                raise Transient(f"nothing heard for {self._silence_s(heard_mono):.0f} s although the stream is open")

    async def _pump(self) -> None:
        while True:
            self._wake.clear()
            self._expire()
            await self._fill()
            try:
                async with asyncio.timeout(self._resend_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _fill(self) -> None:
        window = self._window
        while not all(window.is_full(lane) for lane in Lane):
            self._is_sealed = False
            batches = await self._buffer.take(
                _SLICE_BYTES,
                window.keys,
                control_only=window.is_full(Lane.LIVE),
                live_from=window.live_from,
                live_only=window.is_full(Lane.BACKLOG),
                most=MAX_BATCHES,
            )
            if not batches:
                return
            for batch in batches:
                await self._send(batch)
                lane = window.lane_of(batch)
                if self._is_sealed or (lane is not Lane.CONTROL and window.is_full(lane)):
                    break  # what was sealed meanwhile goes first

    async def _send(self, batch: Batch) -> None:
        # Entered before it is handed over: its receipt may come before send returns.
        self._window.add(batch, self._clock.monotonic())
        await self._uplink.send(batch)

    def _expire(self) -> None:
        silent = self._silence_s(self._landed_mono) >= self._resend_s
        self._window.expire(self._resend_s, self._clock.monotonic(), self._landed_sent_mono, silent=silent)

    async def _listen(self) -> None:
        while True:
            try:
                frame = await self._uplink.receive()
            except Garbled as error:
                if not self._garbled:
                    self._garbled = True
                    _LOG.warning("link: a frame could not be read and was passed over: %s", error)
                continue
            await self._take(frame)

    async def _take(self, frame: Welcome | Receipt | Envelope) -> None:
        match frame:
            case Receipt():
                self._hear()
                self._receipts.put_nowait(frame)
            case Envelope(domain=Domain.TIME):
                await self._learn(frame)
            case Envelope():
                await self._inbox.accept(frame)
            case Welcome():
                return  # doubled or late: the cursor has been followed already

    async def _learn(self, envelope: Envelope) -> None:
        received_mono = self._clock.monotonic()
        try:
            nonce = read_time(envelope.payload).nonce
        except MalformedOrder as error:
            _LOG.warning("link: %s; ignored", error)
            return
        sent_mono = self._nonces.pop(nonce, None)
        if sent_mono is None:
            return  # a repeated or very late answer tells nothing about now
        if await self._time_sink.learn(envelope, sent_mono, received_mono):
            self._hear()

    async def _settle(self) -> None:
        while True:
            receipts = [await self._receipts.get()]
            while not self._receipts.empty():
                receipts.append(self._receipts.get_nowait())
            try:
                await self._buffer.settle(*receipts)
            except Refused as refusal:
                _LOG.warning("link: %s", refusal)
                continue  # what stays in flight is sent again in its time, not at once and for ever
            for receipt in receipts:
                self._land(receipt)
            self._wake.set()

    def _land(self, receipt: Receipt) -> None:
        self._landed_mono = self._clock.monotonic()
        for item in self._window.land(receipt, self._landed_mono):
            self._landed_sent_mono = max(self._landed_sent_mono, item.sent_mono)

    def _hear(self) -> None:
        self._heard_mono = self._clock.monotonic()
        self._backoff.succeeded()
        self._trouble = ""
        if self._failing:
            self._failing = self._garbled = False
            _LOG.info("link: the cloud is heard again")

    async def _watch_link(self) -> None:
        """Tell the link's changes, once each."""
        was_up = False
        was_ever_up = False
        while True:
            up = self.link_up
            if up and not was_up and was_ever_up:
                await self._tell(NoticeCode.LINK_RESTORED, "the cloud is heard again")
            if up and not was_ever_up:
                _LOG.info("link: up")
            if was_up and not up:
                _LOG.warning("link: down, nothing heard for %.0f s; the site goes on alone", self.link_age_s)
                self._failing = True
                await self._tell(NoticeCode.LINK_LOST, "nothing was heard from the cloud for three heartbeats")
            was_up, was_ever_up = up, was_ever_up or up
            await asyncio.sleep(self._heartbeat_s / 2)

    async def _tell(self, code: NoticeCode, detail: str) -> None:
        notice = Notice(self._ids(), self._clock.now(), code, self._introduction.site_id, detail)
        try:
            await self._buffer.append(BatchBody(notices=(notice,)))
        except Transient as error:
            _LOG.warning("link: the notice %s could not be kept: %s", code, error)

    def _silence_s(self, since_mono: float) -> float:
        return self._clock.monotonic() - since_mono


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what ended a session: what is no AgentError first, since that must reach the supervisor."""
    flat: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop()
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            flat.append(error)
    return next((error for error in flat if not isinstance(error, AgentError)), flat[0])
