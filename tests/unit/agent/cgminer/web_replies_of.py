"""Invented replies in the shape of the read-only families, by the commands that their tables ask.

No value here comes from a device; the shapes do (docs/devices.md, the captures).
"""

import json
from typing import Any

from tests.unit.agent.cgminer import replies_of as made

MAC = "02:00:5E:10:20:30"


def document(value: object) -> bytes:
    return json.dumps(value).encode()


SYSTEM: dict[str, Any] = {
    "minertype": "Antminer S9 Test",
    "macaddr": MAC,
    "hostname": "rack-7",
    "system_filesystem_version": "Mon Jan  1 00:00:00 CST 2029",
}
OLD_WEB_FIGURES = (
    "300,freq1=460,fan_num=2,fan1=4100,fan2=0,fan3=4200,temp1=51,temp2=52,temp_pcb1=30-50,temp_pcb2=31-51,temp_pcb3=-,"
    "temp_chip1=55-75,temp_chip2=56-76,temp_chip3=-,total_rateideal=14000.00,chain_acn1=60,chain_acn2=60,chain_acn3=0,"
    "chain_acs1= oooo oxoo,chain_acs2= oooo oooo,miner_version=9.9.1|"
)


def old_web(**summary: str) -> dict[str, bytes]:
    status = {
        "summary": {"elapsed": "900", "ghs5s": "13500.50", "ghsav": "13400.00", "accepted": "7", **summary},
        "pools": [
            {"index": "0", "url": "stratum+tcp://a.example:3333", "accepted": "7", "rejected": "1", "stale": "0"},
            {"index": "1", "url": "", "accepted": "0", "rejected": "0", "stale": "0"},
        ],
        "devs": [{"index": "1", "chain_acn": "60", "freq": OLD_WEB_FIGURES}, {"index": "2", "freq": OLD_WEB_FIGURES}],
    }
    return {"/cgi-bin/get_miner_status.cgi": document(status), "/cgi-bin/get_system_info.cgi": document(SYSTEM)}


def bitaxe(**changes: object) -> dict[str, bytes]:
    info = {
        "ASICModel": "BM9999",
        "asicCount": 1,
        "boardVersion": "900",
        "fanrpm": 3000,
        "fanspeed": 40,
        "hashRate": 500.5,
        "expectedHashrate": 520,
        "hostname": "desk",
        "macAddr": MAC,
        "overheat_mode": 0,
        "power": 14.5,
        "sharesAccepted": 21,
        "sharesRejected": 2,
        "temp": 57.5,
        "uptimeSeconds": 3600,
        "version": "v9.9.9",
        "vrTemp": 61,
        **changes,
    }
    return {"/api/system/info": document(info)}


def obelisk(*boards: dict[str, object]) -> dict[str, bytes]:
    dashboard = {
        "hashboardStatus": list(boards)
        or [
            {"boardTemp": 61, "chipTemp": 71, "mhsAvg": 250000.0},
            {"boardTemp": 62, "chipTemp": 72, "mhsAvg": 255000.0},
        ],
        "poolStatus": [{"url": "a.example:3333", "worker": "x", "status": "Alive", "accepted": 44, "rejected": 5}],
        "systemInfo": [{"name": "Free Memory", "value": "77"}, {"name": "Fan 1 Speed", "value": 5100}],
    }
    info = {"macAddress": MAC, "ipAddress": "192.0.2.7", "model": "SC1", "vendor": "Obelisk"}
    return {"/api/status/dashboard": document(dashboard), "/api/info": document(info)}


def goldshell(**changes: object) -> dict[str, bytes]:
    def board(place: int) -> dict[str, object]:
        return {
            "id": place,
            "time": 700 + place,
            "hashrate": 1000000.5,
            "av_hashrate": 990000.0,
            "accepted": 100 + place,
            "rejected": place,
            "temp": "70.5 \u00c2\u00b0C / 61.2 \u00b0C",
            "fanspeed": "2400 rpm / 2460 rpm",
            "minerstatus": 0,
            **changes,
        }

    pools = [
        {"url": "stratum+tcp://a.example:3333", "legal": True, "active": False, "pool-priority": 0},
        {"url": "stratum+tcp://b.example:3333", "legal": True, "active": True, "pool-priority": 1},
    ]
    return {
        "/mcb/cgminer?cgminercmd=devs": document({"status": 2, "data": [board(0), board(1), board(2)]}),
        "/mcb/pools": document(pools),
        "/mcb/status": document({"model": "Goldshell-TEST", "firmware": "9.9.9", "hardware": "x"}),
        "/mcb/setting": document({"name": MAC, "powerplans": []}),
    }


