"""LuxOS's sleep and a reboot: its vendor has written that a reboot ends it and that it outlives one; both are met."""

import pytest

from agent.cgminer.client import Address
from agent.cgminer.control import HeldInMemory, MinerControl, Wanted
from agent.cgminer.control.drivers import driver_of
from agent.cgminer.device import Device
from sitelink.clock import ManualClock
from sitelink.types import MinerState, Verb
from tests.contract.simulator.world import NOON, site, until

pytestmark = pytest.mark.agent


@pytest.mark.parametrize("fault", ["forgets_sleep", "keeps_sleep"])
async def test_a_sleeping_luxos_is_rebooted_stopped_again_and_started_whatever_its_build_does(fault: str) -> None:
    clock = ManualClock(NOON)
    async with site(1, clock=clock, dialects=("luxos",)) as opened:
        (miner,) = opened.miners.values()
        place, ports = miner.place, opened.listeners[miner.place.miner_id]
        device = Device(Address(place.host, place.port), "luxos", clock, miner_id=place.miner_id)
        driver = driver_of("luxos")
        assert driver is not None
        control = MinerControl(device, place.miner_id, HeldInMemory())
        await opened.set_fault(place.miner_id, fault)
        await control.stop()
        clock.advance(30)
        assert (await control.observe()).state is MinerState.IDLE
        before_s = (await control.observe()).uptime_s
        await driver.send(device, Wanted(Verb.REBOOT), "")
        await until(lambda: not any(port.is_open for port in ports), opened, 2)
        await until(lambda: all(port.is_open for port in ports), opened, 60)
        clock.advance(30)
        after = await control.observe()
        assert after.uptime_s is not None and before_s is not None and after.uptime_s < before_s
        assert (after.state is MinerState.IDLE) is (fault == "keeps_sleep")
        await control.stop()  # as local curtailment does with one that woke
        clock.advance(30)
        assert (await control.observe()).state is MinerState.IDLE
        await control.start()
        clock.advance(30)
        assert (await control.observe()).state is MinerState.HASHING
        device.close()
