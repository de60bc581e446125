"""Folders of ours: made when missing, and held by one process at a time.

Invariant: a hold ends with the process that took it, however it ends (flock); it touches nothing but ``lock``.
"""

import fcntl
import pwd
from pathlib import Path
from typing import IO

from cloud.core.errors import Refused


def make(folder: Path) -> None:
    """Make ``folder`` and its parents where they are missing.

    Raises:
        Refused: it is no folder, or cannot be made.
    """
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    except FileExistsError:
        raise Refused("no_folder", f"{folder}: not a folder; choose another data_dir") from None
    except OSError as error:
        raise Refused("no_folder", f"{error.filename}: {error.strerror}; choose another data_dir") from None


def hold(folder: Path) -> IO[bytes]:
    """Make ``folder`` and return the hold on it; closing that lets go.

    Raises:
        Refused: another process holds it, or this account may not.
    """
    make(folder)
    path = folder / "lock"
    try:
        lock = path.open("ab")
    except OSError as error:
        owner = account_name(folder.stat().st_uid)
        raise Refused("foreign_folder", f"{path}: {error.strerror}; run ballast as {owner}, who owns it") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise Refused(
            "already_running", f"another ballast runs on {folder}; stop it, or choose another data_dir"
        ) from None
    return lock


def account_name(uid: int) -> str:
    """Return the name of an account, or its number where it has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"
