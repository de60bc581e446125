"""What LuxOS and Avalon change over their RPC: limits, modes, pools, lamps, passwords, reboots."""

from dataclasses import replace

import pytest

from tests.contract.simulator.world import ask, clock_of, gone_and_back, miner_of, power_share, raw, site

POOL = "stratum+tcp://a.example:1,w.1,p"


async def code_of(opened, miner, command: str, parameter: str = "") -> tuple[str, int]:
    status = (await ask(opened, miner.place.miner_id, command, parameter))["STATUS"][0]
    return status["STATUS"], status["Code"]


# -------------------------------------------------------------------- luxos


class Lux:
    """One LuxOS miner, and the session that its changes go under."""

    def __init__(self, opened, miner) -> None:
        self.opened, self.miner, self.session = opened, miner, ""

    async def logon(self) -> None:
        self.session = (await ask(self.opened, self.miner.place.miner_id, "logon"))["SESSION"][0]["SessionID"]

    async def write(self, command: str, parameter: str = "") -> dict:
        joined = f"{self.session},{parameter}" if parameter else self.session
        return await ask(self.opened, self.miner.place.miner_id, command, joined)

    async def row(self, command: str, section: str) -> dict:
        return (await ask(self.opened, self.miner.place.miner_id, command))[section][0]


async def luxos(opened, *, atm: bool = False) -> Lux:
    for miner in opened.miners.values():
        lux = Lux(opened, miner)
        if (await lux.row("atm", "ATM"))["Enabled"] is atm:
            await lux.logon()
            return lux
    raise AssertionError("no such miner on site")


def luxes():
    return site(8, dialects=("luxos",))


async def test_luxos_runs_the_profile_that_is_named_by_name_watts_or_step():
    async with luxes() as opened:
        lux = await luxos(opened)
        profiles = (await ask(opened, lux.miner.place.miner_id, "profiles"))["PROFILES"]
        by_name = {row["Profile Name"]: row["Watts"] for row in profiles}
        nameplate_w = lux.miner.place.model.nameplate_w
        assert by_name["default"] == round(nameplate_w)
        reply = await lux.write("profileset", "465MHz")
        assert (reply["STATUS"][0]["Code"], reply["PROFILE"][0]["Profile"]) == (321, "465MHz")
        clock_of(opened).advance(30)
        assert power_share(opened, lux.miner) == pytest.approx(by_name["465MHz"] / nameplate_w, rel=0.02)
        assert (await lux.row("config", "CONFIG"))["Profile"] == "465MHz"
        wanted = by_name["515MHz"] + 10
        assert (await lux.write("profileset", f"{wanted}W"))["PROFILE"][0]["Profile"] == "515MHz"
        assert (await lux.write("profileset", f"0,{wanted / 1000:.2f}kW"))["PROFILE"][0]["Profile"] == "515MHz"
        assert (await lux.write("profileset", "+2"))["PROFILE"][0]["Profile"] == "565MHz"
        for bad in ("nonsense", "1W", "+9", "xW", "-x"):
            assert (await lux.write("profileset", bad))["STATUS"][0]["STATUS"] == "E", bad
        assert (await lux.write("profileset", "default"))["STATUS"][0]["STATUS"] == "S"
        clock_of(opened).advance(30)
        assert power_share(opened, lux.miner) == pytest.approx(1, rel=0.02)


