"""A stock Antminer's pages, asked by somebody else's HTTP client."""

import hashlib
import json

import httpx
import pytest

from sitelink.clock import ManualClock
from tests.contract.simulator.world import ask, clock_of, model_of, site, until, web

OLD, NEW = "Antminer S19 Pro", "Antminer S21"
ROOT = httpx.DigestAuth("root", "root")
FAN = {"bitmain-fan-ctrl", "bitmain-fan-pwm"}


def antminers(miners: int = 12, clock: ManualClock | None = None):
    return site(miners, clock=clock, dialects=("antminer",))


async def conf(client: httpx.AsyncClient) -> dict:
    return json.loads((await client.get("/cgi-bin/get_miner_conf.cgi")).text)


async def put(client: httpx.AsyncClient, document: object) -> dict:
    return (await client.post("/cgi-bin/set_miner_conf.cgi", json=document)).json()


async def test_nothing_is_shown_without_the_password():
    async with antminers() as opened:
        name = model_of(opened, OLD).place.miner_id
        async with web(opened, name) as client:
            asked = await client.get("/cgi-bin/get_miner_conf.cgi")
            assert asked.status_code == 401
            assert asked.headers["www-authenticate"].startswith('Digest realm="antMiner Configuration", nonce="')
        for wrong in (httpx.DigestAuth("root", "admin"), httpx.DigestAuth("admin", "root"), ("root", "root")):
            async with web(opened, name, wrong) as client:
                assert (await client.get("/cgi-bin/get_miner_conf.cgi")).status_code == 401


async def test_a_nonce_counts_up_and_grows_stale():
    async with antminers() as opened:
        name = model_of(opened, OLD).place.miner_id
        async with web(opened, name) as client:
            nonce = (await client.get("/cgi-bin/stats.cgi")).headers["www-authenticate"].split('nonce="')[1][:16]

            async def use(count: int) -> httpx.Response:
                return await client.get("/cgi-bin/stats.cgi", headers={"Authorization": digest(nonce, count)})

            assert (await use(1)).status_code == 200
            assert (await use(2)).status_code == 200
            replayed = await use(2)
            assert replayed.status_code == 401
            assert "stale=true" in replayed.headers["www-authenticate"]
            clock_of(opened).advance(301)
            assert "stale=true" in (await use(3)).headers["www-authenticate"]


def digest(nonce: str, count: int, uri: str = "/cgi-bin/stats.cgi", password: str = "root") -> str:
    secret = hashlib.md5(f"root:antMiner Configuration:{password}".encode()).hexdigest()
    what = hashlib.md5(f"GET:{uri}".encode()).hexdigest()
    response = hashlib.md5(f"{secret}:{nonce}:{count:08x}:abc:auth:{what}".encode()).hexdigest()
    return (
        f'Digest username="root", realm="antMiner Configuration", nonce="{nonce}", uri="{uri}", qop=auth, '
        f'nc={count:08x}, cnonce="abc", response="{response}"'
    )


@pytest.mark.parametrize(("model", "key", "kind"), [(OLD, "bitmain-work-mode", str), (NEW, "miner-mode", int)])
async def test_sleep_and_wake_by_the_whole_configuration(model, key, kind):
    async with antminers() as opened:
        miner = model_of(opened, model)
        async with web(opened, miner.place.miner_id, ROOT) as client:
            before = await conf(client)
            assert before[key] == kind(0)
            assert await put(client, before | {key: kind(1)}) == {"stats": "success", "code": "M000", "msg": "OK!"}
            clock_of(opened).advance(300)
            assert miner.true_power_w(opened.time.seconds()) < 0.03 * miner.place.actual_w
            assert await conf(client) == before | {key: kind(1)}
            stats = (await ask(opened, miner.place.miner_id, "stats"))["STATS"][1]
            assert stats["GHS 5s"] == 0
            chips = (miner.place.model.chips, "0.00") if model == OLD else (0, "")
            assert (stats["chain_acn1"], stats["chain_rate1"]) == chips
            assert ("x" in stats["chain_acs1"]) is (model == OLD)
            assert 600 <= stats["fan1"] <= 1560
            await put(client, before)
            clock_of(opened).advance(60)
            assert miner.true_power_w(opened.time.seconds()) > 0.97 * miner.place.actual_w
        assert [(row["verb"], row["effect_at"] is not None) for row in opened.order_rows()] == [
            ("stop", True),
            ("start", True),
        ]


