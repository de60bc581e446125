"""VNish: presets that are tuned, a lamp that toggles, settings that may restart a miner."""

import json
from typing import Any

import pytest

from agent.cgminer.control.driver import Result
from agent.cgminer.control.vnish import Vnish
from agent.errors import SessionBusy
from sitelink.types import Outcome, Verb
from tests.contract.control.fake_vnish import MINER_ID, SETTINGS, FakeVnish
from tests.contract.control.world import POOLS, SECRET, Wanted, at_work, order, wanted

pytestmark = pytest.mark.agent


async def carried(miner: FakeVnish, asked: Wanted, **more: Any) -> tuple[Result, list[str]]:
    async with at_work(miner, "vnish", MINER_ID) as device:
        return await order(Vnish(), device, MINER_ID, asked, **more)


async def test_a_stop_and_a_start_are_sent_once() -> None:
    miner = FakeVnish()
    for verb, reason in ((Verb.STOP, "power_below_idle"), (Verb.STOP, "already_idle"), (Verb.START, "hashing")):
        result, _ = await carried(miner, wanted(verb))
        assert (result.outcome, result.reason) == (Outcome.COMPLETE, reason)
    assert miner.told == ["mining/stop", "mining/start"]


@pytest.mark.parametrize("state", ["failure", "initializing"])
async def test_a_miner_that_stands_still_by_itself_never_counts_as_stopped(state: str) -> None:
    result, _ = await carried(FakeVnish(state=state, effect=False), wanted(Verb.STOP), deadline_s=0.2)
    assert result.outcome is Outcome.UNVERIFIED
    assert result.reason in {"not_stopped", "fault"}


async def test_a_limit_is_the_preset_of_its_watts_with_all_else_as_it_was() -> None:
    miner = FakeVnish()
    result, kept = await carried(miner, wanted(Verb.LIMIT, power_w="2800"))
    assert (result.outcome, result.reason) == (Outcome.COMPLETE, "power_within_limit")
    assert miner.told == ["settings", "mining/restart"]
    overclock = {**SETTINGS["miner"]["overclock"], "preset": "2800"}
    assert miner.settings == {**SETTINGS, "miner": {**SETTINGS["miner"], "overclock": overclock}}
    assert json.loads(kept[0]) == {"overclock": SETTINGS["miner"]["overclock"]}


async def test_watts_without_a_preset_take_the_highest_tuned_one_below() -> None:
    miner = FakeVnish()
    result, _ = await carried(miner, wanted(Verb.LIMIT, power_w="3100"))
    assert (result.outcome, miner.settings["miner"]["overclock"]["preset"]) == (Outcome.COMPLETE, "2800")


@pytest.mark.parametrize(
    ("power_w", "tuned", "reason", "said"),
    [
        ("2550", ("2800",), "preset_untuned", "2550 is not tuned"),
        ("2000", ("2800",), "no_preset", "choose one of 2800"),
        ("3000", (), "no_preset", "none that is tuned"),
    ],
)
async def test_an_untuned_preset_is_refused_and_never_starts_a_tuning(
    power_w: str, tuned: tuple[str, ...], reason: str, said: str
) -> None:
    miner = FakeVnish(tuned=tuned)
    result, _ = await carried(miner, wanted(Verb.LIMIT, power_w=power_w))
    assert (result.outcome, result.reason, miner.told) == (Outcome.REFUSED, reason, [])
    assert said in result.detail


async def test_the_preset_switcher_is_capped_with_the_limit() -> None:
    miner = FakeVnish()
    switcher = miner.settings["miner"]["overclock"]["preset_switcher"]
    switcher |= {"enabled": True, "min_preset": "3160"}
    result, _ = await carried(miner, wanted(Verb.LIMIT, power_w="2800"))
    assert result.outcome is Outcome.COMPLETE
    assert miner.settings["miner"]["overclock"]["preset_switcher"] == {
        **switcher,
        "top_preset": "2800",
        "min_preset": "2800",
    }


async def test_a_preset_from_which_the_switcher_may_rise_is_no_limit_yet() -> None:
    miner = FakeVnish()
    overclock = miner.settings["miner"]["overclock"]
    overclock["preset"] = "2800"
    overclock["preset_switcher"] |= {"enabled": True, "top_preset": "3160"}
    result, _ = await carried(miner, wanted(Verb.LIMIT, power_w="2800"))
    assert (result.outcome, miner.told[0]) == (Outcome.COMPLETE, "settings")
    assert miner.settings["miner"]["overclock"]["preset_switcher"]["top_preset"] == "2800"
    result, _ = await carried(miner, wanted(Verb.LIMIT, power_w="2800"))
    assert (result.outcome, miner.told.count("settings")) == (Outcome.COMPLETE, 1)


