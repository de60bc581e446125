"""What a broken file still tells is taken over; what it does not is undone."""

import sqlite3
from pathlib import Path

import pytest

from agent.local_curtail.policy import Desired
from agent.local_curtail.records import MinerRecord, miner_of, to_json
from agent.local_curtail.salvage import salvage
from agent.local_curtail.schema import TABLES, schema
from agent.storage import connect
from sitelink.types import Verb

pytestmark = pytest.mark.agent

RECORD = MinerRecord("m1", Verb.STOP, "c1", 1, "price", touched=True)


def made(path: Path) -> sqlite3.Connection:
    connection = connect(path)
    schema(connection)
    return connection


def old_file(folder: Path) -> Path:
    path = folder / "agent.db.broken-1"
    old = made(path)
    old.execute("INSERT INTO curtail_miners VALUES ('m1', ?)", (to_json(RECORD),))
    old.execute("INSERT INTO curtail_plan VALUES (1, 1, 7, x'7b7d', 5)")
    old.execute("INSERT INTO curtail_marks VALUES ('clock_trust', 'synced')")
    old.close()
    return path


def test_every_table_of_curtailment_is_known() -> None:
    names = sqlite3.connect(":memory:")
    schema(names)
    found = {row[0] for row in names.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert found - {"sqlite_sequence"} == set(TABLES)


def test_a_file_broken_elsewhere_gives_its_orders_back(tmp_path: Path) -> None:
    new = made(tmp_path / "agent.db")
    assert salvage(new, old_file(tmp_path))
    ((text,),) = new.execute("SELECT record FROM curtail_miners")
    assert miner_of(text).desired == Desired("m1", Verb.STOP, "c1", "price")
    assert new.execute("SELECT sequence FROM curtail_plan").fetchall() == [(7,)]


def test_a_file_of_a_version_that_kept_no_words_loses_nothing(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    old = connect(path)
    old.execute("DROP TABLE curtail_details")
    old.close()
    assert salvage(made(tmp_path / "agent.db"), path)


def test_a_row_that_makes_no_record_counts_as_lost(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    old = connect(path)
    old.execute("INSERT INTO curtail_miners VALUES ('m2', '{\"half\": ')")
    old.close()
    new = made(tmp_path / "agent.db")
    assert not salvage(new, path)
    assert new.execute("SELECT miner_id FROM curtail_miners").fetchall() == [("m1",)]


@pytest.mark.parametrize("wreck", [b"", b"no database at all, only words" * 400])
def test_a_file_that_tells_nothing_is_a_loss_and_no_error(tmp_path: Path, wreck: bytes) -> None:
    path = tmp_path / "agent.db.broken-1"
    path.write_bytes(wreck)
    assert not salvage(made(tmp_path / "agent.db"), path)
    assert not salvage(made(tmp_path / "agent.db"), tmp_path / "gone")


def test_a_torn_page_loses_only_what_stood_on_it(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    old = sqlite3.connect(path)
    (page,) = old.execute("SELECT rootpage FROM sqlite_master WHERE name = 'curtail_marks'").fetchone()
    (size,) = old.execute("PRAGMA page_size").fetchone()
    old.close()
    torn = bytearray(path.read_bytes())
    torn[(page - 1) * size : page * size] = b"\xff" * size
    path.write_bytes(torn)
    new = made(tmp_path / "agent.db")
    assert not salvage(new, path)
    assert new.execute("SELECT count(*) FROM curtail_miners").fetchone() == (1,)
