"""Whatsminers that keep a state: API v2 with its tokens and cipher, API v3 with its frames and signatures."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agent.cgminer.client import Address
from agent.cgminer.control.md5_crypt import md5_crypt
from agent.cgminer.control.whatsminer_access import seal, unseal

MAC = "62:f7:5e:00:00:01"
TOKENS = 32
SIZE = 4


class Whatsminer:
    """What both generations keep. ``trouble`` is the answer to the next writes instead of what they ask for."""

    def __init__(self) -> None:
        self.password = "old"
        self.off, self.mode, self.limit, self.led, self.uptime_s, self.version = (
            False,
            "normal",
            3600,
            "auto",
            9000,
            "v1",
        )
        self.pools = [("stratum+tcp://old.example:1", "old", "x")]
        self.effect = True
        self.told: list[dict[str, Any]] = []
        self.image = b""
        self.logs = b"\x1f\x8blog\0archive" * 400
        self.says_size: object = None
        self.breaks_off = False
        self.stalls = False
        self.amid_logs, self.let_go = asyncio.Event(), asyncio.Event()

    async def stall(self, reader: asyncio.StreamReader) -> None:
        """Send nothing more; note when the other side has let go of the connection."""
        self.amid_logs.set()
        await reader.read()
        self.let_go.set()

    def do(self, command: str, order: dict[str, Any]) -> None:
        self.told.append({"cmd": command, **order})
        if self.effect:
            self.take(command, order)

    def take(self, command: str, order: dict[str, Any]) -> None:
        raise NotImplementedError

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Address]:
        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await self.talk(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
        try:
            yield Address(*server.sockets[0].getsockname()[:2])
        finally:
            server.close()


class V2(Whatsminer):
    """btminer of API 2.0.5."""

    salt, newsalt, time = "BQ5hoXV9", "jbzkfQls", "5626"

    def __init__(self) -> None:
        super().__init__()
        self.tokens = 0
        self.trouble: list[tuple[int, str, str]] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(await reader.read(65536))
        if asked.get("enc") == 1:
            await self._write(asked["data"], reader, writer)
        else:
            writer.write(json.dumps(self._read(asked.get("command") or asked.get("cmd"))).encode())
        await writer.drain()

    def _read(self, command: str) -> object:
        rate = 0.0 if self.off else 110e6
        summary = {
            "Elapsed": self.uptime_s,
            "HS RT": rate,
            "Power": 15 if self.off else min(3300, self.limit),
            "MAC": MAC,
        }
        pools = [
            {"POOL": n + 1, "URL": url, "User": user, "Priority": n} for n, (url, user, _) in enumerate(self.pools)
        ]
        own = {
            "status": {"mineroff": str(self.off).lower(), "power_mode": self.mode, "power_limit_set": str(self.limit)},
            "get_miner_info": {"mac": MAC, "ledstat": self.led},
            "get_version": {"fw_ver": self.version, "api_ver": "2.0.5"},
        }
        if command == "get_token":
            self.tokens += 1
            if self.tokens > TOKENS:
                return own_answer(136, "over max connect", "E")
            return own_answer(134, {"time": self.time, "salt": self.salt, "newsalt": self.newsalt})
        if command in own:
            return own_answer(131, own[command])
        sections = {"summary": ("SUMMARY", [summary]), "pools": ("POOLS", pools), "devs": ("DEVS", [{"ASC": 0}])}
        if command in sections:
            name, rows = sections[command]
            return {"STATUS": [{"STATUS": "S", "Code": 11, "Msg": name}], name: rows}
        return own_answer(14, "invalid cmd", "E")

    def _key(self) -> tuple[bytes, str]:
        digest = md5_crypt(self.password, self.salt)
        return hashlib.sha256(digest.encode()).digest(), md5_crypt(digest + self.time, self.newsalt)

    async def _write(self, data: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key, sign = self._key()
        try:
            order = json.loads(unseal(data, key))
        except ValueError:
            writer.write(json.dumps(own_answer(135, "enc json load err", "E")).encode())
            return
        command = order.pop("cmd")
        assert order.pop("token") == sign
        if self.trouble:
            code, text, letter = self.trouble.pop(0)
            writer.write(self._sealed(own_answer(code, text, letter), key))
            return
        if command == "download_logs":
            size = len(self.logs) if self.says_size is None else self.says_size
            writer.write(self._sealed(own_answer(131, {"logfilelen": size}), key))
            await writer.drain()
            if self.stalls:
                await self.stall(reader)
                return
            writer.write(self.logs[: len(self.logs) // 2] if self.breaks_off else self.logs)
            return
        if command == "update_firmware":
            writer.write(self._sealed(own_answer(131, "ready"), key))
            size = int.from_bytes(await reader.readexactly(SIZE), "little")
            self.image = await reader.readexactly(size)
            if self.breaks_off:
                return
        self.do(command, order)
        writer.write(self._sealed(own_answer(131, "API command OK"), key))

    def _sealed(self, answer: object, key: bytes) -> bytes:
        return json.dumps({"enc": seal(json.dumps(answer), key)}).encode()

    def take(self, command: str, order: dict[str, Any]) -> None:
        match command:
            case "power_off" | "power_on":
                self.off = command == "power_off"
            case "adjust_power_limit":
                self.limit = int(order["power_limit"])
            case "set_low_power" | "set_normal_power" | "set_high_power":
                self.mode = command.split("_")[1]
            case "update_pools":
                rows = [tuple(order[f"{name}{n}"] for name in ("pool", "worker", "passwd")) for n in (1, 2, 3)]
                self.pools = [row for row in rows if row[0]]
            case "set_led":
                self.led = "auto" if order.get("param") == "auto" else "manual"
            case "update_pwd":
                assert order["old"] == self.password
                self.password, self.salt = order["new"], "An0therS"
            case "reboot":
                self.uptime_s = 5
            case "update_firmware":
                self.uptime_s, self.version = 5, self.image.decode().rpartition("=")[2]


def own_answer(code: int, message: object, letter: str = "S") -> dict[str, object]:
    return {"STATUS": letter, "When": 1_760_000_000, "Code": code, "Msg": message, "Description": ""}


class V3(Whatsminer):
    """btminer of API 3.0; its clock was never set."""

    when = 1_234

    def __init__(self) -> None:
        super().__init__()
        self.account, self.salt = "super", "QbVy1Ou3"
        self.trouble: list[tuple[int, str]] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(await reader.readexactly(int.from_bytes(await reader.readexactly(SIZE), "little")))
        command, parameter = asked["cmd"], asked.get("param")
        if command == "get.log.download":
            size = len(self.logs) if self.says_size is None else self.says_size
            writer.write(self._frame(0, {"logsize": size}) + (b"" if self.breaks_off or self.stalls else self.logs))
            if self.stalls:
                await self.stall(reader)
        elif command.startswith("get."):
            writer.write(self._frame(0, self._read(command, parameter)))
        else:
            await self._write(asked, reader, writer)
        await writer.drain()

    def _frame(self, code: int, message: object) -> bytes:
        body = json.dumps({"code": code, "when": self.when, "msg": message, "desc": ""}).encode()
        return len(body).to_bytes(SIZE, "little") + body

    def _read(self, command: str, parameter: object) -> object:
        info = {
            "network": {"mac": MAC.upper()},
            "miner": {"working": str(not self.off).lower(), "type": "M60S", "miner-sn": "SN1"},
            "system": {"ledstatus": self.led, "fwversion": self.version, "api": "3.0.2"},
            "salt": self.salt,
        }
        if command == "get.device.info":
            return {parameter: info[parameter]} if isinstance(parameter, str) and parameter in info else info
        if command == "get.miner.setting":
            return {"power-limit": self.limit, "power-mode": self.mode}
        summary = {
            "elapsed": self.uptime_s,
            "hash-realtime": 0.0 if self.off else 180.0,
            "power-realtime": 20 if self.off else min(3400, self.limit),
            "power-limit": self.limit,
        }
        pools = [{"account": user, "pool-priority": n, "url": url} for n, (url, user, _) in enumerate(self.pools)]
        sections = {"summary": summary, "pools": pools, "edevs": []}
        return {name: sections[name] for name in str(parameter).split("+") if name in sections}

    async def _write(self, asked: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = asked["cmd"]
        digest = hashlib.sha256(f"{command}{self.password}{self.salt}{asked['ts']}".encode()).digest()
        right = asked["token"] == base64.b64encode(digest).decode()[:8] and asked["account"] == self.account
        if not right or abs(asked["ts"] - self.when) > 60:
            writer.write(self._frame(-1, "invalid token"))
            return
        if self.trouble:
            writer.write(self._frame(*self.trouble.pop(0)))
            return
        parameter = asked.get("param")
        if command in {"set.miner.pools", "set.user.change_passwd"}:
            parameter = json.loads(unseal(parameter, digest))
        if command == "set.system.update_firmware":
            writer.write(self._frame(0, "ready"))
            self.image = await reader.readexactly(int.from_bytes(await reader.readexactly(SIZE), "little"))
            if self.breaks_off:
                return
        self.do(command, {"param": parameter})
        writer.write(self._frame(0, "ok"))

    def take(self, command: str, order: dict[str, Any]) -> None:
        parameter = order["param"]
        match command:
            case "set.miner.service":
                self.off = parameter == "stop"
            case "set.miner.power_limit":
                self.limit = parameter
            case "set.miner.power_mode":
                self.mode = parameter
            case "set.miner.pools":
                self.pools = [(row["pool"], row["worker"], row["passwd"]) for row in parameter]
            case "set.system.led":
                self.led = "auto" if parameter == "auto" else "manual"
            case "set.user.change_passwd":
                assert (parameter["account"], parameter["old"]) == (self.account, self.password)
                self.password = parameter["new"]
            case "set.system.reboot":
                self.uptime_s = 5
            case "set.system.update_firmware":
                self.uptime_s, self.version = 5, self.image.decode().rpartition("=")[2]
