"""A device is read with few connections, re-read after a silence, and names itself or is refused."""

import asyncio
from datetime import UTC, datetime

import pytest

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.errors import Garbled, Unreachable
from sitelink.clock import ManualClock
from sitelink.types import MinerState, Reason
from sitelink.units import Watts
from tests.contract.fake_miner import FakeMiner, serving, status
from tests.unit.agent.cgminer import replies_of as made

pytestmark = pytest.mark.agent

SHORT = Deadlines(connect_s=1, first_byte_s=1, total_s=2)


def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


def device(address: Address, dialect: str, time: ManualClock | None = None, miner_id: str = "") -> Device:
    return Device(address, dialect, time or clock(), miner_id=miner_id, deadlines=SHORT)


async def test_a_poll_after_the_first_is_one_connection_and_static_data_is_read_hourly() -> None:
    miner = FakeMiner(dict(made.luxos()))
    time = clock()
    async with serving(miner.speak) as address:
        luxos = device(address, "luxos", time)
        first = await luxos.observe()
        assert sorted(miner.commands()) == ["config", "profiles", "summary+power+temps+fans+pools", "version"]
        miner.asked.clear()
        second = await luxos.observe()
        assert miner.commands() == ["summary+power+temps+fans+pools"]
        time.advance(3601)
        await luxos.observe()
        assert miner.commands().count("config") == 1
    assert first == second
    assert (first.state, first.identities[0]) == (MinerState.HASHING, "62:f7:5e:00:00:01")


async def test_a_device_that_does_not_join_is_asked_two_commands_a_poll() -> None:
    answers = {"summary": made.whatsminer_summary(), "devs": made.WHATSMINER_DEVS, "pools": made.POOLS}
    miner = FakeMiner(dict(answers), joins=False)
    async with serving(miner.speak) as address:
        whatsminer = device(address, "whatsminer")
        whole = await whatsminer.observe()
        assert (whole.boards, len(whole.pools)) == (3, 2)
        miner.asked.clear()
        seen = [await whatsminer.observe() for _ in range(3)]
    assert miner.commands() == ["summary", "devs", "summary", "pools", "summary", "devs"]
    # What was not asked is unknown, not what it was; what the state rests on is asked each time.
    assert [(one.boards, len(one.pools)) for one in seen] == [(3, 0), (None, 2), (3, 0)]
    assert {(one.state, one.hashrate_ths, one.power_w) for one in seen} == {
        (MinerState.HASHING, whole.hashrate_ths, whole.power_w)
    }


CGMINER = {
    "summary": made.answer(11, "SUMMARY", {"Elapsed": 9000, "MHS 5s": 100.0}),
    "devs": made.answer(9, "DEVS", {"ASC": 0, "MHS 5s": 100.0, "Temperature": 60.0}),
    "stats": made.answer(70, "STATS", {"STATS": 0, "Elapsed": 9000}),
    "pools": made.POOLS,
}


@pytest.mark.parametrize("dialect", ["cgminer", "innosilicon"])
async def test_a_poll_of_plain_cgminer_makes_two_connections(dialect: str) -> None:
    """Where it takes no joined commands it was asked four, each poll."""
    miner, time = FakeMiner(dict(CGMINER), joins=False), clock()
    async with serving(miner.speak) as address:
        plain = device(address, dialect, time)
        await plain.observe()
        polls = []
        for _ in range(4):
            miner.asked.clear()
            assert (await plain.observe()).state is MinerState.HASHING
            polls.append(miner.commands())
        assert polls == [["summary", "devs"], ["summary", "stats"], ["summary", "pools"], ["summary", "devs"]]
        time.advance(3601)
        miner.asked.clear()
        await plain.observe()
        assert {"summary", "devs", "stats", "pools"} <= set(miner.commands()), "once an hour it is learnt anew"


