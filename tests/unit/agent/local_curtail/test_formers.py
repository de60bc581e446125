"""What a start restores outlives processes, and no start waits for a disk."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from agent.errors import Transient
from agent.local_curtail.formers import Formers, FormersOnFile
from agent.local_curtail.schema import schema
from agent.storage import StorageFull
from tests.unit.agent.storage_fakes import Crash, CrashPoint, InlineWriter

pytestmark = pytest.mark.agent


async def made() -> tuple[Formers, InlineWriter]:
    writer = InlineWriter()
    await writer.run(schema)
    return Formers(writer), writer


async def test_what_is_remembered_is_recalled_by_the_next_process() -> None:
    first, writer = await made()
    await first.remember("m1", '{"mode": 3}')
    await first.remember("m1", '{"mode": 0}')
    second = Formers(writer)
    assert await second.recall("m1") == ""
    await second.load()
    assert (await second.recall("m1"), await second.recall("m2")) == ('{"mode": 0}', "")


@pytest.mark.parametrize(("point", "found"), [(CrashPoint.BEFORE_COMMIT, ""), (CrashPoint.AFTER_COMMIT, "low")])
async def test_it_is_on_disk_before_the_stop_may_go_out(point: CrashPoint, found: str) -> None:
    formers, writer = await made()
    writer.crash_at = point
    with pytest.raises(Crash):
        await formers.remember("m1", "low")
    after = Formers(writer)
    await after.load()
    assert await after.recall("m1") == found


async def test_nothing_is_remembered_when_the_database_is_busy() -> None:
    class Busy:
        async def run(self, work: object) -> object:
            raise Transient("agent.db: another process holds it")

    formers = Formers(Busy())
    with pytest.raises(Transient):
        await formers.remember("m1", "low")
    assert await formers.recall("m1") == ""


async def test_a_full_disk_holds_up_no_technician_and_is_made_up_for() -> None:
    class Filling:
        full = True
        written: ClassVar[list[tuple[str, str]]] = []

        async def run(self, work: Callable[[object], object]) -> object:
            if self.full:
                raise StorageFull("agent.db: full")

            class Rows:
                def execute(self, _: str, values: tuple[str, str]) -> None:
                    Filling.written.append(values)

            return work(Rows())

    disk = Filling()
    formers = Formers(disk)
    await formers.remember("m1", "low")
    assert await formers.recall("m1") == "low"
    disk.full = False
    await formers.remember("m2", "high")
    assert sorted(disk.written) == [("m1", "low"), ("m2", "high")]
    await formers.remember("m1", "low")
    assert len(disk.written) == 2


async def test_a_database_that_cannot_be_read_is_said_and_keeps_no_start(caplog: pytest.LogCaptureFixture) -> None:
    class Busy:
        async def run(self, work: object) -> object:
            raise Transient("agent.db: another process holds it")

    formers = Formers(Busy())
    with caplog.at_level(logging.ERROR):
        await formers.load()
    assert "another process holds it" in caplog.text
    assert await formers.recall("m1") == ""


async def test_the_same_again_costs_no_write() -> None:
    formers, writer = await made()
    await formers.remember("m1", "low")
    writer.crash_at = CrashPoint.BEFORE_COMMIT
    await formers.remember("m1", "low")


async def test_the_failsafe_shares_the_file_with_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "state" / "agent.db"
    await FormersOnFile(path).remember("m1", "low")
    assert await FormersOnFile(path).recall("m1") == "low"


async def test_the_failsafe_goes_on_without_a_file_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "agent.db"
    path.write_bytes(b"no database at all, but long enough to be read as one" * 40)
    formers = FormersOnFile(path)
    await formers.remember("m1", "low")
    assert await formers.recall("m1") == "low"
    assert len(caplog.records) == 1
