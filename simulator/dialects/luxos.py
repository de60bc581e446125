"""LuxOS: CGMiner documents, own ``power``/``temps``/``fans``/``config``, and one exclusive session for changes.

Invariants: at most one session lives; it dies after 60 s without use and is refreshed by each use; a change without
the living session's id is refused.

Source: docs.luxor.tech, "Session management" and "curtail".
"""

from simulator import noise
from simulator.access import lifetime_s
from simulator.dialects.cgminer_pools import change_pools
from simulator.dialects.luxos_writes import atm_enabled, atm_row, is_write, profile_name, profiles_of, write
from simulator.dialects.rpc import Dialect, Request, Row, Section, pool_rows, work_counts
from simulator.miner import Miner, Snapshot
from simulator.physics import Phase
from sitelink.types import Verb

_VERSION = "2025.4.8.220305"
_SESSION_S = 60.0
_SOMEBODY = "b5yS0me1"
_GROUP = {"GROUP": 0, "Name": "default", "Quota": 1}
_POOL_COMMANDS = ("addpool", "removepool", "switchpool", "poolpriority")
_JOINS = ("summary", "stats", "pools", "devs", "version", "power", "temps", "fans", "config", "events")


class _Session:
    def __init__(self, name: str, now_s: float) -> None:
        self.name = name
        self.used_s = now_s


class LuxOs(Dialect):
    """LuxOS 2025."""

    name = "luxos"
    description = f"LUXminer {_VERSION}-57b389c7"
    joins = frozenset(_JOINS)

    def __init__(self) -> None:
        self.tables = {
            "summary": _summary,
            "stats": _stats,
            "pools": _pools,
            "devs": _devs,
            "version": _version,
            "power": _power,
            "temps": _temps,
            "fans": _fans,
            "config": _config,
            "events": _events,
            "profiles": lambda miner, _now: Section(323, "List profiles", "PROFILES", tuple(profiles_of(miner))),
            "atm": lambda miner, _now: Section(339, "ATM configuration values", "ATM", (atm_row(miner),)),
            "groups": lambda _miner, _now: Section(
                350, "Groups", "GROUPS", ({"GROUP": 0, "Name": "default", "Quota": 1},)
            ),
        }

    def control(self, miner: Miner, request: Request) -> Section | Row | None:
        """Answer the session commands and ``curtail``."""
        match request.command:
            case "logon":
                return self._logon(miner)
            case "logoff":
                return self._logoff(miner, request)
            case "session":
                name = _SOMEBODY if miner.has("session_busy") else _session_name(miner)
                return Section(319, "Session information", "SESSION", ({"SessionID": name},))
            case "kill":
                miner.memory.pop("session", None)
                return Section(320, "Session killed")
            case "curtail":
                return self._curtail(miner, request)
            case _:
                return self._change(miner, request)

    def _change(self, miner: Miner, request: Request) -> Section | None:
        """Pools are CGMiner's and want no session, though one may stand before them; the rest wants one."""
        first, _, rest = request.parameter.partition(",")
        has_session = _refresh(miner, first.strip())
        if is_write(request.command):
            if miner.has("access_denied"):
                return Section(45, f"Access denied to '{request.command}' command", letter="E")
            if not has_session:
                return Section(318, "Invalid session", letter="E")
            return write(miner, request.command, [part.strip() for part in rest.split(",") if part.strip()])
        if miner.has("access_denied") and request.command in _POOL_COMMANDS:
            return Section(45, f"Access denied to '{request.command}' command", letter="E")
        return change_pools(miner, request.command, rest if has_session else request.parameter)

    def _logon(self, miner: Miner) -> Section:
        if miner.has("access_denied"):
            return Section(45, "Access denied to 'logon' command", letter="E")
        if miner.has("session_busy") or _session_name(miner):
            return Section(402, "Session already active", letter="E")
        count = miner.memory.get("logons", 0)
        serial = count + 1 if isinstance(count, int) else 1
        miner.memory["logons"] = serial
        name = f"{noise.key('session', miner.place.miner_id, serial):016x}"[:8]
        miner.memory["session"] = _Session(name, _real_s(miner))
        return Section(316, "Session created", "SESSION", ({"SessionID": name},))

    def _logoff(self, miner: Miner, request: Request) -> Section:
        if not _refresh(miner, request.parameter.split(",")[0].strip()):
            return Section(318, "Invalid session", letter="E")
        if not miner.has("stuck_session"):
            miner.memory.pop("session", None)
        return Section(317, "Session terminated", "SESSION", ({"SessionID": ""},))

    def _curtail(self, miner: Miner, request: Request) -> Section:
        session, _, action = (part.strip() for part in request.parameter.partition(","))
        if not _refresh(miner, session):
            return Section(318, "Invalid session", letter="E")
        if action not in {"sleep", "wakeup"}:
            return Section(336, "Invalid curtailment action", letter="E")
        miner.order(Verb.STOP if action == "sleep" else Verb.START)
        label = "sleep mode" if action == "sleep" else "wake up"
        return Section(335, "Curtailment command sent", "CURTAIL", ({"Action": label},))


