"""One cell of the matrix: a simulated miner, an order, a fault, and what becomes of it as a site gives that order.

    own site, clock and ports per cell --> fault --> order (--> killed --> order again) --> outcome, truth
                                                       '- stop, start: `switching`; all others: `carry_out`

The clock stands still but for the pauses between looks, so a deadline of minutes passes in as many looks as it takes,
and the same cell always ends the same way.
"""

import asyncio
import itertools
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.control import HeldInMemory, MinerControl
from agent.cgminer.control.carry_out import DEADLINES_S, carry_out
from agent.cgminer.control.driver import Driver, ReadBack, Result, Wanted
from agent.cgminer.control.drivers import driver_of
from agent.cgminer.control.outlet import OutletControl
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.errors import AccessDenied, AgentError, Refused
from agent.local_curtail.evidence import Verdict
from agent.reasons import reason_of
from simulator.dialects import build_firmwares
from simulator.miner import Miner
from simulator.site import SimulatedSite
from sitelink.clock import ManualClock
from sitelink.types import Outcome, Verb
from tests.contract.simulator.world import site
from tests.matrix.contactor import ATTEMPTS, CONTACTOR, MINER_BEHIND, SILENT, Behind
from tests.matrix.faults import SWITCHING, Fault
from tests.matrix.switching import RULES, Switching

NOON = datetime(2026, 5, 8, 18, 0, tzinfo=UTC)
PATIENT = Deadlines(connect_s=30, first_byte_s=30, total_s=30)
"""For cells in which nothing falls silent: a busy machine must not look like a silent miner."""
HASTY = Deadlines(connect_s=2, first_byte_s=1.5, total_s=2)
LOOKS, FEW_LOOKS = 24, 2
"""A deadline passes in about as many looks; in few where each look waits for silence."""
NEW_PASSWORD = "Rot8_ted"
POOLS = [
    {"url": "stratum+tcp://one.example:3333", "user": "acct.rig", "password": "x"},
    {"url": "stratum+tcp://two.example:3333", "user": "acct.rig", "password": "y"},
]
IMAGE = b"firmware image\nversion=2026.1\n" + bytes(range(256)) * 300
MODES_ONLY = {"avalon": "high", "antminer": "low"}

_PLAYED = itertools.count(os.getpid() * 331)


def _place() -> dict[str, Any]:
    """A network and three ports for one cell alone, below those that clients are given.

    A port that goes away in a reboot is then free when the miner is back.
    """
    number = next(_PLAYED)
    port = 10_000 + 3 * (number % 7_500)
    return {"net": f"127.{78 + number % 150}", "port": port, "web_port": port + 1, "framed_port": port + 2}


@dataclass(frozen=True)
class Cell:
    """How one order ended. ``kept_to`` says whether the device really is as a COMPLETE claims."""

    firmware: str
    verb: Verb
    fault: Fault
    ending: str
    complete: bool
    kept_to: bool
    orders: int
    received: bool


def firmwares() -> tuple[str, ...]:
    """Every firmware that both the drivers and the simulator know, in order of name, and a contactor."""
    return (*sorted(name for name in build_firmwares() if driver_of(name) is not None), CONTACTOR)


def wanted_of(firmware: str, verb: Verb, miner: Miner) -> Wanted:
    """The order that is played for a verb."""
    match verb:
        case Verb.LIMIT if firmware in MODES_ONLY:
            return Wanted(verb, {"mode": MODES_ONLY[firmware]})
        case Verb.LIMIT:
            return Wanted(verb, {"power_w": str(round(0.8 * miner.place.model.nameplate_w))})
        case Verb.POOLS:
            return Wanted(verb, {"pools": json.dumps(POOLS)})
        case Verb.BLINK:
            return Wanted(verb, {"on": "true"})
        case Verb.PASSWORD:
            return Wanted(verb, secret=NEW_PASSWORD)
        case Verb.FIRMWARE:
            return Wanted(verb, {"file": "f.bin", "sha256": "", "version": "2026.1"}, image=IMAGE)
        case _:
            return Wanted(verb)


async def play(firmware: str, verb: Verb, fault: Fault) -> Cell:
    """Play one cell on a site of its own."""
    clock = ManualClock(NOON)
    async with site(1, clock=clock, dialects=(_dialect(firmware),), **_place()) as opened:
        stage = _Stage(opened, clock, firmware, fault)
        try:
            return await stage.play(verb)
        finally:
            stage.close()


