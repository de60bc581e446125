"""What becomes of curtailments when ``agent.db`` was broken and had to be moved aside.

    broken file --every row that can still be read--> new file --load--> orders go on as if nothing had happened
                 something could not be read          -------------> each miner is brought back, the cloud is told

Invariant: a miner that an order of ours may have stopped is never forgotten: it is either still under that order, or
started. What is read is not trusted blindly: a row that no record can be made of counts as lost.
"""

import logging
import sqlite3
from pathlib import Path
from typing import Final

from agent.errors import BadInput
from agent.local_curtail import records
from agent.local_curtail.schema import TABLES
from agent.storage import connect_read_only

_LOG: Final = logging.getLogger(__name__)
_WORDS: Final = frozenset(
    {"curtail_details", "curtail_notices", "curtail_numbers", "curtail_chain", "curtail_chain_head"}
)
"""No order hangs on these; a file of an earlier version lacks them."""
_READ_BACK: Final = {"curtail_miners": records.miner_of, "curtail_orders": records.order_of}


def salvage(connection: sqlite3.Connection, broken: Path) -> bool:
    """Copy the curtailment rows of the ``broken`` file into ``connection``; return whether all could be read."""
    try:
        old = connect_read_only(broken)
    except (BadInput, sqlite3.DatabaseError) as error:
        _LOG.error("curtailment: %s cannot be read: %s", broken.name, error)
        return False
    try:
        saved = {table: _copy(old, connection, table) for table in TABLES}  # each, whatever became of the one before
        return all(whole for table, whole in saved.items() if table not in _WORDS)
    finally:
        old.close()


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> bool:
    whole = True
    try:
        columns = ", ".join(row[1] for row in new.execute(f"PRAGMA table_info({table})"))
        for row in old.execute(f"SELECT {columns} FROM {table}"):  # noqa: S608 - our own names
            whole = _keep(new, table, columns, row) and whole
    except sqlite3.DatabaseError as error:
        _LOG.error("curtailment: rows of %s are lost: %s", table, error)
        return False
    return whole


def _keep(new: sqlite3.Connection, table: str, columns: str, row: tuple[object, ...]) -> bool:
    try:
        if table in _READ_BACK:
            _READ_BACK[table](str(row[1]))
        places = ", ".join("?" * len(row))
        new.execute(f"INSERT INTO {table} ({columns}) VALUES ({places})", row)  # noqa: S608 - our own names
    except (ValueError, KeyError, TypeError, sqlite3.IntegrityError) as error:
        _LOG.error("curtailment: a row of %s is lost: %s", table, error)
        return False
    return True
