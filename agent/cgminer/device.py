"""One miner at one address: read it with as few connections as its firmware allows.

Invariants:

* One request at a time: a device's API is one small thread, and its control session is one for everybody.
* What does not change (version, configuration, MAC) is read once an hour, and again after each silence, because another
  device may have taken the address meanwhile.
* Commands are joined into one request until the device shows that it does not take them so; that is remembered for
  the hour too, because one reply cut short looks the same.
* A dialect found out counts until the next silence, and a miner in trouble that shows none is asked again.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from agent.cgminer.client import DEFAULT_DEADLINES, Address, Deadlines, exchange, query
from agent.cgminer.credentials import Credentials
from agent.cgminer.dialects import table_of
from agent.cgminer.identification import find_dialect
from agent.cgminer.observation import Observation
from agent.cgminer.repair import Decoded, decode
from agent.cgminer.replies import PLAIN, interpret
from agent.cgminer.sections import Sections
from agent.cgminer.status import Status
from agent.errors import AgentError, Garbled, Transient
from sitelink.clock import Clock
from sitelink.types import MinerState, Reason

_STATIC_AGE_S: Final = 3600.0
_AUTO: Final = "auto"


class Device:
    """A miner that speaks the CGMiner API. ``dialect`` is one of the inventory's, ``auto`` to find out."""

    def __init__(
        self,
        address: Address,
        dialect: str,
        clock: Clock,
        *,
        miner_id: str = "",
        credentials: Credentials | None = None,
        deadlines: Deadlines = DEFAULT_DEADLINES,
        static_age_s: float = _STATIC_AGE_S,
    ) -> None:
        """``miner_id`` is the name the inventory has for it; ``identity`` answers with it when the device owns it.

        ``credentials`` are who we are to it, None where nothing is known; they may change.
        """
        self.address = address
        self._dialect = dialect
        self._told = dialect != _AUTO
        self._settled = self._told
        self._clock = clock
        self._miner_id = miner_id
        self.credentials = credentials
        self._deadlines = deadlines
        self._static_age_s = static_age_s
        self._static: Sections | None = None
        self._static_read_at = 0.0
        self._alone: set[str] = set()
        self._unknown: set[str] = set()
        self._turn = asyncio.Lock()

    @property
    def dialect(self) -> str:
        """Return the dialect, ``auto`` as long as it was never found out."""
        return self._dialect

    def monotonic(self) -> float:
        """Return the clock's monotonic seconds."""
        return self._clock.monotonic()

    async def observe(self) -> Observation:
        """Read the miner. What it answers but cannot be understood gives state UNKNOWN with a reason.

        Raises:
            Transient: it does not answer.
            Permanent: it answers with too much, or with no CGMiner reply at all while its dialect is ``auto``.
        """
        dialect = await self._find_dialect()
        commands = table_of(dialect).commands
        static = await self._static_sections(commands.static)
        if self._unknown.issuperset(commands.poll):
            self._unknown.clear()  # else nothing at all would be asked, and its silence would go unnoticed
        fresh = Sections(static)
        await self._collect(fresh, commands.poll, joins=commands.joins)
        observation = interpret(dialect, fresh)
        if observation.state is MinerState.HASHING or observation.reason is Reason.ACCESS_DENIED or not commands.idle:
            return observation
        try:
            await self._collect(fresh, commands.idle, joins=commands.joins)
        except AgentError:
            # The reason stays open; the figures already read stand.
            return observation
        return interpret(dialect, fresh)

    async def identity(self) -> str:
        """Read afresh who answers: ``miner_id`` if the device goes by that name, else its first name, lower-case.

        Raises:
            Transient: it does not answer.
            Garbled: it names itself by nothing.
        """
        dialect = await self._find_dialect()
        sections = Sections()
        names: tuple[str, ...] = ()
        for command in table_of(dialect).commands.identity:
            await self._ask_into(sections, command)
            names = interpret(dialect, sections).identities
            if names and (not self._miner_id or self._miner_id.lower() in names):
                break
        if not names:
            raise Garbled(f"{self.address}: names neither MAC nor serial; check that {dialect} firmware runs there")
        return self._miner_id if self._miner_id.lower() in names else names[0]

    async def ask(self, command: str, parameter: str | None = None) -> Mapping[str, Any]:
        """Send one command and return its reply as an object.

        Raises:
            Transient: it does not answer.
            Permanent: the reply is too long, or no object.
        """
        document = (await self._decoded(command, parameter)).document
        if not isinstance(document, dict):
            raise Garbled(f"{self.address}: answers {command} with no object; check what runs there")
        return document

    async def send(self, request: bytes) -> bytes:
        """Send a request as it is and return the reply. Raises as ``query`` does."""
        async with self._turn:
            with self._heeding_silence():
                return await exchange(self.address, request, self._deadlines)

    async def _find_dialect(self) -> str:
        """Return the dialect to read by: the one found out, else what the device shows at this moment."""
        if self._settled:
            return self._dialect
        found = await find_dialect(self._reply)
        if not found.readable:
            raise Garbled(f"{self.address}: no CGMiner API answers there; check the address and port")
        self._static = None
        if found.certain:
            self._dialect, self._settled = found.dialect, True
        return self._dialect if found.dialect == PLAIN else found.dialect

    async def _static_sections(self, commands: Sequence[str]) -> Sections | None:
        now = self._clock.monotonic()
        if self._static is not None and now - self._static_read_at < self._static_age_s:
            return self._static
        self._unknown.clear()
        self._alone.clear()
        sections = Sections()
        for command in commands:
            await self._ask_into(sections, command)
        self._static, self._static_read_at = sections, now
        return sections

    async def _collect(self, sections: Sections, commands: Sequence[str], *, joins: bool) -> None:
        """Ask ``commands``, joined as far as the device takes it, each other one alone."""
        together = [command for command in commands if joins and command not in self._alone]
        left = [command for command in commands if command not in together]
        if len(together) > 1:
            left += await self._joined(sections, together)
        else:
            left = list(commands)
        for command in left:
            await self._ask_into(sections, command)

    async def _joined(self, sections: Sections, commands: Sequence[str]) -> list[str]:
        """Ask ``commands`` in one request; return those that were not answered and must be asked alone."""
        try:
            decoded = await self._decoded("+".join(commands))
        except Garbled:
            self._alone.update(commands)
            return list(commands)
        document = decoded.document
        answered = [command for command in commands if isinstance(document, dict) and command in document]
        if answered:
            sections.add(decoded)
        missing = [command for command in commands if command not in answered]
        self._alone.update(missing)
        return missing

    async def _ask_into(self, sections: Sections, command: str) -> None:
        if command in self._unknown:
            return
        try:
            decoded = await self._decoded(command)
        except Garbled:
            sections.garbled = True
            return
        if Status.of(decoded.document).unknown_command:
            self._unknown.add(command)
        sections.add(decoded)

    async def _decoded(self, command: str, parameter: str | None = None) -> Decoded:
        return decode(await self._reply(command, parameter))

    async def _reply(self, command: str, parameter: str | None = None) -> bytes:
        async with self._turn:
            with self._heeding_silence():
                return await query(self.address, command, parameter, self._deadlines)

    @contextmanager
    def _heeding_silence(self) -> Iterator[None]:
        """Forget what was found out about the device when it falls silent."""
        try:
            yield
        except Transient:
            self._static = None
            self._settled = self._told
            raise