def epic(state: str = "Mining", order: str | None = None, **changes: object) -> dict[str, bytes]:
    summary = {
        "Fans": {"Fan Mode": {"Auto": {}}, "Fans Speed": 55},
        "Fans Rpm": {"Fans Speed 1": 4800, "Fans Speed 2": 0, "Fans Speed 3": None},
        "HBStatus": [{"Detected": True, "Enabled": True, "Index": place} for place in range(3)],
        "HBs": [{"Index": place, "Hashrate": [30000000.0, 101.0, 0.5], "Temperature": 60.5} for place in range(3)],
        "Hostname": "epic-7",
        "PerpetualTune": {"Algorithm": {"BoardTune": {"Target": 95, "Unit": "TH/s"}}, "Running": True},
        "Power Supply Stats": {"Input Power": 2500.5, "Input Voltage": 0.0},
        "Session": {"Accepted": 33, "Rejected": 1, "Average MHs": 88000000.0, "Uptime": 4000},
        "Software": "PowerPlay-Test v9.9.9",
        "Status": {"Last Command": order, "Last Error": None, "Operating State": state},
        **changes,
    }
    return {
        "/summary": document(summary),
        "/network": document({"dhcp": {"mac_address": MAC}}),
        "/capabilities": document({"Model": "AntMiner S19 Test", "Default Hashrate": 110}),
    }


def auradine(sleep: object = "off", mhs: float = 150e6) -> dict[str, bytes]:
    board = {"BoardTemp": [{"ID": 0, "Temperature": 44.5}], "ChipTemp": [{"ID": 0, "Temperature": 61.5}]}
    report = {"hostname": "tf-9", "mac": MAC, "model": "AT9999", "SerialNo": "AUTEST1", "version": "2029-01.01"}
    temperatures = [
        {"ID": 0, "Name": "Control Board", "BoardTemp": [{"ID": 0, "Temperature": 25.5}], "ChipTemp": None},
        {"ID": 1, "Name": "Hash Board 1", **board},
        {"ID": 2, "Name": "Hash Board 2", **board},
    ]
    return {
        "summary": made.answer(11, "SUMMARY", {"Elapsed": 9000, "MHS 5s": mhs, "MHS av": 148e6}),
        "devs": made.answer(9, "DEVS", *({"ID": place, "MHS 5s": mhs / 2, "Temperature": 44.0} for place in (1, 2))),
        "pools": made.POOLS,
        "version": made.answer(22, "VERSION", {"API": "1.0", "GCMiner": "9.9"}),
        "/psu": made.answer(570, "PSU", {"PowerIn": "2950.50W", "FanSpeed1": "4000.00 RPM", "Vin": "240.00V"}),
        "/fan": made.answer(510, "Fan", *({"ID": place, "Max": 7700, "Speed": 7000 + place} for place in range(4))),
        "/temperature": made.answer(590, "Temperature", *temperatures),
        "/mode": made.answer(540, "Mode", {"Mode": "custom", "Power": 3000, "Sleep": sleep, "Ths": 155}),
        "/ipreport": made.answer(620, "IPReport", report),
    }


