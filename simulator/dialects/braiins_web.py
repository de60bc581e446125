"""The web page of Braiins OS up to 25.05: GraphQL behind a session cookie, and LuCI's page of the network.

Invariants: a mutation other than the login needs a living session, which its cookie carries for an hour; one that
cannot be done answers with a type whose name ends in ``Error`` and changes nothing. HTTP itself always says 200.

Source: the queries that Braiins' own page and public clients send.
"""

from collections.abc import Callable, Mapping
from typing import Any

from simulator import noise
from simulator.access import give_token, holds_token, knows
from simulator.dialects.braiins import VERSION, bounds_w, pools_in, target_w
from simulator.dialects.rpc import Row
from simulator.graphql import BadQuery, parse_query, select
from simulator.kept import Pool
from simulator.miner import Miner, Snapshot
from simulator.physics import Phase
from simulator.web import WebFirmware, WebReply, WebRequest, page
from sitelink.types import Verb
from sitelink.units import Watts

_SESSION_S = 3600.0
_RESTART_S = 10.0
_VOID: Row = {"__typename": "VoidResult", "void": "void"}
_LOGS = ("BOSMINER", "SYSTEM")
_LUCI = "/cgi-bin/luci"
_IFACE = f"{_LUCI}/admin/network/iface_status/lan"


class BraiinsWeb(WebFirmware):
    """Braiins OS 25.03."""

    def serve(self, miner: Miner, request: WebRequest) -> WebReply:
        """Answer ``/graphql`` and LuCI."""
        if request.path == "/graphql" and request.method == "POST":
            return _graphql(miner, request)
        if request.path == _LUCI and request.method == "POST":
            return _luci_login(miner, request)
        if request.path == _IFACE:
            if not holds_token(miner, "session", _cookie(request, "session_id"), _SESSION_S):
                return WebReply(403, b"Forbidden", "text/html")
            return page([{"id": "lan", "macaddr": miner.shown_identity()[0].upper(), "ipaddrs": [], "proto": "dhcp"}])
        return WebReply(404, b"Not Found", "text/plain")


def _graphql(miner: Miner, request: WebRequest) -> WebReply:
    asked = request.fields
    variables = asked.get("variables")
    try:
        kind, fields = parse_query(str(asked.get("query", "")), variables if isinstance(variables, dict) else {})
        if kind == "query":
            return page({"data": select(_document(miner), fields)})
        if [field.name for field in fields] == ["auth"]:
            return _auth(miner, fields)
        if not holds_token(miner, "session", _cookie(request, "session_id"), _SESSION_S):
            raise BadQuery("Unauthorized")
        if miner.has("access_denied"):
            raise BadQuery("Forbidden")
        return page({"data": select(_mutations(miner), fields)})
    except BadQuery as wrong:
        return page({"data": None, "errors": [{"message": str(wrong)}]})


def _auth(miner: Miner, fields: Any) -> WebReply:
    given: list[str] = []

    def login(arguments: Mapping[str, Any]) -> Row:
        if not knows(miner, str(arguments.get("username", "")), str(arguments.get("password", ""))):
            return {"__typename": "AuthError", "message": "Invalid username or password"}
        given.append(give_token(miner, "session"))
        return _VOID

    body = page({"data": select({"auth": {"__typename": "AuthMutation", "login": login}}, fields)}).body
    return WebReply(200, body, headers=tuple(_cookie_of(name) for name in given))


def _luci_login(miner: Miner, request: WebRequest) -> WebReply:
    form = request.form
    if not knows(miner, form.get("luci_username", ""), form.get("luci_password", "")):
        return WebReply(403, b"Forbidden", "text/html")
    return WebReply(302, b"", "text/html", (_cookie_of(give_token(miner, "session")), ("Location", f"{_LUCI}/")))


def _cookie_of(session: str) -> tuple[str, str]:
    return "Set-Cookie", f"session_id={session}; Path=/; Max-Age=3600; HttpOnly"


def _cookie(request: WebRequest, name: str) -> str:
    pairs = (pair.strip().partition("=") for pair in request.headers.get("cookie", "").split(";"))
    return next((value for key, _, value in pairs if key == name), "")


