"""Keeps one task going: what fails is logged and started again, and takes nothing else down."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn

from agent.backoff import Backoff
from agent.errors import Transient

_LOG: Final = logging.getLogger(__name__)


async def supervised(
    name: str, work: Callable[[], Coroutine[Any, Any, None]], backoff: Backoff, steady_s: float = 60.0
) -> NoReturn:
    """Run ``work`` for ever, again after each failure. It works again once it has run for ``steady_s``.

    Cancellation and ``StorageLost`` pass through: the first is an order, after the second nothing may go on.
    """
    told = ""

    def steady() -> None:
        nonlocal told
        backoff.succeeded()
        if told:
            _LOG.info("%s: works again", name)
        told = ""

    while True:
        cause = "it ended by itself"
        failure: Exception | None = None
        try:
            await apart(work(), steady, steady_s)
        except Exception as error:  # noqa: BLE001 - this is the task supervisor
            failure, cause = error, f"{type(error).__name__}: {error}"
        wait_s = backoff.failed()
        if cause != told:
            _LOG.error("%s: %s; starting it again until it works", name, cause, exc_info=failure)
            told = cause
        await asyncio.sleep(wait_s)


async def apart(
    work: Coroutine[Any, Any, None], steady: Callable[[], None] = lambda: None, steady_s: float | None = None
) -> None:
    """Run ``work`` in a task of its own, so that an error of its cannot hide our being cancelled, or feign it.

    ``cancelling()`` of the task that hosted a failed TaskGroup stays raised for good on Python 3.11, so whether a
    cancellation was meant for us can only be told in a task that hosts none. ``steady`` is called once ``work`` has
    run for ``steady_s``.

    Raises:
        Transient: something inside cancelled the work, though nobody cancelled us.
    """
    inner = asyncio.create_task(work)
    try:
        if not (await asyncio.wait({inner}, timeout=steady_s))[0]:
            steady()
        await inner
    except BaseException as error:
        await _end(inner)
        task = asyncio.current_task()
        cancelled = task is not None and task.cancelling() > 0
        if isinstance(error, Exception) and cancelled:
            raise asyncio.CancelledError from error
        if isinstance(error, asyncio.CancelledError) and not cancelled:
            raise Transient("it was cancelled from within") from error
        raise


async def _end(task: asyncio.Task[None]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # seen: the caller raises what counts
