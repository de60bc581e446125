"""What the planner thinks in: slots of time, groups of like miners, rules, and the schedule that comes out. Pure.

Invariants:

* Slots are half-open, consecutive and without gaps; an unknown price is ``None`` and stops nothing.
* A group's units are interchangeable and stand in stop order; one unit is one miner, or one *block*: the miners of a
  curtailment that has begun, which are released together or not at all.
* Load outside the groups (miners nobody may or can stop) is ``constant_w`` of each slot and is never planned away.

      signals, prices -> slots  --+
      fleet           -> groups --+-- Problem --(break-even | solver | greedy)--> Schedule --> curtailments
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NewType

from sitelink.types import Curtailment, Interval, Ramp
from sitelink.units import (
    JoulesPerTeraHash,
    Megawatts,
    TeraHashPerSecond,
    UsdPerMegawattHour,
    UsdPerPetahashDay,
    Watts,
    breakeven_usd_per_mwh,
    hash_revenue_usd_per_h,
)

Usd = NewType("Usd", float)

_NOTHING_W: Final = Watts(0.0)


class SignalKind(StrEnum):
    """Why a site is asked to shed."""

    MUST_SHED = "must_shed"
    MANUAL = "manual"
    PRICE_SPIKE = "price_spike"


class SkipReason(StrEnum):
    """Why a miner is not planned for; stable, shown to operators."""

    UNCONTROLLABLE = "uncontrollable"
    NOT_SEEN = "not_seen"
    NOT_HASHING = "not_hashing"
    LIAR = "liar"
    NO_NAMEPLATE = "no_nameplate"


@dataclass(frozen=True, slots=True)
class Signal:
    """A request to shed: a site cap in W for a window, or the note that prices spike (``cap_w`` None)."""

    signal_id: str
    site_id: str
    kind: SignalKind
    interval: Interval
    cap_w: Watts | None
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Price:
    """The energy price of one market interval."""

    interval: Interval
    price_usd_per_mwh: UsdPerMegawattHour


@dataclass(frozen=True, slots=True)
class FleetMiner:
    """One miner as the planner counts it; power and hash rate are planning figures, not the last reading."""

    miner_id: str
    model: str
    power_w: Watts
    hashrate_ths: TeraHashPerSecond
    feeder_id: str = ""
    skip: SkipReason | None = None

    @property
    def efficiency_j_per_th(self) -> JoulesPerTeraHash:
        """Return J/TH; infinite for a miner without hash rate, which is then the first to be stopped."""
        if self.hashrate_ths <= 0:
            return JoulesPerTeraHash(float("inf"))
        return JoulesPerTeraHash(self.power_w / self.hashrate_ths)

    def breakeven(self, hashprice: UsdPerPetahashDay) -> UsdPerMegawattHour:
        """Return the energy price above which this miner loses money."""
        if self.hashrate_ths <= 0:
            return UsdPerMegawattHour(0.0)
        return breakeven_usd_per_mwh(hashprice, self.efficiency_j_per_th)


@dataclass(frozen=True, slots=True)
class UnratedMiner:
    """A miner whose nameplate power or hash rate is not known: never planned for, and what it draws is not invented."""

    miner_id: str
    power_w: Watts | None
    skip: SkipReason


def stop_order(miner: FleetMiner) -> tuple[float, str]:
    """Return the key that sorts miners into stop order: least efficient first, then by id so that it never wavers."""
    return (-miner.efficiency_j_per_th, miner.miner_id)


@dataclass(frozen=True, slots=True)
class Slot:
    """One interval of the planning grid. ``constant_w`` is load that cannot be stopped."""

    interval: Interval
    price_usd_per_mwh: UsdPerMegawattHour | None
    cap_w: Watts | None = None
    constant_w: Watts = _NOTHING_W

    @property
    def hours(self) -> float:
        """Return the length in hours."""
        return self.interval.duration / timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Group:
    """Interchangeable units.

    A running group has ``off_since`` None and may be stopped from ``earliest_stop`` on. A stopped group may be started
    from ``earliest_start`` on. ``miners`` of all units share ``unit_power_w`` and ``unit_hashrate_ths`` as their mean.
    """

    name: str
    units: tuple[tuple[FleetMiner, ...], ...]
    off_since: datetime | None = None
    earliest_stop: datetime | None = None
    earliest_start: datetime | None = None

    @property
    def unit_power_w(self) -> Watts:
        """Return the mean power of a unit."""
        return Watts(sum(miner.power_w for unit in self.units for miner in unit) / len(self.units))

    @property
    def unit_hashrate_ths(self) -> TeraHashPerSecond:
        """Return the mean hash rate of a unit."""
        return TeraHashPerSecond(sum(miner.hashrate_ths for unit in self.units for miner in unit) / len(self.units))


@dataclass(frozen=True, slots=True)
class Rules:
    """What binds every schedule; times zero and limits None mean "no such rule"."""

    hashprice: UsdPerPetahashDay
    min_up: timedelta = timedelta(0)
    min_down: timedelta = timedelta(0)
    max_off: timedelta | None = None
    import_limit_w: Watts | None = None
    ramp_w: Watts | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One site over one horizon: ``slots`` (n_intervals) x ``groups`` (n_groups)."""

    slots: tuple[Slot, ...]
    groups: tuple[Group, ...]
    rules: Rules

    @property
    def start(self) -> datetime:
        """Return the first instant that can still be planned."""
        return self.slots[0].interval.start

    @property
    def end(self) -> datetime:
        """Return the horizon's end."""
        return self.slots[-1].interval.end

    def value_usd(self, miner: FleetMiner, slot: Slot) -> float:
        """Return what one miner earns in one slot, energy paid; gross revenue where the price is unknown."""
        gross = hash_revenue_usd_per_h(self.rules.hashprice, miner.hashrate_ths) * slot.hours
        if slot.price_usd_per_mwh is None:
            return gross
        return gross - slot.price_usd_per_mwh * miner.power_w / 1e6 * slot.hours

    @property
    def gross_revenue_usd(self) -> Usd:
        """Return the hash revenue of every grouped miner running throughout: the yardstick of a gap."""
        per_h = sum(
            hash_revenue_usd_per_h(self.rules.hashprice, miner.hashrate_ths)
            for group in self.groups
            for unit in group.units
            for miner in unit
        )
        return Usd(per_h * sum(slot.hours for slot in self.slots))


