"""Invented replies in the shape of the firmwares that are read over HTTP, GraphQL or the framed API, by command.

No value here comes from a device; the shapes do (docs/devices.md, the captures).
"""

import json
from typing import Any

from tests.unit.agent.cgminer import replies_of as made

MAC = "02:00:5e:40:50:60"


def document(value: object) -> bytes:
    return json.dumps(value).encode()


def antminer_new(
    conf: dict[str, Any] | None = None, health: list[dict[str, Any]] | None = None, **row: Any
) -> dict[str, bytes]:
    """A stock Antminer that knows ``new_api``, with its web pages."""
    chains = [
        {"index": board, "asic_num": 88, "temp_pcb": [40, 42, 45, 47], "temp_chip": [55, 57, 65, 67]}
        for board in range(3)
    ]
    stats = {
        "STATUS": {"STATUS": "S", "when": 1_760_000_000, "Msg": "stats", "api_version": "1.0.0"},
        "INFO": {"miner_version": "49.0.1.3", "CompileTime": "Fri Nov 17", "type": "Antminer S19 XP"},
        "STATS": [
            {"elapsed": 7200, "rate_5s": 140_000.0, "rate_avg": 139_000.0, "rate_ideal": 141_000.0, "rate_unit": "GH/s"}
            | {"fan_num": 4, "fan": [4080, 4380, 3750, 3690], "watt": 3010, "chain": chains}
            | row
        ],
    }
    replies = {"new:stats": document(stats), "pools": made.POOLS}
    if conf is not None:
        replies["/cgi-bin/get_miner_conf.cgi"] = document({"pools": [], **conf})
    if health is not None:
        replies["/cgi-bin/summary.cgi"] = document({"STATUS": made.status(11), "SUMMARY": [{"status": health}]})
    replies["/cgi-bin/get_system_info.cgi"] = document(
        {"macaddr": MAC.upper(), "hostname": "rack-1", "minertype": "Antminer S19 XP", "serinum": "SERIAL0001"}
    )
    return replies


def braiins_graphql(tuner: str = "STABLE", **rate: Any) -> dict[str, bytes]:
    """A Braiins whose RPC knows nothing any more but its version."""
    solvers = [
        {
            "name": name,
            "temperatures": [{"name": "MAX_BOARD", "degreesC": 60.0}, {"name": "MAX_CHIP", "degreesC": 75.5}],
        }
        for name in ("1", "2", "3")
    ]
    info = {
        "fans": [{"name": "0", "rpm": 6418, "speed": 80}, {"name": "1", "rpm": 0, "speed": 80}],
        "summary": {"power": {"approxConsumptionW": 3100, "limitW": 3200}},
        "workSolver": {"nominalMhs": 102e6, "realHashrate": {"mhs5S": 1e8} | rate},
    }
    bos = {"hostname": "rack-2", "info": {"version": {"full": "2025-04-07-0-25.05-plus"}}, "uptime": {"durationS": 900}}
    pools = [{"shares": {"acceptedSolutions": 31, "rejectedSolutions": 2}}]
    return {
        "version": made.answer(22, "VERSION", {"API": "3.7", "BOSer": "boser-buildroot 0.1.0"}),
        "gql:names": document({"data": {"bos": {key: bos[key] for key in ("hostname", "info")}}}),
        "gql:system": document({"data": {"bos": bos, "bosminer": {"info": info}}}),
        "gql:boards": document({"data": {"bosminer": {"info": {"workSolver": {"childSolvers": solvers}}}}}),
        "gql:pools": document({"data": {"bosminer": {"info": {"poolGroups": [{"pools": pools}]}}}}),
        "gql:state": document(
            {"data": {"bosminer": {"info": {"summary": {"tunerStatus": tuner, "poolStatus": "OK"}}}}}
        ),
        "/cgi-bin/luci/admin/network/iface_status/lan": document([{"macaddr": MAC}]),
    }


