"""Braiins OS up to 25.05: pause over RPC, the rest over GraphQL behind a session that may end at any time."""

import json
from typing import Any

import pytest

from agent.cgminer.control.braiins import Braiins
from agent.cgminer.control.driver import Result
from agent.errors import AccessDenied
from sitelink.types import Evidence, Outcome, Verb
from tests.contract.control.fake_braiins import GROUPS, MINER_ID, FakeBraiins
from tests.contract.control.world import POOLS, SECRET, Wanted, at_work, order, wanted
from tests.contract.fake_miner import status

pytestmark = pytest.mark.agent


async def carried(miner: FakeBraiins, asked: Wanted, **more: Any) -> tuple[Result, list[str]]:
    async with at_work(miner, "braiins", MINER_ID) as device:
        return await order(Braiins(), device, MINER_ID, asked, **more)


async def test_a_stop_pauses_and_a_start_resumes() -> None:
    miner = FakeBraiins()
    stopped, kept = await carried(miner, wanted(Verb.STOP))
    assert (stopped.outcome, stopped.reason) == (Outcome.COMPLETE, "power_below_idle")
    assert list(json.loads(kept[0])) == ["power_limit_w"]
    started, _ = await carried(miner, wanted(Verb.START))
    assert (started.outcome, started.reason, started.evidence) == (
        Outcome.COMPLETE,
        "hashing",
        Evidence.DEVICE_STATE,
    )
    assert miner.told == ["pause", "resume"]


@pytest.mark.parametrize(
    ("answer", "outcome", "reason"),
    [
        (status(45, "Access denied to 'pause' command", "E"), Outcome.REFUSED, "access_denied"),
        (status(14, "Invalid command", "E"), Outcome.REFUSED, "unsupported"),
        (status(204, "Already paused", "E"), Outcome.UNVERIFIED, "still_hashing"),
        (status(204, "Pause", PAUSE=[True]), Outcome.UNVERIFIED, "still_hashing"),
        (b"[]", Outcome.UNVERIFIED, "garbled"),
    ],
)
async def test_a_pause_that_is_not_taken_is_told_apart(answer: object, outcome: Outcome, reason: str) -> None:
    result, _ = await carried(FakeBraiins(pause_answer=answer), wanted(Verb.STOP), deadline_s=0.2)
    assert (result.outcome, result.reason) == (outcome, reason)


async def test_a_limit_is_a_power_target_and_is_read_back_from_the_tuner() -> None:
    miner = FakeBraiins(mode="HASHRATE_TARGET")
    result, kept = await carried(miner, wanted(Verb.LIMIT, power_w="2800"))
    assert (result.outcome, result.reason) == (Outcome.COMPLETE, "power_within_limit")
    assert (miner.target_w, miner.mode, miner.told) == (2800, "POWER_TARGET", ["limit 2800"])
    assert json.loads(kept[0])["autotuning"]["mode"] == "HASHRATE_TARGET"


async def test_a_limit_that_the_tuner_does_not_take_up_is_unverified() -> None:
    result, _ = await carried(FakeBraiins(effect=False), wanted(Verb.LIMIT), deadline_s=0.2)
    assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "limit_not_in_force")


async def test_a_limit_out_of_bounds_is_refused_in_the_devices_own_words() -> None:
    miner = FakeBraiins(union_error="powerTarget must be between\n900 and 6000")
    result, _ = await carried(miner, wanted(Verb.LIMIT, power_w="100"))
    assert (result.outcome, result.reason) == (Outcome.REFUSED, "unsupported")
    assert "must be between 900 and 6000" in result.detail


async def test_a_mode_is_refused_because_it_knows_none() -> None:
    result, _ = await carried(FakeBraiins(), wanted(Verb.LIMIT, mode="low"))
    assert (result.outcome, result.reason) == (Outcome.REFUSED, "mode_unsupported")


async def test_pools_become_the_only_group_and_the_miner_restarts() -> None:
    miner = FakeBraiins()
    result, kept = await carried(miner, wanted(Verb.POOLS))
    assert (result.outcome, result.reason, miner.told) == (Outcome.COMPLETE, "pools_in_force", ["pools", "restart"])
    assert miner.groups == [{"name": "farm", "quota": 1, "pools": [{"enabled": True, **pool} for pool in POOLS]}]
    assert json.loads(kept[0]) == {"groups": GROUPS}