@pytest.mark.parametrize("verb", [Verb.LIMIT, Verb.POOLS])
async def test_settings_of_a_stopped_miner_do_not_start_it(verb: Verb) -> None:
    miner = FakeVnish(state="stopped")
    result, _ = await carried(miner, wanted(verb))
    assert (result.outcome, miner.told, miner.state) == (Outcome.COMPLETE, ["settings"], "stopped")


async def test_pools_keep_the_form_that_the_device_has() -> None:
    miner = FakeVnish()
    result, kept = await carried(miner, wanted(Verb.POOLS))
    assert (result.outcome, result.reason) == (Outcome.COMPLETE, "pools_in_force")
    assert miner.settings["miner"]["pools"] == [
        {"url": "new.example:3333", "user": "site.1", "pass": "p1"},
        {"url": "spare.example:443", "user": "site.1", "pass": "p2"},
        {"url": "", "user": "", "pass": ""},
    ]
    assert json.loads(kept[0]) == {"pools": SETTINGS["miner"]["pools"]}
    for pool in miner.settings["miner"]["pools"]:
        pool["url"] = pool["url"] and f"stratum+tcp://{pool['url']}"
    result, _ = await carried(miner, wanted(Verb.POOLS))
    assert [pool["url"] for pool in miner.settings["miner"]["pools"]] == [*(pool["url"] for pool in POOLS), ""]


@pytest.mark.parametrize("on", ["true", "false"])
async def test_the_lamp_toggles_only_when_it_is_not_as_wanted(on: str) -> None:
    miner = FakeVnish(lamp=on == "false")
    async with at_work(miner, "vnish", MINER_ID) as device:
        for _ in range(2):
            await Vnish().send(device, wanted(Verb.BLINK, on=on), "")
    assert (miner.lamp, miner.told) == (on == "true", ["find-miner"])


async def test_a_password_is_changed_and_used() -> None:
    miner = FakeVnish()
    async with at_work(miner, "vnish", MINER_ID) as device:
        result, _ = await order(Vnish(), device, MINER_ID, wanted(Verb.PASSWORD))
        assert (result.outcome, device.credentials) == (Outcome.COMPLETE, ("admin", SECRET))
        stopped, _ = await order(Vnish(), device, MINER_ID, wanted(Verb.STOP))
    assert (stopped.outcome, miner.told) == (Outcome.COMPLETE, ["password", "mining/stop"])


async def test_an_interrupted_change_of_password_is_found_in_force() -> None:
    miner = FakeVnish(password=SECRET)
    async with at_work(miner, "vnish", MINER_ID, password="old") as device:
        await Vnish().send(device, wanted(Verb.PASSWORD), "")
        assert device.credentials == ("admin", SECRET)
    assert miner.told == []


async def test_too_many_logins_are_busy_and_not_denied() -> None:
    miner = FakeVnish(too_often=True)
    with pytest.raises(SessionBusy, match="answers a login with 429"):
        await carried(miner, wanted(Verb.STOP))
    assert miner.told == []


async def test_a_preset_that_is_disabled_is_no_limit_in_force() -> None:
    miner = FakeVnish(effect=False)
    miner.settings["miner"]["overclock"]["preset"] = "disabled"
    result, _ = await carried(miner, wanted(Verb.LIMIT), deadline_s=0.2)
    assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "limit_not_in_force")


async def test_firmware_keeps_its_settings_and_shows_by_its_version() -> None:
    miner = FakeVnish()
    result, kept = await carried(miner, wanted(Verb.FIRMWARE))
    assert (result.outcome, result.reason, miner.told) == (Outcome.COMPLETE, "version_in_force", ["update"])
    assert json.loads(json.loads(kept[0])["former"]) == {"version": "1.2.7"}


async def test_firmware_that_runs_already_is_not_sent_and_a_part_of_its_version_is_another() -> None:
    miner = FakeVnish(effect=False)
    result, kept = await carried(miner, wanted(Verb.FIRMWARE, version="1.2.7"))
    assert (result.outcome, result.reason, kept, miner.told) == (Outcome.COMPLETE, "already_in_force", [], [])
    result, _ = await carried(miner, wanted(Verb.FIRMWARE, version="1.2"), deadline_s=0.2)
    assert (result.outcome, result.reason, miner.told) == (Outcome.UNVERIFIED, "version_not_in_force", ["update"])


async def test_a_reboot_shows_by_its_uptime_and_logs_come_under_their_names() -> None:
    miner = FakeVnish()
    result, _ = await carried(miner, wanted(Verb.REBOOT))
    assert (result.outcome, miner.told) == (Outcome.COMPLETE, ["system/reboot"])
    logs, _ = await carried(miner, wanted(Verb.LOGS))
    assert logs.content.startswith(b"== status\nlogs/status says\n== miner\n")
