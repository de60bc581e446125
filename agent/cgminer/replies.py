"""Replies to one observation. PURE: bytes in, values out, no I/O, no clock.

    {command: bytes} -> repair.decode -> Sections -> dialect table -> Observation

Invariants: ``parse`` never raises, whatever the bytes; what is missing is None, never zero; a device that answers only
garbage is UNKNOWN with reason GARBLED; a state is judged by what the device said this time, never by what was read an
hour ago.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from agent.cgminer.dialects import table_of
from agent.cgminer.dialects.families import family_of
from agent.cgminer.dialects.table import Facts, Sensors, Table, Verdict
from agent.cgminer.observation import Observation, PoolShares
from agent.cgminer.repair import decode
from agent.cgminer.sections import Sections, at, number, text, whole
from agent.errors import Garbled
from sitelink.miners import AUTO
from sitelink.types import MinerState, PowerSource, Reason
from sitelink.units import Watts

__all__ = ["PLAIN", "Observation", "PoolShares", "identify", "interpret", "named", "parse", "read_sections"]

PLAIN = "cgminer"
"""The dialect of what shows itself as none of the others."""
_GLANCE = ("hashrate_ths", "power_w", "uptime_s")
_NAMES = ("mac", "serial", "control_board_id")
_NOTHING_MEASURED = Sensors()
_BEST_CHIP_J_PER_TH = 5.0
"""No chip made gets by on less, so an estimated draw below it is a firmware's missing figure."""


def parse(dialect: str, replies: Mapping[str, bytes]) -> Observation:
    """Return what ``replies`` (command -> reply without terminator) tell about one miner. Never raises.

    ``dialect`` is one of the inventory's; ``auto`` looks at the replies themselves. A joined command's reply is taken
    apart, so ``{"summary+stats": ..}`` equals ``{"summary": .., "stats": ..}``.
    """
    sections = read_sections(replies.items())
    return interpret(_dialect(sections) if dialect == AUTO else dialect, sections)


def identify(replies: Mapping[str, bytes]) -> str:
    """Return the dialect that replies (by command) to the telling commands show. Never raises."""
    return _dialect(read_sections(replies.items()))


def read_sections(replies: Iterable[tuple[str, bytes]]) -> Sections:
    """Return the sections of (command, reply) pairs; a reply that cannot be read at all is noted as garbled."""
    sections = Sections()
    for command, reply in replies:
        try:
            sections.add(decode(reply), command)
        except Garbled:
            sections.garbled = True
    return sections


def interpret(
    dialect: str, sections: Sections, shown_s: tuple[float, float] | None = None, *, glance: bool = False
) -> Observation:
    """Return what the sections tell, read by the table of ``dialect``: of a ``glance`` the state and the power alone.

    Never raises.
    """
    table = table_of(dialect)
    if not sections and not sections.statuses:
        return Observation(dialect, reason=_nothing(sections), repaired=tuple(sections.repaired))
    if glance:
        return _glimpsed(dialect, table, sections, shown_s)
    values = {name: _field(table, name, sections) for name in table.fields}
    sensors = table.sensors(sections)
    values["power_w"] = _plausible(values.get("power_w"), values.get("hashrate_ths"), table, sections)
    state, reason = _judged(table, sections, values, sensors)
    return Observation(
        dialect=dialect,
        state=state,
        reason=reason,
        power_source=PowerSource.NONE if values["power_w"] is None else table.power_source_of(sections),
        pools=_pools(sections) if table.pools is None else table.pools(sections),
        device_time=sections.device_time,
        repaired=tuple(sections.repaired),
        shown_s=shown_s,
        **sensors._asdict(),
        **values,
    )


def named(dialect: str, sections: Sections) -> Observation:
    """Return what the sections tell of who the device is, and nothing else. Never raises."""
    table = table_of(dialect)
    return Observation(dialect, **{name: _field(table, name, sections) for name in _NAMES if name in table.fields})


