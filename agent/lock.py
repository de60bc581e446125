"""One agent per ``state_dir``: a file lock that dies with its process."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.errors import BadInput


class StateLock:
    """Held for as long as the ``with`` block runs; the kernel lets go when the process dies."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "agent.lock"
        self._handle: int | None = None

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            BadInput: another agent holds it, or the folder cannot be written.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BadInput(
                f"{self._path}: cannot be written: {error.strerror}; check [site] state_dir and its permissions"
            ) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise BadInput(
                f"{self._path}: another agent runs on this state_dir; stop it, or give this one its own"
            ) from None
        self._handle = handle
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def is_held(state_dir: Path) -> bool:
    """Return whether an agent runs on ``state_dir`` now. Changes nothing."""
    try:
        handle = os.open(state_dir / "agent.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