class _Stage:
    """One miner on its own site."""

    def __init__(self, opened: SimulatedSite, clock: ManualClock, firmware: str, fault: Fault) -> None:
        self._site = opened
        self._clock = clock
        self._firmware = firmware
        self._fault = fault
        self.miner = next(iter(opened.miners.values()))
        place = self.miner.place
        self._behind = Behind(opened, self.miner) if firmware == CONTACTOR else None
        self._device = Device(
            Address(place.host, place.port),
            _dialect(firmware),
            clock,
            miner_id=place.miner_id,
            web_port=place.web_port,
            credentials=Credentials(self.miner.kept.user, self.miner.kept.password),
            deadlines=HASTY if fault.hasty else PATIENT,
        )
        self._kept = ""
        self._former = HeldInMemory()
        self._switching = self._new_switching()
        self._content = b""
        self._step_s = 1.0
        self._strikes = False
        self._dies = ""
        self._told = False
        self._playing = Verb.STOP

    def close(self) -> None:
        """Let go of the miner's connections."""
        self._device.close()
        if self._behind is not None:
            self._behind.close()

    async def play(self, verb: Verb) -> Cell:
        self._playing = verb
        wanted = wanted_of(self._firmware, verb, self.miner)
        patience_s = RULES.device_deadline_s if verb in SWITCHING else DEADLINES_S[verb]
        self._step_s = max(1.0, patience_s / (FEW_LOOKS if self._fault.hasty else LOOKS))
        if verb is Verb.START:
            await self._beforehand(Wanted(Verb.STOP))
        if self._fault.twice:
            await self._beforehand(wanted)
        self._kept = ""
        self._strikes = True
        before = len(self._site.orders)
        if self._fault.kind and not self._fault.late:
            await self._strike()
            await self._pass(self._fault.settles_s)
        ending, complete = await (self._switched(verb) if verb in SWITCHING else self._ending(wanted))
        received = [row for row in self._site.orders.rows(self._site.time.seconds()) if row["verb"] == verb.value]
        return Cell(
            self._firmware,
            verb,
            self._fault,
            ending,
            complete,
            complete and await self._as_wanted(wanted),
            len(received),
            len(self._site.orders) > before,
        )

    async def _beforehand(self, wanted: Wanted) -> None:
        """Give an order before the one that is played, and let it settle."""
        if wanted.verb in SWITCHING:
            by_others = wanted.verb is Verb.STOP and self._fault.twice and self._playing is Verb.STOP
            await self._switch(wanted.verb, self._new_switching() if by_others else self._switching)
        else:
            await self._carry_out(wanted)
        await self._pass(60)

    async def _switched(self, verb: Verb) -> tuple[str, bool]:
        self._dies = self._fault.killed
        try:
            verdict = await self._switch(verb, self._switching)
        except asyncio.CancelledError:  # a new process, with what its books and `Former` kept
            self._dies = ""
            self._switching.control = self._new_control()
            verdict = await self._switch(verb, self._switching)
        return self._worded(verdict), verdict.outcome is Outcome.COMPLETE

    def _worded(self, verdict: Verdict) -> str:
        told = self._told or verdict.outcome is Outcome.COMPLETE
        return f"{verdict.outcome.value} {verdict.reason}" if told else f"not sent: {verdict.reason}"

    async def _switch(self, verb: Verb, switching: Switching) -> Verdict:
        self._told = False
        if verb is Verb.STOP:
            return await switching.stop()
        verdict = await switching.start()
        for _ in range(0 if self._behind is None else ATTEMPTS - 1):
            if verdict.outcome is not Outcome.COMPLETE:
                verdict = await switching.start()
        return verdict

    def _new_switching(self) -> Switching:
        place = self.miner.place
        return Switching(self._new_control(), place.miner_id, place.model.nameplate_w, self._clock, self._pause)

    def _new_control(self) -> MinerControl | OutletControl:
        miner_id = self.miner.place.miner_id
        if self._behind is not None:
            return self._behind.control(MinerControl(self._device, miner_id, self._former), self._device, self)
        return MinerControl(self._device, miner_id, self._former, lambda _: _Struck(self._driver(), self))

    def _driver(self) -> Driver:
        made = driver_of(self._firmware)
        assert made is not None
        return made

    async def on_its_way(self) -> None:
        """What happens while an order is on its way: the process dies before it, or the fault strikes."""
        if self._dies == "before":
            raise asyncio.CancelledError
        self._told = True
        if self._fault.late and self._strikes:
            await self._strike()

    async def _strike(self) -> None:
        if self._fault.kind == SILENT:
            await self._site.modbus.close()
        else:
            await self._site.set_fault(self.miner.place.miner_id, self._fault.kind)

    def sent(self) -> None:
        """An order has been sent; the process may die here."""
        if self._dies == "after":
            raise asyncio.CancelledError

    async def _ending(self, wanted: Wanted) -> tuple[str, bool]:
        try:
            if self._fault.killed:
                await self._be_killed(wanted)
            result = await self._resumed(wanted) if self._fault.killed else await self._carry_out(wanted)
        except Refused as error:
            return f"not sent: {error.code}", False
        except AgentError as error:
            return f"not sent: {reason_of(error).value}", False
        self._content = result.content
        return f"{result.outcome.value} {result.reason}", result.outcome is Outcome.COMPLETE

    async def _resumed(self, wanted: Wanted) -> Result:
        """The order taken up again; where the password may have changed, by either, as the vault does it."""
        try:
            return await self._carry_out(wanted)
        except AccessDenied:
            if wanted.verb is not Verb.PASSWORD:
                raise
        self._device.credentials = Credentials(self.miner.kept.user, NEW_PASSWORD)
        return await self._carry_out(wanted)

    async def _be_killed(self, wanted: Wanted) -> None:
        try:
            await self._carry_out(wanted, self._fault.killed)
        except asyncio.CancelledError:
            return  # else it ended before it came to that, as it will again

    async def _carry_out(self, wanted: Wanted, dies: str = "") -> Result:
        self._dies = dies

        async def keep(former: str) -> None:
            self._kept = self._kept or former
            await self.on_its_way()

        return await carry_out(
            _Struck(self._driver(), self, keeps=True),
            self._device,
            self.miner.place.miner_id,
            wanted,
            keep=keep,
            deadline_s=DEADLINES_S[wanted.verb],
            kept=self._kept,
            pause=self._pause,
        )

    async def _pause(self, _seconds: float) -> None:
        await self._pass(self._step_s)

    async def _pass(self, seconds: float) -> None:
        """Let time pass, and whatever listens on ports come and go with it."""
        self._clock.advance(seconds)
        self.miner.advance(self._site.time.seconds())
        listens = not self.miner.away and not self.miner.dead and not self.miner.has("no_accept")
        async with asyncio.timeout(10):
            while any(port.is_open is not listens for port in self._site.listeners[self.miner.place.miner_id]):
                await asyncio.sleep(0.005)

    async def _as_wanted(self, wanted: Wanted) -> bool:
        """Whether the device really is as wanted, as the simulator knows it; a start is given the time of its ramp."""
        if wanted.verb is Verb.START:
            await self._pass(self.miner.place.model.warm_s + 1)
        state = self.miner.state()
        hashing = self.miner.true_hashing(self._site.time.seconds())
        match wanted.verb:
            case Verb.STOP:
                return bool(state["asleep"] or not state["plugged"]) and not hashing
            case Verb.START:
                return not state["asleep"] and hashing
            case Verb.LOGS:
                return _holds(self._content, self.miner.handed_out)
            case Verb.LIMIT:
                mode = wanted.parameters.get("mode")
                return state["mode"] == mode if mode else _near(state["limit_w"], float(wanted.parameters["power_w"]))
            case Verb.POOLS:
                return [dict(pool) for pool in state["pools"]][: len(POOLS)] == POOLS
            case Verb.BLINK:
                return bool(state["led"])
            case Verb.PASSWORD:
                return state["password"] == NEW_PASSWORD
            case Verb.FIRMWARE:
                return state["firmware"] == "2026.1"
            case Verb.REBOOT:
                return state["reboots"] == 1
        raise AssertionError(wanted.verb)


