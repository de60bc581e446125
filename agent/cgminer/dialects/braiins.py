"""Braiins OS up to 25.05: CGMiner RPC (BOSminer, BOSminer+, BOSer), and GraphQL for what its RPC lacks. Pure.

Where a build no longer knows an RPC command, the GraphQL query of the same facts is asked in its place. The MAC stands
only on the network page of the web interface; it, GraphQL and the reason of an idle miner need a user and a password.

Source: Braiins OS API documentation: summary, devs, temps, fans, tunerstatus; the schema published at /graphql;
docs/devices.md. The power figure is the tuner's model, not a measurement.
"""

from typing import Any, Final

from agent.cgminer.credentials import Credentials
from agent.cgminer.dialects.documents import listed
from agent.cgminer.dialects.judgement import judge
from agent.cgminer.dialects.table import (
    Commands,
    Facts,
    Login,
    Sensors,
    Table,
    Verdict,
    known,
    live_temperature,
    megahash,
    percent,
    positive_power,
    power,
    turning,
)
from agent.cgminer.observation import PoolShares
from agent.cgminer.sections import Sections, at, first, mac, rows_of, summed, text, whole
from sitelink.types import PowerSource

_SYSTEM: Final = "gql:system"
_BOARDS: Final = "gql:boards"
_POOLS: Final = "gql:pools"
_STATE: Final = "gql:state"
_NAMES: Final = "gql:names"
_NETWORK: Final = "/cgi-bin/luci/admin/network/iface_status/lan"
_INFO: Final = "data.bosminer.info"
_SOLVERS: Final = f"{_INFO}.workSolver.childSolvers"
_QUERIES: Final = {
    "system": "{bos{hostname info{version{full}}uptime{durationS}}bosminer{info{fans{name rpm speed}"
    "summary{power{approxConsumptionW limitW}}workSolver{nominalMhs realHashrate{mhs5S}}}}}",
    "boards": "{bosminer{info{workSolver{childSolvers{name temperatures{name degreesC}}}}}}",
    "pools": "{bosminer{info{poolGroups{pools{shares{acceptedSolutions rejectedSolutions}}}}}}",
    "names": "{bos{hostname info{version{full}}}}",
    "state": "{bosminer{info{summary{tunerStatus poolStatus}}}}",
}

_LOGIN: Final = (
    "mutation($username:String!,$password:String!){auth{login(username:$username,password:$password)"
    "{__typename ...on VoidResult{void} ...on AuthError{message}}}}"
)


def login_of(credentials: Credentials) -> dict[str, Any]:
    """Return the mutation that opens a session; ``auth.login`` of its answer says why not."""
    return {"query": _LOGIN, "variables": {"username": credentials.user, "password": credentials.password}}


def _page_login(credentials: Credentials) -> dict[str, str]:
    return {"luci_username": credentials.user, "luci_password": credentials.password}


def _sensors(sections: Sections) -> Sensors:
    temps = sections.rows("temps")
    fans = sections.rows("fans") or _listed_fans(sections)
    solvers = listed(sections, _BOARDS, _SOLVERS)
    boards = len(sections.rows("devs")) or len(temps) or len(solvers) or len(sections.rows("devdetails"))
    return Sensors(
        board_temps_c=known([live_temperature(row.get("Board")) for row in temps]) or _named(solvers, "board"),
        chip_temps_c=known([live_temperature(row.get("Chip")) for row in temps]) or _named(solvers, "chip"),
        fans_rpm=known([turning(row.get("RPM")) for row in fans]),
        fans_percent=known([percent(row.get("Speed")) for row in fans]),
        boards=boards or None,
    )


def _listed_fans(sections: Sections) -> list[dict[str, Any]]:
    return [{"RPM": fan.get("rpm"), "Speed": fan.get("speed")} for fan in listed(sections, _SYSTEM, f"{_INFO}.fans")]


def _named(solvers: list[dict[str, Any]], word: str) -> tuple[Any, ...]:
    """Return the temperatures whose name has ``word``: ``Board``, ``Max Board`` or ``MAX_BOARD`` by version."""
    sensors = [sensor for solver in solvers for sensor in rows_of(solver.get("temperatures"))]
    fitting = [sensor for sensor in sensors if word in str(sensor.get("name")).lower()]
    return known([live_temperature(sensor.get("degreesC")) for sensor in fitting])


