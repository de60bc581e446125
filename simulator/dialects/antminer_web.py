"""The web pages of a stock Antminer: ``/cgi-bin`` behind HTTP digest, one configuration object that is written whole.

Invariants: ``set_miner_conf.cgi`` replaces the configuration: a key that is not sent is lost, which shows in the next
``get_miner_conf.cgi``; an unknown mode or one of the wrong type is refused and changes nothing. What mode 2 means
differs by build: more power on those that show ``bitmain-work-mode``, less on those that show ``miner-mode``.
"""

import hashlib
import json
from typing import Any

from simulator import noise
from simulator.access import check_digest
from simulator.dialects.antminer import has_new_api, new_stats, version_of
from simulator.dialects.rpc import Row
from simulator.kept import Pool, version_in
from simulator.miner import Miner, Snapshot
from simulator.web import WebFirmware, WebReply, WebRequest, page, plain
from sitelink.types import Verb

REALM = "antMiner Configuration"
_FACTORY_KEYS: dict[str, Any] = {
    "api-listen": True,
    "api-network": True,
    "api-groups": "A:stats:pools:devs:summary:version",
    "api-allow": "A:0/0,W:*",
    "bitmain-fan-ctrl": False,
    "bitmain-fan-pwm": "100",
    "bitmain-use-vil": True,
    "bitmain-freq": "675",
    "bitmain-voltage": "1400",
    "bitmain-ccdelay": "0",
    "bitmain-pwth": "0",
    "bitmain-freq-level": "100",
}
_SLEEP, _NORMAL, _LOW, _SECOND = 1, 0, 3, 2
_BAD = {"stats": "error", "code": "M001", "msg": "ASIC parameter error!"}


class AntminerWeb(WebFirmware):
    """Bitmain's pages of 2020 to 2023."""

    def serve(self, miner: Miner, request: WebRequest) -> WebReply:
        """Answer one page; each needs the password."""
        denied = check_digest(miner, request, REALM)
        if denied is not None:
            return denied
        name = request.path.removeprefix("/cgi-bin/")
        read = _READS.get(name)
        if read is not None:
            return read(miner)
        write = _WRITES.get(name)
        if write is None:
            return WebReply(404, b"<h1>404 - Not Found</h1>", "text/html")
        if miner.has("access_denied"):
            return WebReply(403, b"<h1>403 - Forbidden</h1>", "text/html")
        return write(miner, request)


def conf_of(miner: Miner) -> dict[str, Any]:
    """Return the configuration as ``get_miner_conf.cgi`` shows it."""
    keys = miner.kept.more.get("conf")
    if keys is None:
        keys = {**_FACTORY_KEYS, **_site_fans(miner)}
    pools = [{"url": pool.url, "user": pool.user, "pass": pool.password} for pool in miner.kept.pools]
    number = _mode_number(miner)
    mode = {"miner-mode": number} if has_new_api(miner) else {"bitmain-work-mode": str(number)}
    return {"pools": pools, **keys, **mode}


def _site_fans(miner: Miner) -> Row:
    """Half of a site's miners run with fans held by hand, so that a lost setting shows."""
    by_hand = noise.key("fans", miner.place.miner_id) % 2 == 1
    return {"bitmain-fan-ctrl": True, "bitmain-fan-pwm": "75"} if by_hand else {}


def _mode_number(miner: Miner) -> int:
    if miner.asleep:
        return _SLEEP
    if miner.kept.mode == "normal":
        return _NORMAL
    second = "low" if has_new_api(miner) else "high"
    if miner.kept.mode == second and miner.kept.more.get("second mode"):
        return _SECOND
    return _LOW if miner.kept.mode == "low" else _SECOND


def _get_conf(miner: Miner) -> WebReply:
    conf = conf_of(miner)
    lines = ",\n".join(f'"{name}" : {json.dumps(value)}' for name, value in conf.items() if name != "pools")
    pools = ",\n".join(
        "{\n" + ",\n".join(f'"{name}" : {json.dumps(value)}' for name, value in pool.items()) + "\n}"
        for pool in conf["pools"]
    )
    return plain(f'\n\n{{\n"pools" : [\n{pools}\n]\n,\n{lines}\n}}\n')


