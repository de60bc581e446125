"""Any other CGMiner: the field names that the original defined, and those its forks agreed on. Pure.

Source: cgminer API-README (summary, devs, stats, pools); sgminer's; Antminer-like ``stats`` where a fork kept them.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from agent.cgminer.dialects.antminer import (
    antminer_firmware,
    antminer_judge,
    antminer_sensors,
    chain_power,
    in_antminer_unit,
    rated,
)
from agent.cgminer.dialects.judgement import judge
from agent.cgminer.dialects.table import (
    Commands,
    Facts,
    Sensors,
    Table,
    Verdict,
    gigahash,
    hashrate,
    known,
    live_temperature,
    megahash,
    percent,
    turning,
)
from agent.cgminer.sections import Reader, Row, Sections, first, mac, summed, text, whole
from sitelink.types import PowerSource
from sitelink.units import TeraHashPerSecond

_EQUIHASH: Final = re.compile(r"innominer a9\b", re.IGNORECASE)
_FAN: Final = re.compile(r"fan[ _]?(?:speed)?[ _]?(?:[0-9]{0,2}|in|out)", re.IGNORECASE)
_TEMP: Final = re.compile(r"(?:chip|board|pcb|asic)?[ _]?temp(?:erature)?s?[ _]?(?:avg|[0-9]{0,2})", re.IGNORECASE)
_NO_READING: Final = re.compile(
    r"max|min|set|limit|target|num|over|cut|warn|thresh|err|pre|count|freq|turn|stop|ctrl", re.IGNORECASE
)
_FAN_DUTY_KEYS: Final = ("Fan duty", "Duty", "Fan Percent", "fan_pwm")
_NOW_KEYS: Final = ("5s", "10s", "20s", "30s")


def _in_summary(key: str) -> Reader[TeraHashPerSecond]:
    """Return a reader of a rate in ``summary``, whichever of GHS, MHS and KHS it is kept in."""

    def reader(sections: Sections) -> TeraHashPerSecond | None:
        for prefix, unit in (("MHS", "MH"), ("GHS", "GH"), ("THS", "TH"), ("KHS", "KH")):
            value = sections.find("summary", f"{prefix} {key}")
            if value is not None:
                return hashrate(value, _unit(sections, unit))
        return None

    return reader


def _unit(sections: Sections, stated: str) -> str:
    """Return the unit of a rate; Innosilicon's Equihash A9 writes solutions a second under ``MHS``."""
    return "H" if any(_EQUIHASH.search(text) for text in sections.descriptions) else stated


def _none_enabled(sections: Sections) -> TeraHashPerSecond | None:
    """Return 0 where every device is disabled: the summary's average then decays for minutes, and nothing hashes."""
    return TeraHashPerSecond(0.0) if _is_disabled(sections) else None


def _is_disabled(sections: Sections) -> bool:
    """Return whether there are devices and each was disabled, which only an order does."""
    rows = sections.rows("devs")
    return bool(rows) and all(row.get("Enabled") == "N" for row in rows)


def _described(sections: Sections) -> str | None:
    """Return the MAC that the owner gave with ``--api-description``: CGMiner itself has no name to tell."""
    return next(filter(None, map(mac, sections.descriptions)), None)


def _judge(sections: Sections, facts: Facts) -> Verdict:
    """Judge as an Antminer; all devices disabled is how a stop that was ordered shows."""
    return judge(facts, off=True) if _is_disabled(sections) else antminer_judge(sections, facts)


def _sensors(sections: Sections) -> Sensors:
    numbered = antminer_sensors(sections)
    boards = _boards(sections)
    others = sections.rows("summary") + sections.rows("stats")
    temps = numbered.board_temps_c or _matching(boards, _TEMP, live_temperature)
    fans = numbered.fans_rpm or _matching(others, _FAN, turning)
    return Sensors(
        board_temps_c=temps or _matching(others, _TEMP, live_temperature) or _odd_temps(others),
        chip_temps_c=numbered.chip_temps_c,
        fans_rpm=fans or _matching(boards, _FAN, turning),
        fans_percent=known([percent(row[key]) for row in boards or others for key in _FAN_DUTY_KEYS if key in row]),
        boards=numbered.boards if numbered.boards is not None else (len(boards) or None),
        errors=numbered.errors,
    )


def _boards(sections: Sections) -> list[Row]:
    """Return the rows that stand for boards: devices, else the statistics of things that have chips."""
    if sections.has("devs"):
        return sections.rows("devs")
    return [row for row in sections.rows("stats") if "Num chips" in row or "Num active chips" in row]


def _odd_temps(rows: list[Row]) -> tuple[Any, ...]:
    """Return the values of all keys that speak of a temperature, unless of a limit or a count."""
    named = [(key, value) for row in rows for key, value in row.items() if "temp" in key.lower()]
    return known([live_temperature(value) for key, value in named if not _NO_READING.search(key)])


def _matching(rows: list[Row], name: re.Pattern[str], read: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Return the values of all keys whose name fits, as the forks of CGMiner spell them."""
    return known([read(value) for row in rows for key, value in row.items() if name.fullmatch(key)])


TABLE: Final = Table(
    dialect="cgminer",
    commands=Commands(poll=("summary", "devs", "stats", "pools"), static=("version",), identity=("version", "stats")),
    fields={
        "hashrate_ths": (
            _none_enabled,
            in_antminer_unit("GHS 5s"),
            first("stats", "MHS 5s", megahash),
            *(_in_summary(key) for key in _NOW_KEYS),
            summed("devs", "MHS 5s", megahash),
            summed("devs", "GHS 5s", gigahash),
            summed("devs", "MHS 20s", megahash),
            _in_summary("1m"),
            _in_summary("av"),
        ),
        "hashrate_average_ths": (
            in_antminer_unit("GHS av"),
            first("stats", "MHS av", megahash),
            _in_summary("av"),
            summed("devs", "MHS av", megahash),
        ),
        "expected_ths": (rated("total_rateideal"), summed("devs", "Nominal MHS", megahash)),
        "power_w": (chain_power,),
        "uptime_s": (
            first("stats", "Elapsed", whole),
            first("summary", "Elapsed", whole),
            first("devs", "Device Elapsed", whole),
        ),
        "model": (
            first("stats", "Type", text),
            first("version", "Type", text),
            first("version", "PROD", text),
            first("devdetails", "Model", text),
            first("devdetails", "Name", text),
        ),
        "firmware": (
            antminer_firmware,
            first("version", "CGMiner", text),
            first("version", "GCMiner", text),
            first("version", "SGMiner", text),
        ),
        "mac": (
            _described,
            first("version", "MAC", mac),
            first("summary", "MAC", mac),
            first("config", "MACAddr", mac),
        ),
        "serial": (first("stats", "miner_id", text), first("config", "SerialNumber", text)),
    },
    sensors=_sensors,
    judge=_judge,
    power_source=PowerSource.ESTIMATE,
)
