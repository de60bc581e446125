"""Keeps one task going: what fails is logged and started again, and takes nothing else down."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn

from agent.backoff import Backoff
from sitelink.clock import Clock

_LOG: Final = logging.getLogger(__name__)
_STEADY_S: Final = 60.0


async def supervised(
    name: str, work: Callable[[], Coroutine[Any, Any, None]], backoff: Backoff, clock: Clock
) -> NoReturn:
    """Run ``work`` for ever, again after each failure.

    Cancellation and ``StorageLost`` pass through: the first is an order, after the second nothing may go on.
    """
    while True:
        started_mono = clock.monotonic()
        cause = "it ended by itself"
        failure: Exception | None = None
        try:
            await apart(work())
        except Exception as error:  # noqa: BLE001 - this is the task supervisor
            failure, cause = error, f"{type(error).__name__}: {error}"
        if clock.monotonic() - started_mono >= _STEADY_S:
            backoff.succeeded()
        first = backoff.failures == 0
        wait_s = backoff.failed()
        _LOG.error("%s: %s; starting it again in %.1f s", name, cause, wait_s, exc_info=failure if first else None)
        await asyncio.sleep(wait_s)


async def apart(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` in a task of its own, so that an error of its cannot hide our being cancelled.

    ``cancelling()`` of the task that hosted a failed TaskGroup stays raised for good on Python 3.11, so whether a
    cancellation was meant for us can only be told in a task that hosts none.
    """
    inner = asyncio.create_task(work)
    try:
        await inner
    except Exception as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from error
        raise
