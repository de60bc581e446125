"""A stock Antminer: RPC that reads, and the pages that write behind digest. Written from the firmware's own pages."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from tests.contract.control.world import FakeFirmware
from tests.contract.fake_web import Asked, page
from tests.unit.agent.cgminer import replies_of as made

MINER_ID = "81abcdef0123481c"
CONF: dict[str, Any] = {
    "pools": [
        {"url": "stratum+tcp://old.example:3333", "user": "a.1", "pass": "x"},
        {"url": "stratum+tcp://old.example:443", "user": "a.1", "pass": "x"},
        {"url": "", "user": "", "pass": ""},
    ],
    "api-listen": True,
    "api-allow": "A:0/0,W:*",
    "bitmain-fan-ctrl": True,
    "bitmain-fan-pwm": "83",
    "bitmain-freq": "675",
    "bitmain-work-mode": "0",
    "bitmain-freq-level": "100",
    "someone's own key": [1, {"a": None, "b": "ü"}],
}


@dataclass
class FakeAntminer(FakeFirmware):
    """``hot`` is an overheated miner; ``page_form`` one that stores only what its own page sends."""

    conf: dict[str, Any] = field(default_factory=lambda: json.loads(json.dumps(CONF)))
    hot: bool = False
    page_form: bool = False
    lamp_wants: type = str
    log_page: str = "log.cgi"
    posted: list[dict[str, Any]] = field(default_factory=list)

    def rpc(self) -> dict[str, Any]:
        return {
            "stats": lambda _: self._stats(),
            "version": made.answer(22, "VERSION", made.ANTMINER_HEAD),
            "pools": made.answer(7, "POOLS"),
        }

    def _stats(self) -> bytes:
        self.look()
        if self.hot:
            return made.antminer_stats(**{"GHS 5s": 0.0, "chain_acs1": " xxxx", "temp_pcb1": "95-95-95-95"})
        if self.stopped:
            return made.antminer_stats(
                **{"GHS 5s": "", "chain_acn1": 0, "chain_acn2": 0, "chain_rate1": "", "temp_pcb1": "40-40-40-40"}
            )
        return made.antminer_stats(Elapsed=self.uptime_s)

    def web(self, asked: Asked) -> bytes:
        if not self._knows(asked):
            return page(b"<html>401", "401 Unauthorized", 'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"')
        name = asked.target.removeprefix("/cgi-bin/")
        if name == "get_miner_conf.cgi":
            return page(("\n\n" + json.dumps(self.conf, indent=0)).encode())
        if name == "get_blink_status.cgi":
            return page({"blink": self.lamp})
        if name == "get_system_info.cgi":
            return page({"macaddr": "02:00:00:00:00:01", "serinum": ""})
        if name == self.log_page:
            return page(b"bmminer started\n")
        return self._write(name, asked)

    def is_order(self, asked: Asked) -> bool:
        return asked.method == "POST" or asked.target.endswith("log.cgi")

    def _write(self, name: str, asked: Asked) -> bytes:
        told = json.loads(asked.body.decode("utf-8", "surrogateescape")) if asked.body else {}
        if name == "set_miner_conf.cgi":
            return self._set_conf(told)
        if name == "blink.cgi" and isinstance(told["blink"], self.lamp_wants):
            self.take("blink", lambda: setattr(self, "lamp", str(told["blink"]).lower() == "true"))
        elif name == "blink.cgi":
            return page({"code": "B001"})
        elif name == "reboot.cgi":
            self.take("reboot", self.reboot)
        elif name == "passwd.cgi":
            if told["curPwd"] != self.password:
                return page({"stats": "error", "code": "P003", "msg": "Current password is wrong!"})
            self.take("password", lambda: setattr(self, "password", told["newPwd"]))
        else:
            return page(b"<h1>404", "404 Not Found")
        return page({"stats": "success", "code": "M000", "msg": "OK!"})

    def _set_conf(self, told: dict[str, Any]) -> bytes:
        self.posted.append(told)
        stored = (
            {key: value for key, value in told.items() if key not in ("miner-mode", "freq-level")}
            if self.page_form
            else told
        )
        if self.page_form:
            stored["bitmain-work-mode"] = str(told.get("miner-mode", self.conf["bitmain-work-mode"]))

        def effect() -> None:
            self.conf = stored
            mode = str(stored.get("bitmain-work-mode", stored.get("miner-mode")))
            self.stopped = mode == "1"

        self.take("conf", effect)
        return page({"stats": "success", "code": "M000", "msg": "OK!"})

    def _knows(self, asked: Asked) -> bool:
        scheme, _, rest = asked.headers.get("authorization", "").partition(" ")
        if scheme != "Digest":
            return False
        said = {name: value.strip('"') for name, value in (part.strip().split("=", 1) for part in rest.split(", "))}
        secret, about = _md5(f"{self.user}:r:{self.password}"), _md5(f"{asked.method}:{asked.target}")
        return said["response"] == _md5(f"{secret}:n:{said['nc']}:{said['cnonce']}:auth:{about}")


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
