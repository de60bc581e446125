"""A device's turn is held by one at a time, waited for under a deadline, and not at all behind a transfer."""

import asyncio

import pytest

from agent.cgminer.turn import Turn
from agent.errors import SessionBusy

pytestmark = pytest.mark.agent


def turn(limit_s: float = 0.05) -> Turn:
    return Turn(lambda: "10.0.0.9:4028", limit_s)


async def test_the_turn_goes_round_in_the_order_of_asking() -> None:
    held, seen = turn(5.0), list[int]()

    async def ask(number: int) -> None:
        async with held:
            seen.append(number)
            await asyncio.sleep(0)
            seen.append(number)

    await asyncio.gather(*(ask(number) for number in range(4)))
    assert seen == [0, 0, 1, 1, 2, 2, 3, 3]


async def test_who_waits_too_long_gives_up_and_the_turn_goes_on_to_the_next() -> None:
    held = turn()

    async def ask() -> str:
        async with held:
            return "asked"

    async with held:
        with pytest.raises(SessionBusy, match=r"10\.0\.0\.9:4028: other requests of ours took more than 0\.05 s"):
            await ask()
        waiting = asyncio.create_task(ask())
        await asyncio.sleep(0)
    assert await waiting == "asked"
    assert await ask() == "asked"


async def test_nobody_waits_for_a_transfer_and_it_ends() -> None:
    held = turn(60.0)

    async def ask() -> str:
        async with held:
            return "asked"

    async with held:
        early = asyncio.create_task(ask())
        await asyncio.sleep(0)
        held.transfer()
        with pytest.raises(SessionBusy, match="a transfer of ours is under way"):
            await early
        with pytest.raises(SessionBusy, match="a transfer of ours is under way"):
            await ask()
    assert await ask() == "asked"


@pytest.mark.parametrize("at_the_last_moment", [False, True])
async def test_one_who_is_called_off_takes_no_turn_with_him(at_the_last_moment: bool) -> None:
    held = turn(5.0)

    async def ask() -> str:
        async with held:
            return "asked"

    async with held:
        called_off, next_one = asyncio.create_task(ask()), asyncio.create_task(ask())
        await asyncio.sleep(0)
        if not at_the_last_moment:
            called_off.cancel()
            await asyncio.sleep(0)
    if at_the_last_moment:
        called_off.cancel()  # the turn has just been passed to him
    async with asyncio.timeout(1.0):
        assert await next_one == "asked"
        assert await ask() == "asked"
    assert called_off.cancelled()


async def test_a_turn_given_up_by_an_error_goes_on() -> None:
    held = turn()
    with pytest.raises(ValueError, match="broken"):
        async with held:
            raise ValueError("broken")
    async with held:
        pass
