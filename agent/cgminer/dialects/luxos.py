"""LuxOS. Pure.

Source: docs.luxor.tech, LuxOS API: summary, power, temps, fans, config, profiles, events; docs/devices.md.
``POWER[0].PSU`` false means that the figure is LuxOS's own estimate.
"""

from typing import Any, Final

from agent.cgminer.dialects.antminer import antminer_sensors, rated
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
    tera,
)
from agent.cgminer.sections import Sections, first, mac, summed, text, whole
from sitelink.types import PowerSource
from sitelink.units import Watts

_HOT_WORDS: Final = ("OVERHEAT", "HIGH_TEMP", "TEMP_PROTECTION", "THERMAL")
_BOARD_KEYS: Final = ("TopLeft", "TopRight", "BottomLeft", "BottomRight", "Board")
_NO_CURTAILMENT: Final = ("", "none", "awake", "wakeup", "wake up")


def is_curtailed(mode: Any) -> bool:
    """Return whether ``CurtailMode`` of ``config`` says that the miner was told to sleep."""
    return (text(mode) or "").lower() not in _NO_CURTAILMENT


def profile_power(sections: Sections) -> Watts | None:
    """Return the draw that the profile in force is made for, which is what LuxOS steers to."""
    name = sections.find("config", "Profile")
    for row in sections.rows("profiles"):
        if name is not None and row.get("Profile Name") == name:
            return positive_power(row.get("Watts"))
    return None


def _sensors(sections: Sections) -> Sensors:
    fans = sections.rows("fans")
    temps = sections.rows("temps")
    numbered = Sensors() if fans and temps else antminer_sensors(sections)
    return Sensors(
        board_temps_c=known([live_temperature(row.get(key)) for row in temps for key in _BOARD_KEYS])
        or numbered.board_temps_c
        or known([live_temperature(row.get("Temperature")) for row in sections.rows("devs")]),
        chip_temps_c=known([live_temperature(row.get("Chip")) for row in temps]) or numbered.chip_temps_c,
        fans_rpm=known([rpm(row.get("RPM")) for row in fans]) or numbered.fans_rpm,
        fans_percent=known([percent(row.get("Speed")) for row in fans]),
        boards=_boards(sections),
        errors=tuple(_events(sections)),
    )


def _boards(sections: Sections) -> int | None:
    for section in ("devs", "temps"):
        if sections.has(section):
            return len(sections.rows(section))
    return whole(sections.find("stats", "miner_count"))


def _events(sections: Sections) -> list[str]:
    found = [text(row.get("Code")) for row in sections.rows("events")]
    return [code for code in found if code]


def _judge(sections: Sections, facts: Facts) -> Verdict:
    status = (text(sections.find("config", "SystemStatus")) or "").upper()
    hot = any(word in sign for sign in (status, *facts.sensors.errors) for word in _HOT_WORDS)
    ramping = any(row.get("IsRamping") is True for row in sections.rows("devs"))
    return judge(facts, off=is_curtailed(sections.find("config", "CurtailMode")), hot=hot, starting=ramping)


def _measures_power(sections: Sections) -> bool:
    return sections.find("power", "PSU") is True


TABLE: Final = Table(
    dialect="luxos",
    commands=Commands(
        poll=("summary", "power", "temps", "fans", "pools"),
        idle=("config", "events"),
        brief=("summary", "power"),
        static=("config", "version", "profiles"),
        identity=("config",),
    ),
    fields={
        "hashrate_ths": (
            first("summary", "GHS 5s", gigahash),
            first("stats", "GHS 5s", gigahash),
            first("summary", "MHS 5s", megahash),
            summed("devs", "MHS 5s", megahash),
        ),
        "hashrate_average_ths": (first("summary", "GHS av", gigahash), first("summary", "MHS av", megahash)),
        # What the profile in force is made for, before what the chips were sold for.
        "expected_ths": (
            rated("total_rateideal"),
            summed("devs", "Nominal MHS", megahash),
            first("config", "NameplateTHS", tera),
        ),
        "power_w": (first("power", "Watts", power),),
        "power_limit_w": (profile_power,),
        "uptime_s": (first("stats", "Elapsed", whole), first("summary", "Elapsed", whole)),
        "model": (first("config", "Model", text), first("version", "Type", text), first("stats", "Type", text)),
        "firmware": (
            first("version", "LUXminer", text),
            first("version", "Miner", text),
            first("stats", "Miner", text),
        ),
        "mac": (first("config", "MACAddr", mac), first("stats", "miner_id", mac)),
        "serial": (first("config", "SerialNumber", text),),
        "hostname": (first("config", "Hostname", text),),
    },
    sensors=_sensors,
    judge=_judge,
    power_source=PowerSource.ESTIMATE,
    measures_power=_measures_power,
)
