"""One site's next plan: gather, optimise, assemble. No database; the clock's reading is an argument.

Invariants: equal inputs give an equal plan but for new ids; a plan always says when each stop ends; the plan is valid
until every miner is surely restored, so a site that accepts a stop holds its start too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cloud.planner.check import loads_w
from cloud.planner.continuity import (
    Standing,
    Window,
    block_name,
    blocks,
    free_from,
    name_windows,
    remembered_prices,
    standing,
    without_newcomers,
)
from cloud.planner.fleet import alike, constant_w, count_skipped, count_unknown_load
from cloud.planner.model import (
    Answer,
    FleetMiner,
    Group,
    Limits,
    Method,
    Plan,
    Planned,
    Price,
    Problem,
    Rules,
    Signal,
    SignalKind,
    SkipReason,
    Slot,
    UnratedMiner,
    Usd,
    stop_order,
)
from cloud.planner.optimise import optimise
from cloud.planner.slots import build_slots
from sitelink.types import Curtailment, CurtailmentCause, Interval
from sitelink.units import Watts

_SECOND: Final = timedelta(seconds=1)
_CAUSES: Final = {SignalKind.MANUAL: CurtailmentCause.MANUAL, SignalKind.MUST_SHED: CurtailmentCause.MUST_SHED}


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything one site's plan depends on.

    ``price_reason`` says why prices are unknown, and is empty otherwise. ``silent``: the site was not heard lately.
    ``unrated`` are miners that no plan touches, since their nameplate is not known.
    """

    site_id: str
    now: datetime
    miners: tuple[FleetMiner, ...]
    prices: tuple[Price, ...]
    price_reason: str
    signals: tuple[Signal, ...]
    current: Plan | None
    rules: Rules
    limits: Limits
    horizon: timedelta
    solver_limit_s: float = 10.0
    silent: bool = False
    unrated: tuple[UnratedMiner, ...] = ()

    @property
    def start(self) -> datetime:
        """Return the first instant that can still be planned: now plus lead, on a whole second."""
        earliest = self.now + self.limits.lead
        floor = earliest.replace(microsecond=0)
        return floor if floor == earliest else floor + _SECOND


def next_plan(situation: Situation, new_id: Callable[[], str]) -> Plan:
    """Return the plan after ``situation.current`` (revision + 1, or 1), whether or not it differs.

    Raises:
        PlannerDefect: no legal schedule was found.
    """
    keep = standing(
        situation.current,
        situation.now,
        situation.start,
        _restore_time(situation.limits, situation.miners),
    )
    by_id = {miner.miner_id: miner for miner in situation.miners}
    slots = _slots(situation, keep, by_id)
    groups = _groups(situation, keep, by_id)
    if not slots or not groups:
        return _plan(situation, keep, (), None, None)
    problem = Problem(slots, groups, situation.rules)
    answer = optimise(problem, situation.solver_limit_s)
    held = _held_blocks(situation, keep, problem, answer)
    windows = _windows(problem, answer, situation.signals)
    if situation.price_reason:
        windows = without_newcomers(windows, situation.current, slots)
    loads = loads_w(problem, answer.schedule)
    fresh = tuple(
        _planned(situation, window, name, before, problem, loads)
        for window, name, before in name_windows(windows, keep.pending, new_id)
    )
    return _plan(situation, keep, (*held, *fresh), problem, answer)


def _slots(situation: Situation, keep: Standing, by_id: Mapping[str, FleetMiner]) -> tuple[Slot, ...]:
    """Return the grid with each slot's constant load: what cannot be stopped, and pinned miners while they run."""
    prices = remembered_prices(situation.current) if situation.price_reason else situation.prices
    held = keep.kept_miners  # those that nobody can read any more stay with their curtailment
    fixed = constant_w(
        [item for item in situation.miners if item.skip is not SkipReason.NOT_SEEN or item.miner_id not in held],
        situation.unrated,
    )
    slots = build_slots(situation.start, situation.horizon, prices, situation.signals, fixed)
    pinned = [(item.curtailment.interval, _power_w(item, by_id)) for item in keep.pinned]
    return tuple(
        replace(
            slot,
            constant_w=Watts(
                slot.constant_w + sum(power for window, power in pinned if not window.contains(slot.interval.start))
            ),
        )
        for slot in slots
    )


def _power_w(item: Planned, by_id: Mapping[str, FleetMiner]) -> float:
    members = (by_id[name] for name in item.curtailment.miner_ids if name in by_id)
    return sum(miner.power_w for miner in members if miner.skip is not SkipReason.LIAR)


def _groups(situation: Situation, keep: Standing, by_id: Mapping[str, FleetMiner]) -> tuple[Group, ...]:
    """Return blocks first, then running groups; a miner just released counts as running though it still warms up."""
    released = free_from(keep.over, situation.rules)
    taken = keep.kept_miners
    free = [
        replace(miner, skip=None)
        for miner in situation.miners
        if miner.miner_id not in taken
        and (miner.skip is None or (miner.skip is SkipReason.NOT_HASHING and miner.miner_id in released))
    ]
    locked = {name: moment for name, moment in released.items() if moment > situation.start}
    return (*blocks(keep.begun, by_id, situation.start, situation.rules), *alike(free, locked))


def _held_blocks(situation: Situation, keep: Standing, problem: Problem, answer: Answer) -> tuple[Planned, ...]:
    """Return begun curtailments with their new release."""
    held = []
    for item in keep.begun:
        ranges = answer.schedule.off.get(block_name(item), ((),))[0]
        interval = item.curtailment.interval
        if block_name(item) not in answer.schedule.off:  # nobody but liars: nothing to decide
            held.append(item)
            continue
        release = situation.start
        if ranges and ranges[0][0] == 0:
            release = problem.slots[ranges[0][1] - 1].interval.end
        release = max(release, min(interval.end, interval.start + situation.rules.min_down), situation.start)
        held.append(replace(item, curtailment=replace(item.curtailment, interval=Interval(interval.start, release))))
    return tuple(held)


