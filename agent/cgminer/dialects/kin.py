"""Families that answer as another one does, read by its table under their own name. Pure.

They have a name of their own because who answers decides what may be sent: none of these is ever controlled, though
the firmware they grew out of is. Source: docs/devices.md; the captures.

    hiveon, mskminer   bmminer ``stats`` with ``chain_power`` "456.78 (AB)"       as antminer
    blackminer         the same keys, other algorithms                            as antminer
    hammer             the same keys under ``MHS``, names over HTTP               as antminer
    innosilicon        sgminer with numbered sections; Equihash under ``MHS``     as any CGMiner
"""

from dataclasses import replace
from typing import Final

from agent.cgminer.dialects import antminer, generic
from agent.cgminer.dialects.table import Commands, Table
from agent.cgminer.sections import at, mac, text

_SYSTEM: Final = "/cgi-bin/get_system_info.cgi"
_POLL: Final = ("stats", "pools")


def _like_antminer(dialect: str) -> Table:
    """Return the Antminer's table without what only the stock firmware's web page has in its own form."""
    return replace(
        antminer.TABLE,
        dialect=dialect,
        commands=Commands(poll=_POLL, static=("version", _SYSTEM), identity=(_SYSTEM, "stats"), joins=False),
        fields={
            **antminer.TABLE.fields,
            "mac": (at(_SYSTEM, "macaddr", mac),),
            "hostname": (at(_SYSTEM, "hostname", text),),
        },
    )


HIVEON: Final = _like_antminer("hiveon")
MSKMINER: Final = replace(
    antminer.TABLE,
    dialect="mskminer",
    commands=Commands(poll=_POLL, static=("version",), identity=("stats", "version"), joins=False),
)
BLACKMINER: Final = _like_antminer("blackminer")
HAMMER: Final = _like_antminer("hammer")
INNOSILICON: Final = replace(generic.TABLE, dialect="innosilicon")
