"""A learned address moves a miner, never names one, and yields to whatever the operator writes."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.files import alone_with
from agent.inventory import load_as_found
from agent.inventory.learned import Learned, Names, path_in
from sitelink.inventory import MinerEntry, write_miners

pytestmark = pytest.mark.agent

MINER = MinerEntry("SERIAL-Ab01", "10.0.0.1", 4028, "luxos", "S19", "F1", "R1", 1, None, None)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def test_a_miner_is_looked_for_where_it_was_found(tmp_path: Path) -> None:
    (tmp_path / "inventory.csv").write_bytes(write_miners([MINER]))
    Learned().moved(MINER, "10.0.0.7", NOON).save(tmp_path / "state")
    (found,) = load_as_found(tmp_path / "inventory.csv", tmp_path / "state")
    assert found == replace(MINER, host="10.0.0.7")


def test_the_operators_newer_address_wins(tmp_path: Path) -> None:
    learned = Learned().moved(MINER, "10.0.0.7", NOON)
    newer = replace(MINER, host="10.0.0.50")
    assert learned.applied([newer]) == (newer,)
    assert learned.only([newer]) == Learned()
    assert learned.only([MINER]) == learned


def test_a_miner_back_at_its_address_is_no_longer_noted() -> None:
    learned = Learned().moved(MINER, "10.0.0.7", NOON).moved(MINER, "10.0.0.1", NOON)
    assert learned == Learned()


def test_both_names_of_a_device_are_kept_as_it_said_them_last(tmp_path: Path) -> None:
    learned = Learned().named(MINER.miner_id, Names("aa", "s1")).named(MINER.miner_id, Names(None, "s2"))
    learned.save(tmp_path)
    assert Learned.load(tmp_path).names == {MINER.miner_id.lower(): Names("aa", "s2")}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"miners": {}}',
        b'{"miners": {"a": {"host": 1, "was": "x", "at": ""}}, "names": {}}',
        b'{"miners": {"a": {"host": "h", "port": 2, "was": "x", "at": ""}}, "names": {}}',
        b'{"miners": {"a": 5}, "names": {}}',
        b'{"miners": {}, "names": {"a": {"mac": 7}}}',
        b'{"miners": {}, "names": {"a": {"colour": "red"}}}',
    ],
)
def test_a_broken_note_is_no_note(tmp_path: Path, content: bytes) -> None:
    path_in(tmp_path).write_bytes(content)
    assert Learned.load(tmp_path) == Learned()


def test_another_process_that_writes_is_not_written_over(tmp_path: Path) -> None:
    with alone_with(path_in(tmp_path)), pytest.raises(BlockingIOError):
        Learned().save(tmp_path)


def test_the_note_says_what_it_replaced_and_when(tmp_path: Path) -> None:
    Learned().moved(MINER, "10.0.0.7", NOON).save(tmp_path)
    assert json.loads(path_in(tmp_path).read_bytes())["miners"] == {
        "serial-ab01": {
            "host": "10.0.0.7",
            "was": "10.0.0.1:4028",
            "at": "2026-06-01T12:00:00+00:00",
        }
    }
