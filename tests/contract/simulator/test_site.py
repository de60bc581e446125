"""The site as a whole: files, meters against truth, the device log, determinism, refusals."""

import csv
import json
import struct

import pytest

from agent.inventory import load_inventory, load_meters
from agent.meters import meter_of
from agent.modbus import ModbusHosts
from simulator.errors import BadInput, SimulatorError
from simulator.roster import RosterOptions
from simulator.site import SimulatedSite, SiteOptions, allow_files, check_options
from sitelink.clock import ManualClock, SystemClock
from tests.contract.simulator.world import (
    NOON,
    ask,
    clock_of,
    free_port,
    get,
    meter,
    miner_of,
    modbus,
    raw,
    site,
    url_parts,
)


async def test_the_files_name_exactly_what_listens(tmp_path):
    async with site(12, out=tmp_path, feeder_size=5, dead=0.25) as opened:
        entries = load_inventory(tmp_path / "inventory.csv")
        assert [entry.miner_id for entry in entries] == list(opened.miners)
        for entry in entries:
            miner = opened.miners[entry.miner_id]
            assert entry.dialect == miner.place.model.dialect
            if miner.dead:
                with pytest.raises(ConnectionRefusedError):
                    await raw(opened, entry.miner_id, b"version")
            else:
                assert b"STATUS=S" in await raw(opened, entry.miner_id, b"version")
        kinds = [(entry.kind, entry.feeder_id) for entry in load_meters(tmp_path / "meters.csv")]
        assert kinds == [("site", ""), *(("feeder", f"test-1-F0{number}") for number in (1, 2, 3))]
        truth = json.loads((tmp_path / "truth.json").read_text())
        assert truth == opened.truth()


async def test_the_agents_meters_read_the_sites(tmp_path):
    async with site(12, out=tmp_path, feeder_size=5) as opened:
        for entry in load_meters(tmp_path / "meters.csv"):
            read = meter_of(entry, ModbusHosts(), SystemClock())
            sample = await read.read()
            await read.close()
            assert sample.power_w == pytest.approx(
                opened.bank.true_power_w(opened.bank.meters[entry.meter_id]), rel=0.002
            )
            assert sample.energy_wh > 0


async def test_feeders_add_up_to_the_site():
    async with site(25) as opened:
        feeders = {}
        for row in opened.truth()["miners"]:
            feeders[row["feeder_id"]] = feeders.get(row["feeder_id"], 0.0) + row["power_w"]
        for feeder_id, drawn_w in feeders.items():
            power_w, _ = await meter(opened, f"{feeder_id}-meter")
            assert power_w == pytest.approx(drawn_w * 1.005, rel=0.0011)
        site_w, _ = await meter(opened, "test-1-site")
        assert site_w == pytest.approx(opened.truth()["site_power_w"], rel=0.0011)
        assert 2000 < site_w - sum(feeders.values()) * 1.005 < 15_000


async def stop(opened, miner) -> None:
    name = miner.place.miner_id
    if miner.place.model.dialect == "avalon":
        await ask(opened, name, "ascset", "0,softoff")
        return
    session = (await ask(opened, name, "logon"))["SESSION"][0]["SessionID"]
    await ask(opened, name, "curtail", f"{session},sleep")
    await ask(opened, name, "logoff", session)


async def test_meters_fall_with_an_honest_stop_and_not_with_a_liars():
    async with site(10) as opened:
        honest, liar = miner_of(opened, "avalon"), miner_of(opened, "luxos")
        await opened.set_fault(liar.place.miner_id, "reports_idle")
        full_w, _ = await meter(opened, "test-1-F01-meter")
        await stop(opened, liar)
        clock_of(opened).advance(60)
        lied_w, _ = await meter(opened, "test-1-F01-meter")
        await stop(opened, honest)
        clock_of(opened).advance(60)
        shed_w, _ = await meter(opened, "test-1-F01-meter")
        assert lied_w == pytest.approx(full_w, rel=0.01)
        assert lied_w - shed_w == pytest.approx(honest.place.actual_w, rel=0.12)


async def test_energy_is_power_over_time():
    async with site(10) as opened:
        _, before = await meter(opened, "test-1-site")
        power_w, _ = await meter(opened, "test-1-site")
        clock_of(opened).advance(3600)
        _, after = await meter(opened, "test-1-site")
        assert after - before == pytest.approx(power_w / 1e3, rel=0.01)


async def test_meters_speak_modbus_and_refuse_what_they_do_not_have():
    async with site() as opened:
        power = await modbus(opened, 1, 3, 0, 2)
        assert power[:2] == b"\x03\x04"
        assert struct.unpack(">f", power[2:])[0] > 10_000
        assert await modbus(opened, 1, 6, 0, 4) == bytes((0x86, 1))
        assert await modbus(opened, 1, 4, 2, 4) == bytes((0x84, 2))
        assert await modbus(opened, 1, 4, 500, 4) == bytes((0x84, 2))
        assert await modbus(opened, 99, 4, 0, 4) == bytes((0x84, 11))


async def test_more_meters_than_units_take_further_registers(tmp_path):
    async with site(260, out=tmp_path, feeder_size=1, dead=1.0) as opened:
        rows = list(csv.DictReader((tmp_path / "meters.csv").read_text().splitlines()))
        places = [url_parts(row["url"]) for row in rows]
        assert len(set(places)) == 261
        assert places[-1][3:] == ("/21", "register=10")
        assert (await modbus(opened, 21, 4, 10, 4))[:2] == b"\x04\x08"


