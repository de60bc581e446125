"""What the architecture tests read: the repository's modules as syntax trees."""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = ("agent", "cloud", "simulator", "verifier", "proto/sitelink")
OTHER = ("proto/build_hook.py", "scripts", "tests")


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file: its path from the repository's root and its tree."""

    path: str
    tree: ast.Module
    lines: int


@cache
def modules(*roots: str) -> tuple[Module, ...]:
    """Every hand-written module under `roots`, generated stubs left out."""
    found = []
    for root in roots:
        place = REPOSITORY / root
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            if "_pb2" not in path.name and "__pycache__" not in path.parts:
                text = path.read_text("utf-8")
                found.append(Module(str(path.relative_to(REPOSITORY)), ast.parse(text), text.count("\n")))
    return tuple(found)


def shipped() -> tuple[Module, ...]:
    """Every module of the two wheels."""
    return modules(*SHIPPED)


def imported_names(tree: ast.Module) -> dict[str, str]:
    """Local name -> full dotted name, for every import anywhere in the module."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name.partition(".")[0]
                names[local] = alias.name if alias.asname else local
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str | None:
    """The full dotted name that a Name or Attribute chain stands for, or None."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        left = dotted(node.value, names)
        return f"{left}.{node.attr}" if left else None
    return None


def references(module: Module) -> Iterator[tuple[int, str]]:
    """(line, full dotted name) of each imported thing the module uses, longest chain first."""
    names = imported_names(module.tree)
    inner: set[int] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in inner:
            full = dotted(node, names)
            if full:
                yield node.lineno, full
                left = node
                while isinstance(left, ast.Attribute):
                    inner.add(id(left.value))
                    left = left.value


def strings(module: Module) -> Iterator[tuple[int, str]]:
    """(line, text) of every string constant, the constant parts of f-strings included."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def tracked_files() -> tuple[Path, ...]:
    """Every file git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return tuple(REPOSITORY / name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file())
