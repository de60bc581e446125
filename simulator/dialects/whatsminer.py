"""Whatsminer API v2 (btminer): bare-string statuses for its own commands, encrypted writes under a token.

Invariants: a write without a living token of its client is refused with code 135; a client holds at most 32 tokens,
each for 30 minutes, and 16 clients hold any; beyond that ``get_token`` answers 136; numbers in ``status`` are strings.

Source: WhatsMiner API 2.0.5.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from simulator import noise
from simulator.access import lifetime_s
from simulator.dialects.ciphers import close_envelope, md5_crypt, open_envelope
from simulator.dialects.rpc import Dialect, Request, Row, Section, pool_rows
from simulator.dialects.whatsminer_writes import STREAM, BadParameter, carry_out, take_image
from simulator.faults import as_json
from simulator.miner import Miner, Snapshot
from simulator.physics import Phase

_TOKENS_A_CLIENT = 32
_CLIENTS = 16
_TOKEN_S = 1800.0
_FIRMWARE = "20230803.11.REL"


@dataclass(slots=True)
class _Token:
    time: str
    newsalt: str
    client: str
    granted_s: float
    sign: str = ""
    key: str = ""


class WhatsMiner(Dialect):
    """btminer of 2023 on an H616 board."""

    name = "whatsminer"
    description = "btminer"
    terminator = b""
    joins = frozenset({"summary", "devs", "edevs", "pools"})
    privileged = frozenset(
        {
            *("power_off", "power_on", "reboot", "restart_btminer", "update_pools", "set_led", "adjust_power_limit"),
            *("set_power_pct", "set_low_power", "set_normal_power", "set_high_power", "update_pwd", "download_logs"),
            "update_firmware",
        }
    )

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], str] = {}
        self.tables = {
            "summary": _summary,
            "devs": _devs,
            "edevs": _devs,
            "pools": _pools,
            "devdetails": _devdetails,
            "version": _version,
        }

    def answer(self, miner: Miner, data: bytes, client: str) -> bytes:
        """Return the reply, and behind it the logs when they were asked for."""
        document = super().answer(miner, data, client)
        stream: bytes = miner.memory.pop(STREAM, b"")
        return document + stream

    def image(self, miner: Miner, image: bytes) -> bytes:
        """Return the answer to a firmware image."""
        take_image(miner, image)
        return as_json(_own(miner, 131, "upgrade success"))

    def control(self, miner: Miner, request: Request) -> Section | Row | None:
        """Answer btminer's own reads, ``get_token`` and encrypted writes."""
        reply = _OWN.get(request.command)
        if reply is not None:
            return _own(miner, 131, reply(miner, miner.snapshot()))
        if request.command == "get_token":
            return self._grant(miner, request)
        if request.command == "enc":
            return self._write(miner, request)
        if request.command in self.privileged:
            return _own(miner, 45, f"Access denied to '{request.command}' command", "E")
        return None

    def _grant(self, miner: Miner, request: Request) -> Row:
        if miner.has("access_denied"):
            return _own(miner, 45, "Access denied to 'get_token' command", "E")
        tokens = self._living(miner)
        held = sum(token.client == request.client for token in tokens)
        clients = {token.client for token in tokens} | {request.client}
        if miner.has("token_exhausted") or held >= _TOKENS_A_CLIENT or len(clients) > _CLIENTS:
            return _own(miner, 136, "over max connect", "E")
        now_s = miner.time.clock.monotonic()
        number = noise.key("token", miner.place.miner_id, request.client, len(tokens), now_s)
        token = _Token(f"{number % 10_000:04d}", f"{number:016x}"[:8], request.client, now_s)
        miner.memory["tokens"] = [*tokens, token]
        return _own(miner, 134, {"time": token.time, "salt": _salt(miner), "newsalt": token.newsalt})

    def _write(self, miner: Miner, request: Request) -> Row:
        key = self._key(miner)
        try:
            order = json.loads(open_envelope(str(request.fields.get("data", "")), key))
        except (ValueError, RecursionError):
            return _own(miner, 135, "enc json load err", "E")
        if not isinstance(order, dict):
            return _own(miner, 135, "enc json load err", "E")
        return {"enc": close_envelope(as_json(self._obey(miner, request, order, key)), key)}

    def _obey(self, miner: Miner, request: Request, order: Row, key: str) -> Row:
        sign = str(order.get("token", ""))
        if not any(self._signs(token, key) == sign for token in self._living(miner) if token.client == request.client):
            return _own(miner, 135, "token err", "E")
        command = order.get("cmd", order.get("command"))
        if miner.has("access_denied"):
            return _own(miner, 45, f"Access denied to '{command}' command", "E")
        try:
            message = carry_out(miner, str(command), order)
        except BadParameter as wrong:
            return _own(miner, 132, str(wrong), "E")
        if message is None:
            return _own(miner, 14, "invalid cmd", "E")
        return _own(miner, 131, message)

    def _living(self, miner: Miner) -> list[_Token]:
        tokens = miner.memory.get("tokens", [])
        now_s = miner.time.clock.monotonic()
        held = tokens if isinstance(tokens, list) else []
        return [token for token in held if now_s - token.granted_s < lifetime_s(miner, _TOKEN_S)]

    def _signs(self, token: _Token, key: str) -> str:
        """Return what proves ``token``; it depends on the password, and is worked out once for each."""
        if token.key != key:
            token.sign, token.key = md5_crypt(key + token.time, token.newsalt), key
        return token.sign

    def _key(self, miner: Miner) -> str:
        """Return the key of ``miner``; a thousand rounds of MD5 are paid once a device."""
        password = "\0" if miner.has("bad_password") else miner.kept.password
        name = miner.place.miner_id, password
        if name not in self._keys:
            self._keys[name] = md5_crypt(password, _salt(miner))
        return self._keys[name]


