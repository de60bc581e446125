"""A miner whose restart forgets its limit, mode or profile is given it back once it runs: each firmware, simulated."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.control import HeldInMemory, MinerControl, Wanted
from agent.cgminer.control.drivers import driver_of
from agent.cgminer.control.former import is_settled, settled
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from simulator.miner import Miner
from simulator.site import SimulatedSite
from sitelink.clock import ManualClock
from sitelink.types import MinerState, Verb
from tests.contract.simulator.world import NOON, site, until

pytestmark = pytest.mark.agent

FIRMWARES = ("avalon", "braiins", "braiins-rest", "luxos", "vnish", "whatsminer", "whatsminer-v3")
PATIENT = Deadlines(connect_s=5, first_byte_s=5, total_s=5)
EXTRA = {"braiins": 1, "braiins-rest": 1, "vnish": 1, "whatsminer-v3": 1}
"""How many requests a stop makes for what the look before it does not tell; LuxOS one, where ATM steers it."""


@dataclass
class Rig:
    """One simulated miner under control."""

    opened: SimulatedSite
    miner: Miner
    device: Device
    former: HeldInMemory
    control: MinerControl
    clock: ManualClock

    async def fault(self, kind: str) -> None:
        await self.opened.set_fault(self.miner.place.miner_id, kind)

    async def later(self, seconds: float = 60) -> None:
        """Let time pass, and a reboot end."""
        ports = self.opened.listeners[self.miner.place.miner_id]
        for _ in range(30):
            self.clock.advance(seconds / 30)
            self.miner.advance(self.opened.time.seconds())
            listens = not self.miner.away
            await until(lambda listens=listens: all(port.is_open is listens for port in ports))

    def limit(self) -> tuple[object, ...]:
        kept = self.miner.kept
        watts = None if kept.limit_w is None else round(kept.limit_w)
        return kept.mode, watts, kept.more.get("profile"), kept.more.get("max_profile")

    async def order_limit(self) -> None:
        place = self.miner.place
        power = {"power_w": str(round(0.8 * place.model.nameplate_w))}
        wanted = Wanted(Verb.LIMIT, {"mode": "high"} if place.model.dialect == "avalon" else power)
        driver = driver_of(place.model.dialect)
        assert driver is not None
        await driver.send(self.device, wanted, await driver.former(self.device, wanted))
        await self.later()

    async def restored(self) -> int:
        """Look and restore as the daemon does, until nothing is left to do; return how often."""
        for tries in range(1, 9):
            await self.control.observe()
            if await self.control.restore():
                return tries
            await self.later()
        raise AssertionError("never done")


@asynccontextmanager
async def rig(firmware: str) -> AsyncIterator[Rig]:
    clock = ManualClock(NOON)
    async with site(1, clock=clock, dialects=(firmware,)) as opened:
        (miner,) = opened.miners.values()
        place = miner.place
        device = Device(
            Address(place.host, place.port),
            firmware,
            clock,
            miner_id=place.miner_id,
            web_port=place.web_port,
            credentials=Credentials(miner.kept.user, miner.kept.password),
            deadlines=PATIENT,
        )
        former = HeldInMemory()
        try:
            yield Rig(opened, miner, device, former, MinerControl(device, place.miner_id, former), clock)
        finally:
            device.close()


@pytest.mark.parametrize("firmware", FIRMWARES)
async def test_what_a_restart_forgets_is_given_back(firmware: str) -> None:
    async with rig(firmware) as one:
        plain = one.limit()
        await one.order_limit()
        limited = one.limit()
        assert limited != plain
        await one.control.observe()
        await one.control.stop()
        await one.later()
        await one.fault("forgets_limit")
        await one.control.start()
        await one.later()
        assert one.limit() != limited, "the fault is felt"
        assert await one.restored() > 1
        assert one.limit() == limited
        await one.control.observe()
        assert (await one.control.observe()).state is MinerState.HASHING
        assert is_settled(await one.former.recall(one.miner.place.miner_id))


@pytest.mark.parametrize("firmware", FIRMWARES)
async def test_what_a_restart_keeps_costs_no_order(firmware: str) -> None:
    async with rig(firmware) as one:
        await one.order_limit()
        limited = one.limit()
        await one.control.observe()
        await one.control.stop()
        await one.later()
        await one.control.start()
        await one.later()
        orders = len(one.opened.orders)
        assert await one.restored() == 1
        assert (one.limit(), len(one.opened.orders)) == (limited, orders)


@pytest.mark.parametrize("firmware", FIRMWARES)
async def test_a_stop_right_after_the_start_keeps_what_was_set_and_not_what_the_restart_left(firmware: str) -> None:
    async with rig(firmware) as one:
        await one.order_limit()
        limited = one.limit()
        await one.control.observe()
        await one.control.stop()
        await one.later()
        await one.fault("forgets_limit")
        for order in (one.control.start, one.control.stop, one.control.start):
            await order()
            await one.later()
            await one.control.observe()
        assert one.limit() != limited
        await one.restored()
        assert one.limit() == limited


@pytest.mark.parametrize("firmware", FIRMWARES)
async def test_a_stopped_miner_is_told_nothing(firmware: str) -> None:
    async with rig(firmware) as one:
        await one.order_limit()
        await one.control.observe()
        await one.control.stop()
        await one.later()
        await one.control.observe()
        orders = len(one.opened.orders)
        assert not await one.control.restore()
        assert len(one.opened.orders) == orders


class Counted:
    """Counts what a device is asked."""

    def __init__(self, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        orders = [(device, name) for name in ("ask", "send", "call", "framed")]
        for owner, name in (*orders, (device._looks, "_reply")):
            monkeypatch.setattr(owner, name, self._counting(getattr(owner, name)))

    def _counting(self, plain):
        async def counted(*args, **named):
            self.asked += 1
            return await plain(*args, **named)

        return counted


@pytest.mark.parametrize("firmware", FIRMWARES)
async def test_a_stop_reads_nothing_that_the_look_before_it_has_told(
    firmware: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(firmware) as one:
        await one.control.observe()
        driver = driver_of(firmware)
        assert driver is not None
        await one.device.identity()
        counted = Counted(one.device, monkeypatch)
        await one.device.identity()
        await driver.send(one.device, Wanted(Verb.STOP), "")
        without = counted.asked
        await driver.send(one.device, Wanted(Verb.START), "")
        await one.later()
        await one.control.observe()
        counted.asked = 0
        await one.control.stop()
        steered = firmware == "luxos" and (await one.device.ask("config"))["CONFIG"][0]["IsAtmEnabled"]
        assert counted.asked - (1 if firmware == "luxos" else 0) == without + EXTRA.get(firmware, 0) + int(steered)
        assert await one.former.recall(one.miner.place.miner_id)


@pytest.mark.parametrize("firmware", FIRMWARES)
async def test_without_a_look_one_read_tells_what_to_keep(firmware: str) -> None:
    async with rig(firmware) as one:
        await one.order_limit()
        await one.control.stop()
        assert await one.former.recall(one.miner.place.miner_id)


async def test_a_stop_waits_for_nothing_and_says_what_it_goes_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig("whatsminer") as one:
        plain = one.device.ask

        async def silent_at_status(command: str, parameter: str | None = None):
            if command == "status":
                await asyncio.Event().wait()
            return await plain(command, parameter)

        monkeypatch.setattr(one.device, "ask", silent_at_status)
        monkeypatch.setattr("agent.cgminer.control.keeping._READ_S", 0.02)
        with caplog.at_level(logging.WARNING):
            await one.control.stop()
        assert one.miner.asleep
        assert "is stopped without its configuration: no answer within" in caplog.text


async def test_what_cannot_be_given_back_is_given_up_aloud(caplog: pytest.LogCaptureFixture) -> None:
    async with rig("whatsminer") as one:
        await one.order_limit()
        await one.control.observe()
        await one.control.stop()
        await one.later()
        await one.fault("forgets_limit")
        await one.control.start()
        await one.later()
        await one.fault("access_denied")
        with caplog.at_level(logging.ERROR):
            await one.restored()
        assert "keeps another limit than before its stop" in caplog.text


async def test_a_miner_that_takes_the_order_and_does_nothing_is_told_three_times() -> None:
    async with rig("whatsminer") as one:
        await one.order_limit()
        await one.control.observe()
        await one.control.stop()
        await one.later()
        await one.fault("forgets_limit")
        await one.control.start()
        await one.later()
        await one.fault("ack_without_effect")
        before = len(one.opened.orders)
        await one.restored()
        assert len(one.opened.orders) - before == 3


def test_what_is_settled_keeps_what_a_start_restores() -> None:
    assert not is_settled('{"miner-mode": 3}')
    assert is_settled(settled('{"miner-mode": 3}'))
    assert '"miner-mode": 3' in settled('{"miner-mode": 3}')
    assert is_settled(settled("of an agent that kept no JSON"))
