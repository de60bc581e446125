"""Kills at random moments: the agents, the control plane's processes and PostgreSQL, as a power cut would.

Invariant: everything is drawn from the seed; a victim that does not run at its moment is passed over and drawn again.
"""

import random
import threading
from collections.abc import Callable
from typing import Final

from cloud.cli.demo.processes import Crew, descendants, kill_hard

_SPAN_S: Final = 115.0
"""The story's length from the moment the kills begin; they are spread over it."""


class Chaos:
    """Kills ``kills`` processes over the story; ``done`` counts those that were hit."""

    def __init__(self, crew: Crew, agents: tuple[str, ...], kills: int, seed: int, say: Callable[[str], None]) -> None:
        self.done = 0
        self._crew = crew
        self._agents = agents
        self._rng = random.Random(f"chaos-{seed}")  # noqa: S311 - a reproducible schedule, nothing secret
        self._moments = sorted(self._rng.uniform(0, _SPAN_S) for _ in range(kills))
        self._say = say
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos", daemon=True)

    def start(self) -> None:
        """Begin the schedule."""
        self._thread.start()

    def stop(self) -> None:
        """End it, whatever is left."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        before = 0.0
        for moment in self._moments:
            if self._over.wait(moment - before):
                return
            before = moment
            self._strike()

    def _strike(self) -> None:
        while not self._over.is_set():
            name = self._rng.choice(("agent", "cloud", "postgres"))
            victim = self._victim(name)
            if victim is not None:
                kill_hard(victim)
                self.done += 1
                self._say(f"  kill -9 {victim} ({name})")
                return
            self._over.wait(0.2)

    def _victim(self, name: str) -> int | None:
        if name == "agent":
            return self._crew.child(self._rng.choice(self._agents)).pid
        top = self._crew.child("cloud").pid
        if top is None:
            return None
        if name == "postgres":
            masters = descendants(top, lambda line: "postgres\0-D" in line or "postgres\0" in line[:200])
            return min(masters, default=None)
        below = descendants(top, lambda line: "ballast" in line or "cloud" in line)
        return self._rng.choice([top, *below])
