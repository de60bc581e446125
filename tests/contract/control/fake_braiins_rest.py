"""A miner with Braiins OS from 25.07: REST behind a token, as its OpenAPI documents of 25.07 and 26.04 say."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from tests.contract.control.world import IMAGE, FakeFirmware
from tests.contract.fake_web import Asked, page

MINER_ID = "02:8f:77:ec:e7:e0"
GROUPS: list[dict[str, Any]] = [
    {
        "name": "foremanGroup",
        "uid": "0",
        "strategy": {"quota": {"value": 1}},
        "pools": [
            {"uid": "a", "url": "stratum+tcp://old.example:3333", "user": "a.1", "enabled": True, "alive": True},
        ],
    }
]


@dataclass
class FakeBraiinsRest(FakeFirmware):
    """``state`` is MinerStatus; ``old`` is a 25.07, which has neither logs alone nor an upgrade."""

    state: int = 2
    target_w: int = 3_200
    version: str = "2026-04-14-0-912d084c-26.04-plus"
    old: bool = False
    groups: list[dict[str, Any]] = field(default_factory=lambda: json.loads(json.dumps(GROUPS)))
    tokens: int = 0
    token: str = ""
    upload: bytes = b""

    def web(self, asked: Asked) -> bytes:
        target = asked.target.removeprefix("/api/v1/")
        if target == "auth/login":
            return self._log_in(json.loads(asked.body))
        if not self.token or self.token not in asked.headers.get("authorization", ""):
            return page({}, "401 Unauthorized")
        if asked.method == "GET":
            return self._read(target, asked)
        return self._write(target, asked)

    def is_order(self, asked: Asked) -> bool:
        logs = any(word in asked.target for word in ("/log/", "support-archive"))
        return logs or (asked.method != "GET" and not asked.target.endswith("auth/login"))

    def _log_in(self, told: dict[str, str]) -> bytes:
        if (told["username"], told["password"]) != (self.user, self.password):
            return page({"message": "invalid credentials"}, "401 Unauthorized")
        self.tokens += 1
        self.token = f"token-{self.tokens}"
        return page({"token": self.token, "timeout_s": 3600})

    def _read(self, target: str, asked: Asked) -> bytes:
        hashing = self.state == 2
        watts = min(self.power_w, self.target_w) if hashing else 30
        rate = {"gigahash_per_second": 100_000.0 if hashing else 0.0}
        documents: dict[str, Any] = {
            "miner/details": {
                "status": self.state,
                "mac_address": MINER_ID,
                "serial_number": "SER1",
                "bos_version": {"current": self.version},
                "bosminer_uptime_s": self.uptime_s,
                "system_uptime_s": self.uptime_s,
                "system_uptime": self.uptime_s,
                "miner_identity": {"name": "Antminer S19"},
            },
            "miner/stats": {
                "miner_stats": {"real_hashrate": {"last_5s": rate}, "nominal_hashrate": rate},
                "pool_stats": {"accepted_shares": 1, "rejected_shares": 0, "stale_shares": 0},
                "power_stats": {"approximated_consumption": {"watt": watts}},
            },
            "miner/hw/hashboards": {"hashboards": []},
            "miner/errors": {"errors": []},
            "cooling/state": {"fans": []},
            "network": {"mac_address": MINER_ID, "hostname": "m"},
            "performance/tuner-state": {
                "mode_state": {"powertargetmodestate": {"current_target": {"watt": self.target_w}}},
                "overall_tuner_state": 2,
            },
            "configuration/miner": {"tuner": {"enabled": True, "power_target": {"watt": self.target_w}}},
            "pools": self.groups,
            "pools/": self.groups,
            "actions/locate": self.lamp,
            "version": {"major": 1, "minor": 3, "patch": 0},
        }
        if target == "miner/log/bosminer" and not self.old:
            return page(b"bosminer log\n")
        if target == "miner/support-archive" and json.loads(asked.body) == {"format": "zip"}:
            return page(b"PK\x03\x04zip")
        return page(documents[target]) if target in documents else page({}, "404 Not Found")

    def _write(self, target: str, asked: Asked) -> bytes:
        effects: dict[str, Any] = {
            "actions/pause": lambda _: setattr(self, "state", 3),
            "actions/resume": lambda _: setattr(self, "state", 2 if self.state != 1 else 1),
            "actions/start": lambda _: setattr(self, "state", 2),
            "actions/reboot": lambda _: self.reboot(),
            "actions/locate": lambda told: setattr(self, "lamp", told),
            "performance/power-target": lambda told: setattr(self, "target_w", told["watt"]),
            "pools/batch": lambda told: setattr(self, "groups", told),
            "auth/password": lambda told: self._rekey(told["password"]),
        }
        if target == "upgrade/system-upgrade" and not self.old:
            return self._upgrade(asked)
        effect = effects.get(target)
        if effect is None:
            return page({}, "404 Not Found")
        told = json.loads(asked.body) if asked.body else None
        self.take(target, lambda: effect(told))
        return page(False) if target.startswith("actions/p") else page(told)

    def _rekey(self, password: str) -> None:
        self.password, self.token = password, ""

    def _upgrade(self, asked: Asked) -> bytes:
        boundary = asked.headers["content-type"].partition("boundary=")[2].encode()
        parts = asked.body.split(b"--" + boundary)
        metadata = json.loads(parts[1].partition(b"\r\n\r\n")[2])
        self.upload = parts[2].partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        whole = metadata["size"] == len(self.upload) and metadata["hash"] == hashlib.sha256(self.upload).hexdigest()
        if not whole or metadata["discard_settings"] or parts[3] != b"--\r\n":
            return page({"message": "bad upload"}, "400 Bad Request")
        found = re.search(rb"version=(\S+)", IMAGE)
        assert found is not None
        named = found[1].decode()
        self.take("upgrade", lambda: setattr(self, "version", f"2026-09-01-0-abc-{named}-plus"))
        return page(b"", "204 No Content")
