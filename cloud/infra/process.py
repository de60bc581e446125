"""Child processes that cannot outlive their parent.

Invariant: a child started here gets ``signal_number`` from the kernel the moment the starting thread's process dies,
however it dies (PR_SET_PDEATHSIG). Start children from the main thread: the kernel watches the thread, not the process.

Source: prctl(2), PR_SET_PDEATHSIG. Changing user clears it, so it is set after the change of user (``preexec_fn``).
"""

import ctypes
import os
import pwd
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from cloud.core.errors import Refused

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


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


def spawn(
    command: Sequence[str | Path],
    *,
    account: Account | None = None,
    environment: Mapping[str, str] | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    output: IO[bytes] | int | None = None,
    group: bool = True,
) -> subprocess.Popen[bytes]:
    """Start ``command``; it gets ``death_signal`` when this process dies.

    ``group`` gives it its own process group, so that a terminal's Ctrl-C reaches only the supervisor.
    """
    return subprocess.Popen(  # noqa: S603 - callers pass fixed programs and their own paths
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        env=None if environment is None else dict(environment),
        cwd="/" if account else None,
        process_group=0 if group else None,
        preexec_fn=_tied_to_parent(death_signal),  # noqa: PLW1509 - supervisors have one thread
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=() if account else None,
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


def _tied_to_parent(death_signal: signal.Signals) -> Callable[[], None]:
    parent = os.getpid()

    def tie() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return tie
