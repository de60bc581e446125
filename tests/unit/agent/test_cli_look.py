"""`ballast-agent poll` is told where a miner's pages are and with which kept password to open them."""

from pathlib import Path

import pytest

from agent.cgminer.credentials import Credentials
from agent.cli import main
from agent.cli.discover import _passwords
from agent.settings import load_settings
from agent.vault import Vault
from sitelink.inventory import MinerEntry

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


def test_discover_shows_who_stands_behind_a_shared_host_no_other_miners_password(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\n')
    settings = load_settings(tmp_path / "agent.toml", {})
    vault = Vault.open(settings)
    vault.put("antminer", Credentials("root", "group's"))
    for miner_id in ("m1", "m2"):
        vault.propose(miner_id, Credentials("root", f"{miner_id}'s"))
        vault.settle(miner_id, taken=True)
    listed = tuple(
        MinerEntry(miner_id, "gate.site", port, "antminer", "S19", "F1", "", 0, None, None)
        for miner_id, port in (("m1", 5001), ("m2", 5002))
    )
    shown = {}
    for port in (5001, 5002, 4028):
        found = _passwords(settings, listed, port)("Gate.site", "antminer")
        shown[port] = None if found is None else found.password
    assert shown == {5001: "m1's", 5002: "m2's", 4028: "group's"}
