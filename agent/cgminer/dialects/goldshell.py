"""Goldshell. Pure.

    GET /mcb/cgminer?cgminercmd=devs -> {"data": [{"hashrate": MH/s, "av_hashrate", "temp": "83.0 C / 73.8 C",
                                                   "fanspeed": "2940 rpm / ..", "accepted", "rejected", "time"}]}
    GET /mcb/pools                   -> [{"url", "active", ..}]   without counts: shares are counted a board
    GET /mcb/status, /mcb/setting    -> {"model", "firmware"}, {"name": MAC}

Every board repeats the same fans. Source: the vendor's web page's own API, as the captures show it. The page's degree
sign comes in two encodings, so only the numbers before it are read.
"""

import re
from functools import lru_cache
from typing import Any, Final

from agent.cgminer.dialects.documents import listed
from agent.cgminer.dialects.judgement import judge_by_hashrate
from agent.cgminer.dialects.table import (
    Commands,
    Sensors,
    Table,
    known,
    live_temperature,
    megahash,
    rpm,
)
from agent.cgminer.observation import PoolShares
from agent.cgminer.sections import Reader, Row, Sections, at, mac, number, text, whole
from sitelink.types import PowerSource
from sitelink.units import TeraHashPerSecond

_DEVS: Final = "/mcb/cgminer?cgminercmd=devs"
_POOLS: Final = "/mcb/pools"
_STATUS: Final = "/mcb/status"
_SETTING: Final = "/mcb/setting"
_LONGEST: Final = 256
_FIGURE: Final = re.compile(r"-?[0-9]{1,6}(?:\.[0-9]{1,3})?")
_BOARD_TEMPS: Final = ("temp", "l_temp", "r_temp", "t_temp", "m_temp")


def _summed(key: str) -> Reader[TeraHashPerSecond]:
    def reader(sections: Sections) -> TeraHashPerSecond | None:
        rates = known([megahash(board.get(key)) for board in listed(sections, _DEVS, "data")])
        return TeraHashPerSecond(sum(rates)) if rates else None

    return reader


def _figures(value: Any) -> tuple[float | None, ...]:
    """Return the numbers in ``"83.0 C / 73.8 C"`` or ``"2940 rpm / 2940 rpm"``."""
    return _numbers(value) if isinstance(value, str) and len(value) <= _LONGEST else (number(value),)


@lru_cache(maxsize=1024)
def _numbers(value: str) -> tuple[float | None, ...]:
    return tuple(number(match) for match in _FIGURE.findall(value))


def _sensors(sections: Sections) -> Sensors:
    boards = listed(sections, _DEVS, "data")
    return Sensors(
        board_temps_c=known(
            [live_temperature(temp) for board in boards for key in _BOARD_TEMPS for temp in _figures(board.get(key))]
        ),
        fans_rpm=known([rpm(speed) for board in boards[:1] for speed in _figures(board.get("fanspeed"))]),
        boards=len(boards) or None,
        errors=tuple(
            f"board {text(board.get('id'))}: status {text(board['minerstatus'])}" for board in boards if _fails(board)
        ),
    )


def _fails(board: Row) -> bool:
    """Return whether a board's status is anything but 0."""
    return bool(number(board.get("minerstatus")))


def _pools(sections: Sections) -> tuple[PoolShares, ...]:
    """Return the boards' shares under the pool that is active; what earlier pools got, nobody counts."""
    boards = listed(sections, _DEVS, "data")
    totals = PoolShares(_total(boards, "accepted"), _total(boards, "rejected"), None)
    pools = [pool for pool in sections.rows(_POOLS) if "url" in pool]
    if not pools:
        return (totals,) if boards else ()
    active = next((place for place, pool in enumerate(pools) if pool.get("active") is True), 0)
    return tuple(totals if place == active else PoolShares(None, None, None) for place in range(len(pools)))


def _total(boards: list[Row], key: str) -> int | None:
    counts = known([whole(board.get(key)) for board in boards])
    return sum(counts) if counts else None


def _uptime(sections: Sections) -> int | None:
    """Return how long the boards have run; the shortest, since one that was restarted began anew."""
    return min(known([whole(board.get("time")) for board in listed(sections, _DEVS, "data")]), default=None)


TABLE: Final = Table(
    dialect="goldshell",
    commands=Commands(poll=(_DEVS, _POOLS), static=(_STATUS, _SETTING), identity=(_SETTING,), joins=False),
    fields={
        "hashrate_ths": (_summed("hashrate"),),
        "hashrate_average_ths": (_summed("av_hashrate"),),
        "uptime_s": (_uptime,),
        "model": (at(_STATUS, "model", text),),
        "firmware": (at(_STATUS, "firmware", text),),
        "mac": (at(_SETTING, "name", mac),),
    },
    sensors=_sensors,
    judge=judge_by_hashrate,
    power_source=PowerSource.NONE,
    pools=_pools,
)
