"""What a site does by its own rule once no order tells it: by price, by temperature, by what it draws. Pure.

    prices        price of the hour   -> share of the fleet that is off
    temperature   board or outside    -> share that is off, back ``back_by`` below
    import cap    the site's meter    -> off until it is under the cap, back once there is room below it

Invariants:

* What a rule cannot know it does not guess: without a price, a temperature or a meter it does what the site's operator
  said for that case, and says so.
* The first of the fleet's order goes off first and comes back last, so the same figures come to the same choice.
* Who is off already is its memory: a restarted agent goes on with the same hysteresis.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from sitelink.types import Fallback
from sitelink.units import Watts

PRICES: Final = "prices"
TEMPERATURE: Final = "temperature"
IMPORT_CAP: Final = "import_cap"


@dataclass(frozen=True, slots=True)
class Steps:
    """From which value on which share of the fleet is off; a step is left ``back_by`` below its value."""

    levels: tuple[tuple[float, float], ...]
    back_by: float = 0.0

    def share(self, value: float, standing: float) -> float:
        """Return the share to be off at ``value`` while ``standing`` of the fleet is."""
        reached = [share for above, share in self.levels if value >= above]
        kept = [share for above, share in self.levels if standing >= share and value >= above - self.back_by]
        return max((*reached, *kept), default=0.0)


@dataclass(frozen=True, slots=True)
class PriceRule:
    """Off by the price of the hour; ``unknown`` is done without one, and without a clock to be trusted."""

    steps: Steps
    unknown: Fallback = Fallback.RUN

    name = PRICES


@dataclass(frozen=True, slots=True)
class TemperatureRule:
    """Off by temperature; ``unknown`` is done without one. ``outside``: of the air, else the median board."""

    steps: Steps
    outside: bool = False
    unknown: Fallback = Fallback.HOLD

    name = TEMPERATURE


class DeadMeter(StrEnum):
    """What an import cap does without its meter: as many run as stay under it by their nameplates, or a fallback."""

    NAMEPLATE = "nameplate"
    RUN = "run"
    HOLD = "hold"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class CapRule:
    """Off until the site's meter shows at most ``cap_w``; back once it is ``back_by_w`` below and there is room.

    ``other_w`` is what else than miners the site draws, for when its meter is dead. Between two changes the meter has
    ``settle_s`` to show the first.
    """

    cap_w: Watts
    back_by_w: Watts
    other_w: Watts
    settle_s: float
    dead: DeadMeter = DeadMeter.NAMEPLATE

    name = IMPORT_CAP


SilentRule = PriceRule | TemperatureRule | CapRule


@dataclass(frozen=True, slots=True)
class Sights:
    """What the rules look at; unknown is None.

    ``settled``: what was switched last shows on the site's meter by now. ``liars`` draw, whatever they were told.
    """

    price_usd_per_mwh: float | None = None
    board_c: float | None = None
    outside_c: float | None = None
    site_w: Watts | None = None
    settled: bool = True
    load_w: Mapping[str, Watts] = field(default_factory=dict)
    liars: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Silence:
    """Who is to be off, and the stable code of why."""

    off: frozenset[str]
    code: str


def silence(
    rule: SilentRule, sights: Sights, order: Sequence[str], off: Collection[str], *, dated: bool = True
) -> Silence:
    """Return who of the fleet is to be off.

    ``order`` is the order of stopping, ``off`` are those that the rule has off already; not ``dated``: the clock cannot
    be trusted, so no hour has a price.
    """
    if isinstance(rule, CapRule):
        return _capped(rule, sights, order, off)
    if isinstance(rule, PriceRule):
        value = sights.price_usd_per_mwh if dated else None
    else:
        value = sights.outside_c if rule.outside else sights.board_c
    if value is None:
        return Silence(_fallen_back(rule.unknown, order, off), f"{rule.name}_unknown_{rule.unknown.value}")
    standing = sum(miner in off for miner in order) / len(order) if order else 0.0
    share = rule.steps.share(value, standing)
    return Silence(_first(order, share), f"{rule.name}_high" if share else f"{rule.name}_low")


def _capped(rule: CapRule, sights: Sights, order: Sequence[str], off: Collection[str]) -> Silence:
    standing = frozenset(miner for miner in order if miner in off)
    if sights.site_w is None:
        return Silence(_without_meter(rule, sights, order, standing), f"{rule.name}_meter_dead_{rule.dead.value}")
    changed = _under_the_cap(rule, sights, sights.site_w, order, standing) if sights.settled else standing
    return Silence(changed, f"{rule.name}_over" if changed else f"{rule.name}_under")


def _under_the_cap(
    rule: CapRule, sights: Sights, site_w: Watts, order: Sequence[str], standing: frozenset[str]
) -> frozenset[str]:
    """Return who is off next: more while the site is over its cap, fewer while there is room well below it."""
    over_w = site_w - rule.cap_w
    changed = set(standing)
    for miner in order if over_w > 0 else ():
        if over_w <= 0:
            break
        if miner not in changed:
            changed.add(miner)
            over_w -= sights.load_w.get(miner, 0.0)
    room_w = rule.cap_w - rule.back_by_w - site_w
    for miner in reversed(order) if site_w <= rule.cap_w else ():
        if miner in standing:
            room_w -= sights.load_w.get(miner, math.inf)
            if room_w < 0:
                break
            changed.discard(miner)
    return frozenset(changed)


def _without_meter(rule: CapRule, sights: Sights, order: Sequence[str], standing: frozenset[str]) -> frozenset[str]:
    if rule.dead is not DeadMeter.NAMEPLATE:
        return _fallen_back(Fallback(rule.dead.value), order, standing)
    lying_w = sum(sights.load_w.get(miner, math.inf) for miner in order if miner in sights.liars)
    room_w, running = rule.cap_w - rule.other_w - lying_w, set()
    for miner in reversed([miner for miner in order if miner not in sights.liars]):
        room_w -= sights.load_w.get(miner, math.inf)
        if room_w < 0:
            break
        running.add(miner)
    return frozenset(order) - running


def _fallen_back(mode: Fallback, order: Sequence[str], off: Collection[str]) -> frozenset[str]:
    if mode is Fallback.STOP:
        return frozenset(order)
    return frozenset(miner for miner in order if miner in off) if mode is Fallback.HOLD else frozenset()


def _first(order: Sequence[str], share: float) -> frozenset[str]:
    """Return the first ``share`` of the fleet, whole miners, rather one more."""
    return frozenset(order[: math.ceil(share * len(order) - 1e-9)])
