"""Bad input is one line that says where, what and what to do; exit code 2; nothing changed."""

import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent import daemon
from agent.cli import main
from agent.errors import BadInput
from agent.identity import Identity, store_identity
from agent.settings import load_settings
from agent.uplink import Tls

pytestmark = pytest.mark.agent

INVENTORY = "miner_id,host,port,dialect,model,feeder_id,rack,position,nameplate_w,nameplate_ths\n"
METERS = "meter_id,kind,feeder_id,url\n"
TOKEN = "ballast1.c2VjcmV0LXNlY3JldA." + "0" * 64


def site(folder: Path, settings: str = "", inventory: str = "", meters: str = "") -> Path:
    (folder / "inventory.csv").write_text(INVENTORY + inventory)
    (folder / "meters.csv").write_text(METERS + meters)
    path = folder / "agent.toml"
    path.write_text('[site]\nsite_id = "pecos-1"\n' + settings)
    return path


def enrolled(folder: Path, site_id: str = "pecos-1") -> None:
    tls = Tls(b"ca", b"certificate", b"key")
    keys = (bytes(range(32)),)
    store_identity(folder / "state" / "identity", Identity("t", site_id, "a", keys, keys, tls))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    assert main(arguments) == code
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("ballast-agent: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("fly",), "COMMAND: 'fly' is not known; write one of run, status, enrol"),
        (("run", "--config", "{folder}/none.toml"), "none.toml: no such file; give the agent's settings"),
        (("run", "--speed", "9"), "unrecognized arguments: --speed 9"),
        (("status", "--config", "{config}"), "agent.db: no such file; the agent has not run"),
        (("poll",), "required: HOST[:PORT]"),
        (("poll", "10.0.0.1:x"), "'10.0.0.1:x' is not HOST:PORT"),
        (("poll", "10.0.0.1:0"), "the port must be 1..65535"),
        (("poll", "127.0.0.1:9", "--dialect", "minerd"), "--dialect: 'minerd' is not known; write one of luxos"),
        (("enrol", "--config", "{config}"), "the following arguments are required: --token"),
        (("enrol", "--config", "{config}", "--token", "abc"), "--token: not a join token; copy the whole line"),
        (("run", "--config", "{config}"), "trust.json: no such file: this agent is not enrolled; enrol with"),
        (("failsafe", "off", "--config", "{config}", "--for", "soon"), "--for: 'soon' is not a duration; write"),
        (("failsafe", "off", "--config", "{config}", "--for", "999h"), "--for: '999h' is out of range; write at most"),
        (
            ("failsafe", "off", "--config", "{config}", "--all"),
            "inventory.csv: no miner is listed; write one row for each",
        ),
        (("failsafe", "off", "--config", "{config}", "--mw", "lots"), "--mw: 'lots' is no load; write megawatts"),
        (("failsafe", "off", "--config", "{config}", "--mw", "nan"), "--mw: 'nan' is no load; write megawatts"),
        (("failsafe", "off", "--config", "{config}", "--all", "--mw", "1"), "not allowed with argument --all"),
        (("failsafe", "off", "--config", "{config}", "--watch"), "--watch: only status can be watched"),
        (("failsafe", "off", "--config", "{config}", "--json"), "--json: only status is told so"),
        (("journal", "--config", "{config}", "--last", "0"), "--last: '0' does not fit; write a whole number from 1"),
        (("journal", "--config", "{config}"), "agent.db: no such file; the agent has not run with these settings yet"),
        (("plan", "show", "--config", "{config}"), "agent.db: no such file; the agent has not run with these settings"),
        (("failsafe", "status", "--config", "{config}"), "inventory.csv: no miner is listed"),
        (
            ("failsafe", "explode", "--config", "{config}"),
            "action: 'explode' is not known; write one of off, on, status, release;",
        ),
        (
            ("failsafe", "off", "--config", "{config}", "--rack"),
            "ballast-agent: --rack: expected at least one argument",
        ),
        (("failsafe", "off", "--config", "{config}", "--for", "8d"), "--for: '8d' is out of range; write at most 7d"),
        (
            ("poll", "h", "--config", "{folder}", "--log-in", "x"),
            "cannot be read: Is a directory; it is a folder: give",
        ),
    ],
)
def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str) -> None:
    config = site(tmp_path)
    before = contents(tmp_path)
    filled = tuple(word.format(folder=tmp_path, config=config) for word in arguments)
    assert told in complaint(capsys, *filled)
    after = contents(tmp_path)
    after.pop(str(tmp_path / "state" / "agent.lock"), None)
    assert after == before


