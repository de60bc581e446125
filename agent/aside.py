"""Blocking calls beside the event loop, on threads that nobody ever waits for.

    await the call's future, under a deadline <-- settled on the loop <-- a daemon thread <-- first come, first served

Invariant: a call that hangs (a resolver, a mount that went away) holds up neither the event loop, nor asyncio's own
pool of threads, nor the end of the process. A call whose asker has given up before its turn is not begun; one that is
under way goes on, and nobody hears its end.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

_T = TypeVar("_T")
_Task = tuple["asyncio.Future[Any]", Callable[[], Any]]


class Aside:
    """At most ``threads`` calls at a time; with one thread, they are carried out in the order they were asked."""

    def __init__(self, threads: int, name: str) -> None:
        self._asked: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._threads = threads
        self._name = name

    def run(self, call: Callable[[], _T]) -> "asyncio.Future[_T]":
        """Return what ``call`` will have returned, or raised."""
        if self._threads:
            self._threads -= 1
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()
        found: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._asked.put((found, call))
        return found

    def _serve(self) -> None:
        while True:
            _carry_out(*self._asked.get())


_DISK: Final = Aside(1, "disk")


def on_disk(call: Callable[[], _T]) -> "asyncio.Future[_T]":
    """Have ``call``, which reads or writes the state folder, done beside the loop, one after the other.

    Raises what ``call`` raises.
    """
    return _DISK.run(call)


def _carry_out(found: "asyncio.Future[Any]", call: Callable[[], Any]) -> None:
    if found.done():
        return
    try:
        outcome = call()
    except Exception as error:  # noqa: BLE001 - whatever it raises is its asker's
        _tell(found, error, failed=True)
    else:
        _tell(found, outcome, failed=False)


def _tell(found: "asyncio.Future[Any]", outcome: Any, *, failed: bool) -> None:
    def settle() -> None:
        if found.done():
            return
        if failed:
            found.set_exception(outcome)
        else:
            found.set_result(outcome)

    with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever asked
        found.get_loop().call_soon_threadsafe(settle)
