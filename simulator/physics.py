r"""How one miner's power, hash rate and heat follow its orders. Pure: time comes in as seconds.

Invariants:

* Everything is in closed form between two goals, so asking often or seldom gives the same answer.
* Time never goes back; goals due in the future wait in ``pending`` and take effect exactly when due.
* What was is kept for the last few changes, for those who show it late.
* ``level`` is what a running miner draws, as a share of nameplate: 1 unless a power limit or mode holds it elsewhere.

      share of nameplate power
      1.0 |‾‾‾‾\                    /‾‾‾‾
          |     \  stop_s          /  warm_s
      idle|      \________________/
             stop                start
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum

RUNNING_SHARE = 0.5
"""A miner counts as running again when its true power passes this share of nameplate."""
IDLE_SHARE = 0.15
"""A miner counts as stopped when its true power falls below this share of nameplate."""
_HASHING_FROM = 0.3
_HEAT_S = 45.0
_KEPT = 8


class Goal(StrEnum):
    """Where a drive is heading."""

    RUN = "run"
    IDLE = "idle"
    TRIPPED = "tripped"
    UNPLUGGED = "unplugged"


class Phase(StrEnum):
    """What a drive is doing now."""

    HASHING = "hashing"
    STARTING = "starting"
    STOPPING = "stopping"
    IDLE = "idle"
    TRIPPED = "tripped"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast a model reacts, in seconds, and what it draws when idle as a share of nameplate."""

    stop_s: float
    warm_s: float
    idle_share: float


@dataclass(slots=True)
class Effect:
    """When an order's effect passed its threshold; None as long as it has not, or when it never will."""

    at_s: float | None = None


@dataclass(order=True, slots=True)
class _Due:
    """``goal`` None keeps the goal and changes the level alone."""

    at_s: float
    goal: Goal | None = field(compare=False)
    effect: Effect | None = field(compare=False, default=None)
    level: float | None = field(compare=False, default=None)


@dataclass(frozen=True, slots=True)
class Leg:
    """How a drive goes from ``since_s`` on, in closed form, until its goal or level changes. Shares of nameplate."""

    since_s: float
    start: float
    target: float
    duration_s: float
    level: float
    runs: bool

    def share(self, now_s: float) -> float:
        """Return true power as a share of nameplate."""
        elapsed = max(now_s - self.since_s, 0.0)
        if elapsed >= self.duration_s:
            return self.target
        return self.start + (self.target - self.start) * elapsed / self.duration_s

    def hash_share(self, now_s: float) -> float:
        """Return hash rate as a share of nameplate: none while stopping, the upper part of the ramp while starting."""
        if not self.runs:
            return 0.0
        share = self.share(now_s)
        ramped = self.level * (share - _HASHING_FROM) / (self.level - _HASHING_FROM)
        return max(0.0, min(share, ramped))


