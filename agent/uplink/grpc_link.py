"""The link over one bidirectional gRPC stream and mutual TLS.

Invariants: every wait but ``receive`` has a deadline; a connection whose other end fell silent is noticed by keepalive
here and by the forwarder's heartbeats above, whichever is first.
"""

import asyncio
from typing import Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from agent.errors import AccessDenied, AgentError, Garbled, TimedOut, Transient, Unreachable
from agent.settings import Endpoint, Proxy
from agent.uplink.port import Tls
from sitelink import codec
from sitelink.types import DownFrame, UpFrame
from sitelink.v1 import link_pb2 as pb

CONNECT_METHOD: Final = "/ballast.sitelink.v1.SiteLink/Connect"
_DENIED: Final = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
_Call = grpc.aio.StreamStreamCall[bytes, bytes]


class GrpcUplink:
    """``Uplink`` over gRPC."""

    def __init__(
        self,
        endpoint: Endpoint,
        tls: Tls,
        server_name: str,
        *,
        deadline_s: float,
        keepalive_s: float,
        proxy: Proxy | None = None,
        more_ca_pem: str = "",
    ) -> None:
        """``deadline_s`` bounds connecting and each send; ``keepalive_s`` is the silence before a ping.

        ``more_ca_pem`` are CAs believed beside the enrolment's.
        """
        self._endpoint = endpoint
        roots = tls.ca_pem + b"\n" + more_ca_pem.encode("ascii")
        self._credentials = grpc.ssl_channel_credentials(roots, tls.key_pem, tls.certificate_pem)
        self._deadline_s = deadline_s
        self._options = (
            ("grpc.ssl_target_name_override", server_name),
            ("grpc.use_local_subchannel_pool", 1),  # our own backoff rules, not one shared inside grpc
            ("grpc.keepalive_time_ms", int(keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", int(deadline_s * 1000)),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.enable_retries", 0),
            *proxy_options(proxy),
        )
        self._channel: grpc.aio.Channel | None = None
        self._call: _Call | None = None
        self._one_write = asyncio.Lock()  # grpc allows one write at a time

    async def connect(self) -> None:
        """See ``Uplink.connect``."""
        await self.close()
        channel = grpc.aio.secure_channel(str(self._endpoint), self._credentials, options=self._options)
        self._channel = channel
        try:
            async with asyncio.timeout(self._deadline_s):
                call: _Call = channel.stream_stream(CONNECT_METHOD)()
                await call.wait_for_connection()
        except TimeoutError:
            await self.close()
            raise TimedOut(f"{self._endpoint}: no connection within {self._deadline_s:g} s") from None
        except grpc.aio.AioRpcError as error:
            await self.close()
            raise _translated(self._endpoint, error) from None
        self._call = call

    async def send(self, frame: UpFrame) -> None:
        """See ``Uplink.send``."""
        call = self._open_call()
        try:
            async with asyncio.timeout(self._deadline_s), self._one_write:
                await call.write(codec.encode_up(frame).SerializeToString())
        except TimeoutError:
            raise TimedOut(f"{self._endpoint}: takes nothing more for {self._deadline_s:g} s") from None
        except grpc.aio.AioRpcError as error:
            raise _translated(self._endpoint, error) from None
        except asyncio.InvalidStateError:
            raise Unreachable(f"{self._endpoint}: the stream has ended") from None

    async def receive(self) -> DownFrame:
        """See ``Uplink.receive``. It has no deadline: cancelling it ends the stream."""
        call = self._open_call()
        try:
            raw = await call.read()
        except grpc.aio.AioRpcError as error:
            raise _translated(self._endpoint, error) from None
        if not isinstance(raw, bytes):
            raise Unreachable(f"{self._endpoint}: the cloud closed the stream")
        try:
            return codec.decode_down(pb.Down.FromString(raw))
        except (codec.MalformedFrame, DecodeError) as error:
            raise Garbled(f"{self._endpoint}: {error}") from None

    async def show(self, up: bool) -> None:
        """See ``Uplink.show``: the stream's only watcher is the cloud."""

    async def close(self) -> None:
        """See ``Uplink.close``."""
        call, self._call = self._call, None
        channel, self._channel = self._channel, None
        if call is not None:
            call.cancel()
        if channel is not None:
            await channel.close(grace=None)

    def _open_call(self) -> _Call:
        if self._call is None:
            raise Unreachable(f"{self._endpoint}: not connected")
        return self._call


def proxy_options(proxy: Proxy | None) -> tuple[tuple[str, str | int], ...]:
    """Return the channel options by which gRPC goes through ``proxy``, or through none at all."""
    if proxy is None:
        return (("grpc.enable_http_proxy", 0),)
    return (("grpc.http_proxy", proxy.url),)


def _translated(endpoint: Endpoint, error: grpc.aio.AioRpcError) -> AgentError:
    said = (error.details() or error.code().name).splitlines()[0]
    if error.code() in _DENIED:
        return AccessDenied(f"{endpoint}: the cloud does not accept this agent: {said}; enrol again if it was removed")
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return Unreachable(f"{endpoint}: {said}")
    return Transient(f"{endpoint}: {error.code().name}: {said}")
