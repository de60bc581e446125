"""Whatsminer API v3: framed documents on a port of their own, each write signed with the account's password.

    token = first 8 characters of base64(sha256(command + password + salt + ts));  the whole hash is the AES key of a
    parameter that must be encrypted (pools, passwords)

Invariants: a ``set.*`` command without the right token, or signed more than two minutes off the device's own clock, is
refused with code -4 and changes nothing; reading needs no token.

Source: WhatsMiner API 3.0.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from simulator import noise
from simulator.access import lifetime_s
from simulator.dialects.rpc import Row
from simulator.dialects.whatsminer_writes import (
    AWAITS_IMAGE,
    BadParameter,
    log_of,
    set_limit,
    set_pools,
    take_image,
)
from simulator.faults import as_json
from simulator.kept import MODE_SHARES
from simulator.miner import Miner, Snapshot
from simulator.physics import Phase
from sitelink.types import Verb
from sitelink.units import Watts

_OK, _FAIL, _NO_COMMAND, _BAD_ITEM, _NO_PERMISSION = 0, -1, -2, -3, -4
_FIRMWARE = "20251209.16.Rel2"
_WINDOW_S = 120.0
_BLOCK = 16
_ENCRYPTED = frozenset({"set.miner.pools", "set.user.change_passwd"})
_RESTART_S = 12.0


class WhatsMinerV3:
    """btminer of 2025 on an H616 board."""

    def answer(self, miner: Miner, request: bytes) -> tuple[bytes, bytes]:
        """Return (document, raw bytes that follow it) for one request."""
        if AWAITS_IMAGE in miner.memory and not request.startswith(b"{"):
            take_image(miner, request)
            return as_json(_reply(miner, "set.system.update_firmware", _OK, "ok")), b""
        try:
            asked = json.loads(request)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict) or not isinstance(asked.get("cmd"), str):
            return as_json(_reply(miner, "", _BAD_ITEM, "invalid json")), b""
        command = asked["cmd"]
        if command == "get.log.download":
            log = log_of(miner)
            return as_json(_reply(miner, command, _OK, {"logsize": str(len(log))})), log
        read = _READS.get(command)
        if read is not None:
            return as_json(_reply(miner, command, _OK, read(miner, miner.snapshot(), asked.get("param")))), b""
        return as_json(_write(miner, command, asked)), b""


def salt_of(miner: Miner) -> str:
    """Return the device's salt."""
    return f"{noise.key('salt v3', miner.place.miner_id):016x}"[:8]


def sign(command: str, password: str, salt: str, ts: object) -> bytes:
    """Return the hash whose beginning is the token, and which is the key of an encrypted parameter."""
    return hashlib.sha256(f"{command}{password}{salt}{ts}".encode()).digest()


def _reply(miner: Miner, command: str, code: int, message: Any) -> Row:
    return {"code": code, "when": miner.device_time(), "msg": message, "desc": command}


def _write(miner: Miner, command: str, asked: Row) -> Row:
    write = _WRITES.get(command)
    if write is None:
        return _reply(miner, command, _NO_COMMAND, "invalid command")
    if miner.has("token_exhausted"):
        return _reply(miner, command, _FAIL, "over max connect")
    if miner.has("access_denied"):
        return _reply(miner, command, _NO_PERMISSION, "no permission")
    digest = sign(command, miner.kept.password, salt_of(miner), asked.get("ts"))
    refusal = _check(miner, asked, digest)
    if refusal:
        return _reply(miner, command, _NO_PERMISSION, refusal)
    try:
        parameter = _open(str(asked.get("param", "")), digest) if command in _ENCRYPTED else asked.get("param")
        return _reply(miner, command, _OK, write(miner, parameter))
    except BadParameter as wrong:
        return _reply(miner, command, _FAIL, str(wrong))


def _check(miner: Miner, asked: Row, digest: bytes) -> str:
    """Return why the request proves nothing; empty when it does."""
    token = base64.b64encode(digest).decode()[:8]
    right = hmac.compare_digest(token.encode(), str(asked.get("token", "")).encode())
    if asked.get("account") != miner.kept.user or not right or miner.has("bad_password"):
        return "invalid token"
    try:
        apart_s = abs(miner.device_time() - float(asked["ts"]))
    except (KeyError, TypeError, ValueError):
        return "invalid token"
    return "token expired" if apart_s > lifetime_s(miner, _WINDOW_S) else ""


