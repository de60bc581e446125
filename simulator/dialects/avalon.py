"""Canaan Avalon A13/A14: CGMiner documents around one bracketed text, controlled by ``ascset`` in the device's time.

Invariants: ``softoff``/``softon`` take effect when the device's own clock reaches the given second, at once when that
has passed or none is given; their success is STATUS ``I`` with code 118, that of other settings ``S`` with 119; asleep,
``GHSmm`` keeps its old figure. A work mode is in force after a restart, except on the home models, and reads as set at
once: ``workmode`` is ``0`` normal, ``1`` high, and on home models ``set,0`` low, ``set,1`` normal, ``set,2`` high.

      ascset|0,softoff,1:1753434821  ->  STATUS=I,When=..,Code=118,Msg=ASC 0 set info: success softoff:1753434821,..|
"""

import re
from collections.abc import Callable

from simulator.dialects.cgminer_pools import change_pools
from simulator.dialects.rpc import Dialect, Request, Row, Section, difficulties, pool_rows, work_counts
from simulator.kept import Pool
from simulator.miner import Miner, Snapshot
from simulator.physics import Phase
from sitelink.types import Verb
from sitelink.units import Watts

_JOINS = ("summary", "stats", "estats", "pools", "devs", "version", "config", "litestats")
_BUILD = "24040301_2f1a3b0"
_HELP = "help|voltage|fan-spd|lcd|workmode|worklevel|reboot|softon|softoff|frequency|loop|password|time|led|"
_MODES, _HOME_MODES = ("normal", "high"), ("low", "normal", "high")
_HOME = re.compile(r"nano|mini|\bq\b", re.IGNORECASE)
_QUERY = "255"
_DENIABLE = frozenset({"ascset", "setpool", "restart", "enablepool", "disablepool", "switchpool", "poolpriority"})
_LEVELS = range(-8, 3)
_POWER_A_LEVEL = 0.05
_LEAST_WATTS = 100


class Avalon(Dialect):
    """CGMiner 4.11.1 as Canaan ships it."""

    name = "avalon"
    description = "cgminer 4.11.1"
    joins = frozenset(_JOINS)

    def __init__(self) -> None:
        self.tables = {
            "summary": _summary,
            "stats": _stats,
            "estats": _stats,
            "litestats": _stats,
            "pools": _pools,
            "devs": _devs,
            "version": _version,
            "config": _config,
            "devdetails": _devdetails,
        }

    def control(self, miner: Miner, request: Request) -> Section | Row | None:
        """Answer ``ascset``, ``setpool``, ``restart`` and CGMiner's pool commands."""
        if request.command not in _DENIABLE:
            return None
        if miner.has("access_denied"):
            return Section(45, f"Access denied to '{request.command}' command", letter="E")
        match request.command:
            case "ascset":
                return self._ascset(miner, request)
            case "setpool":
                return _setpool(miner, request.parameter)
            case "restart":
                miner.reboot(Verb.REBOOT, 12.0, only="cgminer")
                return {"STATUS": "RESTART"}
            case _:
                return change_pools(miner, request.command, request.parameter)

    def _ascset(self, miner: Miner, request: Request) -> Section:
        asc, _, rest = request.parameter.partition(",")
        option, _, value = rest.partition(",")
        if asc.strip() != "0":
            return Section(107, f"Invalid ASC id {asc} - range is 0 - 0", letter="E")
        if option == "help":
            return Section(118, f"ASC 0 set info: {_HELP}", letter="I")
        if option in {"softoff", "softon"}:
            return self._switch(miner, option, value)
        if option == "workmode":
            return _workmode(miner, value)
        setting = _SETTINGS.get(option)
        if setting is None:
            return _failed(f"unknown option {option}")
        wrong = setting(miner, value)
        return _failed(wrong) if wrong else Section(119, "ASC 0 set OK")

    def _switch(self, miner: Miner, option: str, value: str) -> Section:
        """``value`` is ``1:<unix seconds of the device's clock>`` or nothing."""
        mode, _, moment = value.partition(":")
        if value and (mode != "1" or not moment.isdecimal()):
            return _failed(f"{option} wants 1:<time>")
        wait_s = max(int(moment) - miner.device_time(), 0) if moment else 0
        miner.order(Verb.STOP if option == "softoff" else Verb.START, wait_s * miner.time.scale)
        return Section(118, f"ASC 0 set info: success {option}:{moment or miner.device_time()}", letter="I")


