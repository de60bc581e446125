"""The failsafe starts lean: what it must not load is named here, so that no import brings a cost back unseen."""

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.local_socket import decoded, encoded, listening
from tests.architecture.source import REPOSITORY

# The command line itself parses words: no event loop, no settings, no values of the wire, none of their data classes.
NOT_AT_START = {
    *(
        "asyncio",
        "concurrent",
        "dataclasses",
        "inspect",
        "logging",
        "queue",
        "socket",
        "ssl",
        "subprocess",
        "threading",
    ),
    *("csv", "json", "sqlite3", "tomllib", "uuid", "hashlib", "platform", "sitelink"),
}
# Looking at miners needs the above, but neither the daemon, nor the link, nor cryptography for a command not given.
NOT_TO_LOOK = {
    *(
        "cryptography",
        "grpc",
        "google",
        "paho",
        "aiomqtt",
        "http",
        "email",
        "xml",
        "tempfile",
        "random",
        "unittest",
        "uuid",
        "platform",
    ),
    *("multiprocessing", "importlib.metadata"),
    *(
        "agent.app",
        "agent.daemon",
        "agent.poller",
        "agent.meter_poller",
        "agent.forwarder",
        "agent.uplink",
        "agent.enrol",
    ),
    *("agent.local_requests", "agent.local_server", "agent.doctor", "agent.at_site", "agent.discover"),
    *("pymodbus", "h11", "uvloop", "orjson"),
    *("agent.identity", "agent.buffer", "agent.sealer", "agent.probe", "agent.status", "agent.supervisor"),
    *("agent.local_curtail.executor", "agent.local_curtail.journal", "agent.local_curtail.stopping"),
}
# A living daemon does the work: asking it needs no event loop, no device, no database.
NOT_TO_ASK = NOT_TO_LOOK | {
    *("asyncio", "concurrent", "logging", "ssl", "subprocess", "threading", "queue", "sqlite3", "uuid", "hashlib"),
    *("agent.cgminer", "agent.fleet", "agent.meters", "agent.outlets", "agent.vault", "agent.storage"),
    *("agent.failsafe.alone", "agent.failsafe.direct", "agent.failsafe.ledger", "agent.local_curtail.books"),
}
ALLOWED_AT_START = ("agent", "agent.__main__", "agent.cli", "agent.errors")


def loaded(*arguments: str) -> set[str]:
    """The modules a process of its own has loaded when the command ends."""
    script = (
        "import json, sys\n"
        "bare = set(sys.modules)\n"
        "sys.argv[1:], report = json.loads(sys.argv[1]), print\n"
        "from agent.__main__ import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "report('\\n' + ' '.join(set(sys.modules) - bare))"
    )
    paths = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto'}"}
    command = [sys.executable, "-c", script, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=paths, check=True)
    return set(done.stdout.splitlines()[-1].split())


def among(names: set[str], modules: set[str]) -> set[str]:
    """Those of `modules` that are, or lie in, one of `names`."""
    return {module for module in modules if any(module == name or module.startswith(f"{name}.") for name in names)}


def test_the_command_line_starts_without_what_only_commands_need() -> None:
    modules = loaded("failsafe", "--help")
    assert among(NOT_AT_START, modules) == set()
    started = {module for module in modules if module.partition(".")[0] == "agent"}
    assert {module for module in started if not module.startswith("agent.cli.")} <= set(ALLOWED_AT_START)


def site(folder: Path) -> str:
    """Write a site of one silent miner; return its settings."""
    (folder / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\n[control]\ndevice_deadline_s = 0.5\n')
    header = "miner_id,host,port,dialect,model,feeder_id,rack,position,nameplate_w,nameplate_ths"
    (folder / "inventory.csv").write_text(f"{header}\nm1,127.0.0.1,9,luxos,S19,f1,r1,1,3000,100\n")
    return str(folder / "agent.toml")


@pytest.mark.parametrize("action", [("status",), ("off", "--all"), ("on", "--miner", "m1"), ("release",)])
def test_a_failsafe_loads_neither_the_daemon_nor_the_link(action: tuple[str, ...], tmp_path: Path) -> None:
    modules = loaded("failsafe", *action, "--config", site(tmp_path))
    assert "agent.failsafe.alone" in modules
    assert among(NOT_TO_LOOK, modules) == set()


@pytest.mark.parametrize("action", [("status",), ("off", "--all"), ("off", "--mw", "0.001"), ("release",)])
def test_a_failsafe_beside_a_living_daemon_loads_no_more_than_a_conversation_needs(
    action: tuple[str, ...], tmp_path: Path
) -> None:
    figures = {"miners": {"m1": ["hashing", 3000, 100]}, "fixed": []}
    answers = {"hello": {}, "look": {}, "override": {}, "release": {"released": ["f"]}, "figures": figures}
    (tmp_path / "state").mkdir(mode=0o700)
    door = listening(tmp_path / "state")
    door.setblocking(True)

    def answer() -> None:
        while True:
            try:
                connection, _ = door.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                asked = decoded(lines.readline())["ask"]
                connection.sendall(encoded({"result": answers[asked]}))

    threading.Thread(target=answer, daemon=True).start()
    modules = loaded("failsafe", *action, "--config", site(tmp_path))
    door.shutdown(socket.SHUT_RDWR)
    door.close()
    assert "agent.failsafe.by_daemon" in modules
    assert among(NOT_TO_ASK, modules) == set()