def _set_conf(miner: Miner, request: WebRequest) -> WebReply:
    asked = request.document
    if not isinstance(asked, dict):
        return page({**_BAD, "code": "M002", "msg": "Illegal request!"})
    number = _asked_mode(miner, asked)
    pools = _asked_pools(asked)
    if number is None or pools is None:
        return page(_BAD)
    keys = {name: value for name, value in asked.items() if name not in {"pools", "miner-mode", "bitmain-work-mode"}}
    if "freq-level" in keys:
        keys["bitmain-freq-level"] = keys.pop("freq-level")
    before = conf_of(miner)
    if pools != miner.kept.pools:
        miner.set_pools(pools)
    if not miner.has("ack_without_effect"):
        miner.kept.more["conf"] = keys
        miner.kept.more["lost"] = sorted(set(before) - {"pools"} - set(keys) - {"miner-mode", "bitmain-work-mode"})
    _move(miner, number)
    return page({"stats": "success", "code": "M000", "msg": "OK!"})


def _asked_mode(miner: Miner, asked: dict[str, Any]) -> int | None:
    """Return the mode in ``asked``, normal where none is given, None for one that this build does not take."""
    value = asked.get("miner-mode", asked.get("bitmain-work-mode", 0))
    if has_new_api(miner):
        number = value if isinstance(value, int) and not isinstance(value, bool) else None
    else:
        number = int(value) if str(value) in {"0", "1", "2", "3"} else None
    return number if number in {_NORMAL, _SLEEP, _SECOND, _LOW} else None


def _asked_pools(asked: dict[str, Any]) -> tuple[Pool, ...] | None:
    rows = asked.get("pools", [])
    if not isinstance(rows, list) or len(rows) > 3 or not all(isinstance(row, dict) for row in rows):
        return None
    named = [row for row in rows if row.get("url")]
    return tuple(Pool(str(row["url"]), str(row.get("user", "")), str(row.get("pass", ""))) for row in named)


def _move(miner: Miner, number: int) -> None:
    """Do what mode ``number`` asks for; what is so already is no order."""
    before = _mode_number(miner)
    if number == before:
        return
    if number == _SLEEP:
        miner.order(Verb.STOP, mode=number)
        return
    if before == _SLEEP:
        miner.order(Verb.START, mode=number)
    mode = {_NORMAL: "normal", _LOW: "low", _SECOND: "low" if has_new_api(miner) else "high"}[number]
    miner.kept.more["second mode"] = number == _SECOND
    if mode != miner.kept.mode:
        miner.limit(mode=mode)


def _system_info(miner: Miner) -> WebReply:
    mac, serial = miner.shown_identity()
    document: Row = {
        "minertype": miner.place.model.name,
        "nettype": "DHCP",
        "netdevice": "eth0",
        "macaddr": mac.upper(),
        "hostname": "Antminer",
        "ipaddress": miner.place.host,
        "netmask": "255.255.0.0",
        "gateway": "",
        "dnsservers": "",
        "system_mode": "GNU/Linux",
        "system_kernel_version": "Linux 4.9.113",
        "system_filesystem_version": version_of(miner)[1],
        "firmware_type": "Release",
    }
    if has_new_api(miner):
        document["serinum"] = serial
    return page(document)


def _stats(miner: Miner) -> WebReply:
    return page(new_stats(miner, miner.snapshot(), with_power=has_new_api(miner)))


