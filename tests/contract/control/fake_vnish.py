"""A miner with VNish 1.2: its REST API behind a password, as its OpenAPI document of 1.2.7 says."""

import json
from dataclasses import dataclass, field
from typing import Any

from tests.contract.control.world import FakeFirmware
from tests.contract.fake_web import Asked, page

MINER_ID = "02:95:23:b3:e0:79"
SETTINGS: dict[str, Any] = {
    "miner": {
        "cooling": {"mode": {"name": "auto", "param": 65}, "fan_min_count": 4},
        "overclock": {
            "modded_psu": False,
            "preset": "3160",
            "globals": {"volt": 1270, "freq": 555},
            "chains": [{"freq": 555, "chips": [0, 0], "disabled": False}],
            "preset_switcher": {"enabled": False, "top_preset": "4690", "min_preset": "2550", "power_delta": 0},
        },
        "pools": [
            {"url": "old.example:3333", "user": "a.1", "pass": "x"},
            {"url": "old.example:443", "user": "a.1", "pass": "x"},
            {"url": "", "user": "", "pass": ""},
        ],
    },
    "ui": {"theme": "auto"},
    "password": None,
}


@dataclass
class FakeVnish(FakeFirmware):
    """``tuned`` are the presets that are ready; ``too_often`` refuses logins for a while."""

    user: str = "admin"
    state: str = "mining"
    tuned: tuple[str, ...] = ("2800", "3160")
    settings: dict[str, Any] = field(default_factory=lambda: json.loads(json.dumps(SETTINGS)))
    version: str = "1.2.7"
    restart_required: bool = True
    token: str = ""
    tokens: int = 0
    too_often: bool = False

    def web(self, asked: Asked) -> bytes:
        target = asked.target.removeprefix("/api/v1/")
        if target == "unlock":
            return self._unlock(json.loads(asked.body))
        open_pages = {"status", "info", "find-miner", "perf-summary", "model", "chains"}
        if target not in open_pages and not target.startswith("logs/") and not self._knows(asked):
            return page({}, "401 Unauthorized")
        if asked.method == "GET":
            return self._read(target)
        return self._write(target, asked)

    def is_order(self, asked: Asked) -> bool:
        return "/logs/" in asked.target or (asked.method != "GET" and not asked.target.endswith("unlock"))

    def _knows(self, asked: Asked) -> bool:
        return bool(self.token) and asked.headers.get("authorization") == f"Bearer {self.token}"

    def _unlock(self, told: dict[str, str]) -> bytes:
        if self.too_often:
            return page({"unlock_timeout": 60}, "429 Too Many Requests")
        if told["pw"] != self.password:
            return page({}, "403 Forbidden")
        self.tokens += 1
        self.token = f"jwt{self.tokens}"
        return page({"token": self.token})

    def _read(self, target: str) -> bytes:
        hashing = self.state == "mining"
        preset = self.settings["miner"]["overclock"]["preset"]
        drawn = min(self.power_w, int(preset)) if preset.isdecimal() else self.power_w
        watts = drawn if hashing else 0
        names = ("disabled", "2550", "2800", "3160", "3500")
        documents: dict[str, Any] = {
            "status": {"miner_state": self.state, "miner_state_time": 100, "find_miner": self.lamp, "unlocked": True},
            "info": {
                "miner": "Antminer S21",
                "fw_name": "Vnish",
                "fw_version": self.version,
                "serial": "N/A",
                "system": {"uptime": "1:23", "network_status": {"mac": MINER_ID.upper(), "hostname": "m"}},
            },
            "summary": {
                "miner": {
                    "miner_status": {"miner_state": self.state, "miner_state_time": self.uptime_s},
                    "miner_type": "Antminer S21 (Vnish 1.2.7)",
                    "hr_realtime": 170_000.0 if hashing else 0.0,
                    "instant_hashrate": 170.0 if hashing else 0.0,
                    "power_consumption": watts,
                    "power_usage": watts,
                    "pcb_temp": {"min": 30, "max": 50},
                    "chip_temp": {"min": 40, "max": 60},
                    "chains": [],
                    "pools": [],
                    "cooling": {"fan_num": 0, "fans": []},
                }
            },
            "perf-summary": {"current_preset": {"name": self.settings["miner"]["overclock"]["preset"]}},
            "chains": [],
            "settings": self.settings,
            "autotune/presets": [
                {"name": name, "pretty": name, "status": "tuned" if name in self.tuned else "untuned"} for name in names
            ],
        }
        if target.startswith("logs/"):
            return page(f"{target} says\n".encode())
        return page(documents[target]) if target in documents else page({}, "404 Not Found")

    def _write(self, target: str, asked: Asked) -> bytes:
        told = json.loads(asked.body) if asked.body and target != "firmware/update" else {}
        effects: dict[str, Any] = {
            "mining/stop": lambda: setattr(self, "state", "stopped"),
            "mining/start": lambda: setattr(self, "state", "mining"),
            "mining/restart": lambda: setattr(self, "state", "mining"),
            "system/reboot": self.reboot,
            "find-miner": lambda: setattr(self, "lamp", not self.lamp),
        }
        if target == "settings":
            return self._save(told)
        if target == "firmware/update":
            assert b'name="file"; filename=' in asked.body
            assert b'name="keep_settings"\r\ncontent-type: text/plain\r\n\r\ntrue\r\n' in asked.body
            self.take("update", lambda: setattr(self, "version", "9.9.9"))
            return page({"after": 3})
        if target not in effects:
            return page({}, "404 Not Found")
        self.take(target, effects[target])
        return page({"on": not self.lamp}) if target == "find-miner" else page(b"")

    def _save(self, told: dict[str, Any]) -> bytes:
        if told.get("password"):
            if told["password"]["current"] != self.password:
                return page({"err": "wrong password"}, "500 Internal Server Error")
            self.take("password", lambda: self._rekey(told["password"]["pw"]))
            return page({"restart_required": False, "reboot_required": False})

        def effect() -> None:
            self.settings = {**self.settings, "miner": {**self.settings["miner"], **told["miner"]}}

        self.take("settings", effect)
        return page({"restart_required": self.restart_required, "reboot_required": False})

    def _rekey(self, password: str) -> None:
        self.password, self.token = password, ""
