"""The link, more hostile than gRPC or MQTT: it loses, doubles, delays, reorders, works one way only, and says nothing.

    SimUplink --send--> Network --(lost, late, twice)--> SimCloud.hear
    SimUplink <--queue-- Network <--(lost, late, twice)-- SimCloud

Invariants: ``send`` means handed over; packets in flight survive the process that sent them, and reach no other
session; a frame that crosses nothing is swallowed in silence, as on a half-open connection.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from agent.errors import AccessDenied, Unreachable
from sitelink import codec
from sitelink.types import Batch, DownFrame, Envelope, Heartbeat, Hello, Receipt, UpFrame, Welcome
from sitelink.v1 import link_pb2 as pb

if TYPE_CHECKING:
    from tests.simulation.edge.world import EdgeLife, EdgeWorld

_ENDED = object()


def kind_of(frame: Any) -> str:
    match frame:
        case Batch():
            return f"batch {frame.first_seq}"
        case Receipt():
            return f"receipt {frame.first_seq}"
        case Envelope():
            return frame.domain.value.split("/")[1]
        case _:
            return type(frame).__name__.lower()


class Session:
    """One conversation; ``epoch`` numbers it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.down: asyncio.Queue[Any] = asyncio.Queue()
        self.closed = False
        self.greeted = False
        self.revision = 0
        self.sent_s: dict[bytes, float] = {}

    def end(self) -> None:
        if not self.closed:
            self.closed = True
            self.down.put_nowait(_ENDED)


class Network:
    def __init__(self, world: "EdgeWorld", rates: dict[str, float]) -> None:
        self._world = world
        self._rates = rates
        self.sessions = 0
        self.current: Session | None = None
        self.heard_down_s = 0.0
        """When a frame last came down to a living process."""

    def is_cut(self, way: str) -> bool:
        now_s = self._world.now_s
        for event in self._world.schedule.of("cut"):
            if event.what["way"] in (way, "both") and event.at_s <= now_s < event.what["until_s"]:
                return True
        return False

    def is_denied(self) -> bool:
        return any(e.at_s <= self._world.now_s < e.what["until_s"] for e in self._world.schedule.of("denied"))

    def open(self) -> Session:
        self.sessions += 1
        if self.current is not None:
            self.current.end()
        self.current = Session(self.sessions)
        return self.current

    def up(self, session: Session, frame: UpFrame) -> None:
        if self._world.schedule.real_keys:
            frame = codec.decode_up(pb.Up.FromString(codec.encode_up(frame).SerializeToString()))
        self._carry("up", frame, lambda: self._world.cloud.hear(session, frame))

    def down(self, session: Session, frame: DownFrame) -> None:
        if self._world.schedule.real_keys:
            frame = codec.decode_down(pb.Down.FromString(codec.encode_down(frame).SerializeToString()))

        def arrive() -> None:
            if not session.closed:
                self.heard_down_s = self._world.now_s
                session.down.put_nowait(frame)

        self._carry("down", frame, arrive)

    def _carry(self, way: str, frame: Any, arrive: Any) -> None:
        world, rng = self._world, self._world.rng_net
        quiet = world.now_s >= world.schedule.heal_s
        copies = 1
        if self.is_cut(way):
            world.cover(f"swallowed going {way}")
            return
        if not quiet and rng.random() < self._rates["lose"]:
            world.cover(f"lost going {way}")
            return
        if not quiet and rng.random() < self._rates["double"]:
            copies = 2
            world.cover(f"doubled going {way}")
        for _ in range(copies):
            delay_s = rng.uniform(0.02, 0.2) + (0.0 if quiet else self._rates["slow"])
            if not quiet and rng.random() < self._rates["late"]:
                delay_s += rng.uniform(0.5, max(0.6, self._rates["late_s"]))
                world.cover(f"late going {way}")
            world.loop.call_later(delay_s, self._arrive, way, frame, arrive)

    def _arrive(self, way: str, frame: Any, arrive: Any) -> None:
        if self.is_cut(way):
            return
        self._world.note(way, kind_of(frame))
        arrive()


class SimUplink:
    """``agent.uplink.Uplink`` of one life."""

    def __init__(self, world: "EdgeWorld", life: "EdgeLife") -> None:
        self._world, self._life = world, life
        self._session: Session | None = None
        life.last_words.append(self._die)

    async def connect(self) -> None:
        self._life.check()
        network = self._world.network
        await asyncio.sleep(self._world.rng_net.uniform(0.02, 0.2))
        self._life.check()
        if network.is_denied():
            self._world.cover("denied")
            raise AccessDenied("the certificate has expired; enrol again")
        if network.is_cut("up") or network.is_cut("down") or self._world.cloud.is_down():
            await asyncio.sleep(2.0)
            self._life.check()
            raise Unreachable("nobody answers")
        self._session = network.open()

    async def send(self, frame: UpFrame) -> None:
        session = self._open()
        name = {Batch: "batch", Hello: "hello", Heartbeat: "beat"}[type(frame)]
        if name != "beat":
            self._life.reach(f"up.{name}", after=False)
        self._world.network.up(session, frame)
        if name != "beat":
            self._life.reach(f"up.{name}", after=True)

    async def receive(self) -> DownFrame:
        self._life.check()
        frame = await self._open().down.get()
        self._life.check()
        if frame is _ENDED:
            raise Unreachable("the cloud closed the stream")
        if isinstance(frame, Receipt | Welcome):
            self._life.reach("down.receipt" if isinstance(frame, Receipt) else "down.welcome", after=False)
        return frame

    async def close(self) -> None:
        self._life.check()
        session, self._session = self._session, None
        if session is not None:
            session.closed = True

    def _open(self) -> Session:
        self._life.check()
        if self._session is None or self._session.closed:
            raise Unreachable("not connected")
        return self._session

    def _die(self) -> None:
        if self._session is not None:
            self._session.end()
