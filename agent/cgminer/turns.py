"""Which of a poll's commands are asked when a device takes none of them joined: two a poll, in turn.

    first look: all  -->  which one alone tells the same?  -->  that one, and the next of the others  -->  ...

Invariant: what a poll did not ask is unknown in it, never what it was some polls ago; the state rests on what is asked
each time. Where no command alone tells what all do, all are asked.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from agent.cgminer.observation import Observation
from agent.cgminer.repair import Decoded
from agent.cgminer.replies import interpret
from agent.cgminer.sections import Sections
from sitelink.types import MinerState

MOST_REQUESTS: Final = 2
_UPTIME_SLACK_S: Final = 5


class Turns:
    """One device's turns."""

    def __init__(self) -> None:
        self._lead: str | None = None
        self._place = -1

    def forget(self) -> None:
        """Begin anew: all are asked at the next look."""
        self._lead = None

    def split(self, alone: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return which of the commands that go ``alone`` to ask now, and which only if those tell too little."""
        others = [command for command in alone if command != self._lead]
        if len(alone) <= MOST_REQUESTS or len(others) == len(alone):
            return tuple(alone), ()
        self._place += 1
        now = (str(self._lead), others[self._place % len(others)])
        return now, tuple(command for command in alone if command not in now)

    def learn(self, told: Mapping[str, Decoded], beneath: Sections, seen: Observation) -> None:
        """Take as the leading command the first that by itself tells what ``seen`` does of state, rate and power."""
        if seen.state is not MinerState.HASHING:
            return
        for command, decoded in told.items():
            sections = Sections(beneath)
            sections.add(decoded, command)
            if _tells_the_same(interpret(seen.dialect, sections), seen):
                self._lead = command
                return


def _tells_the_same(one: Observation, seen: Observation) -> bool:
    figures = (one.state, one.hashrate_ths, one.power_w) == (seen.state, seen.hashrate_ths, seen.power_w)
    known = one.uptime_s is not None and seen.uptime_s is not None
    return figures and (not known or abs((one.uptime_s or 0) - (seen.uptime_s or 0)) <= _UPTIME_SLACK_S)
