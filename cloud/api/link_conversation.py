"""One site's stream, from Hello to its end.

Invariants:

* A receipt leaves only after the commit that stored its items. What may not be stored, or is not signed by this agent,
  is quarantined, logged and gets no receipt; nothing is ever acknowledged that is not stored.
* Backpressure is not reading: at most ``_QUEUED`` batches wait here, and gRPC's window holds the rest at the site, or
  a bounded queue before us what came through a broker.
* Batches that wait together are stored in one transaction.
* Heartbeats are answered with signed time whether or not the database works.
* Orders are pushed on connect and on NOTIFY, and the plan again when the site's revision lags for 10 s.

      read ──► batches ──► store (threads) ──► Receipt
           └─► heartbeats ──► SignedTime, link row
      NOTIFY ──► orders ──► Envelope
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final, TypeVar

import grpc

from cloud.api.batch_signatures import BatchSignatures
from cloud.core.access import Principal, Role
from cloud.core.errors import CloudError, Conflict, Forbidden, Permanent, Refused, SecondGateway, Transient
from cloud.hosting import orders, service
from cloud.identity import certificates
from cloud.identity.model import AgentIdentity
from cloud.infra.bus import AsyncBus
from cloud.infra.db import Database, UnitOfWork
from cloud.infra.outage import OutageLog
from sitelink.clock import Clock
from sitelink.codec import MalformedFrame
from sitelink.orders import write_time
from sitelink.signing import BadSignature, PrivateKey, Signer
from sitelink.types import (
    Batch,
    Cursor,
    Domain,
    DownFrame,
    Envelope,
    Heartbeat,
    Hello,
    NoticeCode,
    Receipt,
    SignedTime,
    UpFrame,
    Welcome,
)

_LOGGER: Final = logging.getLogger(__name__)
_QUEUED: Final = 32
_HELLO_WITHIN_S: Final = 10.0
_PLAN_LAG_S: Final = 10.0
_ADMIT_EVERY_S: Final = 30.0
_LOOK_EVERY_S: Final = 15.0
_LONGEST_PAUSE_S: Final = 2.0
_LONGEST_NONCE: Final = 128
_Result = TypeVar("_Result")


class StreamClosed(Exception):
    """The stream must end; ``code`` and the message go to the agent."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class LinkCounters:
    """What the link counted since the process started."""

    batches: int = 0
    duplicates: int = 0
    quarantined: int = 0
    unsigned: int = 0
    refused: int = 0
    plans_sent: int = 0
    commands_sent: int = 0


