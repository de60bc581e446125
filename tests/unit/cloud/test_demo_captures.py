"""The demo's recorded devices: what counts as read, what is said of the others, and which folders are refused."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cloud.cli.demo.captures import Captured, Kept, Recorded, describe, devices_of, problem, waiting, weigh
from cloud.cli.demo.figures import Figures, json_line

PROGRAM = Path(sys.executable).parent / "ballast-sim"
READ = Recorded("02:00:00:00:00:01", "s19", "", 9)
SILENT = Recorded("02:00:00:00:00:02", "m30s", "", 9)
BARE = Recorded("docs", "docs", "summary or status", 9)
HELD = Captured(devices=2, readable=1, read=1, missed=0, silent=0, ordered=0)
FIGURES = Figures(
    miners=4,
    samples_stored=100,
    samples_lost=0,
    samples_duplicated=0,
    curtailed_miners=2,
    verified=2,
    liars=0,
    liars_named=0,
    liars_named_by_feeder=0,
    liars_counted_as_shed=0,
    signal_to_confirmed_s=3.0,
    start_to_confirmed_s=2.0,
    restored_during_cut=2,
    left_off=0,
    backlog_drained_s=1.0,
    verified_mwh=0.1,
    invoice_total_cents=5,
    gap=0.0,
    live_to_restore=2,
    honest_clouded=0,
    honest_unverified=0,
    honest_named=0,
    kills=0,
)


def test_a_device_counts_as_read_only_when_a_stored_reading_shows_its_state() -> None:
    kept = {READ.miner_id: Kept(4, 3), SILENT.miner_id: Kept(4, 0), BARE.miner_id: Kept(4, 0)}
    found = weigh((READ, SILENT, BARE), kept, ordered=0)
    assert found == Captured(devices=3, readable=2, read=1, missed=1, silent=0, ordered=0)
    assert found.failures() == ("1 of 2 readable recorded devices were not read",)


def test_a_device_nobody_asked_was_not_read_whatever_the_store_holds() -> None:
    found = weigh((replace(READ, asked=0), BARE), {READ.miner_id: Kept(4, 4)}, ordered=0)
    assert (found.read, found.missed, found.silent) == (0, 1, 2)


def test_every_failure_has_its_line() -> None:
    wrong = Captured(devices=3, readable=2, read=0, missed=2, silent=1, ordered=4)
    assert len(wrong.failures()) == 4
    assert "recorded devices were given 4 orders" in wrong.failures()
    assert HELD.failures() == ()


def test_the_verdict_rests_on_the_recorded_devices_where_there_are_any() -> None:
    assert FIGURES.failures() == ()
    assert replace(FIGURES, captured=HELD).failures() == ()
    assert replace(FIGURES, captured=replace(HELD, missed=1)).failures() != ()


def test_the_line_names_recorded_devices_only_where_they_were_replayed() -> None:
    plain = json.loads(json_line(FIGURES, 7, {}))["figures"]
    assert not any(name.startswith("captured") for name in plain)
    told = json.loads(json_line(replace(FIGURES, captured=HELD), 7, {}))["figures"]
    assert {name: value for name, value in told.items() if name not in plain} == {
        "captured_devices": 2,
        "captured_readable": 1,
        "captured_read": 1,
        "captured_missed": 0,
        "captured_silent": 0,
        "captured_ordered": 0,
    }


def test_what_is_not_read_is_named_with_its_reason() -> None:
    devices = (READ, SILENT, BARE, replace(BARE, miner_id="x", case="wiki"))
    reasons = {SILENT.miner_id: "wrong_device"}
    assert describe(devices, {READ.miner_id}, reasons) == (
        "1 of 4 recorded real devices read; not m30s (wrong device); not docs, wiki (no summary or status recorded)"
    )
    assert describe((SILENT,), (), {}) == "0 of 1 recorded real devices read; not m30s (not polled yet)"
    assert describe((READ,), {READ.miner_id}, {}) == "1 of 1 recorded real devices read"
    assert waiting(devices, {READ.miner_id}) == 1


def test_devices_come_from_the_replay() -> None:
    row = {"miner_id": "a", "case": "c", "lacks": "", "asked": 2, "firmware": "luxos", "model": "m", "dialect": "luxos"}
    assert devices_of({"devices": [row]}) == (Recorded("a", "c", "", 2),)


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (None, "holds no MANIFEST.csv; give the folder"),
        ("", "line 1: no column file; the header needs"),
        ("file,case,firmware,model,transport,command\n", "no rpc4028 case in it; give a folder of captures"),
        ("file,case,firmware,model,transport,command\nx,c,luxos,m,rpc4028,summary\n", "line 2: file: cannot read x"),
    ],
)
def test_a_folder_that_cannot_be_replayed_is_refused_in_one_line(
    tmp_path: Path, manifest: str | None, said: str
) -> None:
    if manifest is not None:
        (tmp_path / "MANIFEST.csv").write_text(manifest)
    found = problem(tmp_path, PROGRAM)
    assert found is not None
    assert said in found
    assert "\n" not in found


def test_a_missing_folder_and_a_missing_program_are_named(tmp_path: Path) -> None:
    assert "no such folder; give" in (problem(tmp_path / "nowhere", PROGRAM) or "")
    (tmp_path / "MANIFEST.csv").write_text("file\n")
    assert "run make setup" in (problem(tmp_path, tmp_path / "ballast-sim") or "")


def test_a_folder_that_can_be_replayed_is_taken(tmp_path: Path) -> None:
    (tmp_path / "MANIFEST.csv").write_text("file,case,firmware,model,transport,command\nx,c,luxos,m,rpc4028,summary\n")
    (tmp_path / "x").write_text("{}")
    assert problem(tmp_path, PROGRAM) is None
