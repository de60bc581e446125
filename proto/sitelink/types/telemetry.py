"""What is read of miners and meters. Unknown is ``None``, never zero; an unknown state has a reason."""

from dataclasses import dataclass
from datetime import datetime
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
