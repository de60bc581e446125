"""Each fault does what its name says, to whoever talks to the device and to nobody else."""

import asyncio
import itertools
import json

import pytest

from agent.cgminer.client import Address, Deadlines, query
from agent.cgminer.control import MinerControl
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.errors import AccessDenied, SessionBusy, TimedOut, TooLarge, Transient, Unreachable, WrongDevice
from simulator.faults import GARBAGE
from simulator.roster import DIALECTS
from sitelink.clock import SystemClock
from sitelink.types import MinerState, Reason
from tests.contract.simulator.world import ask, clock_of, get, miner_of, post, raw, site

QUICK = Deadlines(connect_s=0.3, first_byte_s=0.3, total_s=0.6)


def address(miner) -> Address:
    return Address(miner.place.host, miner.place.port)


def control(miner) -> MinerControl:
    place, known = miner.place, Credentials(miner.kept.user, miner.kept.password)
    device = Device(address(miner), place.model.dialect, SystemClock(), miner_id=place.miner_id, credentials=known)
    return MinerControl(device, miner.place.miner_id)


async def faulty(opened, dialect: str, fault: str, **more: object):
    miner = miner_of(opened, dialect)
    await opened.set_fault(miner.place.miner_id, fault, **more)
    return miner


async def test_dead_refuses_connections_and_draws_nothing_until_it_is_mended():
    async with site() as opened:
        miner = await faulty(opened, "luxos", "dead")
        with pytest.raises(Unreachable):
            await query(address(miner), "summary")
        clock_of(opened).advance(10)
        assert miner.true_power_w(opened.time.seconds()) == 0
        await opened.set_fault(miner.place.miner_id, None)
        clock_of(opened).advance(60)
        assert (await ask(opened, miner.place.miner_id, "summary"))["SUMMARY"][0]["GHS 5s"] > 0


async def test_a_miner_that_was_off_when_it_died_comes_back_off():
    async with site() as opened:
        miner = miner_of(opened, "avalon")
        await ask(opened, miner.place.miner_id, "ascset", "0,softoff")
        await faulty(opened, "avalon", "dead")
        await opened.set_fault(miner.place.miner_id, None)
        clock_of(opened).advance(60)
        assert miner.true_power_w(opened.time.seconds()) < 0.03 * miner.place.actual_w


async def test_black_holed_accepts_and_never_answers():
    async with site() as opened:
        miner = await faulty(opened, "luxos", "black_holed")
        with pytest.raises(TimedOut, match=r"(?i)answer|byte|silent"):
            await query(address(miner), "summary", deadlines=QUICK)


async def test_no_accept_leaves_the_connection_hanging():
    async with site() as opened:
        miner = await faulty(opened, "luxos", "no_accept")
        with pytest.raises(Unreachable, match="no connection within"):
            await query(address(miner), "summary", deadlines=QUICK)
        await opened.set_fault(miner.place.miner_id, None)
        assert (await ask(opened, miner.place.miner_id, "summary"))["SUMMARY"]


async def test_slow_drip_gives_a_few_bytes_at_a_time():
    async with site() as opened:
        miner = await faulty(opened, "whatsminer", "slow_drip")
        reader, writer = await asyncio.open_connection(miner.place.host, miner.place.port)
        writer.write(b'{"command":"summary"}')
        first, second = await reader.read(1000), await reader.read(1000)
        assert 1 <= len(first) <= 4
        assert 1 <= len(second) <= 4
        writer.close()
        with pytest.raises(TimedOut):
            await query(address(miner), "summary", deadlines=QUICK)


async def test_hang_up_closes_without_a_word():
    async with site() as opened:
        miner = await faulty(opened, "luxos", "hang_up")
        assert await raw(opened, miner.place.miner_id, b'{"command":"summary"}') == b""


async def test_reset_breaks_off_in_the_middle():
    async with site() as opened:
        miner = await faulty(opened, "luxos", "reset")
        with pytest.raises((Transient, ConnectionResetError)):
            await query(address(miner), "summary")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_split_chunks_still_make_one_reply(dialect):
    async with site() as opened:
        miner = await faulty(opened, dialect, "split_chunks")
        assert json.loads(await query(address(miner), "summary"))["SUMMARY"]


@pytest.mark.parametrize(("fault", "ending"), [("nul", b"}\x00"), ("newline", b"}\n"), ("no_terminator", b"}")])
async def test_replies_end_as_firmwares_end_them(fault, ending):
    async with site() as opened:
        miner = await faulty(opened, "luxos", fault)
        reply = await raw(opened, miner.place.miner_id, b'{"command":"summary"}')
        assert reply[-len(ending) :] == ending
        assert json.loads(await query(address(miner), "summary"))["SUMMARY"]


@pytest.mark.parametrize("kind", sorted(GARBAGE))
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_garbage_is_told_apart_from_stopped(dialect, kind):
    """Whatever the garbage, the agent neither fails nor believes a hashing miner to be idle."""
    async with site() as opened:
        miner = await faulty(opened, dialect, f"garbage:{kind}")
        device = Device(address(miner), dialect, SystemClock())
        try:
            read = await device.observe()
        except (TooLarge, Transient):
            assert kind in {"oversize", "empty"}
            return
        assert read.state is not MinerState.IDLE
        if kind in {"html", "binary", "empty", "message_string"}:
            assert read.state is MinerState.UNKNOWN


