"""Told to end the agent's process ends, whatever hangs in it."""

import asyncio
import signal
import sys

import pytest

HANGS = """
import asyncio, sys
from agent import daemon

async def main():
    daemon._end_when_told()
    print("up", flush=True)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("told", flush=True)

daemon._ENDS_WITHIN_S = float(sys.argv[1])
asyncio.run(main())
"""


@pytest.mark.parametrize(("within_s", "signals"), [(0.2, [signal.SIGTERM]), (60.0, [signal.SIGTERM, signal.SIGINT])])
async def test_one_in_which_something_hangs_leaves_in_its_time_or_at_the_second_word(
    within_s: float, signals: list[signal.Signals]
) -> None:
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", HANGS, str(within_s)], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"up\n"
        for number in signals:
            process.send_signal(number)
            if number is signals[0]:
                assert await process.stdout.readline() == b"told\n"
        _, said = await process.communicate()
    assert process.returncode == 1
    assert b"did not end" in said
    assert b"Task-1" in said, "who hangs is named"
