"""Invented replies of the natively controlled firmwares over the wires beside RPC, by the commands of their tables.

No value here comes from a device; the shapes do (docs/devices.md, the captures).
"""

from tests.unit.agent.cgminer import replies_of as made
from tests.unit.agent.cgminer.web_replies_of import MAC, SYSTEM, document


def ghs(value: float) -> dict[str, float]:
    return {"gigahash_per_second": value}


def vnish(state: str = "mining", rate: float = 200000.5, **changes: object) -> dict[str, bytes]:
    chain = {
        "id": 1,
        "pcb_temp": {"min": 41, "max": 51},
        "chip_temp": {"min": 56, "max": 66},
        "status": {"state": "mining"},
    }
    pool = {"pool_type": "UserPool", "accepted": 15, "rejected": 2, "stale": 1}
    miner = {
        "miner_status": {"miner_state": state, "miner_state_time": 4000},
        "miner_type": "Antminer S99 Pro (Vnish 9.9.9)",
        "hr_stock": 230000.0,
        "instant_hashrate": rate / 1000,
        "hr_realtime": rate,
        "hr_nominal": 210000.0,
        "hr_average": rate,
        "power_consumption": 3000,
        "power_usage": 3000,
        "pools": [pool, {**pool, "pool_type": "DevFee"}],
        "cooling": {"fans": [{"id": 0, "rpm": 5800, "status": "ok"}], "fan_duty": 80},
        "chains": [chain, {**chain, "id": 2}],
        "psu": {"psu_power_metering": True},
        **changes,
    }
    info = {
        "miner": "Antminer S99 Pro",
        "fw_name": "Vnish",
        "fw_version": "9.9.9",
        "system": {"network_status": {"mac": MAC, "hostname": "rack-8"}},
        "serial": "N/A",
    }
    return {
        "/api/v1/summary": document({"miner": miner}),
        "/api/v1/info": document(info),
        "/api/v1/perf-summary": document({"current_preset": {"name": "3100", "pretty": "3100 watt ~ 205 TH"}}),
    }


def braiins_graphql(mhs: float = 7.1e6) -> dict[str, bytes]:
    def under(info: dict[str, object], **beside: object) -> bytes:
        return document({"data": {"bosminer": {"info": info}, **beside}})

    solver = {
        "name": "6",
        "nominalMhs": mhs / 2,
        "realHashrate": {"mhs5S": mhs / 2},
        "temperatures": [{"degreesC": 70, "name": "Board"}, {"degreesC": 80, "name": "Chip"}],
    }
    system = {
        "fans": [{"name": "0", "rpm": 4000, "speed": 90}],
        "summary": {"power": {"approxConsumptionW": 730, "limitW": 900}, "tunerStatus": "STABLE"},
        "workSolver": {"nominalMhs": 7.2e6, "realHashrate": {"mhs5S": mhs}},
    }
    bos = {"hostname": "rack-9", "info": {"version": {"full": "2029-01-01-plus"}}, "uptime": {"durationS": 1100}}
    shares = {"acceptedSolutions": 30, "rejectedSolutions": 1}
    return {
        "version": made.answer(22, "VERSION", {"API": "3.7", "BOSer": "boser 9.9"}),
        "gql:system": under(system, bos=bos),
        "gql:boards": under({"workSolver": {"childSolvers": [solver, solver]}}),
        "gql:pools": under({"poolGroups": [{"name": "g", "pools": [{"active": True, "shares": shares}]}]}),
        "gql:names": under({}, bos=bos),
        "gql:state": under({"summary": {"tunerStatus": "PAUSED", "poolStatus": "OK"}}),
        "/cgi-bin/luci/admin/network/iface_status/lan": document([{"macaddr": MAC}]),
    }