class Drive:
    """The state of one miner's power electronics.

    Args:
        timing: the model's timing.
        now_s: the moment of construction; the drive is then settled at ``goal``.
    """

    __slots__ = (
        "_earlier",
        "_effects",
        "_from",
        "_heat_from",
        "_pending",
        "_seconds",
        "_since_s",
        "_timing",
        "goal",
        "level",
    )

    def __init__(self, timing: Timing, now_s: float, goal: Goal = Goal.RUN) -> None:
        self.goal = goal
        self.level = 1.0
        self._timing = timing
        self._since_s = now_s - timing.warm_s
        self._from = self._target()
        self._heat_from = 1.0 if goal is Goal.RUN else 0.0
        self._seconds = -timing.warm_s * self._from
        self._pending: list[_Due] = []
        self._effects: list[Effect] = []
        self._earlier: tuple[Leg, ...] = ()

    def leg(self, at_s: float) -> Leg:
        """Return how it was going at ``at_s``, as far back as that is kept."""
        legs = (self._leg(), *self._earlier)
        return next((leg for leg in legs if leg.since_s <= at_s), legs[-1])

    def head_for(self, goal: Goal, at_s: float, effect: Effect | None = None, level: float | None = None) -> None:
        """Head for ``goal`` from ``at_s`` on, at ``level`` where one is given; goals due later are dropped."""
        self._pending = sorted([due for due in self._pending if due.at_s < at_s] + [_Due(at_s, goal, effect, level)])

    def relevel(self, level: float, at_s: float, effect: Effect | None = None) -> None:
        """Run at ``level`` from ``at_s`` on; goals due later stay due. The effect is there when power has settled."""
        self._pending = sorted([*self._pending, _Due(at_s, None, effect, level)])

    def advance(self, now_s: float) -> None:
        """Apply every goal due by ``now_s``."""
        while self._pending and self._pending[0].at_s <= now_s:
            self._apply(self._pending.pop(0))

    def share(self, now_s: float) -> float:
        """Return true power as a share of nameplate."""
        return self._leg().share(now_s)

    def share_seconds(self, now_s: float) -> float:
        """Return the integral of ``share`` since construction, in seconds at nameplate."""
        elapsed = now_s - self._since_s
        ramp = min(elapsed, self._duration_s())
        return (
            self._seconds
            + (self._from + self.share(self._since_s + ramp)) / 2 * ramp
            + self._target() * (elapsed - ramp)
        )

    def hash_share(self, now_s: float) -> float:
        """Return hash rate as a share of nameplate: none while stopping, the upper part of the ramp while starting."""
        return self._leg().hash_share(now_s)

    def heat(self, now_s: float) -> float:
        """Return how warm boards are: 0 at ambient, 1 in steady operation."""
        target = {Goal.RUN: self.level, Goal.IDLE: 0.03, Goal.TRIPPED: 1.45, Goal.UNPLUGGED: 0.0}[self.goal]
        return target + (self._heat_from - target) * math.exp(-(now_s - self._since_s) / _HEAT_S)

    def running_s(self, now_s: float) -> float:
        """Return the seconds since the present goal was set."""
        return now_s - self._since_s

    def phase(self, now_s: float) -> Phase:
        """Return what the drive is doing."""
        if self.goal is Goal.UNPLUGGED:
            return Phase.OFF
        if self.goal is Goal.TRIPPED:
            return Phase.TRIPPED
        settled = now_s - self._since_s >= self._duration_s()
        if self.goal is Goal.RUN:
            return Phase.HASHING if settled else Phase.STARTING
        return Phase.IDLE if settled else Phase.STOPPING

    def _apply(self, due: _Due) -> None:
        goal, level = due.goal or self.goal, self.level if due.level is None else due.level
        if goal is not self.goal or level != self.level:
            self._earlier = (self._leg(), *self._earlier)[:_KEPT]
            share, heat, seconds = self.share(due.at_s), self.heat(due.at_s), self.share_seconds(due.at_s)
            self._since_s, self._from, self._heat_from, self._seconds = due.at_s, share, heat, seconds
            self.goal, self.level = goal, level
            for effect in self._effects:
                if effect.at_s is not None and effect.at_s > due.at_s:
                    effect.at_s = None
            self._effects.clear()
        if due.effect is not None:
            due.effect.at_s = self._settled_s(due.at_s) if due.goal is None else self._crossing_s(due.at_s)
            self._effects.append(due.effect)

    def _leg(self) -> Leg:
        runs = self.goal is Goal.RUN
        return Leg(self._since_s, self._from, self._target(), self._duration_s(), self.level, runs)

    def _settled_s(self, now_s: float) -> float:
        """Return when power has come to its target; ``now_s`` when it has, as in a miner that rests below its limit."""
        if self.goal is not Goal.RUN or self.share(now_s) == self._target():
            return now_s
        return self._since_s + self._duration_s()

    def _crossing_s(self, now_s: float) -> float | None:
        """Return when the present ramp passes the threshold of its goal; ``now_s`` when it already has."""
        threshold = RUNNING_SHARE * min(self.level, 1.0) if self.goal is Goal.RUN else IDLE_SHARE
        share, target = self.share(now_s), self._target()
        passed = share >= threshold if self.goal is Goal.RUN else share < threshold
        if passed:
            return now_s
        reaches = target >= threshold if self.goal is Goal.RUN else target < threshold
        if not reaches or target == self._from:
            return None
        return self._since_s + self._duration_s() * (threshold - self._from) / (target - self._from)

    def _target(self) -> float:
        if self.goal is Goal.RUN:
            return self.level
        if self.goal is Goal.IDLE:
            return self._timing.idle_share
        return 0.04 if self.goal is Goal.TRIPPED else 0.0

    def _duration_s(self) -> float:
        if self.goal is Goal.RUN:
            return self._timing.warm_s
        return self._timing.stop_s if self.goal is Goal.IDLE else 0.5


def ambient_c(hour: float) -> float:
    """Return the air temperature in degrees Celsius at local ``hour`` (0..24): coolest at 4, warmest at 16."""
    return 27.0 + 8.0 * math.sin((hour - 10.0) / 24.0 * 2 * math.pi)
