"""Whatsminer of API v2 and v3: each verb as MicroBT documents it, tokens and signatures, and each trouble."""

import asyncio
import json
from dataclasses import replace

import pytest

from agent.cgminer.control import MinerControl
from agent.cgminer.control.driver import Wanted
from agent.cgminer.control.drivers import driver_of
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.errors import AgentError, Garbled, TooLarge, Unreachable
from sitelink.types import Outcome, Verb
from tests.contract.control.rpc_fakes import ID, device_at, order
from tests.contract.control.whatsminer_fakes import V2, V3, Whatsminer

pytestmark = pytest.mark.agent

NEW = [
    {"url": "stratum+tcp://x.example:1", "user": "acct.1", "password": "p,q"},
    {"url": "stratum+tcp://y.example:1", "user": "acct.1", "password": "q"},
]
IMAGE = b"firmware version=20270101.1.REL"
POOLS = Wanted(Verb.POOLS, {"pools": json.dumps(NEW)})
BLINK = Wanted(Verb.BLINK, {"on": "true"})
LIMIT, LOW = Wanted(Verb.LIMIT, {"power_w": "2500"}), Wanted(Verb.LIMIT, {"mode": "low"})
ROTATE = Wanted(Verb.PASSWORD, secret="n3w_pw_1")
FLASH = Wanted(Verb.FIRMWARE, {"file": "f", "sha256": "", "version": "20270101.1.REL"}, image=IMAGE)
EVERY = [
    (Wanted(Verb.STOP), "power_below_idle"),
    (LIMIT, "power_within_limit"),
    (LOW, "mode_in_force"),
    (POOLS, "pools_in_force"),
    (BLINK, "lamp_as_wanted"),
    (ROTATE, "password_in_force"),
    (Wanted(Verb.REBOOT), "uptime_reset"),
    (FLASH, "version_in_force"),
    (Wanted(Verb.LOGS), "logs_received"),
]
GENERATIONS = [(V2, "whatsminer", "admin"), (V3, "whatsminer-v3", "super")]
both = pytest.mark.parametrize(("kind", "dialect", "user"), GENERATIONS, ids=["v2", "v3"])


def device_of(address, dialect: str, user: str, password: str = "old") -> Device:
    return device_at(address, dialect, Credentials(user, password))


@both
@pytest.mark.parametrize(("asked", "reason"), EVERY)
async def test_each_verb_is_done_and_read_back(kind, dialect: str, user: str, asked: Wanted, reason: str) -> None:
    miner = kind()
    async with miner.serving() as address:
        result, _ = await order(device_of(address, dialect, user), asked)
    assert (result.outcome, result.reason) == (Outcome.COMPLETE, reason)
    assert result.content == (miner.logs if asked.verb is Verb.LOGS else b"")


@both
@pytest.mark.parametrize("switch", [Verb.STOP, Verb.START])
async def test_a_log_under_way_gives_way_to_a_switch(kind, dialect: str, user: str, switch: Verb) -> None:
    miner = kind()
    miner.stalls = True
    miner.off = switch is Verb.START
    async with miner.serving() as address:
        control = MinerControl(device_of(address, dialect, user), ID)
        fetching = asyncio.create_task(control.carry_out(Wanted(Verb.LOGS), keep_nothing))
        async with asyncio.timeout(1):
            await miner.amid_logs.wait()
            await (control.stop() if switch is Verb.STOP else control.start())
            await miner.let_go.wait()
        result = await fetching
    assert miner.off is (switch is Verb.STOP)
    assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "broken_off")
    assert "order the log again" in result.detail


async def keep_nothing(former: str) -> None:
    """Keep no former configuration."""


@both
async def test_a_stopped_miner_starts_again(kind, dialect: str, user: str) -> None:
    miner = kind()
    miner.off = True
    async with miner.serving() as address:
        assert (await order(device_of(address, dialect, user), Wanted(Verb.START)))[0].reason == "hashing"


@both
@pytest.mark.parametrize("asked", [asked for asked, _ in EVERY if asked.verb is not Verb.LOGS])
async def test_an_ack_without_effect_is_never_complete(kind, dialect: str, user: str, asked: Wanted) -> None:
    miner = kind()
    miner.effect = False
    async with miner.serving() as address:
        result, _ = await order(device_of(address, dialect, user), asked)
    assert result.outcome is Outcome.UNVERIFIED
    assert result.reason.endswith(("_not_in_force", "_not_as_wanted", "still_hashing", "uptime_not_reset"))


