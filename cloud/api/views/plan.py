"""The plan page's view model: the plan in force, its curtailments, and how past ones were verified. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cloud.api.source import PlanFacts, PlannedStop, SiteRead, StopCheck
from cloud.api.views import formats, series
from cloud.api.views.alerts import Situation
from cloud.api.views.formats import Figure, duration, number, percent, plural
from cloud.api.views.site import WINDOWS, Chart, choose_window, draw_chart
from cloud.api.views.verdict import late_site, silent_site
from cloud.api.views.wording import Level, Sentence, Tile, Verdict
from cloud.hosting.model import SiteSummary
from sitelink.types import CurtailmentCause, Evidence

CAUSES: Final = {
    CurtailmentCause.PRICE: "price above break-even",
    CurtailmentCause.MUST_SHED: "grid operator's request",
    CurtailmentCause.MANUAL: "set by hand",
}
METHODS: Final = {"solver": "the solver", "break_even": "the break-even rule", "greedy": "the greedy rule"}
_RESULTS: Final = {"verified": Level.NORMAL, "partial": Level.HIGH, "unverified": Level.UNKNOWN}
EVIDENCE: Final = {
    Evidence.SITE_METER: "site meter",
    Evidence.FEEDER_METER: "feeder meter",
    Evidence.DEVICE_POWER: "device power",
    Evidence.DEVICE_STATE: "device state only",
    Evidence.NONE: "none",
}


@dataclass(frozen=True, slots=True)
class StopLine:
    """One planned curtailment: when, how many miners, how much."""

    stop: PlannedStop
    phase: str
    cause: str
    length: str
    miners: Figure
    shed: Figure
    target: Figure


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One verified curtailment: what its energy rests on, and what confirmed its stops."""

    check: StopCheck
    level: Level
    result: str
    energy_by: str
    stops_by: str
    verified: Figure
    expected: Figure
    counts: str
    shortfall: str


@dataclass(frozen=True, slots=True)
class PlanScreen:
    """Everything the plan page shows."""

    summary: SiteSummary
    as_of: datetime
    window: str
    verdict: Verdict
    tiles: tuple[Tile, ...]
    plan: PlanFacts | None
    stops: tuple[StopLine, ...]
    checks: tuple[CheckLine, ...]
    chart: Chart
    method: str
    delivery: str


def build_plan(read: SiteRead, window: str | None) -> PlanScreen:
    """Return the plan page of ``read``."""
    situation = Situation.of(read)
    read = situation.read
    chosen = window or _covering(read)
    stops = tuple(_stop_line(stop, read.read_at) for stop in (read.plan.stops if read.plan else ()))
    return PlanScreen(
        summary=read.summary,
        as_of=read.read_at,
        window=chosen,
        verdict=_verdict(situation),
        tiles=_tiles(read),
        plan=read.plan,
        stops=stops,
        checks=tuple(_check_line(check) for check in read.checks),
        chart=draw_chart(read, WINDOWS[chosen]),
        method=_method(read.plan) if read.plan else "",
        delivery=_delivery(read),
    )


def _covering(read: SiteRead) -> str:
    """Return the smallest window whose future holds the next change, at least the site page's own."""
    least = choose_window(read)
    ends = [stop.interval.end for stop in (read.plan.stops if read.plan else ()) if stop.interval.end > read.read_at]
    if not ends:
        return least
    needed = min(ends) - read.read_at
    return next((name for name, span in WINDOWS.items() if span >= WINDOWS[least] and span / 2 >= needed), "24h")


def _verdict(situation: Situation) -> Verdict:
    read = situation.read
    plan, now = read.plan, read.read_at
    if plan is None:
        return Verdict(Level.LOW, ("No plan yet.",), ("The planner makes one once prices and an inventory are known.",))
    if plan.valid.end <= now:
        return Verdict(
            Level.HIGH, ("The plan expired at ", plan.valid.end, "."), ("The site follows its configured fallback.",)
        )
    level = Level.NORMAL if read.summary.link.plan_revision >= plan.revision else Level.LOW
    if read.summary.link.lost:
        return silent_site(situation, (), Level.UNKNOWN)
    if situation.catching_up:
        return late_site(situation)
    if situation.stop is not None:
        return _running(situation, level)
    coming = min((s for s in plan.stops if s.interval.start > now), key=lambda s: s.interval.start, default=None)
    if coming is None:
        return Verdict(level, ("Run everything; no curtailment is planned.",), (_delivery(read),))
    miners = plural(len(coming.miner_ids), "miner stops", "miners stop")
    return Verdict(
        level,
        (
            f"Next: {miners} at ",
            coming.interval.start,
            ".",
        ),
        (_delivery(read),),
    )


def _running(situation: Situation, level: Level) -> Verdict:
    stop, away = situation.stop, situation.off_target_w
    assert stop is not None
    release: Sentence = ("; release at ", stop.interval.end, ".")
    delivered = (_delivery(situation.read),)
    if away is not None and away > 0 and situation.beyond_tolerance and not situation.settling:
        return Verdict(
            Level.HIGH, (f"Curtailment running, {situation.off_target()} short of target", *release), delivered
        )
    return Verdict(level, ("Curtailment running", *release), delivered)