@dataclass(frozen=True, slots=True)
class Schedule:
    """When each unit is off: ``off[group name][unit place]`` is a tuple of slot ranges ``(first, past_last)``."""

    off: Mapping[str, tuple[tuple[tuple[int, int], ...], ...]]


class Method(StrEnum):
    """How a schedule was found."""

    BREAK_EVEN = "break_even"
    SOLVER = "solver"
    GREEDY = "greedy"


@dataclass(frozen=True, slots=True)
class Score:
    """What a schedule is worth, recomputed miner by miner.

    ``slack_mwh`` is what the priced rows (cap, import) fall short by; ``slack_mw`` is the ramp's.
    """

    objective_usd: Usd
    slack_mwh: float
    slack_mw: Megawatts
    violations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A checked schedule with its bound: ``gap`` = (bound - objective) / gross hash revenue."""

    schedule: Schedule
    method: Method
    reason: str
    objective_usd: Usd
    bound_usd: Usd
    gap: float
    slack_mwh: float


@dataclass(frozen=True, slots=True)
class Planned:
    """A curtailment with what the planner expected of it."""

    curtailment: Curtailment
    expected_w: Watts
    signal_at: datetime
    signal_id: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a site's plan may hold beside the rules: lead, ramps, validity."""

    lead: timedelta
    ramp_down: Ramp
    ramp_up: Ramp
    margin: timedelta
    min_validity: timedelta


@dataclass(frozen=True, slots=True)
class Plan:
    """One revision of one site's plan, whole: an empty one says "run everything"."""

    site_id: str
    revision: int
    plan_id: str
    created_at: datetime
    valid: Interval
    curtailments: tuple[Planned, ...]
    objective_usd: Usd
    bound_usd: Usd
    gap: float
    method: Method
    reason: str
    slack_mwh: float = 0.0
    skipped: Mapping[str, int] = field(default_factory=dict)
    slots: tuple[Slot, ...] = ()
    planned_w: tuple[Watts, ...] = ()