async def test_the_state_rests_on_the_command_that_tells_what_all_of_them_do() -> None:
    """An Antminer's relative counts in its own unit, which ``stats`` alone knows; ``summary`` would be a thousandfold."""
    stats = {"STATS": 1, "Elapsed": 9000, "GHS 5s": 504.0, "rate_unit": "MH", "temp1": 60}
    summary = made.answer(11, "SUMMARY", {"Elapsed": 9000, "GHS 5s": 504.0})
    miner = FakeMiner(CGMINER | {"stats": made.answer(70, "STATS", stats), "summary": summary}, joins=False)
    async with serving(miner.speak) as address:
        plain = device(address, "cgminer")
        whole = await plain.observe()
        miner.asked.clear()
        assert {(await plain.observe()).hashrate_ths for _ in range(3)} == {whole.hashrate_ths}
    assert [command for command in miner.commands() if command == "stats"] == ["stats"] * 3


async def test_a_miner_that_stops_hashing_is_asked_all_to_learn_why() -> None:
    miner = FakeMiner(dict(CGMINER), joins=False)
    async with serving(miner.speak) as address:
        plain = device(address, "cgminer")
        await plain.observe()
        miner.answers["summary"] = made.answer(11, "SUMMARY", {"Elapsed": 9000, "MHS 5s": 0.0})
        miner.answers["devs"] = made.answer(9, "DEVS", {"ASC": 0, "MHS 5s": 0.0, "Temperature": 99.0})
        seen = [await plain.observe() for _ in range(3)]
    assert {(one.state, one.reason) for one in seen} == {(MinerState.IDLE, Reason.THERMAL)}


async def test_a_whatsminers_model_is_read_with_what_does_not_change() -> None:
    details = made.answer(69, "DEVDETAILS", {"ID": 0, "Driver": "bitmicro", "Model": "M50S_VH30"})
    miner = FakeMiner({"summary": made.whatsminer_summary(), "devdetails": details})
    async with serving(miner.speak) as address:
        whatsminer = device(address, "whatsminer")
        assert [(await whatsminer.observe()).model for _ in range(2)] == ["M50S_VH30"] * 2
    assert miner.commands().count("devdetails") == 1


async def test_commands_unknown_to_the_firmware_are_not_asked_again() -> None:
    miner = FakeMiner({"stats": made.antminer_stats()})
    async with serving(miner.speak) as address:
        antminer = device(address, "antminer")
        await antminer.observe()
        miner.asked.clear()
        assert (await antminer.observe()).state is MinerState.HASHING
    assert miner.commands() == ["stats"]


async def test_a_device_that_knows_no_command_is_asked_again_and_its_silence_is_noticed() -> None:
    miner = FakeMiner({}, joins=False)
    async with serving(miner.speak) as address:
        antminer = device(address, "antminer")
        seen = [await antminer.observe() for _ in range(3)]
        assert [(one.state, one.reason) for one in seen] == [(MinerState.UNKNOWN, Reason.NOT_REPORTED)] * 3
    with pytest.raises(Unreachable):
        await antminer.observe()


async def test_only_a_miner_that_does_not_hash_is_asked_why() -> None:
    replies = dict(made.luxos(CurtailMode="Sleep"))
    miner = FakeMiner(dict(replies))
    async with serving(miner.speak) as address:
        luxos = device(address, "luxos")
        await luxos.observe()
        assert "config+events" not in miner.commands()
        miner.answers["summary"] = made.answer(11, "SUMMARY", {"Elapsed": 9000, "GHS 5s": 0.0})
        idle = await luxos.observe()
    assert "config+events" in miner.commands()
    assert (idle.state, idle.reason) == (MinerState.IDLE, Reason.COMMANDED)


async def test_after_a_silence_static_data_is_read_again() -> None:
    miner = FakeMiner(dict(made.luxos()))
    async with serving(miner.speak) as address:
        luxos = device(address, "luxos")
        await luxos.observe()
        luxos.address = Address("127.0.0.1", 1)
        with pytest.raises(Unreachable):
            await luxos.observe()
        luxos.address = address
        miner.answers["config"] = dict(made.luxos(MACAddr="62:f7:5e:00:00:99"))["config"]
        assert (await luxos.observe()).mac == "62:f7:5e:00:00:99"


@pytest.mark.parametrize(
    ("answers", "dialect"),
    [
        (dict(made.luxos()), "luxos"),
        (made.avalon(), "avalon"),
        ({"summary": made.whatsminer_summary()}, "whatsminer"),
        ({"summary": made.answer(11, "SUMMARY", {"MHS 5s": 1.0})}, "cgminer"),
    ],
)
async def test_auto_finds_the_dialect_out(answers: dict[str, bytes], dialect: str) -> None:
    miner = FakeMiner(dict(answers))
    async with serving(miner.speak) as address:
        unknown = device(address, "auto")
        await unknown.observe()
        assert unknown.dialect == dialect