def _glimpsed(dialect: str, table: Table, sections: Sections, shown_s: tuple[float, float] | None) -> Observation:
    values = {name: _field(table, name, sections) for name in _GLANCE if name in table.fields}
    power_w = _plausible(values.get("power_w"), values.get("hashrate_ths"), table, sections)
    verdict = _judged(table, sections, values, _NOTHING_MEASURED)
    if verdict[0] is not MinerState.HASHING:
        verdict = _judged(table, sections, values, table.sensors(sections))  # no sensor makes a hashing miner stand
    return Observation(
        dialect=dialect,
        state=verdict[0],
        reason=verdict[1],
        hashrate_ths=values.get("hashrate_ths"),
        power_w=power_w,
        power_source=PowerSource.NONE if power_w is None else table.power_source_of(sections),
        uptime_s=values.get("uptime_s"),
        shown_s=shown_s,
    )


def _judged(table: Table, sections: Sections, values: Mapping[str, Any], sensors: Sensors) -> Verdict:
    facts = Facts(values.get("hashrate_ths"), values.get("uptime_s"), sensors)
    state, reason = table.judge(sections.fresh, facts)
    if state is MinerState.UNKNOWN and reason is Reason.NOT_REPORTED:
        reason = _nothing(sections)
    return state, reason


def _nothing(sections: Sections) -> Reason:
    if sections.denied or any(status.denied for status in sections.statuses):
        return Reason.ACCESS_DENIED
    if sections.busy:
        return Reason.SESSION_BUSY
    answered = sections or sections.statuses
    return Reason.NOT_REPORTED if answered and not sections.garbled else Reason.GARBLED


def _field(table: Table, name: str, sections: Sections) -> Any:
    for reader in table.fields[name]:
        value = reader(sections)
        if value is not None:
            return value
    return None


def _plausible(power_w: Watts | None, hashrate_ths: float | None, table: Table, sections: Sections) -> Watts | None:
    if power_w is None or hashrate_ths is None or table.power_source_of(sections) is not PowerSource.ESTIMATE:
        return power_w
    return None if power_w < _BEST_CHIP_J_PER_TH * hashrate_ths else power_w


def _pools(sections: Sections) -> tuple[PoolShares, ...]:
    return tuple(
        PoolShares(whole(row.get("Accepted")), whole(row.get("Rejected")), whole(row.get("Stale")))
        for row in sections.rows("pools")
    )


def _dialect(sections: Sections) -> str:
    keys = {key for row in sections.rows("version") for key in row}
    stats = {key[:5] for row in sections.rows("stats") for key in row}
    kinds = " ".join(
        str(sections.find(section, key) or "")
        for section, key in (("version", "Type"), ("version", "PROD"), ("stats", "Type"), ("devdetails", "Driver"))
    ).lower()
    said = " ".join(sections.descriptions).lower()
    if at("/api/v1/info", "fw_name", text)(sections) == "Vnish":
        return "vnish"
    if at("/api/v1/version", "major", number)(sections) is not None:
        return "braiins-rest"
    if at("v3:get.device.info", "msg.miner", bool)(sections):
        return "whatsminer-v3"
    if "LUXminer" in keys or "luxminer" in said:
        return "luxos"
    if keys & {"BOSminer", "BOSminer+", "BOSer"} or "bosminer" in said or "boser" in said:
        return "braiins"
    if keys & {"STM8", "PROD"} or "avalon" in kinds or any("MM ID" in key for key in stats):
        return "avalon"
    if _is_whatsminer(sections, kinds, said):
        return "whatsminer"
    if "vnish" in kinds:
        return (
            PLAIN  # grown out of the Antminer's, too old for an interface of its own, and not to be controlled as one
        )
    family = family_of(sections, kinds, said)
    if family is not None:
        return family
    if "BMMiner" in keys or "antminer" in kinds or "bitmain" in kinds:
        return "antminer"
    return PLAIN


def _is_whatsminer(sections: Sections, kinds: str, said: str) -> bool:
    if "bitmicro" in kinds or "btminer" in said or "whatsminer" in said:
        return True
    if any("btminer" in status.message.lower() for status in sections.statuses):
        return True  # "btminer process is down err" is all that one of them says
    if sections.find("summary", "Fan Speed In") is not None:
        return True
    return any(sections.find("msg", key) is not None for key in ("btmineroff", "mineroff", "fw_ver"))
