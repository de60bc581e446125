"""What encrypted commands of API v2 and signed ones of v3 do, spelled out from the vendor's text."""

import asyncio
import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from simulator.dialects.ciphers import close_envelope, md5_crypt, open_envelope
from tests.contract.simulator.world import ask, clock_of, gone_and_back, miner_of, power_share, raw, site

POOL = {"pool": "stratum+tcp://a.example:1", "worker": "w.1", "passwd": "p"}


class Two:
    """API v2."""

    def __init__(self, opened, password: str = "admin") -> None:
        self.opened, self.password = opened, password
        self.miner = miner_of(opened, "whatsminer")
        self.name = self.miner.place.miner_id

    async def envelope(self, command: str, **fields: str) -> tuple[bytes, str]:
        message = (await ask(self.opened, self.name, "get_token"))["Msg"]
        key = md5_crypt(self.password, message["salt"])
        sign = md5_crypt(key + message["time"], message["newsalt"])
        sealed = close_envelope(json.dumps({"cmd": command, "token": sign, **fields}).encode(), key)
        return json.dumps({"enc": 1, "data": sealed}).encode(), key

    async def write(self, command: str, **fields: str) -> dict:
        request, key = await self.envelope(command, **fields)
        reply = json.loads(await raw(self.opened, self.name, request))
        return json.loads(open_envelope(reply["enc"], key)) if "enc" in reply else reply


class Three:
    """API v3: one connection a request."""

    def __init__(self, opened, password: str = "admin") -> None:
        self.opened, self.password = opened, password
        self.miner = miner_of(opened, "whatsminer-v3")
        self.name = self.miner.place.miner_id

    async def send(self, document: object, then: bytes = b"") -> dict:
        place = self.miner.place
        reader, writer = await asyncio.open_connection(place.host, place.port)
        async with asyncio.timeout(5):
            found = await self._exchange(reader, writer, json.dumps(document).encode())
            if then:
                writer.write(len(then).to_bytes(4, "little") + then)
                found = json.loads(await frame(reader))
        writer.close()
        return found

    async def _exchange(self, reader, writer, body: bytes) -> dict:
        writer.write(len(body).to_bytes(4, "little") + body)
        return json.loads(await frame(reader))

    async def get(self, command: str, parameter: object = None) -> dict:
        return await self.send({"cmd": command, **({"param": parameter} if parameter is not None else {})})

    async def set(self, command: str, parameter: object = None, then: bytes = b"", **wrong: object) -> dict:
        info = await self.get("get.device.info")
        ts = wrong.pop("ts", info["when"])
        digest = hashlib.sha256(f"{command}{self.password}{info['msg']['salt']}{ts}".encode()).digest()
        if command in {"set.miner.pools", "set.user.change_passwd"}:
            plain = json.dumps(parameter).encode()
            encryptor = Cipher(algorithms.AES(digest), modes.ECB()).encryptor()
            parameter = base64.b64encode(encryptor.update(plain + bytes(-len(plain) % 16))).decode()
        token = base64.b64encode(digest).decode()[:8]
        document = {"cmd": command, "ts": ts, "token": token, "account": "super", "param": parameter, **wrong}
        return await self.send(document, then)


async def frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "little"))


def threes():
    return site(3, dialects=("whatsminer-v3",))


# -------------------------------------------------------------------- v2


async def test_v2_limits_and_modes_move_power_and_show_it():
    async with site() as opened:
        two = Two(opened)
        assert (await two.write("adjust_power_limit", power_limit="2400"))["Msg"] == "API command OK"
        clock_of(opened).advance(60)
        assert power_share(opened, two.miner) == pytest.approx(2400 / two.miner.place.model.nameplate_w, rel=0.02)
        row = (await ask(opened, two.name, "summary"))["SUMMARY"][0]
        assert row["Power Limit"] == 2400
        assert row["Power"] == pytest.approx(2400, rel=0.04)
        assert (await ask(opened, two.name, "status"))["Msg"]["power_limit_set"] == "2400"
        for bad in ("", "x", "9000", "-5"):
            assert (await two.write("adjust_power_limit", power_limit=bad))["Code"] == 132
        await two.write("adjust_power_limit", power_limit=str(round(two.miner.place.model.nameplate_w)))
        clock_of(opened).advance(60)
        for mode, share in (("low", 0.72), ("high", 1.0), ("normal", 1.0)):
            await two.write(f"set_{mode}_power")
            clock_of(opened).advance(60)
            assert power_share(opened, two.miner) == pytest.approx(share, rel=0.02)
            assert (await ask(opened, two.name, "summary"))["SUMMARY"][0]["Power Mode"] == mode.title()
        assert [row["effect_at"] is not None for row in opened.order_rows()] == [True] * 5


