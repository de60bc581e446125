"""Goldshell: pages under ``/mcb``, numbers with their units in one text.

Invariant: it reads; it tells no power and takes no order.
"""

from simulator.dialects.rpc import Row
from simulator.miner import Miner, Snapshot
from simulator.web import WebFirmware, WebReply, WebRequest, page


class Goldshell(WebFirmware):
    """The firmware of the CK and KD series."""

    def serve(self, miner: Miner, request: WebRequest) -> WebReply:
        """Answer one page."""
        read = {
            "/mcb/cgminer": _devices,
            "/mcb/pools": _pools,
            "/mcb/status": _status,
            "/mcb/setting": _setting,
        }
        found = read.get(request.path)
        return WebReply(404, b"Not Found", "text/plain") if found is None else page(found(miner, miner.snapshot()))


def _devices(miner: Miner, now: Snapshot) -> Row:
    boards = miner.place.model.boards
    fans = " / ".join(f"{rpm} rpm" for rpm in now.fans_rpm)
    rows = [
        {
            "id": board,
            "minerstatus": 0,
            "hashrate": round(now.board_ths[board] * 1e6, 3),
            "av_hashrate": round(now.average_ths * 1e6 / boards, 3),
            "accepted": now.accepted // boards,
            "rejected": now.rejected // boards,
            "hwerrors": 7,
            "hwerr_ration": 0.0021,
            "nonces": now.accepted,
            "time": now.elapsed_s,
            "powerplan": 0,
            "fanspeed": fans,
            "temp": f"{now.chip_c[board]} \u00b0C / {now.board_c[board]} \u00b0C",
        }
        for board in range(boards)
    ]
    return {"status": 2, "data": rows}


def _pools(miner: Miner, _now: Snapshot) -> list[Row]:
    return [
        {
            "url": pool.url,
            "legal": True,
            "active": number == 0,
            "dragid": number,
            "user": pool.user,
            "pool-priority": number,
            "pass": "x",
        }
        for number, pool in enumerate(miner.kept.pools)
    ]


def _status(miner: Miner, _now: Snapshot) -> Row:
    return {
        "model": miner.place.model.name,
        "hardware": "V1.0",
        "firmware": miner.kept.firmware or "2.2.3",
        "status": 0,
    }


def _setting(miner: Miner, _now: Snapshot) -> Row:
    return {"name": miner.shown_identity()[0].upper(), "version": "2.2.3", "ledcontrol": miner.kept.led}
