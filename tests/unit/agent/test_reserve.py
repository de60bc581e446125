"""On a full disk orders and acks go on with the room kept for them; telemetry waits until it stands again."""

import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from agent.buffer import Buffer, schema
from agent.reserve import Reserve, ReservedWriter
from agent.storage import StorageFull, ThreadWriter
from sitelink import codec
from sitelink.clock import ManualClock
from sitelink.types import BatchBody, MinerState, Notice, NoticeCode, Reading
from sitelink.units import TeraHashPerSecond
from tests.unit.agent.storage_fakes import InlineWriter, Result

pytestmark = pytest.mark.agent

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
MIB = 1024**2


class FullUntil(InlineWriter):
    """A disk that takes nothing while ``is_full`` says so."""

    def __init__(self, is_full: Callable[[], bool]) -> None:
        super().__init__()
        self.is_full = is_full
        self.asked = 0

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        self.asked += 1
        if self.is_full():
            raise StorageFull("agent.db: database or disk is full; free some disk space")
        return self.run_now(work)


async def test_control_takes_the_reserve_and_telemetry_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.reserve"
    reserve = Reserve(path, 4096)
    foreign = [False]
    inner = FullUntil(lambda: foreign[0] and path.exists())
    writer = ReservedWriter(inner, reserve)
    assert await writer.bulk.run(lambda _: 1) == 1
    assert path.stat().st_size == 4096, "held as soon as telemetry is"
    foreign[0] = True
    with pytest.raises(StorageFull):
        await writer.bulk.run(lambda _: 1)
    assert path.exists(), "telemetry does not take it"
    assert await writer.run(lambda _: 2) == 2
    assert not path.exists()
    foreign[0] = False
    assert await writer.bulk.run(lambda _: 3) == 3
    assert path.stat().st_size == 4096


async def test_without_the_reserve_telemetry_is_refused_before_it_takes_any_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = Reserve(tmp_path / "no such folder" / "agent.reserve", 4096)
    inner = FullUntil(lambda: False)
    writer = ReservedWriter(inner, reserve)
    with pytest.raises(StorageFull, match="kept for orders"):
        await writer.bulk.run(schema)
    assert not inner.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    assert await writer.run(lambda _: 1) == 1


async def test_a_disk_that_is_full_even_so_is_told(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "agent.reserve", 4096)
    assert reserve.hold()
    writer = ReservedWriter(FullUntil(lambda: True), reserve)
    for _ in range(2):
        with pytest.raises(StorageFull):
            await writer.run(lambda _: 1)
    assert not reserve.is_whole


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, where the system allows to mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], capture_output=True, check=False, timeout=20
    )
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=False, timeout=20)


async def test_on_a_really_full_disk_every_ack_is_kept_and_telemetry_comes_back(small_disk: Path) -> None:
    numbers, plain = count(), ThreadWriter(small_disk / "agent.db")
    writer = ReservedWriter(plain, Reserve(small_disk / "agent.reserve"))
    try:
        await writer.run(schema)
        ids = lambda: f"id{next(numbers)}"  # noqa: E731 - a name for each
        buffer = Buffer(writer, ManualClock(NOON), "s", ids, 10**9, bulk=writer.bulk)
        assert await writer.bulk.run(lambda _: True)
        foreign = small_disk / "foreign"
        _fill(foreign)
        stored = [await _append(buffer, number) for number in range(400)]
        assert stored.count(False) > 3, "the disk is full, and the reserve is not for telemetry"
        notices = [Notice(f"n{number}", NOON, NoticeCode.AGENT_STARTED, "s", "x" * 200) for number in range(500)]
        for notice in notices:
            await buffer.append(BatchBody(notices=(notice,)))
        foreign.unlink()
        assert await _append(buffer, 1)
        batches = sorted(await buffer.take(10**9), key=lambda batch: batch.first_seq)
        kept = [notice for batch in batches for notice in codec.unpack(batch.payload).notices]
        assert [notice for notice in kept if notice.code is NoticeCode.AGENT_STARTED] == notices
        assert NoticeCode.DISK_FULL in {notice.code for notice in kept}
        assert sum(batch.count for batch in batches) == (await buffer.status()).next_seq
    finally:
        plain.close()


async def test_a_disk_filled_by_the_buffer_itself_goes_on_with_thinner_telemetry(small_disk: Path) -> None:
    numbers, plain = count(), ThreadWriter(small_disk / "agent.db")
    writer = ReservedWriter(plain, Reserve(small_disk / "agent.reserve", 2 * MIB))
    try:
        await writer.run(schema)
        ids = lambda: f"id{next(numbers)}"  # noqa: E731 - a name for each
        buffer = Buffer(writer, ManualClock(NOON), "s", ids, 10**9, bulk=writer.bulk)
        (small_disk / "foreign").write_bytes(bytes(14 * MIB))
        stored = [await _append(buffer, number) for number in range(1500)]
        assert all(stored[:200])
        assert sum(stored[-200:]) > 100, "the newest is taken in, now and then after some thinning"
        batches = await buffer.take(10**9)
        assert any(codec.unpack(batch.payload).gaps for batch in batches)
        assert sum(batch.count for batch in batches) == (await buffer.status()).next_seq
    finally:
        plain.close()


async def _append(buffer: Buffer, minute: int) -> bool:
    at = NOON + minute * timedelta(minutes=1)
    try:
        await buffer.append(BatchBody(readings=tuple(_reading(at, 500 * minute + place) for place in range(500))))
    except StorageFull:
        return False
    return True


def _fill(path: Path) -> None:
    with suppress(OSError), path.open("ab", buffering=0) as foreign:
        while True:
            foreign.write(bytes(16 * 1024))


def _reading(at: datetime, number: int) -> Reading:
    noise = TeraHashPerSecond(float(number * 7919 % 65521))
    return Reading(f"m{number % 500}", at, MinerState.HASHING, hashrate_ths=noise, accepted=number * 104729 % 10**9)
