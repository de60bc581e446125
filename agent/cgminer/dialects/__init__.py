"""One table a dialect: field -> (section of a command's reply, key, unit). Pure."""

from typing import Final

from agent.cgminer.dialects import (
    antminer,
    antminer_web,
    auradine,
    avalon,
    bitaxe,
    braiins,
    braiins_rest,
    elphapex,
    epic,
    generic,
    goldshell,
    kin,
    luxos,
    obelisk,
    vnish,
    whatsminer,
    whatsminer_v3,
)
from agent.cgminer.dialects.table import Table

TABLES: Final[dict[str, Table]] = {
    table.dialect: table
    for table in (
        antminer.TABLE,
        antminer_web.TABLE,
        auradine.TABLE,
        avalon.TABLE,
        bitaxe.TABLE,
        braiins.TABLE,
        braiins_rest.TABLE,
        elphapex.TABLE,
        epic.TABLE,
        generic.TABLE,
        goldshell.TABLE,
        kin.BLACKMINER,
        kin.HAMMER,
        kin.HIVEON,
        kin.INNOSILICON,
        kin.MSKMINER,
        luxos.TABLE,
        obelisk.TABLE,
        vnish.TABLE,
        whatsminer.TABLE,
        whatsminer_v3.TABLE,
    )
}


def table_of(dialect: str) -> Table:
    """Return the table of a dialect; an unknown name is read as plain CGMiner."""
    return TABLES.get(dialect, generic.TABLE)
