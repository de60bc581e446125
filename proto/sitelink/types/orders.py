"""What is ordered of miners, by plan or by command, and how it ended. Intervals are half-open ``[start, end)``."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sitelink.units import Watts


@dataclass(frozen=True, slots=True)
class Interval:
    """The half-open time span ``[start, end)``.

    Raises:
        ValueError: a bound is naive, or the end is not after the start.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("an interval needs aware times")
        if self.end <= self.start:
            raise ValueError(f"an interval must end after it starts: {self.start} .. {self.end}")

    @property
    def duration(self) -> timedelta:
        """Return the length of the span."""
        return self.end - self.start

    def contains(self, moment: datetime) -> bool:
        """Return whether ``moment`` lies in the span."""
        return self.start <= moment < self.end


class Verb(StrEnum):
    """What an order asks for.

    STOP, START, LIMIT, POOLS, BLINK and PASSWORD are desired states: read back, and safe to repeat. REBOOT, FIRMWARE
    and LOGS are done once: written down before they are sent, and resolved by looking at the device.
    Stored state counts verbs in this order: a new one comes last.
    """

    STOP = "stop"
    START = "start"
    REBOOT = "reboot"
    LIMIT = "limit"
    POOLS = "pools"
    BLINK = "blink"
    PASSWORD = "password"  # noqa: S105 - a verb, not a password
    FIRMWARE = "firmware"
    LOGS = "logs"


class Outcome(StrEnum):
    """How an order ended for one miner."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    UNVERIFIED = "unverified"
    REFUSED = "refused"
    EXPIRED = "expired"


class Evidence(StrEnum):
    """What an outcome rests on, best first."""

    SITE_METER = "site_meter"
    FEEDER_METER = "feeder_meter"
    DEVICE_POWER = "device_power"
    DEVICE_STATE = "device_state"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Ack:
    """The outcome of an order for one miner, or for the whole order when ``miner_id`` is empty.

    ``order_id`` is a curtailment id or a command id. ``reason`` is a stable code such as ``power_below_idle``,
    ``still_hashing``, ``feeder_did_not_drop``, ``wrong_device``, ``unreachable``.
    """

    ack_id: str
    order_id: str
    plan_revision: int
    miner_id: str
    verb: Verb
    outcome: Outcome
    evidence: Evidence
    reason: str
    at: datetime
    power_before_w: Watts | None = None
    power_after_w: Watts | None = None


class CurtailmentCause(StrEnum):
    """Why a curtailment was planned."""

    PRICE = "price"
    MUST_SHED = "must_shed"
    MANUAL = "manual"


class Fallback(StrEnum):
    """What a site does when it may not or cannot follow a plan (expired, or clock untrusted)."""

    RUN = "run"
    HOLD = "hold"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Ramp:
    """At most ``step_w`` of load is switched every ``step_s`` seconds; ``step_w`` 0 means no limit."""

    step_w: Watts
    step_s: float


@dataclass(frozen=True, slots=True)
class Curtailment:
    """One shutdown with its release.

    ``interval.start`` begins the ramp down, ``interval.end`` begins the ramp up. ``miner_ids`` is the stop order
    (least efficient first); the restore order is its reverse.
    """

    curtailment_id: str
    cause: CurtailmentCause
    interval: Interval
    miner_ids: tuple[str, ...]
    ramp_down: Ramp
    ramp_up: Ramp
    target_power_w: Watts | None = None


@dataclass(frozen=True, slots=True)
class SitePlan:
    """Everything a site needs to act alone. Plans are ordered by ``(signing_epoch, sequence)``; the later one wins.

    ``valid.end`` must not be before the last release: a site never accepts a stop without its start.
    """

    plan_id: str
    site_id: str
    agent_id: str
    signing_epoch: int
    sequence: int
    revision: int
    issued_at: datetime
    valid: Interval
    fallback: Fallback
    curtailments: tuple[Curtailment, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """One order outside the plan, valid in ``[not_before, expires_at)``, ordered like plans.

    ``parameters`` are what the verb needs (LIMIT: ``power_w`` or ``mode``; POOLS: ``pools``; BLINK: ``on``; FIRMWARE:
    ``file``, ``sha256``, ``version``), by name in order. ``approved_by`` are the people who stand for it: FIRMWARE
    needs two.
    """

    command_id: str
    site_id: str
    agent_id: str
    signing_epoch: int
    sequence: int
    not_before: datetime
    expires_at: datetime
    verb: Verb
    miner_ids: tuple[str, ...]
    reason: str
    parameters: tuple[tuple[str, str], ...] = ()
    approved_by: tuple[str, ...] = ()
