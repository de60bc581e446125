"""Plain CGMiner 4.11 on a rig of ASICs: what its own API documents, and no name but the one that its owner gave it.

Invariants: what changes something is denied with code 45 unless ``api-allow`` has us under ``W:``. A disabled ASC reads
``Enabled`` ``N`` and no ``MHS 5s`` at once, while the average of the summary only decays; it stays disabled until it is
enabled, or the program restarts. No figure of power stands anywhere. ``Description`` is what ``--api-description`` was
given: the rig's MAC. Pools are not enabled and disabled one by one.

      ascdisable|1  ->  STATUS=I,When=..,Code=111,Msg=ASC 1 set disable flag,Description=02:ae:..|

Source: CGMiner's API-README, messages 44 to 46, 72 and 105 to 117.
"""

import math
from collections.abc import Callable

from simulator.dialects.cgminer_pools import change_pools
from simulator.dialects.rpc import Dialect, Request, Row, Section, pool_rows, work_counts
from simulator.miner import Miner, Snapshot
from simulator.physics import Goal, Phase
from sitelink.types import Verb

_JOINS = ("version", "config", "devs", "pools", "summary", "stats", "devdetails", "asccount", "pgacount")
_POOL_COMMANDS = frozenset({"addpool", "removepool", "switchpool", "poolpriority"})
_ASC_COMMANDS = frozenset({"ascenable", "ascdisable", "ascidentify", "ascset"})
_WRITES = _POOL_COMMANDS | _ASC_COMMANDS | {"privileged", "restart", "save", "quit"}
_OFF = "disabled ASCs"
_AVERAGED_S = 5.0
_RESTART_S = 12.0
_LAMPS = "BitForce"
"""Only these have a lamp to flash."""


class CgMiner(Dialect):
    """CGMiner as its authors released it, with an API that may be written to."""

    name = "cgminer"
    joins = frozenset(_JOINS)

    def __init__(self) -> None:
        self.tables = {
            "version": _version,
            "config": _config,
            "summary": _summary,
            "devs": _devs,
            "stats": _stats,
            "pools": _pools,
            "devdetails": _devdetails,
            "asccount": _asccount,
            "pgacount": lambda _miner, _now: Section(59, "PGA count", "PGAS", ({"Count": 0},)),
        }

    def status(self, miner: Miner, section: Section) -> Row:
        """Return the head, with the name that the owner gave the rig."""
        return {**super().status(miner, section), "Description": miner.shown_identity()[0]}

    def control(self, miner: Miner, request: Request) -> Section | Row | None:
        """Answer what changes something, ``privileged`` and ``check``."""
        command, denied = request.command, miner.has("access_denied")
        if command == "check":
            known = request.parameter in _WRITES or request.parameter in self.tables
            may = known and not (denied and request.parameter in _WRITES)
            answer = {"Exists": "Y" if known else "N", "Access": "Y" if may else "N"}
            return Section(72, "Check command", "COMMAND", (answer,))
        if command not in _WRITES:
            return None
        if denied or command == "quit":
            return Section(45, f"Access denied to '{command}' command", letter="E")
        if command in _POOL_COMMANDS:
            return change_pools(miner, command, request.parameter)
        if command in _ASC_COMMANDS:
            return _tell_asc(miner, command, request.parameter)
        return _tell_program(miner, command)


def _tell_program(miner: Miner, command: str) -> Section | Row:
    if command == "restart":
        miner.reboot(Verb.REBOOT, _RESTART_S, only="cgminer")
        return {"STATUS": "RESTART"}
    if command == "save":
        return Section(44, "Configuration saved to file 'cgminer.conf'")
    return Section(46, "Privileged access OK")


def _tell_asc(miner: Miner, command: str, parameter: str) -> Section:
    last = miner.place.model.boards - 1
    text = parameter.partition(",")[0].strip()
    if not text:
        return Section(15, "Missing device id parameter", letter="E")
    if not text.isdecimal() or int(text) > last:
        return Section(107, f"Invalid ASC id {text} - range is 0 - {last}", letter="E")
    return _COMMANDS[command](miner, int(text))


def _disable(miner: Miner, number: int) -> Section:
    """Disable one; the rig stops hashing with its last."""
    off = miner.memory.setdefault(_OFF, set())
    if number in off:
        return Section(109, f"ASC {number} already disabled", letter="I")
    off.add(number)
    if len(off) == miner.place.model.boards:
        miner.order(Verb.STOP)
    return Section(111, f"ASC {number} set disable flag", letter="I")


def _enable(miner: Miner, number: int) -> Section:
    """Enable one; a rig that was stopped hashes with its first."""
    off = miner.memory.setdefault(_OFF, set())
    if number not in off and _is_enabled(miner, number):
        return Section(108, f"ASC {number} already enabled", letter="I")
    starts = len(off) in {0, miner.place.model.boards}
    off.discard(number)
    if starts:
        miner.order(Verb.START)
    return Section(110, f"ASC {number} sent enable message", letter="I")


def _identify(miner: Miner, number: int) -> Section:
    if not miner.place.model.name.startswith(_LAMPS):
        return Section(114, f"ASC{number} does not support identify", letter="W")
    miner.change(Verb.BLINK, lambda: None, asc=number)
    return Section(113, f"Identify command sent to ASC{number}")