def _modes_of(miner: Miner) -> tuple[str, ...]:
    """Return the modes of the model, each at the place of its number."""
    return _HOME_MODES if _HOME.search(miner.place.model.name) else _MODES


def _mode_shown(miner: Miner) -> int:
    """Return the number of the mode that was set last, in force or not yet."""
    return _modes_of(miner).index(miner.kept.more.get("next mode", miner.kept.mode))


def _workmode(miner: Miner, value: str) -> Section:
    """Set or tell the mode, in the form of the model."""
    modes = _modes_of(miner)
    if modes is _HOME_MODES:
        number = value.removeprefix("set,")
        if not value.startswith("set,") or number not in {"0", "1", "2"}:
            return _failed("workmode wants set,0 to 2")
        if miner.kept.limit_w is not None and not miner.has("ack_without_effect"):
            miner.kept.limit_w = None
        miner.limit(mode=modes[int(number)])
        return Section(119, "ASC 0 set OK")
    if value not in {"0", "1", _QUERY}:
        return _failed("workmode wants 0, 1 or 255")
    if value != _QUERY:
        miner.choose_mode(modes[int(value)])
    shown = _mode_shown(miner) if value == _QUERY else int(value)
    return Section(118, f"ASC 0 set info: WORKMODE[{shown}]", letter="I")


def _failed(wrong: str) -> Section:
    return Section(120, f"ASC 0 set failed: {wrong}", letter="E")


def _worklevel(miner: Miner, value: str) -> str:
    """Set the level, in steps around nominal power, or the watts that some builds take instead."""
    try:
        number = int(value.removeprefix("set,"))
    except ValueError:
        return "worklevel wants set,N"
    nameplate_w = miner.place.model.nameplate_w
    if number in _LEVELS:
        watts = nameplate_w * (1 + _POWER_A_LEVEL * number)
    elif _LEAST_WATTS <= number <= nameplate_w * 1.1:
        watts = float(number)
    else:
        return "worklevel out of range"
    miner.limit(Watts(round(watts)) if number else None, level=number if number in _LEVELS else None)
    if not miner.has("ack_without_effect"):
        miner.kept.more["level"] = number if number in _LEVELS else 0
    return ""


def _reboot(miner: Miner, value: str) -> str:
    if value and not value.isdecimal():
        return "reboot wants seconds"
    miner.reboot(after_s=float(value or 0) * miner.time.scale)
    return ""


def _led(miner: Miner, value: str) -> str:
    """``<module>-<0, 1 or 2>``: off, on, turned over."""
    module, _, state = value.partition("-")
    if not module.isdecimal() or state not in {"0", "1", "2"}:
        return "led wants module-state"
    on = not miner.kept.led if state == "2" else state == "1"
    miner.change(Verb.BLINK, lambda: setattr(miner.kept, "led", on), on=on)
    return ""


def _password(miner: Miner, value: str) -> str:
    old, _, new = value.partition(",")
    if old != miner.kept.password or not new or miner.has("bad_password"):
        return "wrong password"
    miner.set_password(new)
    return ""


_SETTINGS: dict[str, Callable[[Miner, str], str]] = {
    "worklevel": _worklevel,
    "reboot": _reboot,
    "led": _led,
    "password": _password,
}
"""Options of ``ascset``: each sets its value and returns what is wrong with it, or nothing."""


