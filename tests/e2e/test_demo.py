"""The demo holds from end to end, also while its processes are being killed, and leaves nothing running."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BALLAST = Path(sys.executable).parent / "ballast"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of this run alone, short enough for a socket's path and open to the account lent to PostgreSQL."""
    made = Path(tempfile.mkdtemp(prefix="ballast-story-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def _play(folder: Path, *flags: str) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(
        [BALLAST, "demo", "--once", *flags], capture_output=True, text=True, timeout=280, env=environment
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 1, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(lines[0])
    return document, done


def _children_left(marker: str) -> list[str]:
    left = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if marker in line:
                left.append(line)
    return left


def _assert_everything_held(figures: dict[str, Any]) -> None:
    assert figures["samples_stored"] > 0
    assert figures["samples_lost"] == figures["samples_duplicated"] == 0
    assert figures["liars"] == figures["liars_named"] + figures["liars_named_by_feeder"] > 0
    assert figures["liars_counted_as_shed"] == figures["left_off"] == figures["honest_named"] == 0
    assert figures["verified"] + figures["honest_clouded"] == figures["curtailed_miners"] > 0
    assert figures["honest_clouded"] <= figures["curtailed_miners"] * 0.15
    assert figures["restored_during_cut"] == figures["live_to_restore"] > 0
    assert figures["verified_mwh"] > 0
    assert figures["invoice_total_cents"] > 0


@pytest.mark.story
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_story_holds_while_its_processes_are_killed(folder: Path) -> None:
    document, done = _play(folder, "--miners", "60", "--seed", "108", "--kills", "8")
    assert done.returncode == 0, done.stderr[-3000:]
    figures = document["figures"]
    assert document["bench"] == "demo"
    assert (figures["miners"], figures["kills"]) == (120, 8)
    _assert_everything_held(figures)
    assert not _children_left(str(folder))


@pytest.mark.story
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ending_a_told_story_by_ctrl_c_is_a_success_and_no_log_held_the_password(folder: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(folder)}
    command = [BALLAST, "demo", "--miners", "30", "--seed", "400"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as demo:
        assert demo.stderr is not None
        said = ""
        for line in demo.stderr:
            said += line
            if "Ctrl-C ends it" in line:
                (log,) = folder.glob("*/cloud.log")
                logged = log.read_text()
                demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0, said[-3000:]
    password = said.split("one-time password ")[1].split()[0]
    assert "Ballast is ready" in logged and password not in logged and "one-time password " not in logged
    assert list(folder.iterdir()) == []
    assert not _children_left(str(folder))


@pytest.mark.story
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_recorded_devices_stand_beside_the_simulated_ones_read_and_never_ordered(captures: Path, folder: Path) -> None:
    document, done = _play(folder, "--miners", "60", "--seed", "100", "--captures", str(captures))
    assert done.returncode == 0, done.stderr[-3000:]
    figures = document["figures"]
    assert figures["miners"] == 120
    _assert_everything_held(figures)
    assert figures["captured_devices"] >= figures["captured_read"] >= figures["captured_readable"] > 20
    assert figures["captured_missed"] == figures["captured_silent"] == figures["captured_ordered"] == 0
    assert f"{figures['captured_read']} of {figures['captured_devices']} recorded real devices read" in done.stderr
    assert not _children_left(str(folder))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--miners", "3"), "--miners 3: too few"),
        (("--miners", "many"), "--miners: invalid int value: 'many'"),
        (("--miners", "99999999"), "--miners 99999999: more than a simulated site takes; give 60000 or fewer"),
        (("--http-port", "70000"), "--http-port 70000: is no port; give 1 to 65535"),
        (("--http-port", "0"), "--http-port 0: is no port"),
        (("--kills", "-1"), "--kills -1: give 0 or more"),
        (("--prices", "/nowhere.csv"), "--prices /nowhere.csv: no such file"),
        (("--captures", "/nowhere"), "--captures /nowhere: no such folder; give the folder"),
        (("--captures", "/"), "--captures /: holds no MANIFEST.csv; give the folder"),
        (("--pace", "fast"), "unrecognized arguments: --pace"),
    ],
)
def test_bad_input_is_one_line(flags: tuple[str, ...], said: str) -> None:
    done = subprocess.run([BALLAST, "demo", "--once", *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout


def test_a_price_file_with_a_broken_row_is_refused_before_anything_starts(folder: Path) -> None:
    rows = [f"2024-01-0{1 + place // 24},{1 + place % 24},20" for place in range(60)]
    rows[48] = "2024-01-03,25,20"
    prices = folder / "p3.csv"
    prices.write_text("\n".join(["delivery_date,hour_ending,rtm_lmp", *rows]) + "\n", encoding="utf-8")
    command = [BALLAST, "demo", "--once", "--prices", "p3.csv"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "demo: --prices: p3.csv line 50: hour_ending: '25' is not an hour; write 1 to 24\n"
    assert list(folder.iterdir()) == [prices]