async def test_the_older_build_takes_either_name_of_the_mode_as_text_or_number():
    async with antminers() as opened:
        miner = model_of(opened, OLD)
        async with web(opened, miner.place.miner_id, ROOT) as client:
            before = await conf(client)
            for key, value in (("miner-mode", 1), ("miner-mode", "1"), ("bitmain-work-mode", 1)):
                await put(client, before | {key: value})
                assert miner.asleep
                await put(client, before)
                assert not miner.asleep


@pytest.mark.parametrize(("model", "bad"), [(OLD, {"bitmain-work-mode": "7"}), (NEW, {"miner-mode": "1"})])
async def test_a_mode_that_the_build_does_not_take_changes_nothing(model, bad):
    async with antminers() as opened:
        async with web(opened, model_of(opened, model).place.miner_id, ROOT) as client:
            before = await conf(client)
            assert (await put(client, before | bad))["stats"] == "error"
            assert (await put(client, [1]))["stats"] == "error"
            assert await conf(client) == before
        assert not opened.orders


@pytest.mark.parametrize(("model", "key", "two"), [(OLD, "bitmain-work-mode", "high"), (NEW, "miner-mode", "low")])
async def test_low_power_is_three_and_two_means_another_thing_on_each_build(model, key, two):
    async with antminers() as opened:
        miner = model_of(opened, model)
        kind = str if key == "bitmain-work-mode" else int
        async with web(opened, miner.place.miner_id, ROOT) as client:
            before = await conf(client)
            await put(client, before | {key: kind(3)})
            clock_of(opened).advance(60)
            assert miner.true_power_w(opened.time.seconds()) == pytest.approx(0.72 * miner.place.actual_w, rel=0.02)
            assert (await conf(client))[key] == kind(3)
            await put(client, before | {key: kind(1)})
            await put(client, before | {key: kind(3)})
            assert miner.kept.mode == "low"
            await put(client, before | {key: kind(2)})
            assert miner.kept.mode == two
            assert (await conf(client))[key] == kind(2)


async def test_keys_that_are_not_sent_are_lost_and_it_shows():
    async with antminers() as opened:
        by_hand = next(m for m in opened.miners.values() if m.place.model.name == OLD)
        async with web(opened, by_hand.place.miner_id, ROOT) as client:
            before = await conf(client)
            await put(client, {"pools": [], "miner-mode": 1})
            after = await conf(client)
            assert after["pools"] == []
            assert not FAN & set(after)
        row = next(row for row in opened.truth()["miners"] if row["miner_id"] == by_hand.place.miner_id)
        assert set(row["settings"]["lost"]) >= FAN
        assert row["pools"] == []
        assert len(before["pools"]) == 2


async def test_fans_are_held_by_hand_on_some_miners():
    async with antminers(30) as opened:
        found = set()
        for name in opened.miners:
            async with web(opened, name, ROOT) as client:
                found.add((await conf(client))["bitmain-fan-ctrl"])
        assert found == {True, False}


async def test_pools_are_changed_with_the_configuration():
    async with antminers() as opened:
        miner = model_of(opened, NEW)
        async with web(opened, miner.place.miner_id, ROOT) as client:
            before = await conf(client)
            before["pools"] = [{"url": "stratum+tcp://other.example:3333", "user": "a.b", "pass": "p"}]
            await put(client, before)
        pools = (await ask(opened, miner.place.miner_id, "pools"))["POOLS"]
        assert [(pool["URL"], pool["User"]) for pool in pools] == [("stratum+tcp://other.example:3333", "a.b")]
        row = opened.order_rows()[0]
        assert (row["verb"], row["detail"]["pools"][0]["password"]) == ("pools", "p")


