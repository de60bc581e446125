"""Antminers of the S9's time, and others with their web page (Blackminer F2), over HTTP alone. Pure.

    /cgi-bin/get_miner_status.cgi -> {"summary": {"ghs5s": "16360.27", ..}, "pools": [..],
                                      "devs": [{"freq": "300,fan1=4680,temp1=60,temp_chip1=57-82,chain_acn1=60,.."}]}
    /cgi-bin/get_system_info.cgi  -> {"minertype", "macaddr", "hostname"}

Every value is text. What RPC's ``stats`` holds under keys stands in one text behind ``freq`` of the first device: the
page cuts the plain form at its first comma. Source: docs/devices.md; the captures. There is no sleep mode.
"""

from functools import lru_cache
from typing import Final

from agent.cgminer.dialects.antminer import antminer_sensors, unit_of_model
from agent.cgminer.dialects.documents import listed
from agent.cgminer.dialects.judgement import judge_by_hashrate
from agent.cgminer.dialects.table import Commands, Sensors, Table, hashrate
from agent.cgminer.observation import PoolShares
from agent.cgminer.repair import Decoded
from agent.cgminer.sections import Reader, Sections, at, mac, text, whole
from sitelink.types import PowerSource
from sitelink.units import TeraHashPerSecond

_STATUS: Final = "/cgi-bin/get_miner_status.cgi"
_SYSTEM: Final = "/cgi-bin/get_system_info.cgi"
_LONGEST: Final = 16_384
_LONGEST_MODEL: Final = 64


def _rate(key: str) -> Reader[TeraHashPerSecond]:
    """Return a reader of a rate, in the unit that the model's algorithm is counted in."""

    def reader(sections: Sections) -> TeraHashPerSecond | None:
        model = at(_SYSTEM, "minertype", text)(sections) or ""
        return at(_STATUS, f"summary.{key}", lambda value: hashrate(value, unit_of_model(model[:_LONGEST_MODEL])))(
            sections
        )

    return reader


def _stats(sections: Sections) -> Sections:
    """Return the figures behind ``freq`` as the ``stats`` they are."""
    found = Sections()
    device = next(iter(listed(sections, _STATUS, "devs")), {})
    joined = device.get("freq")
    if isinstance(joined, str):
        found.add(Decoded({"STATS": [dict(_members(joined[:_LONGEST]))]}))
    return found


@lru_cache(maxsize=32)
def _members(joined: str) -> tuple[tuple[str, str], ...]:
    pieces = (piece.partition("=") for piece in joined.rstrip("|").split(","))
    return tuple((name.strip(), value) for name, equals, value in pieces if equals)


def _expected(sections: Sections) -> TeraHashPerSecond | None:
    model = at(_SYSTEM, "minertype", text)(sections) or ""
    return hashrate(_stats(sections).find("stats", "total_rateideal"), unit_of_model(model[:_LONGEST_MODEL])) or None


def _sensors(sections: Sections) -> Sensors:
    return antminer_sensors(_stats(sections))


def _version(sections: Sections) -> str | None:
    return text(_stats(sections).find("stats", "miner_version"))


def _pools(sections: Sections) -> tuple[PoolShares, ...]:
    return tuple(
        PoolShares(*(whole(row.get(key)) for key in ("accepted", "rejected", "stale")))
        for row in listed(sections, _STATUS, "pools")
    )


TABLE: Final = Table(
    dialect="antminer-web",
    commands=Commands(poll=(_STATUS,), static=(_SYSTEM,), identity=(_SYSTEM,), joins=False),
    fields={
        "hashrate_ths": (_rate("ghs5s"),),
        "hashrate_average_ths": (_rate("ghsav"),),
        "expected_ths": (_expected,),
        "uptime_s": (at(_STATUS, "summary.elapsed", whole),),
        "model": (at(_SYSTEM, "minertype", text),),
        "firmware": (_version, at(_SYSTEM, "system_filesystem_version", text)),
        "mac": (at(_SYSTEM, "macaddr", mac),),
        "hostname": (at(_SYSTEM, "hostname", text),),
    },
    sensors=_sensors,
    judge=judge_by_hashrate,
    power_source=PowerSource.NONE,
    pools=_pools,
)
