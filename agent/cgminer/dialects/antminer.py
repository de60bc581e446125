"""Antminer stock firmware and all that grew out of it: bmminer's ``stats`` with numbered keys. Pure.

    STATS[0] {"BMMiner":..,"Type":"Antminer S19","Miner":".."}   STATS[1] {"GHS 5s":..,"fan1":..,"temp_chip1":"a-b-c-d"}

With ``new_api`` newer builds answer ``stats`` with lists (``rate_5s``, ``fan``, ``chain``) and the power. The web
pages, closed by digest, tell the MAC, and why a miner stands still: its work mode, what it says of heat and fans.

Source: Bitmain bmminer API ``stats``; docs/devices.md. The stock firmware answers only single commands.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from agent.cgminer.dialects.judgement import judge
from agent.cgminer.dialects.table import (
    Commands,
    Facts,
    Sensors,
    Table,
    Verdict,
    hashrate,
    known,
    live_temperature,
    positive_power,
    power,
    rpm,
    temperature,
    turning,
)
from agent.cgminer.sections import Reader, Row, Sections, at, first, leading_number, mac, number, rows_of, text, whole
from sitelink.types import PowerSource
from sitelink.units import Celsius, RevolutionsPerMinute, TeraHashPerSecond, Watts

CONF: Final = "/cgi-bin/get_miner_conf.cgi"
SYSTEM: Final = "/cgi-bin/get_system_info.cgi"
_HEALTH: Final = "/cgi-bin/summary.cgi"
_SLEEP_MODE: Final = 254
_LONGEST_KEY: Final = 20
_LONGEST_LIST: Final = 512
_LONGEST_MODEL: Final = 64
"""What is longer is none of ours; it may cost neither a look nor a place in a cache."""
_NUMBERED: Final = re.compile(
    r"(fan|temp|temp2_|temp3_|temp4_|temp_chip|temp_pcb|chain_acn|chain_acs|chain_consumption|chain_power)([0-9]{1,2})"
)
_JOINED_TEMP: Final = re.compile(r"(?:^|-)(-?[0-9]+(?:\.[0-9]+)?|[a-z]+)(?=-|$)")
_VNISH: Final = re.compile(r"vnish [0-9.]+", re.IGNORECASE)
_VERSIONS: Final = (("stats", "Miner"), ("version", "Miner"), ("info", "miner_version"))
_BUILDS: Final = (("stats", "CompileTime"), ("version", "CompileTime"), ("info", "CompileTime"))
WORK_MODES: Final = ("bitmain-work-mode", "miner-mode")
"""Keys of the configuration, by firmware; their value may be text."""
SLEEP: Final = 1
_UNITS_BY_MODEL: Final = (
    # Before rate_unit existed, "GHS 5s" held whatever unit the algorithm is counted in.
    (re.compile(r"\b[LE][0-9]|\bD[35]\b", re.IGNORECASE), "MH"),
    (re.compile(r"\b[ZX][0-9]", re.IGNORECASE), "KH"),
    (re.compile(r"\bB[37]\b", re.IGNORECASE), "H"),
)
_UNITS: Final = {"H", "KH", "MH", "GH", "TH", "PH"}


def in_antminer_unit(key: str) -> Reader[TeraHashPerSecond]:
    """Return a reader of a rate in ``stats``, in the unit that ``rate_unit`` or else the model says."""

    def reader(sections: Sections) -> TeraHashPerSecond | None:
        value = sections.find("stats", key)
        if value is None or value == "":
            return None
        return hashrate(value, _unit(sections))

    return reader


def rated(key: str) -> Reader[TeraHashPerSecond]:
    """Return a reader of a rating in ``stats``, where 0 means that none is given."""
    read = in_antminer_unit(key)
    return lambda sections: read(sections) or None


def antminer_sensors(sections: Sections) -> Sensors:
    """Return temperatures, fans, boards and faults out of ``stats``, whichever of its two forms it has."""
    chains = sections.find("stats", "chain")
    if isinstance(chains, list):
        return _listed(sections, [chain for chain in chains if isinstance(chain, dict)])
    numbered = _numbered(sections.rows("stats"))
    boards = _joined(numbered.get("temp_pcb", {}))
    chips = _joined(numbered.get("temp_chip", {}))
    if not boards and not chips:
        boards = _single(numbered, "temp", "temp3_")
        chips = _single(numbered, "temp2_", "temp4_")
    return Sensors(
        board_temps_c=boards,
        chip_temps_c=chips,
        fans_rpm=_fans(sections, numbered.get("fan", {})),
        boards=_boards(sections, numbered.get("chain_acn", {})),
        errors=_dead_chips(sections, numbered.get("chain_acs", {})),
    )


def _listed(sections: Sections, chains: list[Row]) -> Sensors:
    """Return the sensors of the newer form (``new_api``), which lists fans and chains."""
    fans = sections.find("stats", "fan")
    return Sensors(
        board_temps_c=_listed_temps(chains, "temp_pcb"),
        chip_temps_c=_listed_temps(chains, "temp_chip"),
        fans_rpm=known([rpm(speed) for speed in fans] if isinstance(fans, list) else []),
        boards=sum(1 for chain in chains if number(chain.get("asic_num"))),
    )


def _listed_temps(chains: list[Row], key: str) -> tuple[Celsius, ...]:
    lists = [chain[key] for chain in chains if isinstance(chain.get(key), list)]
    return known([temperature(value) for temps in lists if any(temps) for value in temps])


def chain_power(sections: Sections) -> Watts | None:
    """Return the sum of the boards' draw as third-party firmwares estimate it; the supply's own loss is not in it."""
    total = leading_number(sections.find("stats", "chain_power"))
    if total is None:
        chains = _numbered(sections.rows("stats")).get("chain_consumption", {})
        values = known([number(value) for value in chains.values()])
        total = sum(values) if values else None
    return power(total) if total else None


def antminer_firmware(sections: Sections) -> str | None:
    """Return version and build time; Bitmain left the version alone for years, so only both tell builds apart."""
    spoken = _VNISH.search(text(sections.find("stats", "Type")) or "")
    versions = (spoken.group() if spoken else None, *(text(sections.find(*place)) for place in _VERSIONS))
    version = next((found for found in versions if found), None)
    built = next((found for place in _BUILDS if (found := text(sections.find(*place)))), None)
    return ", ".join(part for part in (version, built) if part) or None


def _stock_firmware(sections: Sections) -> str | None:
    """Return version and build as the RPC tells them, and the name of the release where the web page has one."""
    told = antminer_firmware(sections) or ""
    release = text(sections.find(SYSTEM, "system_filesystem_version")) or ""
    return ", ".join(part for part in (told, "" if release in told else release) if part) or None


def antminer_judge(sections: Sections, facts: Facts) -> Verdict:
    """Judge the state; only the configuration or the sleep mode proves that a stop was ordered."""
    asleep = any(number(sections.find(CONF, key)) == SLEEP for key in WORK_MODES)
    asleep = asleep or number(sections.find("stats", "Mode")) == _SLEEP_MODE
    state = text(sections.find("stats", "state")) or ""
    return judge(
        facts,
        off=asleep or state in ("stopped", "stopping", "shutting-down"),
        hot=any(kind == "temp" for kind, _ in _complaints(sections)),
        starting=state in ("starting", "initializing", "restarting", "auto-tuning"),
    )


def _complaints(sections: Sections) -> list[tuple[str, str]]:
    """Return (what, message) of each part that the summary page does not call well."""
    parts = at(_HEALTH, "SUMMARY.0.status", rows_of)(sections) or []
    bad = [part for part in parts if text(part.get("status")) not in (None, "s")]
    return [(text(part.get("type")) or "", text(part.get("msg")) or "") for part in bad]


def _stock_sensors(sections: Sections) -> Sensors:
    sensors = antminer_sensors(sections)
    # Without hashes the rate is bad as well: that is what is asked about, not an answer.
    said = [": ".join(filter(None, part)) for part in _complaints(sections) if part[0] != "rate"]
    return sensors._replace(errors=sensors.errors + tuple(said)) if said else sensors


def _unit(sections: Sections) -> str:
    stated = sections.find("stats", "rate_unit")
    if isinstance(stated, str) and stated.strip().upper().removesuffix("/S") in _UNITS:
        return stated
    model = text(sections.find("stats", "Type")) or text(sections.find("version", "Type")) or ""
    return unit_of_model(model[:_LONGEST_MODEL])


@lru_cache(maxsize=256)
def unit_of_model(model: str) -> str:
    """Return the unit an Antminer without ``rate_unit`` counts in, by its model's algorithm."""
    return next((unit for pattern, unit in _UNITS_BY_MODEL if pattern.search(model)), "GH")


