"""Stock Antminer (BMMiner): read-only RPC, no ``a+b`` requests, no power figure, control over HTTP only.

Invariants: every command that would change something is refused with code 45, as the factory's api-allow does. Two
builds stand on site: S19 Pro of 2020, which does not know ``new_api`` and answers as ever, and the newer models.
"""

from simulator.dialects.rpc import Dialect, Request, Row, Section, difficulties, pool_rows, work_counts
from simulator.miner import Miner, Snapshot
from simulator.physics import Phase

_OLD_BUILD = ("49.0.1.3", "Fri Dec 11 11:15:40 CST 2020")
_NEW_BUILD = ("49.0.1.3", "Fri Nov 17 17:37:21 CST 2023")
_OLD_MODELS = frozenset({"Antminer S19 Pro"})
_PRIVILEGED = ("restart", "quit", "addpool", "switchpool", "save", "ascset", "ascenable", "ascdisable", "privileged")


class Antminer(Dialect):
    """The factory firmware of S19 and S21."""

    name = "antminer"
    description = "cgminer 1.0.0"
    privileged = frozenset(_PRIVILEGED)

    def __init__(self) -> None:
        self.tables = {"summary": _summary, "stats": stats, "pools": _pools, "version": _version, "devs": _devs}

    def control(self, miner: Miner, request: Request) -> Section | Row | None:
        """Answer ``stats`` in the newer form when the request asks for it with ``new_api``; control there is none."""
        if request.command == "stats" and request.fields.get("new_api") is True and has_new_api(miner):
            return new_stats(miner, miner.snapshot())
        return None


def has_new_api(miner: Miner) -> bool:
    """Return whether the build knows ``new_api`` and shows ``miner-mode``."""
    return miner.place.model.name not in _OLD_MODELS


def version_of(miner: Miner) -> tuple[str, str]:
    """Return (version, time of compilation) of the firmware that runs."""
    version, compiled = _NEW_BUILD if has_new_api(miner) else _OLD_BUILD
    return miner.kept.firmware or version, compiled


def _summary(_miner: Miner, now: Snapshot) -> Section:
    rate, average = now.hashrate_ths * 1e3, now.average_ths * 1e3
    row: Row = {
        "Elapsed": now.elapsed_s,
        "GHS 5s": round(rate, 2),
        "GHS av": round(average, 2),
        "GHS 30m": round(average, 2),
        **work_counts(now, hardware_errors=562, network_blocks=82, getworks="Getwork"),
        "Total MH": average * now.elapsed_s * 1e3,
        "Work Utility": 1554353.85,
        **difficulties(now),
        "Best Share": 12904207043,
        "Device Hardware%": 0.0,
        "Device Rejected%": 0.0,
        "Pool Rejected%": 0.0,
        "Pool Stale%": 0.0,
        "Last getwork": now.when,
    }
    return Section(11, "Summary", "SUMMARY", (row,))


def stats(miner: Miner, now: Snapshot) -> Section:
    """Return ``stats`` in the form of old: one head and one row of numbered members."""
    model = miner.place.model
    version, compiled = version_of(miner)
    head: Row = {"BMMiner": "1.0.0", "Miner": version, "CompileTime": compiled, "Type": model.name}
    row: Row = {
        "STATS": 0,
        "ID": "BTM_SOC0",
        "Elapsed": now.elapsed_s,
        "Calls": 0,
        "Wait": 0,
        "Max": 0,
        "Min": 99999999,
        "GHS 5s": round(now.hashrate_ths * 1e3, 2),
        "GHS av": round(now.average_ths * 1e3, 2),
        "rate_30m": round(now.average_ths * 1e3, 2),
        "Mode": 2,
        "miner_count": model.boards,
        "frequency": 525,
        "fan_num": 4,
        **{f"fan{number + 1}": rpm for number, rpm in enumerate(now.fans_rpm)},
        "temp_num": model.boards,
    }
    for board in range(model.boards):
        row[f"temp{board + 1}"] = round(now.board_c[board])
        row[f"temp2_{board + 1}"] = round(now.chip_c[board])
    for board in range(4):
        row |= _chain(miner, now, board)
    row |= {
        "total_rateideal": round(now.ideal_ths * 1e3, 1),
        "rate_unit": "GH",
        "total_freqavg": 525,
        "total_acn": model.chips * model.boards,
        "total rate": round(now.average_ths * 1e3, 2),
        "temp_max": 0,
        "no_matching_work": 562,
        "miner_version": version,
        "miner_id": miner.shown_identity()[1],
    }
    return Section(70, "CGMiner stats", "STATS", (head, row))


