"""Plain CGMiner: devices disabled and enabled one by one, the right to write asked for first, and nothing claimed."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.cgminer.control import HeldInMemory, MinerControl
from agent.cgminer.control.driver import Wanted
from agent.cgminer.control.drivers import driver_of, stops_before_outlet
from agent.cgminer.control.former import settled
from agent.cgminer.device import Device
from agent.errors import Nameless, Transient
from agent.local_curtail.evidence import MeterWord, StopFacts, judge_stop
from sitelink.types import Evidence, MinerState, Outcome, Reason, Verb
from sitelink.units import Watts
from tests.contract.control.rpc_fakes import ID, Pools, device_at, order
from tests.contract.fake_miner import FakeMiner, serving, status

pytestmark = pytest.mark.agent

STOP, START, REBOOT = Wanted(Verb.STOP), Wanted(Verb.START), Wanted(Verb.REBOOT)
BLINK, DARK = Wanted(Verb.BLINK, {"on": "true"}), Wanted(Verb.BLINK, {"on": "false"})


class Rig:
    """CGMiner 4.11 on ``parts`` ASCs or PGAs, as its API-README and its messages have it."""

    def __init__(self, parts: int = 3, kind: str = "ASC", name: str = ID) -> None:
        self.kind, self.name = kind, name
        self.enabled = [True] * parts
        self.uptime_s, self.effect, self.lamp = 5000, True, True
        self.average = 90e6
        self.unwilling: set[int] = set()
        self.writes = "all"
        self.told: list[str] = []
        self.pools = Pools("stratum+tcp://a.example:1", escapes=True)
        word = kind.lower()
        self.miner = FakeMiner(
            {
                **self.pools.answers(),
                "version": lambda _: self._said(22, "v", VERSION=[{"CGMiner": "4.11.1", "API": "3.7"}]),
                "summary": lambda _: self._said(11, "s", SUMMARY=[{"Elapsed": self.uptime_s, "MHS 5s": self.average}]),
                "stats": lambda _: self._said(70, "s", STATS=[{"STATS": 0, "ID": "X0", "Elapsed": self.uptime_s}]),
                "devs": lambda _: self._said(9, "d", DEVS=[self._row(number) for number in range(len(self.enabled))]),
                "privileged": lambda _: self._denied("privileged") or status(46, "Privileged access OK"),
                "check": self._check,
                "save": status(44, "saved"),
                "restart": self._restart,
                **{f"{word}{verb}": self._tell for verb in ("enable", "disable", "identify")},
            }
        )

    def _said(self, code: int, text: str, **more: Any) -> dict[str, Any]:
        reply = status(code, text, **more)
        reply["STATUS"][0]["Description"] = self.name
        return reply

    def _row(self, number: int) -> dict[str, Any]:
        on = self.enabled[number]
        return {self.kind: number, "Enabled": "Y" if on else "N", "Status": "Alive", "MHS 5s": 30e6 if on else 0.0}

    def _denied(self, command: str) -> object | None:
        if self.writes == "all" or command in self.writes.split(":"):
            return None
        return status(45, f"Access denied to '{command}' command", "E")

    def _check(self, request: dict[str, Any]) -> object:
        may = self._denied(request["parameter"]) is None
        return status(72, "Check command", COMMAND=[{"Exists": "Y", "Access": "Y" if may else "N"}])

    def _tell(self, request: dict[str, Any]) -> object:
        command, number = request["command"], int(request["parameter"])
        denied = self._denied(command)
        if denied is not None:
            return denied
        self.told.append(f"{command} {number}")
        if command.endswith("identify"):
            return status(113, "Identify command sent") if self.lamp else status(114, "does not support identify", "W")
        if number in self.unwilling:
            return status(115, f"ASC{number} has no device", "E")
        if self.effect:
            self.enabled[number] = command.endswith("enable")
        return status(111, "set flag", "I")

    def _restart(self, _request: dict[str, Any]) -> object:
        denied = self._denied("restart")
        if denied is not None:
            return denied
        self.told.append("restart")
        if self.effect:
            self.uptime_s, self.enabled = 3, [True] * len(self.enabled)
        return {"STATUS": "RESTART"}


@asynccontextmanager
async def at_work(rig: Rig) -> AsyncIterator[Device]:
    async with serving(rig.miner.speak) as address:
        yield device_at(address, "cgminer")


async def never(_former: str) -> None:
    """Keep what an order replaces nowhere else."""


@pytest.mark.parametrize("kind", ["ASC", "PGA"])
async def test_a_stop_disables_every_device_and_stays_unproven_without_a_meter(kind: str) -> None:
    rig = Rig(kind=kind)
    async with at_work(rig) as device:
        result, kept = await order(device, STOP)
        assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "power_unknown")
        assert rig.told == [f"{kind.lower()}disable {number}" for number in range(3)]
        assert json.loads(kept[0]) == {"enabled": [f"{kind} {number}" for number in range(3)]}
        seen = await device.observe()
        assert (seen.state, seen.reason, seen.hashrate_ths, seen.power_w) == (
            MinerState.IDLE,
            Reason.COMMANDED,
            0.0,
            None,
        )
        result, _ = await order(device, START, kept=kept[0])
    assert (result.outcome, result.reason, rig.enabled) == (Outcome.COMPLETE, "hashing", [True] * 3)


@pytest.mark.parametrize(
    ("word", "outcome", "reason"),
    [
        (MeterWord.NONE, Outcome.UNVERIFIED, "power_unknown"),
        (MeterWord.CLEARED, Outcome.COMPLETE, "power_below_idle"),
        (MeterWord.ACCUSED, Outcome.UNVERIFIED, "feeder_did_not_drop"),
        (MeterWord.SILENT, Outcome.UNVERIFIED, "feeder_meter_silent"),
    ],
)
async def test_a_feeders_meter_judges_the_stop(word: MeterWord, outcome: Outcome, reason: str) -> None:
    rig = Rig()
    async with at_work(rig) as device:
        await MinerControl(device, ID).stop()
        seen = await device.observe()
    verdict = judge_stop(StopFacts(Watts(3000.0), 0.15, True, True, seen, word))
    assert (verdict.outcome, verdict.reason) == (outcome, reason)
    assert verdict.evidence is not Evidence.DEVICE_POWER or word is MeterWord.SILENT


async def test_a_start_brings_back_what_was_enabled_before_and_leaves_what_its_owner_had_disabled() -> None:
    rig = Rig()
    rig.enabled[1] = False
    async with at_work(rig) as device:
        control = MinerControl(device, ID)
        await control.stop()
        await control.stop()  # a second one finds nothing enabled, and forgets nothing
        await control.start()
    assert rig.enabled == [True, False, True]
    assert rig.told == ["ascdisable 0", "ascdisable 2", "ascenable 0", "ascenable 2"]


@pytest.mark.parametrize("kept", ["", "{}", "[]", "no JSON", '{"enabled": ["ASC 9"]}'])
async def test_a_start_that_knows_of_no_stop_enables_everything(kept: str) -> None:
    rig = Rig()
    rig.enabled = [False] * 3
    async with at_work(rig) as device:
        assert (await order(device, START, kept=kept))[0].outcome is Outcome.COMPLETE
    assert rig.enabled == [True] * 3


async def test_half_a_stop_is_no_stop_and_the_others_are_told_all_the_same() -> None:
    rig = Rig()
    rig.unwilling = {0}
    async with at_work(rig) as device:
        result, _ = await order(device, STOP)
    assert (result.outcome, rig.enabled) == (Outcome.UNVERIFIED, [True, False, False])
    assert "does not disable ASC 0: code 115" in result.detail


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_start_after_a_stop_taken_piece_by_piece_brings_back_every_piece(*, restarted: bool) -> None:
    rig, former = Rig(4), HeldInMemory()
    rig.enabled[3] = False  # its owner's choice
    async with at_work(rig) as device:
        control = MinerControl(device, ID, former)
        for unwilling in ({0, 1}, {1}):
            rig.unwilling = unwilling
            with pytest.raises(Transient, match="it is told again"):
                await control.stop()
            await control.observe()
            control = MinerControl(device, ID, former) if restarted else control
        rig.unwilling = set()
        result, kept = await control.carry_out(STOP, never), await former.recall(ID)
        assert (result.reason, rig.enabled) == ("power_unknown", [False] * 4)
        assert json.loads(kept) == {"enabled": ["ASC 0", "ASC 1", "ASC 2"]}
        await control.start()
    assert rig.enabled == [True, True, True, False]


async def test_what_its_owner_disables_after_a_proven_start_stays_disabled() -> None:
    rig, former = Rig(), HeldInMemory()
    async with at_work(rig) as device:
        control = MinerControl(device, ID, former)
        await control.stop()
        await control.start()
        await former.remember(ID, settled(await former.recall(ID)))  # it was seen to run
        rig.enabled[1] = False
        control = MinerControl(device, ID, former)
        await control.stop()
        await control.start()
    assert rig.enabled == [True, False, True]


async def test_an_ok_without_effect_is_seen() -> None:
    rig = Rig()
    rig.effect = False
    async with at_work(rig) as device:
        assert (await order(device, STOP))[0].reason == "still_hashing"
        assert (await order(device, REBOOT))[0].reason == "uptime_not_reset"


async def test_a_rig_whose_average_only_decays_is_idle_at_once() -> None:
    rig = Rig()
    rig.enabled = [False] * 3
    assert rig.average > 0
    async with at_work(rig) as device:
        assert (await device.observe()).state is MinerState.IDLE


async def test_zero_hash_without_a_disabled_device_is_no_stop() -> None:
    rig = Rig()
    rig.average, rig.effect = 0.0, False
    async with at_work(rig) as device:
        assert (await order(device, STOP))[0].reason == "not_stopped"


@pytest.mark.parametrize("asked", [STOP, BLINK, REBOOT])
async def test_without_the_right_to_write_nothing_is_told(asked: Wanted) -> None:
    rig = Rig()
    rig.writes = ""
    async with at_work(rig) as device:
        result, _ = await order(device, asked)
    assert (result.outcome, result.reason, rig.told) == (Outcome.REFUSED, "access_denied", [])
    assert "api-allow" in result.detail


async def test_a_group_of_its_own_is_asked_command_by_command() -> None:
    rig = Rig()
    rig.writes = "ascdisable:ascenable"
    async with at_work(rig) as device:
        assert (await order(device, STOP))[0].reason == "power_unknown"
    rig = Rig()
    rig.writes = "ascdisable"  # what could not be started again is not stopped
    async with at_work(rig) as device:
        assert (await order(device, STOP))[0].reason == "access_denied"
    assert rig.told == []


async def test_a_restart_is_named_for_what_it_is_and_never_starts_a_stopped_rig() -> None:
    rig = Rig()
    async with at_work(rig) as device:
        result, _ = await order(device, REBOOT)
        assert (result.outcome, result.reason, rig.told) == (Outcome.COMPLETE, "program_restarted", ["restart"])
        rig.enabled = [False] * 3
        result, _ = await order(device, REBOOT)
    assert (result.outcome, result.reason, rig.told) == (Outcome.REFUSED, "miner_stopped", ["restart"])


async def test_a_lamp_flashes_unseen_and_one_that_is_not_there_is_unsupported() -> None:
    rig = Rig(2)
    async with at_work(rig) as device:
        result, _ = await order(device, BLINK)
        assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "lamp_unknown")
        assert rig.told == ["ascidentify 0", "ascidentify 1"]
        dark, _ = await order(device, DARK)
        assert (dark.outcome, dark.reason) == (Outcome.REFUSED, "unsupported")
        rig.lamp = False
        refused, _ = await order(device, BLINK)
    assert (refused.outcome, refused.reason) == (Outcome.REFUSED, "unsupported")
    assert "does not support identify" in refused.detail


@pytest.mark.parametrize(
    ("devs", "reason"),
    [
        ([{"GPU": 0, "Enabled": "Y"}], "unsupported"),
        ([{"Name": "X"}], "unsupported"),
        (None, "unsupported"),
    ],
)
async def test_a_fork_that_lists_nothing_we_can_tell_is_not_told(devs: object, reason: str) -> None:
    rig = Rig()
    listed = status(9, "d", DEVS=devs) if devs is not None else status(14, "Invalid command", "E")
    rig.miner.answers["devs"] = listed
    async with at_work(rig) as device:
        driver = driver_of("cgminer")
        assert driver is not None
        result, _ = await order(device, START)
    assert (result.outcome, result.reason, rig.told) == (Outcome.REFUSED, reason, [])


async def test_an_old_cgminer_without_the_command_says_so() -> None:
    rig = Rig()
    rig.miner.answers["ascdisable"] = status(14, "Invalid command", "E")
    async with at_work(rig) as device:
        result, _ = await order(device, STOP)
    assert (result.outcome, result.reason) == (Outcome.REFUSED, "unsupported")
    assert "outlet" in result.detail


async def test_a_rig_goes_by_the_name_that_its_owner_gave_it_and_else_by_none() -> None:
    async with at_work(Rig(name=ID.upper())) as device:
        assert await device.identity() == ID
    rig = Rig(name="cgminer 4.11.1")
    async with at_work(rig) as device:
        with pytest.raises(Nameless):
            await MinerControl(device, ID).stop()
    assert rig.told == []


def test_an_outlet_goes_before_a_stop_that_proves_nothing() -> None:
    assert not stops_before_outlet("cgminer")
    assert not stops_before_outlet("innosilicon")
    assert stops_before_outlet("luxos")
