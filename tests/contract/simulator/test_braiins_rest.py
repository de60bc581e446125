"""Braiins OS from 25.07: its REST API, asked by somebody else's HTTP client."""

import contextlib

import httpx
import pytest

from tests.contract.simulator.world import clock_of, gone_and_back, miner_of, power_share, site, web

API = "/api/v1"
POOL = {"url": "stratum+tcp://a.example:1", "user": "w.1"}


class Braiins:
    def __init__(self, opened) -> None:
        self.opened, self.miner = opened, miner_of(opened, "braiins-rest")
        self.client = web(opened, self.miner.place.miner_id)
        self.headers: dict[str, str] = {}

    async def login(self, password: str = "root") -> httpx.Response:
        reply = await self.client.post(f"{API}/auth/login", json={"username": "root", "password": password})
        if reply.status_code == 200:
            self.headers = {"Authorization": reply.json()["token"]}
        return reply

    async def call(self, method: str, path: str, document: object = None) -> httpx.Response:
        return await self.client.request(method, f"{API}{path}", json=document, headers=self.headers)

    async def get(self, path: str):
        return (await self.call("GET", path)).json()


@contextlib.asynccontextmanager
async def braiins():
    async with site(3, dialects=("braiins-rest",)) as opened:
        miner = Braiins(opened)
        async with miner.client:
            yield opened, miner


async def test_it_opens_to_a_token_that_lives_as_long_as_it_is_used():
    async with braiins() as (opened, miner):
        assert (await miner.call("GET", "/miner/stats")).status_code == 401
        assert (await miner.login("wrong")).status_code == 401
        assert (await miner.login()).json()["timeout_s"] == 3600
        for _ in range(3):
            clock_of(opened).advance(3000)
            assert (await miner.call("GET", "/miner/stats")).status_code == 200
        miner.headers = {"Authorization": f"Bearer {miner.headers['Authorization']}"}
        assert (await miner.call("GET", "/miner/stats")).status_code == 200
        clock_of(opened).advance(3601)
        assert (await miner.call("GET", "/miner/stats")).status_code == 401
        assert (await miner.call("GET", "/version")).json()["major"] == 1


async def test_it_tells_what_it_is():
    async with braiins() as (_opened, miner):
        await miner.login()
        place = miner.miner.place
        details, stats = await miner.get("/miner/details"), await miner.get("/miner/stats")
        assert (details["mac_address"], details["status"]) == (place.mac, 2)
        assert stats["power_stats"]["approximated_consumption"]["watt"] == pytest.approx(place.actual_w, rel=0.02)
        rate = stats["miner_stats"]["real_hashrate"]["last_5s"]["gigahash_per_second"]
        assert rate / 1e3 == pytest.approx(place.actual_ths, rel=0.02)
        boards = (await miner.get("/miner/hw/hashboards"))["hashboards"]
        figures = [board["stats"]["real_hashrate"]["last_5s"]["gigahash_per_second"] for board in boards]
        assert sum(figures) == pytest.approx(rate, rel=0.001)
        assert len((await miner.get("/cooling/state"))["fans"]) == 4
        assert (await miner.get("/miner/errors")) == {"errors": []}
        assert (await miner.get("/network"))["mac_address"] == place.mac
        assert len((await miner.get("/pools/"))[0]["pools"]) == 2
        assert (await miner.call("GET", "/nothing")).status_code == 404
        assert (await miner.call("POST", "/actions/pause")).status_code == 405


@pytest.mark.parametrize(("off", "on"), [("pause", "resume"), ("stop", "start")])
async def test_it_pauses_and_resumes_and_says_what_was_before(off, on):
    async with braiins() as (opened, miner):
        await miner.login()
        assert [(await miner.call("PUT", f"/actions/{off}")).json() for _ in range(2)] == [False, True]
        clock_of(opened).advance(60)
        assert power_share(opened, miner.miner) < 0.03
        assert (await miner.get("/miner/details"))["status"] != 2
        assert (await miner.call("PUT", f"/actions/{on}")).json() is False
        clock_of(opened).advance(60)
        assert power_share(opened, miner.miner) > 0.97
        assert (await miner.get("/miner/details"))["status"] == 2


