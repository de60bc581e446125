"""ePIC PowerPlay: HTTP on port 4028, where others speak the CGMiner API. Pure.

    GET /summary      -> {"Status": {"Operating State"}, "HBs": [{"Hashrate": [MH/s, %, %], "Temperature"}],
                          "Power Supply Stats": {"Input Power"}, "Fans Rpm": {"Fans Speed 1"}, "Session": {"Uptime"}}
    GET /network      -> {"dhcp": {"mac_address"}}      GET /capabilities -> {"Model", "Default Hashrate": TH/s}

Idling alone proves no order: it also idles when its pool is lost. Source: ePIC's API as the captures show it;
docs/devices.md. ``Input Power`` beside an input voltage of 0 is computed, not measured.
"""

from typing import Any, Final

from agent.cgminer.dialects.documents import listed, part
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
    power,
    rpm,
    tera,
)
from agent.cgminer.observation import PoolShares
from agent.cgminer.sections import Sections, at, mac, number, text, whole
from sitelink.miners import RPC_PORT
from sitelink.types import MinerState, PowerSource, Reason
from sitelink.units import TeraHashPerSecond

_SUMMARY: Final = "/summary"
_NETWORK: Final = "/network"
_CAPABILITIES: Final = "/capabilities"
_OFF_ORDERS: Final = ("stop", "idle")
_MAX_FANS: Final = 16


def _hashrate(sections: Sections) -> TeraHashPerSecond | None:
    rates = known([_board_rate(board.get("Hashrate")) for board in listed(sections, _SUMMARY, "HBs")])
    return TeraHashPerSecond(sum(rates)) if rates else None


def _board_rate(value: Any) -> TeraHashPerSecond | None:
    return megahash(value[0]) if isinstance(value, list) and value else None


def _target(sections: Sections) -> TeraHashPerSecond | None:
    """Return what the running tuner steers to."""
    if part(sections, _SUMMARY, "PerpetualTune").get("Running") is not True:
        return None
    algorithms = [row for row in part(sections, _SUMMARY, "PerpetualTune.Algorithm").values() if isinstance(row, dict)]
    return next((tera(row["Target"]) for row in algorithms if row.get("Unit") == "TH/s" and "Target" in row), None)


def _sensors(sections: Sections) -> Sensors:
    boards = listed(sections, _SUMMARY, "HBs")
    slots = listed(sections, _SUMMARY, "HBStatus")
    fans = part(sections, _SUMMARY, "Fans Rpm")
    error = text(at(_SUMMARY, "Status.Last Error", text)(sections))
    return Sensors(
        board_temps_c=known([live_temperature(board.get("Temperature")) for board in boards]),
        fans_rpm=known([rpm(fans.get(f"Fans Speed {place}")) for place in range(1, _MAX_FANS + 1)]),
        fans_percent=known([at(_SUMMARY, "Fans.Fans Speed", percent)(sections)]),
        boards=(sum(1 for slot in slots if slot.get("Detected") is True) if slots else len(boards)) or None,
        errors=(error,) if error else (),
    )


def _pools(sections: Sections) -> tuple[PoolShares, ...]:
    accepted, rejected = (at(_SUMMARY, f"Session.{key}", whole)(sections) for key in ("Accepted", "Rejected"))
    return () if accepted is None and rejected is None else (PoolShares(accepted, rejected, None),)


def _judge(sections: Sections, facts: Facts) -> Verdict:
    state = (at(_SUMMARY, "Status.Operating State", text)(sections) or "").lower()
    order = (at(_SUMMARY, "Status.Last Command", text)(sections) or "").lower()
    idling = state == "idling"
    off = idling and any(word in order for word in _OFF_ORDERS)
    if idling and facts.hashrate_ths is None and not off:
        return MinerState.IDLE, Reason.NOT_REPORTED
    return judge(facts, off=off, starting="start" in state or "init" in state)


def _measures_power(sections: Sections) -> bool:
    return bool(at(_SUMMARY, "Power Supply Stats.Input Voltage", number)(sections))


TABLE: Final = Table(
    dialect="epic",
    commands=Commands(poll=(_SUMMARY,), static=(_NETWORK, _CAPABILITIES), identity=(_NETWORK,), joins=False),
    fields={
        "hashrate_ths": (_hashrate,),
        "hashrate_average_ths": (at(_SUMMARY, "Session.Average MHs", megahash),),
        "expected_ths": (_target, at(_CAPABILITIES, "Default Hashrate", tera)),
        "power_w": (at(_SUMMARY, "Power Supply Stats.Input Power", power),),
        "uptime_s": (at(_SUMMARY, "Session.Uptime", whole),),
        "model": (at(_CAPABILITIES, "Model", text),),
        "firmware": (at(_SUMMARY, "Software", text),),
        "mac": (at(_NETWORK, "dhcp.mac_address", mac), at(_NETWORK, "static.mac_address", mac)),
        "hostname": (at(_SUMMARY, "Hostname", text),),
    },
    sensors=_sensors,
    judge=_judge,
    power_source=PowerSource.ESTIMATE,
    measures_power=_measures_power,
    web_port=RPC_PORT,
    pools=_pools,
)
