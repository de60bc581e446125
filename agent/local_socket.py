"""The daemon's door at the site: a unix socket in ``state_dir`` that only its own user and root may use.

    failsafe --one request, one JSON line--> daemon --progress lines, then {"result"} or {"error"}--> failsafe

Invariants: one request a connection; a line has a cap; whoever connects is asked for by the kernel (SO_PEERCRED), not
by what it says; the path given to the kernel is always short, since a long ``state_dir`` is reached through its open
folder. A client that hears nothing for ``SILENCE_S`` takes the daemon for hung: while it works, it says so each second.
"""

import json
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from agent.errors import Permanent, TimedOut, Unreachable

SOCKET_NAME: Final = "agent.sock"
SILENCE_S: Final = 3.0
BEAT_S: Final = 1.0
NOT_KNOWN: Final = (
    "the running daemon does not know it, its row is newer than the daemon: systemctl restart ballast-agent, then say "
    "this again"
)
HUNG: Final = "hung"
"""The code of an error by which a daemon says of itself that it cannot go on."""
CAP_BYTES: Final = 2 * 1024 * 1024
"""A line may name ten thousand miners by ids of 48 characters each, and then some."""
_PATH_BYTES: Final = 100
"""The kernel takes 107; some tools that look at sockets take less."""
_BACKLOG: Final = 16
_CREDENTIALS: Final = struct.Struct("3i")


class Garbage(Permanent):
    """A line that is no JSON object, or longer than its cap."""


def encoded(document: Mapping[str, Any]) -> bytes:
    """Return ``document`` as one line."""
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def decoded(line: bytes) -> Mapping[str, Any]:
    """Return the JSON object on one line. Raises Garbage."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        raise Garbage("the line is no JSON object; send one object a line") from None
    if not isinstance(document, dict):
        raise Garbage("the line is no JSON object; send one object a line")
    return document


def listening(state_dir: Path) -> socket.socket:
    """Return a socket that listens in ``state_dir``; the caller holds the lock, so an older one there is stale.

    Raises:
        OSError: the folder takes no socket.
    """
    path_there = state_dir / SOCKET_NAME
    with suppress(FileNotFoundError):
        if path_there.is_dir() and not path_there.is_symlink():
            path_there.rmdir()
        else:
            path_there.unlink()
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(door.fileno(), 0o600)  # before it has a name: nobody else can come in between
        with _short_path(state_dir) as path:
            door.bind(path)
        (state_dir / SOCKET_NAME).chmod(0o600)
        door.listen(_BACKLOG)
        door.setblocking(False)
    except OSError:
        door.close()
        raise
    return door


def peer_uid(connection: socket.socket) -> int:
    """Return the user at the other end, as the kernel knows it."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(packed)[1])


def welcome(uid: int) -> bool:
    """Return whether ``uid`` may speak to this process: its own user and root."""
    return uid in {0, os.geteuid()}


class Conversation:
    """One request to the daemon and what it answers, for a caller that has nothing else to do meanwhile."""

    def __init__(self, state_dir: Path, silence_s: float = SILENCE_S) -> None:
        """Connect.

        Raises:
            Unreachable: nobody listens there, or this user may not come in.
            TimedOut: somebody listens and takes nobody in.
            Permanent: a stranger listens there.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._left = b""
        self._silence_s = silence_s
        self._socket.settimeout(silence_s)
        try:
            self._connect(state_dir)
        except BaseException:
            self._socket.close()
            raise

    def ask(self, request: Mapping[str, Any], beat: Callable[[], None] = lambda: None) -> Iterator[Mapping[str, Any]]:
        """Send ``request`` and yield each answer until the last, which holds "result" or "error".

        ``beat`` is called about each second meanwhile, whenever the daemon says that it lives.

        Raises:
            TimedOut: nothing was heard for ``silence_s``.
            Unreachable: the daemon ended meanwhile.
            Garbage: what it says cannot be read.
        """
        try:
            self._socket.sendall(encoded(request))
            while True:
                answer = decoded(self._line())
                if "beat" in answer:
                    beat()
                    continue
                yield answer
                if "result" in answer or "error" in answer:
                    return
        except TimeoutError:
            raise TimedOut(f"the daemon says nothing for {self._silence_s:g} s") from None
        except OSError as error:
            raise Unreachable(f"the daemon went away: {error.strerror}") from None

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _connect(self, state_dir: Path) -> None:
        try:
            with _short_path(state_dir) as path:
                self._socket.connect(path)
        except (TimeoutError, BlockingIOError):
            raise TimedOut("the daemon takes no connection") from None
        except PermissionError:
            raise Unreachable(
                f"{state_dir / SOCKET_NAME}: this user may not speak to the daemon; be root or the daemon's user"
            ) from None
        except OSError as error:
            raise Unreachable(f"{state_dir / SOCKET_NAME}: nobody listens: {error.strerror}") from None
        owner = state_dir.stat().st_uid
        if peer_uid(self._socket) not in {0, os.geteuid(), owner}:
            raise Permanent(f"{state_dir / SOCKET_NAME}: a stranger listens there; look who with: ss -xlp")

    def _line(self) -> bytes:
        while b"\n" not in self._left:
            if len(self._left) > CAP_BYTES:
                raise Garbage("the daemon's answer is longer than its cap")
            received = self._socket.recv(65536)
            if not received:
                raise Unreachable("the daemon hung up before it had answered")
            self._left += received
        line, _, self._left = self._left.partition(b"\n")
        return line


@contextmanager
def _short_path(state_dir: Path) -> Iterator[str]:
    """Yield a path of the socket that the kernel takes, however deep ``state_dir`` lies."""
    path = str(state_dir / SOCKET_NAME)
    if len(os.fsencode(path)) < _PATH_BYTES:
        yield path
        return
    folder = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET_NAME}"
    finally:
        os.close(folder)
