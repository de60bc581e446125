"""The REST APIs of Braiins OS and VNish, asked by somebody else's HTTP client."""

import contextlib
import hashlib

import httpx
import pytest

from tests.contract.simulator.world import ask, clock_of, miner_of, site, until, web

API = "/api/v1"
POOL = {"url": "stratum+tcp://a.example:1", "user": "w.1"}


def power_share(opened, miner) -> float:
    return miner.true_power_w(opened.time.seconds()) / miner.place.actual_w


async def gone_and_back(opened, miner, seconds: float) -> None:
    ports = opened.listeners[miner.place.miner_id]
    await until(lambda: not any(port.is_open for port in ports), opened, 2)
    await until(lambda: all(port.is_open for port in ports), opened, seconds)


# -------------------------------------------------------------------- braiins


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


async def test_braiins_opens_to_a_token_that_lives_as_long_as_it_is_used():
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


async def test_braiins_tells_what_it_is():
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
async def test_braiins_pauses_and_resumes_and_says_what_was_before(off, on):
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


async def test_braiins_works_to_a_power_target():
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


async def test_braiins_changes_pools_lamp_and_password():
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


async def test_braiins_reboots_gives_logs_and_takes_firmware():
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
async def test_braiins_lets_nobody_in_under_a_fault(fault, status):
    async with braiins() as (opened, miner):
        await opened.set_fault(miner.miner.place.miner_id, fault)
        assert (await miner.login()).status_code == status


async def test_braiins_tokens_die_early_and_writes_are_forbidden_when_told_so():
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


async def test_an_overheated_braiins_is_not_paused():
    async with braiins() as (opened, miner):
        await opened.set_fault(miner.miner.place.miner_id, "overheated")
        clock_of(opened).advance(60)
        await miner.login()
        assert (await miner.get("/miner/details"))["status"] not in {2, 3}
        assert (await miner.get("/miner/errors"))["errors"]


# -------------------------------------------------------------------- vnish


class Vnish:
    def __init__(self, opened) -> None:
        self.opened, self.miner = opened, miner_of(opened, "vnish")
        self.client = web(opened, self.miner.place.miner_id)
        self.headers: dict[str, str] = {}

    async def unlock(self, password: str = "admin") -> httpx.Response:
        reply = await self.client.post(f"{API}/unlock", json={"pw": password})
        if reply.status_code == 200:
            self.headers = {"Authorization": f"Bearer {reply.json()['token']}"}
        return reply

    async def get(self, path: str):
        return (await self.client.get(f"{API}/{path}")).json()

    async def post(self, path: str, document: object = None) -> httpx.Response:
        return await self.client.post(f"{API}/{path}", json=document, headers=self.headers)

    async def state(self) -> str:
        return (await self.get("status"))["miner_state"]


@contextlib.asynccontextmanager
async def vnish():
    async with site(3, dialects=("vnish",)) as opened:
        miner = Vnish(opened)
        async with miner.client:
            yield opened, miner


async def test_vnish_reads_freely_and_changes_under_a_token():
    async with vnish() as (opened, miner):
        place = miner.miner.place
        assert (await miner.get("info"))["system"]["network_status"]["mac"] == place.mac.upper()
        summary = (await miner.get("summary"))["miner"]
        assert summary["hr_realtime"] / 1e3 == pytest.approx(place.actual_ths, rel=0.02)
        assert summary["power_consumption"] == pytest.approx(place.actual_w, rel=0.02)
        rpc = (await ask(opened, place.miner_id, "stats"))["STATS"][1]
        assert float(rpc["GHS 5s"]) == summary["hr_realtime"]
        assert rpc["state"] == summary["miner_status"]["miner_state"] == "mining"
        assert (await ask(opened, place.miner_id, "version"))["STATUS"][0]["STATUS"] == "E"
        assert (await miner.post("mining/stop")).status_code == 401
        assert (await miner.unlock("wrong")).status_code == 403
        await miner.unlock()
        assert (await miner.post("mining/explode")).status_code == 404
        clock_of(opened).advance(3601)
        assert (await miner.post("mining/stop")).status_code == 401
        assert not opened.orders


@pytest.mark.parametrize(("off", "on"), [("stop", "start"), ("pause", "resume")])
async def test_vnish_stops_and_starts(off, on):
    async with vnish() as (opened, miner):
        await miner.unlock()
        assert (await miner.post(f"mining/{off}")).json() == {"success": True}
        assert await miner.state() == "shutting-down"
        clock_of(opened).advance(60)
        assert await miner.state() == "stopped"
        assert power_share(opened, miner.miner) < 0.03
        await miner.post(f"mining/{on}")
        assert await miner.state() == "starting"
        clock_of(opened).advance(60)
        assert await miner.state() == "mining"
        assert power_share(opened, miner.miner) > 0.97


