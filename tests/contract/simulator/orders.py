"""One stop, start, limit and reboot for every firmware that takes orders, each spelled out without the agent's code."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from simulator.dialects.ciphers import close_envelope, md5_crypt
from tests.contract.simulator.world import ask, raw, web

Order = Callable[[Any, Any, str, float], Awaitable[None]]


async def order(opened, miner, verb: str, watts: float = 0.0) -> None:
    """Send ``verb`` (stop, start, limit, reboot) to ``miner`` in its firmware's own words; who refuses is no error."""
    await ORDERS[miner.place.model.dialect](opened, miner, verb, watts)


async def _luxos(opened, miner, verb: str, watts: float) -> None:
    name = miner.place.miner_id
    session = (await ask(opened, name, "logon")).get("SESSION", [{}])[0].get("SessionID", "")
    if verb == "limit":
        await ask(opened, name, "atmset", f"{session},enabled=false")
    commands = {
        "stop": ("curtail", f"{session},sleep"),
        "start": ("curtail", f"{session},wakeup"),
        "limit": ("profileset", f"{session},{watts:.0f}W"),
        "reboot": ("rebootdevice", session),
    }
    await ask(opened, name, *commands[verb])
    await ask(opened, name, "logoff", session)


async def _whatsminer(opened, miner, verb: str, watts: float) -> None:
    name = miner.place.miner_id
    granted = (await ask(opened, name, "get_token"))["Msg"]
    if not isinstance(granted, dict):
        return
    key = md5_crypt("admin", granted["salt"])
    sign = md5_crypt(key + granted["time"], granted["newsalt"])
    commands = {
        "stop": {"cmd": "power_off", "respbefore": "true"},
        "start": {"cmd": "power_on"},
        "limit": {"cmd": "adjust_power_limit", "power_limit": f"{watts:.0f}"},
        "reboot": {"cmd": "reboot"},
    }
    sealed = close_envelope(json.dumps({**commands[verb], "token": sign}).encode(), key)
    await raw(opened, name, json.dumps({"enc": 1, "data": sealed}).encode())


async def _whatsminer_v3(_opened, miner, verb: str, watts: float) -> None:
    commands = {
        "stop": ("set.miner.service", "stop"),
        "start": ("set.miner.service", "start"),
        "limit": ("set.miner.power_limit", round(watts)),
        "reboot": ("set.system.reboot", None),
    }
    command, parameter = commands[verb]
    info = await _framed(miner, {"cmd": "get.device.info"})
    digest = hashlib.sha256(f"{command}admin{info['msg']['salt']}{info['when']}".encode()).digest()
    token = base64.b64encode(digest).decode()[:8]
    signed = {"cmd": command, "ts": info["when"], "token": token, "account": "super", "param": parameter}
    await _framed(miner, signed)


async def _framed(miner, document: object) -> dict:
    reader, writer = await asyncio.open_connection(miner.place.host, miner.place.port)
    body = json.dumps(document).encode()
    writer.write(len(body).to_bytes(4, "little") + body)
    async with asyncio.timeout(10):
        reply = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "little"))
    writer.close()
    return json.loads(reply)


async def _avalon(opened, miner, verb: str, watts: float) -> None:
    parameters = {
        "stop": "0,softoff",
        "start": "0,softon",
        "limit": f"0,worklevel,set,{watts:.0f}",
        "reboot": "0,reboot,0",
    }
    await ask(opened, miner.place.miner_id, "ascset", parameters[verb])


async def _antminer(opened, miner, verb: str, _watts: float) -> None:
    """Its limit is its low power mode."""
    async with web(opened, miner.place.miner_id, httpx.DigestAuth("root", "root")) as client:
        if verb == "reboot":
            await client.get("/cgi-bin/reboot.cgi")
            return
        shown = await client.get("/cgi-bin/get_miner_conf.cgi")
        if shown.status_code != 200:
            return
        conf = json.loads(shown.text)
        key = "miner-mode" if "miner-mode" in conf else "bitmain-work-mode"
        mode = {"stop": 1, "start": 0, "limit": 3}[verb]
        await client.post("/cgi-bin/set_miner_conf.cgi", json=conf | {key: type(conf[key])(mode)})


async def _braiins(opened, miner, verb: str, watts: float) -> None:
    if verb in {"stop", "start"}:
        await ask(opened, miner.place.miner_id, "pause" if verb == "stop" else "resume")
        return
    target = f"config{{updateAutotuning(input:{{powerTarget:{watts:.0f}}},apply:true){{__typename}}}}"
    query = {"limit": f"mutation{{bosminer{{{target}}}}}", "reboot": "mutation{bos{reboot{__typename}}}"}[verb]
    async with web(opened, miner.place.miner_id) as client:
        login = 'mutation{auth{login(username:"root",password:"root"){__typename}}}'
        await client.post("/graphql", json={"query": login})
        await client.post("/graphql", json={"query": query})


async def _braiins_rest(opened, miner, verb: str, watts: float) -> None:
    calls = {
        "stop": ("actions/pause", None),
        "start": ("actions/resume", None),
        "limit": ("performance/power-target", {"watt": round(watts)}),
        "reboot": ("actions/reboot", None),
    }
    async with web(opened, miner.place.miner_id) as client:
        login = await client.post("/api/v1/auth/login", json={"username": "root", "password": "root"})
        path, body = calls[verb]
        token = login.json().get("token", "")
        await client.put(f"/api/v1/{path}", json=body, headers={"Authorization": token})


async def _vnish(opened, miner, verb: str, watts: float) -> None:
    async with web(opened, miner.place.miner_id) as client:
        token = (await client.post("/api/v1/unlock", json={"pw": "admin"})).json().get("token", "none")
        client.headers["Authorization"] = f"Bearer {token}"
        if verb == "limit":
            presets = (await client.get("/api/v1/autotune/presets")).json()
            names = [int(row["name"]) for row in presets if row["name"] != "disabled"]
            preset = str(max(name for name in names if name <= watts))
            await client.post("/api/v1/settings", json={"miner": {"overclock": {"preset": preset}}})
        else:
            paths = {"stop": "mining/stop", "start": "mining/start", "reboot": "system/reboot"}
            await client.post(f"/api/v1/{paths[verb]}")


ORDERS: dict[str, Order] = {
    "luxos": _luxos,
    "whatsminer": _whatsminer,
    "whatsminer-v3": _whatsminer_v3,
    "avalon": _avalon,
    "antminer": _antminer,
    "braiins": _braiins,
    "braiins-rest": _braiins_rest,
    "vnish": _vnish,
}
