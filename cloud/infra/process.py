"""Child processes that cannot outlive their parent.

Invariant: a child started here gets ``signal_number`` from the kernel the moment the starting thread's process dies,
however it dies (PR_SET_PDEATHSIG). Start children from the main thread: the kernel watches the thread, not the process.

Source: prctl(2), PR_SET_PDEATHSIG. Changing user clears it, so it is set after that.
"""

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from cloud.core.errors import Refused

# A bare interpreter that becomes the child: no code of ours runs between fork and exec, where threads make it unsafe.
_LAUNCH: Final = """
import ctypes, os, sys
death_signal, parent, uid, gid = map(int, sys.argv[1:5])
if uid >= 0:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
ctypes.CDLL(None).prctl(1, death_signal, 0, 0, 0)
if os.getppid() == parent:
    os.execv(sys.argv[5], sys.argv[5:])
"""


@dataclass(frozen=True, slots=True)
class Account:
    """An existing unprivileged account to run as."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """Return the account root lends to PostgreSQL (postgres, else nobody); None when this process is not root.

    Raises:
        Refused: root, but neither account exists.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise Refused("no_account", "PostgreSQL refuses to run as root: create an account called postgres or nobody")


def act_as_owner(folder: Path) -> None:
    """As root, become the account that owns ``folder`` for the rest of this process; anybody else stays who they are.

    So a command that root types reads, writes and connects as the service does, and leaves nothing behind that only
    root can open. A folder that is root's, or is not there yet, changes nothing.

    Raises:
        Refused: the owner has no account here, or cannot read this installation.
    """
    if os.geteuid() != 0 or not folder.exists() or (owner := folder.stat().st_uid) == 0:
        return
    try:
        entry = pwd.getpwuid(owner)
    except KeyError:
        raise Refused("no_account", f"{folder} belongs to user id {owner}, which has no account here") from None
    account = Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    if run_as(account, [sys.executable, "-c", f"open({__file__!r}).close()"]).returncode != 0:
        raise Refused(
            "closed_installation",
            f"{folder} belongs to {account.name}, who cannot read the ballast in {sys.prefix}; use one that they can",
        )
    os.initgroups(account.name, account.gid)
    os.setgid(account.gid)
    os.setuid(account.uid)


def spawn(
    command: Sequence[str | Path],
    *,
    account: Account | None = None,
    environment: Mapping[str, str] | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    output: IO[bytes] | int | None = None,
    group: bool = True,
    descriptors: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start ``command`` (its program by absolute path); it gets ``death_signal`` when this process dies.

    ``group`` gives it its own process group, so that a terminal's Ctrl-C reaches only the supervisor. It inherits
    ``descriptors`` under their numbers.
    """
    identity = ("-1", "-1") if account is None else (str(account.uid), str(account.gid))
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(int(death_signal)), str(os.getpid()), *identity]
    return subprocess.Popen(  # noqa: S603 - callers pass fixed programs and their own paths
        [*launcher, *(str(part) for part in command)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        env=None if environment is None else dict(environment),
        cwd="/" if account else None,
        process_group=0 if group else None,
        pass_fds=descriptors,
    )


def run_as(
    account: Account | None, command: Sequence[str | Path], timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` to its end as ``account`` and return its output; a missing or unreachable program is code 127."""
    try:
        return subprocess.run(  # noqa: S603 - callers pass fixed programs and their own paths
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd="/",
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"},
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=() if account else None,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(list(map(str, command)), 127, "", str(error))
