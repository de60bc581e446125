"""Ending a hung holder of the state lock, so that somebody else may drive its miners.

    recorded pid, boot and start --> pidfd --checked again--> SIGTERM --5 s--> SIGKILL --5 s--> lock taken, or why not

Invariants: a process is signalled through a handle taken before it was checked, so that another one under a reused pid
is never hit; nobody goes on before the lock is in hand.
"""

import os
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.errors import BadInput
from agent.lock import LOCK_NAME, Held, Holder, StateLock, holder_of

_TERM_S: Final = 5.0
_KILL_S: Final = 5.0
_TAKE_TRIES: Final = 150
_TAKE_EVERY_S: Final = 0.02


def pause(seconds: float) -> None:
    """Do nothing for ``seconds``."""
    select.select((), (), (), seconds)


def take_over(state_dir: Path, lock: StateLock, say: Callable[[str], None]) -> None:
    """End whoever holds ``lock`` and take it.

    Raises:
        BadInput: nobody noted itself, another process runs under its pid, it may not be ended, or does not end.
    """
    holder = holder_of(state_dir)
    if holder is None or not holder.lives():
        _grab(state_dir, lock, holder)
        return
    try:
        handle = os.pidfd_open(holder.pid)
    except ProcessLookupError:
        _grab(state_dir, lock, holder)
        return
    try:
        if not holder.lives():  # it ended, and its pid may be another's: the handle is not its
            _grab(state_dir, lock, holder)
            return
        _end(holder, handle, say)
    finally:
        os.close(handle)
    _grab(state_dir, lock, holder)


def _end(holder: Holder, handle: int, say: Callable[[str], None]) -> None:
    gone = select.poll()
    gone.register(handle, select.POLLIN)
    for number, patience_s in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, _KILL_S)):
        say(f"{holder}: {number.name}")
        try:
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return
        except PermissionError:
            raise BadInput(f"{holder} belongs to another user; run this as root") from None
        if gone.poll(1000 * patience_s):
            say(f"{holder}: ended")
            return
    raise BadInput(
        f"{holder} does not end: it waits inside the kernel, most likely for its disk; "
        "switch miners at their breakers, or restart this machine"
    )


def _grab(state_dir: Path, lock: StateLock, holder: Holder | None) -> None:
    """Take the lock that should be free now; its supervisor may already have started the next."""
    for _ in range(_TAKE_TRIES):
        try:
            lock.__enter__()
        except Held as held:
            if held.holder is not None and held.holder.lives() and held.holder != holder:
                raise
            pause(_TAKE_EVERY_S)
        else:
            return
    raise BadInput(
        f"{state_dir / LOCK_NAME}: held by a process that did not note itself there, so it is not ended; "
        f"find it with: lslocks | grep {LOCK_NAME}"
    )
