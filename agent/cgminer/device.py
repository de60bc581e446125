"""One miner at one address: read it with as few connections as its firmware allows.

Invariants:

* A look ends within one exchange's whole deadline, whichever wires and commands it takes, and so does the asking of a
  name. What was read by then counts where it truly tells the state.
* One request at a time, whichever wire it takes: a device's API is one small thread, and its control session is one for
  everybody. Its turn is waited for under a deadline, and not at all while a transfer holds it (``turn``).
* Looks may cross each other, request by request, so that no order waits for a whole look; what a look goes by (its
  table, the wires that were silent) is its own.
* What does not change (version, configuration, MAC) is read once an hour, behind what does (``hourly``), and again
  after each silence, because another device may have taken the address meanwhile.
* How it takes commands (``collecting``, ``wires``) is remembered for the hour too, because one reply cut short looks
  the same.
* A dialect found out counts until the next silence, and a miner in trouble that shows none is asked again.
* Only silence on the wire that the poll uses is the miner's silence; a closed web page beside it says nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final

from agent.cgminer.client import DEFAULT_DEADLINES, Address, Deadlines, exchange
from agent.cgminer.collecting import Collector
from agent.cgminer.credentials import Credentials
from agent.cgminer.dialects import table_of
from agent.cgminer.dialects.table import Table
from agent.cgminer.hourly import Hourly
from agent.cgminer.identification import find_dialect, telling_table
from agent.cgminer.look import Look
from agent.cgminer.observation import Observation
from agent.cgminer.repair import Decoded, decode
from agent.cgminer.replies import PLAIN, interpret
from agent.cgminer.sections import Sections
from agent.cgminer.stream import Limits, Stream
from agent.cgminer.turn import Turn
from agent.cgminer.web import WebReply
from agent.cgminer.whose import nameless
from agent.cgminer.wires import Wires, is_telling, wire_of
from agent.errors import AgentError, Garbled, Transient
from sitelink.clock import Clock
from sitelink.miners import AUTO, WEB_PORT
from sitelink.types import MinerState, Reason

_STATIC_AGE_S: Final = 3600.0
_STATIC_RETRY_S: Final = 300.0
"""How soon static data is read again where a wire beside the poll's was silent, and so left out its part."""


