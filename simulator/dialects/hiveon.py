"""Hiveon on an Antminer: BMMiner's replies with power by chain, and the comma between rows of ``stats`` missing.

Invariant: it reads; nothing here changes anything.
"""

from simulator.access import check_digest
from simulator.dialects.antminer import Antminer, stats
from simulator.dialects.antminer_web import REALM
from simulator.dialects.rpc import Row, Section
from simulator.faults import spoil
from simulator.miner import Miner, Snapshot
from simulator.web import WebFirmware, WebReply, WebRequest, page

_BUILD = "2.0.0 rwglr"
_COMPILED = "Tue Nov 20 10:12:30 UTC 2019"


class Hiveon(Antminer):
    """The RPC."""

    name = "hiveon"
    description = "bmminer 1.0.0"

    def __init__(self) -> None:
        super().__init__()
        self.tables = {**self.tables, "stats": _stats, "version": _version}

    def answer(self, miner: Miner, data: bytes, client: str) -> bytes:
        """Return the reply as the firmware spells it: ``}{`` between the rows of ``stats``."""
        document = super().answer(miner, data, client)
        return spoil("missing_comma_between_rows", document) if b'"STATS":[' in document else document


class HiveonWeb(WebFirmware):
    """The one page that tells who the miner is."""

    def serve(self, miner: Miner, request: WebRequest) -> WebReply:
        """Answer ``get_system_info.cgi`` under the password."""
        denied = check_digest(miner, request, REALM)
        if denied is not None:
            return denied
        if request.path != "/cgi-bin/get_system_info.cgi":
            return WebReply(404, b"<h1>404 - Not Found</h1>", "text/html")
        document: Row = {
            "minertype": miner.place.model.name,
            "nettype": "DHCP",
            "netdevice": "eth0",
            "macaddr": miner.shown_identity()[0].upper(),
            "hostname": "antMiner",
            "ipaddress": miner.place.host,
        }
        return page(document)


def _stats(miner: Miner, now: Snapshot) -> Section:
    section = stats(miner, now)
    head, row = section.rows
    boards = miner.place.model.boards
    watts = {f"chain_power{board + 1}": round(now.power_w / boards, 2) for board in range(boards)}
    told = {"BMMiner": _BUILD, "CompileTime": _COMPILED}
    power = {**watts, "chain_power": f"{now.power_w:.2f} (AB)"}
    return Section(70, "BMMiner stats", "STATS", (head | told, row | power))


def _version(miner: Miner, _now: Snapshot) -> Section:
    kind = miner.place.model.name
    row: Row = {"BMMiner": _BUILD, "API": "3.1", "Miner": "30.0.1.3", "CompileTime": _COMPILED, "Type": kind}
    return Section(22, "BMMiner versions", "VERSION", (row,))
