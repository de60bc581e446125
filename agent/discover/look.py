"""One host asked who it is: first whether anybody is there, then which firmware, then its names and how it does.

    knock on 4028, 80, 4433 --> silent twice: nobody     one open --> which dialect? --> names, model, state

Invariants: one connection to a host at a time, none tried twice; a port proves nothing, only an answer does; a password
is shown only when the caller gave one for the dialect found, and never one of a list.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.credentials import Credentials
from agent.cgminer.dialects import table_of
from agent.cgminer.framed import FRAMED_PORT
from agent.cgminer.identification import find_dialect
from agent.cgminer.observation import Observation
from agent.cgminer.repair import decode
from agent.cgminer.replies import PLAIN, interpret
from agent.cgminer.sections import Sections, is_rpc
from agent.cgminer.stream import Exchange, Stream
from agent.cgminer.wires import Wires
from agent.errors import AccessDenied, AgentError, Permanent, Transient, Unreachable
from sitelink.types import MinerState

CredentialsOf = Callable[[str, str], Credentials | None]
"""(host, dialect) -> what opens it, None to show none."""
Pause = Callable[[], Awaitable[None]]
"""Awaited before each connection."""
_SILENT_PORTS: Final = 2
"""So many ports that answer nothing at all, not even a refusal, and nobody is there."""
_AUTO: Final = "auto"
_NO_MINER: Final = "answers, but as no miner does"
_FACTORY: Final = frozenset(
    Credentials(user, password)
    for user, password in (("root", "root"), ("admin", "admin"), ("super", "super"), ("", "admin"), ("root", ""))
)


@dataclass(frozen=True, slots=True)
class Look:
    """What one host showed. ``observation`` is None where no miner answers; ``notes`` are for people."""

    host: str
    port: int
    web_port: int
    observation: Observation | None
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return what the miner calls itself, lower-case; none where it says nothing."""
        return () if self.observation is None else self.observation.identities


class Looker:
    """Looks at hosts, as patiently as ``deadlines`` say."""

    def __init__(
        self, deadlines: Deadlines, port: int, web_port: int, credentials_of: CredentialsOf = lambda *_: None
    ) -> None:
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
        silent = 0
        found: Look | None = None
        for port in self.ports:
            await pause()
            answers = await self._knock(Address(host, port))
            if answers is None:
                silent += 1
                if silent == _SILENT_PORTS:
                    break
            elif answers:
                found = await self._ask(host, port)
                if found.observation is not None:
                    return found
        return found

    async def _knock(self, address: Address) -> bool | None:
        """Return whether somebody listens; None when not even a refusal came."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            stream = await Stream.open(address, Exchange(address, self._deadlines))
        except Unreachable:
            return None if loop.time() - begun >= self._deadlines.connect_s else False
        except Transient:
            return False
        stream.close()
        return True

    async def _ask(self, host: str, port: int) -> Look:
        """Return who answers at an open port."""
        wires = Wires(Address(host, self._port), self._deadlines, self._web_port, None)
        try:
            dialect, notes = await self._identified(wires, port)
            if dialect is None:
                return Look(host, self._port, self._web_port, None, notes)
            return await self._read(wires, dialect)
        finally:
            wires.forget()

    async def _identified(self, wires: Wires, port: int) -> tuple[str | None, tuple[str, ...]]:
        """Return the dialect that answers, None and why when no miner does."""
        if port != self._port:
            return None, (f"port {port} is open, and no miner's API was found there",)
        failures: list[AgentError] = []

        async def ask(command: str) -> bytes | None:
            if failures and isinstance(failures[0], Transient):
                return None  # who fell silent is not asked on
            try:
                return await wires.reply(command, table_of(_AUTO))
            except AgentError as error:
                failures.append(error)
                return None

        found = await find_dialect(ask)
        if found.readable:
            return found.dialect, ()
        return None, (_once(failures[0]) if failures else f"{wires.address}: {_NO_MINER}",)

    async def _read(self, wires: Wires, dialect: str) -> Look:
        """Ask the miner its names, its model and how it does, one command after the other."""
        table = table_of(dialect)
        wires.credentials = credentials = self._credentials_of(wires.address.host, dialect)
        sections = Sections()
        notes: list[str] = []
        commands = table.commands
        for command in dict.fromkeys((*commands.identity, *commands.static, *commands.poll)):
            await self._take(wires, dialect, command, sections, notes)
        if interpret(dialect, sections).state is not MinerState.HASHING:
            for command in commands.idle:
                await self._take(wires, dialect, command, sections, notes)
        logs_in = any(not is_rpc(command) for command in (*commands.identity, *commands.static))
        if sections.denied and credentials is None:
            notes.append("shows its name only to who logs in: --log-in shows it this site's password of its group")
        elif credentials in _FACTORY and logs_in and not sections.denied:
            notes.append("warning: answers to a factory password; give it another")
        observation = interpret(dialect, sections)
        if dialect == PLAIN and not sections.statuses:  # every CGMiner's reply has a status
            return Look(wires.address.host, self._port, self._web_port, None, (f"{wires.address}: {_NO_MINER}",))
        return Look(wires.address.host, self._port, self._web_port, observation, tuple(dict.fromkeys(notes)))

    async def _take(self, wires: Wires, dialect: str, command: str, sections: Sections, notes: list[str]) -> None:
        try:
            sections.add(decode(await wires.reply(command, table_of(dialect))), command)
        except AccessDenied:
            sections.denied = True
        except Permanent:
            sections.garbled = True
        except Transient as error:
            notes.append(f"{command}: {_once(error)}")


def _once(error: AgentError) -> str:
    """Return the error's words for a sweep, which asks nothing twice."""
    return str(error).replace("it is tried again", "it was not asked again")