class _Struck:
    """A driver whose orders the stage's fault, or the end of the process, meets on their way."""

    def __init__(self, driver: Driver, stage: _Stage, *, keeps: bool = False) -> None:
        """``keeps``: what comes before sending happens as the order is kept."""
        self._driver = driver
        self._stage = stage
        self._keeps = keeps

    @property
    def verbs(self) -> frozenset[Verb]:
        return self._driver.verbs

    async def former(self, device: Device, wanted: Wanted) -> str:
        return await self._driver.former(device, wanted)

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        if not self._keeps:
            await self._stage.on_its_way()
        sent = await self._driver.send(device, wanted, former)
        self._stage.sent()
        return sent

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        return await self._driver.shows(device, wanted, before)


def _dialect(firmware: str) -> str:
    """The dialect of the miner that stands on the stage."""
    return MINER_BEHIND if firmware == CONTACTOR else firmware


def _holds(content: bytes, handed_out: tuple[bytes, ...]) -> bool:
    """Whether ``content`` is what the miner handed out: its one log to the byte, or each of several."""
    if len(handed_out) == 1:
        return content.strip() == handed_out[0].strip()
    return bool(handed_out) and all(log.strip() in content for log in handed_out)


def _near(limit_w: Any, wanted_w: float) -> bool:
    return limit_w is not None and limit_w <= 1.01 * wanted_w
