"""One host asked who it is: first whether anybody is there, then which firmware, then its names and how it does.

    knock on 4028, 80, 4433 --> silent twice: nobody     one open --> which dialect? --> names, model, state

Invariants: one connection to a host at a time, none tried twice; a port proves nothing, only an answer does; a password
is shown only when the caller gave one for the dialect found, and never one of a list.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.conversation import Conversation
from agent.cgminer.credentials import Credentials
from agent.cgminer.dialects import table_of
from agent.cgminer.dialects.table import Table
from agent.cgminer.framed import FRAMED_PORT
from agent.cgminer.identification import find_dialect
from agent.cgminer.replies import PLAIN, interpret, read_sections
from agent.cgminer.sections import Sections, is_rpc
from agent.cgminer.stream import Limits, Stream
from agent.cgminer.web import GREETING
from agent.cgminer.wires import FRAMED, RPC, WEB, Wires
from agent.discover.shown import Look
from agent.errors import AgentError, NoWay, Transient, Unreachable

CredentialsOf = Callable[[str, str], Credentials | None]
"""(host, dialect) -> what opens it, None to show none."""
Pause = Callable[[], Awaitable[None]]
"""Awaited before each connection."""
_SILENT_PORTS: Final = 2
"""So many ports that answer nothing at all, not even a refusal, and nobody is there."""
_LOG_IN: Final = "--log-in shows it this site's password of its group"
_SET: Final = "ballast-agent credentials set "
_ENTER: Final = f"no password of its group is known: {_SET}"
_NO_MINER: Final = "answers, but as no miner does"
_OTHER_PORT: Final = "give its port with --web-port"
_FACTORY: Final = frozenset(
    Credentials(user, password)
    for user, password in (("root", "root"), ("admin", "admin"), ("super", "super"), ("", "admin"), ("root", ""))
)


class Looker:
    """Looks at hosts, as patiently as ``deadlines`` say."""

    def __init__(
        self, deadlines: Deadlines, port: int, web_port: int, credentials_of: CredentialsOf | None = None
    ) -> None:
        """``credentials_of`` None means that no password is shown to anybody."""
        self._deadlines = deadlines
        self._port = port
        self._web_port = web_port
        self._credentials_of = credentials_of

    @property
    def ports(self) -> tuple[int, ...]:
        """Return the ports knocked on, in their order."""
        return tuple(dict.fromkeys((self._port, self._web_port, FRAMED_PORT)))

    async def look(self, host: str, pause: Pause) -> Look | None:
        """Return what ``host`` shows, None when nobody is there. ``pause`` is awaited before each knock."""
        conversation = self._conversation(host, self._web_port)
        silent = 0
        found: Look | None = None
        try:
            for port in self.ports:
                if not conversation.left(self._wires_of(port)):
                    continue
                await pause()
                try:
                    answers = await self._knock(Address(host, port))
                except NoWay as error:
                    return found or self._not_asked(host, port, error)
                silent += answers is None
                if silent == _SILENT_PORTS:
                    break
                if answers:
                    found = await self._ask(conversation, self._wires_of(port))
                    if found.observation is not None:
                        break
        finally:
            conversation.wires.forget()
        return found

    def _wires_of(self, port: int) -> tuple[str, ...]:
        """Return what may be spoken where ``port`` is open: who answers RPC may be read over its web page."""
        if port == self._port:
            return (RPC, WEB)
        return (WEB,) if port == self._web_port else (FRAMED,)

    async def _knock(self, address: Address) -> bool | None:
        """Return whether somebody listens; None when not even a refusal came. Raises NoWay."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            stream = await Stream.open(address, Limits(address, self._deadlines))
        except NoWay:
            raise
        except Unreachable:
            return None if loop.time() - begun >= self._deadlines.connect_s else False
        except Transient:
            return False
        stream.close()
        return True

    def _not_asked(self, host: str, port: int, error: NoWay) -> Look:
        why = str(error).removeprefix(f"{Address(host, port)}: ").removeprefix("not asked, because ")
        return Look(host, self._port, self._web_port, None, (f"{host}: not asked: {why}",), asked=False)

    async def _ask(self, conversation: "_Conversation", over: tuple[str, ...]) -> Look:
        """Return who answers over some wires."""
        host = conversation.wires.address.host
        try:
            finding = await find_dialect(conversation.tell, conversation.left(over))
        except Transient as error:
            return Look(host, self._port, self._web_port, None, (_once(error),))
        finally:
            conversation.over.update(over)
        if not finding.readable and conversation.speaks_http and conversation.wires.web_port != self._port:
            return await self._ask_page_on_rpc_port(host)
        if not finding.readable:
            return Look(host, self._port, self._web_port, None, conversation.complaints() or (f"{host}: {_NO_MINER}",))
        return await self._read(conversation, finding.dialect)

    async def _ask_page_on_rpc_port(self, host: str) -> Look:
        """Return who answers HTTP where the others answer RPC, whichever number that port has here."""
        conversation = self._conversation(host, self._port)
        try:
            return await self._ask(conversation, (WEB,))
        finally:
            conversation.wires.forget()

    def _conversation(self, host: str, web_port: int) -> "_Conversation":
        return _Conversation(Wires(Address(host, self._port), self._deadlines, web_port, None))

    async def _read(self, conversation: "_Conversation", dialect: str) -> Look:
        """Ask the miner its names, its model and how it does, one command after the other."""
        table, wires = table_of(dialect), conversation.wires
        shows = self._credentials_of
        wires.credentials = credentials = None if shows is None else shows(wires.address.host, dialect)
        for command in (*table.commands.poll, *table.commands.every):
            await conversation.ask(command, table)
        sections = conversation.sections(table)
        observation = interpret(dialect, sections)
        host, web_port = wires.address.host, wires.web_port
        if dialect == PLAIN and not sections.statuses:  # every CGMiner's reply has a status
            return Look(host, self._port, self._web_port, None, (f"{host}: {_NO_MINER}",))
        notes: list[str] = []
        if not observation.identities and conversation.page_is_silent():
            notes.append(f"tells its name on its web page, and none answers at port {web_port}: {_OTHER_PORT}")
        opened_by = ""
        if sections.denied and credentials is None:
            opened_by = _LOG_IN if shows is None else _ENTER + dialect
            if not observation.identities:
                notes.append(f"shows its name only to who logs in; {opened_by}")
        elif sections.denied:
            opened_by = f"correct its group's password, or what its user may do: {_SET}{dialect}"
            notes.append(f"refuses the password of its group, or its user a page; {opened_by}")
        elif credentials in _FACTORY and any(not is_rpc(command) for command in table.commands.every):
            notes.append("warning: answers to a factory password; give it another")
        return Look(host, self._port, web_port, observation, tuple(notes), opened_by=opened_by)