def _open(sealed: str, key: bytes) -> Any:
    """Return the JSON in an encrypted parameter, padded with NUL or after PKCS 7.

    Raises:
        BadParameter: it does not open to JSON.
    """
    try:
        data = base64.b64decode(sealed, validate=True)
        decryptor = Cipher(algorithms.AES(key), modes.ECB()).decryptor()  # noqa: S305 - the device's way
        plain = decryptor.update(data) + decryptor.finalize()
        padding = plain[-1] if plain and plain[-1] <= _BLOCK else 0
        return json.loads(plain.rstrip(b"\x00") if padding == 0 else plain[:-padding])
    except (ValueError, RecursionError):
        raise BadParameter("invalid param") from None


def _info(miner: Miner, now: Snapshot, wanted: Any) -> Any:
    sections: Row = {
        "network": {
            "ip": miner.place.host,
            "proto": "dhcp",
            "netmask": "255.255.0.0",
            "dns": "",
            "mac": miner.shown_identity()[0].upper(),
            "gateway": "",
            "hostname": "WhatsMiner",
        },
        "miner": _board_info(miner, now),
        "system": {
            "api": "3.0.2",
            "platform": "H616",
            "fwversion": miner.kept.firmware or _FIRMWARE,
            "control-board-version": "CB6V10",
            "apiswitch": "0" if miner.has("access_denied") else "1",
            "ledstatus": "manual" if miner.kept.led else "auto",
        },
        "power": _supply_info(miner, now),
        "salt": salt_of(miner),
        "error-code": _errors(now),
    }
    return {wanted: sections[wanted]} if isinstance(wanted, str) and wanted in sections else sections


def _board_info(miner: Miner, now: Snapshot) -> Row:
    boards = range(miner.place.model.boards)
    limit_w = miner.kept.limit_w
    return {
        "working": "false" if now.switched_off else "true",
        "type": miner.place.model.name,
        "hash-board": "K40",
        "detect-hash-rate": ":".join(str(round(now.ideal_ths * 333)) for _ in boards),
        "pool-strategy": "FAILOVER",
        "hash-percent": "0",
        **{f"chipdata{board}": "K8EC374-2426 BINVE6-197806A" for board in boards},
        "fast-boot": "disable",
        "board-num": str(len(boards)),
        **{f"pcbsn{board}": f"SIM{miner.place.serial[:10].upper()}{board}" for board in boards},
        "miner-sn": miner.shown_identity()[1].upper(),
        "power-limit-set": "" if limit_w is None else str(round(limit_w)),
    }


def _supply_info(miner: Miner, now: Snapshot) -> Row:
    return {
        "type": "P221B",
        "mode": "1",
        "model": "P221B",
        "iin": round(now.power_w / 230, 1),
        "vin": 230.0,
        "pin": round(now.power_w),
        "fanspeed": 6344 if now.hashing else 1200,
        "sn": f"SIM{miner.shown_identity()[1][:12].upper()}",
        "vendor": "1",
    }


def _errors(now: Snapshot) -> list[Row]:
    if now.phase is not Phase.TRIPPED:
        return []
    return [{"350": "2026-05-08 18:00:00", "reason": "The temperature of the hash board is too high."}]


def _status(miner: Miner, now: Snapshot, wanted: Any) -> Row:
    names = wanted.split("+") if isinstance(wanted, str) else []
    return {name: _SECTIONS[name](miner, now) for name in names if name in _SECTIONS}


def _summary(miner: Miner, now: Snapshot) -> Row:
    return {
        "elapsed": now.running_s if now.hashing and not now.switched_off else now.elapsed_s,
        "bootup-time": now.elapsed_s,
        "freq-avg": 625 if now.hashing else 0,
        "target-freq": 0,
        "factory-hash": round(miner.place.model.nameplate_ths, 3),
        "hash-average": round(now.average_ths, 3),
        "hash-1min": round(now.hashrate_ths * 0.998, 3),
        "hash-15min": round(now.average_ths, 3),
        "hash-realtime": round(now.hashrate_ths, 3),
        "power-rate": round(now.power_w / now.hashrate_ths, 3) if now.hashing else 0.0,
        "power-5min": round(now.power_w, 3),
        "power-realtime": round(now.power_w),
        "environment-temperature": now.air_c,
        "board-temperature": list(now.board_c),
        "chip-temp-min": round(min(now.chip_c) - 18, 1),
        "chip-temp-avg": round(sum(now.chip_c) / len(now.chip_c) - 7, 1),
        "chip-temp-max": max(now.chip_c),
        "power-limit": round(now.power_limit_w),
        "power-mode": miner.kept.mode,
        "up-freq-finish": int(now.phase is Phase.HASHING),
        "fan-speed-in": now.fans_rpm[0],
        "fan-speed-out": now.fans_rpm[1],
    }