def _salt(miner: Miner) -> str:
    return f"{noise.key('salt', miner.place.miner_id):016x}"[:8]


def _own(miner: Miner, code: int, message: Any, letter: str = "S") -> Row:
    """Return a reply of btminer's own kind, whose STATUS is a bare string."""
    return {
        "STATUS": letter,
        "When": miner.device_time(),
        "Code": code,
        "Msg": message,
        "Description": "whatsminer v1.1",
    }


def _summary(miner: Miner, now: Snapshot) -> Section:
    rate, average = now.hashrate_ths * 1e6, now.average_ths * 1e6
    row: Row = {
        "Elapsed": now.running_s if now.hashing and not now.switched_off else now.elapsed_s,
        "MHS av": round(average, 2),
        "MHS 5s": round(rate, 2),
        "MHS 1m": round(rate * 0.998, 2),
        "MHS 5m": round(rate * 0.997, 2),
        "MHS 15m": round(average, 2),
        "HS RT": round(rate, 2),
        "Accepted": now.accepted,
        "Rejected": now.rejected,
        "Total MH": round(average * now.elapsed_s, 1),
        "Temperature": max(now.board_c),
        "freq_avg": 600 if now.hashing else 0,
        "Fan Speed In": now.fans_rpm[0],
        "Fan Speed Out": now.fans_rpm[1],
        "Voltage": 1206 if now.hashing else 0,
        "Power": round(now.power_w),
        "Power_RT": round(now.power_w),
        "Power Rate": round(now.power_w / now.hashrate_ths, 2) if now.hashing else 0.0,
        "Pool Rejected%": round(100 * now.rejected / max(now.accepted, 1), 4),
        "Pool Stale%": 0.0,
        "Last getwork": 0,
        "Uptime": now.elapsed_s + 500,
        **_settled(miner, now),
    }
    if now.phase is Phase.TRIPPED:
        row |= {"Error Code 0": 350, "Error 0 Time": "2024-06-15 10:30:00"}
    return Section(11, "Summary", "SUMMARY", (row,))


def _settled(miner: Miner, now: Snapshot) -> Row:
    """The rest of a summary: supply, errors, settings, builds, chips."""
    return {
        "Power Current": round(now.power_w / 12.06, 2),
        "Power Fanspeed": 6000 if now.hashing else 1200,
        "Error Code Count": 1 if now.phase is Phase.TRIPPED else 0,
        "Factory Error Code Count": 0,
        "Security Mode": 0,
        "Liquid Cooling": False,
        "Hash Stable": now.phase is Phase.HASHING,
        "Hash Deviation%": 0.0086,
        "Target Freq": 600,
        "Target MHS": round(now.ideal_ths * 1e6),
        "Env Temp": now.air_c,
        "Power Mode": miner.kept.mode.title(),
        "Factory GHS": round(now.ideal_ths * 1e3),
        "Power Limit": round(now.power_limit_w),
        "Firmware Version": f"'{miner.kept.firmware or _FIRMWARE}'",
        "CB Platform": "ALLWINNER_H616",
        "CB Version": "V2",
        "MAC": miner.shown_identity()[0].upper(),
        "Chip Temp Min": round(min(now.chip_c) - 18, 2),
        "Chip Temp Max": max(now.chip_c),
        "Chip Temp Avg": round(sum(now.chip_c) / len(now.chip_c) - 7, 2),
    }


