"""A hung holder of the lock is ended by what it recorded of itself; nobody else is, and nobody goes on without the lock."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.errors import BadInput
from agent.failsafe import fence
from agent.failsafe.fence import take_over
from agent.lock import DAEMON, FAILSAFE, LOCK_NAME, Held, StateLock, Unlockable, holder_of, is_held, started_at
from sitelink.clock import SystemClock

pytestmark = pytest.mark.agent

HOLDING = """
import signal, sys, time
from pathlib import Path
from agent.lock import StateLock
ignored = sys.argv[2] == "deaf"
if ignored:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with StateLock(Path(sys.argv[1]), sys.argv[3]):
    print("held", flush=True)
    time.sleep(60)
"""
Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def hold(tmp_path: Path, repository: Path) -> Iterator[Hold]:
    processes: list[subprocess.Popen[str]] = []

    def start(manner: str = "meek", role: str = DAEMON) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDING, str(tmp_path), manner, role],
            env={"PYTHONPATH": f"{repository}:{repository / 'proto'}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_the_holder_notes_itself_and_is_known_again(tmp_path: Path, hold: Hold) -> None:
    process = hold()
    holder = holder_of(tmp_path)
    assert holder is not None
    assert (holder.pid, holder.role, holder.lives()) == (process.pid, DAEMON, True)
    assert 0 <= holder.age_s(SystemClock().monotonic()) < 30
    process.kill()
    process.wait()
    assert not holder.lives()
    assert not is_held(tmp_path)


@pytest.mark.parametrize(
    ("manner", "stopped", "ended_by"),
    [("meek", False, signal.SIGTERM), ("deaf", False, signal.SIGKILL), ("meek", True, signal.SIGKILL)],
)
def test_a_holder_is_ended_softly_then_hard_and_the_lock_is_ours(
    tmp_path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch, manner: str, stopped: bool, ended_by: signal.Signals
) -> None:
    monkeypatch.setattr(fence, "_TERM_S", 0.5)
    process = hold(manner)
    if stopped:
        process.send_signal(signal.SIGSTOP)
    told: list[str] = []
    lock = StateLock(tmp_path, FAILSAFE)
    take_over(tmp_path, lock, told.append)
    with lock:
        # One that was stopped wakes to both signals at once, and dies of either.
        assert -process.wait(5) in ({ended_by, signal.SIGTERM} if stopped else {ended_by})
        assert is_held(tmp_path)
        holder = holder_of(tmp_path)
        assert holder is not None
        assert (holder.pid, holder.role) == (os.getpid(), FAILSAFE)
    assert not is_held(tmp_path)
    assert f"process {process.pid}: ended" in told[-1]


def test_another_process_under_the_recorded_pid_is_left_alone(
    tmp_path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "_TAKE_TRIES", 3)
    holding = hold()
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        path = tmp_path / LOCK_NAME
        note = json.loads(path.read_text())
        for forged in (
            {"pid": bystander.pid},
            {"pid": bystander.pid, "started": started_at(bystander.pid), "boot_id": "another boot"},
            {"pid": 2**22 + 5},
        ):
            path.write_text(json.dumps({**note, **forged}))
            with pytest.raises(BadInput, match="did not note itself there, so it is not ended; find it with: lslocks"):
                take_over(tmp_path, StateLock(tmp_path, FAILSAFE), lambda _: None)
        assert bystander.poll() is None
        assert holding.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff" * 300])
def test_a_note_that_cannot_be_read_is_none(tmp_path: Path, note: bytes) -> None:
    (tmp_path / LOCK_NAME).write_bytes(note)
    assert holder_of(tmp_path) is None
    with StateLock(tmp_path):
        assert holder_of(tmp_path) is not None


def test_a_lock_that_is_free_is_simply_taken(tmp_path: Path) -> None:
    lock = StateLock(tmp_path, FAILSAFE)
    take_over(tmp_path, lock, lambda _: None)
    with lock:
        assert is_held(tmp_path)


def test_the_next_daemon_that_a_supervisor_started_first_is_not_ended(tmp_path: Path, hold: Hold) -> None:
    hold()
    earlier = holder_of(tmp_path)
    assert earlier is not None
    with pytest.raises(Held):
        fence._grab(tmp_path, StateLock(tmp_path, FAILSAFE), None)


def test_a_daemon_waits_for_a_failsafe_at_work_and_not_for_another_daemon(tmp_path: Path, hold: Hold) -> None:
    process = hold(role=FAILSAFE)
    waited: list[str] = []

    def end(holder: object) -> None:
        waited.append(str(holder))
        process.kill()

    with StateLock(tmp_path, DAEMON, end):
        assert waited == [f"failsafe, process {process.pid}"]
    hold(role=DAEMON)
    with pytest.raises(Held, match="another agent runs on this state_dir"), StateLock(tmp_path, DAEMON, end):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where nobody may")
def test_a_folder_that_takes_nothing_can_be_locked_on_all_the_same(tmp_path: Path) -> None:
    _read_only(tmp_path)


def _read_only(folder: Path) -> None:
    with StateLock(folder):
        pass
    (folder / LOCK_NAME).chmod(0o400)
    folder.chmod(0o500)
    with StateLock(folder, FAILSAFE):
        assert is_held(folder)


def test_a_read_only_disk_can_be_locked_on_and_an_empty_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def read_only(path: object, flags: int, *rest: int) -> int:
        if flags & os.O_RDWR:
            raise OSError(30, "Read-only file system", str(path))
        return real(path, flags, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(Unlockable, match="Read-only file system; going on without a lock"):
        StateLock(tmp_path, FAILSAFE).__enter__()
    with pytest.raises(BadInput, match="cannot be written: Read-only file system; check"):
        StateLock(tmp_path, DAEMON).__enter__()
    (tmp_path / LOCK_NAME).touch()
    with StateLock(tmp_path, FAILSAFE):
        assert is_held(tmp_path)
