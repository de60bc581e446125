"""The daemon's event loop waits for no disk: what reads or writes files there is handed to a thread beside it."""

import ast

import pytest

from tests.architecture.source import Module, dotted, imported_names, modules

OTHERS = ("agent/cli/", "agent/failsafe/", "agent/doctor/")  # programs of their own, which do one thing at a time
BLOCKING = ("agent.files.", "agent.status.write_status", "os.fsync", "fcntl.flock", "tomllib.load")
# Methods by name: those of files and folders, and those of ours that change a file with a lock and an fsync.
METHODS = {"read_bytes", "read_text", "write_bytes", "write_text", "mkdir", "rename", "propose", "save"}
VAULT = {"put", "remove", "settle", "forget", "rekey", "refresh"}


def waits(module: Module) -> list[tuple[int, str]]:
    """(line, call) of what an async function does itself though it may wait for a disk."""
    names, found = imported_names(module.tree), []
    for function in ast.walk(module.tree):
        if isinstance(function, ast.AsyncFunctionDef):
            found += [
                (node.lineno, ast.unparse(node.func))
                for node in ast.walk(function)
                if isinstance(node, ast.Call) and blocks(node.func, names)
            ]
    return found


def blocks(called: ast.expr, names: dict[str, str]) -> bool:
    """Whether a call of it may wait for a disk."""
    full = dotted(called, names)
    if (full is not None and full.startswith(BLOCKING)) or (isinstance(called, ast.Name) and called.id == "open"):
        return True
    if not isinstance(called, ast.Attribute):
        return False
    holder = ast.unparse(called.value)
    return called.attr in METHODS or (called.attr in VAULT and holder.endswith("vault"))


def test_no_task_of_the_daemon_waits_for_a_disk() -> None:
    wrong = [
        f"{module.path}:{line} calls {what}; hand it to agent.aside"
        for module in modules("agent")
        if not module.path.startswith(OTHERS)
        for line, what in waits(module)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "call",
    [
        "open('x')",
        "path.read_bytes()",
        "replace_file(path, b'')",
        "files.append_line(path, b'')",
        "self._vault.settle('m1', taken=True)",
        "vault.refresh()",
        "learned.save(folder)",
        "write_status(path, status)",
    ],
)
def test_the_scan_sees_a_wait(call: str) -> None:
    source = (
        "from agent import files\nfrom agent.files import replace_file\nfrom agent.status import write_status\n"
        f"async def f(self):\n    {call}"
    )
    assert waits(Module("x", ast.parse(source), 1))
