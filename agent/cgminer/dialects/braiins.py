"""Braiins OS up to 25.05 over its CGMiner RPC (BOSminer, BOSminer+, BOSer). Pure.

Source: Braiins OS API documentation: summary, devs, temps, fans, tunerstatus; reference/devices.md 1a. The power figure
is the tuner's model, not a measurement. RPC names no MAC, so identity needs the newer REST API.
"""

from typing import Final

from agent.cgminer.dialects.judgement import judge
from agent.cgminer.dialects.table import (
    Commands,
    Facts,
    Sensors,
    Table,
    Verdict,
    known,
    live_temperature,
    megahash,
    percent,
    positive_power,
    power,
    turning,
)
from agent.cgminer.sections import Sections, first, mac, summed, text, whole
from sitelink.types import PowerSource


def _sensors(sections: Sections) -> Sensors:
    temps = sections.rows("temps")
    fans = sections.rows("fans")
    boards = len(sections.rows("devs")) or len(temps) or len(sections.rows("devdetails"))
    return Sensors(
        board_temps_c=known([live_temperature(row.get("Board")) for row in temps]),
        chip_temps_c=known([live_temperature(row.get("Chip")) for row in temps]),
        fans_rpm=known([turning(row.get("RPM")) for row in fans]),
        fans_percent=known([percent(row.get("Speed")) for row in fans]),
        boards=boards or None,
    )


def _judge(sections: Sections, facts: Facts) -> Verdict:
    paused = any(row.get("Paused") is True for row in sections.rows("summary"))
    return judge(facts, off=paused)


TABLE: Final = Table(
    dialect="braiins",
    commands=Commands(
        poll=("summary", "temps", "fans", "tunerstatus", "pools"),
        static=("version", "devdetails", "devs"),
        identity=("version", "config"),
    ),
    fields={
        "hashrate_ths": (
            first("summary", "MHS 5s", megahash),
            summed("devs", "MHS 5s", megahash),
            first("summary", "MHS 1m", megahash),
        ),
        "hashrate_average_ths": (first("summary", "MHS av", megahash), summed("devs", "MHS av", megahash)),
        "expected_ths": (summed("devs", "Nominal MHS", megahash),),
        "power_w": (first("tunerstatus", "ApproximateMinerPowerConsumption", power),),
        "power_limit_w": (first("tunerstatus", "PowerLimit", positive_power),),
        "uptime_s": (first("summary", "Elapsed", whole), first("devs", "Device Elapsed", whole)),
        "model": (first("devdetails", "Model", text), first("version", "Type", text)),
        "firmware": (
            first("version", "BOSminer+", text),
            first("version", "BOSminer", text),
            first("version", "BOSer", text),
        ),
        "mac": (first("config", "MACAddr", mac),),
        "serial": (first("config", "SerialNumber", text),),
        "hostname": (first("config", "Hostname", text),),
    },
    sensors=_sensors,
    judge=_judge,
    power_source=PowerSource.ESTIMATE,
)
