"""The site page's view model. Pure.

Invariant: verdict, tiles, alarms, chart end and map are made from the same read and carry its one ``as_of``.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cloud.api.source import SiteRead
from cloud.api.views import formats, series
from cloud.api.views.alerts import Situation, find_alerts, meter_gap_share
from cloud.api.views.formats import NOT_KNOWN, Figure, number, percent, plural
from cloud.api.views.heard import heard_now
from cloud.api.views.miners import Census, RackMap, count_words, draw_racks
from cloud.api.views.verdict import judge_site
from cloud.api.views.wording import Alert, Level, Sentence, Tile, Verdict
from cloud.hosting.model import LinkState, SiteSummary
from sitelink.types import Interval, Notice
from sitelink.units import (
    TeraHashPerSecond,
    UsdPerMegawattHour,
    UsdPerPetahashDay,
    Watts,
    hash_revenue_usd_per_h,
    megawatts,
)

WINDOWS: Final = {
    "5m": timedelta(minutes=5),
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "24h": timedelta(hours=24),
}
"""How much of the past the chart shows; half as much of the future is shown beside it."""

LONGEST: Final = timedelta(hours=6)
_EVENTS: Final = 12


@dataclass(frozen=True, slots=True)
class Chart:
    """Power in MW against plan with its tolerance, and price in USD/MWh, on one axis (seconds since 1970).

    ``plan_steps`` and ``price_steps`` are the same with the slots' own edges, which the lines are drawn by.
    From ``unheard_from`` until now nothing is known; None while the site is heard.
    """

    axis: series.Axis
    seconds: tuple[int, ...]
    power_mw: series.Values
    planned_mw: series.Values
    price_usd_per_mwh: series.Values
    windows: tuple[tuple[int, int], ...]
    plan_steps: series.Steps
    price_steps: series.Steps
    bridge_s: float = 0.0
    unheard_from: int | None = None

    @property
    def shows_window(self) -> bool:
        """Return whether a curtailment lies in the time shown."""
        first, last = self.seconds[0], self.seconds[-1]
        return any(start < last and end > first for start, end in self.windows)

    def document(self) -> dict[str, object]:
        """Return the chart as the browser takes it."""
        return {
            "t": self.seconds,
            "step": self.axis.step_s,
            "power": self.power_mw,
            "plan": self.planned_mw,
            "price": self.price_usd_per_mwh,
            "windows": self.windows,
            "plan_steps": self.plan_steps,
            "price_steps": self.price_steps,
            "bridge": self.bridge_s,
            "unheard": self.unheard_from,
        }


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """The site's agent and its link, in words."""

    link: LinkState
    level: Level
    state: str
    plan: Sentence
    clock: str
    meter_check: Sentence


@dataclass(frozen=True, slots=True)
class SiteScreen:
    """Everything the site page shows."""

    summary: SiteSummary
    as_of: datetime
    window: str
    verdict: Verdict
    tiles: tuple[Tile, ...]
    alerts: tuple[Alert, ...]
    events: tuple[Notice, ...]
    chart: Chart
    racks: RackMap
    census: Census
    link: LinkFacts

    def tick(self) -> dict[str, object]:
        """Return the chart's last point, which is the tiles' own figures."""
        now = int(self.as_of.timestamp())
        metered = self.summary.power_w
        return {"as_of": self.as_of.isoformat(), "t": now, "power": None if metered is None else _mw(metered)}


def build_site(read: SiteRead, window: str | None, hashprice: UsdPerPetahashDay) -> SiteScreen:
    """Return the site page of ``read``; ``window`` None chooses one that the history fills."""
    situation = Situation.of(read)
    alerts = find_alerts(situation)
    known = situation.read
    chosen = window or choose_window(known)
    return SiteScreen(
        summary=known.summary,
        as_of=known.read_at,
        window=chosen,
        verdict=judge_site(situation, alerts),
        tiles=_tiles(situation, hashprice),
        alerts=alerts,
        events=known.notices[:_EVENTS],
        chart=draw_chart(known, WINDOWS[chosen]),
        racks=draw_racks(known.miners),
        census=situation.census,
        link=_link(situation),
    )


def choose_window(read: SiteRead) -> str:
    """Return the smallest window that holds the whole history of a young site, else six hours."""
    return window_since(read.power.first_at, read.read_at)


