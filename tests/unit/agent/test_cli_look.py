"""`ballast-agent poll` is told where a miner's pages are and with which kept password to open them."""

from pathlib import Path

import pytest

from agent.cli import main

pytestmark = pytest.mark.agent


def failed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main(["poll", "127.0.0.1:9", *arguments]))
    assert ended.value.code == code
    return capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_a_port_that_is_none_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--web-port: " in failed(capsys, "--web-port", port)


def test_a_group_without_a_password_names_the_command_that_keeps_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\n')
    told = failed(capsys, "--log-in", "antminer", "--config", str(tmp_path / "agent.toml"))
    assert "the vault has no password for group 'antminer'" in told
    assert "ballast-agent credentials set antminer" in told


def test_nobody_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert failed(capsys, "--dialect", "vnish", "--web-port", "9", code=1).count("\n") == 1
