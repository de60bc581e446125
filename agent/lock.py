"""One owner per ``state_dir``: a file lock that dies with its process, and a note on who holds it.

    agent.lock   flock      the kernel's word on whether somebody holds it: this alone counts
                 its text   {"pid", "boot_id", "started", "role"}: whom to ask, or to end; a hint that may be stale

Invariants: a process is known by its pid, its boot and the instant it started, so that another one that was given the
same pid later is never taken for it; the note is written in place in one block, so that a full disk does not keep it
from being written; whoever cannot write it still holds the lock.
"""

import errno
import fcntl
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from agent.errors import BadInput
from agent.files import give_to_owner

DAEMON: Final = "daemon"
FAILSAFE: Final = "failsafe"
LOCK_NAME: Final = "agent.lock"
_TAKES_NOTHING: Final = {errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES}
_NOTE_BYTES: Final = 256
_PROCESSES: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that noted itself in the lock file. ``started`` is in clock ticks since its boot."""

    pid: int
    boot_id: str
    started: int
    role: str

    def lives(self) -> bool:
        """Return whether this very process runs now, not another one under its pid."""
        return self.boot_id == _boot_id() and started_at(self.pid) == self.started

    def age_s(self, uptime_s: float) -> float:
        """Return for how long it has run, ``uptime_s`` after boot."""
        return uptime_s - self.started / os.sysconf("SC_CLK_TCK")

    def __str__(self) -> str:
        return f"{self.role}, process {self.pid}"


class Held(BadInput):
    """The lock is held by another process; ``holder`` is who noted itself, None when nobody did."""

    def __init__(self, message: str, holder: Holder | None) -> None:
        super().__init__(message)
        self.holder = holder


class Unlockable(BadInput):
    """There is no lock and none can be made: no daemon holds one, and none can start on this disk."""


class StateLock:
    """Held for as long as the ``with`` block runs; the kernel lets go when the process dies."""

    def __init__(self, state_dir: Path, role: str = DAEMON, waits: Callable[[Holder], None] | None = None) -> None:
        """``waits``: a failsafe that holds the lock is waited for, once that is told."""
        self._path = state_dir / LOCK_NAME
        self._role = role
        self._waits = waits
        self._handle: int | None = None

    def __enter__(self) -> Self:
        """Take the lock; one that is held already stays held.

        Raises:
            Held: another process holds it.
            BadInput: the folder cannot be written, nor an existing lock be read.
        """
        if self._handle is not None:
            return self
        handle = self._open()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = holder_of(self._path.parent)
            if self._waits is not None and holder is not None and holder.role == FAILSAFE and holder.lives():
                self._waits(holder)
                fcntl.flock(handle, fcntl.LOCK_EX)
                return self._taken(handle)
            os.close(handle)
            whose = "agent" if holder is None or holder.role == DAEMON else holder.role
            raise Held(
                f"{self._path}: another {whose} runs on this state_dir; stop it, or give this one its own", holder
            ) from None
        return self._taken(handle)

    def _taken(self, handle: int) -> Self:
        self._handle = handle
        self._note(handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _open(self) -> int:
        folder = self._path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if self._role == FAILSAFE and error.errno in _TAKES_NOTHING:
                return self._read_only(error)
            raise BadInput(
                f"{self._path}: cannot be written: {error.strerror}; check [site] state_dir and its permissions"
            ) from None
        with suppress(OSError):  # what cannot be given away stays root's; the doctor names it
            give_to_owner(self._path, handle)
        return handle

    def _read_only(self, cause: OSError) -> int:
        """Return a handle on an existing lock of a disk that takes nothing: it can be locked all the same."""
        try:
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Unlockable(f"{self._path}: {cause.strerror}; going on without a lock") from None
        except OSError as error:
            raise BadInput(f"{self._path}: cannot be read: {error.strerror}; run this as root") from None

    def _note(self, handle: int) -> None:
        pid = os.getpid()
        note = json.dumps(asdict(Holder(pid, _boot_id(), started_at(pid) or 0, self._role)))
        try:
            os.pwrite(handle, note.encode().ljust(_NOTE_BYTES - 1) + b"\n", 0)
        except OSError:
            return  # a read-only or full disk: the lock holds all the same


def is_held(state_dir: Path) -> bool:
    """Return whether a process holds the lock of ``state_dir`` now. Changes nothing."""
    try:
        handle = os.open(state_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def holder_of(state_dir: Path) -> Holder | None:
    """Return who noted itself last as holding the lock, None when there is no such note. Whether it lives is open."""
    try:
        with (state_dir / LOCK_NAME).open("rb") as file:
            fields = json.loads(file.read(_NOTE_BYTES))
        return Holder(int(fields["pid"]), str(fields["boot_id"]), int(fields["started"]), str(fields["role"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def started_at(pid: int) -> int | None:
    """Return when process ``pid`` started, in clock ticks since boot; None when there is no such process.

    Source: proc_pid_stat(5), field 22. The second field, the name in brackets, may itself hold spaces and brackets.
    """
    try:
        text = (_PROCESSES / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _boot_id() -> str:
    try:
        return (_PROCESSES / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