def braiins_rest(status: int = 2, rate: float = 140000.0) -> dict[str, bytes]:
    board = {
        "enabled": True,
        "board_temp": {"degree_c": 55.5},
        "highest_chip_temp": {"id": 1, "location": 1, "temperature": {"degree_c": 70.5}},
    }
    stats = {
        "nominal_hashrate": ghs(142000.0),
        "real_hashrate": {"last_5s": ghs(rate), "last_1m": ghs(rate), "since_restart": ghs(139000.0)},
    }
    details = {
        "bos_version": {"current": "2029-01-01-0-aaaa-99.01-plus"},
        "bosminer_uptime_s": 6000,
        "hostname": "rack-10",
        "mac_address": MAC,
        "miner_identity": {"brand": 1, "miner_model": "Antminer S99", "name": "Antminer S99"},
        "serial_number": None,
        "status": status,
        "sticker_hashrate": ghs(141000.0),
    }
    shares = {"accepted_shares": 100, "rejected_shares": 1, "stale_shares": 0}
    tuner = {"mode_state": {"powertargetmodestate": {"current_target": {"watt": 3000}}}, "overall_tuner_state": 2}
    power = {"approximated_consumption": {"watt": 3100}}
    return {
        "/api/v1/miner/stats": document({"miner_stats": stats, "power_stats": power}),
        "/api/v1/cooling/state": document(
            {"fans": [{"position": 0, "rpm": 5900, "target_speed_ratio": 0.9}], "highest_temperature": {"location": 1}}
        ),
        "/api/v1/miner/hw/hashboards": document({"hashboards": [board, board, board]}),
        "/api/v1/performance/tuner-state": document(tuner),
        "/api/v1/pools": document([{"name": "g", "pools": [{"active": True, "stats": shares}]}]),
        "/api/v1/miner/details": document(details),
        "/api/v1/version": document({"major": 1, "minor": 9, "patch": 0}),
    }


def framed(**parts: object) -> bytes:
    return document({"code": 0, "when": 1_760_000_000, "desc": "x", "msg": parts})


def whatsminer_v3(working: str = "true", ths: float = 170.5) -> dict[str, bytes]:
    summary = {
        "board-temperature": [41.5, 42.5],
        "chip-temp-avg": 75.5,
        "chip-temp-max": 82.0,
        "elapsed": 5000,
        "environment-temperature": 28.5,
        "factory-hash": 180.0,
        "fan-speed-in": 5400,
        "fan-speed-out": 5280,
        "hash-average": 169.0,
        "hash-realtime": ths,
        "hash-1min": ths,
        "power-limit": 3600,
        "power-realtime": 3150.0,
        "up-freq-finish": 1,
    }
    board = {"id": 0, "chip-temp-avg": 74.0, "chip-temp-max": 80.0, "hash-realtime": ths / 2, "status": "alive"}
    info = {
        "error-code": [{"264": "2029-01-01 00:00:00", "reason": "Power xfer error"}],
        "miner": {"board-num": "2", "miner-sn": "WMTEST1", "type": "M99S", "working": working},
        "network": {"hostname": "rack-11", "mac": MAC},
        "power": {"fanspeed": 6300},
        "salt": "aaaaaaaa",
        "system": {"api": "3.0.9", "fwversion": "20290101"},
    }
    return {
        "v3:get.miner.status:summary": framed(summary=summary),
        "v3:get.miner.status:edevs": framed(edevs=[board, board]),
        "v3:get.miner.status:pools": framed(pools=[{"account": "x", "status": "alive", "url": "stratum+tcp://a:1"}]),
        "v3:get.device.info": framed(**info),
    }


def antminer_new_api(mode: object = 0, rate: float = 100000.5) -> dict[str, bytes]:
    chain = {
        "index": 0,
        "asic_num": 126,
        "temp_pcb": [40.0, 42.0, 45.0, 47.0],
        "temp_chip": [55.0, 57.0, 65.0, 67.0],
        "rate_real": rate / 3,
    }
    row = {
        "elapsed": 5000,
        "rate_5s": rate,
        "rate_avg": rate,
        "rate_ideal": 104000.0,
        "rate_unit": "GH/s",
        "watt": 3100,
        "fan": [4000, 4100, 0, 4200],
        "fan_num": 4,
        "chain": [chain, chain, {**chain, "asic_num": 0}],
    }
    info = {"INFO": {"miner_version": "99.0.1.3", "CompileTime": "x", "type": "Antminer S99"}}
    signs = [{"type": "temp", "status": "e", "code": 1, "msg": "over max temp"}]
    head = {"STATUS": made.status(70)}
    return {
        "new:stats": document({**head, **info, "STATS": [row]}),
        "pools": made.POOLS,
        "version": made.answer(22, "VERSION", {"API": "3.1", **made.ANTMINER_HEAD}),
        "/cgi-bin/get_system_info.cgi": document({**SYSTEM, "minertype": "Antminer S99", "serinum": "SNTEST1"}),
        "/cgi-bin/get_miner_conf.cgi": document({"pools": [], "bitmain-work-mode": mode}),
        "/cgi-bin/summary.cgi": document({**head, **info, "SUMMARY": [{"elapsed": 5000, "status": signs}]}),
    }


NATIVE: dict[str, dict[str, bytes]] = {
    "antminer": antminer_new_api(),
    "braiins": braiins_graphql(),
    "braiins-rest": braiins_rest(),
    "vnish": vnish(),
    "whatsminer-v3": whatsminer_v3(),
}
"""One healthy miner of each firmware that is asked over more than RPC."""
