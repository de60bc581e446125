"""Obelisk SC1 and its kin, both generations. Pure.

    GET /api/info             -> {"macAddress", "model", "vendor": "Obelisk"}          open to all
    GET /api/status/dashboard -> {"hashboardStatus": [..], "poolStatus": [..], "systemInfo": [{"name", "value"}]}

The dashboard wants a session. Rates are MH/s; the first generation states only the average since start, so a board
that fell silent shows late. Source: the vendor's web page's own API, as the captures show it.
"""

from typing import Any, Final

from agent.cgminer.credentials import Credentials
from agent.cgminer.dialects.documents import listed
from agent.cgminer.dialects.judgement import judge_by_hashrate
from agent.cgminer.dialects.table import (
    Commands,
    Login,
    Sensors,
    Table,
    known,
    live_temperature,
    megahash,
    percent,
    rpm,
)
from agent.cgminer.observation import PoolShares
from agent.cgminer.sections import Reader, Row, Sections, at, mac, text, whole
from sitelink.types import PowerSource
from sitelink.units import TeraHashPerSecond

_INFO: Final = "/api/info"
_DASHBOARD: Final = "/api/status/dashboard"
_NOW: Final = ("mhs1m", "hashrate1min", "mhs5m", "hashrate5min", "hashrate15min", "mhsAvg")
_AVERAGE: Final = ("mhsAvg", "hashrate1hr", "hashrate5min")
_MAX_PERCENT: Final = 100


def _over_boards(keys: tuple[str, ...]) -> Reader[TeraHashPerSecond]:
    """Return a reader of a rate summed over the boards, by the first of ``keys`` that a board has."""

    def reader(sections: Sections) -> TeraHashPerSecond | None:
        boards = listed(sections, _DASHBOARD, "hashboardStatus")
        rates = [next((megahash(board[key]) for key in keys if key in board), None) for board in boards]
        found = known(rates)
        return TeraHashPerSecond(sum(found)) if found else None

    return reader


def _sensors(sections: Sections) -> Sensors:
    boards = listed(sections, _DASHBOARD, "hashboardStatus")
    fans = [row.get("value") for row in listed(sections, _DASHBOARD, "systemInfo") if _is_fan(row)]
    return Sensors(
        board_temps_c=known(
            [live_temperature(board.get(key)) for board in boards for key in ("boardTemp", "intakeTemp", "exhaustTemp")]
        ),
        chip_temps_c=known([live_temperature(board.get("chipTemp")) for board in boards]),
        fans_rpm=known([rpm(value) for value in fans if not _is_duty(value)]),
        fans_percent=known([percent(value) for value in fans if _is_duty(value)]),
        boards=len(boards) or None,
    )


def _is_fan(row: Row) -> bool:
    name = row.get("name")
    return isinstance(name, str) and name.startswith("Fan") and name.endswith("Speed")


def _is_duty(value: Any) -> bool:
    """Return whether a fan's figure is a duty: the second generation writes percent under the same name."""
    speed = rpm(value)
    return speed is not None and speed <= _MAX_PERCENT


def _pools(sections: Sections) -> tuple[PoolShares, ...]:
    pools = listed(sections, _DASHBOARD, "poolStatus")
    return tuple(PoolShares(whole(pool.get("accepted")), whole(pool.get("rejected")), None) for pool in pools)


def _login(credentials: Credentials) -> dict[str, str]:
    return {"username": credentials.user, "password": credentials.password}


TABLE: Final = Table(
    dialect="obelisk",
    commands=Commands(poll=(_DASHBOARD,), static=(_INFO,), identity=(_INFO,), joins=False),
    fields={
        "hashrate_ths": (_over_boards(_NOW),),
        "hashrate_average_ths": (_over_boards(_AVERAGE),),
        "model": (at(_INFO, "model", text),),
        "mac": (at(_INFO, "macAddress", mac),),
    },
    sensors=_sensors,
    judge=judge_by_hashrate,
    power_source=PowerSource.NONE,
    pools=_pools,
    logins=(Login("/api/login", _login, "sessionid", header="cookie", pages="/api/status/"),),
)