BTMINER_DOWN = made.btminer(132, "btminer process is down err", "E")


async def test_auto_takes_no_failure_for_an_answer() -> None:
    """A Whatsminer whose process was down at first contact was plain CGMiner for life, and its stops were refused."""
    miner = FakeMiner(dict.fromkeys(("version", "devdetails", "summary"), status(99, "Not ready", "E")), joins=False)
    async with serving(miner.speak) as address:
        unknown = device(address, "auto")
        seen = await unknown.observe()
        assert (unknown.dialect, seen.state) == ("auto", MinerState.UNKNOWN)
        miner.answers = {"summary": made.whatsminer_summary(), "devs": made.WHATSMINER_DEVS}
        assert (await unknown.observe()).state is MinerState.HASHING
        assert unknown.dialect == "whatsminer"
        miner.asked.clear()
        await unknown.observe()
        assert "devdetails" not in miner.commands()


async def test_auto_reads_a_whatsminer_without_its_process_and_keeps_an_open_mind() -> None:
    miner = FakeMiner(dict.fromkeys(("version", "devdetails", "summary", "devs", "status"), BTMINER_DOWN), joins=False)
    async with serving(miner.speak) as address:
        unknown = device(address, "auto")
        seen = await unknown.observe()
        assert (seen.dialect, seen.state, seen.reason) == ("whatsminer", MinerState.UNKNOWN, Reason.FAULT)
        assert unknown.dialect == "auto"
        miner.answers = dict(made.luxos())
        assert (await unknown.observe()).mac == "62:f7:5e:00:00:01"
        assert unknown.dialect == "luxos"


async def test_auto_looks_again_after_a_silence_and_a_told_dialect_stays() -> None:
    luxos, whatsminer = FakeMiner(dict(made.luxos())), FakeMiner({"summary": made.whatsminer_summary()})
    async with serving(luxos.speak) as first, serving(whatsminer.speak) as second:
        for dialect, then in (("auto", "whatsminer"), ("luxos", "luxos")):
            miner = device(first, dialect)
            await miner.observe()
            assert miner.dialect == "luxos"
            miner.address = Address("127.0.0.1", 1)
            with pytest.raises(Unreachable):
                await miner.ask("summary")
            miner.address = second
            await miner.observe()
            assert miner.dialect == then


async def test_one_joined_reply_cut_short_costs_an_hour_of_single_requests_at_most() -> None:
    """It once cost four connections a poll for good."""
    miner = FakeMiner(dict(made.luxos()))
    whole, time = miner.speak, clock()
    joined = "summary+power+temps+fans+pools"
    cut = [False]

    async def speak(request: bytes, writer: asyncio.StreamWriter) -> None:
        if cut[0] and b"+" in request:
            writer.write(b'{"summary":[{"STATUS":[{"STATUS":"S","Code":11}],"SUMMARY":[{"GHS 5s":1.0}]}],"po\0')
        else:
            await whole(request, writer)

    async with serving(speak) as address:
        luxos = device(address, "luxos", time)
        await luxos.observe()
        cut[0] = True
        assert (await luxos.observe()).power_w is not None
        cut[0] = False
        miner.asked.clear()
        await luxos.observe()
        assert joined not in miner.commands()
        time.advance(3601)
        miner.asked.clear()
        await luxos.observe()
        assert joined in miner.commands()


async def test_auto_refuses_what_is_no_miner() -> None:
    miner = FakeMiner(dict.fromkeys(("version", "devdetails", "summary"), b"HTTP/1.1 400 Bad Request"))
    async with serving(miner.speak) as address:
        with pytest.raises(Garbled, match="no miner's API answers there"):
            await device(address, "auto").observe()


async def test_a_device_that_babbles_gives_an_unknown_observation() -> None:
    miner = FakeMiner({}, joins=False)
    miner.answers |= dict.fromkeys(("stats", "pools", "version"), b"<html>")
    async with serving(miner.speak) as address:
        seen = await device(address, "antminer").observe()
    assert (seen.state, seen.reason) == (MinerState.UNKNOWN, Reason.GARBLED)