async def test_vnish_runs_presets_and_tunes_those_it_never_ran():
    async with vnish() as (opened, miner):
        await miner.unlock()
        presets = {row["name"]: row["status"] for row in await miner.get("autotune/presets")}
        tuned = next(name for name, status in presets.items() if status == "tuned")
        untuned = next(name for name, status in presets.items() if status == "untuned" and name != "disabled")
        for name, state in ((tuned, "mining"), (untuned, "auto-tuning")):
            reply = await miner.post("settings", {"miner": {"overclock": {"preset": name}}})
            assert reply.json() == {"restart_required": False, "reboot_required": False}
            clock_of(opened).advance(60)
            assert await miner.state() == state
            share = int(name) / miner.miner.place.model.nameplate_w
            assert power_share(opened, miner.miner) == pytest.approx(share, rel=0.02)
            assert (await miner.get("perf-summary"))["current_preset"]["name"] == name
        clock_of(opened).advance(180)
        assert await miner.state() == "mining"
        assert (
            dict.fromkeys([untuned], "tuned").items()
            <= {row["name"]: row["status"] for row in await miner.get("autotune/presets")}.items()
        )
        for bad in ("1", "soon"):
            assert (await miner.post("settings", {"miner": {"overclock": {"preset": bad}}})).status_code == 400
        assert [row["detail"]["tuning"] for row in opened.order_rows()] == [False, True]


async def test_vnish_keeps_settings_that_are_not_sent_and_changes_pools_lamp_and_password():
    async with vnish() as (_opened, miner):
        await miner.unlock()
        before = await miner.get("settings")
        await miner.post("settings", {"miner": {"pools": [POOL | {"pass": "p"}]}})
        after = await miner.get("settings")
        assert after["miner"]["pools"][0] == POOL | {"pass": "p"}
        assert after["miner"]["overclock"] == before["miner"]["overclock"]
        assert (await miner.post("settings", {"miner": {"pools": "x"}})).status_code == 400
        assert (await miner.post("find-miner")).json() == {"on": True}
        assert (await miner.get("status"))["find_miner"] is True
        assert (await miner.post("find-miner")).json() == {"on": False}
        assert (await miner.post("find-miner", {"on": False})).json() == {"on": False}
        assert (await miner.post("settings", {"password": {"current": "x", "pw": "new"}})).status_code == 400
        assert (await miner.post("settings", {"password": {"current": "admin", "pw": "new"}})).status_code == 200
        assert (await miner.post("mining/stop")).status_code == 401
        assert (await miner.unlock()).status_code == 403
        assert (await miner.unlock("new")).status_code == 200


@pytest.mark.parametrize("stays", [True, False])
async def test_vnish_sleeps_through_a_reboot_as_its_setting_says(stays):
    async with vnish() as (opened, miner):
        await miner.unlock()
        await miner.post("settings", {"miner": {"misc": {"remain_stopped_on_reboot": stays}}})
        await miner.post("mining/stop")
        assert (await miner.post("system/reboot")).json() == {"success": True}
        await gone_and_back(opened, miner.miner, 40)
        clock_of(opened).advance(30)
        assert await miner.state() == ("stopped" if stays else "mining")
        assert (await miner.get("info"))["system"]["uptime"] == "0:00"


async def test_vnish_gives_logs_and_takes_firmware():
    async with vnish() as (opened, miner):
        await miner.unlock()
        assert "mining" in (await miner.client.get(f"{API}/logs/miner")).text
        image = b"version=1.3.0 " + bytes(1000)
        reply = await miner.client.post(f"{API}/firmware/update", files={"file": image}, headers=miner.headers)
        assert reply.status_code == 200
        await gone_and_back(opened, miner.miner, 90)
        assert (await miner.get("info"))["fw_version"] == "1.3.0"
        detail = opened.order_rows()[-1]["detail"]
        assert detail["bytes"] > 1000
        assert len(detail["sha256"]) == len(hashlib.sha256().hexdigest())


async def test_an_overheated_vnish_has_failed_and_is_not_stopped():
    async with vnish() as (opened, miner):
        await opened.set_fault(miner.miner.place.miner_id, "overheated")
        clock_of(opened).advance(200)
        assert (await miner.get("summary"))["miner"]["miner_status"]["miner_state"] == "failure"
