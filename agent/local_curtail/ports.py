"""What local curtailment needs from outside: a miner under control, a feeder's meter, a place for acks.

Invariant: nothing here imports a network, a framework or generated messages; fakes and real adapters fit alike.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from sitelink.types import BatchBody, ClockTrust, MeterSample, MinerState, Reason
from sitelink.units import Celsius, TeraHashPerSecond, Watts

if TYPE_CHECKING:
    import sqlite3

if TYPE_CHECKING:
    from agent.cgminer.control.driver import Result, Wanted


class Observed(Protocol):
    """The part of an observation that a verdict rests on; unknown is None."""

    @property
    def state(self) -> MinerState:
        """Return what the device says it does."""
        ...

    @property
    def reason(self) -> Reason:
        """Return why."""
        ...

    @property
    def power_w(self) -> Watts | None:
        """Return the power the device reports."""
        ...

    @property
    def hashrate_ths(self) -> TeraHashPerSecond | None:
        """Return the hash rate the device reports."""
        ...

    @property
    def uptime_s(self) -> int | None:
        """Return the seconds since the device started."""
        ...

    @property
    def shown_s(self) -> tuple[float, float] | None:
        """Return between which monotonic seconds the device gave its figures, None where nobody knows."""
        ...


class Control(Protocol):
    """One miner under control. ``stop`` and ``start`` re-read its identity first and raise WrongDevice."""

    async def identity(self) -> str:
        """Return the device's own identity, read afresh."""
        ...

    async def stop(self) -> None:
        """Order a stop; returning proves nothing. Raises Transient, Permanent or Refused."""
        ...

    async def start(self) -> None:
        """Order a start; returning proves nothing. Raises Transient, Permanent or Refused."""
        ...

    async def observe(self) -> Observed:
        """Read the device. Raises Transient or Permanent."""
        ...


@runtime_checkable
class Warm(Protocol):
    """An observation that tells temperatures."""

    @property
    def board_temps_c(self) -> tuple[Celsius, ...]:
        """Return what sensors on boards, or in the air stream through them, show."""
        ...

    @property
    def chip_temps_c(self) -> tuple[Celsius, ...]:
        """Return what sensors in or at chips show."""
        ...

    @property
    def power_w(self) -> Watts | None:
        """Return the power the device reports."""
        ...


@runtime_checkable
class Glances(Protocol):
    """A control whose device tells what it draws in fewer requests than all of it."""

    async def glance(self, idle_w: Watts) -> Observed:
        """Read whether the device hashes and what it draws, and why once it draws no more than ``idle_w``.

        Raises Transient or Permanent.
        """
        ...


@runtime_checkable
class Orderable(Protocol):
    """A control that can be told more than stop and start."""

    async def carry_out(
        self,
        wanted: "Wanted",
        keep: Callable[[str], Awaitable[None]],
        *,
        kept: str = "",
        deadline_s: float | None = None,
    ) -> "Result":
        """Carry any verb out to what the device shows; ``keep`` stores what is replaced right before sending.

        Raises Transient, Permanent or Refused: nothing was sent.
        """
        ...


@runtime_checkable
class GivesWay(Protocol):
    """A control with orders under way that are worth less than a stop or a start."""

    async def make_way(self) -> None:
        """End them, so that the miner can be looked at now. Never raises."""
        ...


class FeederMeter(Protocol):
    """The meter of one feeder."""

    async def read(self) -> MeterSample:
        """Return one sample; ``power_w`` None when the meter does not answer. Never raises."""
        ...


class SiteNow(Protocol):
    """Who knows the site's time."""

    def now(self) -> tuple[datetime, ClockTrust]:
        """Return the time in UTC and its trust."""
        ...


class Outbox(Protocol):
    """Where acks and notices wait for the cloud, inside the caller's transaction."""

    def append_in(self, connection: "sqlite3.Connection", body: BatchBody) -> object:
        """Store ``body`` in the transaction of ``connection``."""
        ...
