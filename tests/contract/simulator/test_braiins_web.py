"""Braiins OS up to 25.05: GraphQL behind a cookie, beside the RPC, asked by somebody else's HTTP client."""

import contextlib

import pytest

from tests.contract.simulator.world import ask, clock_of, gone_and_back, miner_of, power_share, site, web

LOGIN = 'mutation{auth{login(username:"root",password:"%s"){__typename ... on AuthError{message}}}}'
STOP = "mutation{bosminer{stop{... on VoidResult{void} ... on BosminerError{message}}}}"
POWER = "{bosminer{info{summary{power{approxConsumptionW limitW} tunerStatus}}}}"
TARGET = (
    "mutation($watts: Int!){bosminer{config{updateAutotuning(input:{mode: POWER_TARGET, powerTarget: $watts}, "
    "apply: true){__typename ... on AutotuningOut{autotuning{powerTarget}} ... on AutotuningError{message}}}}}"
)


class Braiins:
    def __init__(self, opened) -> None:
        self.opened, self.miner = opened, miner_of(opened, "braiins")
        self.client = web(opened, self.miner.place.miner_id)

    async def ask(self, query: str, **variables: object) -> dict:
        reply = await self.client.post("/graphql", json={"query": query, "variables": variables})
        assert reply.status_code == 200
        return reply.json()

    async def login(self, password: str = "root") -> str:
        return (await self.ask(LOGIN % password))["data"]["auth"]["login"]["__typename"]


@contextlib.asynccontextmanager
async def braiins():
    async with site(3, dialects=("braiins",)) as opened:
        miner = Braiins(opened)
        async with miner.client:
            yield opened, miner


async def test_its_page_tells_what_its_rpc_tells():
    async with braiins() as (opened, miner):
        power = (await miner.ask(POWER))["data"]["bosminer"]["info"]["summary"]
        tuner = (await ask(opened, miner.miner.place.miner_id, "tunerstatus"))["TUNERSTATUS"][0]
        assert power["power"]["approxConsumptionW"] == tuner["ApproximateMinerPowerConsumption"]
        query = "{bosminer{info{workSolver{realHashrate{mhs5S} childSolvers{name realHashrate{mhs5S}}}}}}"
        solver = (await miner.ask(query))["data"]["bosminer"]["info"]["workSolver"]
        boards = [board["realHashrate"]["mhs5S"] for board in solver["childSolvers"]]
        assert sum(boards) == pytest.approx(solver["realHashrate"]["mhs5S"])
        query = "{bos{hostname faultLight info{version{full}} uptime{durationS}} events{appeals{id}}}"
        assert (await miner.ask(query))["data"]["bos"]["faultLight"] is False
        assert "Unknown field" in (await miner.ask("{bos{nothing}}"))["errors"][0]["message"]


async def test_orders_need_a_session_and_it_lives_an_hour():
    async with braiins() as (opened, miner):
        assert (await miner.ask(STOP))["errors"][0]["message"] == "Unauthorized"
        assert await miner.login("wrong") == "AuthError"
        assert await miner.login() == "VoidResult"
        assert (await miner.ask(STOP))["data"]["bosminer"]["stop"] == {"void": "void"}
        clock_of(opened).advance(60)
        assert power_share(opened, miner.miner) < 0.03
        clock_of(opened).advance(3600)
        assert "errors" in await miner.ask(STOP.replace("stop", "start"))
        await miner.login()
        await miner.ask(STOP.replace("stop", "start"))
        clock_of(opened).advance(60)
        assert power_share(opened, miner.miner) > 0.97
        assert [row["verb"] for row in opened.order_rows()] == ["stop", "start"]


async def test_a_power_target_moves_power_and_shows_on_both_protocols():
    async with braiins() as (opened, miner):
        await miner.login()
        found = (await miner.ask(TARGET, watts=2200))["data"]["bosminer"]["config"]["updateAutotuning"]
        assert found == {"__typename": "AutotuningOut", "autotuning": {"powerTarget": 2200}}
        clock_of(opened).advance(60)
        assert power_share(opened, miner.miner) == pytest.approx(2200 / miner.miner.place.model.nameplate_w, rel=0.02)
        assert (await ask(opened, miner.miner.place.miner_id, "tunerstatus"))["TUNERSTATUS"][0]["PowerLimit"] == 2200
        for bad in (10, "2200", 99_999, None):
            found = (await miner.ask(TARGET, watts=bad))["data"]["bosminer"]["config"]["updateAutotuning"]
            assert found["__typename"] == "AutotuningError"


