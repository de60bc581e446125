"""The agent meets time, chance, threads, sockets and processes only through injected ports.

So the agent's decisions can run under a virtual clock, network and disk. An adapter module may use exactly what is
listed for it here; everything else in agent/ and sitelink may use none of it.
"""

import ast
import re

import pytest

from tests.architecture.source import Module, modules, references, strings

FORBIDDEN = (
    "time", "random", "uuid", "secrets", "socket", "threading", "multiprocessing", "concurrent", "subprocess", "signal",
    "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today",
    "os.urandom", "os.fsync", "os.fork", "os.kill", "os.getpid", "os.system",
    "asyncio.to_thread", "asyncio.open_connection", "asyncio.start_server", "asyncio.start_unix_server",
    "asyncio.open_unix_connection",
    "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell",
)  # fmt: skip
HARMLESS = {"random.Random", "socket.gaierror", "socket.timeout"}  # types to annotate with or to catch
METHODS = {
    "subprocess_exec",
    "subprocess_shell",
    "run_in_executor",
    "call_soon_threadsafe",
    "getaddrinfo",
    "create_connection",
    "create_datagram_endpoint",
}
WORLD_SQL = re.compile(
    r"\b(?:random|randomblob)\s*\(\s*\)|\b(?:date|time|datetime|julianday|unixepoch)\s*\(\s*(?:'now'|\))"
    r"|\bcurrent_(?:timestamp|time|date)\b",
    re.IGNORECASE,
)
SQL = re.compile(r"\b(?:SELECT|INSERT|UPDATE|DELETE|CREATE|VALUES)\b")
ADAPTERS = {
    "proto/sitelink/clock.py": {"time", "datetime.datetime.now"},
    "agent/exotic/reader.py": {"subprocess_exec"},
    "agent/exotic/worker.py": {"signal"},  # a program of its own
    "agent/app.py": {"os.getpid"},
    "agent/daemon.py": {"random", "uuid", "signal"},
    "agent/cli/discover.py": {"random"},
    "agent/cli/replacements.py": {"random"},
    "agent/failsafe/fence.py": {"signal"},
    "agent/failsafe/run.py": {"os.urandom"},
    "agent/local_server.py": {"asyncio.start_unix_server"},
    "agent/storage.py": {"threading", "call_soon_threadsafe", "os.fsync"},
    "agent/cgminer/client.py": {"socket"},
    "agent/cgminer/stream.py": {"socket"},
    "agent/cgminer/web.py": {"os.urandom"},
    "agent/aside.py": {"threading", "call_soon_threadsafe"},
    "agent/names.py": {"socket", "getaddrinfo"},
    "agent/lock.py": {"os.getpid"},
    "agent/local_socket.py": {"socket"},
    "agent/uplink/dial.py": {"socket"},
    "agent/enrol.py": {"socket", "secrets", "create_connection", "time"},
    "agent/identity.py": {"os.fsync"},
    "agent/files.py": {"os.fsync"},
    "agent/reserve.py": {"os.fsync"},
    "agent/vault/keys.py": {"os.urandom"},
    "agent/vault/rotation.py": {"os.urandom"},
}


def forbidden_name(full: str) -> str | None:
    """The entry of FORBIDDEN that `full` falls under."""
    if full in HARMLESS:
        return None
    return next((entry for entry in FORBIDDEN if full == entry or full.startswith(f"{entry}.")), None)


def breaches(module: Module) -> list[tuple[int, str]]:
    """(line, what) of each use of the world that no port stands before."""
    found = [(line, entry) for line, full in references(module) if (entry := forbidden_name(full))]
    found += [
        (node.lineno, node.attr)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in METHODS
    ]
    found += [
        (node.lineno, "random.Random()")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and not node.args and ast.unparse(node.func).endswith("Random")
    ]
    found += [
        (line, "SQL of the world") for line, text in strings(module) if SQL.search(text) and WORLD_SQL.search(text)
    ]
    return found


def test_only_adapters_touch_the_world():
    wrong = [
        f"{module.path}:{line} uses {what}"
        for module in modules("agent", "proto/sitelink")
        for line, what in breaches(module)
        if what not in ADAPTERS.get(module.path, set())
        and not (what == "random.Random()" and "random" in ADAPTERS.get(module.path, set()))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.monotonic()",
        "from time import sleep as nap\nnap(1)",
        "from datetime import datetime\ndatetime.now()",
        "import datetime as dt\ndt.datetime.utcnow()",
        "import random\nrandom.random()",
        "import random\nrandom.Random()",
        "import os\nos.urandom(8)",
        "import asyncio\nasyncio.to_thread(f)",
        "loop.run_in_executor(None, f)",
        "import concurrent.futures\nconcurrent.futures.ThreadPoolExecutor()",
        "q = \"SELECT datetime('now')\"",
        "q = 'SELECT random() FROM t'",
    ],
)
def test_the_scan_sees_every_way_out(source):
    assert breaches(Module("x", ast.parse(source), 2))


def test_a_seeded_generator_may_be_named_and_handed_in():
    source = "import random\ndef f(rng: random.Random) -> float:\n    return rng.random()\nrandom.Random(7)"
    assert breaches(Module("x", ast.parse(source), 2)) == []
