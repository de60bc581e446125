"""The tables of local curtailment in ``agent.db``. Each is written by one module, named beside it."""

import sqlite3
from typing import Final

from agent.local_curtail import chain

_SCHEMA: Final = (
    # inbox.py: the plan in force (one row), commands until they expire, how often each refusal was given
    """CREATE TABLE IF NOT EXISTS curtail_plan (
        id INTEGER PRIMARY KEY CHECK (id = 1), signing_epoch INTEGER NOT NULL, sequence INTEGER NOT NULL,
        payload BLOB NOT NULL, accepted_at_us INTEGER NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS curtail_commands (
        signing_epoch INTEGER NOT NULL, sequence INTEGER NOT NULL, command_id TEXT NOT NULL UNIQUE,
        payload BLOB NOT NULL, accepted_at_us INTEGER NOT NULL, PRIMARY KEY (signing_epoch, sequence))""",
    "CREATE TABLE IF NOT EXISTS curtail_refusals (code TEXT PRIMARY KEY, times INTEGER NOT NULL)",
    # numbers.py: the highest number of any order taken, and the highest of any command forgotten
    """CREATE TABLE IF NOT EXISTS curtail_numbers (
        id INTEGER PRIMARY KEY CHECK (id = 1), signing_epoch INTEGER NOT NULL, sequence INTEGER NOT NULL,
        order_id TEXT NOT NULL, floor_epoch INTEGER NOT NULL, floor_sequence INTEGER NOT NULL)""",
    # overrides.py: what a technician ordered at the site
    """CREATE TABLE IF NOT EXISTS curtail_overrides (
        place INTEGER PRIMARY KEY AUTOINCREMENT, override_id TEXT NOT NULL UNIQUE, verb TEXT NOT NULL,
        miner_ids TEXT, set_at_us INTEGER NOT NULL, boot_id TEXT NOT NULL, until_mono_s REAL NOT NULL,
        until_us INTEGER NOT NULL, announced INTEGER NOT NULL DEFAULT 0)""",
    # site_time.py: the last signed time this boot
    """CREATE TABLE IF NOT EXISTS curtail_clock (
        id INTEGER PRIMARY KEY CHECK (id = 1), boot_id TEXT NOT NULL, mono_s REAL NOT NULL,
        cloud_time_us INTEGER NOT NULL, uncertainty_s REAL NOT NULL, heard_mono_s REAL NOT NULL)""",
    # books.py: what was ordered of each miner, how far it got, and what has been acknowledged
    """CREATE TABLE IF NOT EXISTS curtail_miners (miner_id TEXT PRIMARY KEY, record TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS curtail_orders (order_id TEXT PRIMARY KEY, record TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS curtail_acks (
        order_id TEXT NOT NULL, miner_id TEXT NOT NULL, verb TEXT NOT NULL, outcome TEXT NOT NULL,
        evidence TEXT NOT NULL, reason TEXT NOT NULL, at_us INTEGER NOT NULL, power_before_w REAL, power_after_w REAL,
        PRIMARY KEY (order_id, miner_id, verb))""",
    """CREATE TABLE IF NOT EXISTS curtail_details (
        order_id TEXT NOT NULL, miner_id TEXT NOT NULL, verb TEXT NOT NULL, detail TEXT NOT NULL,
        PRIMARY KEY (order_id, miner_id, verb))""",
    "CREATE TABLE IF NOT EXISTS curtail_marks (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    # by_hand.py: what was done at the site itself, line by line
    """CREATE TABLE IF NOT EXISTS curtail_by_hand (
        place INTEGER PRIMARY KEY AUTOINCREMENT, at_us INTEGER NOT NULL, order_id TEXT NOT NULL, miner_id TEXT NOT NULL,
        event TEXT NOT NULL, detail TEXT NOT NULL)""",
    # notices.py: what was told to the cloud beside acks, for who stands at the site
    """CREATE TABLE IF NOT EXISTS curtail_notices (
        place INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, code TEXT NOT NULL, subject TEXT NOT NULL,
        detail TEXT NOT NULL)""",
    # unsent.py: acks and notices of a failsafe that had no daemon to send them
    """CREATE TABLE IF NOT EXISTS curtail_unsent (
        place INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, record TEXT NOT NULL)""",
    # tasks.py: commands that are carried out beside the policy
    """CREATE TABLE IF NOT EXISTS curtail_tasks (
        command_id TEXT NOT NULL, miner_id TEXT NOT NULL, place INTEGER NOT NULL, verb TEXT NOT NULL,
        parameters TEXT NOT NULL, not_before_us INTEGER NOT NULL, expires_at_us INTEGER NOT NULL,
        begun INTEGER NOT NULL, kept TEXT NOT NULL, outcome TEXT, ended_at_us INTEGER,
        PRIMARY KEY (command_id, miner_id))""",
    # formers.py: what each miner was set to before it was stopped
    "CREATE TABLE IF NOT EXISTS curtail_formers (miner_id TEXT PRIMARY KEY, record TEXT NOT NULL)",
    # chain.py: every action, hash-chained, append-only
    *chain.SCHEMA,
)

TABLES: Final = tuple(statement.split("(")[0].split()[-1] for statement in _SCHEMA)


def schema(connection: sqlite3.Connection) -> None:
    """Create the tables where they are missing."""
    for statement in (*_SCHEMA, *chain.TRIGGERS):
        connection.execute(statement)