@dataclass(frozen=True, slots=True)
class LinkParts:
    """What every conversation stands on."""

    database: Database
    bus: AsyncBus
    signer: Signer
    time_key: PrivateKey
    clock: Clock
    threads: Executor
    withdrawn: Container[int] = ()
    """The serial numbers of certificates that must not be believed."""
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server is about to stop: every stream then ends by itself."""
    counters: LinkCounters = field(default_factory=LinkCounters)
    outage: OutageLog = field(default_factory=lambda: OutageLog(_LOGGER, "storing telemetry"))


class Conversation:
    """One accepted stream of ``identity``; ``write`` sends a frame to it, one at a time."""

    def __init__(
        self,
        parts: LinkParts,
        identity: AgentIdentity,
        certificate_sha256: str,
        principal: Principal,
        connection_id: str,
        write: Callable[[DownFrame], Awaitable[None]],
        repeat_orders_s: float = math.inf,
    ) -> None:
        """``repeat_orders_s`` is how long an order may stand unanswered before it counts as lost on the way."""
        self._parts = parts
        self._identity = identity
        self._certificate_sha256 = certificate_sha256
        self._principal = principal
        self._connection_id = connection_id
        self._write = write
        self._signatures = BatchSignatures(parts.database, principal, identity.agent_id)
        self._writing = asyncio.Lock()
        self._batches: asyncio.Queue[Batch] = asyncio.Queue(_QUEUED)
        self._wake_orders = asyncio.Event()
        self._repeat_orders_s = repeat_orders_s
        self._sent_orders: dict[bytes, float] = {}
        self._plan_revision = 0
        self._plan_sent_at = 0.0
        self._site_revision = 0
        self._admitted_at = parts.clock.monotonic()
        self._beat: Heartbeat | None = None
        self._beaten = asyncio.Event()

    async def run(self, frames: AsyncIterator[UpFrame]) -> None:
        """Converse until the agent or the server ends the stream.

        Raises:
            StreamClosed: the agent broke the protocol, or may no longer act.
        """
        hello = await self._hello(frames)
        cursor = await self._take_link(hello)
        self._site_revision = hello.plan_revision
        _LOGGER.info("site %s: agent %s connected", hello.site_id, hello.agent_id)
        await self._resume(hello)
        try:
            await self._send(Welcome(cursor))
            async with asyncio.TaskGroup() as tasks:
                works = (self._store, self._record, self._push, self._listen, self._close)
                others = [tasks.create_task(work()) for work in works]
                await self._read(frames)
                for task in others:
                    task.cancel()
        except BaseExceptionGroup as group:
            closed = group.subgroup(StreamClosed)
            raise (closed.exceptions[0] if closed is not None else group.exceptions[0]) from None
        finally:
            await asyncio.shield(self._end())

    async def _take_link(self, hello: Hello) -> Cursor:
        """Make this stream the site's link and return the cursor; a second gateway is refused and reported."""
        try:
            return await self._threaded(lambda uow: service.link_up(uow, hello, self._connection_id))
        except SecondGateway as error:
            self._parts.counters.refused += 1
            code, detail = NoticeCode.SECOND_GATEWAY, str(error)
            await self._as_system(
                lambda uow: service.report_trust(uow, hello.site_id, hello.instance_id[:64], code, detail)
            )
            raise StreamClosed(grpc.StatusCode.ALREADY_EXISTS, str(error)) from None

    async def _resume(self, hello: Hello) -> None:
        """Open a signing epoch above an agent that has taken orders which are not known here."""
        opened = await self._as_system(
            lambda uow: orders.resume(uow, hello.site_id, hello.highest, hello.highest_order_id)
        )
        if opened is not None:
            _LOGGER.warning(
                "site %s: its agent has taken order %d.%d, which is not known here (was a backup put back?);"
                " signing epoch %d is opened: whatever was signed before is old to the site now",
                hello.site_id,
                *hello.highest,
                opened,
            )

    async def _hello(self, frames: AsyncIterator[UpFrame]) -> Hello:
        try:
            async with asyncio.timeout(_HELLO_WITHIN_S):
                frame = await self._next(frames)
        except TimeoutError:
            raise StreamClosed(grpc.StatusCode.DEADLINE_EXCEEDED, "no Hello came; say it first") from None
        if not isinstance(frame, Hello):
            raise StreamClosed(grpc.StatusCode.FAILED_PRECONDITION, "the first frame must be Hello")
        if (frame.site_id, frame.agent_id) != (self._identity.site_id, self._identity.agent_id):
            raise StreamClosed(
                grpc.StatusCode.PERMISSION_DENIED,
                f"the certificate is for agent {self._identity.agent_id} of site {self._identity.site_id};"
                " this Hello names another; enrol this agent",
            )
        return frame

    async def _read(self, frames: AsyncIterator[UpFrame]) -> None:
        while (frame := await self._next(frames)) is not None:
            match frame:
                case Heartbeat():
                    await self._answer(frame)
                case Batch():
                    if frame.site_id != self._identity.site_id:
                        raise StreamClosed(
                            grpc.StatusCode.PERMISSION_DENIED,
                            f"a batch for site {frame.site_id!r} on the link of site {self._identity.site_id}",
                        )
                    await self._batches.put(frame)
                case Hello():
                    raise StreamClosed(grpc.StatusCode.FAILED_PRECONDITION, "Hello came twice on one stream")

    async def _next(self, frames: AsyncIterator[UpFrame]) -> UpFrame | None:
        try:
            frame = await anext(frames)
            if isinstance(frame, Batch):
                service.check_frame(frame)
        except StopAsyncIteration:
            return None
        except MalformedFrame as error:
            self._parts.counters.refused += 1
            raise StreamClosed(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None
        return frame

    async def _answer(self, beat: Heartbeat) -> None:
        if len(beat.nonce) > _LONGEST_NONCE:
            raise StreamClosed(grpc.StatusCode.INVALID_ARGUMENT, "heartbeat: the nonce is too long")
        signed = SignedTime(self._identity.site_id, beat.nonce, self._parts.clock.now())
        await self._send(self._parts.time_key.sign(Domain.TIME, write_time(signed)))
        self._site_revision = beat.plan_revision
        self._beat = beat
        self._beaten.set()
        lagging = self._site_revision < self._plan_revision
        if lagging and self._parts.clock.monotonic() - self._plan_sent_at > _PLAN_LAG_S:
            self._sent_orders.clear()
            self._wake_orders.set()

    async def _record(self) -> None:
        """Keep the newest heartbeat in the link's row; those that come faster than the database are skipped."""
        while True:
            await self._beaten.wait()
            self._beaten.clear()
            try:
                current = await self._threaded(self._keep_beat)
                await self._admit_again()
            except Transient as error:
                self._parts.outage.failed(error)
                continue
            if not current:
                raise StreamClosed(grpc.StatusCode.ABORTED, f"a newer connection carries site {self._identity.site_id}")

    def _keep_beat(self, uow: UnitOfWork) -> bool:
        assert self._beat is not None
        return service.link_heard(uow, self._identity.site_id, self._connection_id, self._beat)

    async def _admit_again(self) -> None:
        now = self._parts.clock.monotonic()
        if now - self._admitted_at < _ADMIT_EVERY_S:
            return
        self._admitted_at = now
        try:
            await self._threaded(lambda uow: certificates.recheck(uow, self._identity, self._certificate_sha256))
        except Forbidden as error:
            raise StreamClosed(grpc.StatusCode.PERMISSION_DENIED, str(error)) from None

    async def _store(self) -> None:
        """Store what has arrived, several batches in one transaction, and send receipts."""
        while True:
            group = [await self._batches.get()]
            while not self._batches.empty():
                group.append(self._batches.get_nowait())
            for receipt in await self._stored(group):
                await self._send(receipt)

    async def _stored(self, group: Sequence[Batch]) -> list[Receipt]:
        pause_s = 0.05
        loop = asyncio.get_running_loop()
        while True:
            try:
                receipts = await loop.run_in_executor(self._parts.threads, self._store_group, group)
            except Transient as error:
                self._parts.outage.failed(error)
                await asyncio.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
            else:
                self._parts.outage.recovered()
                return receipts

    def _store_group(self, group: Sequence[Batch]) -> list[Receipt]:
        """Runs in a thread. Trying again after ``Transient`` is harmless: every step is idempotent."""
        prepared: list[service.PreparedBatch] = []
        for batch in group:
            try:
                prepared.append(service.prepare(batch, self._signatures.check(batch)))
            except BadSignature as error:
                self._parts.counters.unsigned += 1
                self._quarantine(batch, str(error))
            except MalformedFrame as error:
                self._quarantine(batch, str(error))
        if not prepared:
            return []
        try:
            with self._parts.database.unit_of_work(self._principal) as uow:
                receipts = list(service.ingest_prepared(uow, prepared))
        except (Conflict, Permanent):
            receipts = self._store_singly(prepared)
        self._parts.counters.batches += len(receipts)
        return receipts

    def _store_singly(self, prepared: Sequence[service.PreparedBatch]) -> list[Receipt]:
        receipts: list[Receipt] = []
        for item in prepared:
            try:
                with self._parts.database.unit_of_work(self._principal) as uow:
                    receipts += service.ingest_prepared(uow, [item])
            except (Conflict, Permanent) as error:
                self._quarantine(item.batch, str(error))
        return receipts

    def _quarantine(self, batch: Batch, cause: str) -> None:
        with self._parts.database.unit_of_work(self._principal) as uow:
            first_time = service.quarantine(uow, batch, cause)
        self._parts.counters.quarantined += 1
        if first_time:
            _LOGGER.warning("batch %s of epoch %s is quarantined: %s", batch.first_seq, batch.epoch, cause)

    async def _listen(self) -> None:
        """Wake the push of orders on NOTIFY."""
        async with self._parts.bus.subscribe(self._principal.tenant_id, ("order", "agents")) as queue:
            while True:
                message = await queue.get()
                if message["topic"] == "agents":
                    self._admitted_at = float("-inf")
                if message.get("site_id") in (None, self._identity.site_id):
                    self._wake_orders.set()

    async def _push(self) -> None:
        """Send orders not yet sent on this stream: at once, on a wake-up, and now and then in case one was lost."""
        outage = OutageLog(_LOGGER, f"orders of site {self._identity.site_id}")
        while True:
            try:
                await self._push_pending()
                outage.recovered()
            except (Transient, Refused) as error:
                outage.failed(error)
            self._wake_orders.clear()
            try:
                async with asyncio.timeout(1.0 if outage.failing else _LOOK_EVERY_S):
                    await self._wake_orders.wait()
            except TimeoutError:
                continue

    async def _push_pending(self) -> None:
        site_id, agent_id = self._identity.site_id, self._identity.agent_id
        signer = self._parts.signer
        await self._as_system(lambda uow: orders.refresh(uow, site_id, agent_id, signer))
        waiting = await self._as_system(lambda uow: orders.pending(uow, site_id, agent_id))
        self._plan_revision = waiting.plan_revision
        if waiting.plan is not None and await self._push_one(waiting.plan):
            self._plan_sent_at = self._parts.clock.monotonic()
            self._parts.counters.plans_sent += 1
        for command in waiting.commands:
            self._parts.counters.commands_sent += await self._push_one(command)

    async def _push_one(self, envelope: Envelope) -> bool:
        now = self._parts.clock.monotonic()
        if now - self._sent_orders.get(envelope.signature, -math.inf) < self._repeat_orders_s:
            return False
        await self._send(envelope)
        self._sent_orders[envelope.signature] = now
        return True

    async def _close(self) -> None:
        await self._parts.closing.wait()
        raise StreamClosed(grpc.StatusCode.UNAVAILABLE, "the cloud is stopping; connect again in a moment")

    async def _send(self, frame: DownFrame) -> None:
        async with self._writing:
            await self._write(frame)

    async def _threaded(self, work: Callable[[UnitOfWork], _Result]) -> _Result:
        return await self._in_thread(self._principal, work)

    async def _as_system(self, work: Callable[[UnitOfWork], _Result]) -> _Result:
        principal = Principal(self._principal.tenant_id, "site link", Role.SYSTEM, self._principal.sites)
        return await self._in_thread(principal, work)

    async def _in_thread(self, principal: Principal, work: Callable[[UnitOfWork], _Result]) -> _Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._parts.threads, self._parts.database.run, principal, work)

    async def _end(self) -> None:
        site_id = self._identity.site_id
        _LOGGER.info("site %s: agent %s disconnected", site_id, self._identity.agent_id)
        try:
            await self._threaded(lambda uow: service.link_down(uow, site_id, self._connection_id))
        except CloudError as error:
            # The row goes stale by itself: readers take a link that was not heard of for 20 s as down.
            _LOGGER.debug("site %s: the end of its link is not recorded: %s", site_id, error)