async def test_v2_keeps_a_limit_through_a_stop_and_a_start():
    async with site() as opened:
        two = Two(opened)
        await two.write("power_off", respbefore="true")
        clock_of(opened).advance(60)
        await two.write("set_power_pct", percent="80")
        assert opened.order_rows()[-1]["effect_at"] is not None, "who rests draws less than its limit"
        assert power_share(opened, two.miner) < 0.03
        await two.write("power_on")
        clock_of(opened).advance(60)
        assert power_share(opened, two.miner) == pytest.approx(0.8, rel=0.02)


async def test_v2_changes_pools_lamp_and_password():
    async with site() as opened:
        two = Two(opened)
        await two.write("update_pools", pool1="stratum+tcp://a.example:1", worker1="w.1", passwd1="p")
        pools = (await ask(opened, two.name, "pools"))["POOLS"]
        assert [(pool["POOL"], pool["URL"], pool["User"]) for pool in pools] == [(1, POOL["pool"], POOL["worker"])]
        await two.write("set_led", color="red", period="60", duration="20", start="0")
        assert (await ask(opened, two.name, "get_miner_info"))["Msg"]["ledstat"] == "manual"
        await two.write("set_led", param="auto")
        assert not two.miner.kept.led
        assert (await two.write("update_pwd", old="wrong", new="abc"))["Code"] == 132
        assert (await two.write("update_pwd", old="admin", new="s3cret"))["Code"] == 131
        assert (await two.write("power_off"))["Code"] == 135
        two.password = "s3cret"
        assert (await two.write("power_off"))["Code"] == 131
        assert [row["verb"] for row in opened.order_rows()] == ["pools", "blink", "blink", "password", "stop"]


async def test_v2_sends_its_logs_behind_the_reply():
    async with site() as opened:
        two = Two(opened)
        request, key = await two.envelope("download_logs")
        reply = await raw(opened, two.name, request)
        document, end = json.JSONDecoder().raw_decode(reply.decode())
        length = int(json.loads(open_envelope(document["enc"], key))["Msg"]["logfilelen"])
        assert len(reply) == end + length
        assert b"btminer" in reply[end:]


async def test_v2_takes_firmware_on_the_connection_that_announced_it():
    async with site() as opened:
        two = Two(opened)
        request, key = await two.envelope("update_firmware")
        reader, writer = await asyncio.open_connection(two.miner.place.host, two.miner.place.port)
        writer.write(request)
        ready = json.loads((await reader.read(65_536)).decode())
        assert json.loads(open_envelope(ready["enc"], key))["Msg"] == "ready"
        image = b"version=20270101.1.REL" + bytes(200_000)
        writer.write(len(image).to_bytes(4, "little") + image)
        assert json.loads(await reader.read(-1))["Code"] == 131
        writer.close()
        await gone_and_back(opened, two.miner, 90)
        assert (await ask(opened, two.name, "get_version"))["Msg"]["fw_ver"] == "20270101.1.REL"
        detail = opened.order_rows()[-1]["detail"]
        assert (detail["bytes"], detail["sha256"]) == (len(image), hashlib.sha256(image).hexdigest())


async def test_v2_reboots_and_sleeps_on():
    async with site() as opened:
        two = Two(opened)
        await two.write("power_off")
        await two.write("reboot")
        await gone_and_back(opened, two.miner, 60)
        assert (await ask(opened, two.name, "summary"))["SUMMARY"][0]["Uptime"] < 600
        assert (await ask(opened, two.name, "status"))["Msg"]["mineroff"] == "true"


