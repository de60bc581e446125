"""A miner with Braiins OS up to 25.05: CGMiner RPC with pause and resume, GraphQL behind a login and a cookie."""

import json
from dataclasses import dataclass, field
from typing import Any

from tests.contract.control.world import FakeFirmware
from tests.contract.fake_miner import status
from tests.contract.fake_web import Asked, page
from tests.unit.agent.cgminer import replies_of as made

MINER_ID = "02:34:98:9e:9f:e1"
GROUPS: list[dict[str, Any]] = [
    {
        "id": "0",
        "name": "farm",
        "strategy": {"quota": 1},
        "pools": [{"enabled": True, "url": "stratum+tcp://old.example:3333", "user": "a.1", "password": None}],
    }
]


@dataclass
class FakeBraiins(FakeFirmware):
    """``forgets`` ends the session before the next query; ``errors`` is what GraphQL answers to orders instead."""

    target_w: int = 3_200
    mode: str = "POWER_TARGET"
    pause_answer: object = None
    groups: list[dict[str, Any]] = field(default_factory=lambda: json.loads(json.dumps(GROUPS)))
    session: str = ""
    logins: int = 0
    forgets: bool = False
    errors: str = ""
    union_error: str = ""

    def rpc(self) -> dict[str, Any]:
        return {
            "summary": lambda _: self._summary(),
            "version": made.answer(22, "VERSION", {"API": "3.7", "BOSminer+": "0.2.0"}),
            "config": made.answer(33, "CONFIG", {"MACAddr": MINER_ID}),
            "tunerstatus": lambda _: self._tuner(),
            "temps": made.answer(201, "TEMPS", {"Board": 50.0, "Chip": 70.0}),
            "fans": made.answer(202, "FANS", {"RPM": 3000, "Speed": 50}),
            "pools": made.answer(7, "POOLS"),
            "devs": made.answer(9, "DEVS", {"ASC": 0, "Nominal MHS": 1e8}),
            "devdetails": made.answer(69, "DEVDETAILS", {"Model": "Antminer S19"}),
            "pause": lambda _: self._switch("PAUSE", stopped=True),
            "resume": lambda _: self._switch("RESUME", stopped=False),
        }

    def _switch(self, name: str, *, stopped: bool) -> object:
        if self.pause_answer is not None:
            return self.pause_answer
        self.take(name.lower(), lambda: setattr(self, "stopped", stopped))
        return status(204, name.title(), **{name: [True]})

    def _summary(self) -> bytes:
        self.look()
        rate = 0.0 if self.stopped else 1e8
        return made.answer(11, "SUMMARY", {"Elapsed": self.uptime_s, "MHS 5s": rate, "MHS av": 1e8})

    def _tuner(self) -> bytes:
        drawn = 60 if self.stopped else min(self.power_w, self.target_w)
        row = {"ApproximateMinerPowerConsumption": drawn, "PowerLimit": self.target_w}
        return made.answer(203, "TUNERSTATUS", row)

    def is_order(self, asked: Asked) -> bool:
        query = json.loads(asked.body or b"{}").get("query", "") if asked.target == "/graphql" else ""
        return ("mutation" in query and "login" not in query) or "log(" in query

    def web(self, asked: Asked) -> bytes:
        if asked.target != "/graphql":
            return page({}, "404 Not Found")
        told = json.loads(asked.body)
        query, variables = told["query"], told.get("variables", {})
        if "login(" in query:
            return self._log_in(variables)
        if self.forgets:
            self.forgets, self.session = False, ""
        if not self.session or f"session_id={self.session}" not in asked.headers.get("cookie", ""):
            return page({"data": None, "errors": [{"message": "Not logged in"}]})
        if self.errors and self.is_order(asked):
            return page({"data": None, "errors": [{"message": self.errors}]})
        return page({"data": self._data(query, variables)})

    def _log_in(self, variables: dict[str, str]) -> bytes:
        self.logins += 1
        if (variables["username"], variables["password"]) != (self.user, self.password):
            return page({"data": {"auth": {"login": {"__typename": "AuthError", "message": "Invalid login"}}}})
        self.session = f"s{self.logins}"
        cookie = f"Set-Cookie: session_id={self.session}; Path=/; HttpOnly"
        return page({"data": {"auth": {"login": {"__typename": "VoidResult", "void": None}}}}, "200 OK", cookie)

    def _data(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        done: dict[str, Any] = {"__typename": "VoidResult"}
        if self.union_error and "mutation" in query:
            done = {"__typename": "Error", "message": self.union_error}
        if "updateAutotuning" in query:
            if not self.union_error:
                self.take(f"limit {variables['input']['powerTarget']}", lambda: self._tune(variables["input"]))
            return {"bosminer": {"config": {"updateAutotuning": done}}}
        if "updateGroups" in query:
            if not self.union_error:
                self.take("pools", lambda: setattr(self, "groups", variables["groups"]))
            return {"bosminer": {"config": {"updateGroups": done}}}
        if "restart" in query:
            self.take("restart", lambda: setattr(self, "stopped", False))
            return {"bosminer": {"restart": done}}
        if "setFaultLight" in query:
            self.take("blink", lambda: setattr(self, "lamp", variables["enable"]))
            return {"bos": {"setFaultLight": {"enabled": variables["enable"]}}}
        if "setPassword" in query:
            self.take("password", lambda: setattr(self, "password", variables["newPassword"]))
            return {"bos": {"setPassword": done}}
        if "reboot" in query:
            self.take("reboot", self.reboot)
            return {"bos": {"reboot": done}}
        if "log(" in query:
            return {"bos": {"log": ["line one", "line two"]}}
        return self._state()

    def _state(self) -> dict[str, Any]:
        tuning = {"enabled": True, "mode": self.mode, "powerTarget": self.target_w, "hashrateTarget": None}
        return {
            "bosminer": {"config": {"autotuning": tuning, "groups": self.groups}},
            "bos": {"faultLight": self.lamp},
        }

    def _tune(self, told: dict[str, Any]) -> None:
        self.target_w, self.mode = told["powerTarget"], told["mode"]
