"""``ballast up`` as a person runs it: one command, a login shown once, and a kill of anything is survived."""

import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud.core.access import system_principal
from cloud.identity import service
from cloud.infra.connect import open_database
from cloud.infra.postgres import EmbeddedPostgres, embedded_home
from cloud.infra.signer_client import SignerClient
from cloud.settings import load_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def config() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ballast-up-", dir="/tmp"))
    folder.chmod(0o711)
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    http, link, enrol = (f"127.0.0.1:{listener.getsockname()[1]}" for listener in held)
    for listener in held:
        listener.close()
    path = folder / "cloud.toml"
    path.write_text(
        f'data_dir = "data"\nhttp_listen = "{http}"\nlink_listen = "{link}"\nenrol_listen = "{enrol}"\n',
        encoding="utf-8",
    )
    yield path
    shutil.rmtree(folder, ignore_errors=True)


class Up:
    """A running ``ballast up``."""

    def __init__(self, config: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cloud", "up", "--json", "--config", str(config)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.ready: dict[str, Any] = json.loads(self.process.stdout.readline() or "{}")

    def child(self, name: str) -> int | None:
        """Return the process id of a child by the name of its command."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in children:
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if name in command or (name == "postgres" and command[0].endswith("/postgres")):
                return int(pid)
        return None

    def end(self) -> int:
        """Ask it to stop and return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def eventually(holds: Callable[[], object], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # a redirect to the login page is followed
            return bool(response.status == 200)
    except OSError:
        return False


def ballast(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cloud", *arguments, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_one_command_runs_it_and_any_kill_is_survived(config: Path) -> None:
    running = Up(config)
    try:
        assert running.ready["ready"] and "ballast operator reset" in running.ready["password"]
        eventually(lambda: answers(running.ready["http"]))
        made = ballast(config, "site", "create", "pecos-1", "--timezone", "America/Chicago")
        assert (made.returncode, made.stderr) == (0, "")
        for name in ("postgres", "signer", "serve", "worker"):
            victim = running.child(name)
            assert victim is not None, name
            os.kill(victim, signal.SIGKILL)
            eventually(lambda victim=victim, name=name: running.child(name) not in (None, victim))
        eventually(lambda: answers(running.ready["http"]))
        eventually(lambda: ballast(config, "site", "token", "pecos-1").stdout.startswith("ballast1."))
        assert "pecos-1  0 miners" in ballast(config, "site", "list").stdout
    finally:
        code = running.end()
    assert code == 0


def test_a_killed_supervisor_takes_its_children_along_and_starts_again(config: Path) -> None:
    running = Up(config)
    children = [running.child(name) for name in ("postgres", "signer", "serve", "worker")]
    running.process.kill()
    running.end()
    again = Up(config)
    try:
        assert again.ready["ready"]
        eventually(lambda: answers(again.ready["http"]))
        assert not any(pid is not None and runs(pid) for pid in children)
        second = subprocess.run(
            [sys.executable, "-m", "cloud", "up", "--config", str(config)], capture_output=True, text=True, timeout=60
        )
        assert second.returncode == 1
        assert "another ballast runs" in second.stderr.splitlines()[-1]
    finally:
        assert again.end() == 0


def read_until(terminal: int, word: str, within_s: float = 90) -> str:
    """Return what came out of a pseudo terminal up to the line with ``word``, or up to the end of its programme."""
    said, deadline = b"", time.monotonic() + within_s
    while word.encode() not in said or not said.endswith(b"\n"):
        readable, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        assert readable, f"no {word!r} in {said!r}"
        try:
            said += os.read(terminal, 4096)
        except OSError:  # every writer has gone
            break
    return said.decode()


@contextmanager
def up_in_a_terminal(config: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    terminal, inside = pty.openpty()
    command = [sys.executable, "-m", "cloud", "up", "--config", str(config)]
    process = subprocess.Popen(command, stdout=inside, stderr=subprocess.DEVNULL)
    os.close(inside)
    try:
        yield process, terminal
    finally:
        process.terminate()
        process.wait(30)
        os.close(terminal)


@pytest.mark.parametrize("door", ["http_listen", "link_listen"])
def test_a_taken_port_fails_the_start_and_the_password_is_shown_at_the_first_start_that_works(
    config: Path, door: str
) -> None:
    host, port = tomllib.loads(config.read_text())[door].split(":")
    with socket.create_server((host, int(port))), up_in_a_terminal(config) as (process, terminal):
        said = read_until(terminal, "nothing such")
        assert (process.wait(30), said) == (1, ""), "another programme's answer is not our readiness"
    with up_in_a_terminal(config) as (_, terminal):
        said = read_until(terminal, "only now")
    password = said.split("one-time password ")[1].split()[0]
    with open_database(load_settings(config)) as database:
        (tenant_id,) = database.tenant_ids()
        with database.unit_of_work(system_principal(tenant_id)) as uow:
            assert service.authenticate(uow, "operator@ballast.local", password) is not None


def test_a_password_goes_to_no_file(config: Path) -> None:
    log = config.with_name("cloud.log")
    command = [sys.executable, "-m", "cloud", "up", "--config", str(config)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        eventually(lambda: "Nobody has signed in yet" in log.read_text())
        reset = log.read_text().rpartition("password: ")[2].split()
        assert reset == ["ballast", "operator", "reset", "--config", str(config)]
        password = ballast(config, "operator", "reset").stdout.strip()
        assert len(password) >= 12
    finally:
        process.terminate()
        assert process.wait(30) == 0
    assert "one-time password " not in log.read_text() and password not in log.read_text()


def test_a_second_one_on_the_same_folder_is_refused_whatever_its_database(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Up(config)
    signer = config.parent / "data" / "signer" / "signer.sock"
    inode = signer.stat().st_ino
    try:
        settings = load_settings(config)
        url = EmbeddedPostgres(embedded_home(settings.data_dir)).url()
        monkeypatch.setenv("BALLAST_DATABASE_URL", url)
        second = ballast(config, "up")
        assert (second.returncode, second.stderr) == (
            1,
            f"ballast: another ballast runs on {settings.data_dir}; stop it, or choose another data_dir\n",
        )
        assert signer.stat().st_ino == inode
        assert len(SignerClient(signer).public_key()) == 32
    finally:
        assert running.end() == 0


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("site", "create", "Bad Name"), 2, "site_id: 'Bad Name' is not a slug"),
        (("site", "create", "pecos-1", "--timezone", "Mars/Olympus"), 2, "timezone: 'Mars/Olympus' is unknown"),
        (("site", "import", "nowhere", "{inventory}"), 1, "there is no site nowhere; create it first"),
        (("site", "import", "nowhere", "{broken}"), 2, "broken.csv line 2: dialect: 'linux' is not known"),
        (("site", "import", "nowhere", "/nonexistent.csv"), 2, "/nonexistent.csv: No such file or directory"),
        (("site", "token", "nowhere"), 1, "there is no site nowhere; ballast site list shows them"),
        (("site", "revoke", "nobody"), 1, "there is no enrolled agent nobody"),
    ],
)
def test_bad_input_is_one_line(prepared: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    header = "miner_id,host,port,dialect,model,feeder_id,rack,position,nameplate_w,nameplate_ths"
    files = {name: prepared.parent / f"{name}.csv" for name in ("inventory", "broken")}
    files["inventory"].write_text(f"{header}\na,127.0.0.1,4028,luxos,S19,F1,C1-R1,1,3000,100\n")
    files["broken"].write_text(f"{header}\na,127.0.0.1,4028,linux,S19,F1,C1-R1,1,3000,100\n")
    done = ballast(prepared, *(argument.format(**files) for argument in arguments))
    lines = [line for line in done.stderr.splitlines() if line]
    assert (done.returncode, len(lines), done.stdout) == (code, 1, "")
    assert message in lines[0]


@pytest.fixture(scope="module")
def prepared() -> Iterator[Path]:
    """A folder where ``ballast up`` ran once, and a command that starts the database for itself."""
    folder = Path(tempfile.mkdtemp(prefix="ballast-up-", dir="/tmp"))
    folder.chmod(0o711)
    path = folder / "cloud.toml"
    path.write_text('data_dir = "data"\n', encoding="utf-8")
    with open_database(load_settings(path)) as database:
        service.open_tenant(database, "default")
    yield path
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lead = 3", "cloud.toml: lead: no such setting"),
        ('http_listen = "nowhere"', "cloud.toml: http_listen: 'nowhere' is not host:port"),
    ],
)
def test_a_bad_setting_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "cloud.toml").write_text(text, encoding="utf-8")
    done = ballast(tmp_path / "cloud.toml", "up")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and message in done.stderr


def test_an_unknown_command_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "cloud", "dance"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "invalid choice: 'dance'" in done.stderr
