"""What was asked of one host, each command once, and what came of it: for a person's look, which tries nothing twice.

Invariant: a command that was answered, or failed, is not asked again; one refused is, once we come as somebody else.
"""

from agent.cgminer.credentials import Credentials
from agent.cgminer.dialects.table import Table
from agent.cgminer.identification import telling_table
from agent.cgminer.wires import Wires
from agent.errors import AccessDenied, AgentError


class Conversation:
    """The replies and errors of one host, by command, over its ``wires``."""

    def __init__(self, wires: Wires) -> None:
        self.wires = wires
        self.replies: dict[str, bytes] = {}
        self.errors: dict[str, AgentError] = {}
        self._refused_as: dict[str, Credentials | None] = {}

    async def tell(self, command: str) -> bytes:
        """Ask a telling command. Raises as ``Wires.reply`` does."""
        await self.ask(command, telling_table(command))
        if command in self.errors:
            raise self.errors[command]
        return self.replies[command]

    async def ask(self, command: str, table: Table) -> None:
        """Ask one command and keep what comes of it."""
        again = command in self._refused_as and self._refused_as[command] != self.wires.credentials
        if command in self.replies or (command in self.errors and not again):
            return
        try:
            self.replies[command] = await self.wires.reply(command, table)
            self.errors.pop(command, None)
        except AgentError as error:
            self.errors[command] = error.with_traceback(None)  # its frames would keep the connection alive
            if isinstance(error, AccessDenied):
                self._refused_as[command] = self.wires.credentials

    def is_closed(self, table: Table) -> bool:
        """Return whether something that ``table`` asks was refused to us.

        What another firmware would have answered, asked only to learn who is there, does not count.
        """
        own = {*table.commands.poll, *table.commands.every}
        return any(isinstance(error, AccessDenied) and command in own for command, error in self.errors.items())
