"""Auradine (GCMiner, FluxOS): CGMiner's RPC, and pages on a web port that open to a token.

Invariant: the pages want the token of ``/token`` in a header of its own; nothing here changes anything.
"""

from simulator.access import give_token, holds_token, knows
from simulator.dialects.rpc import Dialect, Row, Section, pool_rows
from simulator.miner import Miner, Snapshot
from simulator.web import WebFirmware, WebReply, WebRequest, page

_TOKEN_S = 3600.0
_BUILD = "GCMiner-2023-05.24-0ce5e7cc"


class Auradine(Dialect):
    """The RPC."""

    name = "auradine"
    description = _BUILD
    joins = frozenset({"summary", "devs", "pools", "version"})

    def __init__(self) -> None:
        self.tables = {"summary": _summary, "devs": _devs, "pools": _pools, "version": _version}


class AuradineWeb(WebFirmware):
    """The pages."""

    def serve(self, miner: Miner, request: WebRequest) -> WebReply:
        """Answer ``/token`` and, under it, one section a page."""
        if request.path == "/token":
            fields = request.fields
            if not knows(miner, str(fields.get("user", "")), str(fields.get("password", ""))):
                return page(_document(miner, "E", 45, "Invalid credentials"), 401)
            token = {"Token": [{"Token": give_token(miner, "token")}]}
            return page(_document(miner, "S", 500, "Token") | token)
        if not holds_token(miner, "token", request.headers.get("token", ""), _TOKEN_S):
            return page(_document(miner, "E", 45, "Unauthorized"), 401)
        section = _PAGES.get(request.path.strip("/"))
        if section is None:
            return page(_document(miner, "E", 14, "Invalid command"), 404)
        code, name, rows = section(miner, miner.snapshot())
        return page(_document(miner, "S", code, name) | {name: rows})


def _document(miner: Miner, letter: str, code: int, message: str) -> Row:
    status = {"Code": code, "Description": _BUILD, "Msg": message, "STATUS": letter, "When": miner.device_time()}
    return {"STATUS": [status], "id": 1}


def _summary(_miner: Miner, now: Snapshot) -> Section:
    rate = now.hashrate_ths * 1e6
    row: Row = {
        "Accepted": now.accepted,
        "Elapsed": now.elapsed_s,
        "Hardware Errors": 0,
        "MHS 15m": now.average_ths * 1e6,
        "MHS 1m": rate * 0.998,
        "MHS 5m": rate * 0.997,
        "MHS 5s": rate,
        "MHS av": now.average_ths * 1e6,
        "Rejected": now.rejected,
    }
    return Section(11, "Summary", "SUMMARY", (row,))


def _devs(miner: Miner, now: Snapshot) -> Section:
    rows = tuple(
        {
            "DEV": board + 1,
            "Enabled": True,
            "ID": board + 1,
            "MHS 5s": now.board_ths[board] * 1e6,
            "Name": "ASICBoard",
            "Status": "Alive" if now.hashing else "Dead",
            "Temperature": now.board_c[board],
        }
        for board in range(miner.place.model.boards)
    )
    return Section(9, f"{len(rows)} Dev(s)", "DEVS", rows)


def _pools(miner: Miner, now: Snapshot) -> Section:
    rows = pool_rows(miner, now)
    return Section(7, f"{len(rows)} Pool(s)", "POOLS", rows)


def _version(_miner: Miner, _now: Snapshot) -> Section:
    return Section(22, "GCMiner versions", "VERSION", ({"API": "1.0", "GCMiner": "0.5"},))


def _psu(_miner: Miner, now: Snapshot) -> tuple[int, str, list[Row]]:
    row = {
        "FanSpeed1": "4052.00 RPM",
        "FanSpeed2": "4144.00 RPM",
        "Iin": f"{now.power_w / 245:.2f}A",
        "PoutMax": "3452.00W",
        "PowerIn": f"{now.power_w:.2f}W",
        "PowerOut": f"{now.power_w * 0.95:.2f}W",
        "Vin": "245.00V",
    }
    return 570, "PSU", [row]


def _fan(_miner: Miner, now: Snapshot) -> tuple[int, str, list[Row]]:
    rows = [{"ID": n + 1, "Max": 7700, "Speed": rpm, "Target": 7000} for n, rpm in enumerate(now.fans_rpm)]
    return 510, "Fan", rows


def _temperature(miner: Miner, now: Snapshot) -> tuple[int, str, list[Row]]:
    control: Row = {"BoardTemp": [_sensor(now.air_c)], "ChipTemp": None, "ID": 0, "Name": "Control Board"}
    boards = [
        {
            "BoardTemp": [_sensor(now.board_c[board])],
            "ChipTemp": [_sensor(now.chip_c[board])],
            "ID": board + 1,
            "Name": f"Hash Board {board + 1}",
        }
        for board in range(miner.place.model.boards)
    ]
    return 590, "Temperature", [control, *boards]


def _sensor(celsius: float) -> Row:
    return {"ID": 0, "Temperature": celsius}


def _mode(miner: Miner, now: Snapshot) -> tuple[int, str, list[Row]]:
    sleep = "on" if now.switched_off else "off"
    limit_w = round(miner.place.model.nameplate_w)
    return 540, "Mode", [{"Mode": "normal", "Power": limit_w, "Sleep": sleep, "Ths": round(now.ideal_ths)}]


def _report(miner: Miner, _now: Snapshot) -> tuple[int, str, list[Row]]:
    mac, serial = miner.shown_identity()
    row = {
        "ChassisSerialNo": serial[:6],
        "SerialNo": serial.upper(),
        "hostname": "teraflux-01",
        "ip": miner.place.host,
        "mac": mac,
        "model": miner.place.model.name,
        "version": "2023-12.27",
    }
    return 620, "IPReport", [row]


_PAGES = {"psu": _psu, "fan": _fan, "temperature": _temperature, "mode": _mode, "ipreport": _report}