def _document(miner: Miner) -> Row:
    """Return everything that can be asked."""
    now = miner.snapshot()
    mac = miner.shown_identity()[0]
    return {
        "__typename": "Query",
        "bos": {
            "hostname": "Antminer",
            "hwid": f"{noise.key('hwid', mac):016x}",
            "faultLight": miner.kept.led,
            "info": {"mode": "NAND", "version": {"full": miner.kept.firmware or VERSION}},
            "uptime": {"since": now.when - now.elapsed_s, "durationS": now.elapsed_s},
            "logTargets": list(_LOGS),
            "log": lambda arguments: _log(miner, arguments),
        },
        "bosminer": {"config": _config(miner), "info": _info(miner, now)},
        "events": {"appeals": []},
    }


def _log(miner: Miner, arguments: Mapping[str, Any]) -> list[str]:
    target = arguments.get("target")
    if target not in _LOGS:
        raise BadQuery(f"no log {target!r}")
    lines = [f"{target.lower()}: {miner.place.model.name}", f"tuner: power target {target_w(miner):.0f} W"]
    miner.hand_out("\n".join(lines).encode(), log=target)
    return lines


def _config(miner: Miner) -> Row:
    pools = [
        {
            "__typename": "Pool",
            "id": str(number),
            "enabled": True,
            "url": pool.url,
            "user": pool.user,
            "password": pool.password,
        }
        for number, pool in enumerate(miner.kept.pools)
    ]
    group = {"id": "0", "name": "Default", "strategy": {"__typename": "QuotaStrategy", "quota": 1}, "pools": pools}
    tuning = {
        "enabled": True,
        "mode": "POWER_TARGET",
        "powerTarget": round(target_w(miner)),
        "hashrateTarget": None,
    }
    return {"__typename": "BosminerConfig", "autotuning": tuning, "groups": [group]}


def _info(miner: Miner, now: Snapshot) -> Row:
    rate = now.hashrate_ths * 1e6
    status = {Phase.HASHING: "STABLE", Phase.STARTING: "TUNING"}.get(now.phase, "DISABLED")
    pools = [
        {
            "url": pool.url,
            "user": pool.user,
            "status": "ALIVE",
            "active": number == 0,
            "shares": {
                "acceptedSolutions": now.accepted if number == 0 else 0,
                "rejectedSolutions": now.rejected if number == 0 else 0,
            },
        }
        for number, pool in enumerate(miner.kept.pools)
    ]
    return {
        "modelName": miner.place.model.name,
        "fans": [{"name": str(n), "rpm": rpm, "speed": now.fan_percent} for n, rpm in enumerate(now.fans_rpm)],
        "summary": {
            "power": {"approxConsumptionW": round(now.power_w), "limitW": round(target_w(miner))},
            "realHashrate": {"mhs5S": rate, "mhs1M": rate * 0.998, "mhs15M": now.average_ths * 1e6},
            "poolStatus": "ALIVE",
            "tunerStatus": status,
            "temperature": {"degreesC": max(now.chip_c)},
        },
        "workSolver": {
            "nominalMhs": now.ideal_ths * 1e6,
            "realHashrate": {"mhs5S": rate},
            "childSolvers": [_board(miner, now, board) for board in range(miner.place.model.boards)],
        },
        "poolGroups": [{"name": "Default", "pools": pools}],
    }


def _board(miner: Miner, now: Snapshot, board: int) -> Row:
    return {
        "name": str(board + 1),
        "nominalMhs": now.ideal_ths * 1e6 / miner.place.model.boards,
        "realHashrate": {"mhs5S": now.board_ths[board] * 1e6},
        "hwDetails": {
            "chips": miner.place.model.chips,
            "frequencyMhz": 525.0 if now.hashing else 0.0,
            "hbSerialNumber": f"SIMB{miner.place.serial[:10].upper()}{board}",
            "voltageV": 12.9 if now.hashing else 0.0,
        },
        "temperatures": [
            {"name": "Max Board", "degreesC": now.board_c[board]},
            {"name": "Max Chip", "degreesC": now.chip_c[board]},
            {"name": "Inlet", "degreesC": now.air_c},
        ],
    }


