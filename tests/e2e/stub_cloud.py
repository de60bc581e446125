"""A cloud of one gRPC server: it stores batches once, answers with signed time, and pushes signed plans."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio

from agent.identity import Identity, store_identity
from agent.uplink import Tls
from agent.uplink.grpc_link import CONNECT_METHOD
from sitelink import codec
from sitelink.clock import SystemClock
from sitelink.orders import write_plan, write_time
from sitelink.signing import PrivateKey
from sitelink.types import (
    Ack,
    Domain,
    DownFrame,
    Heartbeat,
    JournalEntry,
    Notice,
    Reading,
    SignedTime,
    SitePlan,
    UpFrame,
)
from sitelink.v1 import link_pb2 as pb
from tests.contract.pki import Authority
from tests.unit.agent.uplink_fakes import FakeCloud


class StubCloud(FakeCloud):
    """Everything of ``FakeCloud``, with a real server, real signatures and a plan to push."""

    def __init__(self, site_id: str) -> None:
        super().__init__(site_id)
        self.clock = SystemClock()
        self.authority = Authority()
        self.order_key = PrivateKey.generate()
        self.time_key = PrivateKey.generate()
        self.plan: SitePlan | None = None
        self.streams: set[asyncio.Queue[DownFrame]] = set()

    def enrol(self, folder: Path) -> None:
        leaf = self.authority.leaf("agent-1")
        tls = Tls(self.authority.pem, leaf.certificate, leaf.key)
        keys = ((self.order_key.public_bytes,), (self.time_key.public_bytes,))
        store_identity(folder, Identity("tenant-1", self.site_id, "agent-1", *keys, tls))

    def push_plan(self, plan: SitePlan) -> None:
        self.plan = plan
        for stream in self.streams:
            stream.put_nowait(self.order_key.sign(Domain.PLAN, write_plan(plan)))

    def answer(self, frame: UpFrame) -> DownFrame | None:
        if isinstance(frame, Heartbeat):
            self.beats.append(frame)
            signed = SignedTime(self.site_id, frame.nonce, self.clock.now())
            return self.time_key.sign(Domain.TIME, write_time(signed))
        return super().answer(frame)

    async def connect(self, stream: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[DownFrame | None] = asyncio.Queue()
        reader = asyncio.create_task(self._read(stream, queue))
        try:
            while (frame := await queue.get()) is not None:
                yield codec.encode_down(frame).SerializeToString()
        finally:
            self.streams.discard(queue)
            reader.cancel()

    async def _read(self, stream: AsyncIterator[bytes], queue: asyncio.Queue[DownFrame | None]) -> None:
        try:
            async for raw in stream:
                if (answer := self.answer(codec.decode_up(pb.Up.FromString(raw)))) is not None:
                    queue.put_nowait(answer)
                if queue not in self.streams:
                    self.streams.add(queue)
                    if self.plan is not None:
                        queue.put_nowait(self.order_key.sign(Domain.PLAN, write_plan(self.plan)))
        finally:
            queue.put_nowait(None)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        leaf = self.authority.leaf()
        server = grpc.aio.server()
        _, service, method = CONNECT_METHOD.split("/")
        handler = grpc.stream_stream_rpc_method_handler(self.connect)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        credentials = grpc.ssl_server_credentials(
            ((leaf.key, leaf.certificate),), root_certificates=self.authority.pem, require_client_auth=True
        )
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        try:
            yield port
        finally:
            await server.stop(grace=None)

    def items(self) -> tuple[list[Reading], list[Ack], list[Notice]]:
        bodies = [codec.unpack(batch.payload) for _, batch in sorted(self.stored.items())]
        return (
            [reading for body in bodies for reading in body.readings],
            [ack for body in bodies for ack in body.acks],
            [notice for body in bodies for notice in body.notices],
        )

    def journal(self) -> list[JournalEntry]:
        """What has come of the journal, in the order of its batches."""
        bodies = [codec.unpack(batch.payload) for _, batch in sorted(self.stored.items())]
        return [entry for body in bodies for entry in body.journal]

    def renumbered(self, **changes: object) -> SitePlan:
        assert self.plan is not None
        return replace(self.plan, **changes)