async def test_v2_gives_tokens_to_sixteen_clients():
    async with site() as opened:
        place = Two(opened).miner.place
        codes = []
        for number in range(1, 18):
            source = (f"127.0.1.{number}", 0)
            reader, writer = await asyncio.open_connection(place.host, place.port, local_addr=source)
            writer.write(b'{"cmd":"get_token"}')
            codes.append(json.loads(await reader.read(-1))["Code"])
            writer.close()
        assert codes == [134] * 16 + [136]


@pytest.mark.parametrize("seconds", [5.0, 0.0])
async def test_v2_tokens_die_early_when_told_to(seconds):
    async with site() as opened:
        two = Two(opened)
        await opened.set_fault(two.name, "expired_token", seconds)
        request, key = await two.envelope("power_off")
        clock_of(opened).advance(seconds)
        reply = json.loads(await raw(opened, two.name, request))
        assert json.loads(open_envelope(reply["enc"], key))["Code"] == 135
        assert not opened.orders


# -------------------------------------------------------------------- v3


async def test_v3_stands_beside_v2_on_its_own_port():
    async with threes() as opened:
        three = Three(opened)
        assert three.miner.place.port != three.miner.place.rpc_port
        rate = (await three.get("get.miner.status", "summary"))["msg"]["summary"]["hash-realtime"]
        assert (await ask(opened, three.name, "summary"))["SUMMARY"][0]["HS RT"] / 1e6 == pytest.approx(rate, abs=0.01)


async def test_v3_tells_what_it_is_in_the_shape_of_the_vendors_text():
    async with threes() as opened:
        three = Three(opened)
        info = await three.get("get.device.info")
        assert (info["code"], info["desc"], info["when"]) == (0, "get.device.info", three.miner.device_time())
        assert info["msg"]["network"]["mac"] == three.miner.place.mac.upper()
        assert info["msg"]["miner"]["working"] == "true"
        assert set((await three.get("get.device.info", "salt"))["msg"]) == {"salt"}
        status = await three.get("get.miner.status", "summary+pools+edevs")
        assert set(status["msg"]) == {"summary", "pools", "edevs"}
        assert status["msg"]["summary"]["power-realtime"] == pytest.approx(three.miner.place.actual_w, rel=0.02)
        assert (await three.get("get.nothing"))["code"] == -2
        assert (await three.send([1]))["code"] == -3


async def test_v3_answers_heartbeats_and_many_requests_on_a_connection():
    async with threes() as opened:
        place = miner_of(opened, "whatsminer-v3").place
        reader, writer = await asyncio.open_connection(place.host, place.port)
        body = b'{"cmd":"get.device.info"}'
        writer.write(bytes(4) + (len(body).to_bytes(4, "little") + body) * 2)
        assert await frame(reader) == b""
        assert json.loads(await frame(reader)) == json.loads(await frame(reader))
        writer.close()


async def test_v3_stops_and_starts_under_a_signature():
    async with threes() as opened:
        three = Three(opened)
        assert (await three.set("set.miner.service", "stop"))["msg"] == "ok"
        clock_of(opened).advance(60)
        assert power_share(opened, three.miner) < 0.03
        assert (await three.get("get.device.info"))["msg"]["miner"]["working"] == "false"
        assert (await three.get("get.miner.status", "summary"))["msg"]["summary"]["hash-realtime"] == 0
        await three.set("set.miner.service", "start")
        clock_of(opened).advance(60)
        assert power_share(opened, three.miner) > 0.97


async def test_v3_takes_no_write_without_the_right_signature():
    async with threes() as opened:
        three = Three(opened)
        for wrong in ({"account": "admin"}, {"token": "AAAAAAAA"}, {"ts": "soon"}, {"ts": None}):
            assert (await three.set("set.miner.service", "stop", **wrong))["code"] == -4, wrong
        late = three.miner.device_time() - 200
        assert (await three.set("set.miner.service", "stop", ts=late))["msg"] == "token expired"
        assert (await Three(opened, "other").set("set.miner.service", "stop"))["code"] == -4
        assert not opened.orders