async def test_pools_are_added_removed_and_replaced():
    async with braiins() as (_opened, miner):
        await miner.login()
        one = 'mutation{bosminer{config{... on BosminerConfigurator{group(id:"0"){... on GroupConfigurator{%s}}}}}}'
        await miner.ask(one % 'addPool(enabled:true,url:"stratum+tcp://a:1",user:"u",password:"p"){__typename}')
        for _ in range(2):
            await miner.ask(one % "removePool(id: 0){__typename}")
        assert [(pool.url, pool.password) for pool in miner.miner.kept.pools] == [("stratum+tcp://a:1", "p")]
        text = (
            "mutation($groups: [Group!]!){bosminer{config{updateGroups(groups:$groups)"
            "{... on GroupList{groups{pools{url user}}} ... on GroupListError{message}}}}}"
        )
        pool = {"url": "stratum+tcp://b:2", "user": "v"}
        group = {"name": "x", "quota": 1, "pools": [pool | {"password": "q"}]}
        found = (await miner.ask(text, groups=[group]))["data"]["bosminer"]["config"]["updateGroups"]
        assert found == {"groups": [{"pools": [pool]}]}
        found = (await miner.ask(text, groups=[{"pools": [{"url": "x"}]}]))["data"]["bosminer"]["config"]
        assert found["updateGroups"]["message"]


async def test_lamp_password_and_reboot():
    async with braiins() as (opened, miner):
        await miner.login()
        lamp = "mutation($on: Boolean!){bos{setFaultLight(enable: $on){__typename enabled}}}"
        assert (await miner.ask(lamp, on=True))["data"]["bos"]["setFaultLight"]["enabled"] is True
        assert miner.miner.kept.led
        change = "mutation($new: String!){bos{setPassword(newPassword: $new){__typename}}}"
        assert (await miner.ask(change, new=""))["data"]["bos"]["setPassword"]["__typename"] == "BosError"
        await miner.ask(change, new="s3cret")
        assert "errors" in await miner.ask(lamp, on=False)
        assert await miner.login() == "AuthError"
        assert await miner.login("s3cret") == "VoidResult"
        await miner.ask("mutation{bos{reboot{... on VoidResult{void}}}}")
        await gone_and_back(opened, miner.miner)
        assert (await miner.ask("{bos{uptime{durationS}}}"))["data"]["bos"]["uptime"]["durationS"] < 60


async def test_logs_are_asked_for_by_their_name_and_pools_show_their_password():
    async with braiins() as (opened, miner):
        text = "query($target: LogTarget!){bos{log(target: $target) logTargets}}"
        found = (await miner.ask(text, target="BOSMINER"))["data"]["bos"]
        assert "power target" in found["log"][-1]
        assert "BOSMINER" in found["logTargets"]
        assert "no log" in (await miner.ask(text, target="NOTHING"))["errors"][0]["message"]
        assert [row["verb"] for row in opened.order_rows()] == ["logs"]
        pools = (await miner.ask("{bosminer{config{groups{pools{url password}}}}}"))["data"]["bosminer"]["config"]
        assert pools["groups"][0]["pools"][0]["password"] == "x"


async def test_luci_tells_the_mac_to_who_logged_in():
    async with braiins() as (_opened, miner):
        page = "/cgi-bin/luci/admin/network/iface_status/lan"
        assert (await miner.client.get(page)).status_code == 403
        form = {"luci_username": "root", "luci_password": "root"}
        assert (await miner.client.post("/cgi-bin/luci", data=form | {"luci_password": "x"})).status_code == 403
        assert (await miner.client.post("/cgi-bin/luci", data=form)).status_code == 302
        assert (await miner.client.get(page)).json()[0]["macaddr"].lower() == miner.miner.place.mac


async def test_faults_refuse_orders_and_leave_reading():
    async with braiins() as (opened, miner):
        name = miner.miner.place.miner_id
        await opened.set_fault(name, "bad_password")
        assert await miner.login() == "AuthError"
        await opened.set_fault(name, "access_denied")
        await miner.login()
        assert (await miner.ask(STOP))["errors"][0]["message"] == "Forbidden"
        await opened.set_fault(name, "expired_token", 5)
        await miner.login()
        clock_of(opened).advance(6)
        assert (await miner.ask(STOP))["errors"][0]["message"] == "Unauthorized"
        assert "data" in await miner.ask(POWER)
        assert not opened.orders
