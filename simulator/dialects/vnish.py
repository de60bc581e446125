"""VNish 1.2: pages under ``/api/v1``.

Invariants: reading needs no token, changing needs the one that ``unlock`` gave for the password; a preset is named by
its watts, and one that was never tuned is tuned for three minutes, in which the state is ``auto-tuning``; who was
stopped stays stopped through a reboot as long as ``remain_stopped_on_reboot`` says so.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from simulator.access import bearer, give_token, holds_token, knows
from simulator.dialects.rpc import Row
from simulator.dialects.vnish_rpc import TUNES_UNTIL, VERSION, state_of
from simulator.kept import Pool, version_in
from simulator.miner import Miner, Snapshot
from simulator.physics import Phase
from simulator.web import WebFirmware, WebReply, WebRequest, page, plain
from sitelink.types import Verb
from sitelink.units import Watts

_TOKEN_S = 3600.0
_PRESET_STEP_W = 90
_TUNING_S = 180.0
_RESTART_S = 10.0
_SHARES = (0.60, 1.20)
_DISABLED = {"name": "disabled", "pretty": "Disabled", "status": "untuned", "modded_psu_required": False}

Handler = Callable[[Miner, WebRequest], WebReply]


class VnishWeb(WebFirmware):
    """The pages."""

    def serve(self, miner: Miner, request: WebRequest) -> WebReply:
        """Answer one page below ``/api/v1``."""
        path = request.path.removeprefix("/api/v1/").rstrip("/")
        if path == "unlock" and request.method == "POST":
            return _unlock(miner, request)
        read = _READS.get(path)
        if request.method == "GET" and read is not None:
            return read(miner)
        write = _WRITES.get(path)
        if request.method != "POST" or write is None:
            return page({"err": "Not found"}, 404)
        if not holds_token(miner, "token", bearer(request), _TOKEN_S):
            return page({"err": "Unauthorized"}, 401)
        if miner.has("access_denied"):
            return page({"err": "Forbidden"}, 403)
        return write(miner, request)


def preset_of(miner: Miner) -> str:
    """Return the name of the preset in use: its watts, or ``disabled``."""
    limit_w = miner.kept.limit_w
    return "disabled" if limit_w is None else str(round(limit_w))


def presets_of(miner: Miner) -> tuple[int, ...]:
    """Return the watts of every preset that the model has."""
    nameplate_w = miner.place.model.nameplate_w
    least, greatest = (round(nameplate_w * share / 10) * 10 for share in _SHARES)
    return tuple(range(least, greatest + 1, _PRESET_STEP_W))


def _tuned(miner: Miner) -> set[str]:
    """Return the presets that were tuned; the factory tuned every other one."""
    factory = {str(watts) for number, watts in enumerate(presets_of(miner)) if number % 2 == 0}
    return factory | set(miner.kept.more.get("tuned", ()))


def _preset(miner: Miner, watts: int) -> Row:
    hashrate = miner.place.model.nameplate_ths * watts / miner.place.model.nameplate_w
    return {
        "name": str(watts),
        "pretty": f"{watts} watt ~ {hashrate:.0f} TH",
        "status": "tuned" if str(watts) in _tuned(miner) else "untuned",
        "modded_psu_required": False,
    }


def _unlock(miner: Miner, request: WebRequest) -> WebReply:
    if not knows(miner, miner.kept.user, str(request.fields.get("pw", ""))):
        return page({"err": "Wrong password"}, 403)
    return page({"token": give_token(miner, "token")})


def _presets(miner: Miner) -> WebReply:
    return page([_DISABLED, *(_preset(miner, watts) for watts in presets_of(miner))])


def _perf_summary(miner: Miner) -> WebReply:
    name = preset_of(miner)
    preset = _DISABLED if name == "disabled" else _preset(miner, int(name))
    return page({"current_preset": preset, "preset_switcher": {"enabled": False, "top_preset": None}})


def _info(miner: Miner) -> WebReply:
    mac, serial = miner.shown_identity()
    name = miner.place.model.name
    hours, minutes = divmod(miner.snapshot().elapsed_s // 60, 60)
    network = {"mac": mac.upper(), "dhcp": True, "ip": miner.place.host, "hostname": "Antminer"}
    return page(
        {
            "miner": name,
            "model": name.removeprefix("Antminer ").lower().replace(" ", ""),
            "fw_name": "Vnish",
            "fw_version": miner.kept.firmware or VERSION,
            "build_name": "vnishus",
            "platform": "aml",
            "install_type": "nand",
            "build_time": "2025-12-22 19:12:30",
            "algorithm": "sha256d",
            "hr_measure": "GH/s",
            "system": {
                "os": "GNU/Linux",
                "miner_name": "antminer",
                "network_status": network,
                "uptime": f"{hours}:{minutes:02d}",
            },
            "serial": serial.upper(),
        }
    )


def _status(miner: Miner) -> WebReply:
    now = miner.snapshot()
    return page(
        {
            "miner_state": state_of(miner, now),
            "miner_state_time": now.running_s,
            "find_miner": miner.kept.led,
            "restart_required": False,
            "reboot_required": False,
            "unlocked": False,
        }
    )


def _summary(miner: Miner) -> WebReply:
    now = miner.snapshot()
    rate, average = now.hashrate_ths, now.average_ths
    status: Row = {"miner_state": state_of(miner, now), "miner_state_time": now.running_s}
    if now.phase is Phase.TRIPPED:
        status |= {"description": "Overheated", "failure_code": 2001}
    document: Row = {
        "miner_status": status,
        "miner_type": f"{miner.place.model.name} (Vnish {miner.kept.firmware or VERSION})",
        "hr_stock": miner.place.model.nameplate_ths * 1e3,
        "average_hashrate": round(average, 5),
        "instant_hashrate": round(rate, 5),
        "hr_realtime": round(rate * 1e3, 2),
        "hr_nominal": round(now.ideal_ths * 1e3, 2),
        "hr_average": round(average * 1e3, 2),
        "pcb_temp": {"min": round(min(now.board_c) - 10), "max": round(max(now.board_c))},
        "chip_temp": {"min": round(min(now.chip_c) - 10), "max": round(max(now.chip_c))},
        "power_consumption": round(now.power_w),
        "power_usage": round(now.power_w),
        "power_efficiency": round(now.power_w / rate, 6) if now.hashing else 0.0,
        "hw_errors_percent": 0.0,
        "hr_error": 0.0,
        "hw_errors": 57,
        "devfee_percent": 2.812,
        "pools": _web_pools(miner, now),
        "cooling": {
            "fan_num": 4,
            "fans": [
                {"id": number, "rpm": rpm, "status": "ok", "max_rpm": 6500} for number, rpm in enumerate(now.fans_rpm)
            ],
            "settings": {"mode": {"name": "auto"}},
            "fan_duty": now.fan_percent,
        },
        "chains": [_chain(miner, now, board) for board in range(miner.place.model.boards)],
        "found_blocks": 0,
        "best_share": 169988423,
        "psu": {"psu_power_metering": True},
    }
    return page({"miner": document})


def _chain(miner: Miner, now: Snapshot, board: int) -> Row:
    return {
        "id": board + 1,
        "frequency": 495.0 if now.hashing else 0.0,
        "voltage": 13000 if now.hashing else 0,
        "power_consumption": round(now.power_w / miner.place.model.boards),
        "hashrate_ideal": round(now.ideal_ths * 1e3 / miner.place.model.boards, 3),
        "hashrate_rt": round(now.board_ths[board] * 1e3, 2),
        "hr_error": 0.0,
        "hw_errors": 20,
        "pcb_temp": {"min": round(now.board_c[board] - 10), "max": round(now.board_c[board])},
        "chip_temp": {"min": round(now.chip_c[board] - 10), "max": round(now.chip_c[board])},
        "chip_statuses": {"red": 0, "orange": 6, "grey": miner.place.model.chips - 6},
        "status": {"state": state_of(miner, now)},
    }


def _web_pools(miner: Miner, now: Snapshot) -> list[Row]:
    return [
        {
            "id": number,
            "url": pool.url,
            "pool_type": "UserPool",
            "user": pool.user,
            "status": "active" if number == 0 else "working",
            "asic_boost": True,
            "diff": "262K" if number == 0 else "",
            "accepted": now.accepted if number == 0 else 0,
            "rejected": now.rejected if number == 0 else 0,
            "stale": 0,
            "ping": 8,
        }
        for number, pool in enumerate(miner.kept.pools)
    ]


def _settings(miner: Miner) -> WebReply:
    pools = [{"url": pool.url, "user": pool.user, "pass": pool.password} for pool in miner.kept.pools]
    empty = {"url": "", "user": "", "pass": ""}
    overclock = {"modded_psu": False, "preset": preset_of(miner), "globals": {"volt": 1270, "freq": 555}}
    document = {
        "cooling": {"mode": {"name": "auto", "param": 65}, "fan_min_count": 4, "fan_min_duty": 10, "fan_max_duty": 100},
        "misc": {"quick_start": False, "remain_stopped_on_reboot": miner.kept.sleeps_on, "restart_temp": 90},
        "overclock": overclock,
        "pools": [*pools, *[empty] * (3 - len(pools))],
    }
    return page({"miner": document, "network": {"hostname": "Antminer", "dhcp": True}, "password": None})


def _set_settings(miner: Miner, request: WebRequest) -> WebReply:
    asked = request.fields.get("miner", {})
    password = request.fields.get("password")
    if not isinstance(asked, dict):
        return page({"err": "Bad settings"}, 400)
    preset = asked.get("overclock", {}).get("preset") if isinstance(asked.get("overclock", {}), dict) else None
    pools = _asked_pools(asked["pools"]) if "pools" in asked else ()
    if pools is None or not _takes(miner, preset) or not isinstance(password, dict | None):
        return page({"err": "Bad settings"}, 400)
    misc = asked.get("misc", {})
    if isinstance(misc, dict) and "remain_stopped_on_reboot" in misc:
        miner.kept.sleeps_on = bool(misc["remain_stopped_on_reboot"])
    if pools:
        miner.set_pools(pools)
    if preset is not None and str(preset) != preset_of(miner):
        _apply(miner, str(preset))
    if password is not None:
        return _set_password(miner, password)
    return page({"restart_required": False, "reboot_required": False})


def _takes(miner: Miner, preset: Any) -> bool:
    return preset is None or str(preset) == "disabled" or str(preset) in {str(watts) for watts in presets_of(miner)}


def _asked_pools(rows: Any) -> tuple[Pool, ...] | None:
    if not isinstance(rows, list) or len(rows) > 3 or not all(isinstance(row, dict) for row in rows):
        return None
    named = [row for row in rows if row.get("url")]
    return tuple(Pool(str(row["url"]), str(row.get("user", "")), str(row.get("pass", ""))) for row in named)


def _apply(miner: Miner, preset: str) -> None:
    """Change the preset; one that was never tuned draws less while it is being tuned."""
    if preset == "disabled":
        miner.limit()
        return
    untuned = preset not in _tuned(miner)
    miner.limit(Watts(int(preset)), tuning=untuned)
    if untuned and not miner.has("ack_without_effect"):
        miner.memory[TUNES_UNTIL] = miner.time.seconds() + _TUNING_S
        miner.kept.more["tuned"] = [*miner.kept.more.get("tuned", ()), preset]


def _set_password(miner: Miner, password: Row) -> WebReply:
    new = password.get("pw")
    if password.get("current") != miner.kept.password or not isinstance(new, str) or not new:
        return page({"err": "Wrong password"}, 400)
    miner.set_password(new)
    if not miner.has("ack_without_effect"):
        miner.memory.pop("token", None)
    return page({"restart_required": False, "reboot_required": False})


def _stop(miner: Miner, _request: WebRequest) -> WebReply:
    miner.order(Verb.STOP)
    return page({"success": True})


def _start(miner: Miner, _request: WebRequest) -> WebReply:
    miner.order(Verb.START)
    return page({"success": True})


def _restart(miner: Miner, _request: WebRequest) -> WebReply:
    miner.reboot(Verb.REBOOT, _RESTART_S, only="mining")
    return page({"success": True})


def _reboot(miner: Miner, _request: WebRequest) -> WebReply:
    miner.reboot()
    return page({"success": True})


def _find(miner: Miner, request: WebRequest) -> WebReply:
    """Each call without a body turns the lamp over."""
    asked = request.fields.get("on")
    on = asked if isinstance(asked, bool) else not miner.kept.led
    miner.change(Verb.BLINK, lambda: setattr(miner.kept, "led", on), on=on)
    return page({"on": on})


def _firmware(miner: Miner, request: WebRequest) -> WebReply:
    digest = hashlib.sha256(request.body).hexdigest()
    if not request.body:
        return page({"err": "No file"}, 400)
    miner.install(version_in(request.body, digest), digest, len(request.body))
    return page({"after": 30})


def _log(name: str) -> Callable[[Miner], WebReply]:
    def log(miner: Miner) -> WebReply:
        line = f"[2026/05/08 18:00:00] INFO: {name}: {state_of(miner, miner.snapshot())}\n"
        return plain(miner.hand_out(line.encode(), log=name).decode())

    return log


_READS: dict[str, Callable[[Miner], WebReply]] = {
    "info": _info,
    "status": _status,
    "summary": _summary,
    "perf-summary": _perf_summary,
    "autotune/presets": _presets,
    "settings": _settings,
    **{f"logs/{name}": _log(name) for name in ("status", "miner", "autotune", "system", "messages", "api")},
}
_WRITES: dict[str, Handler] = {
    "mining/stop": _stop,
    "mining/pause": _stop,
    "mining/start": _start,
    "mining/resume": _start,
    "mining/restart": _restart,
    "settings": _set_settings,
    "system/reboot": _reboot,
    "find-miner": _find,
    "firmware/update": _firmware,
}