def _devs(miner: Miner, now: Snapshot) -> Section:
    boards = miner.place.model.boards
    rows = tuple(
        {
            "ASC": board,
            "Name": "SM",
            "ID": board,
            "Slot": board,
            "Enabled": "Y",
            "Status": "Alive" if now.hashing else "Disable",
            "Temperature": now.board_c[board],
            "Chip Frequency": 600 if now.hashing else 0,
            "Fan Speed In": now.fans_rpm[0],
            "Fan Speed Out": now.fans_rpm[1],
            "MHS av": round(now.average_ths * 1e6 / boards, 2),
            "MHS 5s": round(now.board_ths[board] * 1e6, 2),
            "MHS 1m": round(now.board_ths[board] * 1e6, 2),
            "Accepted": now.accepted // boards,
            "Rejected": now.rejected // boards,
            "Device Elapsed": now.elapsed_s,
            "Upfreq Complete": int(now.phase is Phase.HASHING),
            "Effective Chips": miner.place.model.chips,
            "PCB SN": f"SIM{miner.place.serial[:10].upper()}{board}",
            "Factory GHS": round(now.ideal_ths * 1e3 / boards),
            "Chip Temp Min": round(now.chip_c[board] - 18, 2),
            "Chip Temp Max": now.chip_c[board],
            "Chip Temp Avg": round(now.chip_c[board] - 7, 2),
        }
        for board in range(boards)
    )
    return Section(9, f"{boards} ASC(s)", "DEVS", rows)


def _pools(miner: Miner, now: Snapshot) -> Section:
    rows = tuple({**row, "POOL": row["POOL"] + 1} for row in pool_rows(miner, now))
    return Section(7, f"{len(rows)} Pool(s)", "POOLS", rows)


def _devdetails(miner: Miner, _now: Snapshot) -> Section:
    model = miner.place.model
    rows = tuple(
        {
            "DEVDETAILS": board,
            "Name": "SM",
            "ID": board,
            "Driver": "bitmicro",
            "Kernel": "",
            "Model": model.name,
        }
        for board in range(model.boards)
    )
    return Section(69, "Device Details", "DEVDETAILS", rows)


def _version(_miner: Miner, _now: Snapshot) -> Section:
    return Section(22, "CGMiner versions", "VERSION", ({"CGMiner": "4.9.2", "API": "3.7"},))


def _status(miner: Miner, now: Snapshot) -> Row:
    limit_w = miner.kept.limit_w
    return {
        "FirmwareVersion": miner.kept.firmware or _FIRMWARE,
        "power_mode": miner.kept.mode,
        "power_limit_set": "" if limit_w is None else str(round(limit_w)),
        "hash_percent": "0",
        "mineroff": "true" if now.switched_off else "false",
        "mineroff_reason": "API command" if now.switched_off else "",
        "mineroff_time": "",
    }


def _info(miner: Miner, _now: Snapshot) -> Row:
    return {
        "ip": miner.place.host,
        "proto": "static",
        "netmask": "255.255.0.0",
        "gateway": "",
        "dns": "",
        "hostname": "WhatsMiner",
        "mac": miner.shown_identity()[0].upper(),
        "ledstat": "manual" if miner.kept.led else "auto",
        "minersn": miner.shown_identity()[1].upper(),
    }


def _psu(_miner: Miner, now: Snapshot) -> Row:
    return {
        "name": "P222B",
        "hw_version": "V01",
        "sw_version": "230208.220429",
        "model": "P222B",
        "iin": f"{round(now.power_w / 0.23)}",
        "vin": "23000",
        "fan_speed": "6000" if now.hashing else "1200",
    }


def _errors(_miner: Miner, now: Snapshot) -> Row:
    return {"error_code": [{"350": "2024-06-15 10:30:00"}] if now.phase is Phase.TRIPPED else []}


def _get_version(miner: Miner, _now: Snapshot) -> Row:
    return {"api_ver": "2.0.5", "fw_ver": miner.kept.firmware or _FIRMWARE, "platform": "H616", "chip": "K10"}


_OWN: dict[str, Callable[[Miner, Snapshot], Row]] = {
    "status": _status,
    "get_miner_info": _info,
    "get_psu": _psu,
    "get_error_code": _errors,
    "get_version": _get_version,
}
