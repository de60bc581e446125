"""Whatsminer (btminer) API v3, behind a length on port 4433. Pure.

    get.miner.status summary -> msg.summary {"hash-realtime" TH/s, "power-realtime", "board-temperature": [..]}
                     edevs   -> msg.edevs, one entry a board       pools -> msg.pools
    get.device.info          -> msg {"miner": {"working": "true"}, "network", "power", "system", "error-code": [..]}

The three parts of the status are asked in one request (``summary+edevs+pools``). No pool tells its shares.

Source: WhatsMiner API 3.0; docs/devices.md.
"""

from typing import Any, Final

from agent.cgminer.dialects.documents import listed
from agent.cgminer.dialects.judgement import judge
from agent.cgminer.dialects.table import (
    Commands,
    Facts,
    Sensors,
    Table,
    Verdict,
    known,
    live_temperature,
    positive_power,
    power,
    rpm,
    tera,
    turning,
)
from agent.cgminer.dialects.whatsminer import is_heat_code
from agent.cgminer.observation import PoolShares
from agent.cgminer.sections import Sections, at, mac, text, whole
from sitelink.types import PowerSource

_SUMMARY: Final = "v3:get.miner.status:summary"
_BOARDS: Final = "v3:get.miner.status:edevs"
_POOLS: Final = "v3:get.miner.status:pools"
_INFO: Final = "v3:get.device.info"
_MAX_CODES: Final = 64


def _sensors(sections: Sections) -> Sensors:
    boards = listed(sections, _BOARDS, "msg.edevs")
    listed_temps = at(_SUMMARY, "msg.summary.board-temperature", _list)(sections) or []
    chips = boards or [at(_SUMMARY, "msg.summary", _object)(sections) or {}]
    fans = [at(_SUMMARY, f"msg.summary.fan-speed-{side}", rpm)(sections) for side in ("in", "out")]
    supply = at(_INFO, "msg.power.fanspeed", turning)(sections)
    return Sensors(
        board_temps_c=known([live_temperature(value) for value in listed_temps]),
        chip_temps_c=known(
            [live_temperature(chip.get(key)) for chip in chips for key in ("chip-temp-avg", "chip-temp-max")]
        ),
        fans_rpm=known(fans),
        psu_fans_rpm=known([supply]),
        boards=len(boards) or at(_INFO, "msg.miner.board-num", whole)(sections) or len(listed_temps) or None,
        errors=_errors(sections),
    )


def _errors(sections: Sections) -> tuple[str, ...]:
    """Return the error codes of now: each entry has one as a key, beside its ``reason``."""
    codes: dict[str, None] = {}
    for entry in listed(sections.fresh, _INFO, "msg.error-code")[:_MAX_CODES]:
        codes.update(dict.fromkeys(key for key in entry if key != "reason"))
    return tuple(codes)


def _pools(sections: Sections) -> tuple[PoolShares, ...]:
    return tuple(PoolShares(None, None, None) for _ in listed(sections, _POOLS, "msg.pools"))


def is_off(working: Any) -> bool:
    """Return whether ``miner.working`` says that the miner was told to stop; by firmware in text or not."""
    return str(working).strip().lower() in ("false", "0")


def _judge(sections: Sections, facts: Facts) -> Verdict:
    working = at(_INFO, "msg.miner.working", lambda value: value)(sections)
    tuned = at(_SUMMARY, "msg.summary.up-freq-finish", whole)(sections)
    hot = any(is_heat_code(code) for code in facts.sensors.errors)
    return judge(facts, off=is_off(working), hot=hot, starting=tuned == 0)


def _object(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _list(value: Any) -> list[Any] | None:
    return value if isinstance(value, list) else None


TABLE: Final = Table(
    dialect="whatsminer-v3",
    commands=Commands(
        poll=(_SUMMARY, _BOARDS, _POOLS),
        idle=(_INFO,),
        brief=(_SUMMARY,),
        static=(_INFO,),
        identity=(_INFO,),
    ),
    fields={
        "hashrate_ths": (
            at(_SUMMARY, "msg.summary.hash-realtime", tera),
            at(_SUMMARY, "msg.summary.hash-1min", tera),
        ),
        "hashrate_average_ths": (at(_SUMMARY, "msg.summary.hash-average", tera),),
        "expected_ths": (at(_SUMMARY, "msg.summary.factory-hash", tera),),
        "power_w": (
            at(_SUMMARY, "msg.summary.power-realtime", power),
            at(_SUMMARY, "msg.summary.power-5min", power),
        ),
        "power_limit_w": (at(_SUMMARY, "msg.summary.power-limit", positive_power),),
        "env_temp_c": (at(_SUMMARY, "msg.summary.environment-temperature", live_temperature),),
        "uptime_s": (at(_SUMMARY, "msg.summary.elapsed", whole),),
        "model": (at(_INFO, "msg.miner.type", text),),
        "firmware": (at(_INFO, "msg.system.fwversion", text),),
        "mac": (at(_INFO, "msg.network.mac", mac),),
        "serial": (at(_INFO, "msg.miner.miner-sn", text),),
        "hostname": (at(_INFO, "msg.network.hostname", text),),
    },
    sensors=_sensors,
    judge=_judge,
    power_source=PowerSource.DEVICE,
    pools=_pools,
)
