"""VNish: its REST API, asked by somebody else's HTTP client."""

import contextlib
import hashlib

import httpx
import pytest

from tests.contract.simulator.world import ask, clock_of, gone_and_back, miner_of, power_share, site, web

API = "/api/v1"
POOL = {"url": "stratum+tcp://a.example:1", "user": "w.1"}


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


async def test_it_reads_freely_and_changes_under_a_token():
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
async def test_it_stops_and_starts(off, on):
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


async def test_it_runs_presets_and_tunes_those_it_never_ran():
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


async def test_it_keeps_settings_that_are_not_sent_and_changes_pools_lamp_and_password():
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
async def test_it_sleeps_through_a_reboot_as_its_setting_says(stays):
    async with vnish() as (opened, miner):
        await miner.unlock()
        await miner.post("settings", {"miner": {"misc": {"remain_stopped_on_reboot": stays}}})
        await miner.post("mining/stop")
        assert (await miner.post("system/reboot")).json() == {"success": True}
        await gone_and_back(opened, miner.miner, 40)
        clock_of(opened).advance(30)
        assert await miner.state() == ("stopped" if stays else "mining")
        assert (await miner.get("info"))["system"]["uptime"] == "0:00"


async def test_it_gives_logs_and_takes_firmware():
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


async def test_overheated_it_has_failed_and_is_not_stopped():
    async with vnish() as (opened, miner):
        await opened.set_fault(miner.miner.place.miner_id, "overheated")
        clock_of(opened).advance(200)
        assert (await miner.get("summary"))["miner"]["miner_status"]["miner_state"] == "failure"
