"""LuxOS, Avalon and plain CGMiner: each verb as its vendor documents it, and what it does with each trouble."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from agent.cgminer.control.driver import Wanted
from agent.cgminer.control.drivers import driver_of
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.errors import SessionBusy, Transient
from sitelink.types import Outcome, Verb
from tests.contract.control.rpc_fakes import ID, Avalon, LuxOs, Pools, device_at, order
from tests.contract.fake_miner import FakeMiner, serving, status

pytestmark = pytest.mark.agent

NEW = [
    {"url": "stratum+tcp://x.example:1", "user": "acct.1", "password": "p"},
    {"url": "stratum+tcp://y.example:1", "user": "acct.1", "password": "q"},
]
POOLS = Wanted(Verb.POOLS, {"pools": json.dumps(NEW)})
BLINK, DARK = Wanted(Verb.BLINK, {"on": "true"}), Wanted(Verb.BLINK, {"on": "false"})
ROOT = Credentials("root", "webpw")


def limit(power_w: int | None = None, mode: str | None = None) -> Wanted:
    asked = {"power_w": str(power_w)} if power_w is not None else {}
    return Wanted(Verb.LIMIT, asked | ({"mode": mode} if mode is not None else {}))


@asynccontextmanager
async def luxos(miner: LuxOs) -> AsyncIterator[Device]:
    async with serving(miner.miner.speak) as address:
        yield device_at(address, "luxos")


@asynccontextmanager
async def avalon(miner: Avalon, credentials: Credentials | None = ROOT) -> AsyncIterator[Device]:
    async with serving(miner.miner.speak) as address:
        yield device_at(address, "avalon", credentials)


# ------------------------------------------------------------------------------------------------ LuxOS


async def test_luxos_keeps_to_a_limit_by_the_profile_that_draws_most_within_it_and_holds_atm_below() -> None:
    miner = LuxOs()
    async with luxos(miner) as device:
        result, kept = await order(device, limit(2200))
    assert (result.outcome, result.reason) == (Outcome.COMPLETE, "power_within_limit")
    assert miner.told == ["atmset enabled=false", "profileset 410MHz", "atmset enabled=true,max_profile=410MHz"]
    assert json.loads(kept[0]) == {"profile": "default", "atm": {"Enabled": True, "MaxProfile": "580MHz"}}
    assert miner.session == ""


async def test_luxos_is_asked_for_its_profiles_before_a_limit_and_as_it_is_sent_and_not_at_each_look() -> None:
    miner = LuxOs()
    miner.effect = False
    async with luxos(miner) as device:
        assert (await order(device, limit(2200)))[0].reason == "limit_not_in_force"
    asked = [command for command, _ in miner.miner.asked]
    assert asked.count("profiles") == 3  # the reading of the hour, before the order, as it is sent
    assert asked.count("config") > 5


async def test_luxos_leaves_an_atm_alone_that_was_off() -> None:
    miner = LuxOs()
    miner.atm = False
    async with luxos(miner) as device:
        assert (await order(device, limit(2800)))[0].outcome is Outcome.COMPLETE
        assert miner.told == []  # its own profile draws that already
        assert (await order(device, limit(2799)))[0].outcome is Outcome.COMPLETE
    assert miner.told == ["profileset 410MHz"]


async def test_luxos_is_not_limited_by_a_profile_that_atm_may_leave_upwards() -> None:
    miner = LuxOs()
    miner.profile = "410MHz"
    async with luxos(miner) as device:
        for _ in range(2):
            result, _ = await order(device, limit(2200))
            assert (result.outcome, result.reason) == (Outcome.COMPLETE, "power_within_limit")
    assert miner.told == ["atmset enabled=false", "profileset 410MHz", "atmset enabled=true,max_profile=410MHz"]


async def test_luxos_below_its_ceiling_keeps_to_its_limit() -> None:
    """ATM has gone down by itself, for heat."""
    miner = LuxOs()
    miner.ceiling, miner.profile = "default", "410MHz"
    async with luxos(miner) as device:
        result, _ = await order(device, limit(2800))
    assert (result.outcome, miner.told) == (Outcome.COMPLETE, [])


async def test_luxos_puts_atm_back_on_where_a_killed_attempt_left_it_off() -> None:
    miner = LuxOs()
    miner.atm, miner.profile = False, "410MHz"
    kept = json.dumps({"profile": "default", "atm": {"Enabled": True}})
    async with luxos(miner) as device:
        result, again = await order(device, limit(2200), kept=kept)
    assert (result.outcome, miner.atm, miner.ceiling) == (Outcome.COMPLETE, True, "410MHz")
    assert again == [kept]


@pytest.mark.parametrize(("mode", "profile"), [("low", "310MHz"), ("normal", "default"), ("high", "620MHz")])
async def test_luxos_modes_are_its_lowest_its_own_and_its_highest_profile(mode: str, profile: str) -> None:
    miner = LuxOs()
    miner.profile = "410MHz"
    async with luxos(miner) as device:
        assert (await order(device, limit(mode=mode)))[0].outcome is Outcome.COMPLETE
    assert miner.profile == profile


@pytest.mark.parametrize(
    ("asked", "reason", "detail"),
    [
        (limit(1200), "limit_out_of_range", "its lowest profile draws 1500 W; stop it whole"),
        (limit(mode="turbo"), "bad_parameters", "is not one of low, normal, high"),
        (Wanted(Verb.LIMIT), "bad_parameters", "power_w or mode, one of them"),
        (Wanted(Verb.LIMIT, {"power_w": "2000", "mode": "low"}), "bad_parameters", "one of them"),
        (Wanted(Verb.LIMIT, {"power_w": "-5"}), "bad_parameters", "not a miner's power in W"),
    ],
)
async def test_luxos_refuses_a_limit_it_cannot_keep_to_before_anything_is_sent(
    asked: Wanted, reason: str, detail: str
) -> None:
    miner = LuxOs()
    async with luxos(miner) as device:
        result, kept = await order(device, asked)
    assert (result.outcome, result.reason, kept, miner.told) == (Outcome.REFUSED, reason, [], [])
    assert detail in result.detail


async def test_luxos_does_not_wake_a_sleeper_to_give_it_a_profile() -> None:
    miner = LuxOs()
    miner.curtailed = True
    async with luxos(miner) as device:
        result, _ = await order(device, limit(2200))
    assert (result.outcome, result.reason, miner.told) == (Outcome.REFUSED, "miner_stopped", [])


async def test_luxos_stops_and_starts_and_says_when_there_was_nothing_to_do() -> None:
    miner = LuxOs()
    async with luxos(miner) as device:
        assert (await order(device, Wanted(Verb.STOP)))[0].reason == "power_below_idle"
        assert (await order(device, Wanted(Verb.STOP)))[0].reason == "already_idle"
        assert (await order(device, Wanted(Verb.START)))[0].reason == "hashing"


async def test_luxos_blinks_and_stops_blinking() -> None:
    miner = LuxOs()
    async with luxos(miner) as device:
        result, kept = await order(device, BLINK)
        assert (result.reason, kept, miner.red) == ("lamp_as_wanted", ['{"red": "auto"}'], "blink")
        assert (await order(device, DARK))[0].outcome is Outcome.COMPLETE
    assert miner.told == ["ledset red,blink", "ledset red,off"]


async def test_luxos_reboots_once_though_its_session_dies_with_it() -> None:
    miner = LuxOs()
    async with luxos(miner) as device:
        result, kept = await order(device, Wanted(Verb.REBOOT))
    assert (result.outcome, result.reason) == (Outcome.COMPLETE, "uptime_reset")
    assert (miner.told, json.loads(kept[0])["uptime_s"]) == (["rebootdevice"], 5000)


@pytest.mark.parametrize("asked", [Wanted(Verb.STOP), limit(2200), BLINK, Wanted(Verb.REBOOT)])
async def test_luxos_says_ok_and_does_nothing(asked: Wanted) -> None:
    miner = LuxOs()
    miner.effect = False
    async with luxos(miner) as device:
        result, _ = await order(device, asked)
    assert result.outcome is Outcome.UNVERIFIED
    assert result.reason in {"still_hashing", "limit_not_in_force", "lamp_not_as_wanted", "uptime_not_reset"}


async def test_luxos_session_in_other_hands_is_waited_for_and_never_taken() -> None:
    miner = LuxOs()
    miner.session = "theirs"
    async with luxos(miner) as device:
        result, _ = await order(device, Wanted(Verb.STOP))
    assert (result.outcome, result.reason, miner.session) == (Outcome.UNVERIFIED, "session_busy", "theirs")
    assert "kill" not in miner.miner.commands()


async def test_luxos_session_lost_midway_is_busy_and_closed_as_far_as_it_goes() -> None:
    miner = LuxOs()
    miner.lose_session = True
    async with luxos(miner) as device:
        driver = driver_of("luxos")
        assert driver is not None
        with pytest.raises(SessionBusy, match="lost its session"):
            await driver.send(device, Wanted(Verb.STOP), "")
    assert (miner.miner.asked[-1], miner.session) == (("logoff", "s1"), "")


async def test_luxos_has_no_password_log_or_firmware_command_to_tell() -> None:
    miner = LuxOs()
    async with luxos(miner) as device:
        for verb in (Verb.PASSWORD, Verb.LOGS, Verb.FIRMWARE):
            result, _ = await order(device, Wanted(verb))
            assert (result.outcome, result.reason) == (Outcome.REFUSED, "unsupported")
    assert miner.miner.asked == []


# ------------------------------------------------------------------------------------------------ pools


@pytest.mark.parametrize("takes", [0, 2])
@pytest.mark.parametrize("working", [0, 2])
async def test_pools_are_replaced_with_one_to_work_for_at_each_moment(takes: int, working: int) -> None:
    miner = LuxOs()
    miner.pools.__init__("stratum+tcp://a.example:1", "stratum+tcp://b.example:1", "stratum+tcp://c.example:1")  # type: ignore[misc]
    miner.pools.working, miner.pools.switch_takes = working, takes
    async with luxos(miner) as device:
        result, kept = await order(device, POOLS)
    assert (result.outcome, result.reason) == (Outcome.COMPLETE, "pools_in_force")
    assert miner.pools.rows == [[pool["url"], pool["user"], pool["password"]] for pool in NEW]
    assert miner.pools.fewest >= 1
    assert [row["URL"] for row in json.loads(kept[0])["pools"]] == [f"stratum+tcp://{n}.example:1" for n in "abc"]


async def test_pools_of_a_killed_attempt_are_cleared_away() -> None:
    miner = LuxOs()
    miner.pools.rows = [["stratum+tcp://a.example:1", "old", "x"], [NEW[0]["url"], NEW[0]["user"], "p"]]
    async with luxos(miner) as device:
        assert (await order(device, POOLS, kept="{}"))[0].outcome is Outcome.COMPLETE
    assert len(miner.pools.rows) == 2


async def test_a_miner_that_does_not_leave_its_old_pool_is_told_again_later() -> None:
    pools = Pools("stratum+tcp://a.example:1")
    pools.switch_takes = 10_000
    miner = FakeMiner({**pools.answers(), "save": status(44, "saved")})
    async with serving(miner.speak) as address:
        driver = driver_of("cgminer")
        assert driver is not None
        with pytest.raises(Transient, match="does not leave its old pool: code 66"):
            await driver.send(device_at(address, "cgminer"), POOLS, "")
    assert pools.rows[0][0] == "stratum+tcp://a.example:1"


async def test_a_comma_is_written_as_plain_cgminer_documents_it_and_refused_elsewhere() -> None:
    odd = Wanted(
        Verb.POOLS, {"pools": json.dumps([{"url": "stratum+tcp://x:1", "user": "a,b\\c", "password": "d=1,2"}])}
    )
    pools = Pools("stratum+tcp://a.example:1", escapes=True)
    miner = FakeMiner(
        {**pools.answers(), "save": status(44, "saved"), "version": status(22, "v", VERSION=[{"MAC": ID}])}
    )
    async with serving(miner.speak) as address:
        driver = driver_of("cgminer")
        assert driver is not None
        await driver.send(device_at(address, "cgminer"), odd, "")
    assert pools.rows == [["stratum+tcp://x:1", "a,b\\c", "d=1,2"]]
    assert miner.asked[-1] == ("save", None)
    lux = LuxOs()
    async with luxos(lux) as device:
        result, _ = await order(device, odd)
    assert (result.outcome, result.reason, len(lux.pools.rows)) == (Outcome.REFUSED, "bad_parameters", 2)


@pytest.mark.parametrize(
    "pools",
    ["", "{}", "[]", "[1]", '[{"url": "", "user": "u"}]', '[{"url": 5, "user": "u"}]', json.dumps(NEW * 2), "[" * 9999],
)
async def test_pools_that_make_no_sense_are_refused_before_anything_is_removed(pools: str) -> None:
    miner = LuxOs()
    async with luxos(miner) as device:
        result, _ = await order(device, Wanted(Verb.POOLS, {"pools": pools}))
    assert (result.outcome, result.reason, len(miner.pools.rows)) == (Outcome.REFUSED, "bad_parameters", 2)


async def test_plain_cgminer_without_the_right_to_write_says_how_to_get_it() -> None:
    pools = Pools("stratum+tcp://a.example:1", "stratum+tcp://b.example:1")
    denied = {**pools.answers(), "removepool": status(45, "Access denied to 'removepool' command", "E")}
    miner = FakeMiner({**denied, "stats": status(70, "s", STATS=[{"STATS": 0, "miner_id": "x"}])})
    async with serving(miner.speak) as address:
        driver = driver_of("cgminer")
        assert driver is not None
        with pytest.raises(Exception, match="api-allow"):
            await driver.send(device_at(address, "cgminer"), POOLS, "")
    assert len(pools.rows) == 2


# ------------------------------------------------------------------------------------------------ Avalon


@pytest.mark.parametrize("bare_only", [False, True])
@pytest.mark.parametrize("when", [986, 1_760_000_000])
async def test_avalon_is_switched_in_its_own_time_whatever_that_is(when: int, bare_only: bool) -> None:
    miner = Avalon(when=when)
    miner.bare_only = bare_only
    async with avalon(miner) as device:
        assert (await order(device, Wanted(Verb.STOP)))[0].reason == "power_below_idle"
        assert (await order(device, Wanted(Verb.START)))[0].reason == "hashing"
    timed = [f"softoff,1:{when + 2}", f"softon,1:{when + 2}"]
    assert miner.told == (["softoff", "softon"] if bare_only else timed)


@pytest.mark.parametrize(
    ("product", "mode", "number"),
    [
        ("Avalon A1566", "normal", 0),
        ("Avalon A1566", "high", 1),
        ("Avalon Q", "low", 0),
        ("Avalon Q", "high", 2),
        ("Avalon Nano3s", "normal", 1),
        ("Avalon Mini3", "high", 2),
    ],
)
async def test_avalon_modes_are_numbered_by_model(product: str, mode: str, number: int) -> None:
    miner = Avalon(product)
    miner.mode = 7
    async with avalon(miner) as device:
        result, kept = await order(device, limit(mode=mode))
    told = [f"workmode,{number}", "reboot,0"] if "A1566" in product else [f"workmode,set,{number}"]
    assert (result.outcome, miner.told, kept) == (Outcome.COMPLETE, told, ['{"workmode": "7"}'])


async def test_avalon_builds_that_know_the_home_models_form_alone_are_told_in_it_and_restarted() -> None:
    miner = Avalon()
    miner.home_form = True
    async with avalon(miner) as device:
        assert (await order(device, limit(mode="high")))[0].outcome is Outcome.COMPLETE
    assert miner.told == ["workmode,set,1", "reboot,0"]


async def test_an_avalon_that_was_restarted_into_a_mode_is_not_restarted_for_it_once_more() -> None:
    miner, driver = Avalon(), driver_of("avalon")
    async with avalon(miner) as device:
        for _ in range(2):
            result, _ = await order(device, limit(mode="high"), driver=driver)
            assert (result.outcome, result.reason) == (Outcome.COMPLETE, "mode_in_force")
    assert miner.told == ["workmode,1", "reboot,0"]


async def test_an_avalon_mode_that_reads_as_set_is_not_in_force_before_the_restart() -> None:
    miner = Avalon()
    miner.restarts = False
    async with avalon(miner) as device:
        result, _ = await order(device, limit(mode="high"))
    assert (result.outcome, result.reason, miner.mode) == (Outcome.UNVERIFIED, "uptime_not_reset", 1)


async def test_an_avalon_that_says_it_stays_in_its_mode_is_not_restarted_for_it() -> None:
    miner = Avalon()
    miner.effect, miner.stays = False, True
    async with avalon(miner) as device:
        result, _ = await order(device, limit(mode="high"))
    assert (result.outcome, result.reason, miner.told) == (Outcome.UNVERIFIED, "mode_not_in_force", ["workmode,1"])


async def test_an_avalon_that_is_off_is_not_started_by_a_mode() -> None:
    miner = Avalon()
    miner.off = True
    async with avalon(miner) as device:
        result, _ = await order(device, limit(mode="high"))
    assert (result.outcome, result.reason, miner.told) == (Outcome.REFUSED, "miner_stopped", [])


@pytest.mark.parametrize(
    ("asked", "reason"), [(limit(2000), "power_limit_unsupported"), (limit(mode="low"), "mode_unsupported")]
)
async def test_avalon_says_which_limits_it_has(asked: Wanted, reason: str) -> None:
    miner = Avalon()
    async with avalon(miner) as device:
        result, _ = await order(device, asked)
    assert (result.outcome, result.reason, miner.told) == (Outcome.REFUSED, reason, [])


@pytest.mark.parametrize("newer", [False, True])
async def test_avalon_takes_pools_for_all_its_places_and_reboots_to_use_them(newer: bool) -> None:
    miner = Avalon(newer=newer)
    async with avalon(miner) as device:
        result, _ = await order(device, POOLS)
    assert result.outcome is Outcome.COMPLETE
    assert [place[0] for place in miner.places] == [NEW[0]["url"], NEW[1]["url"], NEW[1]["url"]]
    assert miner.told[-1] == "reboot,0"


@pytest.mark.parametrize("newer", [False, True])
async def test_avalon_pools_are_not_given_to_one_that_is_off_or_without_its_password(newer: bool) -> None:
    miner = Avalon(newer=newer)
    miner.off = True
    async with avalon(miner) as device:
        assert (await order(device, POOLS))[0].reason == "miner_stopped"
    miner.off = False
    async with avalon(miner, None) as device:
        result, _ = await order(device, POOLS)
        assert (result.reason, "ballast-agent credentials set" in result.detail) == ("access_denied", True)
    async with avalon(miner, Credentials("root", "wrong")) as device:
        result, _ = await order(device, POOLS)
        assert (result.outcome, "root,wrong" in result.detail) == (Outcome.REFUSED, False)
    assert miner.told == []


async def test_avalon_blinks_reboots_and_changes_its_password() -> None:
    miner = Avalon()
    async with avalon(miner) as device:
        assert (await order(device, BLINK))[0].reason == "lamp_as_wanted"
        assert (await order(device, DARK))[0].reason == "lamp_as_wanted"
        assert (await order(device, Wanted(Verb.REBOOT)))[0].reason == "uptime_reset"
        result, _ = await order(device, Wanted(Verb.PASSWORD, secret="n3w!secret"))
        assert (result.reason, miner.password) == ("password_in_force", "n3w!secret")
        assert device.credentials == Credentials("root", "n3w!secret")
        again, _ = await order(device, Wanted(Verb.PASSWORD, secret="n3w!secret"))
        assert again.outcome is Outcome.COMPLETE
        assert (await order(device, Wanted(Verb.PASSWORD, secret="a,b")))[0].reason == "bad_parameters"
    assert miner.told[:3] == ["led,1-1", "led,1-0", "reboot,0"]


async def test_avalon_without_a_lamp_to_read_is_not_called_done() -> None:
    miner = Avalon()
    miner.miner.answers["stats"] = status(70, "s", STATS=[{"STATS": 0, "MM ID0": "Ver[x] GHSspd[1.0] Elapsed[9]"}])
    async with avalon(miner) as device:
        result, _ = await order(device, BLINK)
    assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "lamp_unknown")


@pytest.mark.parametrize("asked", [Wanted(Verb.STOP), limit(mode="high"), BLINK, Wanted(Verb.REBOOT), POOLS])
async def test_avalon_says_ok_and_does_nothing(asked: Wanted) -> None:
    miner = Avalon()
    miner.effect = False
    async with avalon(miner) as device:
        result, _ = await order(device, asked)
    assert result.outcome is Outcome.UNVERIFIED


async def test_pools_that_show_late_are_waited_for_and_added_once() -> None:
    miner = LuxOs()
    show, looks = miner.pools.show, 0

    def late(request: dict[str, object]) -> object:
        nonlocal looks
        looks += 1
        if looks in range(2, 5):  # the first look is for those to be taken out
            return status(7, "2 Pool(s)", POOLS=[{"POOL": 0, "URL": "stratum+tcp://a.example:1", "User": "old.user"}])
        return show(request)

    miner.miner.answers["pools"] = late
    async with luxos(miner) as device:
        driver = driver_of("luxos")
        assert driver is not None
        for _ in range(4):
            with suppress(Transient):
                await driver.send(device, POOLS, "")
    assert [row[0] for row in miner.pools.rows] == [pool["url"] for pool in NEW]
    assert miner.miner.commands().count("addpool") == 2


async def test_pools_that_somebody_took_away_again_are_added_again() -> None:
    miner = LuxOs()
    miner.miner.answers["addpool"] = status(55, "Added pool")
    async with luxos(miner) as device:
        driver = driver_of("luxos")
        assert driver is not None
        for _ in range(12):
            with pytest.raises(Transient, match="does not show its new pools yet"):
                await driver.send(device, POOLS, "")
    assert miner.miner.commands().count("addpool") == 4
