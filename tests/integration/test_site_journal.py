"""A site's journal in the cloud: stored once, in whatever order it comes, whole only as far as its hashes say."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from cloud.cli import journal as command
from cloud.cli import main
from cloud.core.access import Principal
from cloud.hosting import journal, service
from cloud.infra.db import Database
from cloud.settings import Settings
from sitelink.clock import ManualClock
from sitelink.codec import MalformedFrame
from sitelink.journal import BEGAN, NOTHING_BEFORE, digest
from sitelink.types import JournalEntry
from tests.telemetry import START, make_batch

pytestmark = pytest.mark.postgres
SITE = "pecos-1"


@pytest.fixture(autouse=True)
def clock(database: Database) -> ManualClock:
    database.clock = ManualClock(START + timedelta(seconds=60))
    return database.clock


def chained(count: int, chain: str = "c1", first: int = 1, what: str = "ok") -> list[JournalEntry]:
    made: list[JournalEntry] = []
    for seq in range(first, first + count):
        kind = "sent" if made else BEGAN
        previous = made[-1].hash if made else NOTHING_BEFORE
        entry = JournalEntry(chain, seq, 1_764_000_000_000_000 + seq, "held", kind, f"m{seq}", what, previous, b"")
        made.append(replace(entry, hash=digest(entry)))
    return made


def following(before: JournalEntry, what: str) -> JournalEntry:
    entry = replace(before, seq=before.seq + 1, kind="sent", detail=what, previous=before.hash)
    return replace(entry, hash=digest(entry))


class Site:
    def __init__(self, database: Database, principal: Principal) -> None:
        self.database, self.principal, self.sent = database, principal, 0

    def report(self, *entries: JournalEntry, at: int | None = None) -> None:
        batch = make_batch(self.sent if at is None else at, journal=entries)
        self.sent = max(self.sent, batch.last_seq + 1)
        with self.database.unit_of_work(self.principal) as uow:
            service.ingest(uow, batch)

    def through(self) -> list[tuple[str, int | None, int]]:
        with self.database.unit_of_work(self.principal) as uow:
            return [(state.chain, state.through_seq, state.last_seq) for state in journal.chains(uow, SITE)]

    def faults(self) -> list[tuple[int, str, bool]]:
        with self.database.unit_of_work(self.principal) as uow:
            return [(told.seq, told.fault, told.mended_at is not None) for told in journal.faults(uow, SITE)]

    def verified(self, chain: str = "c1") -> tuple[int, list[str]]:
        with self.database.unit_of_work(self.principal) as uow:
            return journal.verify(uow, SITE, chain)


@pytest.fixture
def site(database: Database, principal: Principal) -> Site:
    return Site(database, principal)


def test_a_chain_that_follows_is_whole(site: Site) -> None:
    entries = chained(7)
    site.report(*entries[:3])
    site.report(*entries[3:])
    site.report(*entries[2:5], at=site.sent)  # carried again, as after a restored disk: nothing new
    assert site.through() == [("c1", 7, 7)]
    assert site.faults() == []
    assert site.verified() == (7, [])


def test_batches_out_of_order_leave_a_gap_until_it_is_filled(site: Site) -> None:
    entries = chained(9)
    site.report(*entries[:3], at=0)
    site.report(*entries[6:], at=6)
    assert site.through() == [("c1", 3, 9)]
    assert site.faults() == [(4, "gap", False)]
    assert site.verified()[1] == ["entries 4 to 6 are missing"]
    site.report(*entries[3:6], at=3)
    assert site.through() == [("c1", 9, 9)]
    assert site.faults() == [(4, "gap", True)]


def test_a_chain_without_its_beginning_is_not_whole(site: Site) -> None:
    entries = chained(6)
    site.report(*entries[3:])
    assert site.through() == [("c1", None, 6)]
    assert site.faults() == [(0, "gap", False)]
    site.report(*entries[:3])
    assert site.through() == [("c1", 6, 6)]
    assert site.faults() == [(0, "gap", True)]


def test_a_fork_is_kept_beside_what_it_contradicts(site: Site) -> None:
    entries = chained(5)
    site.report(*entries)
    other = following(entries[2], "another story")
    site.report(other)
    site.report(following(other, "and on"), following(following(other, "and on"), "past the end"))
    assert site.through() == [("c1", 5, 6)]
    assert site.faults() == [(4, "fork", False), (5, "fork", False), (6, "fork", False)]
    site.report(following(entries[4], "the true story"))
    assert site.through() == [("c1", 6, 6)]
    count, found = site.verified()
    assert count == 9
    assert "different entries 4" in found


def test_an_altered_entry_is_told_and_ends_what_is_whole(site: Site) -> None:
    entries = chained(4)
    altered = replace(entries[2], detail="it never happened")
    site.report(entries[0], entries[1], altered, entries[3])
    assert site.through() == [("c1", 2, 4)]
    assert site.faults() == [(3, "altered", False)]
    assert site.verified()[1] == ["entry 3 is not what its hash was made of"]


def test_a_rewritten_rest_with_right_hashes_is_a_fork(site: Site) -> None:
    site.report(*chained(3))
    site.report(*chained(6, what="rewritten from its first entry")[3:])
    assert site.through() == [("c1", 3, 6)]
    assert (4, "fork", False) in site.faults()


def test_a_later_chain_stands_beside_the_first(site: Site) -> None:
    site.report(*chained(3))
    site.report(*chained(2, "c2", first=4))
    assert site.through() == [("c1", 3, 3), ("c2", 5, 5)]
    assert site.faults() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"chain": ""},
        {"chain": "x" * 65},
        {"detail": "a\0b"},
        {"detail": "x" * 1001},
        {"seq": 0},
        {"hash": b"short"},
        {"previous": b""},
    ],
)
def test_what_no_table_takes_is_refused_whole(site: Site, wrong: dict[str, object]) -> None:
    with pytest.raises(MalformedFrame, match="journal: entry"):
        site.report(replace(chained(1)[0], **wrong))
    assert site.through() == []


@pytest.mark.parametrize("statement", ["UPDATE site_journal SET detail = 'x'", "DELETE FROM site_journal"])
def test_the_application_cannot_change_an_entry(site: Site, statement: str) -> None:
    site.report(*chained(2))
    with pytest.raises(DBAPIError), site.database.unit_of_work(site.principal) as uow:
        uow.session.execute(text(statement))
    assert site.verified() == (2, [])


def test_a_gap_is_an_alarm_once_nothing_under_way_can_fill_it(site: Site, clock: ManualClock) -> None:
    def told() -> list[str]:
        with site.database.unit_of_work(site.principal) as uow:
            return [fault.fault for fault in journal.open_faults(uow, SITE)]

    entries = chained(6)
    site.report(*entries[:2], at=0)
    site.report(*entries[4:], at=4)
    assert told() == []
    clock.advance(journal.SETTLES.total_seconds())
    assert told() == ["gap"]
    site.report(*entries[2:4], at=2)
    assert told() == []


def test_a_restored_cloud_is_whole_again_once_batches_are_sent_again(site: Site) -> None:
    entries = chained(8)
    site.report(*entries[:3])  # the backup was taken here; what came after is sent again, the tail first
    site.report(*entries[6:], at=6)
    site.report(*entries[3:6], at=3)
    assert site.through() == [("c1", 8, 8)]
    assert site.verified() == (8, [])


@pytest.fixture
def opened(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> Site:
    @contextmanager
    def open_here(_: argparse.Namespace) -> Iterator[tuple[Database, Settings, Principal]]:
        yield site.database, Settings(), site.principal

    monkeypatch.setattr(command, "open_database", open_here)
    with site.database.unit_of_work(site.principal) as uow:
        service.create_site(uow, SITE, "", "UTC")
    return site


def test_the_command_shows_and_verifies(opened: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["journal", SITE, "--verify"]) == 0
    assert "no entry has come" in capsys.readouterr().out
    entries = chained(4)
    opened.report(*entries)
    assert main.run(["journal", SITE, "--last", "2"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == ["3", "4"]
    assert main.run(["journal", SITE, "--last", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hash"] == entries[3].hash.hex()
    assert main.run(["journal", SITE, "--verify"]) == 0
    assert "whole     chain c1: 4 entries, whole through number 4 of 4" in capsys.readouterr().out
    opened.report(following(entries[1], "another"))
    assert main.run(["journal", SITE, "--verify"]) == 1
    assert "fork      chain c1: 2 different entries 3" in capsys.readouterr().out
    assert main.run(["journal", SITE, "--verify", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["whole"] is False
    assert main.run(["journal", SITE, "--last", "0"]) == 2
    assert main.run(["journal", "nowhere"]) == 1