def _pools(miner: Miner, _now: Snapshot) -> list[Row]:
    return [
        {
            "account": pool.user,
            "pool-priority": number,
            "status": "alive",
            "stratum-active": number == 0,
            "url": pool.url,
        }
        for number, pool in enumerate(miner.kept.pools)
    ]


def _edevs(miner: Miner, now: Snapshot) -> list[Row]:
    boards = miner.place.model.boards
    return [
        {
            "id": board,
            "status": "alive" if now.hashing else "disable",
            "freq": 625.0 if now.hashing else 0.0,
            "effective-chips": miner.place.model.chips,
            "factory-hash": round(miner.place.model.nameplate_ths / boards, 3),
            "hash-average": round(now.average_ths / boards, 3),
            "hash-realtime": round(now.board_ths[board], 3),
            "chip-temp-min": round(now.chip_c[board] - 18, 1),
            "chip-temp-avg": round(now.chip_c[board] - 7, 1),
            "chip-temp-max": now.chip_c[board],
        }
        for board in range(boards)
    ]


def _setting(miner: Miner, now: Snapshot, _wanted: Any) -> Row:
    return {"power-mode": miner.kept.mode, "power-limit": round(now.power_limit_w), "fast-boot": "disable"}


def _service(miner: Miner, parameter: Any) -> str:
    if parameter == "stop":
        miner.order(Verb.STOP)
    elif parameter == "start":
        miner.order(Verb.START)
    elif parameter == "restart":
        miner.reboot(Verb.REBOOT, _RESTART_S, only="btminer")
    elif parameter not in ("enable", "disable"):
        raise BadParameter("invalid param")
    return "ok"


def _limit(miner: Miner, parameter: Any) -> str:
    set_limit(miner, parameter)
    return "ok"


def _percent(miner: Miner, parameter: Any) -> str:
    percent = parameter.get("percent") if isinstance(parameter, dict) else None
    if not isinstance(percent, int) or not 0 < percent <= 100:
        raise BadParameter("invalid param")
    miner.limit(Watts(miner.place.model.nameplate_w * percent / 100), percent=percent)
    return "ok"


def _mode(miner: Miner, parameter: Any) -> str:
    if not isinstance(parameter, str) or parameter not in MODE_SHARES:
        raise BadParameter("invalid param")
    miner.limit(mode=parameter)
    return "ok"


def _set_pools(miner: Miner, parameter: Any) -> str:
    rows = parameter if isinstance(parameter, list) else []
    if not all(isinstance(row, dict) for row in rows):
        raise BadParameter("invalid param")
    texts = [[str(row.get(name, "")) for name in ("pool", "worker", "passwd")] for row in rows]
    set_pools(miner, [(url, worker, password) for url, worker, password in texts])
    return "ok"


def _led(miner: Miner, parameter: Any) -> str:
    if parameter != "auto" and not isinstance(parameter, list):
        raise BadParameter("invalid param")
    on = parameter != "auto"
    miner.change(Verb.BLINK, lambda: setattr(miner.kept, "led", on), on=on)
    return "ok"


def _change_password(miner: Miner, parameter: Any) -> str:
    fields = parameter if isinstance(parameter, dict) else {}
    new = fields.get("new")
    known = fields.get("account") == miner.kept.user and fields.get("old") == miner.kept.password
    if not known or not isinstance(new, str) or not new:
        raise BadParameter("password err")
    miner.set_password(new)
    return "ok"


def _reboot(miner: Miner, _parameter: Any) -> str:
    miner.reboot()
    return "ok"


def _update_firmware(miner: Miner, _parameter: Any) -> str:
    miner.memory[AWAITS_IMAGE] = True
    return "ready"


_READS: dict[str, Callable[[Miner, Snapshot, Any], Any]] = {
    "get.device.info": _info,
    "get.miner.status": _status,
    "get.miner.setting": _setting,
    "get.system.setting": lambda _miner, _now, _wanted: {"web-pool": 1, "timezone": "UTC", "hostname": "WhatsMiner"},
    "get.fan.setting": lambda _miner, _now, _wanted: {"fan-poweroff-cool": 1, "fan-zero-speed": 0},
}
_SECTIONS: dict[str, Callable[[Miner, Snapshot], Any]] = {"summary": _summary, "pools": _pools, "edevs": _edevs}
_WRITES: dict[str, Callable[[Miner, Any], str]] = {
    "set.miner.service": _service,
    "set.miner.power_limit": _limit,
    "set.miner.power": _limit,
    "set.miner.power_percent": _percent,
    "set.miner.power_mode": _mode,
    "set.miner.pools": _set_pools,
    "set.system.led": _led,
    "set.user.change_passwd": _change_password,
    "set.system.reboot": _reboot,
    "set.system.update_firmware": _update_firmware,
}
