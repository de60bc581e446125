"""The overview's view model: sites by urgency. Pure."""

from dataclasses import dataclass
from datetime import datetime

from cloud.api.source import FleetRead, FleetSite
from cloud.api.views import formats
from cloud.api.views.alerts import tolerance_w
from cloud.api.views.formats import UNKNOWN, Figure, number, plural
from cloud.api.views.series import slot_at
from cloud.api.views.verdict import judge_fleet
from cloud.api.views.wording import Level, Sentence, Tile, Verdict
from sitelink.units import TeraHashPerSecond, Watts


@dataclass(frozen=True, slots=True)
class SiteLine:
    """One site in the list. ``deviation`` is meter minus plan."""

    site: FleetSite
    level: Level
    state: Sentence
    power: Figure
    planned: Figure
    deviation: Figure
    hashrate: Figure
    miners: str
    detail: str


@dataclass(frozen=True, slots=True)
class FleetScreen:
    """Everything the overview shows."""

    as_of: datetime
    verdict: Verdict
    tiles: tuple[Tile, ...]
    sites: tuple[SiteLine, ...]


def build_fleet(read: FleetRead) -> FleetScreen:
    """Return the overview of ``read``: the most urgent site first, then by name."""
    lines = [_line(site, read.read_at) for site in read.sites]
    verdict = judge_fleet(read.sites, [line.level for line in lines])
    lines.sort(key=lambda line: (line.level.rank, line.site.summary.name))
    return FleetScreen(read.read_at, verdict, _tiles(read, lines) if read.sites else (), tuple(lines))


def _line(site: FleetSite, now: datetime) -> SiteLine:
    summary, plan = site.summary, site.plan
    slot = slot_at(plan.slots, now) if plan else None
    planned = None if slot is None else slot.planned_w
    away = None if planned is None or summary.power_w is None else Watts(summary.power_w - planned)
    level, state = _state(site, now, planned, away)
    return SiteLine(
        site=site,
        level=level,
        state=state,
        power=formats.power(summary.power_w),
        planned=formats.power(planned),
        deviation=formats.power(away, sign=True),
        hashrate=formats.hashrate(summary.hashrate_ths),
        miners=f"{number(summary.hashing)} of {number(summary.miners_total)}",
        detail=_detail(site),
    )


def _detail(site: FleetSite) -> str:
    summary = site.summary
    parts = (
        f"{number(summary.stopped_by_plan)} ordered off" if summary.stopped_by_plan else "",
        f"{number(summary.unknown)} not known" if summary.unknown else "",
    )
    return " · ".join(part for part in parts if part)


def _state(site: FleetSite, now: datetime, planned: Watts | None, away: Watts | None) -> tuple[Level, Sentence]:
    link = site.summary.link
    if link.last_heard is None:
        return Level.UNKNOWN, ("no agent yet",)
    if not link.up:
        return Level.UNKNOWN, ("link lost at ", link.last_heard)
    stops = site.plan.stops if site.plan else ()
    running = next((stop for stop in stops if stop.interval.contains(now)), None)
    off = away is not None and planned is not None and abs(away) > tolerance_w(planned)
    if running is not None:
        short = off and away is not None and away > 0
        return (Level.HIGH if short else Level.NORMAL), ("shedding until ", running.interval.end)
    upcoming = min((s.interval.start for s in stops if s.interval.start > now), default=None)
    words: Sentence = ("running; next stop at ", upcoming) if upcoming else ("running",)
    return (Level.LOW if off else Level.NORMAL), words


def _tiles(read: FleetRead, lines: list[SiteLine]) -> tuple[Tile, ...]:
    summaries = [site.summary for site in read.sites]
    metered = [summary.power_w for summary in summaries if summary.power_w is not None]
    hashing = [summary.hashrate_ths for summary in summaries if summary.hashrate_ths is not None]
    slots = [slot_at(site.plan.slots, read.read_at) if site.plan else None for site in read.sites]
    planned = [slot.planned_w for slot in slots if slot is not None and slot.planned_w is not None]
    whole = len(metered) == len(planned) == len(summaries)
    aim = f"plan {formats.power(Watts(sum(planned)))}" if whole else f"{len(metered)} of {len(summaries)} meters report"
    live = sum(summary.link.up for summary in summaries)
    total = sum(summary.miners_total for summary in summaries)
    unknown = sum(summary.unknown for summary in summaries)
    stopped = sum(summary.stopped_by_plan for summary in summaries)
    running = sum(summary.hashing for summary in summaries)
    off = sum(summary.idle for summary in summaries)
    power = formats.power(Watts(sum(metered))) if metered else UNKNOWN
    rate = formats.hashrate(TeraHashPerSecond(sum(hashing))) if hashing else UNKNOWN
    links = Level.NORMAL if live == len(summaries) else Level.UNKNOWN
    sheds = sum(line.state[0] == "shedding until " for line in lines)
    return (
        Tile("Power", power, (aim,), source="site meters"),
        Tile("Hash rate", rate, (f"from {plural(total - unknown, 'miner', 'miners')} that report",), source="devices"),
        Tile(
            "Miners",
            Figure(number(running), f"of {number(total)} hash"),
            (f"{number(off)} off, {number(stopped)} ordered off · {number(unknown)} not known",),
            source="devices",
        ),
        Tile(
            "Sites",
            Figure(number(live), f"of {number(len(summaries))} live"),
            (f"{plural(sheds, 'site sheds', 'sites shed')} now",),
            links,
            "agent links",
        ),
    )