def _chain(miner: Miner, now: Snapshot, board: int) -> Row:
    """Return the members of one chain; the fourth connector is empty, and asleep newer builds show no chips."""
    model, number = miner.place.model, board + 1
    present = board < model.boards
    awake = present and not (now.phase is Phase.IDLE and has_new_api(miner))
    mark = "x" if now.phase is Phase.TRIPPED or not now.hashing else "o"
    return {
        f"temp_pcb{number}": _sensors(now.board_c[board]) if present else "0-0-0-0",
        f"temp_chip{number}": _sensors(now.chip_c[board]) if present else "0-0-0-0",
        f"temp_pic{number}": _sensors(now.board_c[board] - 10) if present else "0-0-0-0",
        f"chain_acn{number}": model.chips if awake else 0,
        f"chain_acs{number}": f" {mark * 3}" * (model.chips // 3) if awake else "",
        f"chain_hw{number}": 183 if present else 0,
        f"chain_rate{number}": f"{now.board_ths[board] * 1e3:.2f}" if awake else "",
        f"freq{number}": 525 if present else 0,
    }


def _sensors(hottest_c: float) -> str:
    hot = round(hottest_c)
    return f"{hot - 27}-{hot - 23}-{hot - 1}-{hot}"


def new_stats(miner: Miner, now: Snapshot, *, with_power: bool = True) -> Row:
    """Return ``stats`` as newer firmware gives it on ``new_api``: one ``chain`` list, and power."""
    model = miner.place.model
    version, compiled = version_of(miner)
    chains = [
        {
            "index": board,
            "freq_avg": 525,
            "rate_ideal": round(now.ideal_ths * 1e3 / model.boards, 1),
            "rate_real": round(now.board_ths[board] * 1e3, 2),
            "asic_num": model.chips,
            "temp_pic": [round(now.board_c[board] - 10)] * 4,
            "temp_pcb": [round(now.board_c[board])] * 4,
            "temp_chip": [round(now.chip_c[board])] * 4,
            "hw": 183,
            "sn": f"SIMB{miner.place.serial[:10].upper()}{board}",
            "hwp": 0.0001,
        }
        for board in range(model.boards)
    ]
    row: Row = {
        "elapsed": now.elapsed_s,
        "rate_5s": round(now.hashrate_ths * 1e3, 2),
        "rate_30m": round(now.average_ths * 1e3, 2),
        "rate_avg": round(now.average_ths * 1e3, 2),
        "rate_ideal": round(now.ideal_ths * 1e3, 1),
        "rate_unit": "GH/s",
        "chain_num": model.boards,
        "fan_num": 4,
        "fan": list(now.fans_rpm),
        "hwp_total": 0.0001,
        **({"watt": round(now.power_w)} if with_power else {}),
        "chain": chains,
    }
    return {
        "STATUS": {"STATUS": "S", "when": now.when, "Msg": "stats", "api_version": "1.0.0"},
        "INFO": {"miner_version": version, "CompileTime": compiled, "type": model.name},
        "STATS": [row],
    }


def _pools(miner: Miner, now: Snapshot) -> Section:
    rows = tuple(
        {**row, "Diff": "262K", "Last Share Time": "0:00:04" if row["Stratum Active"] else "0"}
        for row in pool_rows(miner, now)
    )
    return Section(7, f"{len(rows)} Pool(s)", "POOLS", rows)


def _version(miner: Miner, _now: Snapshot) -> Section:
    version, compiled = version_of(miner)
    row: Row = {
        "BMMiner": "1.0.0",
        "API": "3.1",
        "Miner": version,
        "CompileTime": compiled,
        "Type": miner.place.model.name,
    }
    return Section(22, "CGMiner versions", "VERSION", (row,))


def _devs(_miner: Miner, now: Snapshot) -> Section:
    row: Row = {
        "ASC": 0,
        "Name": "BTM_SOC",
        "ID": 0,
        "Enabled": "Y",
        "Status": "Alive",
        "Tenperature": 0.0,
        "MHS av": 0.0,
        "MHS 5s": 0.0,
        "Accepted": now.accepted,
        "Rejected": now.rejected,
        "Hardware Errors": 0,
        "Utility": 0.0,
        "Last Share Pool": 0,
        "Last Share Time": now.when - 4,
        "Total MH": 0.0,
        "Difficulty Accepted": now.accepted * 262144.0,
        "Device Elapsed": now.elapsed_s,
    }
    return Section(9, "1 ASC(s)", "DEVS", (row,))
