"""Bitaxe (AxeOS): one document under ``/api/system/info``; it restarts, and cannot be stopped.

Invariant: a restart is the only order it takes.
"""

from simulator.dialects.rpc import Row
from simulator.miner import Miner
from simulator.physics import Phase
from simulator.web import WebFirmware, WebReply, WebRequest, page, plain

_BOOT_S = 8.0


class Bitaxe(WebFirmware):
    """AxeOS 2.4."""

    def serve(self, miner: Miner, request: WebRequest) -> WebReply:
        """Answer the document and the restart."""
        if request.path == "/api/system/restart" and request.method == "POST":
            miner.reboot(boot_s=_BOOT_S)
            return plain("System will restart shortly.")
        if request.path != "/api/system/info":
            return WebReply(404, b"Not Found", "text/plain")
        return page(_info(miner))


def _info(miner: Miner) -> Row:
    now = miner.snapshot()
    first = miner.kept.pools[0]
    host, _, port = first.url.rpartition("://")[2].rpartition(":")
    return {
        "ASICModel": "BM1370",
        "asicCount": 1,
        "autofanspeed": 1,
        "bestDiff": "483k",
        "coreVoltage": 1166,
        "coreVoltageActual": 1172,
        "current": round(now.power_w / 5 * 1000, 2),
        "fanrpm": now.fans_rpm[0],
        "fanspeed": now.fan_percent,
        "frequency": 490,
        "hashRate": round(now.hashrate_ths * 1e3, 3),
        "hostname": "bitaxe",
        "macAddr": miner.shown_identity()[0].upper(),
        "overheat_mode": int(now.phase is Phase.TRIPPED),
        "power": round(now.power_w, 3),
        "sharesAccepted": now.accepted,
        "sharesRejected": now.rejected,
        "smallCoreCount": 2040,
        "stratumPort": int(port),
        "stratumURL": host,
        "stratumUser": first.user,
        "temp": max(now.board_c),
        "uptimeSeconds": now.elapsed_s,
        "version": miner.kept.firmware or "v2.4.5",
        "voltage": 5175,
        "vrTemp": 78,
    }