def _summary(miner: Miner) -> WebReply:
    now = miner.snapshot()
    row: Row = {
        "elapsed": now.elapsed_s,
        "rate_5s": round(now.hashrate_ths * 1e3, 2),
        "rate_30m": round(now.average_ths * 1e3, 2),
        "rate_avg": round(now.average_ths * 1e3, 2),
        "rate_ideal": round(now.ideal_ths * 1e3, 1),
        "rate_unit": "GH/s",
        "hw_all": 562,
        "bestshare": 12904207043,
        "status": [{"type": name, "status": "s", "code": 0, "msg": ""} for name in ("rate", "network", "fans", "temp")],
    }
    return page({"STATUS": _web_status(now, "summary"), "INFO": _web_info(miner), "SUMMARY": [row]})


def _pools(miner: Miner) -> WebReply:
    now = miner.snapshot()
    rows = [
        {
            "index": number,
            "url": pool.url,
            "user": pool.user,
            "status": "Alive",
            "priority": number,
            "getworks": now.accepted // 3 if number == 0 else 0,
            "accepted": now.accepted if number == 0 else 0,
            "rejected": now.rejected if number == 0 else 0,
            "discarded": 0,
            "stale": 0,
            "diff": "262K",
            "lstime": "0:00:04",
        }
        for number, pool in enumerate(miner.kept.pools)
    ]
    return page({"STATUS": _web_status(now, "pools"), "INFO": _web_info(miner), "POOLS": rows})


def _web_status(now: Snapshot, name: str) -> Row:
    return {"STATUS": "S", "when": now.when, "Msg": name, "api_version": "1.0.0"}


def _web_info(miner: Miner) -> Row:
    version, compiled = version_of(miner)
    return {"miner_version": version, "CompileTime": compiled, "type": miner.place.model.name}


def _blink_status(miner: Miner) -> WebReply:
    return page({"blink": miner.kept.led})


def _blink(miner: Miner, request: WebRequest) -> WebReply:
    asked = request.fields.get("blink", request.form.get("action", request.form.get("blink")))
    on = str(asked).lower() in {"true", "startblink"}
    miner.change(Verb.BLINK, lambda: setattr(miner.kept, "led", on), on=on)
    return page({"code": "B000" if on else "B100"})


def _reboot(miner: Miner, _request: WebRequest) -> WebReply:
    miner.reboot()
    return page({"success": True})


def _passwd(miner: Miner, request: WebRequest) -> WebReply:
    fields = request.fields or request.form
    new = str(fields.get("newPwd", ""))
    if fields.get("curPwd") != miner.kept.password:
        return page({"stats": "error", "code": "P003", "msg": "Current password is wrong!"})
    if not new or new != fields.get("confirmPwd"):
        return page({"stats": "error", "code": "P002", "msg": "The passwords differ!"})
    miner.set_password(new)
    return page({"stats": "success", "code": "P000", "msg": "OK!"})


def _upgrade(miner: Miner, request: WebRequest) -> WebReply:
    digest = hashlib.sha256(request.body).hexdigest()
    if not request.body:
        return page({"stats": "error", "code": "U001", "msg": "No firmware in the request!"})
    miner.install(version_in(request.body, digest), digest, len(request.body))
    return page({"stats": "success", "code": "U000", "msg": "OK!"})


def _log(miner: Miner) -> WebReply:
    version, compiled = version_of(miner)
    now = miner.snapshot()
    lines = (
        f"Booting Linux on {miner.place.model.name}, file system {compiled}",
        f"bmminer {version} started, {len(now.board_c)} chains found",
        f"rate {now.hashrate_ths * 1e3:.2f} GH/s, chips at most {max(now.chip_c)} C",
    )
    return plain(miner.hand_out(("\n".join(lines) + "\n").encode()).decode())


_READS = {
    "get_miner_conf.cgi": _get_conf,
    "get_system_info.cgi": _system_info,
    "stats.cgi": _stats,
    "summary.cgi": _summary,
    "pools.cgi": _pools,
    "get_blink_status.cgi": _blink_status,
    "log.cgi": _log,
}
_WRITES = {
    "set_miner_conf.cgi": _set_conf,
    "blink.cgi": _blink,
    "reboot.cgi": _reboot,
    "passwd.cgi": _passwd,
    "upgrade.cgi": _upgrade,
}