async def test_it_works_to_a_power_target():
    async with braiins() as (opened, miner):
        await miner.login()
        nameplate_w = round(miner.miner.place.model.nameplate_w)
        assert (await miner.call("PUT", "/performance/power-target", {"watt": 2500})).json() == {"watt": 2500}
        assert (await miner.get("/performance/tuner-state"))["overall_tuner_state"] == 5
        clock_of(opened).advance(60)
        assert power_share(opened, miner.miner) == pytest.approx(2500 / nameplate_w, rel=0.02)
        state = (await miner.get("/performance/tuner-state"))["mode_state"]["powertargetmodestate"]
        assert state["current_target"] == {"watt": 2500}
        for bad in ({"watt": 10}, {"watt": "2500"}, {}, {"watt": 90_000}):
            assert (await miner.call("PUT", "/performance/power-target", bad)).status_code == 400
        raised = await miner.call("PATCH", "/performance/power-target/increment", {"watt": 100})
        lowered = await miner.call("PATCH", "/performance/power-target/decrement", {"watt": 50})
        assert (raised.json(), lowered.json()) == ({"watt": 2600}, {"watt": 2550})
        tuner = (await miner.get("/configuration/miner"))["tuner"]
        assert tuner["power_target"] == {"watt": 2550}
        assert (await miner.call("PUT", "/performance/power-target/default")).json() == {"watt": nameplate_w}
        mode = {"tunermode": {"target": {"powertarget": {"power_target": {"watt": 2700}}}}}
        assert (
            (await miner.call("PUT", "/performance/mode", mode)).json() == mode == await miner.get("/performance/mode")
        )


async def test_it_changes_pools_lamp_and_password():
    async with braiins() as (_opened, miner):
        await miner.login()
        group = {"name": "Default", "pools": [POOL | {"password": "p", "enabled": True}]}
        assert (await miner.call("PUT", "/pools/batch", [group])).status_code == 200
        assert [pool["url"] for pool in (await miner.get("/pools"))[0]["pools"]] == [POOL["url"]]
        for bad in ({}, [], [{"name": "x", "pools": []}], [{"name": "x", "pools": [{"url": "u"}]}], [1]):
            assert (await miner.call("PUT", "/pools/batch", bad)).status_code == 400
        for on in (True, False):
            assert (await miner.call("PUT", "/actions/locate", on)).json() is on
            assert (await miner.get("/actions/locate")) is on
        assert (await miner.call("PUT", "/auth/password", {})).status_code == 400
        assert (await miner.call("PUT", "/auth/password", {"password": "s3cret"})).status_code == 204
        assert (await miner.call("GET", "/miner/stats")).status_code == 401
        assert (await miner.login()).status_code == 401
        assert (await miner.login("s3cret")).status_code == 200


async def test_it_reboots_gives_logs_and_takes_firmware():
    async with braiins() as (opened, miner):
        await miner.login()
        assert b"bosminer" in (await miner.call("GET", "/miner/support-archive")).content
        image = b"version=2027-01-01-0-abc-27.01-plus" + bytes(50_000)
        reply = await miner.client.post(f"{API}/upgrade/system-upgrade", files={"file": image}, headers=miner.headers)
        assert reply.status_code == 204
        await gone_and_back(opened, miner.miner, 90)
        assert (await miner.call("GET", "/miner/details")).status_code == 401, "a reboot forgets its tokens"
        await miner.login()
        details = await miner.get("/miner/details")
        assert details["bos_version"]["current"] == "2027-01-01-0-abc-27.01-plus"
        assert details["system_uptime_s"] < 60
        assert (await miner.call("PUT", "/actions/reboot")).status_code == 204
        await gone_and_back(opened, miner.miner, 40)
        assert [row["verb"] for row in opened.order_rows()] == ["logs", "firmware", "reboot"]


@pytest.mark.parametrize(("fault", "status"), [("bad_password", 401), ("server_error", 500)])
async def test_it_lets_nobody_in_under_a_fault(fault, status):
    async with braiins() as (opened, miner):
        await opened.set_fault(miner.miner.place.miner_id, fault)
        assert (await miner.login()).status_code == status


async def test_tokens_die_early_and_writes_are_forbidden_when_told_so():
    async with braiins() as (opened, miner):
        await opened.set_fault(miner.miner.place.miner_id, "expired_token", 5)
        await miner.login()
        clock_of(opened).advance(6)
        assert (await miner.call("PUT", "/actions/pause")).status_code == 401
        await opened.set_fault(miner.miner.place.miner_id, "access_denied")
        await miner.login()
        assert (await miner.call("PUT", "/actions/pause")).status_code == 403
        assert (await miner.call("GET", "/miner/stats")).status_code == 200
        assert not opened.orders


async def test_overheated_it_is_not_paused():
    async with braiins() as (opened, miner):
        await opened.set_fault(miner.miner.place.miner_id, "overheated")
        clock_of(opened).advance(60)
        await miner.login()
        assert (await miner.get("/miner/details"))["status"] not in {2, 3}
        assert (await miner.get("/miner/errors"))["errors"]