async def test_ack_without_effect_says_yes_and_goes_on():
    async with site() as opened:
        for dialect in ("luxos", "whatsminer", "avalon"):
            miner = await faulty(opened, dialect, "ack_without_effect")
            await control(miner).stop()
            clock_of(opened).advance(60)
            assert miner.true_power_w(opened.time.seconds()) > 0.9 * miner.place.actual_w
            assert (await control(miner).observe()).state is MinerState.HASHING
        assert [row["effect_at"] for row in opened.order_rows()] == [None] * 3


async def test_reports_idle_tells_of_rest_while_the_power_flows():
    async with site() as opened:
        for dialect in ("luxos", "whatsminer", "avalon"):
            miner = await faulty(opened, dialect, "reports_idle")
            assert (await control(miner).observe()).state is MinerState.HASHING
            await control(miner).stop()
            clock_of(opened).advance(60)
            read = await control(miner).observe()
            assert (read.state, read.hashrate_ths) == (MinerState.IDLE, 0)
            assert read.power_w < 0.03 * miner.place.actual_w
            assert miner.true_power_w(opened.time.seconds()) > 0.9 * miner.place.actual_w
            await control(miner).start()
            clock_of(opened).advance(60)
            assert (await control(miner).observe()).state is MinerState.HASHING
        verbs = [(row["verb"], row["effect_at"] is None) for row in opened.order_rows()]
        assert verbs == [("stop", True), ("start", False)] * 3


async def test_reports_idle_now_needs_no_order():
    async with site() as opened:
        miner = await faulty(opened, "braiins", "reports_idle_now")
        clock_of(opened).advance(60)
        assert (await ask(opened, miner.place.miner_id, "summary"))["SUMMARY"][0]["MHS 5s"] == 0
        assert miner.true_power_w(opened.time.seconds()) > 0.9 * miner.place.actual_w


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_overheated_is_zero_hash_that_nobody_ordered(dialect):
    async with site() as opened:
        miner = await faulty(opened, dialect, "overheated")
        clock_of(opened).advance(200)
        read = await Device(address(miner), dialect, SystemClock()).observe()
        assert read.hashrate_ths == 0
        assert read.reason is not Reason.COMMANDED
        assert max(read.board_temps_c + read.chip_temps_c) > 80
        await opened.set_fault(miner.place.miner_id, None)
        clock_of(opened).advance(200)
        assert miner.true_hashing(opened.time.seconds())


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_unset_clock_counts_from_boot(dialect):
    async with site() as opened:
        miner = await faulty(opened, dialect, "clock_unset")
        before = (await ask(opened, miner.place.miner_id, "summary"))["STATUS"][0]["When"]
        clock_of(opened).advance(100)
        after = (await ask(opened, miner.place.miner_id, "summary"))["STATUS"][0]["When"]
        assert before < 10_000
        assert after - before == 100


async def test_session_busy_and_token_exhaustion_are_for_later():
    async with site() as opened:
        for dialect, fault in (("luxos", "session_busy"), ("whatsminer", "token_exhausted")):
            miner = await faulty(opened, dialect, fault)
            with pytest.raises(SessionBusy):
                await control(miner).stop()
        assert not opened.orders


@pytest.mark.parametrize("dialect", ["luxos", "whatsminer", "avalon"])
async def test_access_denied_is_code_45(dialect):
    async with site() as opened:
        miner = await faulty(opened, dialect, "access_denied")
        with pytest.raises(AccessDenied):
            await control(miner).stop()
        assert not opened.orders


async def test_self_waking_wakes_n_seconds_after_the_stop():
    async with site() as opened:
        miner = await faulty(opened, "avalon", "self_waking", seconds=20)
        await ask(opened, miner.place.miner_id, "ascset", "0,softoff")
        clock_of(opened).advance(19)
        assert miner.true_power_w(opened.time.seconds()) < 0.03 * miner.place.actual_w
        clock_of(opened).advance(20)
        assert miner.true_power_w(opened.time.seconds()) > 0.9 * miner.place.actual_w
        assert len(opened.orders) == 1


async def test_delayed_takes_effect_later_and_the_log_says_when():
    async with site() as opened:
        miner = await faulty(opened, "avalon", "delayed", seconds=15)
        await ask(opened, miner.place.miner_id, "ascset", "0,softoff")
        clock_of(opened).advance(14)
        assert miner.true_power_w(opened.time.seconds()) > 0.9 * miner.place.actual_w
        assert opened.order_rows()[0]["effect_at"] is None
        clock_of(opened).advance(10)
        assert miner.true_power_w(opened.time.seconds()) < 0.03 * miner.place.actual_w
        assert "18:00:16" in opened.order_rows()[0]["effect_at"]


