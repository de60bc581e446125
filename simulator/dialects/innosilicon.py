"""Innosilicon: an sgminer RPC that calls itself innominer, and pages under ``/api`` behind a token.

Invariant: it reads; neither protocol stops the miner.
"""

from simulator.access import bearer, give_token, holds_token, knows
from simulator.dialects.rpc import Dialect, Row, Section, pool_rows
from simulator.miner import Miner, Snapshot
from simulator.web import WebFirmware, WebReply, WebRequest, page

_TOKEN_S = 3600.0


class Innosilicon(Dialect):
    """The RPC."""

    name = "innosilicon"
    description = "innominer t3-1.1.0"
    joins = frozenset({"summary", "pools", "devs"})

    def __init__(self) -> None:
        self.tables = {"summary": _summary, "pools": _pools, "devs": _devs, "version": _version, "stats": _stats}


class InnosiliconWeb(WebFirmware):
    """The pages."""

    def serve(self, miner: Miner, request: WebRequest) -> WebReply:
        """Answer ``/api/auth`` and, under its token, what the miner does."""
        fields = request.fields or request.form
        if request.path == "/api/auth":
            if not knows(miner, str(fields.get("username", "")), str(fields.get("password", ""))):
                return page({"success": False, "message": "Invalid username or password"}, 401)
            return page({"success": True, "jwt": give_token(miner, "token")})
        if not holds_token(miner, "token", bearer(request), _TOKEN_S):
            return page({"success": False, "message": "Unauthorized"}, 401)
        now = miner.snapshot()
        mac = miner.shown_identity()[0]
        pages: dict[str, Row] = {
            "/api/overview": {"type": miner.place.model.name, "version": {"ethaddr": mac, "hwver": "g19"}},
            "/api/summary": {"DEVS": list(_devs(miner, now).rows), "POOLS": list(pool_rows(miner, now))},
            "/api/getAll": {
                "all": {
                    "total_hash": {"Hash Rate H": now.hashrate_ths * 1e12},
                    "power": round(now.power_w),
                    "fansSpeed": now.fan_percent,
                    "temp": max(now.board_c),
                }
            },
        }
        found = pages.get(request.path)
        return (
            page({"success": False, "message": "Not found"}, 404) if found is None else page({"success": True} | found)
        )


def _summary(_miner: Miner, now: Snapshot) -> Section:
    rate = round(now.hashrate_ths * 1e6, 2)
    row: Row = {
        "Elapsed": now.elapsed_s,
        "MHS av": round(now.average_ths * 1e6, 2),
        **dict.fromkeys(("MHS 5s", "MHS 1m", "MHS 5m", "MHS 15m"), rate),
        "Found Blocks": 0,
        "Accepted": now.accepted,
        "Rejected": now.rejected,
        "Hardware Errors": 806,
        "Stale": 0,
        "Best Share": 15840,
        "Last getwork": now.when,
    }
    return Section(11, "Summary", "SUMMARY", (row,))


def _pools(miner: Miner, now: Snapshot) -> Section:
    rows = pool_rows(miner, now)
    return Section(7, f"{len(rows)} Pool(s)", "POOLS", rows)


def _devs(miner: Miner, now: Snapshot) -> Section:
    rows = tuple(
        {
            "ASC": board,
            "Name": "HBS",
            "ID": board,
            "Enabled": "Y",
            "Status": "Alive",
            "Temperature": now.board_c[board],
            "MHS av": round(now.average_ths * 1e6 / len(now.board_c), 2),
            "MHS 5s": round(now.board_ths[board] * 1e6, 2),
            "Accepted": now.accepted // len(now.board_c),
            "Rejected": now.rejected // len(now.board_c),
            "Fan duty": now.fan_percent,
        }
        for board in range(miner.place.model.boards)
    )
    return Section(9, f"{len(rows)} ASC(s)", "DEVS", rows)


def _stats(miner: Miner, now: Snapshot) -> Section:
    rows = tuple(
        {
            "STATS": board,
            "Num chips": miner.place.model.chips,
            "Num active chips": miner.place.model.chips,
            "Fan duty": now.fan_percent,
            "MHS av": round(now.average_ths * 1e6 / len(now.board_c), 2),
            "Temp": now.board_c[board],
        }
        for board in range(miner.place.model.boards)
    )
    return Section(70, "CGMiner stats", "STATS", rows)


def _version(_miner: Miner, _now: Snapshot) -> Section:
    return Section(22, "SGMiner versions", "VERSION", ({"SGMiner": "4.4.2", "API": "3.1"},))
