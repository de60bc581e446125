"""Blocking calls beside the loop: few at a time, in their order, and not begun for nobody."""

import asyncio
import threading
from functools import partial

import pytest

from agent.aside import Aside


async def test_calls_are_few_and_one_that_is_given_up_is_not_begun() -> None:
    enough = threading.Event()
    begun: list[int] = []

    def slow(number: int) -> int:
        begun.append(number)
        enough.wait(30)
        return number

    aside = Aside(16, "test")
    found = [aside.run(partial(slow, number)) for number in range(40)]
    for future in found[-20:]:
        future.cancel()
    enough.set()
    assert await asyncio.gather(*found[:20]) == list(range(20))
    # Whatever was given up stood in the queue before this one, so it has been passed over.
    await aside.run(partial(slow, 40))
    assert set(begun) == {*range(20), 40}


async def test_one_thread_keeps_the_order() -> None:
    done: list[int] = []
    aside = Aside(1, "test")
    await asyncio.gather(*(aside.run(partial(done.append, number)) for number in range(100)))
    assert done == list(range(100))


async def test_what_a_call_raises_is_its_askers_and_ends_no_thread() -> None:
    aside = Aside(1, "test")
    with pytest.raises(ZeroDivisionError):
        await aside.run(lambda: 1 / 0)
    assert await aside.run(lambda: 7) == 7


def test_a_call_that_hangs_holds_up_no_end() -> None:
    enough, ended = threading.Event(), threading.Event()

    def hang() -> None:
        enough.wait(30)
        ended.set()

    async def ask() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Aside(1, "test").run(hang), 0.05)

    asyncio.run(ask())
    assert not ended.is_set()
    enough.set()
    assert ended.wait(30)
