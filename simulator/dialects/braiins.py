"""Braiins OS+ (BOSminer, 25.05 and before): CGMiner documents with ``tunerstatus``, and ``pause``/``resume``.

What its pages of every version share stands here too: the tuner's target and its bounds, and lists of pools.
"""

from typing import Any

from simulator.dialects.rpc import Dialect, Request, Row, Section, difficulties, pool_rows, work_counts
from simulator.kept import Pool
from simulator.miner import Miner, Snapshot
from simulator.physics import Phase
from sitelink.types import Verb
from sitelink.units import Watts

_JOINS = ("summary", "pools", "devs", "version", "temps", "fans", "tunerstatus", "devdetails")
_BUILD = "0.2.0-36c56a9363"
VERSION = "2025-04-07-0-424f9a7f-25.03-plus"


class Braiins(Dialect):
    """BOSminer+ with its tuner."""

    name = "braiins"
    description = f"BOSminer+ {_BUILD}"
    joins = frozenset(_JOINS)

    def __init__(self) -> None:
        self.tables = {
            "summary": _summary,
            "pools": _pools,
            "devs": _devs,
            "version": _version,
            "temps": _temps,
            "fans": _fans,
            "tunerstatus": _tunerstatus,
            "devdetails": _devdetails,
        }

    def control(self, miner: Miner, request: Request) -> Section | Row | None:
        """Answer ``pause`` and ``resume``."""
        if request.command not in {"pause", "resume"}:
            return None
        if miner.has("access_denied"):
            return Section(45, f"Access denied to '{request.command}' command", letter="E")
        if request.command == "pause":
            miner.order(Verb.STOP)
            return Section(204, "Pause", "PAUSE", (True,))
        miner.order(Verb.START)
        return Section(205, "Resume", "RESUME", (True,))


def target_w(miner: Miner) -> Watts:
    """Return the power target that the tuner works to."""
    limit_w = miner.kept.limit_w
    return miner.place.model.nameplate_w if limit_w is None else limit_w


def bounds_w(miner: Miner) -> tuple[Watts, Watts]:
    """Return the least and the greatest power target that the model takes."""
    nameplate_w = miner.place.model.nameplate_w
    return Watts(round(nameplate_w * 0.4)), Watts(round(nameplate_w * 1.2))


def pools_in(groups: Any) -> tuple[Pool, ...]:
    """Return the pools of all ``groups``; none when anything in them is not as it must be."""
    lists = [group.get("pools") for group in groups] if _is_rows(groups) else []
    if not all(_is_rows(rows) for rows in lists):
        return ()
    rows = [row for rows in lists for row in rows]
    if not all(row.get("url") and row.get("user") for row in rows):
        return ()
    return tuple(Pool(str(row["url"]), str(row["user"]), str(row.get("password") or "")) for row in rows)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _summary(_miner: Miner, now: Snapshot) -> Section:
    rate, average = now.hashrate_ths * 1e6, now.average_ths * 1e6
    row: Row = {
        **work_counts(now, hardware_errors=186, network_blocks=0),
        **difficulties(now),
        "Best Share": 65536,
        "Device Hardware%": 0.0016448500,
        "Device Rejected%": 0.0,
        "Elapsed": now.elapsed_s,
        "Last getwork": now.when,
        "MHS 15m": average,
        "MHS 1m": rate * 0.998,
        "MHS 24h": average,
        "MHS 5m": rate * 0.997,
        "MHS 5s": rate,
        "MHS av": average,
        "Pool Rejected%": 0.0,
        "Pool Stale%": 0.0,
        "Total MH": average * now.elapsed_s,
        "Work Utility": 184349.05814696933,
    }
    return Section(11, "Summary", "SUMMARY", (dict(sorted(row.items())),))


def _pools(miner: Miner, now: Snapshot) -> Section:
    rows = pool_rows(miner, now)
    return Section(7, f"{len(rows)} Pool(s)", "POOLS", rows)


