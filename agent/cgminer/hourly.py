"""What does not change of a device, asked once an hour, however many looks that takes.

    due --> command, command | cut short --> the next look goes on there --> command --> whole until due again

Invariant: a look that is cut short costs no command its turn but one that was cut twice: that waits for the next time,
which then comes sooner, and no look is spent on it again and again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from agent.cgminer.sections import Sections


class Hourly:
    """The replies of one device to ``commands``, begun at ``begun_s`` and due again ``age_s`` later.

    Where something is left out, they are due again ``retry_s`` later already. All in monotonic seconds.
    """

    def __init__(self, commands: Iterable[str], begun_s: float, age_s: float, retry_s: float) -> None:
        self.sections = Sections()
        self._left = list(commands)
        self._cut: set[str] = set()
        self._begun_s = begun_s
        self._retry_s = min(age_s, retry_s)
        self._due_s = begun_s + age_s

    def is_due(self, now_s: float) -> bool:
        """Return whether all of it is to be asked anew."""
        return now_s >= self._due_s

    @property
    def is_whole(self) -> bool:
        """Return whether nothing is left to ask."""
        return not self._left

    def leave_out(self) -> None:
        """Note that something could not be had: it is asked again sooner."""
        self._due_s = min(self._due_s, self._begun_s + self._retry_s)

    async def read(self, ask_into: Callable[[Sections, str], Awaitable[None]]) -> None:
        """Ask what is left into the sections. Raises what ``ask_into`` raises."""
        while self._left:
            command = self._left.pop(0)
            try:
                await ask_into(self.sections, command)
            except (TimeoutError, asyncio.CancelledError):
                if command in self._cut:
                    self.leave_out()
                else:
                    self._cut.add(command)
                    self._left.append(command)
                raise
