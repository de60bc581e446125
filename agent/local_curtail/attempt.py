"""What one attempt to stop one miner knows while it lasts.

Invariant: who answers is known for as long only as it answers.
"""

from dataclasses import dataclass
from typing import Final

from agent.errors import AgentError
from agent.local_curtail.feeder import Feeder
from agent.local_curtail.member import Member

_KNOWN_S: Final = 8.0
"""For so long who was asked for a name before its order needs no asking again."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt. ``feeder`` is None where no meter can judge it.

    ``deadline_s``, ``acked_s`` and ``tried_s`` are monotonic seconds; ``acked_s`` is None where the miner has not taken
    its order in this attempt, or has fallen silent since.
    """

    member: Member
    was_hashing: bool
    deadline_s: float
    feeder: Feeder | None
    acked: bool = False
    acked_s: float | None = None
    tried_s: float = 0.0
    trouble: AgentError | None = None

    @property
    def miner_id(self) -> str:
        """Return whose stop it is."""
        return self.member.miner.miner_id

    @property
    def is_awaited(self) -> bool:
        """Return whether others of its feeder wait for how long its miner runs on."""
        return self.feeder is not None and self.feeder.awaits(self.member)

    def is_known(self, now_s: float) -> bool:
        """Return whether the miner itself took the order a moment ago, and has answered ever since."""
        return self.acked_s is not None and now_s - self.acked_s < _KNOWN_S
