"""Avalon (Canaan's cgminer). Pure.

The figures stand in bracket text inside ``stats``, one entry a controlled unit:

    "MM ID0": "Ver[1246-83] DNA[..] SYSTEMSTATU[Work: In Work, Hash Board: 3 ] Temp[30] Fan1[5344] PS[0 1214 ..]"

Source: Canaan CGMiner API; docs/devices.md. ``PS[...]`` is the supply: fault, control-board voltage,
hash-board voltage, current, power in W, set voltage, ...
"""

import re
import string
from functools import lru_cache
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
    megahash,
    percent,
    positive_power,
    power,
    rpm,
)
from agent.cgminer.sections import Reader, Sections, first, leading_number, mac, number, text, whole
from sitelink.types import PowerSource
from sitelink.units import TeraHashPerSecond, Watts

_UNIT_KEY: Final = re.compile(r"MM ID[0-9]+(?::Summary)?")
_NAME: Final = string.ascii_letters + string.digits + "_ "
_NO_FIRST: Final = string.digits + "_ "
_HASH_BOARDS: Final = re.compile(r"Hash Board:\s*([0-9]+)")
_MAX_TEXT: Final = 16_384
_AIR_TEMPS: Final = ("Temp", "Temp0", "Temp1", "ITemp", "HBITemp", "HBOTemp", "HBTemp")
_SUPPLY_POWER: Final = 4
_SUPPLY_WALL_POWER: Final = 6


def _units(sections: Sections) -> list[dict[str, str]]:
    return [
        dict(_brackets(value[:_MAX_TEXT]))
        for row in sections.rows("stats")
        for key, value in row.items()
        if isinstance(value, str) and _UNIT_KEY.fullmatch(key)
    ]


@lru_cache(maxsize=32)
def _brackets(value: str) -> tuple[tuple[str, str], ...]:
    """Return (name, inside) of each ``name[inside]``. One pass whatever the text: no device may hold up the others."""
    found: list[tuple[str, str]] = []
    for part in value.split("]")[:-1]:
        before, bracket, inside = part.partition("[")
        name = before[len(before.rstrip(_NAME)) :].lstrip(_NO_FIRST).rstrip()
        if bracket and name:
            found.append((name, inside))
    return tuple(found)


def _numbers(inside: str | None) -> list[float | None]:
    return [number(part) for part in (inside or "").split()[:64]]


def _value(name: str) -> Reader[str]:
    """Return a reader of one bracket of the first unit that has it."""

    def reader(sections: Sections) -> str | None:
        return next((unit[name] for unit in _units(sections) if unit.get(name)), None)

    return reader


def _over_units(name: str) -> Reader[TeraHashPerSecond]:
    """Return a reader of a rate in GH/s, summed over all units that give it."""

    def reader(sections: Sections) -> TeraHashPerSecond | None:
        values = known([gigahash(unit[name]) for unit in _units(sections) if name in unit])
        return TeraHashPerSecond(sum(values)) if values else None

    return reader


def _power(sections: Sections) -> Watts | None:
    """Return wall power where the firmware states it, else the supplies' own figure."""
    units = _units(sections)
    walls = known([power(leading_number(unit["WALLPOWER"])) for unit in units if "WALLPOWER" in unit])
    if walls:
        return Watts(sum(walls))
    drawn = known([_supply_power(unit) for unit in units])
    return Watts(sum(drawn)) if drawn else None


def _supply_power(unit: dict[str, str]) -> Watts | None:
    """Return what a supply says it draws; one whose figures are all zero does not talk at all."""
    supply = _numbers(unit.get("PS"))
    if len(supply) <= _SUPPLY_POWER or not any(supply):
        return None
    found = power(supply[_SUPPLY_POWER])
    if not found and number(unit.get("GHSspd")) and len(supply) > _SUPPLY_WALL_POWER:
        # The small models leave the hash boards' figure at zero and state only the wall's.
        return positive_power(supply[_SUPPLY_WALL_POWER])
    return found


def _limit(sections: Sections) -> Watts | None:
    return positive_power(_value("MPO")(sections))


def _uptime(sections: Sections) -> int | None:
    return whole(_value("Elapsed")(sections))


def _sensors(sections: Sections) -> Sensors:
    boards: list[Any] = []
    chips: list[Any] = []
    speeds: list[Any] = []
    duties: list[Any] = []
    count = 0
    for unit in _units(sections):
        boards += [live_temperature(unit.get(name)) for name in _AIR_TEMPS]
        chips += [live_temperature(temp) for name in ("MTmax", "MTavg") for temp in _numbers(unit.get(name))]
        chips += [live_temperature(unit.get(name)) for name in ("TMax", "TAvg")]
        speeds += [rpm(unit[name]) for name in ("Fan", "Fan1", "Fan2", "Fan3", "Fan4", "Fan5", "Fan6") if name in unit]
        duties.append(percent((unit.get("FanR") or "").rstrip("% ")))
        match = _HASH_BOARDS.search(unit.get("SYSTEMSTATU", ""))
        count += int(match.group(1)[:3]) if match else 0
    return Sensors(known(boards), known(chips), known(speeds), known(duties), (), count or None, ())


def _judge(sections: Sections, facts: Facts) -> Verdict:
    working = (_value("SYSTEMSTATU")(sections) or "").lower()
    off_at, on_at = number(_value("SoftOffTime")(sections)), number(_value("SoftOnTime")(sections))
    off = bool(number(_value("SoftOFF")(sections))) or (off_at is not None and off_at > (on_at or 0))
    idle = "in idle" in working or "standby" in working
    return judge(facts, off=off and (idle or not working), starting="in init" in working)


TABLE: Final = Table(
    dialect="avalon",
    commands=Commands(
        poll=("summary", "stats", "pools"),
        brief=("summary", "stats"),
        static=("version",),
        identity=("version",),
    ),
    fields={
        "hashrate_ths": (
            _over_units("GHSspd"),
            first("summary", "MHS 5s", megahash),
            first("summary", "MHS 30s", megahash),
            first("devs", "MHS 5s", megahash),
            first("summary", "MHS 1m", megahash),
            first("devs", "MHS 1m", megahash),
        ),
        "hashrate_average_ths": (
            first("summary", "MHS av", megahash),
            _over_units("GHSavg"),
            first("devs", "MHS av", megahash),
        ),
        "expected_ths": (_over_units("GHSmm"),),
        "power_w": (_power,),
        "power_limit_w": (_limit,),
        "power_mode": (_value("WORKMODE"),),
        "uptime_s": (first("stats", "Elapsed", whole), first("summary", "Elapsed", whole), _uptime),
        "model": (first("version", "PROD", text), first("version", "MODEL", text), first("version", "HWTYPE", text)),
        "firmware": (
            _value("Ver"),
            first("version", "CGVERSION", text),
            first("version", "LVERSION", text),
        ),
        "mac": (first("version", "MAC", mac),),
        "serial": (first("version", "DNA", text), _value("DNA")),
    },
    sensors=_sensors,
    judge=_judge,
    power_source=PowerSource.DEVICE,
)