def _delivery(read: SiteRead) -> str:
    plan, link = read.plan, read.summary.link
    if plan is None:
        return "Nothing to deliver."
    if link.plan_revision >= plan.revision:
        return f"Revision {plan.revision} is on site."
    held = f"it holds revision {link.plan_revision}" if link.plan_revision > 0 else "it holds none"
    return f"Revision {plan.revision} is not on site yet; {held}."


def _tiles(read: SiteRead) -> tuple[Tile, ...]:
    plan, now = read.plan, read.read_at
    market = series.slot_at(read.prices, now)
    ahead = [slot.price_usd_per_mwh for slot in read.prices if slot.interval.end > now]
    span: Sentence = ("no prices known",)
    if ahead:
        span = (f"ahead {number(min(ahead), 2)} to {number(max(ahead), 2)}",)
    elif read.prices:
        span = ("priced until ", max(slot.interval.end for slot in read.prices))
    slot = series.slot_at(plan.slots, now) if plan else None
    load = formats.power(slot.planned_w if slot else None)
    metered = f"meter {formats.power(read.summary.power_w)}"
    price = formats.price(market.price_usd_per_mwh if market else None)
    return (
        Tile("Price now", price, span, Level.NORMAL if price.known else Level.UNKNOWN, "market"),
        Tile("Planned load now", load, (metered,), Level.NORMAL if load.known else Level.UNKNOWN, "plan"),
        _worth_tile(plan),
        _gap_tile(plan),
    )


def _worth_tile(plan: PlanFacts | None) -> Tile:
    if plan is None or plan.objective_usd is None:
        return Tile("Plan's worth", formats.UNKNOWN, ("no plan",), Level.UNKNOWN, "planner")
    bound = f"proven bound {formats.usd(plan.bound_usd)}"
    return Tile("Plan's worth", formats.usd(plan.objective_usd), (bound,), source="planner, estimate")


def _gap_tile(plan: PlanFacts | None) -> Tile:
    if plan is None or plan.gap is None:
        return Tile("Gap to optimum", formats.UNKNOWN, ("no plan",), Level.UNKNOWN, "planner")
    return Tile(
        "Gap to optimum",
        percent(plan.gap, 2),
        (f"by {_method(plan)}",),
        source="planner",
    )


def _method(plan: PlanFacts) -> str:
    return METHODS.get(plan.method, plan.method.replace("_", " "))


def _stop_line(stop: PlannedStop, now: datetime) -> StopLine:
    if stop.interval.contains(now):
        phase = "running"
    else:
        phase = "done" if stop.interval.end <= now else f"in {duration(_whole_minutes(stop.interval.start - now))}"
    return StopLine(
        stop=stop,
        phase=phase,
        cause=CAUSES[stop.cause],
        length=duration(stop.interval.duration),
        miners=Figure(number(len(stop.miner_ids))),
        shed=formats.power(stop.expected_w),
        target=formats.power(stop.target_power_w),
    )


def _whole_minutes(span: timedelta) -> timedelta:
    return timedelta(minutes=max(1, round(span / timedelta(minutes=1))))


def _check_line(check: StopCheck) -> CheckLine:
    level, result = _judge(check)
    counts = (
        f"{number(check.complete)} complete",
        f"{number(check.partial)} partial" if check.partial else "",
        f"{number(check.unverified)} unverified" if check.unverified else "",
    )
    return CheckLine(
        check=check,
        level=level,
        result=result,
        energy_by="no metered energy" if check.verified_mwh is None else "energy by site meter",
        stops_by=_grades(check.evidence),
        verified=formats.energy(check.verified_mwh),
        expected=formats.energy(check.expected_mwh),
        shortfall=_shortfall(check),
        counts=" · ".join(part for part in counts if part),
    )


_WHOLE: Final = 0.9
"""A check is whole when it verifies this share of the expected energy, and every stop."""


def _judge(check: StopCheck) -> tuple[Level, str]:
    """Return the check's result with the share it verified; normal only where it verified all."""
    level, word = _RESULTS.get(check.result, Level.UNKNOWN), check.result.replace("_", " ")
    if check.verified_mwh is None or not check.expected_mwh:
        return level, word
    share = check.verified_mwh / check.expected_mwh
    whole = check.complete == check.miners and share >= _WHOLE
    return (Level.LOW if level is Level.NORMAL and not whole else level), f"{percent(share, 0)} {word}"


def _shortfall(check: StopCheck) -> str:
    """Return why less than everything is verified; empty where all is."""
    rest = check.miners - check.complete
    if rest:
        liars = f", {plural(len(check.liars), 'liar', 'liars')} among them" if check.liars else ""
        return f"{number(rest)} of {plural(check.miners, 'stop', 'stops')} not confirmed{liars}"
    if check.verified_mwh is not None and check.expected_mwh and check.verified_mwh < _WHOLE * check.expected_mwh:
        return "the meter shows less than the plan expected"
    return ""


def _grades(evidence: Mapping[Evidence, int] | None) -> str:
    """Return how many stops each grade of evidence confirmed, best first."""
    if evidence is None:
        return formats.NOT_KNOWN
    return (
        " · ".join(f"{number(count)} by {EVIDENCE[grade]}" for grade, count in evidence.items()) or "no stop confirmed"
    )