class _Conversation(Conversation):
    """What was asked of one host, over which wires, and what came of it."""

    def __init__(self, wires: Wires) -> None:
        super().__init__(wires)
        self.over: set[str] = set()
        """The wires over which was asked who is there."""

    def left(self, wires: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of ``wires`` over which nobody was asked yet."""
        return tuple(wire for wire in wires if wire not in self.over)

    def sections(self, table: Table) -> Sections:
        """Return all that was answered, to be read by ``table``."""
        sections = read_sections(self.replies.items())
        sections.denied = self.is_closed(table)
        return sections

    def page_is_silent(self) -> bool:
        """Return whether something was asked of a web page and nothing answers where it should stand."""
        return any(
            isinstance(error, Transient) and not is_rpc(command) and not command.startswith("v3:")
            for command, error in self.errors.items()
        )

    @property
    def speaks_http(self) -> bool:
        """Return whether what was asked over RPC was answered by a web server."""
        return any(is_rpc(command) and reply.startswith(GREETING) for command, reply in self.replies.items())

    def complaints(self) -> tuple[str, ...]:
        """Return why the first thing asked got no answer, if it got none."""
        return () if self.replies else tuple(_once(error) for error in self.errors.values())[:1]


def _once(error: AgentError) -> str:
    """Return the error's words for a sweep, which asks nothing twice."""
    return str(error).replace("it is tried again", "it was not asked again")
