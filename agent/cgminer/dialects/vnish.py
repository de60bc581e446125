"""VNish over its HTTP API; reading needs no password on most builds. Pure.

    summary -> miner {"miner_status", "hr_realtime" GH/s, "power_consumption", "cooling", "chains", "pools"}
    info    -> model, version, MAC

``miner_state``: mining, initializing, starting, auto-tuning, restarting, shutting-down, stopped, failure. Only
``stopped`` and ``shutting-down`` are an order's doing; a miner that stops itself says ``failure`` and, at the boards,
why.

Source: VNish API v1; docs/devices.md. ``psu_power_metering`` tells a measured power from an estimated one.
"""

from typing import Any, Final

from agent.cgminer.credentials import Credentials
from agent.cgminer.dialects.documents import listed
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
    rpm,
    tera,
)
from agent.cgminer.observation import PoolShares
from agent.cgminer.sections import Sections, at, dig, leading_number, mac, text, whole
from sitelink.types import MinerState, PowerSource, Reason
from sitelink.units import Watts

_SUMMARY: Final = "/api/v1/summary"
_INFO: Final = "/api/v1/info"
_PRESET: Final = "/api/v1/perf-summary"
_STATE: Final = "miner.miner_status.miner_state"
_STATE_TIME: Final = "miner.miner_status.miner_state_time"
STOPPED: Final = "stopped"
OFF: Final = frozenset({STOPPED, "shutting-down"})
"""States that only an order makes."""
_STARTING: Final = frozenset({"initializing", "starting", "restarting", "auto-tuning"})
_FAILED: Final = "failure"
_HOT_WORDS: Final = ("temp", "heat", "hot")
_DEVELOPERS: Final = "DevFee"


def _sensors(sections: Sections) -> Sensors:
    chains = listed(sections, _SUMMARY, "miner.chains")
    fans = listed(sections, _SUMMARY, "miner.cooling.fans")
    return Sensors(
        board_temps_c=_temps(sections, chains, "pcb_temp"),
        chip_temps_c=_temps(sections, chains, "chip_temp"),
        fans_rpm=known([rpm(fan.get("rpm")) for fan in fans]),
        fans_percent=known([at(_SUMMARY, "miner.cooling.fan_duty", percent)(sections)]),
        boards=len(chains) or None,
        errors=_faults(chains) + _broken(fans),
    )


def _temps(sections: Sections, chains: list[dict[str, Any]], key: str) -> tuple[Any, ...]:
    """Return coolest and hottest sensor of each board, else of the whole miner."""
    holders = [dig(chain, (key,)) for chain in chains] or [at(_SUMMARY, f"miner.{key}", lambda value: value)(sections)]
    pairs = [(holder.get("min"), holder.get("max")) for holder in holders if isinstance(holder, dict)]
    return known([live_temperature(value) for pair in pairs for value in pair])


def _faults(chains: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return what each board that failed says, or that it failed."""
    found: list[str] = []
    for chain in chains:
        if dig(chain, ("status", "state")) == _FAILED:
            said = text(dig(chain, ("status", "description"))) or text(dig(chain, ("status", "message"))) or _FAILED
            found.append(f"chain {text(chain.get('id')) or '?'}: {said}")
    return tuple(found)


def _broken(fans: list[dict[str, Any]]) -> tuple[str, ...]:
    bad = [fan for fan in fans if text(fan.get("status")) not in (None, "ok")]
    return tuple(f"fan {text(fan.get('id')) or '?'}: {text(fan.get('status'))}" for fan in bad)


def _pools(sections: Sections) -> tuple[PoolShares, ...]:
    """Return the shares of the owner's pools; the developers' cut is nobody's business here."""
    pools = [pool for pool in listed(sections, _SUMMARY, "miner.pools") if pool.get("pool_type") != _DEVELOPERS]
    return tuple(
        PoolShares(whole(pool.get("accepted")), whole(pool.get("rejected")), whole(pool.get("stale"))) for pool in pools
    )


def _judge(sections: Sections, facts: Facts) -> Verdict:
    state = (at(_SUMMARY, _STATE, text)(sections) or "").lower()
    said = (at(_SUMMARY, "miner.miner_status.description", text)(sections) or "").lower()
    hot = state == _FAILED and any(
        word in sign.lower() for sign in (said, *facts.sensors.errors) for word in _HOT_WORDS
    )
    verdict = judge(facts, off=state in OFF, hot=hot, starting=state in _STARTING)
    if state == _FAILED and verdict == (MinerState.IDLE, Reason.NOT_REPORTED):
        return MinerState.IDLE, Reason.FAULT
    return verdict


def _preset(sections: Sections) -> Watts | None:
    """Return the draw that the preset in force is named for, which is what VNish steers to."""
    return positive_power(at(_PRESET, "current_preset.name", leading_number)(sections))


def _measures_power(sections: Sections) -> bool:
    return at(_SUMMARY, "miner.psu.psu_power_metering", lambda value: value is True)(sections) is True


def login_of(credentials: Credentials) -> dict[str, str]:
    """Return what opens a session."""
    return {"pw": credentials.password}


TABLE: Final = Table(
    dialect="vnish",
    commands=Commands(poll=(_SUMMARY,), static=(_INFO, _PRESET), identity=(_INFO,)),
    fields={
        "hashrate_ths": (
            at(_SUMMARY, "miner.hr_realtime", gigahash),
            at(_SUMMARY, "miner.instant_hashrate", tera),
        ),
        "hashrate_average_ths": (at(_SUMMARY, "miner.hr_average", gigahash),),
        "expected_ths": (at(_SUMMARY, "miner.hr_nominal", gigahash), at(_SUMMARY, "miner.hr_stock", gigahash)),
        "power_w": (
            at(_SUMMARY, "miner.power_consumption", power),
            at(_SUMMARY, "miner.power_usage", power),
        ),
        "power_limit_w": (_preset,),
        "uptime_s": (at(_SUMMARY, _STATE_TIME, whole),),
        "model": (at(_INFO, "miner", text), at(_SUMMARY, "miner.miner_type", text)),
        "firmware": (at(_INFO, "fw_version", text),),
        "mac": (at(_INFO, "system.network_status.mac", mac),),
        "serial": (at(_INFO, "serial", lambda value: None if value == "N/A" else text(value)),),
        "hostname": (at(_INFO, "system.network_status.hostname", text),),
    },
    sensors=_sensors,
    judge=_judge,
    power_source=PowerSource.ESTIMATE,
    measures_power=_measures_power,
    pools=_pools,
    logins=(Login("/api/v1/unlock", login_of, "token", prefix="Bearer ", pages="/api/v1/"),),
)
