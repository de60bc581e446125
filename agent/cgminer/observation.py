"""What one poll of a miner told, in our units. Pure.

Invariants: unknown is ``None`` or an empty tuple, never zero; a state without evidence is UNKNOWN with a reason.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from sitelink.miner_ids import is_mac
from sitelink.types import MinerState, PowerSource, Reading, Reason
from sitelink.units import Celsius, RevolutionsPerMinute, TeraHashPerSecond, Watts


class PoolShares(NamedTuple):
    """Shares of one pool since the miner started; None where the firmware does not count them."""

    accepted: int | None
    rejected: int | None
    stale: int | None


@dataclass(frozen=True, slots=True)
class Observation:
    """One miner as its replies describe it.

    ``hashrate_ths`` is the shortest window the firmware reports, ``hashrate_average_ths`` the mean since it started;
    only the former tells what the miner does now. ``expected_ths`` is nameplate or target. ``boards`` counts hash
    boards present. ``board_temps_c`` are sensors on boards or in the air stream through them, ``chip_temps_c`` are
    sensors in or at chips, both in the device's own order. ``fans_rpm`` holds every fan that reports a speed, without
    those inside the power supply (``psu_fans_rpm``); ``fans_percent`` holds duty figures. ``device_time`` is the
    device's own clock (``When``), which may be years off. ``control_board_id`` is the control board's own number, where
    the firmware gives it for a name. ``power_mode`` is the mode the miner is set to, in the firmware's own word or
    number. ``repaired`` names the rules that made a malformed reply
    readable; ``errors`` are the firmware's own error codes or lines. ``shown_s`` is between which monotonic seconds the
    device gave its figures. ``by_outlet``: the miner was silent, and the switch before it reads off.
    """

    dialect: str
    state: MinerState = MinerState.UNKNOWN
    reason: Reason = Reason.NOT_REPORTED
    model: str | None = None
    firmware: str | None = None
    mac: str | None = None
    serial: str | None = None
    control_board_id: str | None = None
    hostname: str | None = None
    hashrate_ths: TeraHashPerSecond | None = None
    hashrate_average_ths: TeraHashPerSecond | None = None
    expected_ths: TeraHashPerSecond | None = None
    power_w: Watts | None = None
    power_source: PowerSource = PowerSource.NONE
    power_limit_w: Watts | None = None
    power_mode: str | None = None
    board_temps_c: tuple[Celsius, ...] = ()
    chip_temps_c: tuple[Celsius, ...] = ()
    env_temp_c: Celsius | None = None
    fans_rpm: tuple[RevolutionsPerMinute, ...] = ()
    fans_percent: tuple[float, ...] = ()
    psu_fans_rpm: tuple[RevolutionsPerMinute, ...] = ()
    boards: int | None = None
    pools: tuple[PoolShares, ...] = ()
    uptime_s: int | None = None
    errors: tuple[str, ...] = ()
    device_time: datetime | None = None
    repaired: tuple[str, ...] = ()
    shown_s: tuple[float, float] | None = field(default=None, compare=False)
    by_outlet: bool = False

    def reading(self, miner_id: str, read_at: datetime) -> Reading:
        """Return this observation as the reading of ``miner_id``: hottest sensors, fastest fan, shares summed."""
        return Reading(
            miner_id=miner_id,
            read_at=read_at,
            state=self.state,
            reason=self.reason,
            hashrate_ths=self.hashrate_ths,
            power_w=self.power_w,
            power_source=self.power_source,
            board_temp_c=max(self.board_temps_c, default=None),
            chip_temp_c=max(self.chip_temps_c, default=None),
            fan_rpm=max(self.fans_rpm, default=None),
            accepted=_total([pool.accepted for pool in self.pools]),
            rejected=_total([pool.rejected for pool in self.pools]),
            uptime_s=self.uptime_s,
        )

    @property
    def identities(self) -> tuple[str, ...]:
        """Return what the device calls itself, lower-case: MAC first, then serial, then its control board's number."""
        names = (self.mac, self.serial, self.control_board_id)
        return tuple(dict.fromkeys(name.lower() for name in names if name))

    def answers_to(self, miner_id: str) -> bool | None:
        """Return whether ``miner_id`` is this device's name; None when it tells no name of that kind, MAC or serial."""
        name = miner_id.lower()
        if name in self.identities:
            return True
        serial = None if self.serial == self.control_board_id else self.serial
        comparable = self.mac if is_mac(name) else serial
        return None if comparable is None else False

    def tells_only_board(self, miner_id: str) -> bool:
        """Return whether the control board's number is all that ``miner_id``, which is no MAC, can be compared with."""
        return self.control_board_id is not None and not is_mac(miner_id)


def _total(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
