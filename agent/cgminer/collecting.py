"""What a device takes: which commands it answers joined, which it does not know, which it refuses us.

Invariants:

* Commands are joined into one request until the device shows that it does not take them so; then they have their
  ``turns``, two a poll.
* A command that the firmware does not know is not asked again, but what its table has in its place.
* A page that refuses our credentials is left alone: the next try may lock us out.
* All of it is forgotten once an hour (``forget``), because one reply cut short looks the same.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache

from agent.cgminer.dialects.table import Commands
from agent.cgminer.observation import Observation
from agent.cgminer.repair import Decoded, decode
from agent.cgminer.sections import NEW_API, Sections, is_rpc
from agent.cgminer.status import Status
from agent.cgminer.turns import MOST_REQUESTS, Turns
from agent.cgminer.wires import Failing
from agent.errors import AccessDenied, Garbled, UnsupportedDevice

Ask = Callable[[str], Awaitable[bytes | None]]
"""Asks one command; None when it goes unanswered on a wire whose silence says nothing."""


class Collector:
    """Asks one device's commands into sections by ``ask``, and remembers how it takes them."""

    def __init__(self) -> None:
        self._alone: set[str] = set()
        self._unknown: set[str] = set()
        self._refused: set[str] = set()
        self._told: dict[str, Decoded] = {}
        self._turns = Turns()

    def forget(self) -> None:
        """Begin anew: everything is asked again."""
        self._alone.clear()
        self._unknown.clear()
        self._refused.clear()
        self._turns.forget()

    def forgive(self) -> None:
        """Ask again what was refused: we come with other credentials."""
        self._refused.clear()

    async def collect(self, ask: Ask, sections: Sections, commands: Commands, wanted: Sequence[str]) -> None:
        """Ask the ``wanted`` of a table's ``commands``, joined as far as the device takes it, each other one alone.

        Raises:
            Transient: the device does not answer. TooLarge: it answers with too much.
        """
        together = [one for one in wanted if one not in self._alone] if commands.joins else []
        kind = joint_of(together[0]) if together else None
        if kind is not None and len(together := [one for one in together if joint_of(one) == kind]) > 1:
            wanted = [command for command in wanted if command not in together]
            wanted += await self._joined(ask, sections, together, kind)
        for command in wanted:
            await self.ask_into(ask, sections, commands, command)

    def now(self, commands: Commands) -> tuple[Sequence[str], Sequence[str]]:
        """Return what of the poll to ask now, and what only where that does not show the miner hashing."""
        if len(self._alone) <= MOST_REQUESTS:
            return commands.poll, ()
        asked = [one for one in commands.poll if not self._is_mute(commands, one)]
        return self._turns.split(asked) if self._alone.issuperset(asked) else (commands.poll, ())

    def learn(self, beneath: Sections, seen: Observation) -> None:
        """Learn from a look that asked the whole poll which command tells most of it."""
        if self._told:
            self._turns.learn(self._told, beneath, seen)
            self._told.clear()

    def wake(self, commands: Commands) -> None:
        """See to it that a poll asks something at all: else the device's silence would go unnoticed."""
        if self._unknown and all(self._is_mute(commands, command) for command in commands.poll):
            self._unknown.clear()

    async def ask_into(self, ask: Ask, sections: Sections, commands: Commands, command: str) -> None:
        """Ask one command, or what is asked in its place. Raises as ``collect`` does."""
        if command in self._unknown:
            await self._ask_instead(ask, sections, commands, command)
            return
        if command in self._refused:
            sections.denied = True
            return
        try:
            reply = await ask(command)
            decoded = None if reply is None else decode(reply)
        except Garbled as error:
            if isinstance(error, Failing):
                sections.failing, sections.busy = True, sections.busy or error.busy
            if not command.startswith(NEW_API):
                sections.garbled = True
                return
            self._unknown.add(command)
        except UnsupportedDevice:
            self._unknown.add(command)
        except AccessDenied:
            sections.denied = True
            self._refused.add(command)
        else:
            if decoded is not None:
                self._take(sections, command, decoded)
        if command in self._unknown:
            await self._ask_instead(ask, sections, commands, command)

    def _take(self, sections: Sections, command: str, decoded: Decoded) -> None:
        status = Status.of(decoded.document)
        if status.unknown_command or (status.failed and command.startswith(NEW_API)):
            self._unknown.add(command)
        sections.add(decoded, command)
        if len(self._alone) > MOST_REQUESTS and command in self._alone:
            self._told[command] = decoded

    async def _ask_instead(self, ask: Ask, sections: Sections, commands: Commands, command: str) -> None:
        """Ask what stands in for a command that the firmware does not know, once for all such commands."""
        for other in _instead(commands, command):
            if not sections.has(other):
                await self.ask_into(ask, sections, commands, other)

    async def _joined(self, ask: Ask, sections: Sections, together: Sequence[str], kind: str) -> list[str]:
        """Ask ``together`` in one request; return those that were not answered and must be asked alone."""
        names = [command.removeprefix(kind) for command in together]
        try:
            reply = await ask(kind + "+".join(names))
            decoded = None if reply is None else decode(reply)
        except Garbled:
            self._alone.update(together)
            return list(together)
        if decoded is None:
            return []
        holder = decoded.document if isinstance(decoded.document, dict) else {}
        if kind:
            holder = holder["msg"] if isinstance(holder.get("msg"), dict) else {}
        answered = [command for command, name in zip(together, names, strict=True) if name in holder]
        if answered:
            sections.add(decoded, *answered)
        missing = [command for command in together if command not in answered]
        self._alone.update(missing)
        return missing

    def _is_mute(self, commands: Commands, command: str) -> bool:
        return command in self._unknown and self._unknown.issuperset(_instead(commands, command))


@lru_cache(maxsize=256)
def joint_of(command: str) -> str | None:
    """Return what commands that can be joined to this one begin with; None when it goes alone.

    ``summary`` and ``pools`` begin with nothing, ``v3:get.miner.status:summary`` with ``v3:get.miner.status:``.
    """
    if command.startswith("v3:"):
        name, colon, _ = command.removeprefix("v3:").partition(":")
        return f"v3:{name}:" if colon else None
    return "" if is_rpc(command) and not command.startswith(NEW_API) else None


def _instead(commands: Commands, command: str) -> tuple[str, ...]:
    if command.startswith(NEW_API):
        return (command.removeprefix(NEW_API),)
    return commands.instead.get(command, ())
