"""Braiins OS from 25.07 on: a REST API under ``/api/v1``, opened by a token that lives as long as it is used.

Invariants: nothing but the login and the API's version is answered without a living token; a token's life begins anew
with each request, and a new password ends all of them; what a body lacks is answered with 400 and changes nothing.

Source: Braiins OS Public REST API 1.0 to 1.7.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from simulator import noise
from simulator.access import bearer, give_token, holds_token, knows
from simulator.dialects.braiins import bounds_w, pools_in, target_w
from simulator.dialects.rpc import Row
from simulator.kept import version_in
from simulator.miner import Miner, Snapshot
from simulator.physics import Phase
from simulator.web import WebFirmware, WebReply, WebRequest, page
from sitelink.types import Verb
from sitelink.units import TeraHashPerSecond, Watts

_TOKEN_S = 3600.0
_VERSION = "2026-04-14-0-912d084c-26.04-plus"
_RESTART_S = 10.0
_NORMAL, _PAUSED, _SUSPENDED = 2, 3, 4
_TUNER_STABLE, _TUNER_DISABLED, _TUNER_TUNING = 2, 1, 5
_KINDS = ("last_5s", "last_15s", "last_30s", "last_1m", "last_5m", "last_15m", "last_30m", "last_1h", "last_24h")
_DONE = WebReply(204)

Handler = Callable[[Miner, WebRequest], WebReply]


class BraiinsRest(WebFirmware):
    """Braiins OS 26.04."""

    def serve(self, miner: Miner, request: WebRequest) -> WebReply:
        """Answer one request below ``/api/v1``."""
        path = request.path.removeprefix("/api/v1").rstrip("/")
        if not request.path.startswith("/api/v1"):
            return WebReply(404, b"Not Found", "text/plain")
        if path == "/auth/login":
            return _login(miner, request)
        if path == "/version":
            return page({"major": 1, "minor": 3, "patch": 0})
        if not holds_token(miner, "token", bearer(request), _TOKEN_S, refreshed=True):
            return _problem(401, "Unauthorized", "authentication token is missing, wrong or expired")
        handler = _ROUTES.get((request.method, path))
        if handler is None:
            known = any(name == path for _, name in _ROUTES)
            return _problem(405 if known else 404, "Not Allowed" if known else "Not Found", request.path)
        if request.method != "GET" and miner.has("access_denied"):
            return _problem(403, "Forbidden", "the account may not change this miner")
        return handler(miner, request)


def _problem(status: int, title: str, detail: str) -> WebReply:
    return page({"error": title, "message": detail}, status)


def _login(miner: Miner, request: WebRequest) -> WebReply:
    fields = request.fields
    if request.method != "POST" or not isinstance(fields.get("username"), str):
        return _problem(400, "Bad Request", "username and password are wanted")
    if not knows(miner, str(fields["username"]), str(fields.get("password", ""))):
        return _problem(401, "Unauthorized", "wrong username or password")
    return page({"timeout_s": round(_TOKEN_S), "token": give_token(miner, "token")})


def _set_password(miner: Miner, request: WebRequest) -> WebReply:
    new = request.fields.get("password")
    if not isinstance(new, str) or not new:
        return _problem(400, "Bad Request", "password is wanted")
    miner.set_password(new)
    if not miner.has("ack_without_effect"):
        miner.memory.pop("token", None)
    return _DONE


def _pause(miner: Miner, _request: WebRequest) -> WebReply:
    before = miner.asleep
    miner.order(Verb.STOP)
    return page(before)


def _resume(miner: Miner, _request: WebRequest) -> WebReply:
    before = not miner.asleep
    miner.order(Verb.START)
    return page(before)


def _restart(miner: Miner, _request: WebRequest) -> WebReply:
    before = not miner.asleep
    miner.reboot(Verb.REBOOT, _RESTART_S, only="bosminer")
    return page(before)


def _reboot(miner: Miner, _request: WebRequest) -> WebReply:
    miner.reboot()
    return _DONE


def _locating(miner: Miner, _request: WebRequest) -> WebReply:
    return page(miner.kept.led)


def _locate(miner: Miner, request: WebRequest) -> WebReply:
    on = request.document
    if not isinstance(on, bool):
        return _problem(400, "Bad Request", "true or false is wanted")
    miner.change(Verb.BLINK, lambda: setattr(miner.kept, "led", on), on=on)
    return page(miner.kept.led)


def _get_target(miner: Miner, _request: WebRequest) -> WebReply:
    return page({"tunermode": {"target": {"powertarget": {"power_target": {"watt": round(target_w(miner))}}}}})


def _set_target(miner: Miner, request: WebRequest) -> WebReply:
    return _aim(miner, request.fields.get("watt"))


def _raise_target(miner: Miner, request: WebRequest) -> WebReply:
    by = request.fields.get("watt")
    return _aim(miner, target_w(miner) + by if isinstance(by, int) else None)


def _lower_target(miner: Miner, request: WebRequest) -> WebReply:
    by = request.fields.get("watt")
    return _aim(miner, target_w(miner) - by if isinstance(by, int) else None)


def _default_target(miner: Miner, _request: WebRequest) -> WebReply:
    miner.limit()
    return page({"watt": round(target_w(miner))})


def _set_mode(miner: Miner, request: WebRequest) -> WebReply:
    found: Any = request.fields
    for name in ("tunermode", "target", "powertarget", "power_target", "watt"):
        found = found.get(name) if isinstance(found, dict) else None
    reply = _aim(miner, found)
    return _get_target(miner, request) if reply.status == 200 else reply


def _aim(miner: Miner, watts: Any) -> WebReply:
    least, greatest = bounds_w(miner)
    if not isinstance(watts, int | float) or isinstance(watts, bool) or not least <= watts <= greatest:
        return _problem(400, "Bad Request", f"power target must lie between {least:.0f} and {greatest:.0f} W")
    miner.limit(Watts(watts))
    return page({"watt": round(watts)})


def _tuner_state(miner: Miner, _request: WebRequest) -> WebReply:
    now = miner.snapshot()
    target = {"watt": round(target_w(miner))}
    profile = {
        "created": {"nanos": 0, "seconds": now.when - 86_400},
        "estimated_power_consumption": {"watt": round(now.power_w)},
        "measured_hashrate": _giga(now.ideal_ths),
        "target": target,
    }
    state = {Phase.HASHING: _TUNER_STABLE, Phase.STARTING: _TUNER_TUNING}.get(now.phase, _TUNER_DISABLED)
    mode = {"powertargetmodestate": {"current_target": target, "profile": profile}}
    return page({"mode_state": mode, "overall_tuner_state": state})


def _configuration(miner: Miner, _request: WebRequest) -> WebReply:
    target = {"watt": round(target_w(miner))}
    tuner = {"enabled": True, "hashrate_target": None, "power_target": target, "tuner_mode": 1}
    return page({"pool_groups": [], "tuner": tuner})


def _constraints(miner: Miner, _request: WebRequest) -> WebReply:
    least, greatest = bounds_w(miner)
    watts = {"default": miner.place.model.nameplate_w, "min": least, "max": greatest}
    bounds = {name: {"watt": round(value)} for name, value in watts.items()}
    return page({"tuner_constraints": {"power_target": bounds}})


def _pools(miner: Miner, _request: WebRequest) -> WebReply:
    now = miner.snapshot()
    pools = [
        {
            "active": number == 0,
            "alive": True,
            "enabled": True,
            "stats": _pool_stats(now, counts=number == 0),
            "uid": _uid(miner, f"pool {number}"),
            "url": pool.url,
            "user": pool.user,
        }
        for number, pool in enumerate(miner.kept.pools)
    ]
    return page([{"name": "Default", "pools": pools, "strategy": {"quota": {"value": 1}}, "uid": "0"}])


def _set_pools(miner: Miner, request: WebRequest) -> WebReply:
    pools = pools_in(request.document)
    if not pools:
        return _problem(400, "Bad Request", "a list of groups with url and user for each pool is wanted")
    miner.set_pools(pools)
    return page(request.document)


def _pool_stats(now: Snapshot, *, counts: bool) -> Row:
    return {
        "accepted_shares": now.accepted if counts else 0,
        "best_share": 776342690 if counts else 0,
        "generated_work": now.accepted * 17_000 if counts else 0,
        "last_difficulty": 262144,
        "last_share_time": {"nanos": 0, "seconds": now.when - 4} if counts else None,
        "rejected_shares": now.rejected if counts else 0,
        "stale_shares": 0,
    }


def _details(miner: Miner, _request: WebRequest) -> WebReply:
    now = miner.snapshot()
    mac, serial = miner.shown_identity()
    model = miner.place.model
    status = _PAUSED if now.switched_off else _SUSPENDED if now.phase is Phase.TRIPPED else _NORMAL
    version = {"bos_plus": True, "current": miner.kept.firmware or _VERSION, "major": _VERSION}
    return page(
        {
            "bos_mode": 4,
            "bos_version": version,
            "bosminer_uptime_s": now.running_s,
            "control_board_soc_family": 3,
            "hostname": "Antminer",
            "kernel_version": "4.9.113",
            "mac_address": mac,
            "miner_identity": {"brand": 1, "miner_model": model.name, "model": 18, "name": model.name},
            "platform": 4,
            "psu_info": {"model_name": "APW171215a/c", "serial_number": None, "version": 193},
            "serial_number": serial.upper(),
            "status": status,
            "sticker_hashrate": _giga(model.nameplate_ths),
            "system_uptime": now.elapsed_s,
            "system_uptime_s": now.elapsed_s,
            "uid": _uid(miner, "miner"),
        }
    )


def _stats(miner: Miner, _request: WebRequest) -> WebReply:
    now = miner.snapshot()
    efficiency = now.power_w / now.hashrate_ths if now.hashing else 0.0
    return page(
        {
            "miner_stats": {
                "best_share": 776342690,
                "error_hashrate": {"megahash_per_second": 0.0},
                "found_blocks": 0,
                "nominal_hashrate": _giga(now.ideal_ths if now.hashing else TeraHashPerSecond(0.0)),
                "real_hashrate": _rates(now.hashrate_ths, now.average_ths),
            },
            "pool_stats": _pool_stats(now, counts=True),
            "power_stats": {
                "approximated_consumption": {"watt": round(now.power_w)},
                "efficiency": {"joule_per_terahash": efficiency},
            },
        }
    )


def _giga(rate: float) -> Row:
    return {"gigahash_per_second": rate * 1e3}


def _rates(now_ths: float, average_ths: float) -> Row:
    rates = {name: _giga(now_ths if number < 4 else average_ths) for number, name in enumerate(_KINDS)}
    return {**rates, "since_restart": _giga(average_ths)}


def _hashboards(miner: Miner, _request: WebRequest) -> WebReply:
    now, model = miner.snapshot(), miner.place.model
    boards = [
        {
            "board_name": "A3HB70601",
            "board_temp": {"degree_c": now.board_c[board]},
            "chip_type": "BM1370",
            "chips_count": model.chips,
            "current_frequency": {"hertz": 525e6 if now.hashing else 0.0},
            "current_voltage": {"volt": 13.7 if now.hashing else 0.0},
            "enabled": True,
            "highest_chip_temp": {"id": 1, "location": 1, "temperature": {"degree_c": now.chip_c[board]}},
            "highest_outlet_temp": {"degree_c": now.board_c[board]},
            "id": str(board + 1),
            "lowest_inlet_temp": {"degree_c": now.air_c},
            "model": "A3HB70601",
            "serial_number": f"SIMB{miner.place.serial[:10].upper()}{board}",
            "stats": {
                "best_share": 0,
                "error_hashrate": {"megahash_per_second": 0.0},
                "found_blocks": 0,
                "nominal_hashrate": _giga(now.ideal_ths / model.boards),
                "real_hashrate": _rates(now.board_ths[board], now.average_ths / model.boards),
            },
        }
        for board in range(model.boards)
    ]
    return page({"hashboards": boards})


def _cooling(miner: Miner, _request: WebRequest) -> WebReply:
    now = miner.snapshot()
    ratio = round(now.fan_percent / 100, 2)
    fans = [{"position": number, "rpm": rpm, "target_speed_ratio": ratio} for number, rpm in enumerate(now.fans_rpm)]
    hottest = {"id": None, "location": 1, "temperature": {"degree_c": max(now.chip_c)}}
    return page({"fans": fans, "highest_temperature": hottest})


def _errors(miner: Miner, _request: WebRequest) -> WebReply:
    if miner.snapshot().phase is not Phase.TRIPPED:
        return page({"errors": []})
    reason = {"code": "T1", "hint": "Check the fans and the air.", "reason": "Dangerous temperature reached"}
    told = {"components": [], "error_codes": [reason], "message": "Hashboard overheated", "timestamp": ""}
    return page({"errors": [told | {"timestamp": miner.time.now().isoformat()}]})


def _network(miner: Miner, _request: WebRequest) -> WebReply:
    mac = miner.shown_identity()[0]
    networks = [{"address": miner.place.host, "netmask": "255.255.0.0"}]
    return page({"hostname": "Antminer", "mac_address": mac, "name": "eth0", "networks": networks, "protocol": 1})


def _support_archive(miner: Miner, _request: WebRequest) -> WebReply:
    lines = f"bosminer: {miner.place.model.name}\nbosminer: power target {target_w(miner):.0f} W\n"
    return WebReply(200, miner.hand_out(lines.encode()), "application/octet-stream")


def _upgrade(miner: Miner, request: WebRequest) -> WebReply:
    digest = hashlib.sha256(request.body).hexdigest()
    if not request.body:
        return _problem(400, "Bad Request", "no firmware in the request")
    miner.install(version_in(request.body, digest), digest, len(request.body))
    return _DONE


def _uid(miner: Miner, what: str) -> str:
    return f"{noise.key(what, miner.place.miner_id):016x}"


_ROUTES: dict[tuple[str, str], Handler] = {
    ("PUT", "/auth/password"): _set_password,
    ("PUT", "/actions/pause"): _pause,
    ("PUT", "/actions/stop"): _pause,
    ("PUT", "/actions/resume"): _resume,
    ("PUT", "/actions/start"): _resume,
    ("PUT", "/actions/restart"): _restart,
    ("PUT", "/actions/reboot"): _reboot,
    ("GET", "/actions/locate"): _locating,
    ("PUT", "/actions/locate"): _locate,
    ("GET", "/performance/mode"): _get_target,
    ("PUT", "/performance/mode"): _set_mode,
    ("PUT", "/performance/power-target"): _set_target,
    ("PATCH", "/performance/power-target/increment"): _raise_target,
    ("PATCH", "/performance/power-target/decrement"): _lower_target,
    ("PUT", "/performance/power-target/default"): _default_target,
    ("GET", "/performance/tuner-state"): _tuner_state,
    ("GET", "/configuration/miner"): _configuration,
    ("GET", "/configuration/constraints"): _constraints,
    ("GET", "/pools"): _pools,
    ("PUT", "/pools/batch"): _set_pools,
    ("GET", "/cooling/state"): _cooling,
    ("GET", "/miner/details"): _details,
    ("GET", "/miner/stats"): _stats,
    ("GET", "/miner/hw/hashboards"): _hashboards,
    ("GET", "/miner/errors"): _errors,
    ("GET", "/miner/support-archive"): _support_archive,
    ("GET", "/network"): _network,
    ("POST", "/upgrade/system-upgrade"): _upgrade,
}