async def test_luxos_takes_a_profile_back_while_atm_runs():
    async with luxes() as opened:
        lux = await luxos(opened, atm=True)
        assert (await lux.write("profileset", "465MHz"))["STATUS"][0]["STATUS"] == "S"
        clock_of(opened).advance(30)
        assert power_share(opened, lux.miner) > 0.97
        assert (await lux.row("config", "CONFIG"))["Profile"] == "default"
        assert (await lux.write("atmset", "enabled=false"))["STATUS"][0]["Code"] == 340
        assert (await lux.row("config", "CONFIG"))["IsAtmEnabled"] is False
        await lux.write("profileset", "465MHz")
        assert (await lux.row("config", "CONFIG"))["Profile"] == "465MHz"
        await lux.write("atmset", "enabled=true,max_profile=465MHz")
        atm = await lux.row("atm", "ATM")
        assert (atm["Enabled"], atm["MaxProfile"]) == (True, "465MHz")
        assert (await lux.row("config", "CONFIG"))["Profile"] == "465MHz"
        for bad in ("", "enabled=maybe", "nonsense=1"):
            assert (await lux.write("atmset", bad))["STATUS"][0]["STATUS"] == "E", bad
        effects = [(row["detail"].get("why"), row["effect_at"] is None) for row in opened.order_rows()]
        assert effects[0] == ("atm", True)


async def test_luxos_changes_nothing_without_its_session():
    async with luxes() as opened:
        lux = await luxos(opened)
        lux.session = "wrong"
        for command, parameter in (("profileset", "465MHz"), ("atmset", "enabled=true"), ("rebootdevice", "")):
            assert (await lux.write(command, parameter))["STATUS"][0]["Code"] == 318
        assert not opened.orders


async def test_luxos_pools_are_cgminers():
    async with luxes() as opened:
        lux = await luxos(opened)
        miner = lux.miner
        assert await code_of(opened, miner, "addpool", POOL) == ("S", 55)
        assert (await lux.write("addpool", POOL.replace("a.", "b.")))["STATUS"][0]["Code"] == 55
        assert await code_of(opened, miner, "addpool", "only") == ("E", 52)
        assert await code_of(opened, miner, "removepool", "0") == ("E", 67), "it is mined on"
        assert await code_of(opened, miner, "switchpool", "2") == ("S", 27)
        rows = (await ask(opened, miner.place.miner_id, "pools"))["POOLS"]
        assert [(row["POOL"], row["Stratum Active"]) for row in rows] == [(0, False), (1, False), (2, True), (3, False)]
        for _ in range(2):
            assert await code_of(opened, miner, "removepool", "0") == ("S", 68)
        assert await code_of(opened, miner, "removepool", "1") == ("S", 68)
        assert await code_of(opened, miner, "removepool", "0") == ("E", 66)
        assert await code_of(opened, miner, "removepool", "7") == ("E", 26)
        assert await code_of(opened, miner, "poolpriority", "0,0") == ("E", 26)
        assert await code_of(opened, miner, "poolpriority", "0") == ("S", 73)
        rows = (await ask(opened, miner.place.miner_id, "pools"))["POOLS"]
        assert [(row["URL"], row["User"]) for row in rows] == [("stratum+tcp://a.example:1", "w.1")]


async def test_luxos_blinks_updates_and_wakes_with_a_reboot():
    async with luxes() as opened:
        lux = await luxos(opened)
        await lux.write("ledset", "red,blink")
        assert (await lux.row("config", "CONFIG"))["RedLed"] == "blink"
        assert (await lux.write("ledset", "red,bright"))["STATUS"][0]["STATUS"] == "E"
        await lux.write("ledset", "red,off")
        await lux.write("curtail", "sleep")
        clock_of(opened).advance(30)
        assert power_share(opened, lux.miner) < 0.03
        assert (await lux.write("rebootdevice"))["STATUS"][0]["STATUS"] == "S"
        await gone_and_back(opened, lux.miner)
        clock_of(opened).advance(30)
        assert power_share(opened, lux.miner) > 0.97, "its sleep ends with a reboot"
        assert (await lux.row("summary", "SUMMARY"))["Elapsed"] < 60
        assert (await lux.write("updaterun"))["STATUS"][0]["Code"] == 318, "the session went with the reboot"
        await lux.logon()
        before = (await lux.row("version", "VERSION"))["Miner"]
        await lux.write("updaterun")
        await gone_and_back(opened, lux.miner, 90)
        assert (await lux.row("version", "VERSION"))["Miner"] != before


