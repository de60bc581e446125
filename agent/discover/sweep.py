"""Many hosts looked at, as gently as a site's network and its miners deserve.

    hosts, shuffled --> so many at a time --> knocks spaced in time, with jitter --> looks

Invariants: at most one connection to a host at a time; no host is asked twice; none holds up the sweep beyond its own
deadline; an interrupted sweep leaves nothing open.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from agent.discover.look import Pause
from agent.discover.shown import Look

_LOG: Final = logging.getLogger(__name__)
_JITTER: Final = 0.5
_SILENT_KNOCKS: Final = 2


class LooksAt(Protocol):
    """Whatever looks at one host."""

    async def look(self, host: str, pause: Pause) -> Look | None:
        """Return what ``host`` shows, None when nobody is there. ``pause`` is awaited before each connection."""
        ...


@dataclass(frozen=True, slots=True)
class Manners:
    """How gently: hosts looked at a time, knocks a second, patience for a connection and for a whole host."""

    at_once: int = 64
    knocks_per_s: float = 200.0
    connect_s: float = 0.7
    host_s: float = 30.0

    def longest_s(self, hosts: int) -> float:
        """Return how long a sweep takes where nobody at all is there: the longest, but for miners that dawdle."""
        rounds = -(-hosts // self.at_once)
        return max(rounds * _SILENT_KNOCKS * self.connect_s, _SILENT_KNOCKS * hosts / self.knocks_per_s)


def _untold(host: str, why: str) -> Look:
    return Look(host, 0, 0, None, (f"{host}: {why}",))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep is."""

    looked_at: int
    hosts: int
    miners: int


class Sweep:
    """One sweep. ``tell`` hears of each host looked at."""

    def __init__(
        self, looker: LooksAt, manners: Manners, rng: random.Random, tell: Callable[[Progress], None] = lambda _: None
    ) -> None:
        self._looker = looker
        self._manners = manners
        self._rng = rng
        self._tell = tell
        self._next_knock_at = 0.0
        self._looked_at = 0
        self._looks: list[Look] = []

    async def run(self, hosts: Sequence[str]) -> tuple[Look, ...]:
        """Return what every host showed where somebody was, in the order of ``hosts``."""
        order = list(hosts)
        self._rng.shuffle(order)  # neighbours hang on one switch
        places = {host: place for place, host in enumerate(hosts)}
        left = iter(order)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._manners.at_once, len(order))):
                group.create_task(self._work(left, len(order)))
        return tuple(sorted(self._looks, key=lambda look: places[look.host]))

    async def _work(self, left: Iterator[str], total: int) -> None:
        for host in left:
            look = await self._look(host)
            self._looked_at += 1
            if look is not None:
                self._looks.append(look)
            miners = sum(1 for each in self._looks if each.observation is not None)
            self._tell(Progress(self._looked_at, total, miners))

    async def _look(self, host: str) -> Look | None:
        limit = self._manners.host_s
        try:
            async with asyncio.timeout(limit):
                return await self._looker.look(host, self._pause)
        except TimeoutError:
            return _untold(host, f"had not told who it is after {limit:g} s; look at it alone")
        except Exception as error:  # noqa: BLE001 - the supervisor of one host: a bug costs one look, not the sweep
            _LOG.warning("discover: %s: %r", host, error, exc_info=True)
            return _untold(host, f"could not be looked at: {error!r}; report it with what answers there")

    async def _pause(self) -> None:
        """Wait until the next knock may be made: evenly spaced, each a little early or late."""
        now = asyncio.get_running_loop().time()
        gap = 1.0 / self._manners.knocks_per_s
        at = max(now, self._next_knock_at)
        self._next_knock_at = at + gap * self._rng.uniform(1 - _JITTER, 1 + _JITTER)
        await asyncio.sleep(at - now)