@pytest.mark.parametrize(
    ("settings", "inventory", "meters", "told"),
    [
        ("[poll]\nintervall_s = 5\n", "", "", "agent.toml: [poll] intervall_s: is not a known key"),
        ("[poll]\ninterval_s = 'often'\n", "", "", "[poll] interval_s: expected a number, got 'often'"),
        ("", "m1,10.0.0.1,abc,luxos,S19,f1,r1,1,3000,100\n", "", "inventory.csv line 2: port: 'abc'"),
        ("", "m1,10.0.0.1,4028,luxos,S19\n", "", "inventory.csv line 2"),
        ("", "", "m1,site,,ftp://x\n", "meters.csv line 2"),
        ('[limits]\nnever_touch = ["m9"]\n', "", "", "[limits] never_touch: 'm9' is not in inventory.csv"),
        ("[site2]\n", "", "", "unknown section [site2]"),
    ],
)
def test_run_refuses_bad_files_before_it_touches_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: str, inventory: str, meters: str, told: str
) -> None:
    config = site(tmp_path, settings, inventory, meters)
    enrolled(tmp_path)
    before = contents(tmp_path)
    assert told in complaint(capsys, "run", "--config", str(config))
    assert contents(tmp_path) == before


MINER = "02:aa,127.0.0.1,9,luxos,S19,f1,r1,1,3000,100\n"


@pytest.mark.parametrize(
    ("settings", "arguments", "told"),
    [
        ("", ("--miner", "m9"), "--miner: 'm9' is not in "),
        ('[limits]\nnever_touch = ["02:Ab"]\n', (), "[limits] never_touch: '02:Ab' is not in inventory.csv; write"),
    ],
)
def test_failsafe_refuses_a_miner_that_nobody_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: str, arguments: tuple[str, ...], told: str
) -> None:
    config = site(tmp_path, settings, MINER)
    assert told in complaint(capsys, "failsafe", "off", "--config", str(config), *(arguments or ("--all",)))
    assert not (tmp_path / "state" / "agent.db").exists(), "nobody is switched where a misspelt id may protect somebody"


@pytest.mark.parametrize("written", ["02:AA", "02:aa"])
def test_failsafe_spares_a_miner_however_its_id_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], written: str
) -> None:
    config = site(tmp_path, f'[limits]\nnever_touch = ["{written}"]\n', MINER.replace("02:aa", "02:Aa"))
    assert main(("failsafe", "off", "--all", "--config", str(config))) == 1
    assert "this site never touches it" in capsys.readouterr().out


def test_one_broken_row_keeps_nobody_from_stopping_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = MINER + "02:bb,127.0.0.1,0,luxos,S19,f1,r1,2,3000,100\n"
    config = site(tmp_path, '[limits]\nnever_touch = ["02:bb"]\n[control]\ndevice_deadline_s = 0.5\n', rows)
    assert main(("failsafe", "off", "--all", "--config", str(config))) == 1
    told = capsys.readouterr().out
    assert "warning: left out: inventory.csv line 3: port" in told
    assert "never_touch: '02:bb' is not in inventory.csv" in told
    assert "0 of 1 miners proven off" in told
    assert main(("failsafe", "off", "--miner", "02:bb", "--config", str(config))) == 2
    assert "--miner: '02:bb' is not in" in capsys.readouterr().err


def test_run_refuses_an_identity_of_another_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = site(tmp_path)
    enrolled(tmp_path, "odessa-1")
    assert "enrolled for site odessa-1, the settings say pecos-1" in complaint(capsys, "run", "--config", str(config))
    assert not (tmp_path / "state" / "agent.db").exists()