async def test_a_stuck_session_outlives_its_logoff_until_it_expires():
    async with luxes() as opened:
        lux = await luxos(opened)
        await opened.set_fault(lux.miner.place.miner_id, "stuck_session")
        assert (await lux.write("logoff"))["STATUS"][0]["STATUS"] == "S"
        assert await code_of(opened, lux.miner, "logon") == ("E", 402)
        clock_of(opened).advance(61)
        await lux.logon()
        assert await code_of(opened, lux.miner, "kill") == ("S", 320)
        await lux.logon()


async def test_a_busy_session_is_somebody_elses_and_an_expired_one_nobodys():
    async with luxes() as opened:
        lux = await luxos(opened)
        name = lux.miner.place.miner_id
        await lux.write("logoff")
        await opened.set_fault(name, "session_busy")
        taken = (await ask(opened, name, "session"))["SESSION"][0]["SessionID"]
        assert taken
        assert await code_of(opened, lux.miner, "curtail", f"{taken},sleep") == ("E", 318)
        await opened.set_fault(name, "expired_token", 5)
        await lux.logon()
        clock_of(opened).advance(6)
        assert (await lux.write("curtail", "sleep"))["STATUS"][0]["Code"] == 318
        await opened.set_fault(name, "access_denied")
        for command in ("addpool", "profileset", "curtail", "rebootdevice"):
            assert (await code_of(opened, lux.miner, command, POOL))[0] == "E"
        assert not opened.orders


# -------------------------------------------------------------------- avalon


def avalons():
    return site(3, dialects=("avalon",))


async def bracket(opened, miner, name: str) -> str:
    text = (await ask(opened, miner.place.miner_id, "estats"))["STATS"][0]["MM ID0"]
    return text.partition(f" {name}[")[2].partition("]")[0]


@pytest.mark.parametrize(("number", "mode", "share"), [(0, "low", 0.72), (1, "normal", 1.0), (2, "high", 1.08)])
async def test_a_home_avalon_works_in_three_modes_at_once(number, mode, share):
    async with avalons() as opened:
        miner = miner_of(opened, "avalon")
        miner.place = replace(miner.place, model=replace(miner.place.model, name="Q"))
        assert await code_of(opened, miner, "ascset", f"0,workmode,{number}") == ("E", 120)
        assert await code_of(opened, miner, "ascset", f"0,workmode,set,{number}") == ("S", 119)
        clock_of(opened).advance(60)
        assert power_share(opened, miner) == pytest.approx(share, rel=0.02)
        assert miner.kept.mode == mode
        assert await bracket(opened, miner, "WORKMODE") == str(number)
        assert int(await bracket(opened, miner, "MPO")) == pytest.approx(
            share * miner.place.model.nameplate_w, rel=0.01
        )


async def test_an_industrial_avalon_has_two_modes_that_are_in_force_after_a_restart():
    async with avalons() as opened:
        miner = miner_of(opened, "avalon")
        for bad in ("2", "set,1", "x", ""):
            assert await code_of(opened, miner, "ascset", f"0,workmode,{bad}") == ("E", 120)
        for number, mode, share in ((1, "high", 1.08), (0, "normal", 1.0)):
            before = miner.kept.mode
            told = await ask(opened, miner.place.miner_id, "ascset", f"0,workmode,{number}")
            assert told["STATUS"][0]["Msg"] == f"ASC 0 set info: WORKMODE[{number}]"
            assert await code_of(opened, miner, "ascset", "0,workmode,255") == ("I", 118)
            clock_of(opened).advance(60)
            assert (miner.kept.mode, await bracket(opened, miner, "WORKMODE")) == (before, str(number))
            assert await code_of(opened, miner, "ascset", "0,reboot,0") == ("S", 119)
            await gone_and_back(opened, miner)
            clock_of(opened).advance(60)
            assert power_share(opened, miner) == pytest.approx(share, rel=0.02)
            assert miner.kept.mode == mode