def _real_s(miner: Miner) -> float:
    return miner.time.clock.monotonic()


def _session_name(miner: Miner) -> str:
    """Return the living session's id, or an empty string."""
    session = miner.memory.get("session")
    if not isinstance(session, _Session) or _real_s(miner) - session.used_s >= lifetime_s(miner, _SESSION_S):
        return ""
    return session.name


def _refresh(miner: Miner, name: str) -> bool:
    session = miner.memory.get("session")
    if not name or not isinstance(session, _Session) or _session_name(miner) != name:
        return False
    session.used_s = _real_s(miner)
    return True


def _summary(_miner: Miner, now: Snapshot) -> Section:
    rate, average = now.hashrate_ths * 1e3, now.average_ths * 1e3
    row: Row = {
        **work_counts(now, hardware_errors=0, network_blocks=0, local_works=0),
        "Difficulty Accepted": now.accepted * 262144,
        "Difficulty Rejected": now.rejected * 262144,
        "Difficulty Stale": 0,
        "Best Share": 262144,
        "Device Hardware%": 0.0,
        "Device Rejected%": 0.0,
        "Elapsed": now.elapsed_s,
        "GHS 15m": round(average, 2),
        "GHS 1m": round(rate * 0.998, 2),
        "GHS 24h": round(average, 2),
        "GHS 30m": round(average, 2),
        "GHS 5m": round(rate * 0.997, 2),
        "GHS 5s": round(rate, 2),
        "GHS av": round(average, 2),
        "Last getwork": now.when - 4,
        "Pool Rejected%": round(100 * now.rejected / max(now.accepted, 1), 4),
        "Pool Stale%": 0.0,
        "Total MH": average * now.elapsed_s * 1e3,
        "Work Utility": 11.5,
    }
    return Section(11, "Summary", "SUMMARY", (dict(sorted(row.items())),))


