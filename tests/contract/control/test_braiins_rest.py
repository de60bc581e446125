"""Braiins OS from 25.07: a token, a status that tells a pause from a suspension, an upgrade with its hash."""

import json
from typing import Any

import pytest

from agent.cgminer.control.braiins_rest import BraiinsRest
from agent.cgminer.control.driver import Result
from agent.errors import Transient
from sitelink.types import Outcome, Verb
from tests.contract.control.fake_braiins_rest import GROUPS, MINER_ID, FakeBraiinsRest
from tests.contract.control.world import IMAGE, POOLS, SECRET, Wanted, at_work, order, wanted
from tests.contract.fake_web import page

pytestmark = pytest.mark.agent


async def carried(miner: FakeBraiinsRest, asked: Wanted, **more: Any) -> tuple[Result, list[str]]:
    async with at_work(miner, "braiins-rest", MINER_ID) as device:
        return await order(BraiinsRest(), device, MINER_ID, asked, **more)


async def test_a_stop_pauses_and_a_start_resumes() -> None:
    miner = FakeBraiinsRest()
    stopped, _ = await carried(miner, wanted(Verb.STOP))
    assert (stopped.outcome, stopped.reason) == (Outcome.COMPLETE, "power_below_idle")
    started, _ = await carried(miner, wanted(Verb.START))
    assert (started.outcome, started.reason, miner.told) == (
        Outcome.COMPLETE,
        "hashing",
        ["actions/pause", "actions/resume"],
    )


async def test_a_miner_whose_process_is_down_is_started_and_not_resumed() -> None:
    miner = FakeBraiinsRest(state=1)
    result, _ = await carried(miner, wanted(Verb.START))
    assert (result.outcome, miner.told) == (Outcome.COMPLETE, ["actions/start"])


async def test_a_process_that_stays_down_proves_neither_start_nor_stop() -> None:
    miner = FakeBraiinsRest(state=1, effect=False, uptime_s=0)
    result, _ = await carried(miner, wanted(Verb.START), deadline_s=0.2)
    assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "not_hashing")
    result, _ = await carried(miner, wanted(Verb.STOP), deadline_s=0.2)
    assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "not_paused")


@pytest.mark.parametrize("state", [4, 5])
async def test_a_suspended_or_restricted_miner_never_counts_as_stopped(state: int) -> None:
    result, _ = await carried(FakeBraiinsRest(state=state, effect=False), wanted(Verb.STOP), deadline_s=0.2)
    assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "fault")


async def test_a_pause_without_effect_is_unverified() -> None:
    result, _ = await carried(FakeBraiinsRest(effect=False), wanted(Verb.STOP), deadline_s=0.2)
    assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "still_hashing")
    result, _ = await carried(FakeBraiinsRest(state=3, effect=False), wanted(Verb.START), deadline_s=0.2)
    assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "still_paused")


async def test_a_limit_is_read_back_from_the_tuner() -> None:
    miner = FakeBraiinsRest()
    result, kept = await carried(miner, wanted(Verb.LIMIT))
    assert (result.outcome, result.reason, miner.target_w) == (Outcome.COMPLETE, "power_within_limit", 2800)
    assert json.loads(kept[0]) == {"tuner": {"enabled": True, "power_target": {"watt": 3200}}}
    refused, _ = await carried(miner, wanted(Verb.LIMIT, mode="low"))
    assert (refused.outcome, refused.reason) == (Outcome.REFUSED, "mode_unsupported")


async def test_pools_become_the_only_group() -> None:
    miner = FakeBraiinsRest()
    result, kept = await carried(miner, wanted(Verb.POOLS))
    assert (result.outcome, result.reason) == (Outcome.COMPLETE, "pools_in_force")
    assert miner.groups == [
        {
            "name": "foremanGroup",
            "pools": [{"enabled": True, **pool} for pool in POOLS],
            "load_balance_strategy": {"quota": {"value": 1}},
        }
    ]
    assert json.loads(kept[0]) == {"pool_groups": GROUPS}


async def test_pools_of_a_paused_miner_are_refused() -> None:
    miner = FakeBraiinsRest(state=3)
    result, _ = await carried(miner, wanted(Verb.POOLS))
    assert (result.outcome, result.reason, miner.told) == (Outcome.REFUSED, "miner_stopped", [])


@pytest.mark.parametrize("on", ["true", "false"])
async def test_the_lamp_is_switched_once(on: str) -> None:
    miner = FakeBraiinsRest(lamp=on == "false")
    for _ in range(2):
        result, _ = await carried(miner, wanted(Verb.BLINK, on=on))
        assert (result.outcome, miner.lamp) == (Outcome.COMPLETE, on == "true")
    assert miner.told == ["actions/locate"]


