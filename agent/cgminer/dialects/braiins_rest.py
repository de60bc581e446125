"""Braiins OS from 25.07: REST over HTTP, opened by a token that each request renews. Pure.

    miner/stats -> rates in GH/s by window, the tuner's power       cooling/state -> fans
    miner/hw/hashboards -> boards with their temperatures           miner/details -> names, and ``status``

``status``: 1 not started, 2 mining, 3 paused by an order, 4 suspended by itself, 5 restricted by licence. Not started
means that the mining process is down, whoever ended it: no order keeps it so, and nothing is coming up. The power
figure is the tuner's model, not a measurement. An error in ``miner/errors`` may be years old, so none is a fault.

Source: Braiins OS public API (miner.proto: MinerStatus); docs/devices.md.
"""

from typing import Any, Final

from agent.cgminer.credentials import Credentials
from agent.cgminer.dialects.documents import listed, part
from agent.cgminer.dialects.judgement import judge
from agent.cgminer.dialects.table import (
    Commands,
    Facts,
    Login,
    Sensors,
    Table,
    Verdict,
    gigahash,
    known,
    live_temperature,
    percent,
    positive_power,
    power,
    turning,
)
from agent.cgminer.observation import PoolShares
from agent.cgminer.sections import Reader, Sections, at, dig, mac, number, text, whole
from sitelink.types import MinerState, PowerSource, Reason
from sitelink.units import TeraHashPerSecond

_STATS: Final = "/api/v1/miner/stats"
_COOLING: Final = "/api/v1/cooling/state"
_BOARDS: Final = "/api/v1/miner/hw/hashboards"
_DETAILS: Final = "/api/v1/miner/details"
_TUNER: Final = "/api/v1/performance/tuner-state"
_POOLS: Final = "/api/v1/pools"
NOT_STARTED, PAUSED = 1, 3
TARGET_W: Final = "mode_state.powertargetmodestate.current_target.watt"
"""Where the tuner's state has the power target that it keeps to."""
_BY_ITSELF: Final = frozenset({4, 5})
"""Suspended and restricted: the firmware holds the miner still, no order of ours does."""
_CHIP, _BOARD = 1, 2
"""Where a sensor sits (``location``)."""


def _rate(window: str) -> Reader[TeraHashPerSecond]:
    return at(_STATS, f"miner_stats.{window}.gigahash_per_second", gigahash)


def _sensors(sections: Sections) -> Sensors:
    fans = listed(sections, _COOLING, "fans")
    boards = listed(sections, _BOARDS, "hashboards")
    chips = [dig(board, ("highest_chip_temp", "temperature", "degree_c")) for board in boards]
    return Sensors(
        board_temps_c=known([live_temperature(dig(board, ("board_temp", "degree_c"))) for board in boards])
        or _hottest(sections, _BOARD),
        chip_temps_c=known([live_temperature(chip) for chip in chips]) or _hottest(sections, _CHIP),
        fans_rpm=known([turning(fan.get("rpm")) for fan in fans]),
        fans_percent=known([_duty(fan.get("target_speed_ratio")) for fan in fans]),
        boards=sum(1 for board in boards if board.get("enabled") is not False) or None,
    )


def _hottest(sections: Sections, location: int) -> tuple[Any, ...]:
    sensor = part(sections, _COOLING, "highest_temperature")
    reading = dig(sensor, ("temperature", "degree_c")) if sensor.get("location") == location else None
    return known([live_temperature(reading)])


def _duty(ratio: Any) -> float | None:
    found = number(ratio)
    return None if found is None else percent(found * 100)


def _pools(sections: Sections) -> tuple[PoolShares, ...]:
    found: list[PoolShares] = []
    for group in sections.rows(_POOLS):
        pools = group.get("pools")
        for pool in pools if isinstance(pools, list) else ():
            stats = pool.get("stats") if isinstance(pool, dict) else None
            if isinstance(stats, dict):
                counts = [whole(stats.get(f"{kind}_shares")) for kind in ("accepted", "rejected", "stale")]
                found.append(PoolShares(*counts))
    return tuple(found)


def _judge(sections: Sections, facts: Facts) -> Verdict:
    status = at(_DETAILS, "status", whole)(sections)
    if status == NOT_STARTED:
        facts = facts._replace(uptime_s=None)  # a process that is down counts no time since its start
    verdict = judge(facts, off=status == PAUSED)
    if status in _BY_ITSELF and verdict in {(MinerState.IDLE, Reason.NOT_REPORTED), (MinerState.IDLE, Reason.STARTING)}:
        return MinerState.IDLE, Reason.FAULT
    return verdict


def login_of(credentials: Credentials) -> dict[str, str]:
    """Return what opens a session."""
    return {"username": credentials.user, "password": credentials.password}


TABLE: Final = Table(
    dialect="braiins-rest",
    commands=Commands(
        poll=(_DETAILS, _STATS, _COOLING, _BOARDS, _TUNER, _POOLS),
        brief=(_DETAILS, _STATS),
        identity=(_DETAILS,),
    ),
    fields={
        "hashrate_ths": (_rate("real_hashrate.last_5s"), _rate("real_hashrate.last_1m")),
        "hashrate_average_ths": (_rate("real_hashrate.since_restart"),),
        "expected_ths": (
            _rate("nominal_hashrate"),
            at(_DETAILS, "sticker_hashrate.gigahash_per_second", gigahash),
        ),
        "power_w": (at(_STATS, "power_stats.approximated_consumption.watt", power),),
        "power_limit_w": (at(_TUNER, TARGET_W, positive_power),),
        "uptime_s": (at(_DETAILS, "bosminer_uptime_s", whole),),
        "model": (at(_DETAILS, "miner_identity.name", text), at(_DETAILS, "miner_identity.miner_model", text)),
        "firmware": (at(_DETAILS, "bos_version.current", text),),
        "mac": (at(_DETAILS, "mac_address", mac),),
        "serial": (at(_DETAILS, "serial_number", text),),
        "hostname": (at(_DETAILS, "hostname", text),),
    },
    sensors=_sensors,
    judge=_judge,
    power_source=PowerSource.ESTIMATE,
    pools=_pools,
    logins=(Login("/api/v1/auth/login", login_of, "token", pages="/api/v1/"),),
)
