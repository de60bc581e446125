"""Root types a command beside a service that runs as an ordinary account: it acts as that account, and harms nothing."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from sysconfig import get_path

import pytest

from cloud.core.errors import Refused
from cloud.infra.postgres import EmbeddedPostgres
from cloud.infra.process import Account, act_as_owner, run_as
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.postgres, pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another account")]
SERVICE = """
import sys
from pathlib import Path
from cloud.identity import service
from cloud.infra.connect import open_database
from cloud.settings import load_settings
with open_database(load_settings(Path(sys.argv[1]))) as database:
    service.open_tenant(database, "default")
    print("ready", flush=True)
    sys.stdin.read()
"""


Run = Callable[..., subprocess.CompletedProcess[str]]
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto'}:{get_path('purelib')}"}


@pytest.fixture
def account() -> Account:
    entry = pwd.getpwnam("daemon")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


@pytest.fixture
def python(account: Account) -> str:
    """A Python of this version that the account can run: root's own may lie where only root reads."""
    look = f"open({str(REPOSITORY / 'cloud' / 'app.py')!r}).close()"
    for found in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        if run_as(account, [found, "-c", look]).returncode == 0:
            return found
    pytest.skip(f"{account.name} can run no Python {sys.version_info.major}.{sys.version_info.minor} on this checkout")


@pytest.fixture
def config(account: Account) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ballast-own-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "data").mkdir(mode=0o755)
    os.chown(folder / "data", account.uid, account.gid)
    (folder / "cloud.toml").write_text('data_dir = "data"\n', encoding="utf-8")
    yield folder / "cloud.toml"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def service(config: Path, account: Account, python: str) -> Iterator[subprocess.Popen[str]]:
    """A running service of ``account``: its database, with a tenant in it."""
    process = subprocess.Popen(
        [python, "-c", SERVICE, str(config)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env=ENVIRONMENT,
        user=account.uid,
        group=account.gid,
        extra_groups=(),
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.stdin.close()
    assert process.wait(30) == 0
    process.stdout.close()


def owners(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in (folder, *folder.rglob("*"))}


@pytest.fixture
def ballast(config: Path, python: str) -> Run:
    """A command as root types it."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [python, "-m", "cloud", *arguments, "--config", str(config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)

    return run


def test_root_works_in_the_running_service_as_its_account(
    config: Path, service: subprocess.Popen[str], account: Account, ballast: Run
) -> None:
    made = ballast("site", "create", "pecos-1")
    assert (made.returncode, made.stderr) == (0, "")
    assert "pecos-1  0 miners" in ballast("site", "list").stdout
    assert ballast("site", "token", "pecos-1").stdout.startswith("ballast1.")
    assert owners(config.parent / "data") == {account.uid}
    assert service.poll() is None


def test_a_cluster_somebody_holds_is_refused_before_anything_is_touched(
    config: Path, service: subprocess.Popen[str], account: Account, ballast: Run
) -> None:
    home = config.parent / "data" / "postgres"
    with pytest.raises(Refused, match="another ballast runs"):
        EmbeddedPostgres(home).start()
    assert owners(home) == {account.uid}
    assert ballast("site", "list").returncode == 0


def test_a_cluster_of_another_account_keeps_its_owner(config: Path, account: Account) -> None:
    data = config.parent / "data" / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("15\n", encoding="ascii")
    for owner in (account.uid, 0):
        os.chown(data, owner, 0)
        with pytest.raises(Refused, match=r"run ballast as the account that made it, or give it to \w+$") as caught:
            EmbeddedPostgres(data.parent).start()
        assert caught.value.code == "foreign_folder"
        assert data.stat().st_uid == owner


def test_root_starts_the_database_as_the_folders_owner_when_nothing_runs(
    config: Path, account: Account, ballast: Run
) -> None:
    listed = ballast("site", "list")
    assert (listed.returncode, listed.stderr) == (
        1,
        f"ballast: nothing is set up in {config.parent / 'data'} yet; run ballast up there first\n",
    )
    assert owners(config.parent / "data") == {account.uid}


def test_root_does_not_act_as_an_account_that_cannot_read_the_programs(
    config: Path, account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "python"
    closed.touch(mode=0o700)
    monkeypatch.setattr(sys, "executable", str(closed))
    with pytest.raises(Refused, match=f"belongs to {account.name}, who cannot read the ballast in"):
        act_as_owner(config.parent / "data")
    assert os.geteuid() == 0
