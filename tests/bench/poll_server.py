"""The miners that the poll bench polls: one process, one listener a device on 127.x.y.z:4028, replies made once.

Replies are the simulator's for one miner of the firmware, remembered by request, so that the server costs little. For
the peers it also answers what they alone ask: LuxOS's ``groups`` and ``profiles``, and the digest-protected pages of a
stock Antminer on port 80 where the machine lets us listen there.

Prints ``{"ready": true, "addresses": [..], "miner_id": .., "web": bool}``; answers each line on stdin with the number
of connections so far; ends with stdin.
"""

import argparse
import asyncio
import json
import sys
from dataclasses import replace

from simulator.dialects import build_firmwares
from simulator.dialects.rpc import Dialect
from simulator.miner import Miner, SiteTime
from simulator.orders import OrderLog
from simulator.roster import RosterOptions, build_roster
from simulator.site import allow_files
from sitelink.clock import SystemClock

PORT, WEB_PORT = 4028, 80
REALM = (
    b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm="antMiner Configuration", nonce="a", qop="auth"\r\n'
)


def _rpc_of(firmware: str) -> Dialect:
    rpc = build_firmwares()[firmware].rpc
    assert rpc is not None, f"{firmware} speaks no RPC"
    return rpc


class Replies:
    """The replies of one miner, each made at its first request."""

    def __init__(self, firmware: str, seed: int) -> None:
        clock = SystemClock()
        place = build_roster(RosterOptions("bench", 1, seed, dialects=(firmware,)))[0]
        self.place = replace(place, dead=False, liar=None)
        time = SiteTime(clock)
        self._miner = Miner(self.place, seed, time, OrderLog(1.0))
        self._dialect = _rpc_of(firmware)
        self._made: dict[bytes, bytes] = {}
        self._own = _luxos_pages() if firmware == "luxos" else {}

    def of(self, request: bytes) -> bytes:
        """Return the whole reply to a request, NUL included."""
        reply = self._made.get(request)
        if reply is None:
            reply = self._made[request] = self._make(request) + b"\0"
        return reply

    def _make(self, request: bytes) -> bytes:
        try:
            command = str(json.loads(request.rstrip(b"\n\0")).get("command", ""))
        except ValueError:
            command = ""
        if "+" in command and self._own:
            parts = {name: [self._document(_asking(name), name)] for name in command.split("+")}
            return json.dumps({**parts, "id": 1}, separators=(",", ":")).encode()
        return json.dumps(self._document(request, command), separators=(",", ":")).encode()

    def _document(self, request: bytes, command: str) -> object:
        if command in self._own:
            return self._own[command]
        document = json.loads(self._dialect.answer(self._miner, request, "127.0.0.1"))
        if self._own:
            for pool in document.get("POOLS", ()):
                pool["GROUP"] = 0
        return document


def _asking(command: str) -> bytes:
    return json.dumps({"command": command}).encode()


def _luxos_pages() -> dict[str, object]:
    def page(code: int, name: str, *rows: dict[str, object]) -> dict[str, object]:
        status = {"STATUS": "S", "When": 1, "Code": code, "Msg": name, "Description": "LUXminer"}
        return {"STATUS": [status], name: list(rows), "id": 1}

    profile = {"Profile Name": "default", "Frequency": 525, "Hashrate": 110.0, "Step": "0", "Voltage": 13.8}
    return {
        "groups": page(1, "GROUPS", {"GROUP": 0, "Name": "default", "Quota": 1, "Weight": 1}),
        "profiles": page(2, "PROFILES", profile | {"Watts": 3250, "IsDynamic": False, "IsTuned": True}),
    }


def web_pages(replies: Replies) -> dict[bytes, bytes]:
    """Return a stock Antminer's pages: path -> body."""
    stats = json.loads(replies.of(b'{"command":"stats","new_api":true}')[:-1])
    model = replies.place.model.name
    system = {
        "minertype": model,
        "nettype": "DHCP",
        "macaddr": replies.place.mac.upper(),
        "hostname": "Antminer",
        "ipaddress": "127.0.0.1",
        "firmware_type": "Release",
        "Algorithm": "sha256d",
        "serinum": replies.place.serial,
    }
    summary = {"elapsed": 50000, "rate_5s": 110000.0, "rate_avg": 110000.0, "rate_unit": "GH/s", "status": []}
    conf = {"pools": [], "bitmain-fan-ctrl": False, "bitmain-fan-pwm": "100", "bitmain-work-mode": "0"}
    pages = {
        b"get_system_info": system,
        b"get_network_info": {"nettype": "DHCP", "macaddr": system["macaddr"], "ipaddress": "127.0.0.1"},
        b"get_blink_status": {"blink": False},
        b"get_miner_conf": conf | {"bitmain-freq-level": "100"},
        b"summary": {"STATUS": {"STATUS": "S"}, "INFO": {"type": model}, "SUMMARY": [summary]},
        b"stats": stats,
        b"pools": {"STATUS": {"STATUS": "S"}, "POOLS": []},
    }
    return {b"/cgi-bin/" + name + b".cgi": json.dumps(page).encode() for name, page in pages.items()}


class Rpc(asyncio.Protocol):
    """One RPC connection: one request, one reply, closed by us."""

    connections = 0

    def __init__(self, replies: Replies) -> None:
        self._replies = replies

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Rpc.connections += 1
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._replies.of(data))
        self._transport.close()


class Web(asyncio.Protocol):
    """One HTTP connection, kept alive."""

    def __init__(self, pages: dict[bytes, bytes]) -> None:
        self._pages = pages
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Rpc.connections += 1
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while b"\r\n\r\n" in self._waiting:
            head, self._waiting = self._waiting.split(b"\r\n\r\n", 1)
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        path = head.split(b" ", 2)[1].split(b"?")[0] if head.count(b" ") > 1 else b"/"
        body = self._pages.get(path, b"")
        if b"authorization: digest" not in head.lower():
            start, body = REALM, b""
        else:
            start = b"HTTP/1.1 200 OK\r\n" if body else b"HTTP/1.1 404 Not Found\r\n"
        length = str(len(body)).encode()
        self._transport.write(
            start + b"Content-Type: application/json\r\nContent-Length: " + length + b"\r\n\r\n" + body
        )


async def serve(firmware: str, miners: int, net: str, seed: int, *, web: bool) -> None:
    """Listen, say so, answer stdin until it ends."""
    allow_files(2 * miners + 2048)
    replies = Replies(firmware, seed)
    loop = asyncio.get_running_loop()
    addresses = [f"{net}.{1 + index // 250}.{1 + index % 250}" for index in range(miners)]
    for address in addresses:
        await loop.create_server(lambda: Rpc(replies), address, PORT, backlog=64)
    open_web = False
    if web:
        pages = web_pages(replies)
        try:
            for address in addresses:
                await loop.create_server(lambda: Web(pages), address, WEB_PORT, backlog=64)
            open_web = True
        except PermissionError:
            open_web = False
    ready = {"ready": True, "addresses": addresses, "miner_id": replies.place.miner_id, "web": open_web}
    print(json.dumps(ready), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps({"connections": Rpc.connections}), flush=True)


def main() -> None:
    """Run the server."""
    parser = argparse.ArgumentParser()
    parser.add_argument("firmware")
    parser.add_argument("miners", type=int)
    parser.add_argument("net")
    parser.add_argument("seed", type=int)
    parser.add_argument("--web", action="store_true")
    options = parser.parse_args()
    asyncio.run(serve(options.firmware, options.miners, options.net, options.seed, web=options.web))


if __name__ == "__main__":
    main()
