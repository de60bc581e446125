"""What one miner is asked, and when: a table's commands, at one moment or hourly, until they tell what is wanted.

    whose table? --> what the poll asks --> why it stands still, where it does --> what does not change, when due
    glance: what tells state and power --> idle? was it told to be? --> all the rest, where that is not shown

Invariants:

* A look ends within one exchange's whole deadline, whichever wires and commands it takes, and so does the asking of a
  name. What was read by then counts where it truly tells the state.
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
from contextlib import suppress
from functools import partial
from typing import Final

from agent.cgminer.collecting import Collector
from agent.cgminer.dialects import table_of
from agent.cgminer.dialects.table import Table
from agent.cgminer.hourly import Hourly
from agent.cgminer.identification import find_dialect, telling_table
from agent.cgminer.look import Look
from agent.cgminer.observation import Observation
from agent.cgminer.replies import PLAIN, interpret, named
from agent.cgminer.sections import Sections
from agent.cgminer.turn import Turn
from agent.cgminer.whose import nameless
from agent.cgminer.wires import Wires, is_telling, wire_of
from agent.errors import AgentError, Garbled, Transient
from sitelink.clock import Clock
from sitelink.miners import AUTO
from sitelink.types import MinerState, Reason
from sitelink.units import Watts

_STATIC_RETRY_S: Final = 300.0
"""How soon static data is read again where a wire beside the poll's was silent, and so left out its part."""


class Looks:
    """The looks at one miner over its ``wires``, each request in its ``turn``, and what is remembered between them.

    ``dialect`` may be ``auto`` to find out.
    """

    def __init__(
        self,
        wires: Wires,
        turn: Turn,
        dialect: str,
        clock: Clock,
        *,
        miner_id: str,
        limit_s: float,
        static_age_s: float,
    ) -> None:
        """``miner_id`` is the name it is known by; a look ends within ``limit_s`` seconds."""
        self._wires = wires
        self._turn = turn
        self._dialect = dialect
        self._table = table_of(dialect)
        self._told = dialect != AUTO
        self._settled = self._told
        self._clock = clock
        self._miner_id = miner_id
        self._limit_s = limit_s
        self._static_age_s = static_age_s
        self._static: Hourly | None = None
        self._named_by = Sections()
        self._collector = Collector()

    @property
    def dialect(self) -> str:
        """Return the dialect, ``auto`` as long as it was never found out."""
        return self._dialect

    @property
    def table(self) -> Table:
        """Return the table it is read by, the plain one as long as none was found out."""
        return self._table

    @property
    def named_by(self) -> Sections:
        """Return what ``identity`` was told last; empty before."""
        return self._named_by

    def forgive(self) -> None:
        """Ask again what was refused: we come with other credentials."""
        self._collector.forgive()

    async def observe(self, *, glance: bool = False, idle_w: Watts | None = None) -> Observation:
        """Read the miner, as ``Device.observe`` promises."""
        look = self._begun(glance=glance, idle_w=idle_w)
        try:
            return await self._observed(look)
        except TimeoutError:
            told = look.tells()
            if told is None:
                raise self._cut_short(look, "no whole reading") from None
            return told

    async def identity(self) -> str:
        """Read who answers, as ``Device.identity`` promises."""
        look = self._begun()
        try:
            return await self._named(look)
        except TimeoutError:
            raise self._cut_short(look, "no name") from None

    def forget(self) -> None:
        """Forget what was found out about the device: another may answer next."""
        self._static = None
        self._settled = self._told
        self._wires.forget()

    def _begun(self, *, glance: bool = False, idle_w: Watts | None = None) -> Look:
        return Look(self._table, asyncio.get_running_loop().time() + self._limit_s, glance, idle_w)

    async def _observed(self, look: Look) -> Observation:
        await self._find_dialect(look)
        ask, commands = partial(self._reply, look), look.table.commands
        static = self._hourly(look.table)
        look.sections = fresh = Sections(static.sections)
        self._collector.wake(commands)
        seen = await self._polled(look, fresh, static.sections)
        if look.glance and (look.idle_w is None or look.runs(seen)):
            return seen
        if look.glance and seen.state is MinerState.IDLE:
            return await self._why(look, fresh, static, seen)
        if look.glance:
            look.glance, look.sections = False, (fresh := Sections(static.sections))
            seen = await self._polled(look, fresh, static.sections)
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

    async def _why(self, look: Look, fresh: Sections, static: Hourly, seen: Observation) -> Observation:
        """Return why a miner stands that a glance shows idle: all of it unless it says that it was told to."""
        ask, commands = partial(self._reply, look), look.table.commands
        with suppress(AgentError):  # its reason may show in the rest
            for command in commands.idle:
                if seen.reason is Reason.COMMANDED:
                    return seen
                await self._collector.ask_into(ask, fresh, commands, command)
                seen = interpret(look.dialect, fresh, look.shown_s, glance=True)
        if seen.reason is Reason.COMMANDED:
            return seen
        rest = [command for command in commands.poll if command not in commands.glance]
        await self._collector.collect(ask, fresh, commands, rest)
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
            seen = named(look.dialect, sections)
            if seen.answers_to(self._miner_id) or (not self._miner_id and seen.identities):
                break
        if seen.answers_to(self._miner_id):
            return self._miner_id
        undecided = bool(self._miner_id) and seen.answers_to(self._miner_id) is None
        if not seen.identities or (undecided and (sections.denied or not seen.tells_only_board(self._miner_id))):
            if look.silent:
                await self._reply(look, commands.poll[0])  # is it the page alone that is silent, or the miner?
            raise nameless(self._wires.address, seen, sections)
        return seen.identities[0]

    def _cut_short(self, look: Look, lacks: str) -> Transient:
        if look.asked:
            self.forget()
        return look.cut_short(self._wires.address, lacks, self._limit_s)

    async def _find_dialect(self, look: Look) -> None:
        """Have ``look`` read by the dialect found out, else by what the device shows at this moment."""
        if self._settled:
            look.dialect = self._dialect
            return
        found = await find_dialect(partial(self._tell, look))
        self._table = look.table = table_of(found.dialect)
        if not found.readable:
            raise Garbled(f"{self._wires.address}: no miner's API answers there; check the address and port")
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
                self.forget()
                raise
            look.silent.add(wire)
            return None