def elphapex(work_mode: object = 0, rate: float = 14000.5) -> dict[str, bytes]:
    def chain(place: int) -> dict[str, object]:
        return {
            "index": place,
            "asic_num": 204,
            "temp_pcb": [45, 46, 60, 61],
            "temp_chip": ["50500", "60250", "", ""],
            "rate_real": rate / 4,
        }

    head = {"STATUS": {"STATUS": "S", "when": 2557700, "api_version": "1.0.0", "Msg": "stats"}}
    info = {"INFO": {"miner_version": "DG_TEST_9", "CompileTime": "", "dev_sn": "DGTEST1", "type": "DG9+"}}
    stats = {
        "rate_unit": "MH/s",
        "elapsed": 5000,
        "rate_5s": rate,
        "rate_avg": rate,
        "rate_ideal": 14200,
        "chain": [chain(place) for place in range(4)],
        "fan": ["5000", "5100", "0", "5300"],
    }
    pool = {"index": 0, "url": "stratum+tcp://a.example:3333", "accepted": 60, "rejected": 4, "stale": 1}
    signs = [
        {"status": "s", "type": "rate", "msg": "", "code": 0},
        {"status": "e", "type": "fans", "msg": "lost", "code": 1},
    ]
    summary = {"rate_unit": "MH/s", "elapsed": 5000, "rate_5s": rate, "rate_avg": rate, "status": signs}
    return {
        "/cgi-bin/stats.cgi": document({**head, **info, "STATS": [stats]}),
        "/cgi-bin/pools.cgi": document({**head, **info, "POOLS": [pool]}),
        "/cgi-bin/summary.cgi": document({**head, **info, "SUMMARY": [summary]}),
        "/cgi-bin/get_miner_conf.cgi": document({"pools": [], "fc-work-mode": work_mode, "algo": "ltc"}),
        "/cgi-bin/get_system_info.cgi": document({**SYSTEM, "minertype": "DG9+"}),
    }


def like_antminer(kind: str, **row: object) -> dict[str, bytes]:
    head = {**made.ANTMINER_HEAD, "Type": kind}
    return {
        "stats": made.answer(70, "STATS", head, {**made.ANTMINER_ROW, **row}),
        "version": made.answer(22, "VERSION", {"API": "3.1", **head}),
        "pools": made.POOLS,
        "/cgi-bin/get_system_info.cgi": document({**SYSTEM, "minertype": kind}),
    }


def mskminer() -> dict[str, bytes]:
    head = {**made.ANTMINER_HEAD, "BMMiner": "2.0.0 rwglr", "Type": "Antminer S9 Pro"}
    row = {**made.ANTMINER_ROW, "chain_power": "980.50 (AB)", "GHS 5s": "9000.0"}
    return {
        "stats": made.answer(70, "STATS", head, row),
        "version": made.answer(22, "VERSION", head),
        "pools": made.POOLS,
    }


def hammer() -> dict[str, bytes]:
    replies = like_antminer("Hammer D99", **{"MHS 5s": "5000.25", "MHS av": "4990.50"})
    row = {key: value for key, value in made.ANTMINER_ROW.items() if not key.startswith("GHS") and key != "rate_unit"}
    head = {"CGMiner": "9.9.9", "Miner": "9.9", "CompileTime": "x", "Type": "Hammer D99"}
    stats = made.answer(70, "STATS", head, {**row, "MHS 5s": "5000.25", "MHS av": "4990.50"})
    return {**replies, "stats": stats, "version": made.answer(22, "VERSION", {"API": "3.1", **head})}


def innosilicon() -> dict[str, bytes]:
    status = [{**made.status(70)[0], "Description": "innominer t9-9.9.9"}]
    board = {"Num chips": 12, "Num active chips": 12, "Fan duty": 80, "Temp": 55.0}
    stats = {"STATUS": status, "STATS0": [{"STATS": 0, **board}], "STATS1": [{"STATS": 1, **board}], "id": 1}
    row = {"Elapsed": 800, "MHS 5s": 51000000.0, "MHS av": 50000000.0}
    return {
        "summary": document({"STATUS": status, "SUMMARY": [row], "id": 1}),
        "stats": document(stats),
        "pools": made.POOLS,
        "version": made.answer(22, "VERSION", {"API": "3.1", "SGMiner": "4.4.2", "MAC": MAC}),
    }


FAMILIES: dict[str, dict[str, bytes]] = {
    "antminer-web": old_web(),
    "auradine": auradine(),
    "bitaxe": bitaxe(),
    "blackminer": like_antminer("Blackminer F9"),
    "elphapex": elphapex(),
    "epic": epic(),
    "goldshell": goldshell(),
    "hammer": hammer(),
    "hiveon": like_antminer("Antminer S9 Hiveon"),
    "innosilicon": innosilicon(),
    "mskminer": mskminer(),
    "obelisk": obelisk(),
}
"""One healthy miner of each read-only family."""
