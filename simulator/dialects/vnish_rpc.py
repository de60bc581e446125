"""VNish's CGMiner RPC: it reads, says what the miner does, and does not know ``version``."""

from simulator.dialects.rpc import Dialect, Request, Row, Section
from simulator.miner import Miner, Snapshot
from simulator.physics import Phase

VERSION = "1.2.7"
TUNES_UNTIL = "tunes until"


class Vnish(Dialect):
    """The RPC beside the pages: it reads and does not know ``version``."""

    name = "vnish"
    description = "cgminer 4.11.1"

    def __init__(self) -> None:
        self.tables = {"summary": _rpc_summary, "stats": _rpc_stats, "pools": _rpc_pools, "devdetails": _rpc_details}

    def control(self, miner: Miner, request: Request) -> Section | Row | None:
        """Answer ``version`` as VNish does: it is no command there."""
        if request.command != "version":
            return None
        return {"STATUS": [self.status(miner, Section(0, "Invalid command", letter="E"))]}


def state_of(miner: Miner, now: Snapshot) -> str:
    """Return VNish's word for what the miner does."""
    if now.phase is Phase.TRIPPED:
        return "failure"
    if now.phase is Phase.HASHING and _tunes(miner):
        return "auto-tuning"
    words = {Phase.HASHING: "mining", Phase.STARTING: "starting", Phase.STOPPING: "shutting-down"}
    return words.get(now.phase, "stopped")


def _tunes(miner: Miner) -> bool:
    return bool(miner.time.seconds() < miner.memory.get(TUNES_UNTIL, -1.0))


def _rpc_summary(_miner: Miner, now: Snapshot) -> Section:
    rate, average = round(now.hashrate_ths * 1e3, 2), round(now.average_ths * 1e3, 2)
    row: Row = {
        "Elapsed": now.elapsed_s,
        "Device Hardware%": 2.2890738e-10,
        "GHS 5s": rate,
        "GHS av": average,
        "GHS 30m": average,
        "Stale": 0,
        "Found Blocks": 0,
        "Accepted": now.accepted,
        "Rejected": now.rejected,
        "Hardware Errors": 57,
        "Best Share": 169988423,
        "Fee Percent": 2.812304,
    }
    return Section(11, "Summary", "SUMMARY", (row,))


def _rpc_stats(miner: Miner, now: Snapshot) -> Section:
    model, version = miner.place.model, miner.kept.firmware or VERSION
    head: Row = {"Type": f"{model.name} (Vnish {version})", "Miner": "0.0.0", "Cgminer": version}
    row: Row = {"Elapsed": now.elapsed_s, "GHS 5s": f"{now.hashrate_ths * 1e3:.2f}", "GHS av": now.average_ths * 1e3}
    for board in range(model.boards):
        number, hot, chip = board + 1, round(now.board_c[board]), round(now.chip_c[board])
        row[f"temp_chip{number}"] = f"{chip}-{chip - 10}-{chip}-{chip}"
        row[f"temp_pcb{number}"] = f"{hot}-{hot - 10}-{hot}-{hot}"
        row[f"chain_consumption{number}"] = round(now.power_w / model.boards)
        row[f"chain_rate{number}"] = round(now.board_ths[board] * 1e3, 2)
        row[f"chain_acn{number}"] = model.chips
        row[f"chain_state{number}"] = state_of(miner, now)
        row[f"freq_avg{number}"] = 495.0 if now.hashing else 0.0
    row |= {"fan_num": 4, **{f"fan{number + 1}": rpm for number, rpm in enumerate(now.fans_rpm)}}
    row |= {"fan_pwm": now.fan_percent, "state": state_of(miner, now), "total_acn": model.chips * model.boards}
    row |= {"total_rate": round(now.hashrate_ths * 1e3, 2), "total_rateideal": round(now.ideal_ths * 1e3, 2)}
    return Section(70, "CGMiner stats", "STATS", (head, row))


def _rpc_pools(miner: Miner, now: Snapshot) -> Section:
    rows = tuple(
        {
            "POOL": number,
            "URL": pool.url.rpartition("://")[2],
            "Type": 0,
            "User": pool.user,
            "Status": "Alive",
            "Accepted": now.accepted if number == 0 else 0,
            "Rejected": now.rejected if number == 0 else 0,
            "Stale": 0,
            "Last Share Time": "0:00:05" if number == 0 else "0",
            "Stratum Active": number == 0,
        }
        for number, pool in enumerate(miner.kept.pools)
    )
    return Section(7, f"{len(rows)} Pool(s)", "POOLS", rows)


def _rpc_details(miner: Miner, _now: Snapshot) -> Section:
    name = miner.place.model.name.removeprefix("Antminer ").upper().replace(" ", "")
    row: Row = {"DEVDETAILS": 0, "Name": f"BTM_{name}", "ID": 0, "Driver": f"bitmain_{name.lower()}_drv", "Kernel": ""}
    return Section(69, "Device Details", "DEVDETAILS", (row,))