def _set(_miner: Miner, number: int) -> Section:
    return Section(117, f"ASC {number} does not support ascset", letter="W")


_COMMANDS: dict[str, Callable[[Miner, int], Section]] = {
    "ascdisable": _disable,
    "ascenable": _enable,
    "ascidentify": _identify,
    "ascset": _set,
}


def _is_enabled(miner: Miner, number: int) -> bool:
    """Return whether an ASC reads enabled: as it was told, once that has taken effect."""
    told: set[int] = miner.memory.get(_OFF, set())
    if miner.shown.goal is Goal.IDLE:
        return False
    if miner.has("ack_without_effect"):
        return True
    if len(told) < miner.place.model.boards or miner.shown.goal is Goal.TRIPPED:
        return number not in told
    return not miner.has("half_effect") or number > 0  # else not in effect yet


def _devs(miner: Miner, now: Snapshot) -> Section:
    boards = range(miner.place.model.boards)
    enabled = [_is_enabled(miner, board) for board in boards]
    share = now.hashrate_ths / max(sum(enabled), 1)
    status = "Sick" if now.phase is Phase.TRIPPED else "Alive"
    rows = tuple(
        {
            "ASC": board,
            "Name": _driver(miner),
            "ID": board,
            "Enabled": "Y" if enabled[board] else "N",
            "Status": status,
            "Temperature": now.board_c[board],
            "MHS av": round(now.average_ths * 1e6 / len(boards), 2),
            "MHS 5s": round(share * 1e6, 2) if enabled[board] else 0.0,
            "Accepted": now.accepted // len(boards),
            "Rejected": now.rejected // len(boards),
            "Hardware Errors": 4,
            "Utility": 2.1,
            "Last Share Pool": miner.kept.active_pool,
            "Last Share Time": now.when - 4,
            "Total MH": round(now.average_ths * 1e6 * now.elapsed_s / len(boards), 1),
            "Diff1 Work": now.accepted * 87_381,
            "No Device": False,
            "Last Valid Work": now.when - 1,
            "Device Hardware%": 0.01,
            "Device Rejected%": 0.2,
            "Device Elapsed": now.elapsed_s,
        }
        for board in boards
    )
    return Section(9, f"{len(rows)} ASC(s)", "DEVS", rows)


def _summary(miner: Miner, now: Snapshot) -> Section:
    rate, average = _averaged(miner, now), round(now.average_ths * 1e6, 2)
    row: Row = {
        "Elapsed": now.elapsed_s,
        "MHS av": average,
        "MHS 5s": rate,
        **dict.fromkeys(("MHS 1m", "MHS 5m", "MHS 15m"), average),
        **work_counts(now, hardware_errors=12),
        "Total MH": round(average * now.elapsed_s, 1),
        "Best Share": 354914572,
        "Last getwork": now.when,
    }
    return Section(11, "Summary", "SUMMARY", (row,))


def _averaged(miner: Miner, now: Snapshot) -> float:
    """Return the summary's average over five seconds in MH/s, which a rig that has stopped only lets decay."""
    if miner.shown.goal is not Goal.IDLE:
        return round(now.hashrate_ths * 1e6, 2)
    return round(now.ideal_ths * 1e6 * math.exp(-miner.shown.running_s(miner.time.seconds()) / _AVERAGED_S), 2)


def _stats(miner: Miner, now: Snapshot) -> Section:
    names = [f"{_driver(miner)}{board}" for board in range(miner.place.model.boards)]
    names += [f"POOL{number}" for number in range(len(miner.kept.pools))]
    rows = tuple(
        {"STATS": place, "ID": name, "Elapsed": now.elapsed_s, "Calls": 0, "Wait": 0.0, "Max": 0.0, "Min": 99999999.0}
        for place, name in enumerate(names)
    )
    return Section(70, "CGMiner stats", "STATS", rows)


def _pools(miner: Miner, now: Snapshot) -> Section:
    rows = pool_rows(miner, now)
    return Section(7, f"{len(rows)} Pool(s)", "POOLS", rows)


def _version(_miner: Miner, _now: Snapshot) -> Section:
    return Section(22, "CGMiner versions", "VERSION", ({"CGMiner": "4.11.1", "API": "3.7"},))


def _config(miner: Miner, _now: Snapshot) -> Section:
    row: Row = {
        "ASC Count": miner.place.model.boards,
        "PGA Count": 0,
        "Pool Count": len(miner.kept.pools),
        "Strategy": "Failover",
        "Log Interval": 5,
        "Device Code": _driver(miner),
        "OS": "Linux",
        "Hotplug": 5,
    }
    return Section(33, "CGMiner config", "CONFIG", (row,))


def _devdetails(miner: Miner, _now: Snapshot) -> Section:
    name = _driver(miner)
    rows = tuple(
        {
            "DEVDETAILS": board,
            "Name": name,
            "ID": board,
            "Driver": name.lower(),
            "Kernel": "",
            "Model": miner.place.model.name,
            "Device Path": "",
        }
        for board in range(miner.place.model.boards)
    )
    return Section(69, "Device Details", "DEVDETAILS", rows)


def _asccount(miner: Miner, _now: Snapshot) -> Section:
    return Section(104, "ASC count", "ASCS", ({"Count": miner.place.model.boards},))


def _driver(miner: Miner) -> str:
    return "BAS" if miner.place.model.name.startswith(_LAMPS) else "KnC"
