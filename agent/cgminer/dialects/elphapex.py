"""Elphapex DG series: the newer Antminer's documents over HTTP digest, with its own units. Pure.

    /cgi-bin/stats.cgi -> STATS[0] {"rate_5s": MH/s, "chain": [{"temp_pcb": [..], "temp_chip": ["47125", ..]}], "fan"}
    /cgi-bin/pools.cgi -> POOLS[] with lower-case keys      /cgi-bin/get_miner_conf.cgi -> {"fc-work-mode": 1 = asleep}

Chip temperatures are text in thousandths of a degree. Source: the vendor's web page's own API, as the captures show it.
"""

from typing import Any, Final

from agent.cgminer.dialects.antminer import in_antminer_unit, rated
from agent.cgminer.dialects.judgement import judge
from agent.cgminer.dialects.table import (
    Commands,
    Facts,
    Sensors,
    Table,
    Verdict,
    known,
    live_temperature,
    turning,
)
from agent.cgminer.observation import PoolShares
from agent.cgminer.sections import Row, Sections, at, first, mac, number, rows_of, text, whole
from sitelink.types import PowerSource
from sitelink.units import Celsius

_CONF: Final = "/cgi-bin/get_miner_conf.cgi"
_SYSTEM: Final = "/cgi-bin/get_system_info.cgi"
_ASLEEP: Final = 1
_THOUSANDTHS: Final = 1000.0


def _chip_temperature(value: Any) -> Celsius | None:
    found = number(value)
    return live_temperature(found / _THOUSANDTHS if found is not None and abs(found) >= _THOUSANDTHS else found)


def _values(chains: list[Row], key: str) -> list[Any]:
    return [value for chain in chains if isinstance(chain.get(key), list) for value in chain[key]]


def _sensors(sections: Sections) -> Sensors:
    chains = rows_of(sections.find("stats", "chain"))
    fans = sections.find("stats", "fan")
    return Sensors(
        board_temps_c=known([live_temperature(value) for value in _values(chains, "temp_pcb")]),
        chip_temps_c=known([_chip_temperature(value) for value in _values(chains, "temp_chip")]),
        fans_rpm=known([turning(speed) for speed in fans] if isinstance(fans, list) else []),
        boards=sum(1 for chain in chains if number(chain.get("asic_num"))) if chains else None,
        errors=_complaints(sections),
    )


def _complaints(sections: Sections) -> tuple[str, ...]:
    """Return what the miner itself complains of, each with its kind."""
    signs = rows_of(sections.find("summary", "status"))
    bad = [sign for sign in signs if text(sign.get("status")) not in (None, "s")]
    return tuple(f"{text(sign.get('type'))}: {text(sign.get('msg')) or text(sign.get('code'))}" for sign in bad)


def _pools(sections: Sections) -> tuple[PoolShares, ...]:
    return tuple(
        PoolShares(*(whole(row.get(key)) for key in ("accepted", "rejected", "stale")))
        for row in sections.rows("pools")
    )


def _judge(sections: Sections, facts: Facts) -> Verdict:
    return judge(facts, off=at(_CONF, "fc-work-mode", number)(sections) == _ASLEEP)


TABLE: Final = Table(
    dialect="elphapex",
    commands=Commands(
        poll=("/cgi-bin/stats.cgi", "/cgi-bin/pools.cgi"),
        idle=(_CONF, "/cgi-bin/summary.cgi"),
        static=(_SYSTEM,),
        identity=(_SYSTEM,),
        joins=False,
    ),
    fields={
        "hashrate_ths": (in_antminer_unit("rate_5s"),),
        "hashrate_average_ths": (in_antminer_unit("rate_avg"),),
        "expected_ths": (rated("rate_ideal"),),
        "uptime_s": (first("stats", "elapsed", whole),),
        "model": (first("info", "type", text), at(_SYSTEM, "minertype", text)),
        "firmware": (first("info", "miner_version", text), at(_SYSTEM, "system_filesystem_version", text)),
        "mac": (at(_SYSTEM, "macaddr", mac),),
        "serial": (first("info", "dev_sn", text),),
        "hostname": (at(_SYSTEM, "hostname", text),),
    },
    sensors=_sensors,
    judge=_judge,
    power_source=PowerSource.NONE,
    pools=_pools,
)
