"""What a new plan owes to the one before it. Pure.

Invariants:

* A curtailment that has begun, or begins before the lead time is over, keeps its id, its start and its miners. Its
  release may move, never below the lead time; it moves later only where the new optimum holds it (price still above
  break-even, or a cap) and the longest off time allows.
* A curtailment that is over stays in the plan until its miners are surely restored, so that the site keeps the ramp.
* While prices are unknown, price curtailments are planned with the prices that they were planned with, and nobody joins
  them: nothing is invented and nothing is dropped, and a must-shed window is still kept.
* A window of the new plan that overlaps one of the same cause takes over its id.

      now     lead
       |  over  |
    ===|===     |            over       kept as is
       |   =====|======      begun      a block: released together, at or after ``lead``
       |        |   ======   pending    replanned freely
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cloud.planner.model import FleetMiner, Group, Plan, Planned, Price, Rules, SkipReason, Slot
from sitelink.types import CurtailmentCause, Interval
from sitelink.units import Watts


@dataclass(frozen=True, slots=True)
class Standing:
    """The curtailments of the plan in force, by what a new plan may do to them. ``pinned`` end within the lead time."""

    over: tuple[Planned, ...] = ()
    pinned: tuple[Planned, ...] = ()
    begun: tuple[Planned, ...] = ()
    pending: tuple[Planned, ...] = ()

    @property
    def kept_miners(self) -> frozenset[str]:
        """Return the miners that are not free: pinned, or in a block."""
        return frozenset(name for item in (*self.pinned, *self.begun) for name in item.curtailment.miner_ids)


def standing(current: Plan | None, now: datetime, start: datetime, restore: timedelta) -> Standing:
    """Sort the curtailments of ``current``; ``start`` is the earliest instant that can still be planned."""
    over, pinned, begun, pending = [], [], [], []
    for item in current.curtailments if current else ():
        interval = item.curtailment.interval
        if interval.end <= now:
            if interval.end + restore > now:
                over.append(item)
        elif interval.end <= start and interval.start < start:
            pinned.append(item)
        elif interval.start < start:
            begun.append(item)
        else:
            pending.append(item)
    return Standing(tuple(over), tuple(pinned), tuple(begun), tuple(pending))


def blocks(
    items: Iterable[Planned], miners: Mapping[str, FleetMiner], start: datetime, rules: Rules
) -> tuple[Group, ...]:
    """Return one stopped group with one unit for each begun curtailment; a liar's load is not counted as off."""
    groups = []
    for item in items:
        members = tuple(
            replace(miners[name], skip=None)
            for name in item.curtailment.miner_ids
            if name in miners and miners[name].skip is not SkipReason.LIAR
        )
        if members:
            begun = item.curtailment.interval.start
            groups.append(
                Group(
                    name=block_name(item),
                    units=(members,),
                    off_since=begun,
                    earliest_start=max(start, begun + rules.min_down),
                )
            )
    return tuple(groups)


def block_name(item: Planned) -> str:
    """Return the name of a begun curtailment's group."""
    return f"block {item.curtailment.curtailment_id}"


def free_from(items: Iterable[Planned], rules: Rules) -> Mapping[str, datetime]:
    """Return when each miner of a released curtailment has run its minimum time."""
    earliest: dict[str, datetime] = {}
    for item in items:
        for name in item.curtailment.miner_ids:
            moment = item.curtailment.interval.end + rules.min_up
            earliest[name] = max(moment, earliest.get(name, moment))
    return earliest


@dataclass(frozen=True, slots=True)
class Window:
    """A new stop before it has an id."""

    interval: Interval
    cause: CurtailmentCause
    miners: tuple[FleetMiner, ...]

    @property
    def expected_w(self) -> Watts:
        """Return the load that the window takes off."""
        return Watts(sum(miner.power_w for miner in self.miners))


def remembered_prices(current: Plan | None) -> tuple[Price, ...]:
    """Return the prices that the plan's price curtailments rest on, and no others."""
    if current is None:
        return ()
    windows = [item.curtailment.interval for item in _by_price(current)]
    return tuple(
        Price(slot.interval, slot.price_usd_per_mwh)
        for slot in current.slots
        if slot.price_usd_per_mwh is not None and any(window.contains(slot.interval.start) for window in windows)
    )


def without_newcomers(windows: Iterable[Window], current: Plan | None, slots: Sequence[Slot]) -> tuple[Window, ...]:
    """Return ``windows`` without miners that no price curtailment of ``current`` stops then; caps still come first."""
    kept = []
    for window in windows:
        capped = any(slot.cap_w is not None and window.interval.contains(slot.interval.start) for slot in slots)
        if window.cause is not CurtailmentCause.PRICE or capped:
            kept.append(window)
            continue
        known = {
            name
            for item in (_by_price(current) if current else ())
            if _overlap_s(window.interval, item.curtailment.interval) > 0
            for name in item.curtailment.miner_ids
        }
        miners = tuple(miner for miner in window.miners if miner.miner_id in known)
        if miners:
            kept.append(replace(window, miners=miners))
    return tuple(kept)


def _by_price(plan: Plan) -> tuple[Planned, ...]:
    return tuple(item for item in plan.curtailments if item.curtailment.cause is CurtailmentCause.PRICE)


def name_windows(
    windows: Sequence[Window], pending: Sequence[Planned], new_id: Callable[[], str]
) -> tuple[tuple[Window, str, Planned | None], ...]:
    """Return each window with its id and, where it took one over, the curtailment before it."""
    pairs = [(_kinship(window, item), place, item) for place, window in enumerate(windows) for item in pending]
    heirs: dict[int, Planned] = {}
    for kinship, place, item in sorted(pairs, key=lambda pair: -pair[0]):
        if kinship > 0 and place not in heirs and item not in heirs.values():
            heirs[place] = item
    return tuple(
        (window, heirs[place].curtailment.curtailment_id if place in heirs else new_id(), heirs.get(place))
        for place, window in enumerate(windows)
    )


def _kinship(window: Window, item: Planned) -> float:
    """Return how much of a window continues ``item``: shared seconds times shared miners; 0 for another cause."""
    if item.curtailment.cause is not window.cause:
        return 0.0
    shared = len({miner.miner_id for miner in window.miners} & set(item.curtailment.miner_ids))
    return _overlap_s(window.interval, item.curtailment.interval) * shared


def _overlap_s(first: Interval, second: Interval) -> float:
    return max(0.0, (min(first.end, second.end) - max(first.start, second.start)).total_seconds())


def same_orders(first: Sequence[Planned], second: Sequence[Planned]) -> bool:
    """Return whether two plans ask the same of every miner; expectations and targets may differ."""
    return {_order(item) for item in first} == {_order(item) for item in second}


def _order(item: Planned) -> tuple[object, ...]:
    order = item.curtailment
    return (order.curtailment_id, order.cause, order.interval, order.miner_ids, order.ramp_down, order.ramp_up)