def window_since(first_at: datetime | None, now: datetime) -> str:
    """Return the smallest window that holds everything since ``first_at``, at most six hours."""
    if first_at is None:
        return "6h"
    return next((name for name, span in WINDOWS.items() if now - first_at <= span <= LONGEST), "6h")


def draw_chart(read: SiteRead, back: timedelta) -> Chart:
    """Return power, plan and price from ``back`` before the read to half of that after it.

    Metered power ends at the tile's own figure.
    """
    axis = series.axis_around(read.read_at, back, back / 2)
    summary = read.summary
    heard = None if heard_now(summary, read.read_at) else summary.as_of if summary.link.up else summary.link.last_heard
    slots = read.plan.slots if read.plan else ()
    planned = read.plan.stops if read.plan else ()
    spans = [*(stop.interval for stop in planned), *(check.interval for check in read.checks)]
    power = list(_in_mw(series.means(axis, read.power.at_s, read.power.power_w)))
    place = axis.place(read.read_at)
    if place is not None and read.summary.power_w is not None:
        power[place] = _mw(read.summary.power_w)
    return Chart(
        axis=axis,
        seconds=axis.seconds,
        power_mw=tuple(power),
        planned_mw=_in_mw(series.planned_power(axis, slots)),
        price_usd_per_mwh=series.prices(axis, read.prices),
        windows=tuple(sorted({_bounds(interval) for interval in spans})),
        bridge_s=series.bridge_s(axis, read.power.at_s),
        unheard_from=None if heard is None else int(heard.timestamp()),
        plan_steps=series.steps(axis, [(slot.interval, _mw(slot.planned_w)) for slot in slots]),
        price_steps=series.steps(axis, [(slot.interval, slot.price_usd_per_mwh) for slot in read.prices]),
    )


def _bounds(interval: Interval) -> tuple[int, int]:
    return int(interval.start.timestamp()), int(interval.end.timestamp())


def _in_mw(values: series.Values) -> series.Values:
    return tuple(None if value is None else _mw(Watts(value)) for value in values)


def _mw(power_w: Watts) -> float:
    return round(megawatts(power_w), 4)


def _tiles(situation: Situation, hashprice: UsdPerPetahashDay) -> tuple[Tile, ...]:
    return (_power_tile(situation), _hash_tile(situation), _earning_tile(situation, hashprice), _miners_tile(situation))


def _power_tile(situation: Situation) -> Tile:
    metered, planned, away = situation.read.summary.power_w, situation.planned_w, situation.off_target_w
    if metered is None:
        return Tile("Power", formats.UNKNOWN, _last_power(situation), Level.UNKNOWN, "site meter")
    level = situation.target_level
    if planned is None or away is None:
        return Tile(
            "Power",
            formats.power(metered),
            (_unplanned(situation),),
            level,
            "site meter",
        )
    aim = "target" if situation.stop else "plan"
    off = _signed_mw(situation)
    if situation.below_by_silent:
        off += f", {plural(situation.census.unknown, 'miner', 'miners')} not known"
    return Tile("Power", formats.power(metered), (f"{aim} {formats.power(planned)} · {off}",), level, "site meter")


def _unplanned(situation: Situation) -> str:
    """Say what is known of the plan where it names no power."""
    if situation.stop is not None:
        return "target not known"
    return "by plan everything runs" if situation.covered else "no plan covers this hour"


def _last_power(situation: Situation) -> Sentence:
    last = situation.read.power.last
    if last is None:
        return ("the site meter does not report",)
    at, power_w = last
    return (f"last known {formats.power(power_w)} at ", at)


def _signed_mw(situation: Situation) -> str:
    figure = situation.off_target(sign=True)
    return "on it" if figure.text.strip("0.") == "" else str(figure)


def _hash_tile(situation: Situation) -> Tile:
    census = situation.census
    if census.hashrate_ths is None:
        return Tile("Hash rate", formats.UNKNOWN, _unheard(situation), Level.UNKNOWN, "devices")
    against = _expected(situation, census.hashrate_ths)
    silent = f" · {plural(census.unknown, 'miner', 'miners')} not known" if census.unknown else ""
    return Tile("Hash rate", formats.hashrate(census.hashrate_ths), (against + silent,), source="devices")


