"""Whatsminer (btminer) API v1 and v2. Pure.

    summary -> SUMMARY[0] {"HS RT", "Power", "Fan Speed In", ..}     devs -> DEVS[] one row a board
    status, get_miner_info, get_version, get_psu -> {"Msg": {..}} with values as text, "true" included

Source: WhatsMiner API 2.0.5; docs/devices.md. ``Power`` -1 means unknown. ``Power_RT`` is of the moment by its name;
over how long ``Power`` is a mean, if it is one, nobody says.
"""

from collections.abc import Mapping
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
    positive_power,
    power,
    rpm,
    turning,
)
from agent.cgminer.sections import Row, Sections, first, mac, summed, text, whole
from sitelink.types import MinerState, PowerSource, Reason
from sitelink.units import Celsius

_HOT_CODES: Final = frozenset((*range(350, 360), *range(600, 603)))
_MAX_CODES: Final = 64
_CODE_DIGITS: Final = 8
_SLOT_KEYS: Final = ("temp_now_max", "temp_1")
_OFF_KEYS: Final = ("mineroff", "btmineroff")
_DEAD_PROCESS: Final = "process is down"


def _sensors(sections: Sections) -> Sensors:
    boards = sections.rows("devs")
    slots = [row for row in sections.rows("stats") if "slot" in row]
    summary = sections.rows("summary")
    chips: list[Celsius | None] = []
    for row in boards or summary:
        chips += [live_temperature(row.get("Chip Temp Avg")), live_temperature(row.get("Chip Temp Max"))]
    fan_rows = summary or boards[:1]
    return Sensors(
        board_temps_c=known(
            [live_temperature(row.get("Temperature")) for row in boards] or _slot_temps(slots, summary)
        ),
        chip_temps_c=known(chips),
        fans_rpm=known([rpm(row.get(key)) for row in fan_rows for key in ("Fan Speed In", "Fan Speed Out")]),
        psu_fans_rpm=known([turning(row.get("Power Fanspeed")) for row in summary] or [_psu_fan(sections)]),
        boards=len(boards) or len(slots) or None,
        errors=_errors(sections, summary),
    )


def _psu_fan(sections: Sections) -> float | None:
    return turning(sections.find("msg", "fan_speed"))


def _slot_temps(slots: list[Row], summary: list[Row]) -> list[Celsius | None]:
    """Return one temperature a board from ``stats`` of the M3's time, else the single one of the summary."""
    if not slots:
        return [live_temperature(row.get("Temperature")) for row in summary]
    return [next((found for key in _SLOT_KEYS if (found := live_temperature(row.get(key)))), None) for row in slots]


def _errors(sections: Sections, summary: list[Row]) -> tuple[str, ...]:
    """Return the error codes, those the miner was shipped with (``Factory``) left out."""
    codes: dict[str, None] = {}
    for row in summary:
        for place in range(_MAX_CODES):
            if (key := f"Error Code {place}") not in row:
                break
            if (code := text(row[key])) is not None and code != "0":
                codes[code] = None
    listed = sections.find("msg", "error_code")
    for entry in listed if isinstance(listed, list) else ():
        for code in entry if isinstance(entry, dict) else (entry,):
            if (named := text(code)) is not None:
                codes[named] = None
    return tuple(codes)


def is_off(said: Mapping[str, Any]) -> bool:
    """Return whether ``status`` says under ``Msg`` that the miner was told to stop; by firmware in text or not."""
    told = next((said[key] for key in _OFF_KEYS if said.get(key) not in (None, "")), None)
    return str(told).strip("'\" ").lower() in ("true", "1", "yes")


def is_heat_code(code: str) -> bool:
    """Return whether an error code says that the miner is too hot."""
    return len(code) < _CODE_DIGITS and code.isdecimal() and int(code) in _HOT_CODES


def _judge(sections: Sections, facts: Facts) -> Verdict:
    off = is_off({key: sections.find("msg", key) for key in _OFF_KEYS})
    hot = any(is_heat_code(code) for code in facts.sensors.errors)
    starting = any(row.get("Upfreq Complete") == 0 for row in sections.rows("devs"))
    if not off and any(_DEAD_PROCESS in status.message.lower() for status in sections.statuses):
        return MinerState.UNKNOWN, Reason.FAULT
    return judge(facts, off=off, hot=hot, starting=starting)


TABLE: Final = Table(
    dialect="whatsminer",
    commands=Commands(
        poll=("summary", "devs", "pools"),
        idle=("status",),
        brief=("summary",),
        static=("devdetails", "get_version", "get_miner_info"),
        identity=("get_miner_info", "summary"),
        instead={"devs": ("stats",)},  # the M3 of 2018 lists its boards there
    ),
    fields={
        "hashrate_ths": (
            first("summary", "HS RT", megahash),
            first("summary", "MHS 5s", megahash),
            summed("devs", "MHS 5s", megahash),
            first("summary", "MHS 1m", megahash),
            first("summary", "MHS av", megahash),
            summed("devs", "MHS av", megahash),
        ),
        "hashrate_average_ths": (first("summary", "MHS av", megahash), summed("devs", "MHS av", megahash)),
        "expected_ths": (first("summary", "Factory GHS", gigahash), first("summary", "Target MHS", megahash)),
        "power_w": (first("summary", "Power_RT", power), first("summary", "Power", power)),
        "power_limit_w": (
            first("summary", "Power Limit", positive_power),
            first("msg", "power_limit_set", positive_power),
        ),
        "power_mode": (first("summary", "Power Mode", text), first("msg", "power_mode", text)),
        "env_temp_c": (first("summary", "Env Temp", live_temperature),),
        "uptime_s": (first("summary", "Elapsed", whole), first("devs", "Device Elapsed", whole)),
        "model": (first("devdetails", "Model", text), first("msg", "miner_type", text)),
        "firmware": (
            first("msg", "fw_ver", text),
            first("summary", "Firmware Version", text),
            first("msg", "FirmwareVersion", text),
            first("msg", "Firmware Version", text),
        ),
        "mac": (first("summary", "MAC", mac), first("msg", "mac", mac)),
        "serial": (first("msg", "minersn", text),),
        "hostname": (first("msg", "hostname", text),),
    },
    sensors=_sensors,
    judge=_judge,
    power_source=PowerSource.DEVICE,
)
