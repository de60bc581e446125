"""The buffer's tables in ``agent.db``.

Invariants: what waits and what is kept is counted by triggers, so that no writer can forget it; a file of an earlier
version is brought to this form in the transaction that opens it.
"""

import sqlite3
from typing import Final

_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS buffer_epochs (
        number INTEGER PRIMARY KEY, epoch TEXT NOT NULL UNIQUE, next_seq INTEGER NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS buffer_batches (
        epoch_number INTEGER NOT NULL REFERENCES buffer_epochs(number), first_seq INTEGER NOT NULL,
        last_seq INTEGER NOT NULL, kind TEXT NOT NULL, sealed_at_us INTEGER NOT NULL, settled_at_us INTEGER,
        payload BLOB NOT NULL, PRIMARY KEY (epoch_number, first_seq))""",
    """CREATE INDEX IF NOT EXISTS buffer_waiting ON buffer_batches(kind, epoch_number, first_seq)
        WHERE settled_at_us IS NULL""",
    """CREATE INDEX IF NOT EXISTS buffer_settled ON buffer_batches(settled_at_us) WHERE settled_at_us IS NOT NULL""",
    """CREATE TABLE IF NOT EXISTS buffer_totals (
        id INTEGER PRIMARY KEY CHECK (id = 1), waiting_batches INTEGER NOT NULL, waiting_bytes INTEGER NOT NULL,
        kept_bytes INTEGER NOT NULL)""",
    "INSERT OR IGNORE INTO buffer_totals (id, waiting_batches, waiting_bytes, kept_bytes) VALUES (1, 0, 0, 0)",
    """CREATE TRIGGER IF NOT EXISTS buffer_batch_added AFTER INSERT ON buffer_batches BEGIN
        UPDATE buffer_totals SET waiting_batches = waiting_batches + 1,
            waiting_bytes = waiting_bytes + length(NEW.payload); END""",
    """CREATE TRIGGER IF NOT EXISTS buffer_batch_settled AFTER UPDATE OF settled_at_us ON buffer_batches
        WHEN OLD.settled_at_us IS NULL AND NEW.settled_at_us IS NOT NULL BEGIN
        UPDATE buffer_totals SET waiting_batches = waiting_batches - 1,
            waiting_bytes = waiting_bytes - length(NEW.payload), kept_bytes = kept_bytes + length(NEW.payload); END""",
    """CREATE TRIGGER IF NOT EXISTS buffer_batch_reopened AFTER UPDATE OF settled_at_us ON buffer_batches
        WHEN OLD.settled_at_us IS NOT NULL AND NEW.settled_at_us IS NULL BEGIN
        UPDATE buffer_totals SET waiting_batches = waiting_batches + 1,
            waiting_bytes = waiting_bytes + length(NEW.payload), kept_bytes = kept_bytes - length(NEW.payload); END""",
    # Only what waits is ever cut.
    """CREATE TRIGGER IF NOT EXISTS buffer_batch_cut AFTER UPDATE OF payload ON buffer_batches
        WHEN OLD.settled_at_us IS NULL BEGIN
        UPDATE buffer_totals SET waiting_bytes = waiting_bytes + length(NEW.payload) - length(OLD.payload); END""",
    "DROP TRIGGER IF EXISTS buffer_batch_deleted",  # an earlier version's did not tell these two apart
    """CREATE TRIGGER buffer_batch_deleted AFTER DELETE ON buffer_batches WHEN OLD.settled_at_us IS NOT NULL BEGIN
        UPDATE buffer_totals SET kept_bytes = kept_bytes - length(OLD.payload); END""",
    """CREATE TRIGGER IF NOT EXISTS buffer_batch_joined AFTER DELETE ON buffer_batches
        WHEN OLD.settled_at_us IS NULL BEGIN
        UPDATE buffer_totals SET waiting_batches = waiting_batches - 1,
            waiting_bytes = waiting_bytes - length(OLD.payload); END""",
    """CREATE TABLE IF NOT EXISTS buffer_gap (
        id INTEGER PRIMARY KEY CHECK (id = 1), since_us INTEGER NOT NULL, items INTEGER NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS buffer_salvage (
        id INTEGER PRIMARY KEY CHECK (id = 1), file TEXT NOT NULL, place INTEGER NOT NULL, saved INTEGER NOT NULL,
        unreadable INTEGER NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS buffer_broken (
        place INTEGER PRIMARY KEY, epoch TEXT NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
        kind TEXT NOT NULL, sealed_at_us INTEGER NOT NULL, found_at_us INTEGER NOT NULL, cause TEXT NOT NULL,
        payload BLOB NOT NULL)""",
)

_LATER_COLUMNS: Final = (
    ("buffer_batches", "digest", "BLOB"),
    ("buffer_batches", "signature", "BLOB NOT NULL DEFAULT x''"),
    ("buffer_batches", "key_id", "TEXT NOT NULL DEFAULT ''"),
    ("buffer_batches", "level", "INTEGER NOT NULL DEFAULT 0"),
    ("buffer_batches", "sent", "INTEGER NOT NULL DEFAULT 1"),
    ("buffer_totals", "thinned_items", "INTEGER NOT NULL DEFAULT 0"),
    ("buffer_totals", "given_up_items", "INTEGER NOT NULL DEFAULT 0"),
    ("buffer_totals", "broken_items", "INTEGER NOT NULL DEFAULT 0"),
    ("buffer_gap", "level", "INTEGER NOT NULL DEFAULT 0"),
)

_OVER_LATER_COLUMNS: Final = (
    """CREATE INDEX IF NOT EXISTS buffer_to_thin ON buffer_batches(level, epoch_number, first_seq)
        WHERE settled_at_us IS NULL AND kind = 'telemetry'""",
)


def schema(connection: sqlite3.Connection) -> None:
    """Create the buffer's tables where they are missing, and what an earlier version's lack."""
    for statement in _SCHEMA:
        connection.execute(statement)
    for table, column, form in _LATER_COLUMNS:
        if not has_column(connection, table, column):
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {form}")
    for statement in _OVER_LATER_COLUMNS:
        connection.execute(statement)


def has_column(connection: sqlite3.Connection, table: str, column: str) -> bool:
    """Return whether the file's ``table`` has ``column``; an earlier version's may lack it."""
    query = "SELECT count(*) FROM pragma_table_info(?) WHERE name = ?"
    return bool(connection.execute(query, (table, column)).fetchone()[0])