def braiins_rest(status: int = 2, **rate: Any) -> dict[str, bytes]:
    """Braiins OS from 25.07."""
    rates = {"last_5s": 140_500.0, "since_restart": 139_000.0} | rate
    boards = [
        {"board_temp": {"degree_c": 55.5}, "highest_chip_temp": {"temperature": {"degree_c": 70.5}}, "enabled": enabled}
        for enabled in (True, True, False)
    ]
    pool = {"stats": {"accepted_shares": 10_460, "rejected_shares": 18, "stale_shares": 1}}
    return {
        "/api/v1/miner/details": document(
            {"status": status, "mac_address": MAC, "serial_number": "SERIAL0002", "hostname": "rack-3"}
            | {"bosminer_uptime_s": 7039, "miner_identity": {"name": "Antminer S21"}}
            | {"bos_version": {"current": "25.07-plus"}, "sticker_hashrate": {"gigahash_per_second": 141_000.0}}
        ),
        "/api/v1/miner/stats": document(
            {
                "miner_stats": {
                    "nominal_hashrate": {"gigahash_per_second": 142_000.0},
                    "real_hashrate": {name: {"gigahash_per_second": value} for name, value in rates.items()},
                },
                "power_stats": {"approximated_consumption": {"watt": 3137}},
            }
        ),
        "/api/v1/cooling/state": document(
            {
                "fans": [{"rpm": 5904, "target_speed_ratio": 0.75}, {"rpm": 0, "target_speed_ratio": 0.75}],
                "highest_temperature": {"location": 1, "temperature": {"degree_c": 71.0}},
            }
        ),
        "/api/v1/miner/hw/hashboards": document({"hashboards": boards}),
        "/api/v1/performance/tuner-state": document(
            {"mode_state": {"powertargetmodestate": {"current_target": {"watt": 3031}}}, "overall_tuner_state": 2}
        ),
        "/api/v1/pools": document([{"name": "g", "pools": [pool, {"stats": None}]}]),
    }


def vnish(state: str = "mining", **miner: Any) -> dict[str, bytes]:
    """VNish 1.2."""
    chains = [
        {
            "id": board,
            "pcb_temp": {"min": 40, "max": 50},
            "chip_temp": {"min": 55, "max": 65},
            "status": {"state": "mining"},
        }
        for board in (1, 2, 3)
    ]
    pools = [
        {"pool_type": "UserPool", "accepted": 1599, "rejected": 9, "stale": 0},
        {"pool_type": "DevFee", "accepted": 224, "rejected": 1, "stale": 0},
    ]
    summary = {
        "miner_status": {"miner_state": state, "miner_state_time": 4422},
        "hr_realtime": 173_870.94,
        "hr_average": 174_374.75,
        "hr_nominal": 196_517.17,
        "power_consumption": 2583,
        "pools": pools,
        "cooling": {
            "fans": [{"id": 0, "rpm": 5880, "status": "ok"}, {"id": 1, "rpm": 0, "status": "lost"}],
            "fan_duty": 90,
        },
        "chains": chains,
        "psu": {"psu_power_metering": True},
    } | miner
    return {
        "/api/v1/summary": document({"miner": summary}),
        "/api/v1/info": document(
            {"miner": "Antminer S21 Pro", "fw_name": "Vnish", "fw_version": "1.2.7", "serial": "N/A"}
            | {"system": {"network_status": {"mac": MAC.upper(), "hostname": "rack-4"}}}
        ),
        "/api/v1/perf-summary": document({"current_preset": {"name": "2800", "pretty": "2800 watt ~ 188 TH"}}),
    }


def framed(**message: Any) -> bytes:
    return document({"code": 0, "when": 1_760_000_000, "msg": message, "desc": "x"})


def whatsminer_v3(working: str = "true", codes: tuple[str, ...] = (), **summary: Any) -> dict[str, bytes]:
    """Whatsminer with API v3."""
    told = {
        "board-temperature": [41.1, 40.1, 41.5],
        "elapsed": 50_000,
        "environment-temperature": 28.5,
        "factory-hash": 181.051,
        "fan-speed-in": 5400,
        "fan-speed-out": 5280,
        "hash-average": 170.8,
        "hash-realtime": 171.259,
        "power-limit": 3600,
        "power-realtime": 3156.0,
        "up-freq-finish": 1,
    } | summary
    boards = [{"id": board, "chip-temp-avg": 74.0, "chip-temp-max": 80.0 + board} for board in range(3)]
    errors = [{code: "2026-05-23 09:19:10", "reason": "x"} for code in codes]
    return {
        "v3:get.miner.status:summary": framed(summary=told),
        "v3:get.miner.status:edevs": framed(edevs=boards),
        "v3:get.miner.status:pools": framed(pools=[{"status": "alive"}, {"status": "dead"}]),
        "v3:get.device.info": framed(
            **{
                "error-code": errors,
                "miner": {"working": working, "type": "M60S_VK40", "miner-sn": "SERIAL0003", "board-num": "3"},
                "network": {"mac": MAC.upper(), "hostname": "rack-5"},
                "power": {"fanspeed": 6344},
                "system": {"fwversion": "20251209.16.Rel2"},
                "salt": "uhCiDyVj",
            }
        ),
    }
