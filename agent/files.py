"""Files that are replaced whole or not at all, by one process at a time.

    bytes --> PATH.new (fsync) --> renamed over PATH --> folder fsync

Invariant: whoever reads ``PATH``, at any moment and after any crash, finds the old bytes or the new ones, whole.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
LIST_BYTES: Final = 64 * 2**20
"""No list of a site is longer: ten thousand miners take two."""
_NO_FILE: Final = (errno.EINVAL, "it is a pipe or a device")
_FOLDER: Final = (errno.EISDIR, os.strerror(errno.EISDIR))
_STEPS: Final = {
    errno.EINVAL: "save what it gives as a file, and give that one",
    errno.ENOENT: "its folder or the file is not there: make it, or give another path",
    errno.ENOTDIR: "a part of the path is no folder: give another path",
    errno.EISDIR: "it is a folder: give a file in it",
    errno.EACCES: "this user may not: be root, or the user that it belongs to",
    errno.EPERM: "this user may not: be root, or the user that it belongs to",
    errno.ENOSPC: "the disk is full: free some space, then say this again",
    errno.EDQUOT: "the disk is full: free some space, then say this again",
    errno.EROFS: "the disk takes no writing: mount it for writing, or give another path",
    errno.EFBIG: "is it the right file? if so, cut it in parts",
}


def write_new(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Write ``content`` durably to a file that must not be there yet.

    Raises:
        FileExistsError: it is there. OSError: the disk takes nothing.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)  # half a file would be in the next try's way
        raise


def read_whole(path: Path, cap_bytes: int = LIST_BYTES) -> bytes:
    """Return what a file of at most ``cap_bytes`` holds.

    A pipe or device is not waited for: it is none.

    Raises:
        OSError: it cannot be read; of EINVAL when it is no file, of EFBIG when it is longer.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = os.fstat(handle).st_mode
        if not stat.S_ISREG(kind):
            raise OSError(*_FOLDER if stat.S_ISDIR(kind) else _NO_FILE)
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(cap_bytes + 1)
    finally:
        os.close(handle)
    if len(content) > cap_bytes:
        raise OSError(errno.EFBIG, f"longer than {cap_bytes // 2**20} MiB")
    return content


def next_step(error: OSError) -> str:
    """Return what a person can do about a file that could not be read or written."""
    return _STEPS.get(error.errno or 0, "look who may read and write there, and at the disk: dmesg | tail")


def replace_file(path: Path, content: bytes, mode: int = PRIVATE, *, durable: bool = True) -> None:
    """Write ``content`` to ``path`` in one step. As root, the file goes to the owner of its folder.

    So that what an operator changes with sudo stays readable for the service. ``durable`` False is for what is worth
    nothing after a reboot: nobody waits for the disk.

    Raises:
        OSError: the disk takes nothing; what was there stays.
    """
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(file.fileno(), mode)
        give_to_owner(path, file.fileno())
        file.write(content)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    fresh.rename(path)
    if durable:
        sync_folder(path.parent)


def append_line(path: Path, line: bytes, mode: int = PRIVATE) -> None:
    """Add one line, without its end, to the file at ``path`` durably. A line cut off by a crash is ended first.

    Raises:
        OSError: the disk takes nothing.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "r+b") as file:
        give_to_owner(path, file.fileno())
        if file.seek(0, os.SEEK_END) > 0:
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals inside ``folder`` durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Hold ``PATH.lock`` for as long as the block runs; the kernel lets go when the process dies.

    Raises:
        BlockingIOError: another process holds it. OSError: the folder takes no file.
    """
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        give_to_owner(path, handle)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def give_to_owner(path: Path, handle: int | None = None) -> None:
    """Give what root made at ``path``, open as ``handle`` or not, to whom its folder belongs: the service writes it.

    Raises:
        OSError: it cannot be given away.
    """
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path if handle is None else handle, owner.st_uid, owner.st_gid)
