"""Stock Antminer: what is written back, what is restored, and what never counts as a stop."""

import json
from typing import Any

import pytest

from agent.cgminer.control.antminer import Antminer
from agent.cgminer.control.driver import Result
from agent.errors import AccessDenied, Garbled, WrongDevice
from sitelink.types import Evidence, Outcome, Verb
from tests.contract.control.fake_antminer import CONF, MINER_ID, FakeAntminer
from tests.contract.control.world import POOLS, SECRET, Wanted, at_work, order, wanted

pytestmark = pytest.mark.agent


async def carried(miner: FakeAntminer, asked: Wanted, **more: Any) -> tuple[Result, list[str]]:
    async with at_work(miner, "antminer", MINER_ID) as device:
        return await order(Antminer(), device, MINER_ID, asked, **more)


async def test_a_stop_writes_back_all_that_was_read_with_the_mode_alone_changed() -> None:
    miner = FakeAntminer()
    result, kept = await carried(miner, wanted(Verb.STOP))
    assert (result.outcome, result.reason) == (Outcome.COMPLETE, "reads_idle")
    assert miner.posted == [{**CONF, "bitmain-work-mode": "1"}]
    assert list(miner.posted[0]) == list(CONF)
    assert [json.loads(text) for text in kept] == [{"bitmain-work-mode": "0"}]


@pytest.mark.parametrize(
    ("modes", "sent"),
    [
        ({"bitmain-work-mode": 0}, {"bitmain-work-mode": 1}),
        ({"miner-mode": "0"}, {"miner-mode": "1"}),
        ({"miner-mode": 3, "bitmain-work-mode": "3"}, {"miner-mode": 1, "bitmain-work-mode": "1"}),
    ],
)
async def test_each_mode_key_that_is_there_is_written_in_its_own_type(
    modes: dict[str, Any], sent: dict[str, Any]
) -> None:
    miner = FakeAntminer()
    del miner.conf["bitmain-work-mode"]
    miner.conf |= modes
    result, _ = await carried(miner, wanted(Verb.STOP))
    assert result.outcome is Outcome.COMPLETE
    assert {key: value for key, value in miner.posted[0].items() if "mode" in key} == sent


async def test_a_build_that_takes_only_what_its_page_sends_is_sent_that_too() -> None:
    miner = FakeAntminer(page_form=True)
    result, _ = await carried(miner, wanted(Verb.STOP))
    assert result.outcome is Outcome.COMPLETE
    assert [post.get("miner-mode") for post in miner.posted] == [None, 1]
    assert miner.posted[1]["freq-level"] == "100"
    assert {**miner.conf, "bitmain-work-mode": "0"} == CONF


@pytest.mark.parametrize(("former", "mode"), [("0", "0"), ("3", "3"), ("2", "0"), (None, "0")])
async def test_a_start_brings_the_former_mode_back_and_never_mode_2(former: str | None, mode: str) -> None:
    miner = FakeAntminer(stopped=True)
    miner.conf["bitmain-work-mode"] = "1"
    kept = "" if former is None else json.dumps({"bitmain-work-mode": former})
    result, _ = await carried(miner, wanted(Verb.START), kept=kept)
    assert (result.outcome, miner.conf["bitmain-work-mode"]) == (Outcome.COMPLETE, mode)


async def test_a_low_miner_is_stopped_and_started_low() -> None:
    miner = FakeAntminer()
    miner.conf["bitmain-work-mode"] = "3"
    async with at_work(miner, "antminer", MINER_ID) as device:
        driver = Antminer()
        _, kept = await order(driver, device, MINER_ID, wanted(Verb.STOP))
        again, kept_again = await order(driver, device, MINER_ID, wanted(Verb.STOP))
        assert (again.outcome, kept_again) == (Outcome.COMPLETE, [""])
        result, _ = await order(driver, device, MINER_ID, wanted(Verb.START), kept=kept[0])
    assert (result.outcome, miner.conf["bitmain-work-mode"], len(miner.posted)) == (Outcome.COMPLETE, "3", 2)


async def test_an_overheated_miner_never_counts_as_stopped() -> None:
    miner = FakeAntminer(hot=True, effect=False)
    result, _ = await carried(miner, wanted(Verb.STOP), deadline_s=0.3)
    assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "thermal")
    cool = FakeAntminer(effect=False)
    cool.rpc = lambda: {**FakeAntminer.rpc(cool), "stats": lambda _: FakeAntminer(stopped=True)._stats()}  # type: ignore[method-assign]
    result, _ = await carried(cool, wanted(Verb.STOP), deadline_s=0.3)
    assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "state_unknown")