def _windows(problem: Problem, answer: Answer, signals: Sequence[Signal]) -> tuple[Window, ...]:
    """Return the new stops: miners that share a window and a cause, in stop order."""
    found: dict[tuple[Interval, CurtailmentCause], list[FleetMiner]] = {}
    for group in problem.groups:
        for unit, ranges in zip(group.units, answer.schedule.off[group.name], strict=True):
            for first, past in ranges:
                if group.off_since is not None and first == 0:
                    continue  # the block itself, not a new stop
                interval = _interval(problem, first, past)
                cause = _cause(problem, unit, first, past, signals)
                found.setdefault((interval, cause), []).extend(unit)
    return tuple(
        Window(interval, cause, tuple(sorted(miners, key=stop_order)))
        for (interval, cause), miners in sorted(found.items(), key=lambda item: (item[0][0].start, item[0][0].end))
    )


def _interval(problem: Problem, first: int, past: int) -> Interval:
    start, end = problem.slots[first].interval.start, problem.slots[past - 1].interval.end
    if past == len(problem.slots):  # nothing is known beyond the horizon; only the minimum time is owed
        end = max(end, start + problem.rules.min_down)
    return Interval(start, end)


def _cause(
    problem: Problem, unit: Sequence[FleetMiner], first: int, past: int, signals: Sequence[Signal]
) -> CurtailmentCause:
    value = sum(problem.value_usd(miner, slot) for miner in unit for slot in problem.slots[first:past])
    if value < 0:
        return CurtailmentCause.PRICE
    start = problem.slots[first].interval.start
    holding = [item for item in signals if item.cap_w is not None and item.interval.contains(start)]
    tightest = min(holding, key=lambda item: item.cap_w or 0.0, default=None)
    return CurtailmentCause.MUST_SHED if tightest is None else _CAUSES[tightest.kind]


def _planned(
    situation: Situation,
    window: Window,
    name: str,
    before: Planned | None,
    problem: Problem,
    loads: Sequence[Watts],
) -> Planned:
    inside = [
        load for slot, load in zip(problem.slots, loads, strict=True) if window.interval.contains(slot.interval.start)
    ]
    signal = _signal_of(window, situation.signals)
    return Planned(
        curtailment=Curtailment(
            curtailment_id=name,
            cause=window.cause,
            interval=window.interval,
            miner_ids=tuple(miner.miner_id for miner in window.miners),
            ramp_down=situation.limits.ramp_down,
            ramp_up=situation.limits.ramp_up,
            target_power_w=Watts(max(inside)) if inside else None,
        ),
        expected_w=window.expected_w,
        signal_at=before.signal_at if before else (signal.received_at if signal else situation.now),
        signal_id=before.signal_id if before else (signal.signal_id if signal else ""),
    )


def _signal_of(window: Window, signals: Sequence[Signal]) -> Signal | None:
    price = window.cause is CurtailmentCause.PRICE
    kin = [
        item
        for item in signals
        if (item.kind is SignalKind.PRICE_SPIKE) is price
        and item.interval.start < window.interval.end
        and window.interval.start < item.interval.end
    ]
    return min(kin, key=lambda item: item.received_at, default=None)


def _unknown_load(situation: Situation) -> str:
    """Return what the plan's load leaves out, in words; empty when it leaves out nothing."""
    count = count_unknown_load(situation.unrated)
    return f"without the load of {count} miners whose nameplate is not known" if count else ""


def _restore_time(limits: Limits, miners: Sequence[FleetMiner]) -> timedelta:
    """Return how long the ramp up of the whole fleet takes, with the margin."""
    if limits.ramp_up.step_w <= 0:
        return limits.margin
    steps = math.ceil(sum(miner.power_w for miner in miners) / limits.ramp_up.step_w)
    return limits.margin + timedelta(seconds=steps * limits.ramp_up.step_s)


def _plan(
    situation: Situation,
    keep: Standing,
    fresh: Sequence[Planned],
    problem: Problem | None,
    answer: Answer | None,
) -> Plan:
    curtailments = (*keep.over, *keep.pinned, *(fresh or ((*keep.begun,) if answer is None else ())))
    last = max((item.curtailment.interval.end for item in curtailments), default=situation.now)
    until = max(last + _restore_time(situation.limits, situation.miners), situation.now + situation.limits.min_validity)
    reasons = [
        situation.price_reason,
        answer.reason if answer else "nothing to decide: no known price or cap, or nobody to stop",
        _unknown_load(situation),
    ]
    return Plan(
        site_id=situation.site_id,
        revision=situation.current.revision + 1 if situation.current else 1,
        plan_id="",
        created_at=situation.now,
        valid=Interval(situation.now, until),
        curtailments=tuple(
            sorted(curtailments, key=lambda item: (item.curtailment.interval.start, item.curtailment.curtailment_id))
        ),
        objective_usd=answer.objective_usd if answer else Usd(0.0),
        bound_usd=answer.bound_usd if answer else Usd(0.0),
        gap=answer.gap if answer else 0.0,
        method=answer.method if answer else Method.BREAK_EVEN,
        reason="; ".join(reason for reason in reasons if reason),
        slack_mwh=answer.slack_mwh if answer else 0.0,
        skipped=count_skipped((*situation.miners, *situation.unrated)),
        slots=problem.slots if problem else (),
        planned_w=loads_w(problem, answer.schedule) if problem and answer else (),
    )