def _setpool(miner: Miner, parameter: str) -> Section:
    """Replace one pool: ``user,password,number,url,worker,pool password``."""
    fields = [part.strip() for part in parameter.split(",")]
    if len(fields) != 6 or fields[2] not in {"0", "1", "2"} or not fields[3]:
        return Section(154, "setpool wants user,password,0 to 2,url,worker,password", letter="E")
    if fields[0] not in {"admin", "root"} or fields[1] != miner.kept.password or miner.has("bad_password"):
        return Section(154, "setpool: wrong password", letter="E")
    pools, number = list(miner.kept.pools), int(fields[2])
    pool = Pool(fields[3], fields[4], fields[5])
    pools[number : number + 1] = [pool]
    miner.set_pools(tuple(pools))
    return Section(155, f"Set pool {number} OK")


def _summary(_miner: Miner, now: Snapshot) -> Section:
    rate, average = now.hashrate_ths * 1e6, now.average_ths * 1e6
    row: Row = {
        "Elapsed": now.elapsed_s,
        "MHS av": round(average, 2),
        "MHS 5s": round(rate, 2),
        "MHS 1m": round(rate * 0.998, 2),
        "MHS 5m": round(rate * 0.997, 2),
        "MHS 15m": round(average, 2),
        **work_counts(now, hardware_errors=0),
        "Total MH": round(average * now.elapsed_s, 1),
        "Work Utility": 623462.2,
        **difficulties(now),
        "Best Share": 354914572,
        "Device Hardware%": 0.0,
        "Device Rejected%": 0.2007,
        "Pool Rejected%": 0.2129,
        "Pool Stale%": 0.0,
        "Last getwork": 0,
    }
    return Section(11, "Summary", "SUMMARY", (row,))


def _stats(miner: Miner, now: Snapshot) -> Section:
    row: Row = {
        "STATS": 0,
        "ID": "AVA100",
        "Elapsed": now.elapsed_s,
        "Calls": 0,
        "Wait": 0.0,
        "Max": 0.0,
        "Min": 99999999.0,
        "MM Count": 1,
        "Smart Speed": 1,
        "MM ID0": _bracket_text(miner, now),
    }
    return Section(70, "CGMiner stats", "STATS", (row,))


def _bracket_text(miner: Miner, now: Snapshot) -> str:
    """Return the ``Name[value]`` text that carries everything the miner measures."""
    model = miner.place.model
    boards = range(model.boards)
    work = "Work: In Work" if now.hashing else "Work: In Idle"
    if now.phase is Phase.TRIPPED:
        work = "Work: Over Heat"
    watts, limit = round(now.power_w), round(miner.kept.limit_w or model.nameplate_w * miner.level)
    hot = [round(figure) for figure in now.chip_c] if now.hashing or now.phase is Phase.TRIPPED else [0] * model.boards
    average = [max(figure - 11, 0) for figure in hot]
    parts = [
        f"Ver[{model.name}-{round(model.nameplate_ths)}-{_BUILD}] LVer[{_BUILD}] BVer[{_BUILD}]",
        f"DNA[{miner.shown_identity()[1]}] STATE[{1 if now.hashing else 2}] MEMFREE[67892] NETFAIL[0 0 0 0 0 0 0 0]",
        f"SYSTEMSTATU[{work}, Hash Board: {model.boards} ] Elapsed[{now.elapsed_s}] BOOTBY[0x01.00000000]",
        f"LW[{now.accepted * 31}] MH[{' '.join('0' for _ in boards)}] DHW[0] HW[0] DH[2.449%]",
        f"ITemp[{round(now.air_c)}] TMax[{max(hot)}] TAvg[{round(sum(average) / model.boards)}] TarT[90]",
        " ".join(f"Fan{number + 1}[{rpm}]" for number, rpm in enumerate(now.fans_rpm)) + f" FanR[{now.fan_percent}%]",
        f"PS[0 1214 {1316 if now.hashing else 4} {watts // 13} {watts} 1320 {limit}] PCOMM_E[0]",
        f"GHSspd[{now.hashrate_ths * 1e3:.2f}] DHspd[{'2.449' if now.hashing else '0.000'}%]",
        f"GHSmm[{now.ideal_ths * 1e3:.2f}] GHSavg[{now.average_ths * 1e3:.2f}] WU[619573.88] Freq[502.41]",
        f"MGHS[{' '.join(f'{rate * 1e3:.2f}' for rate in now.board_ths)}]",
        f"MTmax[{' '.join(str(figure) for figure in hot)}] MTavg[{' '.join(str(figure) for figure in average)}]",
        f"TA[{model.chips * model.boards}] Core[A3197S] PING[17] SoftOFF[{0 if now.hashing else 4}] ECHU[0 0 0]",
        *(f"PVT_T{board}[{_chips(hot[board], model.chips)}]" for board in boards),
        f"CRC[0 0 0] WORKMODE[{_mode_shown(miner)}] WORKLEVEL[{miner.kept.more.get('level', 0)}]",
        f"MPO[{limit}] WALLPOWER[{watts}] ADJ[1] LED[{int(miner.kept.led)}]",
    ]
    return " ".join(parts)


