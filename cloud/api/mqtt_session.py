"""One agent's connection through a broker, as the stream that a ``Conversation`` holds.

Invariants:

* A frame is taken when the certificate that opened the connection signed it for this agent's topic, on this connection,
  and its number is new. The broker can read and withhold; it can neither make nor change nor repeat a frame.
* What waits here is bounded by number and bytes; an agent that sends beyond it has its connection closed, and sends
  again what has no receipt.
* It ends with the agent's last will, with its silence, or when the conversation does.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import aiomqtt
import grpc
from google.protobuf.message import DecodeError

from cloud.api.link_conversation import StreamClosed
from cloud.core.access import Principal
from cloud.identity.model import AgentIdentity, CertificateFacts
from sitelink.brokered import HALF_BYTES, AgentSeal, Topics, Window, seal_down
from sitelink.codec import MalformedFrame, decode_up, encode_brokered, encode_down, encode_sealed
from sitelink.signing import PrivateKey
from sitelink.types import Batch, Brokered, Closed, DownFrame, Opened, Sealed, UpFrame
from sitelink.v1 import link_pb2 as pb

_WAITING_FRAMES: Final = 256
_WAITING_BYTES: Final = 16 * 1024 * 1024
_WRITE_S: Final = 15.0

Publish = Callable[[str, bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Admitted:
    """An agent that the cloud has admitted, by the certificate that it showed."""

    identity: AgentIdentity
    shown: CertificateFacts
    principal: Principal


class Voice:
    """Says things to one agent on one connection, sealed with the cloud's key and numbered."""

    def __init__(self, key: PrivateKey, publish: Publish, topics: Topics, connection: bytes) -> None:
        self._key = key
        self._publish = publish
        self._topics = topics
        self._connection = connection
        self._number = 0

    async def say(self, content: Opened | Closed | bytes) -> None:
        """Publish ``content``.

        Raises:
            StreamClosed: the broker takes nothing.
        """
        number, self._number = self._number, self._number + 1
        said = encode_brokered(Brokered(self._connection, number, content))
        payload = encode_sealed(seal_down(self._key, self._topics.down, said))
        try:
            async with asyncio.timeout(_WRITE_S):
                await self._publish(self._topics.down, payload)
        except (TimeoutError, aiomqtt.MqttError) as error:
            raise StreamClosed(grpc.StatusCode.UNAVAILABLE, f"the broker takes nothing: {error}") from None


class Session:
    """The frames of one connection, from Opened to its end."""

    def __init__(
        self, admitted: Admitted, topics: Topics, connection: bytes, silence_s: float, voice: Voice, room: "Room"
    ) -> None:
        self.admitted = admitted
        self.topics = topics
        self.connection = connection
        self.voice = voice
        self._silence_s = silence_s
        self._seal = AgentSeal(admitted.shown.pem)
        self._window = Window()
        self._room = room
        self._waiting: asyncio.Queue[tuple[UpFrame, int] | MalformedFrame | None] = asyncio.Queue()
        self._bytes = 0
        self._over = False

    def take(self, sealed: Sealed, message: Brokered) -> None:
        """Take one message of this connection, or ignore it.

        Raises:
            BadSignature: the agent did not say this here.
        """
        self._seal.open(self.topics.up, sealed)
        if not isinstance(message.content, bytes) or not self._window.take(message.number) or self._over:
            return
        try:
            frame = decode_up(pb.Up.FromString(message.content))
        except (MalformedFrame, DecodeError) as error:
            self._waiting.put_nowait(MalformedFrame(str(error)))
            return
        size = len(message.content)
        if self._waiting.qsize() >= _WAITING_FRAMES or self._bytes + size > _WAITING_BYTES:
            self._waiting.put_nowait(MalformedFrame("more is under way than the link holds; wait for receipts"))
            self._over = True
            return
        if isinstance(frame, Batch) and not self._room.has(size):
            return
        self._room.enter(size)
        self._bytes += size
        self._waiting.put_nowait((frame, size))

    def end(self) -> None:
        """Let the frames end."""
        self._over = True
        self._waiting.put_nowait(None)

    async def frames(self) -> AsyncIterator[UpFrame]:
        """Yield frames until the agent is gone: it said so, its will did, or it was silent for too long.

        Raises:
            MalformedFrame: one cannot be read, or too many came.
        """
        try:
            while True:
                try:
                    async with asyncio.timeout(self._silence_s):
                        item = await self._waiting.get()
                except TimeoutError:
                    return
                if item is None:
                    return
                if isinstance(item, MalformedFrame):
                    raise item
                frame, size = item
                self._bytes -= size
                self._room.leave(size)
                yield frame
        finally:
            self._over = True
            self._room.leave(self._bytes)
            self._bytes = 0

    async def write(self, frame: DownFrame) -> None:
        """Send ``frame``. Raises StreamClosed."""
        await self.voice.say(encode_down(frame).SerializeToString())


class Room:
    """How many bytes all connections together may hold. A batch that does not fit is dropped, and sent again."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held_bytes = 0
        self.dropped = 0

    def has(self, size: int) -> bool:
        """Return whether ``size`` bytes fit; what does not is counted as dropped."""
        fits = self._held_bytes + size <= self._most_bytes
        self.dropped += not fits
        return fits

    def enter(self, size: int) -> None:
        """Take ``size`` bytes in."""
        self._held_bytes += size

    def leave(self, size: int) -> None:
        """Give ``size`` bytes back."""
        self._held_bytes -= size


def is_farewell(payload: bytes, connection: bytes) -> bool:
    """Return whether a retained state or last will says that ``connection`` has ended."""
    try:
        said = json.loads(payload)
    except ValueError:
        return False
    return bool(
        isinstance(said, dict)
        and said.get("link") == "down"
        and said.get("connection") == connection[:HALF_BYTES].hex()
    )