class Device:
    """A miner. ``dialect`` is one of the inventory's, ``auto`` to find out."""

    def __init__(
        self,
        address: Address,
        dialect: str,
        clock: Clock,
        *,
        miner_id: str = "",
        web_port: int = WEB_PORT,
        credentials: Credentials | None = None,
        deadlines: Deadlines = DEFAULT_DEADLINES,
        static_age_s: float = _STATIC_AGE_S,
    ) -> None:
        """``miner_id`` is the name the inventory has for it; ``identity`` answers with it when the device owns it.

        ``web_port`` 80 means the port of the firmware's own web page. ``credentials`` are who we are to it, None where
        nothing is known; they may change.
        """
        self._wires = wires = Wires(address, deadlines, web_port, credentials)
        self._dialect = dialect
        self._table = table_of(dialect)
        self._told = dialect != AUTO
        self._settled = self._told
        self._clock = clock
        self._miner_id = miner_id
        self._deadlines = deadlines
        self._static_age_s = static_age_s
        self._static: Hourly | None = None
        self._named_by = Sections()
        self._collector = Collector()
        self._turn = Turn(lambda: wires.address, deadlines.total_s)  # no cycle: a device let go closes its sockets

    @property
    def address(self) -> Address:
        """Where its API listens; may be set when the miner has moved."""
        return self._wires.address

    @address.setter
    def address(self, address: Address) -> None:
        self._wires.address = address

    @property
    def credentials(self) -> Credentials | None:
        """Who we are to it; may be set when the password has changed."""
        return self._wires.credentials

    @credentials.setter
    def credentials(self, credentials: Credentials | None) -> None:
        self._wires.credentials = credentials
        self._collector.forgive()

    @property
    def dialect(self) -> str:
        """Return the dialect, ``auto`` as long as it was never found out."""
        return self._dialect

    @property
    def deadlines(self) -> Deadlines:
        """Return how patiently it is read."""
        return self._deadlines

    @property
    def named_by(self) -> Sections:
        """Return what ``identity`` was told last, for whoever needs no more than that; empty before."""
        return self._named_by

    def monotonic(self) -> float:
        """Return the clock's monotonic seconds."""
        return self._clock.monotonic()

    def close(self) -> None:
        """Let go of the connection that is kept for the next request, if one is."""
        self._wires.forget()

    async def observe(self, *, glance: bool = False) -> Observation:
        """Read the miner. What it answers but cannot be understood gives state UNKNOWN with a reason.

        A ``glance`` asks only whether it hashes and what it draws, not why it stands still.

        Raises:
            Transient: it does not answer.
            Permanent: it answers with too much, or with no miner's reply at all while its dialect is ``auto``.
        """
        look = self._begun(glance=glance)
        try:
            return await self._observed(look)
        except TimeoutError:
            told = look.tells()
            if told is None:
                raise self._cut_short(look, "no whole reading") from None
            return told

    async def identity(self) -> str:
        """Read afresh who answers: ``miner_id`` if the device goes by that name, else its first name, lower-case.

        Raises:
            Transient: it does not answer, or says that it cannot now.
            AccessDenied: it tells its name only to who has its password.
            Garbled: it names itself by nothing, or by nothing that can be compared with ``miner_id``; Nameless when
                nothing is wrong but that its firmware has no name to tell.
        """
        look = self._begun()
        try:
            return await self._named(look)
        except TimeoutError:
            raise self._cut_short(look, "no name") from None

    def _begun(self, *, glance: bool = False) -> Look:
        return Look(self._table, asyncio.get_running_loop().time() + self._deadlines.total_s, glance)

    async def _observed(self, look: Look) -> Observation:
        await self._find_dialect(look)
        ask, commands = partial(self._reply, look), look.table.commands
        static = self._hourly(look.table)
        look.sections = fresh = Sections(static.sections)
        self._collector.wake(commands)
        seen = await self._polled(look, fresh, static.sections)
        if look.glance:
            return seen
        if seen.state is not MinerState.HASHING and seen.reason is not Reason.ACCESS_DENIED and commands.idle:
            try:
                await self._collector.collect(ask, fresh, commands, commands.idle)
            except Transient:
                # The reason stays open; the figures already read stand.
                return seen
            except AgentError:
                pass
        elif static.is_whole:
            return seen
        await self._read_static(look, static)
        return interpret(look.dialect, fresh, look.shown_s)

    async def _polled(self, look: Look, fresh: Sections, static: Sections) -> Observation:
        """Ask what the poll asks, of a device that takes one command at a time not all of it while it hashes."""
        ask, commands = partial(self._reply, look), look.table.commands
        look.asked_s = 0.0
        now, later = (commands.glance, ()) if look.glance else self._collector.now(commands)
        await self._collector.collect(ask, fresh, commands, now)
        seen = interpret(look.dialect, fresh, (look.asked_s, self._clock.monotonic()), glance=look.glance)
        if later and seen.state is not MinerState.HASHING:
            await self._collector.collect(ask, fresh, commands, later)
            seen = interpret(look.dialect, fresh, (look.asked_s, self._clock.monotonic()))
        look.shown_s = seen.shown_s
        if not later and not look.glance:
            self._collector.learn(static, seen)
        return seen

    async def _named(self, look: Look) -> str:
        await self._find_dialect(look)
        self._named_by = sections = Sections()
        seen = Observation(look.dialect)
        ask, commands = partial(self._reply, look), look.table.commands
        for command in commands.identity:
            await self._collector.ask_into(ask, sections, commands, command)
            seen = interpret(look.dialect, sections)
            if seen.answers_to(self._miner_id) or (not self._miner_id and seen.identities):
                break
        if seen.answers_to(self._miner_id):
            return self._miner_id
        undecided = bool(self._miner_id) and seen.answers_to(self._miner_id) is None
        if not seen.identities or (undecided and (sections.denied or not seen.tells_only_board(self._miner_id))):
            if look.silent:
                await self._reply(look, commands.poll[0])  # is it the page alone that is silent, or the miner?
            raise nameless(self.address, seen, sections)
        return seen.identities[0]

    def _cut_short(self, look: Look, lacks: str) -> Transient:
        if look.asked:
            self._forget()
        return look.cut_short(self.address, lacks, self._deadlines.total_s)

    async def ask(self, command: str, parameter: str | None = None) -> Mapping[str, Any]:
        """Send one command and return its reply as an object.

        Raises:
            Transient: it does not answer.
            Permanent: the reply is too long, or no object.
        """
        return self._object_in(await self._decoded(command, parameter), command)

    async def send(self, request: bytes) -> bytes:
        """Send a request as it is and return the reply. Raises as ``query`` does."""
        async with self._turn:
            with self._heeding_silence():
                return await exchange(self._wires.address, request, self._deadlines)

    async def call(
        self,
        method: str,
        target: str,
        *,
        json: object = None,
        form: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        deadlines: Deadlines | None = None,
    ) -> WebReply:
        """Send one HTTP request to the web page, as us where it asks who we are, and return the reply.

        ``deadlines`` are for what takes longer than a reading: a firmware image, a log; nobody waits for what takes
        minutes (``Deadlines.transfer``). Raises as ``WebClient.request`` does: Transient, or AccessDenied, TooLarge,
        Garbled.
        """
        async with self._turn:
            if deadlines is not None and deadlines.transfer:
                self._turn.transfer()
            with self._heeding_silence("/"):
                return await self._wires.call(
                    self._table, method, target, json=json, form=form, body=body, headers=headers, deadlines=deadlines
                )

    async def tried(self, as_whom: Credentials, method: str, target: str, json: object = None) -> WebReply:
        """Send one request as somebody else, on a connection of its own; who we are stays. Raises as ``call``."""
        async with self._turn:
            with self._heeding_silence("/"):
                return await self._wires.tried(self._table, as_whom, method, target, json)

    async def framed(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send one document to Whatsminer's framed API and return the reply as an object.

        Raises:
            Transient: it does not answer.
            Permanent: the reply is too long, or no object.
        """
        async with self._turn:
            with self._heeding_silence("v3:"):
                reply = await self._wires.framed(document)
        return self._object_in(decode(reply), document.get("cmd"))

    def _object_in(self, decoded: Decoded, asked: object) -> Mapping[str, Any]:
        if not isinstance(decoded.document, dict):
            raise Garbled(f"{self.address}: answers {asked} with no object; check what runs there")
        return decoded.document

    @asynccontextmanager
    async def connection(self, deadlines: Deadlines, *, framed: bool = False) -> AsyncIterator[tuple[Stream, Limits]]:
        """Hold one connection to its RPC, for what takes more than a request and its reply; nobody else asks meanwhile.

        ``framed`` goes to Whatsminer's framed API instead.

        Raises:
            Transient: it does not answer in time.
        """
        async with self._turn:
            if deadlines.transfer:
                self._turn.transfer()
            with self._heeding_silence("v3:" if framed else ""):
                address = self._wires.framed_address if framed else self.address
                limits = Limits(address, deadlines)
                stream = await Stream.open(address, limits)
                try:
                    yield stream, limits
                finally:
                    stream.close()

    async def _find_dialect(self, look: Look) -> None:
        """Have ``look`` read by the dialect found out, else by what the device shows at this moment."""
        if self._settled:
            look.dialect = self._dialect
            return
        found = await find_dialect(partial(self._tell, look))
        self._table = look.table = table_of(found.dialect)
        if not found.readable:
            raise Garbled(f"{self.address}: no miner's API answers there; check the address and port")
        self._static = None
        if found.certain:
            self._dialect, self._settled = found.dialect, True
        look.dialect = self._dialect if found.dialect == PLAIN else found.dialect

    async def _tell(self, look: Look, command: str) -> bytes:
        """Ask a command that tells the firmware; a wire's silence is none of the miner's until all are silent."""
        return await self._asked(look, command, telling_table(command))

    async def _asked(self, look: Look, command: str, table: Table) -> bytes:
        """Ask one command within what is left of the look. Raises TimeoutError at its end, else as ``Wires.reply``."""
        if not look.asked and self._turn.is_free and self._wires.asks_once(command):
            # Its own deadline is the look's; a timer costs a poll more.
            return await self._in_turn(look, command, table)
        async with asyncio.timeout_at(look.ends_at):
            return await self._in_turn(look, command, table)

    async def _in_turn(self, look: Look, command: str, table: Table) -> bytes:
        async with self._turn:
            look.asked = True
            look.asked_s = look.asked_s or self._clock.monotonic()
            return await self._wires.reply(command, table)

    def _hourly(self, table: Table) -> Hourly:
        """Return what does not change, begun anew where it is due; what tells of the miner comes first."""
        now_s = self._clock.monotonic()
        if self._static is None or self._static.is_due(now_s):
            self._collector.forget()
            if self._static is not None:  # else a silence has done so, and what answered since is news
                self._wires.try_json_again()
            commands = sorted(table.commands.static, key=lambda command: not is_telling(command, table))
            self._static = Hourly(commands, now_s, self._static_age_s, _STATIC_RETRY_S)
        return self._static

    async def _read_static(self, look: Look, static: Hourly) -> None:
        if static.is_whole:
            return
        await static.read(
            lambda sections, command: self._collector.ask_into(
                partial(self._reply, look), sections, look.table.commands, command
            )
        )
        if look.silent:
            static.leave_out()

    async def _decoded(self, command: str, parameter: str | None = None) -> Decoded:
        async with self._turn:
            with self._heeding_silence():
                reply = await self._wires.rpc(command, parameter, order=True)
        return decode(reply)

    async def _reply(self, look: Look, command: str) -> bytes | None:
        """Ask a command of the table, whichever wire it takes; None when one that tells nothing is silent.

        Such a wire is not asked again in the same look: one silence a look is waited for, not one a command.
        """
        wire = wire_of(command)
        if wire in look.silent:
            return None
        try:
            return await self._asked(look, command, look.table)
        except Transient:
            if is_telling(command, look.table):
                self._forget()
                raise
            look.silent.add(wire)
            return None

    @contextmanager
    def _heeding_silence(self, command: str = "") -> Iterator[None]:
        """Forget what was found out about the device when it falls silent on a wire that tells."""
        try:
            yield
        except Transient:
            if is_telling(command, self._table):
                self._forget()
            raise

    def _forget(self) -> None:
        """Forget what was found out about the device: another may answer next."""
        self._static = None
        self._settled = self._told
        self._wires.forget()