def _unheard(situation: Situation) -> Sentence:
    link, total = situation.read.summary.link, number(situation.census.total)
    if situation.catching_up:
        newest = situation.read.summary.as_of
        return ("none heard yet",) if newest is None else ("newest figures are from ", newest)
    if link.lost:
        return (f"none of {total} heard since ", link.last_heard or situation.now)
    return (f"none of {total} reports",) if situation.census.total else ("no inventory yet",)


def _expected(situation: Situation, hashing: TeraHashPerSecond) -> str:
    """Return what the nameplates promise; a share only where every one is known and no ramp is under way."""
    expected, unknown = situation.census.expected_ths, situation.census.expected_unknown
    if expected is None:
        return "expected not known: no nameplates"
    against = f"expected {formats.hashrate(expected)}"
    if unknown:
        return f"{against} without {plural(unknown, 'nameplate', 'nameplates')} not known"
    if expected > 0 and not situation.settling:
        against += f" · {number((hashing / expected - 1) * 100, 1, sign=True)} %"
    return against


def _earning_tile(situation: Situation, hashprice: UsdPerPetahashDay) -> Tile:
    slot = series.slot_at(situation.read.prices, situation.now)
    price = None if slot is None else slot.price_usd_per_mwh
    metered, hashing = situation.read.summary.power_w, situation.census.hashrate_ths
    if price is None or metered is None or hashing is None:
        missing = "energy price" if price is None else "meter" if metered is None else "hash rate"
        return Tile("Earning now", formats.UNKNOWN, (f"the {missing} is not known",), Level.UNKNOWN, "estimate")
    revenue = hash_revenue_usd_per_h(hashprice, hashing)
    net = revenue - megawatts(metered) * UsdPerMegawattHour(price)
    against = f"energy {formats.price(price)} · hash {number(hashprice, 2)} USD/PH/day"
    return Tile(
        "Earning now",
        Figure(number(net, 0 if abs(net) >= 100 else 2), "USD/h"),
        (against,),
        source="estimate, energy paid",
    )


def _miners_tile(situation: Situation) -> Tile:
    census = situation.census
    if census.total and not census.reporting:
        return Tile("Miners", formats.UNKNOWN, _unheard(situation), Level.UNKNOWN, "devices")
    against = count_words(census) or ("all run" if census.total else "no inventory yet")
    level = Level.HIGH if census.mismatch and not situation.settling else Level.NORMAL
    return Tile(
        "Miners", Figure(number(census.running), f"of {number(census.total)} run"), (against,), level, "devices"
    )


def _link(situation: Situation) -> LinkFacts:
    link = situation.read.summary.link
    if link.last_heard is None:
        state, level = "never heard", Level.UNKNOWN
    elif situation.catching_up:
        state, level = "live, catching up", Level.UNKNOWN
    elif link.up:
        state, level = "live", Level.NORMAL
    else:
        state, level = "lost", Level.UNKNOWN
    clock = link.clock_trust or NOT_KNOWN
    clock = f"{clock} when last heard" if link.lost and link.clock_trust else clock
    return LinkFacts(link, level, state, _plan_held(situation), clock, _meter_check(situation))


def _plan_held(situation: Situation) -> Sentence:
    link, plan = situation.read.summary.link, situation.read.plan
    if plan is None:
        return ("No plan has been made yet.",)
    if link.plan_revision == plan.revision:
        return (f"Holds plan revision {plan.revision}, valid until ", plan.valid.end, ".")
    if link.plan_revision < 1:
        return (f"Holds no plan yet; revision {plan.revision} waits for it.",)
    return (f"Holds plan revision {link.plan_revision}; revision {plan.revision} is not delivered yet.",)


def _meter_check(situation: Situation) -> Sentence:
    metered, census = situation.read.summary.power_w, situation.census
    if metered is None:
        return ("The site meter is not heard now, so nothing can be compared.",)
    heard = f"{number(census.power_reporting)} of {number(census.total)} devices"
    both = f"Meter {formats.power(metered)} · {heard} report {formats.power(census.power_w)}"
    apart = meter_gap_share(situation)
    if apart is not None:
        return (f"{both} · {percent(abs(apart))} apart; fans and losses explain 2 to 4 %.",)
    rest = number(census.total - census.power_reporting)
    return (f"{both}. The other {rest} report no power, so the gap says nothing about losses.",)