def _devs(miner: Miner, now: Snapshot) -> Section:
    boards = miner.place.model.boards
    rows = tuple(
        {
            "ASC": board,
            "Accepted": 0,
            "Device Elapsed": now.elapsed_s,
            "Device Hardware%": 0.0,
            "Device Rejected%": 0.0,
            "Diff1 Work": 784,
            "Difficulty Accepted": 0.0,
            "Difficulty Rejected": 0.0,
            "Enabled": "Y",
            "Hardware Errors": 0,
            "ID": 6 + board,
            "MHS 15m": now.average_ths * 1e6 / boards,
            "MHS 1m": now.board_ths[board] * 1e6,
            "MHS 5m": now.board_ths[board] * 1e6,
            "MHS 5s": now.board_ths[board] * 1e6,
            "MHS av": now.average_ths * 1e6 / boards,
            "Name": "",
            "Nominal MHS": now.ideal_ths * 1e6 / boards,
            "Rejected": 0,
            "Status": "Alive" if now.hashing else "Dead",
            "Temperature": 0.0,
        }
        for board in range(boards)
    )
    return Section(9, f"{len(rows)} ASC(s)", "DEVS", rows)


def _version(_miner: Miner, _now: Snapshot) -> Section:
    return Section(22, "BOSminer+ versions", "VERSION", ({"API": "3.7", "BOSminer+": _BUILD},))


def _temps(miner: Miner, now: Snapshot) -> Section:
    rows = tuple(
        {"Board": now.board_c[board], "Chip": now.chip_c[board], "ID": 6 + board, "TEMP": board}
        for board in range(miner.place.model.boards)
    )
    return Section(201, f"{len(rows)} Temp(s)", "TEMPS", rows)


def _fans(_miner: Miner, now: Snapshot) -> Section:
    rows = tuple(
        {"FAN": number, "ID": number, "RPM": rpm, "Speed": now.fan_percent} for number, rpm in enumerate(now.fans_rpm)
    )
    return Section(202, f"{len(rows)} Fan(s)", "FANS", rows)


def _tunerstatus(miner: Miner, now: Snapshot) -> Section:
    boards = miner.place.model.boards
    watts, limit = round(now.power_w), round(now.power_limit_w)
    status = {Phase.HASHING: "Stable", Phase.STARTING: "Testing performance profile"}.get(now.phase, "Disabled")
    chains = [
        {
            "ApproximatePowerConsumptionWatt": round(now.power_w * 0.97 / boards),
            "HashchainIndex": 6 + board,
            "Iteration": 0,
            "LoadedProfileCreatedOn": now.when - 86_400,
            "PowerLimitWatt": limit // boards,
            "StageElapsed": now.running_s,
            "Status": status,
            "TunerRunning": now.hashing,
            "TuningElapsed": now.running_s,
        }
        for board in range(boards)
    ]
    row: Row = {
        "ApproximateChainPowerConsumption": round(now.power_w * 0.97),
        "ApproximateMinerPowerConsumption": watts,
        "DynamicPowerScaling": "Disabled",
        "PowerLimit": limit,
        "TunerChainStatus": chains,
    }
    return Section(203, "Tuner Status", "TUNERSTATUS", (row,))


def _devdetails(miner: Miner, _now: Snapshot) -> Section:
    model = miner.place.model
    rows = tuple(
        {
            "Chips": model.chips,
            "Cores": model.chips * 114,
            "DEVDETAILS": board,
            "Device Path": "",
            "Driver": "",
            "Frequency": 525_000_000,
            "ID": 6 + board,
            "Kernel": "",
            "Model": f"Bitmain {model.name}",
            "Name": f"Hash Chain {6 + board}",
            "Voltage": 13.4,
        }
        for board in range(model.boards)
    )
    return Section(69, "Device Details", "DEVDETAILS", rows)
