"""Hand-made replies in the shape of each firmware's, for the tests of the dialect tables."""

import json
from typing import Any


def status(code: int, message: str = "", letter: str = "S", when: int = 1_760_000_000) -> list[dict[str, Any]]:
    return [{"STATUS": letter, "When": when, "Code": code, "Msg": message, "Description": "test 1.0"}]


def answer(code: int, section: str, *rows: dict[str, Any], letter: str = "S") -> bytes:
    return json.dumps({"STATUS": status(code, letter=letter), section: list(rows), "id": 1}).encode()


def btminer(code: int, message: object, letter: str = "S") -> bytes:
    document = {"STATUS": letter, "When": 1_760_000_000, "Code": code, "Msg": message, "Description": ""}
    return json.dumps(document).encode()


POOLS = answer(
    7,
    "POOLS",
    {"POOL": 0, "URL": "stratum+tcp://a.example:3333", "Accepted": 90, "Rejected": 3, "Stale": 1},
    {"POOL": 1, "URL": "stratum+tcp://b.example:3333", "Accepted": 10, "Rejected": 0, "Stale": 0},
)

ANTMINER_HEAD = {"BMMiner": "1.0.0", "Miner": "uart_trans.1.3", "CompileTime": "x", "Type": "Antminer S19j Pro"}
ANTMINER_ROW: dict[str, Any] = {
    "STATS": 0,
    "Elapsed": 7200,
    "GHS 5s": "104210.50",
    "GHS av": 103900.0,
    "Mode": 2,
    "miner_count": 3,
    "fan_num": 4,
    "fan1": 5880,
    "fan2": 5760,
    "fan3": 0,
    "fan4": 5640,
    "temp_pcb1": "51-36-62-57",
    "temp_pcb2": "50--4-61-56",
    "temp_pcb3": "0-0-0-0",
    "temp_chip1": "66-51-77-72",
    "temp_chip2": "65-50-76-71",
    "temp_chip3": "0-0-0-0",
    "total_rateideal": 104000.0,
    "rate_unit": "GH",
    "chain_acn1": 126,
    "chain_acn2": 126,
    "chain_acn3": 0,
    "chain_acs1": " oooo oxoo",
    "chain_acs2": " oooo oooo",
    "chain_acs3": "",
    "miner_id": "81abcdef0123481c",
}


def antminer_stats(**changes: object) -> bytes:
    return answer(70, "STATS", ANTMINER_HEAD, {**ANTMINER_ROW, **changes})


WHATSMINER_SUMMARY: dict[str, Any] = {
    "Elapsed": 3600,
    "MHS av": 110_000_000.0,
    "MHS 5s": 111_500_000.0,
    "HS RT": 111_000_000.0,
    "Fan Speed In": 5100,
    "Fan Speed Out": 5220,
    "Power Fanspeed": 9100,
    "Power": 3350,
    "Power Limit": 3600,
    "Env Temp": 21.5,
    "Factory GHS": 112000,
    "MAC": "C6:07:20:00:AB:CD",
    "Firmware Version": "'20240101.11.REL'",
    "Error Code 0": 111,
    "Error 0 Time": "",
    "Factory Error Code 0": 999,
}
WHATSMINER_DEVS = answer(
    9,
    "DEVS",
    *(
        {"ASC": slot, "Temperature": 60.0 + slot, "Chip Temp Avg": 70.0, "Chip Temp Max": 80.0 + slot, "MHS 5s": 37e6}
        for slot in range(3)
    ),
)


def whatsminer_summary(**changes: object) -> bytes:
    return answer(11, "SUMMARY", {**WHATSMINER_SUMMARY, **{key.replace("_", " "): v for key, v in changes.items()}})


def luxos(**config: object) -> dict[str, bytes]:
    settings = {
        "MACAddr": "62:F7:5E:00:00:01",
        "SerialNumber": "LUX0000001",
        "Hostname": "rack-1",
        "Model": "Antminer S19 XP",
        "NameplateTHS": 140.0,
        "CurtailMode": "None",
        "SystemStatus": "Normal",
        "Profile": "default",
    }
    return {
        "summary": answer(11, "SUMMARY", {"Elapsed": 900, "GHS 5s": 139000.0, "GHS av": 120000.0}),
        "power": answer(311, "POWER", {"PSU": True, "Watts": 3010}),
        "temps": answer(201, "TEMPS", {"ID": 0, "TopLeft": 60.0, "BottomRight": 45.5}, {"ID": 1, "TopLeft": 61.0}),
        "fans": answer(202, "FANS", {"ID": 0, "RPM": 4800, "Speed": 70}, {"ID": 1, "RPM": 0, "Speed": 70}),
        "pools": POOLS,
        "config": answer(33, "CONFIG", {**settings, **config}),
        "version": answer(22, "VERSION", {"API": "3.7", "LUXminer": "2025.1.1", "Type": "Antminer S19 XP"}),
        "profiles": answer(320, "PROFILES", {"Profile Name": "default", "Watts": 3050}),
    }


AVALON_UNIT = (
    "Ver[1366-24] DNA[0201000012345678] SYSTEMSTATU[Work: In Work, Hash Board: 3 ] Elapsed[5400] Temp[24] TMax[78] "
    "TAvg[66] Fan1[4800] Fan2[4860] FanR[55%] PS[0 1214 1316 250 3200 1320 3504] GHSspd[129000.10] GHSmm[131000.00] "
    "GHSavg[128000.00] MTmax[78 77 76] MTavg[66 65 64] SoftOFF[0] MPO[3300] WORKMODE[1]"
)


def avalon(unit: str = AVALON_UNIT, when: int = 986) -> dict[str, bytes]:
    stats = {"STATUS": status(70, when=when), "STATS": [{"STATS": 0, "Elapsed": 5400, "MM ID0": unit}], "id": 1}
    return {
        "summary": answer(11, "SUMMARY", {"Elapsed": 5399, "MHS av": 127_500_000.0, "MHS 5s": 130_000_000.0}),
        "stats": json.dumps(stats).encode(),
        "version": answer(
            22, "VERSION", {"PROD": "AvalonMiner 1366", "MAC": "b4a2eb000001", "DNA": "0201000012345678"}
        ),
    }
