"""What the control tests of the web firmwares share: a fake miner's two ports, its troubles, and orders carried out.

A fake keeps a state, answers from it on its RPC and its web port, and writes down what it was told. ``trouble`` spoils
the answers to orders only, so that a test shows what an order meets, not what a poll meets.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from agent.cgminer.client import Deadlines
from agent.cgminer.control.carry_out import carry_out
from agent.cgminer.control.driver import Driver, Result, Wanted
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from sitelink.clock import SystemClock
from sitelink.types import Verb
from tests.contract.fake_miner import FakeMiner, serving
from tests.contract.fake_web import Answer, Asked, FakeWeb, page

SHORT = Deadlines(connect_s=0.5, first_byte_s=0.5, total_s=1.0)
HASTY = Deadlines(connect_s=0.5, first_byte_s=0.1, total_s=0.2)
POOLS = [
    {"url": "stratum+tcp://new.example:3333", "user": "site.1", "password": "p1"},
    {"url": "stratum+tcp://spare.example:443", "user": "site.1", "password": "p2"},
]
SECRET = "n3w-secret"
IMAGE = b"IMAGE version=9.9.9"
PARAMETERS = {
    Verb.LIMIT: {"power_w": "2800"},
    Verb.POOLS: {"pools": json.dumps(POOLS)},
    Verb.BLINK: {"on": "true"},
    Verb.FIRMWARE: {"file": "image.bin", "sha256": "", "version": "9.9.9"},
}


def wanted(verb: Verb, **parameters: str) -> Wanted:
    """An order, with the parameters that its verb needs unless told others."""
    secret = SECRET if verb is Verb.PASSWORD else ""
    return Wanted(verb, parameters or PARAMETERS.get(verb, {}), secret, IMAGE if verb is Verb.FIRMWARE else b"")


@dataclass
class FakeFirmware:
    """One miner. ``told`` is every order it took; ``late_looks`` is after how many looks an order takes effect."""

    user: str = "root"
    password: str = "old"
    stopped: bool = False
    lamp: bool = False
    uptime_s: int = 5_000
    power_w: int = 3_000
    effect: bool = True
    late_looks: int = 0
    trouble: Answer | None = None
    told: list[str] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    waiting: list[list[Any]] = field(default_factory=list)

    def take(self, what: str, effect: Callable[[], None]) -> None:
        """Write an order down; it takes effect at once, later, or never."""
        self.told.append(what)
        if self.effect and self.late_looks:
            self.waiting.append([self.late_looks, effect])
        elif self.effect:
            effect()

    def look(self) -> None:
        """Let what is on its way come one look nearer."""
        for entry in list(self.waiting):
            entry[0] -= 1
            if entry[0] <= 0:
                self.waiting.remove(entry)
                entry[1]()

    def reboot(self) -> None:
        """Start anew."""
        self.uptime_s = 5

    def answer(self, asked: Asked) -> Awaitable[bytes] | bytes:
        """Answer one web request."""
        self.asked.append(asked)
        self.look()
        if self.trouble is not None and self.is_order(asked):
            return self.trouble(asked)
        return self.web(asked)

    def is_order(self, asked: Asked) -> bool:
        """Whether a request changes something, or fetches logs."""
        return asked.method != "GET"

    def web(self, asked: Asked) -> bytes:
        """Answer a web request from the state."""
        return page({}, "404 Not Found")

    def rpc(self) -> dict[str, Any]:
        """Answers of the RPC port, by command."""
        return {}


@asynccontextmanager
async def at_work(
    miner: FakeFirmware, dialect: str, miner_id: str, password: str | None = None, deadlines: Deadlines = SHORT
) -> AsyncIterator[Device]:
    """Serve ``miner`` on both its ports and give the device that reads it, with its password unless told another."""
    web = FakeWeb(miner.answer)
    rpc = FakeMiner(miner.rpc())
    credentials = Credentials(miner.user, miner.password if password is None else password)
    async with web.serving() as page_at, serving(rpc.speak) as api_at:
        device = Device(
            api_at,
            dialect,
            SystemClock(),
            miner_id=miner_id,
            web_port=page_at.port,
            credentials=credentials,
            deadlines=deadlines,
        )
        try:
            yield device
        finally:
            device.credentials = None  # lets go of the connection that is kept


async def order(
    driver: Driver, device: Device, miner_id: str, asked: Wanted, *, deadline_s: float = 3.0, kept: str = ""
) -> tuple[Result, list[str]]:
    """Carry an order out; return how it ended, and what was kept before it was sent."""
    texts: list[str] = []

    async def keep(former: str) -> None:
        texts.append(former)

    result = await carry_out(driver, device, miner_id, asked, keep=keep, deadline_s=deadline_s, kept=kept, look_s=0.02)
    return result, texts


def status(code: int, text: str, document: object = None) -> Answer:
    """Answer with a status of trouble."""
    return lambda asked: page({} if document is None else document, f"{code} {text}")


def a_web_page(asked: Asked) -> bytes:
    """Answer 200 with a login page where JSON belongs."""
    html = b"<html><head><title>Login</title></head><body>Please log in</body></html>"
    return page(html, "200 OK", "Content-Type: text/html")


def hang_up(asked: Asked) -> bytes:
    """Close the connection with no answer."""
    raise ConnectionResetError


def garbage(asked: Asked) -> bytes:
    """Answer with something that is not HTTP."""
    return b"\x16\x03\x01garbage\r\n\r\n"


async def black_hole(asked: Asked) -> bytes:
    """Answer nothing, for longer than any patience."""
    await asyncio.sleep(3_600)
    return b""


async def drip(asked: Asked) -> bytes:
    """Answer with a head that promises far more than comes; the connection stays open."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{"


TROUBLES: dict[str, Answer] = {
    "hangs_up": hang_up,
    "black_hole": black_hole,
    "drip": drip,
    "garbage": garbage,
    "web_page": a_web_page,
    "busy": status(409, "Conflict"),
    "server_error": status(500, "Internal Server Error", {"err": "not now"}),
    "denied": status(403, "Forbidden"),
    "unknown": status(404, "Not Found"),
    "refused": status(400, "Bad Request", {"message": "no such thing"}),
}
"""What an order may meet, by name."""