@both
async def test_what_is_replaced_is_told_before_it_is(kind, dialect: str, user: str) -> None:
    miner = kind()
    async with miner.serving() as address:
        device = device_of(address, dialect, user)
        kept = [json.loads((await order(device, asked))[1][0]) for asked in (LIMIT, POOLS, BLINK)]
    limit, pools, lamp = kept
    assert {str(value) for value in limit.values()} == {"normal", "3600"}
    assert [row.get("URL", row.get("url")) for row in pools["pools"]] == ["stratum+tcp://old.example:1"]
    assert list(lamp.values()) == ["auto"]


@both
@pytest.mark.parametrize("asked", [LIMIT, LOW, POOLS])
async def test_what_restarts_mining_is_not_told_to_a_stopped_miner(
    kind, dialect: str, user: str, asked: Wanted
) -> None:
    miner = kind()
    miner.off = True
    async with miner.serving() as address:
        result, _ = await order(device_of(address, dialect, user), asked)
    assert (result.outcome, result.reason, miner.told) == (Outcome.REFUSED, "miner_stopped", [])


@both
@pytest.mark.parametrize("asked", [Wanted(Verb.STOP), LIMIT, POOLS, BLINK, ROTATE, Wanted(Verb.REBOOT), FLASH])
async def test_a_wrong_password_is_refused_at_once_and_costs_few_tokens(
    kind, dialect: str, user: str, asked: Wanted
) -> None:
    miner = kind()
    async with miner.serving() as address:
        result, _ = await order(device_of(address, dialect, user, "wrong"), asked)
    assert (result.outcome, result.reason, miner.told) == (Outcome.REFUSED, "access_denied", [])
    assert "credentials group" in result.detail
    assert "wrong" not in result.detail
    assert getattr(miner, "tokens", 0) <= 3


@both
@pytest.mark.parametrize(
    ("trouble", "outcome", "reason", "words"),
    [
        ("denied", Outcome.REFUSED, "access_denied", "enable the write API"),
        ("unknown", Outcome.REFUSED, "unsupported", "check its firmware version"),
        ("busy", Outcome.UNVERIFIED, "session_busy", "it is tried again"),
    ],
)
async def test_refusals_are_told_apart(
    kind, dialect: str, user: str, trouble: str, outcome: Outcome, reason: str, words: str
) -> None:
    miner = kind()
    two = {
        "denied": (45, "can't access write cmd", "E"),
        "unknown": (14, "invalid cmd", "E"),
        "busy": (136, "over max", "E"),
    }
    three = {"denied": (-4, "no permission"), "unknown": (-2, "invalid command"), "busy": (-5, "system busy")}
    miner.trouble = [(two if kind is V2 else three)[trouble]] * 99
    async with miner.serving() as address:
        result, _ = await order(device_of(address, dialect, user), Wanted(Verb.STOP))
    assert (result.outcome, result.reason, words in result.detail) == (outcome, reason, True)
    left = len(miner.trouble)
    assert left == 98 or reason == "session_busy"


@pytest.mark.parametrize("secret", ["", "ninechars", "a b", "pässwort", "semi;col"])
async def test_v2_takes_only_passwords_that_its_vendor_documents(secret: str) -> None:
    miner = V2()
    async with miner.serving() as address:
        result, _ = await order(device_of(address, "whatsminer", "admin"), Wanted(Verb.PASSWORD, secret=secret))
    assert (result.outcome, result.reason, miner.told) == (Outcome.REFUSED, "bad_parameters", [])
    assert miner.password == "old"


@both
async def test_the_new_password_opens_the_device_from_then_on(kind, dialect: str, user: str) -> None:
    miner = kind()
    async with miner.serving() as address:
        device = device_of(address, dialect, user)
        await order(device, ROTATE)
        assert device.credentials == Credentials(user, "n3w_pw_1")
        assert (await order(device, Wanted(Verb.STOP)))[0].outcome is Outcome.COMPLETE
        told = len(miner.told)
        again, _ = await order(device, ROTATE)  # after a kill that left it unknown whether it was done
        assert again.outcome is Outcome.COMPLETE
    assert "change_passwd" not in str(miner.told[told:]) and "update_pwd" not in str(miner.told[told:])


async def test_v2_tokens_are_not_spent_on_looking() -> None:
    miner = V2()
    miner.effect = False
    async with miner.serving() as address:
        await order(device_of(address, "whatsminer", "admin"), ROTATE, deadline_s=1.0)
    assert miner.tokens <= 6


@both
@pytest.mark.parametrize(("size", "error"), [(10**9, TooLarge), ("many", Garbled), (None, Unreachable), (-5, Garbled)])
async def test_logs_that_do_not_come_are_not_waited_for(
    kind, dialect: str, user: str, size: object, error: type[AgentError]
) -> None:
    miner = kind()
    miner.says_size, miner.breaks_off = size, True
    async with miner.serving() as address:
        driver = driver_of(dialect)
        assert driver is not None
        with pytest.raises(error):
            await driver.send(device_of(address, dialect, user), Wanted(Verb.LOGS), "")