async def test_wrong_identity_answers_as_another_miner():
    async with site() as opened:
        first, second = miner_of(opened, "luxos"), miner_of(opened, "whatsminer")
        body = {"miner_id": first.place.miner_id, "fault": "wrong_identity", "with": second.place.miner_id}
        assert (await post(opened, "/fault", body)).status_code == 200
        assert (await ask(opened, first.place.miner_id, "config"))["CONFIG"][0]["MACAddr"] == second.place.mac
        with pytest.raises(WrongDevice):
            await control(first).stop()
        await opened.set_fault(first.place.miner_id, None)
        await control(first).stop()
        assert len(opened.orders) == 1


async def test_faults_are_put_on_and_taken_off_over_the_control_port():
    async with site() as opened:
        name = miner_of(opened, "luxos").place.miner_id
        assert (await post(opened, "/fault", {"miner_id": name, "fault": "dead"})).status_code == 200
        truth = next(row for row in (await get(opened, "/truth"))["miners"] if row["miner_id"] == name)
        assert (truth["dead"], truth["fault"]) == (True, "dead")
        assert (await post(opened, "/fault", {"miner_id": name, "fault": None})).status_code == 200
        assert not next(row for row in opened.truth()["miners"] if row["miner_id"] == name)["dead"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"miner_id": "nobody", "fault": "dead"}, "no miner 'nobody'"),
        ({"fault": "dead"}, "no miner ''"),
        ({"miner_id": "*", "fault": "sleepy"}, "unknown fault 'sleepy'"),
        ({"miner_id": "*", "fault": 7}, "neither text nor null"),
        ({"miner_id": "*", "fault": "dead", "seconds": "x"}, "not a number"),
        ({"miner_id": "*", "fault": "delayed", "seconds": -1}, "out of range; write 0 to 86400 seconds"),
        ({"meter_id": "test-1-site", "fault": "dead"}, "no meter or meter fault 'dead'"),
        ([], "not a JSON object"),
    ],
)
async def test_a_fault_that_makes_no_sense_changes_nothing(body, said):
    async with site() as opened:
        if isinstance(body, dict) and body.get("miner_id") == "*":
            body = {**body, "miner_id": next(iter(opened.miners))}
        answer = await post(opened, "/fault", body)
        assert answer.status_code == 400
        assert said in answer.json()["error"]
        assert all(miner.fault is None for miner in opened.miners.values())


async def figures(opened, miner, every_s: float, seconds: int) -> list[tuple[float, float, MinerState]]:
    """(watts, TH/s, state) as the agent reads them, once every ``every_s`` for ``seconds``."""
    device = Device(address(miner), miner.place.model.dialect, SystemClock(), miner_id=miner.place.miner_id)
    found = []
    for _ in range(round(seconds / every_s)):
        clock_of(opened).advance(every_s)
        seen = await device.observe()
        found.append((seen.power_w, seen.hashrate_ths, seen.state))
    return found


@pytest.mark.parametrize("dialect", ["luxos", "whatsminer", "avalon"])
async def test_trailing_snapshot_shows_the_power_of_the_last_refresh(dialect):
    async with site() as opened:
        miner = await faulty(opened, dialect, "trailing_snapshot:8")
        steady = await figures(opened, miner, 1, 16)
        assert len({watts for watts, _, _ in steady}) <= 3
        await control(miner).stop()
        seen = await figures(opened, miner, 0.5, 40)
        full = [watts > 0.9 * miner.place.actual_w for watts, _, _ in seen]
        off = full.index(False)
        assert 0 < off <= 16, "late by up to one refresh"
        assert not any(full[off:])
        assert len({watts for watts, _, _ in seen}) <= 6
        assert miner.true_power_w(opened.time.seconds()) < 0.05 * miner.place.actual_w
        assert seen[-1][2] is MinerState.IDLE


@pytest.mark.parametrize("dialect", ["luxos", "whatsminer", "avalon"])
async def test_trailing_average_falls_slowly_and_as_slowly_rises(dialect):
    async with site() as opened:
        miner = await faulty(opened, dialect, "trailing_average:10")
        await figures(opened, miner, 1, 12)
        await control(miner).stop()
        seen = await figures(opened, miner, 1, 20)
        shares = [watts / miner.place.actual_w for watts, _, _ in seen]
        assert all(later <= earlier + 0.03 for earlier, later in itertools.pairwise(shares))
        between = [share for share in shares if 0.2 < share < 0.8]
        assert len(between) >= 4, "no blow, whatever the miner does"
        assert shares[-1] < 0.1
        assert seen[-1][1:] == (0.0, MinerState.IDLE)
        assert seen[4][1] > 0, "so does the hash rate"


async def test_trailing_figures_are_none_of_before_a_boot():
    async with site() as opened:
        miner = await faulty(opened, "luxos", "trailing_average:600")
        await figures(opened, miner, 1, 2)
        await opened.set_fault(miner.place.miner_id, "dead")
        clock_of(opened).advance(10)
        await opened.set_fault(miner.place.miner_id, "trailing_average:600")
        clock_of(opened).advance(2)
        assert miner.snapshot().power_w < 0.5 * miner.place.actual_w
