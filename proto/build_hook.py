"""Generates the wire stubs beside their .proto files: the wheel's build hook, and `make gen`.

Invariants: the same code runs for the wheel, for `make gen` and for `make check`; a file is rewritten only when
its content changes; a stub without its .proto is removed; nothing generated is ever committed.

    sitelink/v1/link.proto -> link_pb2.py, link_pb2.pyi, link_pb2_grpc.py     (imported as sitelink.v1.link_pb2)
"""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTO_ROOT = Path(__file__).resolve().parent
REPOSITORY = PROTO_ROOT.parent
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")


class StubHook(BuildHookInterface):
    """Generates the stubs, then puts the two packages of the agent's wheel into it."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Run before the wheel is packed; an editable install finds the packages by path instead."""
        write_stubs()
        if version != "editable":
            build_data["force_include"][str(REPOSITORY / "agent")] = "agent"
            build_data["force_include"][str(PROTO_ROOT / "sitelink")] = "sitelink"


def generate() -> dict[Path, bytes]:
    """Return every generated file as {path relative to proto/: content}.

    Raises: RuntimeError when protoc refuses a .proto file (it has then printed file and line).
    """
    from grpc_tools import protoc

    sources = sorted(str(path.relative_to(PROTO_ROOT)) for path in PROTO_ROOT.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        includes = [f"-I{PROTO_ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
        if protoc.main(["protoc", *includes, *outputs, *sources]) != 0:
            raise RuntimeError("protoc refused a .proto file; mend the line it named above")
        made = (path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder): path.read_bytes() for path in made}


def stale(made: dict[Path, bytes]) -> list[Path]:
    """Return what differs between `made` and the tree, orphans included, relative to proto/."""
    found = {path.relative_to(PROTO_ROOT) for pattern in GENERATED for path in PROTO_ROOT.rglob(pattern)}
    changed = {
        path for path in made if not (PROTO_ROOT / path).is_file() or (PROTO_ROOT / path).read_bytes() != made[path]
    }
    return sorted(changed | (found - made.keys()))


def write_stubs() -> list[Path]:
    """Bring the tree up to date and return the paths that changed."""
    made = generate()
    changed = stale(made)
    for path in changed:
        if path in made:
            (PROTO_ROOT / path).write_bytes(made[path])
        else:
            (PROTO_ROOT / path).unlink()
    return changed


def main(arguments: list[str]) -> int:
    """`build_hook.py` writes the stubs; `build_hook.py --check` only says whether they are fresh."""
    if arguments == ["--check"]:
        old = stale(generate())
        for path in old:
            print(
                f"proto/{path}: differs from its .proto file; run `make gen`",
                file=sys.stderr,
            )
        return 1 if old else 0
    for path in write_stubs():
        print(f"generated proto/{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
