"""Overrides held in memory while the disk takes nothing rule as those on disk do, and end up there."""

import asyncio
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from agent.local_curtail import overrides
from agent.local_curtail.overrides import Overrides
from agent.local_curtail.schema import schema
from agent.storage import Result, StorageFull, in_transaction
from sitelink.clock import ManualClock
from sitelink.types import Verb

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
FLEET = ("a", "b", "c")
names = st.none() | st.frozensets(st.sampled_from(FLEET), min_size=1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from([Verb.STOP, Verb.START]), names, st.integers(1, 20)),
        st.tuples(st.just("release"), names),
        st.tuples(st.just("disk"), st.booleans()),
        st.tuples(st.just("wait"), st.integers(1, 10)),
    ),
    max_size=20,
)


class Disk:
    """A writer over memory that takes nothing while it is full."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        in_transaction(self.connection, schema)
        self.full = False

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        before = self.connection.total_changes

        def guarded(connection: sqlite3.Connection) -> Result:
            result = work(connection)
            if self.full and connection.total_changes != before:
                raise StorageFull("agent.db: full")
            return result

        return in_transaction(self.connection, guarded)


def ruling(found: tuple[overrides.StoredOverride, ...]) -> dict[str, str]:
    """Which override each miner is under."""
    ruled: dict[str, str] = {}
    for item in found:
        ruled.update({name: item.override.override_id for name in FLEET if item.override.covers(name)})
    return ruled


@given(steps)
def test_a_disk_that_is_full_at_times_changes_nothing_of_who_rules(drawn: list[tuple]) -> None:
    asyncio.run(compare(drawn))


async def compare(drawn: list[tuple]) -> None:
    clock = ManualClock(T0, 100.0)
    disk, sound = Disk(), Disk()
    tried, model = Overrides(disk, clock), Overrides(sound, clock)
    for number, (what, *values) in enumerate(drawn):
        if what == "set":
            verb, miners, seconds = values
            for one in (tried, model):
                await one.set(f"o-{number}", verb, miners, timedelta(seconds=seconds))
        elif what == "release":
            for one in (tried, model):
                await one.release(values[0], FLEET)
        elif what == "disk":
            disk.full = values[0]
        else:
            clock.advance(values[0])
        expected = ruling(await model.active())
        assert ruling(await tried.active()) == expected
        assert {name: tried.ruling(name) for name in FLEET if tried.ruling(name)} == expected
    disk.full = False
    await tried.active()
    assert ruling(overrides.active(disk.connection, clock)) == ruling(await model.active())
    disk.connection.close()
    sound.connection.close()


async def test_whether_it_is_stored_is_told_and_the_next_process_has_what_was() -> None:
    clock, disk = ManualClock(T0, 100.0), Disk()
    first = Overrides(disk, clock)
    assert await first.set("kept", Verb.STOP, {"a"}, timedelta(hours=1)) is None
    disk.full = True
    assert "takes nothing now" in str(await first.set("lost", Verb.STOP, {"b"}, timedelta(hours=1)))
    assert ruling(await first.active()) == {"a": "kept", "b": "lost"}
    assert ruling(await Overrides(disk, clock).active()) == {"a": "kept"}, "the asker was told"
    disk.connection.close()
