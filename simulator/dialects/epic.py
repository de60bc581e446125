"""ePIC PowerPlay: HTTP on port 4028, where others speak CGMiner's RPC.

Invariant: reading needs no password; what would change something is refused without the right one, and here with it
too: ePIC miners are read, not controlled.
"""

from simulator.dialects.rpc import Row
from simulator.miner import Miner, Snapshot
from simulator.physics import Phase
from simulator.web import WebFirmware, WebReply, WebRequest, page


class Epic(WebFirmware):
    """PowerPlay-BMS 1.5."""

    def serve(self, miner: Miner, request: WebRequest) -> WebReply:
        """Answer one page."""
        read = {"/summary": _summary, "/network": _network, "/capabilities": _capabilities, "/temps": _temps}
        found = read.get(request.path)
        if request.method == "POST":
            return page({"result": False, "error": "Incorrect password"})
        return WebReply(404, b"Not Found", "text/plain") if found is None else found(miner, miner.snapshot())


def _summary(miner: Miner, now: Snapshot) -> WebReply:
    boards = range(miner.place.model.boards)
    state = {Phase.HASHING: "Mining", Phase.STARTING: "Initializing"}.get(now.phase, "Idling")
    document: Row = {
        "Fans": {"Fan Mode": {"Auto": {"Idle Speed": 20, "Target Temperature": 60}}, "Fans Speed": now.fan_percent},
        "Fans Rpm": {f"Fans Speed {number + 1}": rpm for number, rpm in enumerate(now.fans_rpm)},
        "HBStatus": [{"Detected": True, "Enabled": True, "Index": board} for board in boards],
        "HBs": [
            {
                "Core Clock Avg": 487.5,
                "Hashrate": [round(now.board_ths[board] * 1e6), 100.0, 0.8],
                "Index": board,
                "Input Voltage": 12.6,
                "Temperature": now.board_c[board],
            }
            for board in boards
        ],
        "Hostname": "epic",
        "Mining": {"Algorithm": "SHA-256", "Coin": "BTC"},
        "Misc": {"Critical Temp": 100.0, "Locate Miner State": miner.kept.led, "Shutdown Temp": 85.0},
        "PerpetualTune": {
            "Algorithm": {"VoltageOptimizer": {"Target": round(now.ideal_ths), "Unit": "TH/s"}},
            "Running": True,
        },
        "Power Supply Stats": {"Input Power": round(now.power_w, 2), "Input Voltage": 230.0, "Output Voltage": 12.6},
        "Session": {
            "Accepted": now.accepted,
            "Active HBs": len(boards),
            "Average MHs": now.average_ths * 1e6,
            "Rejected": now.rejected,
            "Submitted": now.accepted + now.rejected,
            "Uptime": now.elapsed_s,
        },
        "Software": miner.kept.firmware or "PowerPlay-BMS v1.5.13",
        "Status": {
            "Last Command": None,
            "Last Command Result": None,
            "Last Error": "Overtemp" if now.phase is Phase.TRIPPED else None,
            "Operating State": state,
        },
        "Stratum": {
            "Current Pool": miner.kept.pools[0].url.rpartition("://")[2],
            "Current User": miner.kept.pools[0].user,
            "IsPoolConnected": True,
        },
        "StratumConfigs": [{"login": pool.user, "password": "x", "pool": pool.url} for pool in miner.kept.pools],
    }
    return page(document)


def _network(miner: Miner, _now: Snapshot) -> WebReply:
    mac = miner.shown_identity()[0].upper()
    return page({"dhcp": {"address": miner.place.host, "dns": "", "gateway": "", "mac_address": mac}})


def _capabilities(miner: Miner, _now: Snapshot) -> WebReply:
    model = miner.place.model
    return page(
        {
            "Board Serial Numbers": [f"SIMB{miner.place.serial[:10].upper()}{board}" for board in range(model.boards)],
            "Chip Type": "BM1366",
            "Default Hashrate": round(model.nameplate_ths),
            "Max HBs": model.boards,
            "Model": model.name,
            "Performance Estimator": {"Chip Count": model.chips, "Hashes Per Second Per Chip": 894.0},
        }
    )


def _temps(miner: Miner, now: Snapshot) -> WebReply:
    boards = range(miner.place.model.boards)
    return page([{"Data": [round(now.board_c[board] - 10, 1), now.board_c[board]], "Index": board} for board in boards])
