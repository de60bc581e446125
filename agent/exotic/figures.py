"""asic-rs' data of one miner to an observation. Pure.

Invariant: nothing here raises on any document; ``is_mining`` and the operating state are not looked at, because the
library takes a silent miner for a mining one.
"""

from collections.abc import Mapping
from typing import Any

from agent.cgminer.dialects.table import hashrate, known, live_temperature, positive_power, power, turning
from agent.cgminer.observation import Observation, PoolShares
from agent.cgminer.sections import mac, rows_of, text, whole
from sitelink.miners import EXOTIC
from sitelink.types import MinerState, PowerSource, Reason
from sitelink.units import TeraHashPerSecond, Watts

_UNITS = {"H/s": "H", "KH/s": "KH", "MH/s": "MH", "GH/s": "GH", "TH/s": "TH", "PH/s": "PH"}
_CHIP_KEYS = ("inlet_chip_temperature", "outlet_chip_temperature")


def observation_of(data: Mapping[str, Any]) -> Observation:
    """Return what ``data`` (``MinerData`` as the library dumps it) tells. Never raises."""
    rate = _rate(data.get("hashrate"))
    power_w = power(data.get("wattage"))
    boards = rows_of(data.get("hashboards"))
    return Observation(
        dialect=EXOTIC,
        state=_state(rate),
        reason=Reason.NONE if rate else Reason.NOT_REPORTED,
        model=_model(data.get("device_info")),
        firmware=text(data.get("firmware_version")),
        mac=mac(data.get("mac")),
        serial=text(data.get("serial_number")),
        hostname=text(data.get("hostname")),
        hashrate_ths=rate,
        expected_ths=_rate(data.get("expected_hashrate")) or None,
        power_w=power_w,
        power_source=PowerSource.NONE if power_w is None else PowerSource.ESTIMATE,
        power_limit_w=_limit(data.get("tuning_target")),
        board_temps_c=known([live_temperature(board.get("board_temperature")) for board in boards]),
        chip_temps_c=known([live_temperature(board.get(key)) for board in boards for key in _CHIP_KEYS]),
        fans_rpm=known([turning(fan.get("rpm")) for fan in rows_of(data.get("fans"))]),
        psu_fans_rpm=known([turning(fan.get("rpm")) for fan in rows_of(data.get("psu_fans"))]),
        boards=len(boards) or None,
        pools=tuple(
            PoolShares(whole(pool.get("accepted_shares")), whole(pool.get("rejected_shares")), None)
            for group in rows_of(data.get("pools"))
            for pool in rows_of(group.get("pools"))
        ),
        uptime_s=whole(data.get("uptime")),
    )


def _state(rate: TeraHashPerSecond | None) -> MinerState:
    if rate is None:
        return MinerState.UNKNOWN
    return MinerState.HASHING if rate > 0 else MinerState.IDLE


def _rate(value: Any) -> TeraHashPerSecond | None:
    if not isinstance(value, Mapping):
        return None
    unit = _UNITS.get(str(value.get("unit")))
    return None if unit is None else hashrate(value.get("value"), unit)


def _model(info: Any) -> str | None:
    if not isinstance(info, Mapping):
        return None
    return " ".join(part for part in (text(info.get("make")), text(info.get("model"))) if part) or None


def _limit(target: Any) -> Watts | None:
    if not isinstance(target, Mapping) or target.get("type") != "power":
        return None
    return positive_power(target.get("value"))