def _chips(hottest_c: int, chips: int) -> str:
    return " ".join(f"{max(hottest_c - place * 7 % 19, 0):3d}" for place in range(chips))


def _pools(miner: Miner, now: Snapshot) -> Section:
    rows = pool_rows(miner, now)
    return Section(7, f"{len(rows)} Pool(s)", "POOLS", rows)


def _devs(_miner: Miner, now: Snapshot) -> Section:
    rate, average = now.hashrate_ths * 1e6, now.average_ths * 1e6
    row: Row = {
        "ASC": 0,
        "Name": "AVALON",
        "ID": 0,
        "Enabled": "Y",
        "Status": "Alive",
        "Temperature": round(now.air_c, 2),
        "MHS av": round(average, 2),
        "MHS 5s": round(rate, 2),
        "MHS 1m": round(rate * 0.998, 2),
        "MHS 5m": round(rate * 0.997, 2),
        "MHS 15m": round(average, 2),
        "Accepted": now.accepted,
        "Rejected": now.rejected,
        "Hardware Errors": 0,
        "Utility": 1.4,
        "Last Share Pool": 0,
        "Last Share Time": now.when - 4,
        "Total MH": round(average * now.elapsed_s, 1),
        "Diff1 Work": now.accepted * 262144,
        "Last Valid Work": now.when - 1,
        "Device Hardware%": 0.0,
        "Device Rejected%": 0.2007,
        "Device Elapsed": now.elapsed_s,
    }
    return Section(9, "1 ASC(s)", "DEVS", (row,))


def _version(miner: Miner, _now: Snapshot) -> Section:
    mac, serial = miner.shown_identity()
    row: Row = {
        "CGMiner": "4.11.1",
        "API": "3.7",
        "PROD": f"AvalonMiner {miner.place.model.name}",
        "MODEL": f"{miner.place.model.name}-{round(miner.place.model.nameplate_ths)}",
        "HWTYPE": "MM4v1_X3",
        "SWTYPE": "MM319",
        "LVERSION": _BUILD,
        "BVERSION": _BUILD,
        "CGVERSION": _BUILD,
        "DNA": serial,
        "MAC": mac.upper(),
        "UPAPI": "2",
    }
    return Section(22, "CGMiner versions", "VERSION", (row,))


def _config(_miner: Miner, _now: Snapshot) -> Section:
    row: Row = {
        "ASC Count": 1,
        "PGA Count": 0,
        "Pool Count": 2,
        "Strategy": "Failover",
        "Log Interval": 5,
        "Device Code": "AVALON",
        "OS": "Linux",
        "Hotplug": "None",
    }
    return Section(33, "CGMiner config", "CONFIG", (row,))


def _devdetails(_miner: Miner, _now: Snapshot) -> Section:
    row: Row = {
        "DEVDETAILS": 0,
        "Name": "AVALON",
        "ID": 0,
        "Driver": "avalon",
        "Kernel": "",
        "Model": "",
        "Device Path": "",
    }
    return Section(69, "Device Details", "DEVDETAILS", (row,))
