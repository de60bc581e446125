"""One table a dialect: field -> (section of a command's reply, key, unit). Pure."""

from typing import Final

from agent.cgminer.dialects import antminer, avalon, braiins, generic, luxos, whatsminer
from agent.cgminer.dialects.table import Table

TABLES: Final[dict[str, Table]] = {
    table.dialect: table
    for table in (
        antminer.TABLE,
        avalon.TABLE,
        braiins.TABLE,
        generic.TABLE,
        luxos.TABLE,
        whatsminer.TABLE,
    )
}


def table_of(dialect: str) -> Table:
    """Return the table of a dialect; an unknown name is read as plain CGMiner."""
    return TABLES.get(dialect, generic.TABLE)