async def test_identity_is_the_inventorys_name_where_the_device_owns_it() -> None:
    miner = FakeMiner(dict(made.luxos()))
    async with serving(miner.speak) as address:
        assert await device(address, "luxos", miner_id="LUX0000001").identity() == "LUX0000001"
        assert await device(address, "luxos", miner_id="62:F7:5E:00:00:01").identity() == "62:F7:5E:00:00:01"
        assert await device(address, "luxos", miner_id="aa:aa:aa:aa:aa:aa").identity() == "62:f7:5e:00:00:01"


async def test_a_device_without_a_name_is_garbled() -> None:
    miner = FakeMiner({"version": status(22, "x", VERSION=[{"API": "3.7"}])})
    async with serving(miner.speak) as address:
        with pytest.raises(Garbled, match="names neither MAC nor serial"):
            await device(address, "braiins").identity()


async def test_a_glance_asks_no_more_than_what_it_draws_and_whether_it_hashes() -> None:
    miner = FakeMiner(dict(made.luxos()))
    async with serving(miner.speak) as address:
        luxos = device(address, "luxos")
        whole = await luxos.observe()
        miner.asked.clear()
        seen = await luxos.observe(glance=True)
        assert miner.commands() == ["summary+power"]
        assert (seen.state, seen.power_w, seen.hashrate_ths) == (whole.state, whole.power_w, whole.hashrate_ths)
        miner.asked.clear()
        assert await luxos.observe() == whole
        assert miner.commands() == ["summary+power+temps+fans+pools"]


async def glanced_at_idle(
    answers: dict[str, object], power_w: int = 40
) -> tuple[FakeMiner, Observation, Observation, list[str]]:
    """Return the miner, a glance at it and a look, and what the glance asked."""
    idle = {
        "summary": made.answer(11, "SUMMARY", {"Elapsed": 9000, "GHS 5s": 0.0}),
        "power": made.answer(311, "POWER", {"PSU": True, "Watts": power_w}),
    }
    miner = FakeMiner({**made.luxos(), **idle, **answers})
    async with serving(miner.speak) as address:
        luxos = device(address, "luxos")
        look = await luxos.observe()
        miner.asked.clear()
        glance = await luxos.observe(glance=True, idle_w=Watts(450))
    return miner, glance, look, miner.commands()


async def test_a_glance_at_who_was_told_to_stand_asks_no_more_once_it_says_so() -> None:
    _, glance, _, asked = await glanced_at_idle({"config": made.luxos(CurtailMode="Sleep")["config"]})
    assert asked == ["summary+power", "config"]
    assert (glance.state, glance.reason, glance.power_w) == (MinerState.IDLE, Reason.COMMANDED, 40.0)
    assert glance.shown_s is not None


async def test_a_glance_at_who_is_still_on_its_way_down_asks_not_why() -> None:
    _, glance, _, asked = await glanced_at_idle({}, power_w=900)
    assert asked == ["summary+power"]
    assert (glance.state, glance.power_w) == (MinerState.IDLE, 900.0)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({}, Reason.NOT_REPORTED),
        ({"config": made.luxos(SystemStatus="Overheated")["config"]}, Reason.THERMAL),
        ({"temps": made.answer(201, "TEMPS", {"ID": 0, "TopLeft": 101.0})}, Reason.THERMAL),
        ({"config": status(14, "Invalid command", "E")}, Reason.NOT_REPORTED),
    ],
)
async def test_a_glance_at_who_stands_for_another_reason_tells_what_a_whole_look_tells(
    answers: dict[str, object], reason: Reason
) -> None:
    _, glance, look, _ = await glanced_at_idle(answers)
    assert glance == look
    assert (glance.state, glance.reason) == (MinerState.IDLE, reason)


async def test_a_glance_that_shows_no_state_is_a_whole_look() -> None:
    nothing = made.answer(11, "SUMMARY", {"Elapsed": 9000})
    _, glance, look, asked = await glanced_at_idle({"summary": nothing})
    assert glance == look
    assert glance.state is MinerState.UNKNOWN
    assert asked == ["summary+power", "summary+power+temps+fans+pools", "config+events"]