async def test_avalon_works_at_levels_or_watts():
    async with avalons() as opened:
        miner = miner_of(opened, "avalon")
        nameplate_w = miner.place.model.nameplate_w
        for value, watts in (("-4", nameplate_w * 0.8), ("2500", 2500), ("0", nameplate_w)):
            assert await code_of(opened, miner, "ascset", f"0,worklevel,set,{value}") == ("S", 119)
            clock_of(opened).advance(60)
            assert power_share(opened, miner) == pytest.approx(watts / nameplate_w, rel=0.02)
            assert int(await bracket(opened, miner, "MPO")) == pytest.approx(watts, abs=1)
        for bad in ("50", "99999", "x", ""):
            assert await code_of(opened, miner, "ascset", f"0,worklevel,set,{bad}") == ("E", 120)
        assert await bracket(opened, miner, "WORKLEVEL") == "0"


async def test_avalon_sets_pools_lamp_and_password():
    async with avalons() as opened:
        miner = miner_of(opened, "avalon")
        assert await code_of(opened, miner, "setpool", f"admin,wrong,0,{POOL}") == ("E", 154)
        assert await code_of(opened, miner, "setpool", "admin,root,0,short") == ("E", 154)
        assert await code_of(opened, miner, "setpool", f"admin,root,0,{POOL}") == ("S", 155)
        assert await code_of(opened, miner, "setpool", f"root,root,2,{POOL}") == ("S", 155)
        urls = [row["URL"] for row in (await ask(opened, miner.place.miner_id, "pools"))["POOLS"]]
        assert (urls[0], urls[2]) == ("stratum+tcp://a.example:1",) * 2
        for value, on in (("1-1", True), ("0-0", False), ("1-2", True)):
            assert await code_of(opened, miner, "ascset", f"0,led,{value}") == ("S", 119)
            assert await bracket(opened, miner, "LED") == str(int(on))
        assert await code_of(opened, miner, "ascset", "0,led,bright") == ("E", 120)
        assert await code_of(opened, miner, "ascset", "0,password,x,new") == ("E", 120)
        assert await code_of(opened, miner, "ascset", "0,password,root,new") == ("S", 119)
        assert await code_of(opened, miner, "setpool", f"admin,new,0,{POOL}") == ("S", 155)


async def test_avalon_answers_settings_in_plain_text_too():
    async with avalons() as opened:
        miner = miner_of(opened, "avalon")
        reply = await raw(opened, miner.place.miner_id, b"ascset|0,led,1-1")
        assert reply.startswith(b"STATUS=S,When=")
        assert b"Code=119,Msg=ASC 0 set OK," in reply


@pytest.mark.parametrize(("parameter", "away_after_s"), [("0,reboot,0", 2), ("0,reboot,10", 12)])
async def test_avalon_reboots_after_the_seconds_it_was_told(parameter, away_after_s):
    async with avalons() as opened:
        miner = miner_of(opened, "avalon")
        await ask(opened, miner.place.miner_id, "ascset", "0,softoff")
        assert await code_of(opened, miner, "ascset", parameter) == ("S", 119)
        clock_of(opened).advance(away_after_s - 2)
        assert not miner.away
        await gone_and_back(opened, miner)
        assert int(await bracket(opened, miner, "Elapsed")) < 60
        assert power_share(opened, miner) < 0.03, "its sleep is kept"
        assert (await ask(opened, miner.place.miner_id, "restart")) == {"STATUS": "RESTART"}


async def test_avalon_denies_every_change_when_its_api_only_reads():
    async with avalons() as opened:
        miner = miner_of(opened, "avalon")
        await opened.set_fault(miner.place.miner_id, "access_denied")
        for command in ("ascset", "setpool", "restart", "switchpool"):
            assert await code_of(opened, miner, command, "0,softoff") == ("E", 45)
        assert not opened.orders