def _numbered(rows: Iterable[Row]) -> dict[str, dict[int, Any]]:
    found: dict[str, dict[int, Any]] = {}
    for row in rows:
        for key, value in row.items():
            place = _split(key) if len(key) <= _LONGEST_KEY else None
            if place is not None:
                found.setdefault(place[0], {})[place[1]] = value
    return found


@lru_cache(maxsize=4096)
def _split(key: str) -> tuple[str, int] | None:
    match = _NUMBERED.fullmatch(key)
    return (match.group(1), int(match.group(2))) if match else None


def _joined(lists: Mapping[int, Any]) -> tuple[Celsius, ...]:
    """Return ``"75--3-88-78"`` per board as numbers; a list of zeros is a board that is not there."""
    found: list[Celsius] = []
    for place in sorted(lists):
        if isinstance(lists[place], str) and len(lists[place]) <= _LONGEST_LIST:
            found.extend(_joined_temps(lists[place]))
    return tuple(found)


@lru_cache(maxsize=4096)
def _joined_temps(value: str) -> tuple[Celsius, ...]:
    temps = [number(part) for part in _JOINED_TEMP.findall(value)]
    values = [Celsius(temp) for temp in temps if temp is not None and -60 <= temp <= 250]
    return tuple(values) if any(values) else ()


