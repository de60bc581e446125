"""The overview's view model: sites by urgency. Pure.

Invariant: a site's line says what its own page says: level, sentence and counts come from the same rules.
"""

from dataclasses import dataclass
from datetime import datetime

from cloud.api.source import FleetRead
from cloud.api.views import formats
from cloud.api.views.alerts import Situation, find_alerts
from cloud.api.views.formats import UNKNOWN, Figure, number, plural
from cloud.api.views.miners import add_up, count_words
from cloud.api.views.verdict import judge_fleet, judge_site
from cloud.api.views.wording import Level, Tile, Verdict
from cloud.hosting.model import SiteSummary
from sitelink.units import TeraHashPerSecond, Watts


@dataclass(frozen=True, slots=True)
class SiteLine:
    """One site in the list. ``deviation`` is meter minus plan."""

    summary: SiteSummary
    verdict: Verdict
    power: Figure
    planned: Figure
    deviation: Figure
    hashrate: Figure
    miners: Figure
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
    situations = [Situation.of(site) for site in read.sites]
    judged = sorted(
        ((_line(situation), situation) for situation in situations),
        key=lambda pair: (pair[0].verdict.level.rank, pair[0].summary.name),
    )
    lines = [line for line, _ in judged]
    verdict = judge_fleet([(line.summary.name, line.verdict, situation) for line, situation in judged])
    return FleetScreen(read.read_at, verdict, _tiles(situations) if situations else (), tuple(lines))


def _line(situation: Situation) -> SiteLine:
    summary, census = situation.read.summary, situation.census
    known = bool(census.reporting) or not census.total
    return SiteLine(
        summary=summary,
        verdict=judge_site(situation, find_alerts(situation)),
        power=formats.power(summary.power_w),
        planned=formats.power(situation.planned_w),
        deviation=situation.off_target(sign=True),
        hashrate=formats.hashrate(census.hashrate_ths),
        miners=Figure(f"{number(census.running)} of {number(census.total)}") if known else UNKNOWN,
        detail=count_words(census) if known else f"{number(census.total)} miners",
    )


def _tiles(situations: list[Situation]) -> tuple[Tile, ...]:
    return (_power_tile(situations), _hash_tile(situations), _miners_tile(situations), _sites_tile(situations))


def _power_tile(situations: list[Situation]) -> Tile:
    metered = [item.read.summary.power_w for item in situations if item.read.summary.power_w is not None]
    planned = [item.planned_w for item in situations if item.planned_w is not None]
    if len(metered) < len(situations):
        level = Level.NORMAL if metered else Level.UNKNOWN
        figure = formats.power(Watts(sum(metered))) if metered else UNKNOWN
        return Tile("Power", figure, (f"{len(metered)} of {len(situations)} meters report",), level, "site meters")
    whole = Watts(sum(metered))
    if len(planned) < len(situations):
        against = f"{len(planned)} of {len(situations)} sites have a plan for now"
    else:
        away = formats.power_gap(whole, Watts(sum(planned)), sign=True)
        against = f"plan {formats.power(Watts(sum(planned)))} · {away}"
    return Tile("Power", formats.power(whole), (against,), source="site meters")


def _hash_tile(situations: list[Situation]) -> Tile:
    rates = [item.census.hashrate_ths for item in situations if item.census.hashrate_ths is not None]
    if not rates:
        return Tile("Hash rate", UNKNOWN, ("no miner reports one",), Level.UNKNOWN, "devices")
    heard = sum(item.census.reporting for item in situations)
    rate = formats.hashrate(TeraHashPerSecond(sum(rates)))
    return Tile("Hash rate", rate, (f"from {plural(heard, 'miner', 'miners')} that report",), source="devices")


def _miners_tile(situations: list[Situation]) -> Tile:
    census = add_up([item.census for item in situations])
    if census.total and not census.reporting:
        return Tile("Miners", UNKNOWN, (f"none of {number(census.total)} reports",), Level.UNKNOWN, "devices")
    figure = Figure(number(census.running), f"of {number(census.total)} run")
    return Tile("Miners", figure, (count_words(census) or "all run",), source="devices")


def _sites_tile(situations: list[Situation]) -> Tile:
    links = [item.read.summary.link for item in situations]
    live = sum(link.up for link in links)
    lost = sum(link.lost for link in links)
    late = sum(item.catching_up for item in situations)
    sheds = sum(item.stop is not None for item in situations)
    by_plan = " by plan" if lost or late else ""
    parts = (
        plural(lost, "link lost", "links lost") if lost else "",
        f"{number(late)} catching up" if late else "",
        plural(sheds, "curtailment runs", "curtailments run") + by_plan if sheds else "no curtailment runs" + by_plan,
    )
    level = Level.UNKNOWN if lost or late else Level.NORMAL
    against = " · ".join(part for part in parts if part)
    return Tile("Sites", Figure(number(live), f"of {number(len(links))} live"), (against,), level, "agent links")
