"""A technician's overrides: rows that a failsafe command writes and every later daemon obeys, until they are released.

Invariants: an override outlives processes and ends by its expiry: in the boot that set it by monotonic time, so that a
stepped clock cannot prolong it, in a later boot by the wall clock; a released one is over for good. A living daemon
keeps to an override, or to its release, even while the disk takes neither, and writes it when it can. No generated
messages are imported: the failsafe command works without them.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from agent.errors import Transient
from agent.local_curtail.moments import microseconds, moment_of
from agent.local_curtail.policy import Override, whom
from agent.storage import Writer
from sitelink.clock import Clock
from sitelink.types import Verb

_UNSTORED_PLACE: Final = 2**62
"""Where an override stands that the disk has not taken: after all that it has."""


@dataclass(frozen=True, slots=True)
class StoredOverride:
    """An override in force, with when it ends by the clock that set it; ``until_mono_s`` only in the boot that did."""

    override: Override
    until: datetime
    announced: bool
    until_mono_s: float | None = None

    def words(self) -> str:
        """Return it in a few words: what, of how many miners, until when."""
        return f"{self.override.verb.value} of {whom(self.override.miner_ids)} until {self.until:%Y-%m-%d %H:%M} UTC"

    def document(self) -> dict[str, Any]:
        """Return it as plain values; ``miners`` is how many it names, None for all."""
        covered = self.override.miner_ids
        return {
            "override_id": self.override.override_id,
            "verb": self.override.verb.value,
            "miners": None if covered is None else len(covered),
            "until": self.until.isoformat(),
        }

    def holds(self, clock: Clock) -> bool:
        """Return whether it is still in force."""
        if self.until_mono_s is not None:
            return clock.monotonic() < self.until_mono_s
        return clock.now() < self.until


def write(
    connection: sqlite3.Connection,
    override_id: str,
    verb: Verb,
    miner_ids: Collection[str] | None,
    duration: timedelta,
    clock: Clock,
) -> None:
    """Store one override for ``duration`` from now, once; ``miner_ids`` None means every miner."""
    now = clock.now()
    miners = None if miner_ids is None else json.dumps(sorted(miner_ids))
    connection.execute(
        "INSERT OR IGNORE INTO curtail_overrides"
        " (override_id, verb, miner_ids, set_at_us, boot_id, until_mono_s, until_us)"
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
    """Return the overrides in force, oldest first; one for the whole site hides those before it while it lasts."""
    return _seen(layers(connection, clock))


def layers(connection: sqlite3.Connection, clock: Clock) -> tuple[StoredOverride, ...]:
    """Return all overrides whose time is not over, oldest first, those hidden by a later one included."""
    rows = connection.execute(
        "SELECT place, override_id, verb, miner_ids, until_us, announced, CASE WHEN boot_id = ? THEN until_mono_s END"
        " FROM curtail_overrides"
        " WHERE CASE WHEN boot_id = ? THEN until_mono_s > ? ELSE until_us > ? END ORDER BY place",
        (clock.boot_id(), clock.boot_id(), clock.monotonic(), microseconds(clock.now())),
    ).fetchall()
    found: list[StoredOverride] = []
    for place, override_id, verb, miners, until_us, announced, until_mono_s in rows:
        covered = None if miners is None else frozenset(json.loads(miners))
        override = Override(override_id, Verb(verb), covered, place)
        found.append(StoredOverride(override, moment_of(until_us), bool(announced), until_mono_s))
    return tuple(found)


def release(
    connection: sqlite3.Connection, miner_ids: Collection[str] | None, fleet: Collection[str], clock: Clock
) -> tuple[str, ...]:
    """End the overrides in force, hidden ones too, for ``miner_ids`` or (None) altogether; return which changed.

    One that speaks of every miner goes on for the rest of ``fleet``.
    """
    changed = []
    for item in layers(connection, clock):
        left = _without(item.override, miner_ids, fleet)
        if left == item.override:
            continue
        changed.append(item.override.override_id)
        if left is None:
            connection.execute(
                "UPDATE curtail_overrides SET until_mono_s = 0, until_us = 0 WHERE place = ?", (item.override.place,)
            )
        else:
            connection.execute(
                "UPDATE curtail_overrides SET miner_ids = ? WHERE place = ?",
                (json.dumps(sorted(left.miner_ids or ())), item.override.place),
            )
    return tuple(changed)


def let_go(connection: sqlite3.Connection) -> Callable[[str, str], bool]:
    """Return what tells whether an override was released for a miner; one that is not on file was not."""
    rows = connection.execute("SELECT override_id, miner_ids, until_us FROM curtail_overrides").fetchall()
    kept = {
        override_id: frozenset() if until_us == 0 else None if miner_ids is None else frozenset(json.loads(miner_ids))
        for override_id, miner_ids, until_us in rows
    }

    def released(override_id: str, miner_id: str) -> bool:
        left = kept.get(override_id)
        return left is not None and miner_id not in left

    return released


def mark_announced(connection: sqlite3.Connection, override_id: str) -> None:
    """Remember that the cloud has been told."""
    connection.execute("UPDATE curtail_overrides SET announced = 1 WHERE override_id = ?", (override_id,))


class Overrides:
    """The overrides in force as a daemon keeps to them: those of the file, and what the disk has not taken yet."""

    def __init__(self, writer: Writer, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        self._layers: tuple[StoredOverride, ...] = ()
        self._owed: list[Callable[[sqlite3.Connection], object]] = []
        self._turn = asyncio.Lock()

    async def active(self) -> tuple[StoredOverride, ...]:
        """Return the overrides in force; those last known while the file cannot be read or written."""
        async with self._turn:
            owed = list(self._owed)

            def work(connection: sqlite3.Connection) -> tuple[StoredOverride, ...]:
                for one in owed:
                    one(connection)
                return layers(connection, self._clock)

            try:
                found = await self._writer.run(work)
            except Transient:
                self._layers = tuple(item for item in self._layers if item.holds(self._clock))
            else:
                self._layers = self._layers if len(owed) < len(self._owed) else found
                del self._owed[: len(owed)]
            return _seen(self._layers)

    def ruling(self, miner_id: str) -> str:
        """Return the id of the override that a miner is under, as last known, empty when it is under none."""
        return next(
            (item.override.override_id for item in reversed(self._layers) if item.override.covers(miner_id)), ""
        )

    async def set(
        self, override_id: str, verb: Verb, miner_ids: Collection[str] | None, duration: timedelta
    ) -> Transient | None:
        """Keep to an override from now on; return why it could not be stored, None when it was."""
        now, ends_s = self._clock.now(), self._clock.monotonic() + duration.total_seconds()
        named = None if miner_ids is None else frozenset(miner_ids)

        def work(connection: sqlite3.Connection) -> None:
            left_s = ends_s - self._clock.monotonic()
            if left_s > 0:
                write(connection, override_id, verb, named, timedelta(seconds=left_s), self._clock)

        override = Override(override_id, verb, named, _UNSTORED_PLACE + len(self._owed))
        kept = StoredOverride(override, now + duration, announced=False, until_mono_s=ends_s)
        self._layers = (*self._layers, kept)
        return await self._do(work)

    async def release(self, miner_ids: Collection[str] | None, fleet: Collection[str]) -> Transient | None:
        """End overrides as ``release`` does; return why that could not be stored, None when it was."""
        left = [(item, _without(item.override, miner_ids, fleet)) for item in self._layers]
        self._layers = tuple(replace(item, override=rest) for item, rest in left if rest is not None)
        return await self._do(lambda connection: release(connection, miner_ids, fleet, self._clock))

    async def _do(self, work: Callable[[sqlite3.Connection], object]) -> Transient | None:
        self._owed.append(work)
        await self.active()
        unwritten = any(one is work for one in self._owed)
        return Transient("the disk takes nothing now") if unwritten else None


def _seen(found: tuple[StoredOverride, ...]) -> tuple[StoredOverride, ...]:
    """Return those of ``found`` that no later one for the whole site hides."""
    whole = [place for place, item in enumerate(found) if item.override.miner_ids is None]
    return found[whole[-1] :] if whole else found


def _without(override: Override, miner_ids: Collection[str] | None, fleet: Collection[str]) -> Override | None:
    """Return ``override`` for the miners it still speaks of once ``miner_ids`` are released, None when for none."""
    if miner_ids is None:
        return None
    named = frozenset(miner_ids)
    if override.miner_ids is not None and not named & override.miner_ids:
        return override
    left = (frozenset(fleet) if override.miner_ids is None else override.miner_ids) - named
    return replace(override, miner_ids=left) if left else None
