"""Auradine (GCMiner, FluxOS): the CGMiner API on 4028, the rest over HTTP on 8080. Pure.

    RPC  summary, devs, pools, version
    HTTP /psu -> PSU[0] {"PowerIn": "58.94W"}    /fan -> Fan[] {"Speed"}    /mode -> Mode[0] {"Sleep", "Power", "Ths"}
         /temperature -> Temperature[] {"Name", "BoardTemp": [..], "ChipTemp": [..]}    /ipreport -> IPReport[0] {"mac"}

HTTP wants a token, which it gives for user and password. Source: Auradine's API as the captures show it;
docs/devices.md. ``Sleep`` is text or a boolean, by build.
"""

from typing import Any, Final

from agent.cgminer.dialects.documents import listed
from agent.cgminer.dialects.judgement import judge
from agent.cgminer.dialects.table import (
    Commands,
    Facts,
    Login,
    Sensors,
    Table,
    Verdict,
    known,
    live_temperature,
    megahash,
    positive_power,
    power,
    rpm,
    tera,
)
from agent.cgminer.sections import Sections, at, first, leading_number, mac, rows_of, summed, text, whole
from sitelink.types import PowerSource
from sitelink.units import Celsius, TeraHashPerSecond, Watts

_PSU: Final = "/psu"
_FAN: Final = "/fan"
_TEMPERATURE: Final = "/temperature"
_MODE: Final = "/mode"
_REPORT: Final = "/ipreport"
_ASLEEP: Final = ("on", "true", "1")
_PSU_FANS: Final = ("FanSpeed1", "FanSpeed2")
_HASH_BOARD: Final = "hash board"
_CONTROL_BOARD: Final = "control board"


def _in_watts(value: Any) -> Watts | None:
    """Return what ``58.94W`` says."""
    return power(leading_number(value))


def _target(value: Any) -> TeraHashPerSecond | None:
    return tera(value) or None


def _asleep(value: Any) -> bool:
    return str(value).lower() in _ASLEEP


def _places(sections: Sections, name: str, key: str) -> tuple[Celsius, ...]:
    """Return the sensors listed under ``key`` of every place whose name begins with ``name``."""
    places = [
        row
        for row in listed(sections, _TEMPERATURE, "Temperature")
        if str(row.get("Name", "")).lower().startswith(name)
    ]
    return known([live_temperature(sensor.get("Temperature")) for row in places for sensor in rows_of(row.get(key))])


def _sensors(sections: Sections) -> Sensors:
    boards = sections.rows("devs")
    board_temps = _places(sections, _HASH_BOARD, "BoardTemp")
    return Sensors(
        board_temps_c=board_temps or known([live_temperature(row.get("Temperature")) for row in boards]),
        chip_temps_c=_places(sections, _HASH_BOARD, "ChipTemp"),
        fans_rpm=known([rpm(row.get("Speed")) for row in listed(sections, _FAN, "Fan")]),
        psu_fans_rpm=known(
            [rpm(leading_number(row.get(key))) for row in listed(sections, _PSU, "PSU") for key in _PSU_FANS]
        ),
        boards=len(boards) or None,
    )


def _control_board(sections: Sections) -> Celsius | None:
    return next(iter(_places(sections, _CONTROL_BOARD, "BoardTemp")), None)


def _judge(sections: Sections, facts: Facts) -> Verdict:
    return judge(facts, off=at(_MODE, "Mode.0.Sleep", _asleep)(sections) is True)


TABLE: Final = Table(
    dialect="auradine",
    commands=Commands(
        poll=("summary", "devs", "pools", _PSU, _FAN, _TEMPERATURE),
        idle=(_MODE,),
        static=(_REPORT, _MODE, "version"),
        identity=(_REPORT,),
    ),
    fields={
        "hashrate_ths": (first("summary", "MHS 5s", megahash), summed("devs", "MHS 5s", megahash)),
        "hashrate_average_ths": (first("summary", "MHS av", megahash),),
        "expected_ths": (at(_MODE, "Mode.0.Ths", _target),),
        "power_w": (at(_PSU, "PSU.0.PowerIn", _in_watts),),
        "power_limit_w": (at(_MODE, "Mode.0.Power", positive_power),),
        "env_temp_c": (_control_board,),
        "uptime_s": (first("summary", "Elapsed", whole),),
        "model": (at(_REPORT, "IPReport.0.model", text),),
        "firmware": (at(_REPORT, "IPReport.0.version", text), first("version", "GCMiner", text)),
        "mac": (at(_REPORT, "IPReport.0.mac", mac),),
        "serial": (at(_REPORT, "IPReport.0.SerialNo", text), at(_REPORT, "IPReport.0.ChassisSerialNo", text)),
        "hostname": (at(_REPORT, "IPReport.0.hostname", text),),
    },
    sensors=_sensors,
    judge=_judge,
    power_source=PowerSource.DEVICE,
    logins=(
        Login(
            target="/token",
            body=lambda credentials: {"command": "token", "user": credentials.user, "password": credentials.password},
            token="Token.0.Token",  # noqa: S106 - a path
            header="token",
        ),
    ),
    web_port=8080,
)