async def test_pages_tell_what_the_rpc_tells():
    async with antminers() as opened:
        for model, has_power in ((OLD, False), (NEW, True)):
            miner = model_of(opened, model)
            async with web(opened, miner.place.miner_id, ROOT) as client:
                info = (await client.get("/cgi-bin/get_system_info.cgi")).json()
                assert info["macaddr"] == miner.place.mac.upper()
                assert ("serinum" in info) is has_power
                stats = (await client.get("/cgi-bin/stats.cgi")).json()["STATS"][0]
                summary = (await client.get("/cgi-bin/summary.cgi")).json()["SUMMARY"][0]
                rate = (await ask(opened, miner.place.miner_id, "summary"))["SUMMARY"][0]["GHS 5s"]
                assert stats["rate_5s"] == summary["rate_5s"] == rate
                assert ("watt" in stats) is has_power
                assert len((await client.get("/cgi-bin/pools.cgi")).json()["POOLS"]) == 2
                assert "bmminer" in (await client.get("/cgi-bin/log.cgi")).text
                assert (await client.get("/cgi-bin/nothing.cgi")).status_code == 404


async def test_the_lamp_blinks_and_says_so():
    async with antminers() as opened:
        miner = model_of(opened, NEW)
        async with web(opened, miner.place.miner_id, ROOT) as client:
            for on, code in ((True, "B000"), (False, "B100")):
                assert (await client.post("/cgi-bin/blink.cgi", json={"blink": on})).json() == {"code": code}
                assert (await client.get("/cgi-bin/get_blink_status.cgi")).json() == {"blink": on}


async def test_a_new_password_counts_at_once():
    async with antminers() as opened:
        name = model_of(opened, NEW).place.miner_id
        async with web(opened, name, ROOT) as client:
            change = {"curPwd": "root", "newPwd": "s3cret", "confirmPwd": "s3cret"}
            assert (await client.post("/cgi-bin/passwd.cgi", json=change | {"curPwd": "x"})).json()["stats"] == "error"
            assert (await client.post("/cgi-bin/passwd.cgi", json=change | {"newPwd": "y"})).json()["stats"] == "error"
            assert (await client.post("/cgi-bin/passwd.cgi", json=change)).json()["stats"] == "success"
        async with web(opened, name, ROOT) as client:
            assert (await client.get("/cgi-bin/stats.cgi")).status_code == 401
        async with web(opened, name, httpx.DigestAuth("root", "s3cret")) as client:
            assert (await client.get("/cgi-bin/stats.cgi")).status_code == 200
        row = next(row for row in opened.truth()["miners"] if row["miner_id"] == name)
        assert (row["password"], row["password_changes"]) == ("s3cret", 1)


async def test_a_reboot_takes_the_device_away_and_its_uptime_with_it():
    async with antminers() as opened:
        miner = model_of(opened, NEW)
        name = miner.place.miner_id
        async with web(opened, name, ROOT) as client:
            await put(client, await conf(client) | {"miner-mode": 1})
            assert (await client.get("/cgi-bin/reboot.cgi")).json() == {"success": True}
        await until(lambda: not answers(opened, name), opened, 2)
        assert opened.order_rows()[-1]["effect_at"] is None
        await until(lambda: answers(opened, name), opened, 40)
        stats = (await ask(opened, name, "stats"))["STATS"][1]
        assert 5 <= stats["Elapsed"] <= 15
        assert stats["GHS 5s"] == 0, "it sleeps on: the mode is kept in its flash"
        row = opened.order_rows()[-1]
        assert (row["verb"], row["effect_at"] is not None) == ("reboot", True)


def answers(opened, name: str) -> bool:
    return all(listener.is_open for listener in opened.listeners[name])


async def test_firmware_runs_after_the_reboot_that_follows_it():
    async with antminers() as opened:
        name = model_of(opened, NEW).place.miner_id
        image = b"\x1f\x8b header version=2026.7.1 " + bytes(300_000)
        async with web(opened, name, ROOT) as client:
            reply = await client.post("/cgi-bin/upgrade.cgi", files={"file": ("fw.bmu", image)})
            assert reply.json()["stats"] == "success"
        await until(lambda: not answers(opened, name), opened, 2)
        await until(lambda: answers(opened, name), opened, 90)
        assert (await ask(opened, name, "version"))["VERSION"][0]["Miner"] == "2026.7.1"
        assert opened.order_rows()[-1]["detail"]["version"] == "2026.7.1"
