"""Bitaxe (AxeOS): one document over HTTP. Pure.

    GET /api/system/info -> {"hashRate": GH/s, "power": W, "temp": chip, "vrTemp": board, "fanrpm", "uptimeSeconds", ..}

Source: AxeOS web API; docs/devices.md. It has no stop command that both generations know: read only.
"""

from typing import Any, Final

from agent.cgminer.dialects.judgement import judge
from agent.cgminer.dialects.table import (
    Commands,
    Facts,
    Sensors,
    Table,
    Verdict,
    gigahash,
    known,
    live_temperature,
    percent,
    power,
    rpm,
)
from agent.cgminer.observation import PoolShares
from agent.cgminer.sections import Sections, at, mac, number, text, whole
from sitelink.types import PowerSource
from sitelink.units import Celsius

_INFO: Final = "/api/system/info"


def _sensors(sections: Sections) -> Sensors:
    return Sensors(
        board_temps_c=known([at(_INFO, "vrTemp", live_temperature)(sections)]),
        chip_temps_c=known([at(_INFO, key, _chip_temperature)(sections) for key in ("temp", "temp2")]),
        fans_rpm=known([at(_INFO, key, rpm)(sections) for key in ("fanrpm", "fan2rpm")]),
        fans_percent=known([at(_INFO, "fanspeed", percent)(sections)]),
        boards=1 if at(_INFO, "asicCount", whole)(sections) else None,
    )


def _chip_temperature(value: Any) -> Celsius | None:
    """Return a chip's temperature; -1 is how AxeOS says that no sensor is there."""
    return None if number(value) == -1 else live_temperature(value)


def _pools(sections: Sections) -> tuple[PoolShares, ...]:
    accepted, rejected = (at(_INFO, key, whole)(sections) for key in ("sharesAccepted", "sharesRejected"))
    return () if accepted is None and rejected is None else (PoolShares(accepted, rejected, None),)


def _judge(sections: Sections, facts: Facts) -> Verdict:
    paused = at(_INFO, "miningPaused", bool)(sections) is True
    return judge(facts, off=paused, hot=bool(at(_INFO, "overheat_mode", number)(sections)))


TABLE: Final = Table(
    dialect="bitaxe",
    commands=Commands(poll=(_INFO,), identity=(_INFO,), joins=False),
    fields={
        "hashrate_ths": (at(_INFO, "hashRate", gigahash),),
        "expected_ths": (at(_INFO, "expectedHashrate", gigahash),),
        "power_w": (at(_INFO, "power", power),),
        "uptime_s": (at(_INFO, "uptimeSeconds", whole),),
        "model": (at(_INFO, "deviceModel", text), at(_INFO, "ASICModel", text)),
        "firmware": (at(_INFO, "version", text),),
        "mac": (at(_INFO, "macAddr", mac),),
        "hostname": (at(_INFO, "hostname", text),),
    },
    sensors=_sensors,
    judge=_judge,
    power_source=PowerSource.DEVICE,
    pools=_pools,
)
