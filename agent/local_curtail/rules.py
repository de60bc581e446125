"""The site as local curtailment knows it: its miners, and the rules its operator set. Pure."""

import math
from dataclasses import dataclass
from typing import Final

from agent.local_curtail.heat import NO_HEAT_RULES, HeatRules
from agent.local_curtail.policy import Limits
from agent.local_curtail.ramp import NO_LIMIT, PLAIN_RAMPS, Pace, RampRules
from agent.local_curtail.silence import SilentRule
from sitelink.types import Fallback, Verb
from sitelink.units import TeraHashPerSecond, Watts

ASSUMED_NAMEPLATE_W: Final = Watts(3500.0)
"""The load taken for a miner whose inventory row names none: ramps need a figure; this is a common machine's."""


@dataclass(frozen=True, slots=True)
class SiteMiner:
    """One miner of the inventory. ``feeder_id`` and ``rack`` are "" where they are not known."""

    miner_id: str
    feeder_id: str
    nameplate_w: Watts | None
    controllable: bool
    rack: str = ""
    model: str = ""
    nameplate_ths: TeraHashPerSecond | None = None

    @property
    def j_per_th(self) -> float:
        """Return what it draws for its work by its nameplate; one that names neither counts as the worst."""
        if self.nameplate_w is None or not self.nameplate_ths:
            return math.inf
        return self.nameplate_w / self.nameplate_ths

    @property
    def load_w(self) -> Watts:
        """Return the load it counts for in a ramp."""
        return ASSUMED_NAMEPLATE_W if self.nameplate_w is None else self.nameplate_w


@dataclass(frozen=True, slots=True)
class SiteRules:
    """Who this site is and what may be done to its miners."""

    site_id: str
    agent_id: str
    never_touch: frozenset[str]
    max_off_s: float
    max_step_w: Watts
    fallback: Fallback
    grace_s: float
    concurrency: int = 64
    device_deadline_s: float = 20.0
    idle_share: float = 0.15
    max_per_min_w: Watts = NO_LIMIT
    allowed_verbs: frozenset[Verb] = frozenset(Verb)
    min_load_w: Watts = NO_LIMIT
    heat: HeatRules = NO_HEAT_RULES
    silence: SilentRule | None = None
    ramps: RampRules = PLAIN_RAMPS

    @property
    def limits(self) -> Limits:
        """Return the limits that the policy keeps."""
        return Limits(self.max_off_s, self.max_step_w, self.never_touch, self.allowed_verbs, self.min_load_w)

    @property
    def pace(self) -> Pace:
        """Return how fast load may be switched at this site, whoever orders it."""
        return Pace(self.max_step_w, self.max_per_min_w)