@both
async def test_firmware_goes_out_once_whatever_becomes_of_the_answer(kind, dialect: str, user: str) -> None:
    miner = kind()
    miner.breaks_off = True
    async with miner.serving() as address:
        result, kept = await order(device_of(address, dialect, user), FLASH)
        assert (result.outcome, result.reason, miner.image) == (Outcome.UNVERIFIED, "no_reply", IMAGE)
        miner.image = b""
        again, _ = await order(device_of(address, dialect, user), FLASH, kept=kept[0])
    assert (again.reason, miner.image) == ("outcome_unknown", b"")
    assert json.loads(json.loads(kept[0])["former"]) == {"version": "v1"}


@both
async def test_firmware_that_runs_already_is_not_sent(kind, dialect: str, user: str) -> None:
    miner = kind()
    async with miner.serving() as address:
        result, kept = await order(device_of(address, dialect, user), replace(FLASH, parameters={"version": "v1"}))
        assert (result.outcome, result.reason, kept) == (Outcome.COMPLETE, "already_in_force", [])
        miner.breaks_off = True
        part, _ = await order(device_of(address, dialect, user), replace(FLASH, parameters={"version": "v"}))
    assert (part.outcome, part.reason) == (Outcome.UNVERIFIED, "no_reply")


@both
async def test_without_an_image_or_a_version_nothing_is_sent(kind, dialect: str, user: str) -> None:
    miner = kind()
    async with miner.serving() as address:
        for asked in (Wanted(Verb.FIRMWARE, {"version": "x"}), Wanted(Verb.FIRMWARE, image=IMAGE)):
            result, _ = await order(device_of(address, dialect, user), asked)
            assert (result.outcome, result.reason) == (Outcome.REFUSED, "bad_parameters")
    assert (miner.told, miner.image) == ([], b"")


async def test_v2_orders_travel_as_the_vendor_writes_them() -> None:
    miner = V2()
    async with miner.serving() as address:
        device = device_of(address, "whatsminer", "admin")
        for asked in (LIMIT, LOW, POOLS, BLINK, Wanted(Verb.BLINK, {"on": "false"}), Wanted(Verb.STOP)):
            await order(device, asked)
    assert miner.told == [
        {"cmd": "adjust_power_limit", "power_limit": "2500"},
        {"cmd": "set_low_power"},
        {
            "cmd": "update_pools",
            "pool1": NEW[0]["url"],
            "worker1": "acct.1",
            "passwd1": "p,q",
            "pool2": NEW[1]["url"],
            "worker2": "acct.1",
            "passwd2": "q",
            "pool3": "",
            "worker3": "",
            "passwd3": "",
        },
        {"cmd": "set_led", "color": "red", "period": 200, "duration": 100, "start": 0},
        {"cmd": "set_led", "param": "auto"},
        {"cmd": "power_off", "respbefore": "true"},
    ]


async def test_v3_needs_a_password_and_signs_for_super_where_the_group_names_admin() -> None:
    miner = V3()
    async with miner.serving() as address:
        result, _ = await order(device_at(address, "whatsminer-v3"), Wanted(Verb.STOP))
        assert (result.reason, "ballast-agent credentials set" in result.detail) == ("access_denied", True)
        assert (await order(device_of(address, "whatsminer-v3", "admin"), Wanted(Verb.STOP)))[
            0
        ].outcome is Outcome.COMPLETE


@pytest.mark.parametrize("missing", ["salt", "when"])
async def test_v3_without_salt_or_time_cannot_be_signed_for(missing: str) -> None:
    class Silent(V3):
        def _frame(self, code: int, message: object) -> bytes:
            body = json.loads(super()._frame(code, message)[4:])
            body["msg"] = {} if missing == "salt" else message
            body = {key: value for key, value in body.items() if key != missing}
            text = json.dumps(body).encode()
            return len(text).to_bytes(4, "little") + text

    async with Silent().serving() as address:
        driver = driver_of("whatsminer-v3")
        assert driver is not None
        with pytest.raises(Garbled, match="no salt or no time"):
            await driver.send(device_of(address, "whatsminer-v3", "super"), Wanted(Verb.STOP), "")


@pytest.mark.parametrize("mode", ["turbo", ""])
async def test_modes_that_do_not_exist_are_refused(mode: str) -> None:
    for kind, dialect, user in GENERATIONS:
        miner: Whatsminer = kind()
        async with miner.serving() as address:
            result, _ = await order(device_of(address, dialect, user), Wanted(Verb.LIMIT, {"mode": mode}))
        assert (result.outcome, result.reason, miner.told) == (Outcome.REFUSED, "bad_parameters", [])
