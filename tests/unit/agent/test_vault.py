"""Passwords at rest: sealed, replaced whole, and never the reason that the agent does not start."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent.cgminer.credentials import Credentials
from agent.errors import BadInput, SessionBusy
from agent.files import alone_with
from agent.settings import Settings, load_settings
from agent.vault import Vault, keys
from sitelink.inventory import MinerEntry

pytestmark = pytest.mark.agent

MINER = MinerEntry("02:00:00:00:00:01", "10.0.0.1", 4028, "antminer", "S19", "F1", "R1", 1, None, None)
SECRET = Credentials("root", "correct horse")


def settings_in(folder: Path, password: str = "", environment: dict[str, str] | None = None) -> Settings:
    (folder / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\n', "utf-8")
    settings = load_settings(folder / "agent.toml", environment or {})
    return replace(settings, control=replace(settings.control, whatsminer_password=password))


def opened(folder: Path, **more: str) -> Vault:
    return Vault.open(settings_in(folder, **more))


def with_vault(folder: Path) -> Vault:
    vault = opened(folder)
    vault.put("antminer", SECRET)
    return vault


def test_without_a_vault_nothing_is_known_and_nothing_is_wrong(tmp_path: Path) -> None:
    vault = opened(tmp_path)
    assert vault.credentials(MINER) is None
    assert vault.problem is None
    assert not (tmp_path / "state").exists(), "looking makes no file"


def test_a_group_opens_every_miner_of_its_dialect_after_a_restart(tmp_path: Path) -> None:
    with_vault(tmp_path)
    assert opened(tmp_path).credentials(MINER) == SECRET
    assert opened(tmp_path).credentials(replace(MINER, dialect="vnish")) is None


def test_the_group_that_the_inventory_names_counts_above_the_dialects(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    vault.put("hall-b", Credentials("root", "other"))
    assert vault.credentials(replace(MINER, credentials="hall-b")) == Credentials("root", "other")
    assert vault.credentials(replace(MINER, credentials="hall-c")) is None, "an unknown group opens nothing by guess"


def test_a_dialect_found_out_has_its_group(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    assert vault.credentials(replace(MINER, dialect="auto")) is None
    assert vault.credentials(replace(MINER, dialect="auto"), "antminer") == SECRET
    assert vault.credentials(replace(MINER, dialect="vnish"), "antminer") is None, "what the inventory says stands"


def test_the_whatsminer_password_of_the_settings_stands_in_for_its_group_alone(tmp_path: Path) -> None:
    vault = opened(tmp_path, password="hush")
    miner = replace(MINER, dialect="whatsminer")
    assert vault.credentials(miner) == Credentials("admin", "hush")
    assert vault.credentials(MINER) is None
    vault.put("whatsminer", Credentials("admin", "kept"))
    assert opened(tmp_path, password="hush").credentials(miner) == Credentials("admin", "kept")


def test_no_password_is_readable_in_the_files_or_in_what_is_shown(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    vault.propose(MINER.miner_id, Credentials("root", "correct battery"))
    for file in (tmp_path / "state").iterdir():
        assert b"correct" not in file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0, f"{file.name} is open to others"
    assert "correct" not in f"{vault.groups!r} {vault._contents!r}"
    settings = settings_in(tmp_path, environment={"CREDENTIALS_DIRECTORY": "/run/credentials/x"})
    assert "credentials/x" not in str(settings.redacted())


def test_a_rotated_password_counts_once_it_is_settled_and_the_former_one_until_then(tmp_path: Path) -> None:
    fresh = Credentials("root", "rotated")
    with_vault(tmp_path).propose(MINER.miner_id.upper(), fresh)
    vault = opened(tmp_path)
    assert vault.credentials(MINER) == SECRET
    assert vault.proposed(MINER) == fresh
    assert vault.unsettled == {MINER.miner_id}
    vault.settle(MINER.miner_id, taken=True)
    vault.settle(MINER.miner_id, taken=True)
    assert (opened(tmp_path).credentials(MINER), opened(tmp_path).proposed(MINER)) == (fresh, None)
    assert opened(tmp_path).rotated == {MINER.miner_id}


def test_a_rotation_that_was_not_taken_leaves_the_former_password(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    vault.propose(MINER.miner_id, Credentials("root", "rotated"))
    vault.settle(MINER.miner_id, taken=False)
    assert (opened(tmp_path).credentials(MINER), opened(tmp_path).proposed(MINER)) == (SECRET, None)


def test_a_miner_whose_own_password_is_forgotten_is_its_groups_again(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    vault.propose(MINER.miner_id, Credentials("root", "rotated"))
    vault.settle(MINER.miner_id, taken=True)
    vault.forget(MINER.miner_id)
    assert vault.credentials(MINER) == SECRET


def test_a_group_that_is_removed_is_gone_and_one_that_never_was_is_named(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    with pytest.raises(BadInput, match=r"no group 'vnish' is in it; the groups are: antminer"):
        vault.remove("vnish")
    vault.remove("antminer")
    assert opened(tmp_path).credentials(MINER) is None


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is no vault of this agent, or was cut off"),
        (b"{", "is no vault of this agent, or was cut off"),
        (b"[1]", "is no vault of this agent, or was cut off"),
        (b"\xff" * 99, "is no vault of this agent, or was cut off"),
        (b'{"format":1,"key":"k","nonce":"*","sealed":""}', "is no vault of this agent, or was cut off"),
        (b'{"format":2,"key":"k","nonce":"","sealed":""}', "was written by a newer agent; upgrade"),
        (b'{"format":1,"key":"0000","nonce":"","sealed":""}', "its key 0000 is not in .*credentials.key"),
    ],
)
def test_a_broken_or_foreign_vault_says_so_lets_the_agent_start_and_is_never_written_over(
    tmp_path: Path, content: bytes, cause: str
) -> None:
    with_vault(tmp_path)
    path = tmp_path / "state/credentials.vault"
    path.write_bytes(content)
    vault = opened(tmp_path)
    with pytest.raises(BadInput, match=cause) as refused:
        vault.put("antminer", SECRET)
    assert vault.problem == str(refused.value)
    assert str(path) in vault.problem
    assert vault.credentials(MINER) is None
    assert path.read_bytes() == content


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    with_vault(tmp_path)
    path = tmp_path / "state/credentials.vault"
    document = json.loads(path.read_bytes())
    for part in ("nonce", "sealed"):
        text = document[part]
        swapped = {**document, part: ("B" if text[0] != "B" else "C") + text[1:]}
        path.write_text(json.dumps(swapped), "utf-8")
        assert "was changed or damaged since it was written; restore it" in str(opened(tmp_path).problem)
    path.write_text(json.dumps(document), "utf-8")
    assert opened(tmp_path).problem is None


def test_a_write_cut_off_before_the_rename_leaves_the_former_vault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = with_vault(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(BadInput, match="cannot be written: No space left on device; what was in it stays"):
        vault.put("antminer", Credentials("root", "lost"))
    monkeypatch.undo()
    assert opened(tmp_path).credentials(MINER) == SECRET
    vault.put("antminer", Credentials("root", "kept"))  # what the crash left behind is in nobody's way
    assert opened(tmp_path).credentials(MINER) == Credentials("root", "kept")


def test_two_processes_do_not_lose_each_others_changes(tmp_path: Path) -> None:
    first, second = with_vault(tmp_path), opened(tmp_path)
    second.put("vnish", Credentials("", "b"))
    first.put("braiins", Credentials("root", "c"))
    assert set(opened(tmp_path).groups) == {"antminer", "vnish", "braiins"}
    with alone_with(first.path), pytest.raises(SessionBusy, match="another process changes it"):
        second.put("luxos", SECRET)


def test_a_running_agent_takes_up_what_the_command_line_wrote(tmp_path: Path) -> None:
    running = opened(tmp_path)
    assert not running.refresh()
    with_vault(tmp_path)
    assert running.refresh()
    assert running.credentials(MINER) == SECRET
    assert not running.refresh()
    running.path.unlink()
    assert running.refresh()
    assert running.credentials(MINER) is None


def test_the_key_that_systemd_hands_over_seals_and_nothing_else_opens(tmp_path: Path) -> None:
    handed = tmp_path / "credentials"
    handed.mkdir()
    (handed / keys.CREDENTIAL_NAME).write_text("ab" * 32 + "\n", "utf-8")
    inside = Vault.open(settings_in(tmp_path, environment={"CREDENTIALS_DIRECTORY": str(handed)}))
    inside.put("antminer", SECRET)
    assert not (tmp_path / "state/credentials.key").exists()
    outside = opened(tmp_path)
    assert outside.credentials(MINER) is None
    assert "systemd hands none over" in str(outside.problem)
    assert "systemd-run --pipe --wait" in str(outside.problem)


@pytest.mark.parametrize("content", [b"", b"short", b"zz" * 32, b"x" * 33])
def test_a_key_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    with_vault(tmp_path)
    (tmp_path / "state/credentials.key").write_bytes(content)
    assert "credentials.key: is no key; a key is 64 hexadecimal digits" in str(opened(tmp_path).problem)


def test_rekey_seals_with_a_fresh_key_file(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    key_file = tmp_path / "state/credentials.key"
    before, sealed = key_file.read_bytes(), vault.path.read_bytes()
    assert vault.rekey() == str(key_file)
    assert key_file.read_bytes() != before
    assert vault.path.read_bytes() != sealed
    assert opened(tmp_path).credentials(MINER) == SECRET
    assert sorted(file.name for file in (tmp_path / "state").iterdir()) == [
        "credentials.key",
        "credentials.vault",
        "credentials.vault.lock",
    ]


def test_rekey_moves_to_the_key_that_systemd_hands_over_and_the_file_goes(tmp_path: Path) -> None:
    with_vault(tmp_path)
    (tmp_path / keys.CREDENTIAL_NAME).write_bytes(bytes(range(32)))
    inside = Vault.open(settings_in(tmp_path, environment={"CREDENTIALS_DIRECTORY": str(tmp_path)}))
    assert inside.credentials(MINER) == SECRET, "the key file opens it until then"
    assert inside.rekey() == str(tmp_path / keys.CREDENTIAL_NAME)
    assert not (tmp_path / "state/credentials.key").exists()
    assert inside.credentials(MINER) == SECRET


@pytest.mark.parametrize("cut", ["_write", "keep_only"])
def test_rekey_killed_between_its_steps_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    vault = with_vault(tmp_path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(vault if cut == "_write" else vault._keys, cut, killed)
        with pytest.raises(KeyboardInterrupt):
            vault.rekey()
    assert opened(tmp_path).credentials(MINER) == SECRET
    opened(tmp_path).put("vnish", Credentials("", "b"))
    with monkeypatch.context() as patched:
        again = opened(tmp_path)
        patched.setattr(again, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            again.rekey()
    assert opened(tmp_path).credentials(MINER) == SECRET
    opened(tmp_path).rekey()
    assert opened(tmp_path).credentials(MINER) == SECRET
    assert opened(tmp_path).group("vnish") == Credentials("", "b")


def test_rekey_without_a_vault_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no vault yet; make one: ballast-agent credentials set"):
        opened(tmp_path).rekey()


def test_a_key_file_that_others_can_read_is_said(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    assert vault.advice is None
    (tmp_path / "state/credentials.key").chmod(0o640)
    assert "run chmod 600" in str(vault.advice)


def test_without_a_vault_cryptography_is_not_imported(tmp_path: Path) -> None:
    settings_in(tmp_path)
    program = (
        "import sys; from pathlib import Path; from agent.settings import load_settings; from agent.vault import Vault;"
        f"vault = Vault.open(load_settings(Path({str(tmp_path / 'agent.toml')!r}), {{}}));"
        "assert not [name for name in sys.modules if name.startswith(('cryptography', 'grpc', 'google'))]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