def _mutations(miner: Miner) -> Row:
    """Return everything that can be ordered; each is done when it is selected."""

    def done(do: Callable[[Mapping[str, Any]], None]) -> Callable[[Mapping[str, Any]], Row]:
        def run(arguments: Mapping[str, Any]) -> Row:
            do(arguments)
            return _VOID

        return run

    def restart(_arguments: Mapping[str, Any]) -> None:
        miner.reboot(Verb.REBOOT, _RESTART_S, only="bosminer")

    def password(arguments: Mapping[str, Any]) -> Row:
        new = arguments.get("newPassword")
        if not isinstance(new, str) or not new:
            return {"__typename": "BosError", "message": "Invalid password"}
        miner.set_password(new)
        if not miner.has("ack_without_effect"):
            miner.memory.pop("session", None)
        return _VOID

    return {
        "__typename": "Mutation",
        "bos": {
            "__typename": "BosMutation",
            "reboot": done(lambda _arguments: miner.reboot()),
            "setFaultLight": lambda arguments: _light(miner, arguments),
            "setPassword": password,
        },
        "bosminer": {
            "__typename": "BosminerMutation",
            "stop": done(lambda _arguments: miner.order(Verb.STOP)),
            "start": done(lambda _arguments: miner.order(Verb.START)),
            "restart": done(restart),
            "config": {
                "__typename": "BosminerConfigurator",
                "updateAutotuning": lambda arguments: _autotuning(miner, arguments),
                "updateGroups": lambda arguments: _groups(miner, arguments),
                "group": lambda arguments: _group(miner, arguments),
            },
        },
    }


def _light(miner: Miner, arguments: Mapping[str, Any]) -> Row:
    on = arguments.get("enable") is True
    miner.change(Verb.BLINK, lambda: setattr(miner.kept, "led", on), on=on)
    return {"__typename": "FaultLightOut", "enabled": on}


def _autotuning(miner: Miner, arguments: Mapping[str, Any]) -> Row:
    asked = arguments.get("input")
    watts = asked.get("powerTarget") if isinstance(asked, dict) else None
    least, greatest = bounds_w(miner)
    if not isinstance(watts, int) or isinstance(watts, bool) or not least <= watts <= greatest:
        told = f"power target must lie between {least:.0f} and {greatest:.0f} W"
        return {"__typename": "AutotuningError", "message": told, "powerTarget": told}
    miner.limit(Watts(watts))
    return {"__typename": "AutotuningOut", "autotuning": _config(miner)["autotuning"]}


def _groups(miner: Miner, arguments: Mapping[str, Any]) -> Row:
    pools = pools_in(arguments.get("groups"))
    if not pools:
        return {"__typename": "GroupListError", "message": "each pool needs url and user"}
    miner.set_pools(pools)
    return {"__typename": "GroupList", "groups": _config(miner)["groups"]}


def _group(miner: Miner, arguments: Mapping[str, Any]) -> Row:
    if str(arguments.get("id")) != "0":
        return {"__typename": "GroupError", "message": "no such group"}

    def add(one: Mapping[str, Any]) -> Row:
        if not one.get("url") or not one.get("user"):
            return {"__typename": "PoolError", "message": "url and user are wanted"}
        pool = Pool(str(one["url"]), str(one["user"]), str(one.get("password") or ""))
        miner.set_pools((*miner.kept.pools, pool))
        return {"__typename": "Pool", "id": str(len(miner.kept.pools) - 1)}

    def remove(one: Mapping[str, Any]) -> Row:
        number = str(one.get("id"))
        if number not in {str(place) for place in range(len(miner.kept.pools))}:
            return {"__typename": "PoolError", "message": "no such pool"}
        miner.set_pools(tuple(pool for place, pool in enumerate(miner.kept.pools) if str(place) != number))
        return _VOID

    return {"__typename": "GroupConfigurator", "addPool": add, "removePool": remove}
