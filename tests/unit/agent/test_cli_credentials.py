"""Passwords come from the terminal or stdin, never from an argument, and no command shows one."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cgminer.credentials import Credentials
from agent.cli import main
from agent.settings import load_settings
from agent.vault import Vault
from tests.unit.agent.test_cli import complaint, site

pytestmark = pytest.mark.agent

MINERS = (
    "02:00:00:00:00:01,127.0.0.1,4028,antminer,S19,F1,R1,1,,\n02:00:00:00:00:02,127.0.0.2,4028,vnish,S19,F1,R1,2,,\n"
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return site(tmp_path, '[control]\nwhatsminer_password = "elsewhere"\n', MINERS)


def vault_of(config: Path) -> Vault:
    return Vault.open(load_settings(config, {}))


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_a_password_from_stdin_is_kept_and_never_shown(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "correct horse\n")
    out = told(capsys, "credentials", "set", "antminer", "--config", str(config))
    assert "kept for group antminer, user root, in" in out
    assert "1 miners of inventory.csv are opened with it" in out
    assert vault_of(config).group("antminer") == Credentials("root", "correct horse")
    listed = told(capsys, "credentials", "list", "--config", str(config))
    assert [line.split() for line in listed.splitlines()] == [
        ["group", "user", "miners", "password"],
        ["antminer", "root", "1", "in", "the", "vault"],
        ["vnish", "-", "1", "none"],
        ["whatsminer", "admin", "0", "whatsminer_password", "of", "the", "settings"],
        ["0", "miners", "have", "a", "password", "of", "their", "own"],
    ]
    assert "correct" not in out + listed


def test_a_password_is_asked_for_twice_at_a_terminal(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    answers = iter(["one", "two", "same", "same"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
    assert "the two passwords differ" in complaint(capsys, "credentials", "set", "hall-b", "--config", str(config))
    assert "no miner of inventory.csv is in this group yet" in told(
        capsys, "credentials", "set", "hall-b", "--user", "ops", "--config", str(config)
    )
    assert vault_of(config).group("hall-b") == Credentials("ops", "same")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "the password is empty"),
        ("\n", "the password is empty"),
        ("a\x07b\n", "cannot be printed"),
        ("x" * 300, "more than 256"),
    ],
)
def test_what_is_no_password_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str, cause: str
) -> None:
    typed(monkeypatch, text)
    assert cause in complaint(capsys, "credentials", "set", "antminer", "--config", str(config))
    assert not vault_of(config).path.exists()


def test_a_password_cannot_be_an_argument(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(capsys, "credentials", "set", "antminer", "hush", "--config", str(config))
    assert "unrecognized arguments" in line


def test_a_group_with_no_name_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no name" in complaint(capsys, "credentials", "set", " ", "--config", str(config))


def test_remove_forget_and_rekey(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "correct\n")
    told(capsys, "credentials", "set", "vnish", "--config", str(config))
    miner = "02:00:00:00:00:02"
    vault_of(config).propose(miner, Credentials("", "own"))
    assert ", 1 rotations are not settled" in told(capsys, "credentials", "list", "--config", str(config))
    assert "sealed anew with the key in" in told(capsys, "credentials", "rekey", "--config", str(config))
    assert "forgotten" in told(capsys, "credentials", "forget", miner, "--config", str(config))
    assert "has no password of its own" in complaint(capsys, "credentials", "forget", miner, "--config", str(config))
    assert "forgotten: group vnish" in told(capsys, "credentials", "remove", "vnish", "--config", str(config))
    assert "no group 'vnish'" in complaint(capsys, "credentials", "remove", "vnish", "--config", str(config))


@pytest.mark.parametrize("action", [("list",), ("set", "x"), ("remove", "x"), ("forget", "x"), ("rekey",)])
def test_a_broken_vault_is_one_line_with_cause_and_next_step(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, action: tuple[str, ...]
) -> None:
    typed(monkeypatch, "x\n")
    vault_of(config).put("x", Credentials("a", "b"))
    vault_of(config).path.write_text("{")
    assert "cut off; restore it from a backup" in complaint(capsys, "credentials", *action, "--config", str(config))


def test_the_whole_program_says_no_password_anywhere(config: Path) -> None:
    command = [sys.executable, "-m", "agent", "credentials", "set", "antminer", "--config", str(config)]
    done = subprocess.run(command, input="hush-hush\n", capture_output=True, text=True, timeout=60, check=True)
    assert "hush-hush" not in done.stdout + done.stderr
    assert all(b"hush-hush" not in file.read_bytes() for file in config.parent.rglob("*") if file.is_file())
