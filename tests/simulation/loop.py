"""An event loop whose time is virtual: when nothing is ready it jumps to the next timer.

Invariants: callbacks run first in, first out, as asyncio promises; timers due at one instant run in seeded order, where
it promises nothing; sets of tasks iterate alike in every interpreter; threads and sockets are refused, so a history
depends on its seed alone.
"""

import asyncio
import heapq
import random
from typing import Any


class Deadlock(Exception):
    """Nothing is ready and nothing is scheduled."""


class Spin(Exception):
    """Time does not move any more."""


class NumberedTask(asyncio.Task[Any]):
    """A task that a set keeps by its number: one hashed by its address is iterated otherwise in each interpreter."""

    def __init__(self, coroutine: Any, *, number: int, **kwargs: Any) -> None:
        self._number = number
        super().__init__(coroutine, **kwargs)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._tasks_made = 0
        self.set_task_factory(self._make_task)
        self._virtual_s = 0.0
        self._rng = rng
        self._steps_at_once = 0

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **kwargs: Any) -> NumberedTask:
        self._tasks_made += 1
        return NumberedTask(coroutine, number=self._tasks_made, loop=loop, **kwargs)

    def time(self) -> float:
        return self._virtual_s

    def _run_once(self) -> None:
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not self._ready:
            if not scheduled:
                raise Deadlock
            if scheduled[0]._when > self._virtual_s:
                self._virtual_s, self._steps_at_once = scheduled[0]._when, 0
        self._steps_at_once += 1
        if self._steps_at_once > 10_000:
            raise Spin
        due = []
        while scheduled and scheduled[0]._when <= self._virtual_s:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            due.append(handle)
        if len(due) > 1:
            self._rng.shuffle(due)
        self._ready.extend(due)
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _timer_handle_cancelled(self, handle: Any) -> None:
        pass

    def _process_events(self, event_list: Any) -> None:
        raise AssertionError("a virtual loop has no sockets")

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, *args: Any) -> Any:
        raise AssertionError("a history must not use threads")

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a history must not use threads")

    def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a history must not use the network")


def run(main: Any, rng: random.Random) -> Any:
    loop = VirtualLoop(rng)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()
