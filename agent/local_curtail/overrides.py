"""A technician's overrides: rows that a failsafe command writes and every later daemon obeys.

Invariants: an override outlives processes and ends by its expiry: in the boot that set it by monotonic time, so that a
stepped clock cannot prolong it, in a later boot by the wall clock. No generated messages are imported: the failsafe
command works without them.
"""

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.local_curtail.moments import microseconds, moment_of
from agent.local_curtail.policy import Override
from sitelink.clock import Clock
from sitelink.types import Verb


@dataclass(frozen=True, slots=True)
class StoredOverride:
    """An override in force, with when it ends by the clock that set it."""

    override: Override
    until: datetime
    announced: bool


def write(
    connection: sqlite3.Connection,
    override_id: str,
    verb: Verb,
    miner_ids: Collection[str] | None,
    duration: timedelta,
    clock: Clock,
) -> None:
    """Store one override for ``duration`` from now; ``miner_ids`` None means every miner."""
    now = clock.now()
    miners = None if miner_ids is None else json.dumps(sorted(miner_ids))
    connection.execute(
        "INSERT INTO curtail_overrides (override_id, verb, miner_ids, set_at_us, boot_id, until_mono_s, until_us)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            override_id,
            verb.value,
            miners,
            microseconds(now),
            clock.boot_id(),
            clock.monotonic() + duration.total_seconds(),
            microseconds(now + duration),
        ),
    )


def active(connection: sqlite3.Connection, clock: Clock) -> tuple[StoredOverride, ...]:
    """Return the overrides in force, oldest first; of those for the whole site only the last."""
    rows = connection.execute(
        "SELECT place, override_id, verb, miner_ids, until_us, announced FROM curtail_overrides"
        " WHERE CASE WHEN boot_id = ? THEN until_mono_s > ? ELSE until_us > ? END ORDER BY place",
        (clock.boot_id(), clock.monotonic(), microseconds(clock.now())),
    ).fetchall()
    found: list[StoredOverride] = []
    for place, override_id, verb, miners, until_us, announced in rows:
        covered = None if miners is None else frozenset(json.loads(miners))
        if covered is None:
            found.clear()
        override = Override(override_id, Verb(verb), covered, place)
        found.append(StoredOverride(override, moment_of(until_us), bool(announced)))
    return tuple(found)


def mark_announced(connection: sqlite3.Connection, override_id: str) -> None:
    """Remember that the cloud has been told."""
    connection.execute("UPDATE curtail_overrides SET announced = 1 WHERE override_id = ?", (override_id,))
