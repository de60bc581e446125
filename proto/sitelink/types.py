"""The values that agent, cloud and simulator exchange. Pure: no I/O, no clock, no framework.

Invariants:

* Unknown is ``None``, never zero; a miner whose state is not known is ``UNKNOWN`` with a reason.
* Times are aware UTC; intervals are half-open ``[start, end)``.
* A ``Batch`` is sealed once and never re-cut: the same ``(site_id, epoch, first_seq)`` always carries the same
  bytes, so sending it again is harmless.

      epoch e:  | batch 0..9 | batch 10..17 | batch 18..18 | ...     items are numbered without gaps
                  settled      in flight      waiting
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sitelink.units import Celsius, RevolutionsPerMinute, TeraHashPerSecond, Watts


class MinerState(StrEnum):
    """What a miner is doing, as far as evidence goes."""

    HASHING = "hashing"
    IDLE = "idle"
    UNKNOWN = "unknown"


class Reason(StrEnum):
    """Why a miner is in its state."""

    NONE = "none"
    COMMANDED = "commanded"
    STARTING = "starting"
    THERMAL = "thermal"
    FAULT = "fault"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    GARBLED = "garbled"
    ACCESS_DENIED = "access_denied"
    WRONG_DEVICE = "wrong_device"
    SESSION_BUSY = "session_busy"
    NOT_REPORTED = "not_reported"


class PowerSource(StrEnum):
    """Where a power figure comes from, best first."""

    METER = "meter"
    DEVICE = "device"
    ESTIMATE = "estimate"
    NONE = "none"


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


@dataclass(frozen=True, slots=True)
class Reading:
    """One miner read once.

    ``board_temp_c`` and ``chip_temp_c`` are the hottest of their kind; ``fan_rpm`` is the fastest fan.
    """

    miner_id: str
    read_at: datetime
    state: MinerState
    reason: Reason = Reason.NONE
    hashrate_ths: TeraHashPerSecond | None = None
    power_w: Watts | None = None
    power_source: PowerSource = PowerSource.NONE
    board_temp_c: Celsius | None = None
    chip_temp_c: Celsius | None = None
    fan_rpm: RevolutionsPerMinute | None = None
    accepted: int | None = None
    rejected: int | None = None
    uptime_s: int | None = None


@dataclass(frozen=True, slots=True)
class MeterSample:
    """One reading of a site or feeder meter; ``power_w`` None means the meter did not answer."""

    meter_id: str
    read_at: datetime
    power_w: Watts | None
    energy_wh: float | None = None


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


class NoticeCode(StrEnum):
    """What a site reports beside readings and acks."""

    PLAN_ACCEPTED = "plan_accepted"
    PLAN_REFUSED = "plan_refused"
    COMMAND_ACCEPTED = "command_accepted"
    COMMAND_REFUSED = "command_refused"
    LIAR_NAMED = "liar_named"
    FEEDER_DISAGREES = "feeder_disagrees"
    FALLBACK_STARTED = "fallback_started"
    FALLBACK_ENDED = "fallback_ended"
    LINK_LOST = "link_lost"
    LINK_RESTORED = "link_restored"
    AGENT_STARTED = "agent_started"
    CLOCK_TRUST_CHANGED = "clock_trust_changed"
    CURTAILMENT_STARTED = "curtailment_started"
    CURTAILMENT_HELD = "curtailment_held"
    CURTAILMENT_RELEASED = "curtailment_released"
    CURTAILMENT_RESTORED = "curtailment_restored"
    OVERRIDE_SET = "override_set"
    SELF_WOKEN = "self_woken"
    BUFFER_GAP = "buffer_gap"
    JOURNAL_LOST = "journal_lost"


@dataclass(frozen=True, slots=True)
class Notice:
    """One event at a site. ``subject`` is a miner, feeder, plan or curtailment id; ``detail`` is one plain line."""

    notice_id: str
    at: datetime
    code: NoticeCode
    subject: str
    detail: str


class BatchKind(StrEnum):
    """CONTROL batches (acks, notices) go up before TELEMETRY (readings, meter samples)."""

    TELEMETRY = "telemetry"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class BatchBody:
    """What a batch carries. Items are numbered in the order readings, meters, acks, notices."""

    readings: tuple[Reading, ...] = ()
    meters: tuple[MeterSample, ...] = ()
    acks: tuple[Ack, ...] = ()
    notices: tuple[Notice, ...] = ()

    def __len__(self) -> int:
        return len(self.readings) + len(self.meters) + len(self.acks) + len(self.notices)


@dataclass(frozen=True, slots=True)
class Batch:
    """A sealed run of ``count`` items starting at ``first_seq``; ``payload`` is ``codec.pack(body)``."""

    site_id: str
    epoch: str
    first_seq: int
    count: int
    kind: BatchKind
    sealed_at: datetime
    payload: bytes

    @property
    def last_seq(self) -> int:
        """Return the sequence number of the last item."""
        return self.first_seq + self.count - 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the cloud has stored one epoch without a gap; ``through_seq`` is -1 before the first item."""

    site_id: str
    epoch: str
    through_seq: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """The cloud's word that items are stored: ``first_seq..last_seq``, and everything up to ``through_seq``."""

    site_id: str
    epoch: str
    first_seq: int
    last_seq: int
    through_seq: int


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


@dataclass(frozen=True, slots=True)
class SignedTime:
    """The cloud's time, answering the ``nonce`` of one heartbeat so that an old answer cannot be replayed."""

    site_id: str
    nonce: str
    cloud_time: datetime


class ClockTrust(StrEnum):
    """How far a site may act on its idea of the time."""

    SYNCED = "synced"
    HELD = "held"
    UNTRUSTED = "untrusted"


@dataclass(frozen=True, slots=True)
class Hello:
    """What an agent says first on a stream. ``key_ids`` are the order keys it trusts."""

    site_id: str
    agent_id: str
    agent_version: str
    epoch: str
    next_seq: int
    plan_revision: int
    key_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The state of a site's link, sent every few seconds."""

    nonce: str
    plan_revision: int
    clock_trust: ClockTrust
    backlog_batches: int
    backlog_bytes: int
    next_seq: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """The cloud's answer to ``Hello``: how far it has stored this epoch."""

    cursor: Cursor


class Domain(StrEnum):
    """What a signature is for; a signature made for one domain never verifies in another."""

    PLAN = "ballast/plan/v1"
    COMMAND = "ballast/command/v1"
    TIME = "ballast/time/v1"


@dataclass(frozen=True, slots=True)
class Envelope:
    """Signed canonical bytes: exactly what was signed travels, and only that is parsed."""

    domain: Domain
    key_id: str
    payload: bytes
    signature: bytes


UpFrame = Hello | Heartbeat | Batch
DownFrame = Welcome | Receipt | Envelope