def _pools(sections: Sections) -> tuple[PoolShares, ...]:
    rows = [(row.get("Accepted"), row.get("Rejected"), row.get("Stale")) for row in sections.rows("pools")]
    for group in listed(sections, _POOLS, f"{_INFO}.poolGroups") if not rows else ():
        shares = [pool["shares"] for pool in rows_of(group.get("pools")) if isinstance(pool.get("shares"), dict)]
        rows += [(one.get("acceptedSolutions"), one.get("rejectedSolutions"), None) for one in shares]
    return tuple(PoolShares(whole(accepted), whole(rejected), whole(stale)) for accepted, rejected, stale in rows)


def _judge(sections: Sections, facts: Facts) -> Verdict:
    paused = any(row.get("Paused") is True for row in sections.rows("summary"))
    said = [at(_STATE, f"{_INFO}.summary.{key}", text)(sections) for key in ("tunerStatus", "poolStatus")]
    return judge(facts, off=paused or any("pause" in (one or "").lower() for one in said))


TABLE: Final = Table(
    dialect="braiins",
    commands=Commands(
        poll=("summary", "temps", "fans", "tunerstatus", "pools"),
        idle=(_STATE,),
        brief=("summary", "tunerstatus"),
        static=("version", "devdetails", "devs", _NAMES, _NETWORK),
        identity=("config", _NETWORK),
        instead={
            "summary": (_SYSTEM,),
            "tunerstatus": (_SYSTEM,),
            "fans": (_SYSTEM,),
            "temps": (_BOARDS,),
            "pools": (_POOLS,),
        },
    ),
    fields={
        "hashrate_ths": (
            first("summary", "MHS 5s", megahash),
            at(_SYSTEM, f"{_INFO}.workSolver.realHashrate.mhs5S", megahash),
            first("summary", "MHS 1m", megahash),
        ),
        "hashrate_average_ths": (first("summary", "MHS av", megahash),),
        "expected_ths": (
            summed("devs", "Nominal MHS", megahash),
            at(_SYSTEM, f"{_INFO}.workSolver.nominalMhs", megahash),
        ),
        "power_w": (
            first("tunerstatus", "ApproximateMinerPowerConsumption", power),
            at(_SYSTEM, f"{_INFO}.summary.power.approxConsumptionW", power),
        ),
        "power_limit_w": (
            first("tunerstatus", "PowerLimit", positive_power),
            at(_SYSTEM, f"{_INFO}.summary.power.limitW", positive_power),
        ),
        "uptime_s": (
            first("summary", "Elapsed", whole),
            at(_SYSTEM, "data.bos.uptime.durationS", whole),
        ),
        "model": (first("devdetails", "Model", text), first("version", "Type", text)),
        "firmware": (
            at(_NAMES, "data.bos.info.version.full", text),
            at(_SYSTEM, "data.bos.info.version.full", text),
            first("version", "BOSminer+", text),
            first("version", "BOSminer", text),
            first("version", "BOSer", text),
        ),
        "mac": (at(_NETWORK, "macaddr", mac), first("config", "MACAddr", mac)),
        "serial": (first("config", "SerialNumber", text),),
        "hostname": (
            at(_NAMES, "data.bos.hostname", text),
            at(_SYSTEM, "data.bos.hostname", text),
            first("config", "Hostname", text),
        ),
    },
    sensors=_sensors,
    judge=_judge,
    power_source=PowerSource.ESTIMATE,
    pools=_pools,
    logins=(
        Login("/graphql", login_of, "session_id", header="cookie", pages="/graphql", first=True),
        Login(
            "/cgi-bin/luci",
            _page_login,
            "session_id",
            header="cookie",
            pages="/cgi-bin/luci/",
            first=True,
            form=True,
            headers={"user-agent": "BTC Tools v0.1"},  # the page answers in JSON to no other
        ),
    ),
    queries=_QUERIES,
)