async def test_a_password_is_changed_and_used() -> None:
    miner = FakeBraiinsRest()
    async with at_work(miner, "braiins-rest", MINER_ID) as device:
        result, _ = await order(BraiinsRest(), device, MINER_ID, wanted(Verb.PASSWORD))
        assert (result.outcome, device.credentials) == (Outcome.COMPLETE, ("root", SECRET))
        lamp, _ = await order(BraiinsRest(), device, MINER_ID, wanted(Verb.BLINK))
    assert (lamp.outcome, miner.told) == (Outcome.COMPLETE, ["auth/password", "actions/locate"])


async def test_an_interrupted_change_of_password_is_found_in_force() -> None:
    miner = FakeBraiinsRest(password=SECRET)
    async with at_work(miner, "braiins-rest", MINER_ID, password="old") as device:
        driver = BraiinsRest()
        await driver.send(device, wanted(Verb.PASSWORD), "")
        assert device.credentials == ("root", SECRET)
    assert miner.told == []


async def test_a_token_that_has_expired_is_renewed_once() -> None:
    miner = FakeBraiinsRest()
    async with at_work(miner, "braiins-rest", MINER_ID) as device:
        driver = BraiinsRest()
        await order(driver, device, MINER_ID, wanted(Verb.BLINK, on="true"))
        miner.token = "another"
        result, _ = await order(driver, device, MINER_ID, wanted(Verb.BLINK, on="false"))
    assert (result.outcome, miner.lamp) == (Outcome.COMPLETE, False)


async def test_an_upgrade_is_sent_whole_with_its_hash_and_shows_by_its_version() -> None:
    miner = FakeBraiinsRest()
    result, kept = await carried(miner, wanted(Verb.FIRMWARE))
    assert (result.outcome, result.reason, miner.upload) == (Outcome.COMPLETE, "version_in_force", IMAGE)
    assert json.loads(json.loads(kept[0])["former"]) == {"version": "2026-04-14-0-912d084c-26.04-plus"}


@pytest.mark.parametrize("version", ["2", "2026-04", "26.0"])
async def test_an_upgrade_without_effect_is_not_in_force_by_a_part_of_its_version(version: str) -> None:
    miner = FakeBraiinsRest(effect=False)
    result, _ = await carried(miner, wanted(Verb.FIRMWARE, version=version), deadline_s=0.2)
    assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "version_not_in_force")


@pytest.mark.parametrize("version", ["2026-04-14-0-912d084c-26.04-plus", "26.04", "26.04-plus"])
async def test_firmware_that_runs_already_is_not_sent(version: str) -> None:
    miner = FakeBraiinsRest()
    result, kept = await carried(miner, wanted(Verb.FIRMWARE, version=version))
    assert (result.outcome, result.reason) == (Outcome.COMPLETE, "already_in_force")
    assert (kept, miner.told, miner.upload) == ([], [], b"")


async def test_an_unreadable_former_version_leaves_the_reboot_to_prove_it() -> None:
    miner = FakeBraiinsRest(version="")
    result, _ = await carried(miner, wanted(Verb.FIRMWARE), deadline_s=0.2)
    assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "uptime_not_reset")


async def test_an_older_firmware_has_no_upgrade_and_gives_its_archive_for_logs() -> None:
    refused, _ = await carried(FakeBraiinsRest(old=True), wanted(Verb.FIRMWARE))
    assert (refused.outcome, refused.reason) == (Outcome.REFUSED, "unsupported")
    logs, _ = await carried(FakeBraiinsRest(old=True), wanted(Verb.LOGS))
    assert (logs.outcome, logs.content) == (Outcome.COMPLETE, b"PK\x03\x04zip")
    logs, _ = await carried(FakeBraiinsRest(), wanted(Verb.LOGS))
    assert logs.content == b"bosminer log\n"


async def test_a_reboot_shows_by_its_uptime() -> None:
    miner = FakeBraiinsRest()
    result, _ = await carried(miner, wanted(Verb.REBOOT))
    assert (result.outcome, result.reason, miner.told) == (Outcome.COMPLETE, "uptime_reset", ["actions/reboot"])


async def test_a_page_that_cannot_tell_who_answers_is_asked_again_and_not_given_up() -> None:
    miner = FakeBraiinsRest()
    real = miner.web

    def failing(asked: Any) -> bytes:
        return page({}, "503 Service Unavailable") if asked.target.endswith("details") else real(asked)

    async with at_work(miner, "braiins-rest", MINER_ID) as device:
        miner.web = failing  # type: ignore[method-assign]
        with pytest.raises(Transient, match="its web page cannot answer now"):
            await order(BraiinsRest(), device, MINER_ID, wanted(Verb.STOP))
        miner.web = real  # type: ignore[method-assign]
        result, _ = await order(BraiinsRest(), device, MINER_ID, wanted(Verb.STOP))
    assert (result.outcome, miner.told) == (Outcome.COMPLETE, ["actions/pause"])