async def test_a_miner_in_sleep_mode_that_still_hashes_is_told_again() -> None:
    miner = FakeAntminer()
    miner.conf["bitmain-work-mode"] = "1"
    result, kept = await carried(miner, wanted(Verb.STOP))
    assert (result.outcome, len(miner.posted), kept) == (Outcome.COMPLETE, 1, [""])


async def test_a_stop_that_has_not_shown_yet_is_not_posted_again_for_a_minute() -> None:
    miner = FakeAntminer()
    async with at_work(miner, "antminer", MINER_ID) as device:
        driver = Antminer()
        await driver.send(device, wanted(Verb.STOP), "")
        miner.stopped = False
        await driver.send(device, wanted(Verb.STOP), "")
    assert len(miner.posted) == 1


async def test_a_configuration_changed_between_read_and_write_is_read_afresh_by_each_order() -> None:
    miner = FakeAntminer()
    async with at_work(miner, "antminer", MINER_ID) as device:
        driver = Antminer()
        _, kept = await order(driver, device, MINER_ID, wanted(Verb.STOP))
        miner.conf["bitmain-fan-pwm"] = "42"
        await order(driver, device, MINER_ID, wanted(Verb.START), kept=kept[0])
    assert miner.conf["bitmain-fan-pwm"] == "42"


@pytest.mark.parametrize(
    "body", [b'{"bitmain-work-mode": "0",}', b'{"a": 1, "a": 2, "bitmain-work-mode": "0"}', b"[1]"]
)
async def test_a_configuration_that_cannot_be_read_to_the_letter_is_not_written(body: bytes) -> None:
    miner = FakeAntminer()
    real = miner.web

    def web(asked: Any) -> bytes:
        found = real(asked)
        return found if b"miner-work-mode" not in found and b"bitmain" not in found else _with_body(body)

    miner.web = web  # type: ignore[method-assign]
    async with at_work(miner, "antminer", MINER_ID) as device:
        with pytest.raises(Garbled, match="cannot be read to the letter"):
            await Antminer().send(device, wanted(Verb.STOP), "")
    assert miner.posted == []


def _with_body(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


async def test_letters_that_are_no_utf_8_go_back_as_they_came() -> None:
    miner = FakeAntminer()
    worker = b'"user":"\xbf\xf3\xb3\xa1.1 \xc3\xbc"'
    raw = b'{"pools":[{"url":"stratum+tcp://old.example:3333",' + worker + b',"pass":"x"}],"bitmain-work-mode":"0"}'
    real = miner.web

    def web(asked: Any) -> bytes:
        found = real(asked)
        if asked.target.endswith("get_miner_conf.cgi") and b"200 OK" in found:
            return _with_body(raw)
        return found

    miner.web = web  # type: ignore[method-assign]
    miner.conf = {"bitmain-work-mode": "0", "pools": []}
    async with at_work(miner, "antminer", MINER_ID) as device:
        await Antminer().send(device, wanted(Verb.STOP), "")
    posts = [asked.body for asked in miner.asked if asked.target.endswith("set_miner_conf.cgi") and asked.body]
    assert raw.replace(b'"bitmain-work-mode":"0"', b'"bitmain-work-mode":"1"') in posts


async def test_a_firmware_without_modes_is_told_to_use_an_outlet() -> None:
    miner = FakeAntminer()
    del miner.conf["bitmain-work-mode"]
    result, _ = await carried(miner, wanted(Verb.STOP))
    assert (result.outcome, result.reason) == (Outcome.REFUSED, "unsupported")
    assert "outlet in inventory.csv" in result.detail


@pytest.mark.parametrize(("mode", "sent"), [("low", "3"), ("normal", "0")])
async def test_a_mode_is_a_limit(mode: str, sent: str) -> None:
    miner = FakeAntminer()
    miner.conf["bitmain-work-mode"] = "0" if mode == "low" else "3"
    result, kept = await carried(miner, wanted(Verb.LIMIT, mode=mode))
    assert (result.outcome, result.reason, miner.conf["bitmain-work-mode"]) == (Outcome.COMPLETE, "mode_in_force", sent)
    assert json.loads(kept[0]) == {"bitmain-work-mode": "0" if mode == "low" else "3"}


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"mode": "high"}, "mode_unsupported"),
        ({"power_w": "3000"}, "power_limit_unsupported"),
        ({"power_w": "3000", "mode": "low"}, "bad_parameters"),
        ({"power_w": "much"}, "bad_parameters"),
    ],
)
async def test_limits_that_it_does_not_know_are_refused_with_their_reason(
    parameters: dict[str, str], reason: str
) -> None:
    miner = FakeAntminer()
    result, _ = await carried(miner, wanted(Verb.LIMIT, **parameters))
    assert (result.outcome, result.reason, miner.posted) == (Outcome.REFUSED, reason, [])