async def test_v3_judges_the_time_by_its_own_clock():
    async with threes() as opened:
        three = Three(opened)
        await opened.set_fault(three.name, "clock_unset")
        ours = int(clock_of(opened).now().timestamp())
        assert (await three.set("set.miner.service", "stop", ts=ours))["code"] == -4
        assert (await three.set("set.miner.service", "stop"))["code"] == 0


@pytest.mark.parametrize(
    ("fault", "code"), [("access_denied", -4), ("bad_password", -4), ("token_exhausted", -1), ("expired_token", -4)]
)
async def test_v3_faults_refuse_writes_and_leave_reading(fault, code):
    async with threes() as opened:
        three = Three(opened)
        await opened.set_fault(three.name, fault, 0.0 if fault == "expired_token" else None)
        late = {"ts": three.miner.device_time() - 1} if fault == "expired_token" else {}
        assert (await three.set("set.miner.service", "stop", **late))["code"] == code
        assert (await three.get("get.miner.status", "summary"))["code"] == 0
        assert not opened.orders


async def test_v3_limits_modes_pools_lamp_and_password():
    async with threes() as opened:
        three = Three(opened)
        nameplate_w = three.miner.place.model.nameplate_w
        assert (await three.set("set.miner.power_limit", 2800))["code"] == 0
        clock_of(opened).advance(60)
        assert power_share(opened, three.miner) == pytest.approx(2800 / nameplate_w, rel=0.02)
        assert (await three.get("get.miner.status", "summary"))["msg"]["summary"]["power-limit"] == 2800
        assert (await three.set("set.miner.power_limit", 99_000))["code"] == -1
        assert (await three.set("set.miner.power_mode", "low"))["code"] == 0
        assert (await three.set("set.miner.power_mode", "sleepy"))["code"] == -1
        assert (await three.set("set.miner.pools", [POOL]))["code"] == 0
        assert (await three.set("set.miner.pools", []))["code"] == -1
        assert (await three.get("get.miner.status", "pools"))["msg"]["pools"][0]["url"] == POOL["pool"]
        assert (await three.set("set.system.led", [{"color": "red"}]))["code"] == 0
        assert (await three.get("get.device.info", "system"))["msg"]["system"]["ledstatus"] == "manual"
        assert (await three.set("set.system.led", "auto"))["code"] == 0
        change = {"account": "super", "old": "admin", "new": "s3cret"}
        assert (await three.set("set.user.change_passwd", change | {"old": "x"}))["code"] == -1
        assert (await three.set("set.user.change_passwd", change))["code"] == 0
        assert (await three.set("set.miner.service", "stop"))["code"] == -4
        three.password = "s3cret"
        assert (await three.set("set.miner.service", "stop"))["code"] == 0


async def test_v3_reboots_sends_logs_and_takes_firmware():
    async with threes() as opened:
        three = Three(opened)
        log = await three.get("get.log.download")
        assert int(log["msg"]["logsize"]) > 100
        reply = await three.set("set.system.update_firmware", then=b"version=20270202.2.Rel2" + bytes(100_000))
        assert (reply["code"], reply["msg"]) == (0, "ok")
        await gone_and_back(opened, three.miner, 90)
        assert (await three.get("get.device.info", "system"))["msg"]["system"]["fwversion"] == "20270202.2.Rel2"
        await three.set("set.system.reboot")
        await gone_and_back(opened, three.miner, 40)
        assert (await three.get("get.miner.status", "summary"))["msg"]["summary"]["bootup-time"] < 60
        assert [row["verb"] for row in opened.order_rows()] == ["logs", "firmware", "reboot"]


async def test_v3_loses_who_sends_no_frame():
    async with threes() as opened:
        place = miner_of(opened, "whatsminer-v3").place
        reader, writer = await asyncio.open_connection(place.host, place.port)
        writer.write(b'{"cmd":"get.device.info"}')
        async with asyncio.timeout(5):
            assert await reader.read(-1) == b""
        writer.close()
