"""Which firmware answers at an address: telling commands are asked, wire by wire, until a reply shows it.

    RPC: version, devdetails, summary, stats --> framed: get.device.info --> web: one page after the other
    a Braiins or a VNish over RPC: is its HTTP API there?   HTTP on the RPC port: the one page of who speaks it there

Invariants: a firmware shows itself by what only it says; an open port shows nothing. Plain CGMiner is what is left when
nothing did. Neither is certain while a miner answers with failures: in trouble it says too little of itself. Each
command is asked once, and nothing more on a wire that is silent: at most three connections are made in vain.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Final, NamedTuple

from agent.cgminer.dialects import table_of
from agent.cgminer.dialects.table import Table
from agent.cgminer.replies import PLAIN, identify, read_sections
from agent.cgminer.web import GREETING
from agent.cgminer.wires import FRAMED, RPC, WEB
from agent.errors import Permanent, TimedOut, Transient

TELLING_COMMANDS: Final = ("version", "devdetails", "summary")
_KIN: Final = ("stats",)
"""Tells those that grew out of the Antminer's firmware, or of CGMiner, from it."""
_GROWN_FROM: Final = ("antminer", PLAIN)
_FRAMED: Final = "v3:get.device.info"
_REST: Final = "/api/v1/version"
_VNISH_INFO: Final = "/api/v1/info"
_VNISH: Final = b"vnish"
_PAGES: Final = {
    _VNISH_INFO: "vnish",
    _REST: "braiins-rest",
    "/api/system/info": "bitaxe",
    "/api/info": "obelisk",
    "/mcb/status": "goldshell",
    "/cgi-bin/get_system_info.cgi": "antminer",
    "/cgi-bin/get_miner_status.cgi": "antminer-web",
    "/cgi-bin/stats.cgi": "elphapex",
    "/summary": "epic",
}
"""Each page with the dialect whose port it is asked on; the answer alone decides."""
_ON_RPC_PORT: Final = "/summary"
ALL_WIRES: Final = (RPC, FRAMED, WEB)

Ask = Callable[[str], Awaitable[bytes | None]]
"""Asks one command; None is a command that got no reply."""


class Finding(NamedTuple):
    """The dialect to read a device by. Only a ``certain`` one is worth keeping; none is ``readable`` at no miner."""

    dialect: str
    certain: bool
    readable: bool


def telling_table(command: str) -> Table:
    """Return the table to ask a telling command by: it names the port of the page."""
    return table_of(_PAGES.get(command, PLAIN))


async def find_dialect(ask: Ask, wires: Collection[str] = ALL_WIRES) -> Finding:
    """Return what the replies to ``ask`` show, over ``wires`` alone.

    Raises:
        Transient: no wire answers at all; the first one's error.
    """
    heard = _Heard(ask)
    if RPC in wires:
        await heard.over_rpc()
    if WEB in wires:
        await heard.beside_rpc()
    if not heard.readable:
        if WEB in wires and (heard.speaks_http or heard.waits):
            await heard.hear(_ON_RPC_PORT)
        if FRAMED in wires and not heard.readable:
            await heard.hear(_FRAMED)
        if WEB in wires and not heard.readable:
            await heard.over_web()
    if not heard.replies and heard.silences and not heard.somebody:
        raise heard.silences[0]
    return heard.finding()


class _Heard:
    """What was heard so far."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.replies: dict[str, bytes] = {}
        self.silences: list[Transient] = []
        self.somebody = False
        """Whether somebody answered, if only to refuse."""

    async def hear(self, command: str) -> bool:
        """Ask one command; return whether it is worth asking on over this wire."""
        try:
            reply = await self._ask(command)
        except Transient as error:
            self.silences.append(error.with_traceback(None))  # its frames would keep the device alive
            return False
        except Permanent:
            self.somebody = True
            return True
        if reply is not None:
            self.replies[command] = reply
        return reply is not None

    async def over_rpc(self) -> None:
        for command in (*TELLING_COMMANDS, *_KIN):
            if not await self.hear(command) and not self.replies:
                return
            if self.speaks_http or (self.replies and self.dialect not in _GROWN_FROM):
                return

    async def beside_rpc(self) -> None:
        """Ask who answers RPC, but is read over HTTP, whether that is there."""
        if self.dialect == "braiins":
            await self.hear(_REST)
        elif any(_VNISH in reply.lower() for reply in self.replies.values()):
            await self.hear(_VNISH_INFO)

    async def over_web(self) -> None:
        for page in _PAGES:
            if page not in self.replies and not await self.hear(page):
                return
            if self.dialect != PLAIN:
                return

    @property
    def waits(self) -> bool:
        """Return whether somebody took an RPC request and said nothing, as HTTP does that waits for the rest of it."""
        return any(isinstance(error, TimedOut) for error in self.silences)

    @property
    def speaks_http(self) -> bool:
        return any(reply.startswith(GREETING) for reply in self.replies.values())

    @property
    def dialect(self) -> str:
        return identify(self.replies)

    @property
    def readable(self) -> bool:
        sections = read_sections(self.replies.items())
        return bool(sections or sections.statuses)

    def finding(self) -> Finding:
        sections = read_sections(self.replies.items())
        whole = bool(sections) and not sections.garbled and self.replies.keys() >= {*TELLING_COMMANDS}
        failed = any(status.failed for status in sections.statuses)
        dialect = self.dialect
        # What calls itself so is sure to be it. Who is told apart by a further reply has to have given that one.
        certain = not failed and (whole if dialect in _GROWN_FROM else True)
        return Finding(dialect, certain, readable=self.readable and (dialect != PLAIN or self._is_rpc()))

    def _is_rpc(self) -> bool:
        return any(not command.startswith("/") for command in self.replies)