async def test_a_meter_can_stick_or_fall_silent():
    async with site(5) as opened:
        opened.bank.set_fault("test-1-F01-meter", "stuck")
        before = await meter(opened, "test-1-F01-meter")
        await stop(opened, miner_of(opened, "avalon"))
        clock_of(opened).advance(60)
        assert await meter(opened, "test-1-F01-meter") == before
        opened.bank.set_fault("test-1-F01-meter", None)
        assert (await meter(opened, "test-1-F01-meter"))[0] < before[0] - 2000
        opened.bank.set_fault("test-1-site", "silent")
        assert (await meter(opened, "test-1-F01-meter"))[0] > 0


async def test_the_same_seed_gives_the_same_replies(tmp_path):
    async def told() -> list[bytes]:
        clock = ManualClock(NOON)
        async with site(10, clock=clock, dead=0.1, liars=0.2) as opened:
            await stop(opened, miner_of(opened, "avalon"))
            replies = []
            for seconds in (0.0, 0.7, 30.0):
                clock.advance(seconds)
                for name, miner in opened.miners.items():
                    if not miner.dead:
                        replies.append(await raw(opened, name, b'{"command":"summary"}'))
                replies.append(json.dumps([await meter(opened, name) for name in opened.bank.meters]).encode())
            return replies

    assert await told() == await told()


async def test_another_seed_gives_others():
    async with site(5) as first, site(5, seed=8) as second:
        assert first.truth() != second.truth()


async def test_how_often_a_miner_is_asked_changes_nothing():
    async def after(polls: int) -> bytes:
        async with site(5) as opened:
            name = miner_of(opened, "whatsminer").place.miner_id
            for _ in range(polls):
                clock_of(opened).advance(40 / polls)
                await ask(opened, name, "summary")
            return await raw(opened, name, b'{"command":"summary"}')

    assert await after(1) == await after(8)


async def test_the_log_holds_every_order_and_its_effect():
    async with site(10) as opened:
        miner = miner_of(opened, "luxos")
        await stop(opened, miner)
        rows = await get(opened, "/orders")
        assert rows == [
            {
                "miner_id": miner.place.miner_id,
                "verb": "stop",
                "received_at": NOON.isoformat(),
                "effect_at": None,
                "detail": {},
            }
        ]
        clock_of(opened).advance(10)
        effect = (await get(opened, "/orders"))[0]["effect_at"]
        assert "2026-05-08T18:00:00" < effect < "2026-05-08T18:00:05"
        truth = next(row for row in (await get(opened, "/truth"))["miners"] if row["miner_id"] == miner.place.miner_id)
        assert not truth["hashing"]
        assert truth["hashrate_ths"] == 0


async def test_truth_agrees_with_what_honest_miners_report():
    async with site(10) as opened:
        clock_of(opened).advance(25)
        for row in opened.truth()["miners"]:
            if row["dialect"] == "whatsminer":
                told = (await ask(opened, row["miner_id"], "summary"))["SUMMARY"][0]
                assert told["HS RT"] / 1e6 == pytest.approx(row["hashrate_ths"], rel=0.001)
                assert told["Power"] == pytest.approx(row["power_w"], rel=0.02)


async def test_time_may_run_faster():
    clock = ManualClock(NOON)
    base = RosterOptions("test-1", 5, 7, net="127.78", port=free_port())
    options = SiteOptions(base, None, None, "127.0.0.1", 0, time_scale=20.0)
    async with SimulatedSite(options, clock) as opened:
        await stop(opened, miner_of(opened, "avalon"))
        clock.advance(0.2)
        assert not miner_of(opened, "avalon").true_hashing(opened.time.seconds())
        assert opened.order_rows()[0]["effect_at"] < "2026-05-08T18:00:00.2"


async def test_health_counts_replies():
    async with site() as opened:
        await ask(opened, miner_of(opened, "luxos").place.miner_id, "version")
        assert await get(opened, "/health") == {"ok": True, "site_id": "test-1", "miners": 5, "replies": 1}


async def test_a_taken_address_is_named_and_nothing_stays_open():
    async with site() as opened:
        options = RosterOptions("test-2", 5, 7, net="127.77", port=next(iter(opened.places)).port)
        with pytest.raises(SimulatorError, match=r"127\.77\.1\.1:\d+: the address is in use"):
            async with SimulatedSite(SiteOptions(options, None, None, "127.0.0.1", 0), ManualClock(NOON)):
                pass


async def test_leaving_closes_every_port():
    async with site() as opened:
        place = next(iter(opened.places))
    with pytest.raises(ConnectionRefusedError):
        await raw(opened, place.miner_id, b"version")


@pytest.mark.parametrize(
    ("roster", "said"),
    [
        ({"dialects": ("luxos", "foo")}, "--dialects: unknown dialect 'foo'; give some of luxos"),
        ({"dialects": ()}, "--dialects: no dialect"),
        ({"miners": 0}, "--miners: 0 is out of range"),
        ({"feeder_size": 0}, "--feeder-size: 0"),
        ({"dead": 1.5}, "--dead: 1.5 is not a share"),
        ({"liars": -1}, "--liars: -1 is not a share"),
        ({"net": "10.0"}, "--net: '10.0' is not a loopback network"),
        ({"net": "127.300"}, "--net: '127.300'"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_line(roster, said):
    fields = {"site_id": "x", "miners": 5, "seed": 1, **roster}
    with pytest.raises(BadInput) as raised:
        check_options(SiteOptions(RosterOptions(**fields)))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_too_many_devices_for_the_limit_are_refused():
    with pytest.raises(SimulatorError, match="ulimit -n"):
        allow_files(10**9)