def _single(numbered: Mapping[str, Mapping[int, Any]], *names: str) -> tuple[Celsius, ...]:
    found = [live_temperature(value) for name in names for value in numbered.get(name, {}).values()]
    return known(found)


def _fans(sections: Sections, fans: Mapping[int, Any]) -> tuple[RevolutionsPerMinute, ...]:
    """Return the fans that turn, and as many standing ones as ``fan_num`` says are missing."""
    speeds: tuple[RevolutionsPerMinute, ...] = known([turning(fans[place]) for place in sorted(fans)])
    expected = whole(sections.find("stats", "fan_num")) or 0
    missing = min(expected, len(fans)) - len(speeds)
    return speeds + (RevolutionsPerMinute(0),) * max(0, missing)


def _boards(sections: Sections, chips: Mapping[int, Any]) -> int | None:
    count = whole(sections.find("stats", "miner_count"))
    if count is not None:
        return count
    return sum(1 for value in chips.values() if number(value)) if chips else None


def _dead_chips(sections: Sections, chains: Mapping[int, Any]) -> tuple[str, ...]:
    """Return the chains with silent chips, unless the whole miner is silent: asleep or cut off, all show ``x``."""
    found: list[str] = []
    if not number(sections.find("stats", "GHS 5s")):
        return ()
    for place, chips in sorted(chains.items()):
        dead = chips.count("x") if isinstance(chips, str) else 0
        if dead:
            found.append(f"chain {place}: {dead} chips do not answer")
    return tuple(found)


TABLE: Final = Table(
    dialect="antminer",
    commands=Commands(
        poll=("new:stats", "pools"),
        idle=(CONF, _HEALTH),
        brief=("new:stats",),
        static=("version", SYSTEM),
        identity=(SYSTEM, "stats"),
        joins=False,
    ),
    fields={
        "hashrate_ths": (
            in_antminer_unit("GHS 5s"),
            in_antminer_unit("rate_5s"),
            first("stats", "MHS 5s", lambda value: hashrate(value, "MH")),
            first("summary", "GHS 5s", lambda value: hashrate(value, "GH")),
            first("summary", "MHS 5s", lambda value: hashrate(value, "MH")),
        ),
        "hashrate_average_ths": (
            in_antminer_unit("GHS av"),
            in_antminer_unit("rate_avg"),
            first("stats", "MHS av", lambda value: hashrate(value, "MH")),
            first("summary", "GHS av", lambda value: hashrate(value, "GH")),
        ),
        "expected_ths": (rated("total_rateideal"), rated("rate_ideal")),
        "power_w": (first("stats", "watt", positive_power), first("stats", "power", positive_power), chain_power),
        "uptime_s": (
            first("stats", "Elapsed", whole),
            first("stats", "elapsed", whole),
            first("summary", "Elapsed", whole),
        ),
        "model": (
            first("stats", "Type", text),
            first("version", "Type", text),
            first("info", "type", text),
            at(SYSTEM, "minertype", text),
        ),
        "firmware": (_stock_firmware,),
        "mac": (at(SYSTEM, "macaddr", mac),),
        "serial": (at(SYSTEM, "serinum", text), at(SYSTEM, "serial_no", text), first("stats", "miner_id", text)),
        "control_board_id": (first("stats", "miner_id", text),),
        "hostname": (at(SYSTEM, "hostname", text),),
    },
    sensors=_stock_sensors,
    judge=antminer_judge,
    power_source=PowerSource.ESTIMATE,
)