async def test_a_limit_does_not_wake_a_stopped_miner() -> None:
    miner = FakeAntminer(stopped=True)
    miner.conf["bitmain-work-mode"] = "1"
    result, _ = await carried(miner, wanted(Verb.LIMIT, mode="low"))
    assert (result.outcome, result.reason, miner.posted) == (Outcome.REFUSED, "miner_stopped", [])


async def test_pools_are_replaced_and_a_stopped_miner_stays_stopped() -> None:
    miner = FakeAntminer(stopped=True)
    miner.conf["bitmain-work-mode"] = "1"
    result, kept = await carried(miner, wanted(Verb.POOLS))
    assert (result.outcome, result.reason) == (Outcome.COMPLETE, "pools_in_force")
    told = [{"url": pool["url"], "user": pool["user"], "pass": pool["password"]} for pool in POOLS]
    assert miner.conf["pools"] == [*told, {"url": "", "user": "", "pass": ""}]
    assert {**miner.conf, "pools": CONF["pools"], "bitmain-work-mode": "0"} == CONF
    assert json.loads(kept[0]) == {"pools": CONF["pools"]}
    assert miner.stopped


@pytest.mark.parametrize("takes", [str, bool])
@pytest.mark.parametrize("on", ["true", "false"])
async def test_the_lamp_is_switched_in_either_form_and_read_back(takes: type, on: str) -> None:
    miner = FakeAntminer(lamp=on == "false", lamp_wants=takes)
    result, kept = await carried(miner, wanted(Verb.BLINK, on=on))
    assert (result.outcome, miner.lamp) == (Outcome.COMPLETE, on == "true")
    assert json.loads(kept[0]) == {"blink": on == "false"}
    again, _ = await carried(miner, wanted(Verb.BLINK, on=on))
    assert (again.outcome, miner.told) == (Outcome.COMPLETE, ["blink"])


async def test_a_password_is_changed_once_and_used_from_then_on() -> None:
    miner = FakeAntminer()
    async with at_work(miner, "antminer", MINER_ID) as device:
        result, _ = await order(Antminer(), device, MINER_ID, wanted(Verb.PASSWORD))
        assert (result.outcome, miner.password) == (Outcome.COMPLETE, SECRET)
        assert device.credentials == ("root", SECRET)
        again, _ = await order(Antminer(), device, MINER_ID, wanted(Verb.PASSWORD))
    assert (again.outcome, miner.told) == (Outcome.COMPLETE, ["password"])


async def test_a_password_that_an_interrupted_order_changed_is_found_in_force() -> None:
    miner = FakeAntminer(password=SECRET)
    async with at_work(miner, "antminer", MINER_ID, password="old") as device:
        result, _ = await order(Antminer(), device, MINER_ID, wanted(Verb.PASSWORD), kept="{}")
        assert (result.outcome, device.credentials) == (Outcome.COMPLETE, ("root", SECRET))
    assert miner.told == []


async def test_a_wrong_password_is_access_denied_and_names_whose_it_is() -> None:
    miner = FakeAntminer()
    async with at_work(miner, "antminer", MINER_ID, password="wrong") as device:
        with pytest.raises(AccessDenied, match=r"refuses our credentials .* its group"):
            await order(Antminer(), device, MINER_ID, wanted(Verb.STOP))
        result, _ = await order(Antminer(), device, MINER_ID, wanted(Verb.REBOOT))
    assert (result.outcome, result.reason, miner.told) == (Outcome.REFUSED, "access_denied", [])


async def test_a_reboot_shows_by_its_uptime() -> None:
    miner = FakeAntminer()
    result, _ = await carried(miner, wanted(Verb.REBOOT))
    assert (result.outcome, result.reason, result.evidence) == (
        Outcome.COMPLETE,
        "uptime_reset",
        Evidence.DEVICE_STATE,
    )
    assert miner.told == ["reboot"]
    assert [asked.method for asked in miner.asked if asked.target.endswith("reboot.cgi")][-1] == "POST"


@pytest.mark.parametrize("log_page", ["log.cgi", "get_kernel_log.cgi"])
async def test_logs_come_from_either_page(log_page: str) -> None:
    result, _ = await carried(FakeAntminer(log_page=log_page), wanted(Verb.LOGS))
    assert (result.outcome, result.content) == (Outcome.COMPLETE, b"bmminer started\n")


async def test_firmware_is_not_uploaded_and_another_miner_is_told_nothing() -> None:
    miner = FakeAntminer()
    result, _ = await carried(miner, wanted(Verb.FIRMWARE))
    assert (result.outcome, result.reason) == (Outcome.REFUSED, "unsupported")
    async with at_work(miner, "antminer", "another") as device:
        with pytest.raises(WrongDevice):
            await order(Antminer(), device, "another", wanted(Verb.STOP))
    assert miner.told == []
