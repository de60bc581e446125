"""A LuxOS session that our logoff did not end is ours to use again; anybody else's is not."""

from contextlib import suppress

import pytest

from agent.cgminer.client import Address
from agent.cgminer.control import HeldInMemory, MinerControl, Wanted
from agent.cgminer.control.drivers import driver_of
from agent.cgminer.device import Device
from agent.errors import AgentError, SessionBusy
from sitelink.clock import ManualClock
from sitelink.types import MinerState, Verb
from tests.contract.control.rpc_fakes import LuxOs, device_at
from tests.contract.fake_miner import serving
from tests.contract.simulator.world import NOON, site

pytestmark = pytest.mark.agent

STOP, START = Wanted(Verb.STOP), Wanted(Verb.START)


async def test_a_start_follows_a_stop_whose_logoff_was_answered_and_not_done() -> None:
    clock = ManualClock(NOON)
    async with site(1, clock=clock, dialects=("luxos",)) as opened:
        (miner,) = opened.miners.values()
        place = miner.place
        device = Device(Address(place.host, place.port), "luxos", clock, miner_id=place.miner_id)
        control = MinerControl(device, place.miner_id, HeldInMemory())
        await opened.set_fault(place.miner_id, "stuck_session")
        await control.stop()
        clock.advance(20)
        assert (await control.observe()).state is MinerState.IDLE
        await control.start()
        clock.advance(30)
        assert (await control.observe()).state is MinerState.HASHING
        device.close()


async def ordered(miner: LuxOs, *wanted: Wanted, between=lambda: None) -> None:
    driver = driver_of("luxos")
    assert driver is not None
    async with serving(miner.miner.speak) as address:
        device = device_at(address, "luxos")
        for each in wanted:
            await driver.send(device, each, "")
            between()


def deaf_to_logoff(miner: LuxOs) -> None:
    miner.miner.answers["logoff"] = b"not a document"


async def test_a_session_whose_logoff_went_unanswered_is_tried_before_a_new_one() -> None:
    miner = LuxOs()
    deaf_to_logoff(miner)
    await ordered(miner, STOP, START)
    assert miner.told == ["curtail sleep", "curtail wakeup"]
    assert miner.miner.commands() == ["logon", "curtail", "logoff", "session", "curtail", "logoff"]


async def test_a_session_left_open_that_has_expired_gives_way_to_a_new_one() -> None:
    miner = LuxOs()
    deaf_to_logoff(miner)

    def expires() -> None:
        miner.session = ""

    await ordered(miner, STOP, START, between=expires)
    assert miner.miner.commands()[3:6] == ["session", "logon", "curtail"]
    assert miner.told == ["curtail sleep", "curtail wakeup"]


async def test_a_session_that_somebody_opened_after_ours_is_theirs() -> None:
    miner = LuxOs()
    deaf_to_logoff(miner)

    def taken() -> None:
        miner.session = "theirs"

    with pytest.raises(SessionBusy):
        await ordered(miner, STOP, START, between=taken)
    assert (miner.told, miner.session) == (["curtail sleep"], "theirs")


async def test_an_order_cut_off_under_its_session_leaves_it_for_the_next() -> None:
    miner = LuxOs()
    driver = driver_of("luxos")
    assert driver is not None
    async with serving(miner.miner.speak) as address:
        device = device_at(address, "luxos")
        deaf_to_logoff(miner)
        works, miner.miner.answers["curtail"] = miner.miner.answers["curtail"], b""
        with suppress(AgentError):
            await driver.send(device, STOP, "")
        miner.miner.answers["curtail"] = works
        await driver.send(device, STOP, "")
    assert miner.told == ["curtail sleep"]
