"""The simulated plain CGMiner keeps to CGMiner's API-README: codes, rights, devices one by one, an average that decays."""

import json

import pytest

from simulator.roster import DIALECTS
from tests.contract.simulator.world import ask, clock_of, miner_of, raw, site


def command(name: str, parameter: str = "") -> bytes:
    return json.dumps({"command": name, "parameter": parameter}).encode()


async def told(opened, miner_id: str, name: str, parameter: str = "") -> tuple[str, int]:
    status = json.loads((await raw(opened, miner_id, command(name, parameter))).rstrip(b"\x00"))["STATUS"][0]
    return status["STATUS"], status["Code"]


async def devs(opened, miner_id: str) -> list[tuple[str, float]]:
    return [(row["Enabled"], row["MHS 5s"]) for row in (await ask(opened, miner_id, "devs"))["DEVS"]]


def test_it_stands_on_no_default_site():
    assert "cgminer" not in DIALECTS


async def test_devices_are_disabled_one_by_one_and_the_summary_only_decays():
    async with site(2, dialects=("cgminer",)) as opened:
        miner = miner_of(opened, "cgminer")
        name = miner.place.miner_id
        reply = await raw(opened, name, command("version"))
        assert reply.endswith(b"\x00")
        head = json.loads(reply.rstrip(b"\x00"))["STATUS"]
        assert (head[0]["Code"], head[0]["Description"]) == (22, name)
        assert await told(opened, name, "ascdisable", "0") == ("I", 111)
        assert await told(opened, name, "ascdisable", "0") == ("I", 109)
        assert (await devs(opened, name))[0] == ("N", 0.0)
        assert opened.order_rows() == []
        assert [await told(opened, name, "ascdisable", str(number)) for number in (1, 2)] == [("I", 111)] * 2
        clock_of(opened).advance(10)
        assert await devs(opened, name) == [("N", 0.0)] * 3
        assert not miner.true_hashing(opened.time.seconds())
        first = (await ask(opened, name, "summary"))["SUMMARY"][0]["MHS 5s"]
        clock_of(opened).advance(10)
        assert first > (await ask(opened, name, "summary"))["SUMMARY"][0]["MHS 5s"] > 0
        assert "power" not in str([await ask(opened, name, each) for each in ("summary", "devs", "stats")]).lower()
        assert await told(opened, name, "ascenable", "1") == ("I", 110)
        clock_of(opened).advance(30)
        assert [on for on, _ in await devs(opened, name)] == ["N", "Y", "N"]
        assert [row["verb"] for row in opened.order_rows()] == ["stop", "start"]


@pytest.mark.parametrize(
    ("name", "parameter", "answer"),
    [
        ("ascdisable", "", ("E", 15)),
        ("ascdisable", "9", ("E", 107)),
        ("ascenable", "0", ("I", 108)),
        ("ascset", "0,freq,500", ("W", 117)),
        ("pgadisable", "0", ("E", 14)),
        ("privileged", "", ("S", 46)),
        ("save", "", ("S", 44)),
        ("quit", "", ("E", 45)),
        ("removepool", "9", ("E", 26)),
    ],
)
async def test_what_it_answers(name, parameter, answer):
    async with site(2, dialects=("cgminer",)) as opened:
        assert await told(opened, miner_of(opened, "cgminer").place.miner_id, name, parameter) == answer


async def test_without_w_in_api_allow_it_reads_and_takes_nothing():
    async with site(2, dialects=("cgminer",)) as opened:
        name = miner_of(opened, "cgminer").place.miner_id
        await opened.set_fault(name, "access_denied")
        for write in ("privileged", "ascdisable", "ascenable", "ascidentify", "addpool", "restart", "save"):
            assert await told(opened, name, write, "0") == ("E", 45), write
        for asked, answer in (("ascdisable", ("Y", "N")), ("devs", ("Y", "Y")), ("nonsense", ("N", "N"))):
            row = json.loads((await raw(opened, name, command("check", asked))).rstrip(b"\x00"))["COMMAND"][0]
            assert (row["Exists"], row["Access"]) == answer
        assert [on for on, _ in await devs(opened, name)] == ["Y"] * 3
        assert opened.order_rows() == []


async def test_a_restart_is_of_the_program_and_enables_every_device():
    async with site(2, dialects=("cgminer",)) as opened:
        name = miner_of(opened, "cgminer").place.miner_id
        for number in range(3):
            await told(opened, name, "ascdisable", str(number))
        clock_of(opened).advance(30)
        assert json.loads((await raw(opened, name, command("restart"))).rstrip(b"\x00")) == {"STATUS": "RESTART"}
        miner = opened.miners[name]
        clock_of(opened).advance(40)
        assert miner.true_hashing(opened.time.seconds())
        assert opened.order_rows()[-1]["detail"] == {"only": "cgminer"}