async def test_pools_of_a_paused_miner_are_refused_because_a_restart_would_wake_it() -> None:
    miner = FakeBraiins(stopped=True)
    result, _ = await carried(miner, wanted(Verb.POOLS), deadline_s=0.2)
    assert (result.outcome, result.reason, miner.told) == (Outcome.REFUSED, "miner_stopped", [])


@pytest.mark.parametrize("on", ["true", "false"])
async def test_the_lamp_is_switched_once(on: str) -> None:
    miner = FakeBraiins(lamp=on == "false")
    for _ in range(2):
        result, _ = await carried(miner, wanted(Verb.BLINK, on=on))
        assert (result.outcome, miner.lamp) == (Outcome.COMPLETE, on == "true")
    assert miner.told == ["blink"]


async def test_a_password_is_changed_and_the_next_login_uses_it() -> None:
    miner = FakeBraiins()
    async with at_work(miner, "braiins", MINER_ID) as device:
        driver = Braiins()
        result, _ = await order(driver, device, MINER_ID, wanted(Verb.PASSWORD))
        assert (result.outcome, device.credentials) == (Outcome.COMPLETE, ("root", SECRET))
        lamp, _ = await order(driver, device, MINER_ID, wanted(Verb.BLINK))
    assert (lamp.outcome, miner.told) == (Outcome.COMPLETE, ["password", "blink"])


async def test_an_interrupted_change_of_password_is_found_in_force() -> None:
    miner = FakeBraiins(password=SECRET)
    async with at_work(miner, "braiins", MINER_ID, password="old") as device:
        result, _ = await order(Braiins(), device, MINER_ID, wanted(Verb.PASSWORD), kept="{}")
    assert (result.outcome, miner.told) == (Outcome.COMPLETE, [])


async def test_a_session_that_has_ended_is_renewed_once() -> None:
    miner = FakeBraiins()
    async with at_work(miner, "braiins", MINER_ID) as device:
        driver = Braiins()
        await order(driver, device, MINER_ID, wanted(Verb.BLINK, on="true"))
        miner.forgets = True
        result, _ = await order(driver, device, MINER_ID, wanted(Verb.BLINK, on="false"))
    assert (result.outcome, miner.lamp) == (Outcome.COMPLETE, False)


@pytest.mark.parametrize("verb", [Verb.LIMIT, Verb.POOLS, Verb.BLINK])
async def test_a_wrong_password_is_told_before_anything_is_sent(verb: Verb) -> None:
    miner = FakeBraiins()
    async with at_work(miner, "braiins", MINER_ID, password="wrong") as device:
        with pytest.raises(AccessDenied, match="correct the user and password of its group"):
            await order(Braiins(), device, MINER_ID, wanted(verb))
    assert miner.told == []


@pytest.mark.parametrize("verb", [Verb.REBOOT, Verb.LOGS])
async def test_a_wrong_password_is_access_denied_and_not_tried_again(verb: Verb) -> None:
    miner = FakeBraiins()
    async with at_work(miner, "braiins", MINER_ID, password="wrong") as device:
        result, _ = await order(Braiins(), device, MINER_ID, wanted(verb))
    assert (result.outcome, result.reason) == (Outcome.REFUSED, "access_denied")
    assert miner.told == []


async def test_an_order_that_graphql_refuses_is_refused_in_its_words() -> None:
    miner = FakeBraiins(errors="Unknown field 'reboot'")
    result, _ = await carried(miner, wanted(Verb.REBOOT))
    assert (result.outcome, result.reason) == (Outcome.REFUSED, "unsupported")
    assert "Unknown field 'reboot'" in result.detail


async def test_a_reboot_shows_by_its_uptime_and_logs_are_lines() -> None:
    miner = FakeBraiins()
    result, _ = await carried(miner, wanted(Verb.REBOOT))
    assert (result.outcome, result.reason, miner.told) == (Outcome.COMPLETE, "uptime_reset", ["reboot"])
    logs, _ = await carried(miner, wanted(Verb.LOGS))
    assert (logs.outcome, logs.content) == (Outcome.COMPLETE, b"line one\nline two")


async def test_without_credentials_it_says_whose_are_missing() -> None:
    miner = FakeBraiins()
    async with at_work(miner, "braiins", MINER_ID) as device:
        device.credentials = None
        with pytest.raises(AccessDenied, match="ballast-agent credentials set"):
            await order(Braiins(), device, MINER_ID, wanted(Verb.BLINK))