def _stats(miner: Miner, now: Snapshot) -> Section:
    model = miner.place.model
    head: Row = {"CompileTime": "Tue Apr  8 22:05:35 UTC 2025", "Miner": _VERSION, "Type": model.name}
    row: Row = {
        "Calls": 0,
        "Elapsed": now.elapsed_s,
        "GHS 5s": round(now.hashrate_ths * 1e3, 2),
        "GHS av": round(now.average_ths * 1e3, 2),
        "ID": "BTM_SOC0",
        "Max": 0,
        "Min": 99999999,
        "Mode": 2,
        "STATS": 0,
        "Wait": 0,
    }
    for board in range(4):
        present = board < model.boards
        number = board + 1
        hot = round(now.board_c[board]) if present else 0
        joined = f"{hot}-{hot - 13}-{hot - 13}-{hot}" if present else "0-0-0-0"
        row[f"chain_acn{number}"] = model.chips if present and now.hashing else 0
        row[f"chain_acs{number}"] = " oooo" * (model.chips // 4) if present and now.hashing else ""
        row[f"chain_hw{number}"] = 0
        row[f"chain_rate{number}"] = f"{now.board_ths[board] * 1e3:.2f}" if present else "0"
        row[f"fan{number}"] = now.fans_rpm[board]
        row[f"freq{number}"] = 490.0 if present and now.hashing else 0.0
        row[f"temp_chip{number}"] = joined
        row[f"temp_pcb{number}"] = joined
        row[f"temp_pic{number}"] = joined
    row |= {
        "fan_num": 4,
        "frequency": 490 if now.hashing else 0,
        "miner_count": model.boards,
        "miner_id": miner.shown_identity()[0].replace(":", ""),
        "miner_version": _VERSION,
        "no_matching_work": 0,
        "rate_30m": round(now.average_ths * 1e3, 2),
        "rate_unit": "GH",
        "temp_max": max(now.board_c),
        "temp_num": model.boards,
        "total rate": round(now.hashrate_ths * 1e3, 2),
        "total_acn": model.chips * model.boards if now.hashing else 0,
        "total_freqavg": 490.0 if now.hashing else 0.0,
        "total_rateideal": round(now.ideal_ths * 1e3, 1),
    }
    return Section(70, "LUXminer stats", "STATS", (head, row))


def _pools(miner: Miner, now: Snapshot) -> Section:
    rows = pool_rows(miner, now)
    return Section(7, f"{len(rows)} Pool(s)", "POOLS", rows)


def _devs(miner: Miner, now: Snapshot) -> Section:
    rows = tuple(_device(miner, now, board) for board in range(miner.place.model.boards))
    return Section(9, f"{len(rows)} ASC(s)", "DEVS", rows)


def _device(miner: Miner, now: Snapshot, board: int) -> Row:
    rate = now.board_ths[board] * 1e6
    nominal = miner.place.model.nameplate_ths * 1e6 / miner.place.model.boards
    return {
        "ASC": board,
        "Accepted": now.accepted // miner.place.model.boards,
        "Board": "BHB56903",
        "Connector": f"J{7 + board}",
        "Device Elapsed": now.elapsed_s - 20,
        "Enabled": "Y",
        "Hardware Errors": 0,
        "ID": board,
        "IsRamping": now.phase is Phase.STARTING,
        "IsUserShutdown": False,
        "MHS 1m": rate * 0.998,
        "MHS 5m": rate * 0.997,
        "MHS 5s": rate,
        "MHS av": now.average_ths * 1e6 / miner.place.model.boards,
        "Name": "",
        "Nominal MHS": nominal,
        "Profile": profile_name(miner),
        "Rejected": now.rejected // miner.place.model.boards,
        "SerialNumber": f"SIMB{miner.place.serial[:10].upper()}{board}",
        "Status": "Alive" if now.hashing else "Disabled",
        "Temperature": now.board_c[board],
    }


def _version(miner: Miner, _now: Snapshot) -> Section:
    row: Row = {
        "API": "3.7",
        "CompileTime": "Tue Apr  8 22:05:35 UTC 2025",
        "LUXminer": f"{miner.kept.firmware or _VERSION}-57b389c7",
        "Miner": miner.kept.firmware or _VERSION,
        "Type": miner.place.model.name,
    }
    return Section(22, "LUXminer versions", "VERSION", (row,))


def _power(_miner: Miner, now: Snapshot) -> Section:
    return Section(311, "Power usage", "POWER", ({"PSU": True, "Watts": round(now.power_w)},))


def _temps(miner: Miner, now: Snapshot) -> Section:
    rows = tuple(
        {
            "BottomLeft": now.board_c[board],
            "BottomRight": round(now.board_c[board] - 13, 1),
            "ID": board,
            "TEMP": board,
            "TopLeft": round(now.board_c[board] - 0.5, 1),
            "TopRight": round(now.board_c[board] - 13.5, 1),
        }
        for board in range(miner.place.model.boards)
    )
    return Section(201, f"{len(rows)} Temp(s)", "TEMPS", rows)


def _fans(_miner: Miner, now: Snapshot) -> Section:
    rows = tuple(
        {"FAN": f"FAN{number + 1}", "ID": number, "RPM": rpm, "Speed": now.fan_percent}
        for number, rpm in enumerate(now.fans_rpm)
    )
    control = {"FANCTRL": [{"MinFans": 3, "PowerOffSpeed": 20}]}
    return Section(202, f"{len(rows)} Fan(s)", "FANS", rows, more=control)


def _config(miner: Miner, now: Snapshot) -> Section:
    mac, serial = miner.shown_identity()
    row: Row = {
        "ASC Count": miner.place.model.boards,
        "ControlBoardType": "cvitek",
        "Cooling": "Air",
        "CurtailMode": "Sleep" if now.switched_off else "None",
        "DHCP": True,
        "Device Code": "",
        "Hostname": f"{miner.place.rack}-{miner.place.position:02d}".lower(),
        "IPAddr": miner.place.host,
        "ImmersionMode": False,
        "IsAtmEnabled": atm_enabled(miner),
        "IsPowerSupplyOn": not now.switched_off,
        "IsTuning": False,
        "MACAddr": mac,
        "Model": miner.place.model.name,
        "NameplateTHS": miner.place.model.nameplate_ths,
        "OS": "LuxOS",
        "PGA Count": 0,
        "Pool Count": len(miner.kept.pools),
        "Profile": profile_name(miner),
        "RedLed": "blink" if miner.kept.led else "auto",
        "SerialNumber": serial.upper(),
        "Strategy": "Failover",
        "SystemStatus": "Overheat" if now.phase is Phase.TRIPPED else "Normal",
    }
    return Section(33, "LUXminer config", "CONFIG", (row,))


def _events(_miner: Miner, now: Snapshot) -> Section:
    if now.phase is not Phase.TRIPPED:
        return Section(357, "Miner Events", "EVENTS", ())
    row: Row = {"Code": "OVERHEAT", "Description": "Board temperature above limit.", "ID": 0, "Target": "BOARD"}
    return Section(357, "Miner Events", "EVENTS", (row,))
