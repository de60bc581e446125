"""Which of the configured transports carries the link now.

Invariants:

* Only a transport that is used is imported: the preferred one alone, as long as it works.
* A transport is left after ``_FAILURES`` failures in a row; a conversation in which the cloud was heard for
  ``_STEADY_S`` ends the row.
* On another than the preferred one, the preferred one is tried beside it now and then, and is gone back to only once
  its connection stands. A return that does not hold for ``_PROVEN_S`` doubles the time until the next: a transport that
  comes and goes does not make the link flap.
* Nothing is carried over: what was in flight is sent again by whoever sent it.

    connect --> the way in use --_FAILURES--> the next in order, after the last the first
                        ^--- the preferred one stands beside it ---+
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from agent.errors import AgentError, BadInput, Transient, Unreachable
from agent.uplink.port import Uplink
from sitelink.clock import Clock
from sitelink.types import DownFrame, UpFrame, Welcome

_LOG: Final = logging.getLogger(__name__)
_FAILURES: Final = 2
_STEADY_S: Final = 60.0
_PROVEN_S: Final = 3600.0
_RETURN_S: Final = 300.0
_LONGEST_RETURN_S: Final = 4 * 3600.0
_LIBRARIES: Final = {"grpc": "grpc", "mqtt": "aiomqtt"}


@dataclass(frozen=True, slots=True)
class Way:
    """One configured transport; ``make`` loads its library."""

    name: str
    make: Callable[[], Uplink]


def check_installed(names: Sequence[str]) -> None:
    """Look for the libraries of transports, and load none.

    Raises:
        BadInput: one is not installed.
    """
    for name in names:
        if find_spec(_LIBRARIES[name]) is None:
            raise BadInput(
                f"[link] transports: {name} is not installed here; install ballast-agent[{name}], or leave {name} out"
            )


class Choice:
    """``Uplink`` over whichever of several transports works; the first is preferred."""

    def __init__(self, ways: Sequence[Way], clock: Clock) -> None:
        self._ways = tuple(ways)
        self._clock = clock
        self._made: dict[str, Uplink] = {}
        self._place = 0
        self._failures = 0
        self._connected_mono: float | None = None
        self._heard_mono: float | None = None
        self._left_mono = 0.0
        self._returned_mono: float | None = None
        self._return_s = _RETURN_S
        self._probe: asyncio.Task[None] | None = None
        self._stands = asyncio.Event()

    @property
    def name(self) -> str:
        """Return the transport in use."""
        return self._ways[self._place].name

    async def connect(self) -> None:
        """See ``Uplink.connect``: by the transport whose turn it is."""
        await self.close()
        if self._stands.is_set():
            self._stands.clear()
            self._go_back()
        else:
            try:
                await self._uplink(self._place).connect()
            except AgentError:
                self._failed()
                raise
        self._connected_mono = self._clock.monotonic()
        self._heard_mono = None
        if self._place:
            self._probe = asyncio.create_task(self._look_back())

    async def send(self, frame: UpFrame) -> None:
        """See ``Uplink.send``."""
        await self._uplink(self._place).send(frame)

    async def receive(self) -> DownFrame:
        """See ``Uplink.receive``."""
        uplink = self._uplink(self._place)
        frame = await (uplink.receive() if self._probe is None else self._unless_leaving(uplink))
        if not isinstance(frame, Welcome):
            self._heard_mono = self._clock.monotonic()
        return frame

    async def show(self, up: bool) -> None:
        """See ``Uplink.show``."""
        if self._connected_mono is not None:
            await self._uplink(self._place).show(up)

    async def close(self) -> None:
        """See ``Uplink.close``. How long the cloud was heard decides what is tried next."""
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)
        if self.name in self._made:
            await self._made[self.name].close()
        connected_mono, self._connected_mono = self._connected_mono, None
        if connected_mono is None or self._stands.is_set():
            return
        if (self._heard_mono or connected_mono) - connected_mono >= _STEADY_S:
            self._failures = 0
        else:
            self._failed()

    def _uplink(self, place: int) -> Uplink:
        way = self._ways[place]
        if way.name not in self._made:
            try:
                self._made[way.name] = way.make()
            except ImportError as error:
                raise Unreachable(
                    f"{way.name}: its library cannot be loaded: {error}; install ballast-agent[{way.name}] again"
                ) from None
        return self._made[way.name]

    def _failed(self) -> None:
        self._failures += 1
        if self._failures < _FAILURES or len(self._ways) == 1:
            return
        left, now_mono = self.name, self._clock.monotonic()
        if self._place == 0:
            hasty = self._returned_mono is not None and now_mono - self._returned_mono < _PROVEN_S
            self._return_s = min(_LONGEST_RETURN_S, 2 * self._return_s) if hasty else _RETURN_S
            self._returned_mono = None
            self._left_mono = now_mono
        self._place = (self._place + 1) % len(self._ways)
        self._failures = 0
        _LOG.warning("link: %s fails; trying %s", left, self.name)

    def _go_back(self) -> None:
        """Take up the preferred transport, which the probe has connected; one failure and it is left again."""
        _LOG.info("link: back from %s to %s", self.name, self._ways[0].name)
        self._place = 0
        self._failures = _FAILURES - 1
        self._returned_mono = self._clock.monotonic()

    async def _look_back(self) -> None:
        """Try the preferred transport now and then until it stands."""
        while True:
            since_s = self._clock.monotonic() - self._left_mono
            await asyncio.sleep(max(0.0, self._return_s - since_s))
            try:
                await self._uplink(0).connect()
            except AgentError as error:
                _LOG.debug("link: %s is not back: %s", self._ways[0].name, error)
                self._left_mono = self._clock.monotonic()
            except asyncio.CancelledError:
                await self._made[self._ways[0].name].close()
                raise
            else:
                self._stands.set()
                return

    async def _unless_leaving(self, uplink: Uplink) -> DownFrame:
        receiving = asyncio.ensure_future(uplink.receive())
        leaving = asyncio.ensure_future(self._stands.wait())
        try:
            await asyncio.wait((receiving, leaving), return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
        finally:
            receiving.cancel()
            leaving.cancel()
            await asyncio.gather(receiving, leaving, return_exceptions=True)
        raise Transient(f"{self._ways[0].name} stands again; going back to it from {self.name}")
