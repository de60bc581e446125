"""The passwords of pools never come from the command line, where others can read them."""

import argparse
import io
import json
from pathlib import Path

import pytest

from cloud.cli import order
from cloud.core.errors import BadInput

URL = "stratum+tcp://pool.example.com:3333"
SECRET = "hush-1234"


def arguments_of(*typed: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    order.register(parser.add_subparsers())
    return parser.parse_args(["order", "pools", "pecos-1", "--miner", "M1", *typed])


def passwords(arguments: argparse.Namespace) -> list[str]:
    return [pool["password"] for pool in json.loads(order.parameters_of(arguments)["pools"])]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_password_on_the_command_line_is_refused_with_the_way_to_give_it() -> None:
    with pytest.raises(BadInput, match=r"--pool URL USER.*terminal.*stdin.*--passwords-from FILE") as refused:
        order.parameters_of(arguments_of("--pool", URL, "account.rig7", SECRET))
    assert SECRET not in str(refused.value)


def test_a_pool_without_a_user_is_refused() -> None:
    with pytest.raises(BadInput, match="has no user"):
        order.parameters_of(arguments_of("--pool", URL))


def test_each_password_is_asked_for_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def typed(prompt: str) -> str:
        asked.append(prompt)
        return f"{SECRET}{len(asked)}"

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", typed)
    arguments = arguments_of("--pool", URL, "account.rig7", "--pool", URL, "account.rig8")
    assert passwords(arguments) == ["hush-12341", "hush-12342"]
    assert asked == [f"password of account.rig7 at {URL}: ", f"password of account.rig8 at {URL}: "]


def test_without_a_terminal_each_password_is_a_line_of_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SECRET}\n\n"))
    assert passwords(arguments_of("--pool", URL, "a", "--pool", URL, "b")) == [SECRET, ""]
    with pytest.raises(BadInput, match="ends before the password of a"):
        order.parameters_of(arguments_of("--pool", URL, "a"))


def test_a_file_has_one_password_a_line(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    typed = ("--pool", URL, "a", "--pool", URL, "b", "--passwords-from", str(file))
    with pytest.raises(BadInput, match="cannot be read"):
        order.parameters_of(arguments_of(*typed))
    file.write_text(f"{SECRET}\nx\n")
    assert passwords(arguments_of(*typed)) == [SECRET, "x"]
    file.write_text(f"{SECRET}\n")
    with pytest.raises(BadInput, match="has 1 lines for 2 pools"):
        order.parameters_of(arguments_of(*typed))