def test_a_mistyped_outlet_keeps_no_agent_from_starting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(site(tmp_path), {})
    enrolled(tmp_path)
    settings.database.mkdir()  # as far as a start comes in a test
    row = "m1,10.0.0.1,4028,luxos,S19,F1,R1,1,3000,100,modbus://10.0.0.9/1?coil=70000"
    settings.site.inventory.write_text(f"{INVENTORY.splitlines()[0]},outlet\n{row}\n")
    with pytest.raises(BadInput, match=r"agent\.db: cannot be opened"):
        daemon.run_agent(settings)
    assert caplog.messages[0].startswith("inventory.csv line 2: outlet: ")
    assert caplog.messages[0].endswith("going on without its outlet")


def test_a_start_logs_the_settings_without_secrets_and_a_limit_that_is_too_low(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(
        site(tmp_path, '[poll]\nconcurrency = 4096\n[control]\nwhatsminer_password = "hush"\n'), {}
    )
    enrolled(tmp_path)
    settings.database.mkdir()
    monkeypatch.setattr(daemon, "open_files", lambda needed: 1024)
    caplog.set_level("INFO")
    with pytest.raises(BadInput, match=r"agent\.db: cannot be opened"):
        daemon.run_agent(settings)
    told, warned = caplog.messages
    assert "'concurrency': '4096'" in told
    assert "hush" not in told
    assert warned.startswith(
        "agent: up to 4288 files and sockets are open at once, the system allows 1024; raise Limit"
    )


def test_an_unreachable_cloud_fails_enrolment_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = site(tmp_path, '[link]\nenrol_endpoint = "127.0.0.1:9"\n')
    assert main(("enrol", "--config", str(config), "--token", TOKEN)) == 1
    error = capsys.readouterr().err
    assert "127.0.0.1:9: cannot be reached" in error
    assert len(error.splitlines()) == 1
    assert "c2VjcmV0" not in error, "a token is a secret"


@contextmanager
def web_server() -> Iterator[str]:
    """What is no miner, on a free port of loopback, from a thread of its own."""

    class Refusing(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n<html>")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("127.0.0.1:9", "127.0.0.1:9: connection refused"),
        ("no-such-host.invalid", "no-such-host.invalid:4028"),
    ],
)
def test_poll_of_a_miner_that_does_not_answer_is_a_failure_and_no_bad_input(
    host: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in complaint(capsys, "poll", host, code=1)


def test_poll_of_what_is_no_miner_fails_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with web_server() as address:
        assert f"{address}: no miner's API answers there but 'HTTP/1.1 400" in complaint(
            capsys, "poll", address, code=1
        )
        assert main(("poll", address, "--raw")) == 1
    assert "<html>" in capsys.readouterr().out, "what it said can still be looked at"


def test_run_starts_with_the_agents_own_requirements_alone(repository: Path) -> None:
    """Whatever the agent imports to run is one of its own requirements, not the cloud's."""
    script = (
        "import sys, agent.app, agent.enrol, agent.status, agent.probe;"
        "print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    paths = {"PYTHONPATH": f"{repository}:{repository / 'proto'}", "PATH": os.environ["PATH"]}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=paths)
    loaded = set(found.stdout.split())
    assert not loaded & {"cloud", "simulator", "pydantic", "sqlalchemy", "fastapi", "numpy", "httpx", "psycopg", "rich"}


def test_poll_and_failsafe_load_no_grpc(repository: Path, tmp_path: Path) -> None:
    config = site(tmp_path, inventory="m1,127.0.0.1,9,luxos,S19,f1,r1,1,3000,100\n")
    script = (
        "import sys; from agent.cli import main; main(['poll', '127.0.0.1:9']);"
        f"main(['failsafe', 'status', '--config', {str(config)!r}]); print();"
        "import json; print(json.dumps(sorted(name for name in sys.modules if name.partition('.')[0] in"
        " {'grpc', 'google', 'aiomqtt', 'paho'})))"
    )
    paths = {"PYTHONPATH": f"{repository}:{repository / 'proto'}", "PATH": os.environ["PATH"]}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=paths)
    assert json.loads(found.stdout.splitlines()[-1]) == []
